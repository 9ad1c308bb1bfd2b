"""Releases as the data of an audit: whose code is whose, in which order, and what is refused."""

import shutil

import numpy as np
import pytest

from confide.config import load, parse
from confide.encoders.base import Encoder
from confide.encoders.key import unlock
from confide.errors import ConfigError, ReleaseError, TableError
from confide.runs.challenge import export_challenge
from confide.runs.encode import encode
from runs.coding import PHANTOM, make, new_key, rows_differ, write

SITES = ("a", "b")


@pytest.fixture(scope="module")
def releases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("releases")
    for seed, site in enumerate(SITES):
        make(folder, site, PHANTOM | {"seed": seed}, columns=["sex"], pseudonyms=True)
    make(folder, "anonymous")
    shutil.rmtree(folder / "anonymous.private")
    return folder


def opened(folder, *paths, **settings):
    data = {"name": "release", "path": list(paths), "label": "label"} | settings
    return parse({"data": data}).data.open(folder)


def plain(seed=0):
    return parse({"data": PHANTOM | {"seed": seed}}).data.open()


def ids(cohort):
    return cohort.record.tolist(), cohort.patient.tolist(), cohort.label.tolist()


def test_records_stand_as_in_the_table_that_was_encoded(releases):
    codes, records = opened(releases, "a", groups=["sex"]), plain()
    assert ids(codes.cohort) == ids(records.cohort)
    assert codes.cohort.groups["sex"].tolist() == records.cohort.groups["sex"].tolist()
    assert "RELEASE.private" in codes.notes[0]


def test_each_record_has_its_own_code(releases):
    """Read backwards, a code is what the key makes of the pixels of its record."""
    codes, records = opened(releases, "a"), plain()
    rows = np.arange(codes.cohort.n_records)[::-1]
    read = codes.read(rows)
    assert (read.shape, read.dtype) == ((len(rows), *codes.shape), np.float32)
    expected = Encoder.from_key(releases / "a.key")(records.read(rows))
    for found, wanted in zip(read, expected, strict=True):
        assert rows_differ(found, wanted) < 1e-5


def test_who_is_held_out(releases):
    """By default those whom the site encoded for a test; or the same draw as of plain records."""
    codes = opened(releases, "a")
    split = codes.frame["split"].to_numpy()
    assert codes.test.tolist() == (split == "test").tolist()
    assert 0 < codes.test.sum() < len(split)
    drawn = opened(releases, "a", test={"fraction": 0.4})
    assert drawn.test.tolist() == plain().test.tolist()


def test_a_patient_of_two_sites_is_two(releases):
    codes = opened(releases, *SITES, site=["x", "y"])
    first, second = plain(0).cohort, plain(1).cohort
    assert codes.cohort.patient.tolist() == [
        *(f"x/{one}" for one in first.patient),
        *(f"y/{one}" for one in second.patient),
    ]
    assert codes.cohort.label.tolist() == [*first.label, *second.label]
    rows = np.array([0, first.n_records, 1, first.n_records + 1])
    each = [opened(releases, site).read(np.array([0, 1])) for site in SITES]
    expected = np.stack([each[0][0], each[1][0], each[0][1], each[1][1]])
    assert np.array_equal(codes.read(rows), expected)


def test_pseudonyms_will_do(releases, tmp_path):
    shutil.copytree(releases / "a", tmp_path / "a")
    codes, known = opened(tmp_path, "a"), opened(releases, "a")
    assert set(codes.cohort.patient) == {f"P{i + 1}" for i in range(24)}
    assert codes.cohort.record.tolist() == list(range(codes.cohort.n_records))
    # The same groups of codes, under other names.
    code = known.frame["code"].to_numpy()
    names = codes.cohort.patient[code]
    pairs = set(zip(names, known.cohort.patient, strict=True))
    assert len(pairs) == known.cohort.n_patients == codes.cohort.n_patients


def test_without_patients_there_is_no_audit(releases):
    with pytest.raises(ReleaseError, match=r"Nothing tells which codes of .*anonymous"):
        opened(releases, "anonymous")
    with pytest.raises(ReleaseError, match="Nothing tells"):
        opened(releases, "a", "anonymous")


def test_a_fingerprint_is_that_of_one_release(releases, tmp_path):
    marks = {site: opened(releases, site).fingerprint() for site in SITES}
    assert len(set(marks.values())) == 2
    shutil.copytree(releases / "a", tmp_path / "a")
    shutil.copytree(releases / "a.private", tmp_path / "a.private")
    assert opened(tmp_path, "a").fingerprint() == marks["a"]


def test_unlike_codes_are_refused(releases, tmp_path):
    for site in SITES:
        shutil.copytree(releases / site, tmp_path / site)
    make(tmp_path, "wide", width=8, pseudonyms=True)
    with pytest.raises(ReleaseError, match=r"has codes of shape \(4, 8\), .* of \(4, 16\)"):
        opened(tmp_path, "a", "wide")


def test_settings_that_do_not_fit(releases):
    with pytest.raises(ConfigError, match="as many different names under `site`"):
        opened(releases, *SITES, site=["x"])
    with pytest.raises(TableError, match="mood"):
        opened(releases, "a", label="mood")
    with pytest.raises(TableError, match="age"):
        opened(releases, "a", groups=["age"])


def test_codes_are_not_encoded_again(releases, tmp_path):
    data = {"name": "release", "path": str(releases / "a"), "label": "label"}
    config = write(tmp_path, "again", data=data, encode={"patch": 4, "width": 8})
    for i, command in enumerate((encode, export_challenge)):
        with pytest.raises(ConfigError, match="holds codes already"):
            command(*load(config), new_key(tmp_path, f"k{i}"), tmp_path / "r", unlock=unlock)
    assert not (tmp_path / "r").exists()
