import base64
import io
import json

import numpy as np
import pytest
import yaml
from PIL import Image

from confide.config import parse
from confide.errors import ArgumentError, ConfigError, MismatchError
from confide.reports.patients_view import at_risk
from confide.runs import analyse, run
from confide.runs.launch import split
from confide.runs.thumbnails import MOST_RECORDS, Pictures
from confide.training.base import FunctionTrainer

BLOCK = {"name": "phantom", "n_patients": 60, "size": [16, 16], "test": {"fraction": 0.2}}


@pytest.fixture(scope="module")
def phantom():
    return parse({"data": BLOCK}).data.load()


@pytest.fixture(scope="module")
def audited(phantom, tmp_path_factory):
    """An audit of made-up images, by a model that gives away the first six patients."""
    cohort, heldout = split(phantom)
    given_away = np.isin(cohort.patient_index, np.arange(6))
    noise = np.random.default_rng(0)

    def fit(train, seed):
        n = cohort.n_records
        member = np.zeros(n, dtype=bool)
        member[train] = True
        sign = np.where(np.resize(cohort.label, n) > 0, 1.0, -1.0)
        z = np.zeros(n + heldout.n_records)
        z[:n] = sign * 8 * (member & given_away)
        return (z + noise.normal(0, 0.5, len(z)))[:, None]

    out = tmp_path_factory.mktemp("images") / "audit"
    run(
        cohort,
        FunctionTrainer(fit, "planted"),
        out,
        heldout=heldout,
        n_models=32,
        config={"data": BLOCK},
        fingerprint=phantom.fingerprint(),
    )
    return out


def _pictures(page):
    parts = page.split('<img src="data:image/png;base64,')[1:]
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(p.split('"')[0])))) for p in parts]


def test_by_default_neither_images_nor_ids(audited):
    page = (audited / "report.html").read_text()
    assert _pictures(page) == []
    assert "phantom-0" not in page


def test_images_are_those_of_the_records(audited, phantom):
    result = analyse(audited, show_images=True, show_ids=True)
    page = (audited / "report.html").read_text()
    assert "This report names patients and shows their images." in page
    shown = _pictures(page)
    listed = at_risk(result, 5000)
    assert len(listed)
    place = {record: i for i, record in enumerate(phantom.cohort.record)}
    expected = []
    for patient in listed["patient"]:
        own = result.records[result.records["patient"] == patient]
        own = own.sort_values("auc", ascending=False, kind="stable").head(MOST_RECORDS)
        expected += [phantom.inputs[place[record]][0] for record in own["record"]]
        assert patient in page
    assert len(shown) == len(expected)
    for found, image in zip(shown, expected, strict=True):
        assert np.array_equal(found, image)


def test_a_configuration_says_where_the_images_lie(audited, tmp_path):
    config = tmp_path / "phantom.yaml"
    config.write_text(yaml.safe_dump({"data": BLOCK}))
    manifest = json.loads((audited / "manifest.json").read_text())
    assert Pictures.of(audited, manifest, config).data.inputs.shape[1:] == (1, 16, 16)
    config.write_text(yaml.safe_dump({"data": BLOCK | {"seed": 1}}))
    with pytest.raises(MismatchError, match="their fingerprints differ"):
        Pictures.of(audited, manifest, config)


def test_where_there_is_nothing_to_show_it_is_said(audited, tmp_path):
    with pytest.raises(ArgumentError, match="was not trained from a configuration"):
        Pictures.of(audited, {"config": {}})
    table = {"config": {"data": {"name": "embedded"}}}
    with pytest.raises(ArgumentError, match="are no images"):
        Pictures.of(audited, table)
    images = {"config": {"data": {"name": "images", "patient": "p", "label": "l", "image": "f"}}}
    with pytest.raises(ConfigError, match="add --config CONFIG"):
        Pictures.of(audited, images)
    with pytest.raises(ArgumentError, match="add --show-images"):
        analyse(audited, config=tmp_path / "c.yaml")
