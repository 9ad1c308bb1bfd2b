"""Fitzpatrick17k, in the publisher's table and with images named by their hash."""

import gzip
import hashlib
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pydantic import ValidationError

from confide.config import AuditBlock
from confide.datasets import ByFraction, Fitzpatrick17k, describe, fitzpatrick17k
from confide.datasets.fitzpatrick17k import NO_SKIN
from confide.errors import ImageError, MissingFileError, TableError
from confide.runs import run_source
from confide.training.settings import TrainSettings

NINE = ("inflammatory", "malignant melanoma", "benign dermal", "malignant dermal")
THREE = ("non-neoplastic", "malignant", "benign", "malignant")
QC = {3: "1 Diagnostic", 7: "1 Diagnostic", 4: "3 Wrongly labelled", 5: "5 Potentially"}


def md5(i):
    return hashlib.md5(str(i).encode(), usedforsecurity=False).hexdigest()


def table(n=16):
    """The columns of fitzpatrick17k.csv, all of them."""
    rows = np.arange(n)
    return pd.DataFrame(
        {
            "md5hash": [md5(i) for i in rows],
            "fitzpatrick_scale": [(-1, 1, 2, 3, 4, 5, 6)[i % 7] for i in rows],
            "fitzpatrick_centaur": [(6, 5, -1)[i % 3] for i in rows],
            "label": [("psoriasis", "lupus", "acne")[i % 3] for i in rows],
            "nine_partition_label": [NINE[i % 4] for i in rows],
            "three_partition_label": [THREE[i % 4] for i in rows],
            "qc": [QC.get(int(i)) for i in rows],
            "url": [f"https://example.org/{i}.jpg" for i in rows],
            "url_alphanum": [f"httpsexampleorg{i}jpg" for i in rows],
        }
    )


def save_image(folder, name, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels).resize((20, 16), Image.Resampling.BICUBIC)
    picture.save(folder / f"{name}.jpg", quality=95)


def write(folder, frame, place="", lost=()):
    (folder / place).mkdir(parents=True, exist_ok=True)
    frame.to_csv(folder / "fitzpatrick17k.csv", index=False)
    for i, name in enumerate(frame["md5hash"]):
        if i not in lost:
            save_image(folder / place, name, i)
    return folder


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "fitz", table())


def source(folder, **changed):
    return Fitzpatrick17k(**({"path": folder, "size": (16, 16)} | changed))


def test_every_part(folder):
    data = source(folder).load()
    cohort = data.cohort
    assert data.inputs.shape == (16, 3, 16, 16)
    for row in (0, 11):
        with Image.open(folder / f"{md5(row)}.jpg") as picture:
            expected = np.asarray(picture.resize((16, 16), Image.Resampling.BILINEAR))
        assert np.array_equal(np.moveaxis(data.inputs[row], 0, -1), expected)
    assert cohort.record.tolist() == cohort.patient.tolist() == [md5(i) for i in range(16)]
    assert (cohort.task, cohort.classes) == (
        "multiclass",
        ("benign", "malignant", "non-neoplastic"),
    )
    assert cohort.label.tolist() == [2, 1, 0, 1] * 4
    assert np.flatnonzero(data.test).tolist() == [3, 7]  # other remarks stay in training
    bands = [None, "I/II", "I/II", "III/IV", "III/IV", "V/VI", "V/VI"]
    assert list(cohort.groups) == ["skin_type", "skin_type_centaur"]
    found = cohort.groups.astype(object).where(cohort.groups.notna(), None)
    assert found["skin_type"].tolist() == [bands[i % 7] for i in range(16)]
    assert found["skin_type_centaur"].tolist() == [("V/VI", "V/VI", None)[i % 3] for i in range(16)]
    assert len(data.notes) == 1
    assert "each image counts as a patient of its own" in data.notes[0]
    assert "risk is then understated" in data.notes[0]


def test_labels_groups_and_split(folder):
    nine = source(folder, label="nine_partition_label", groups=["skin_type_centaur"]).load()
    assert nine.cohort.classes == tuple(sorted(NINE))
    assert list(nine.cohort.groups) == ["skin_type_centaur"]
    many = source(folder, label="label", test=ByFraction(fraction=0.25, seed=1), channels=1).load()
    assert many.cohort.classes == ("acne", "lupus", "psoriasis")
    assert many.test.sum() == 4
    assert many.inputs.shape == (16, 1, 16, 16)
    # The remarks are read for the publisher's split alone.
    table().drop(columns="qc").to_csv(folder / "fitzpatrick17k.csv", index=False)
    assert source(folder, test={"fraction": 0.25, "seed": 1}).load().test.sum() == 4
    with pytest.raises(TableError, match=r"no column 'qc'.*fitzpatrick17k from https://github"):
        source(folder).load()


def test_images_that_are_only_looked_at(folder):
    table()[["md5hash"]].to_csv(folder / "fitzpatrick17k.csv", index=False)
    opened = source(folder).unlabelled().open()
    assert opened.cohort.n_records == 16
    assert opened.reading == {"scale": 1.0, "channels": 3}


@pytest.mark.parametrize("place", ["images", "data/finalfitz17k"])
def test_places_of_the_images(folder, tmp_path, place):
    other = write(tmp_path / "other", table(), place)
    (other / "images").mkdir(exist_ok=True)
    found = source(other).load()
    assert np.array_equal(found.inputs, source(folder).load().inputs)


def test_three_images_show_no_skin(tmp_path):
    frame = table()
    frame.loc[[2, 9, 12], "md5hash"] = sorted(NO_SKIN)
    folder = write(tmp_path, frame, lost=[9])  # nobody needs their files
    data = source(folder).load()
    assert data.cohort.n_records == 13
    assert not set(data.cohort.record) & NO_SKIN
    assert np.flatnonzero(data.test).tolist() == [2, 6]
    assert data.notes[1:] == ("3 images that show no skin are left out.",)


def test_images_that_could_not_be_downloaded(tmp_path):
    folder = write(tmp_path, table(), lost=[4, 7, 15])
    with pytest.raises(
        MissingFileError,
        match=rf"fitzpatrick17k\.csv: Row 4: There is no image .*{md5(4)}\.jpg \(3 of 16 images "
        r"are not there\).*write `missing: leave_out`",
    ):
        source(folder).open()
    data = source(folder, missing="leave_out").load()
    assert data.cohort.record.tolist() == [md5(i) for i in range(16) if i not in (4, 7, 15)]
    assert np.flatnonzero(data.test).tolist() == [3]
    assert data.notes[1:] == ("3 of 16 rows are left out: their image is not in the folder.",)
    with Image.open(folder / f"{md5(5)}.jpg") as picture:
        expected = np.asarray(picture.resize((16, 16), Image.Resampling.BILINEAR))
    assert np.array_equal(np.moveaxis(data.inputs[4], 0, -1), expected)


def test_no_image_at_all(tmp_path):
    folder = write(tmp_path, table(), lost=range(16))
    with pytest.raises(MissingFileError, match=r"\(16 of 16 images are not there\)"):
        source(folder).open()
    with pytest.raises(TableError, match=r"No record is left.*16 of 16 rows are left out"):
        source(folder, missing="leave_out").open()


def test_a_page_instead_of_an_image(folder):
    (folder / f"{md5(6)}.jpg").write_text("<html>gone</html>")
    with pytest.raises(ImageError, match=rf"{md5(6)}\.jpg is not"):
        source(folder, missing="leave_out").load()


def test_a_link_out_of_the_folder(folder, tmp_path):
    away = tmp_path / "away.jpg"
    (folder / f"{md5(6)}.jpg").rename(away)
    (folder / f"{md5(6)}.jpg").symlink_to(away)
    with pytest.raises(ImageError, match="outside the folder"):
        source(folder).open()


BAD = {
    "md5hash": ("../../etc/passwd", r"Column 'md5hash' in row 5 is '\.\./.*expected 32 digits"),
    "fitzpatrick_scale": (7, "Column 'fitzpatrick_scale' in row 5 is 7; expected a skin type"),
    "fitzpatrick_centaur": (2.5, "'fitzpatrick_centaur' in row 5 is 2.5; expected a skin type"),
    "qc": ("6 Unsure", "Column 'qc' in row 5 is '6 Unsure'; expected 1 Diagnostic, 2 Char"),
    "nine_partition_label": ("malign", "'nine_partition_label' in row 5 is 'malign'; expected inf"),
    "three_partition_label": (None, "Label 'three_partition_label' is missing in row 5"),
}


@pytest.mark.parametrize("column", BAD)
def test_a_bad_value(folder, column):
    value, message = BAD[column]
    frame = table().astype({column: object})
    frame.loc[5, column] = value
    frame.to_csv(folder / "fitzpatrick17k.csv", index=False)
    label = {"label": column} if "partition" in column else {}
    with pytest.raises(TableError, match=message):
        source(folder, **label).open()


@pytest.mark.parametrize("label", ["three_partition_label", "label"])
def test_other_spellings_are_the_same(folder, label):
    first = source(folder, label=label).open()
    frame = table()
    frame.loc[3, "qc"] = "1 diagnostic "
    frame.loc[5, label] = f" {frame.loc[5, label].capitalize()} "
    frame.to_csv(folder / "fitzpatrick17k.csv", index=False)
    found = source(folder, label=label).open()
    assert found.cohort.classes == first.cohort.classes
    assert found.cohort.label.tolist() == first.cohort.label.tolist()
    assert found.test.tolist() == first.test.tolist()


def test_an_image_given_twice(folder):
    frame = table()
    pd.concat([frame, frame[:1]]).to_csv(folder / "fitzpatrick17k.csv", index=False)
    with pytest.raises(TableError, match="is given twice"):
        source(folder).open()


def test_no_table(tmp_path):
    with pytest.raises(MissingFileError, match=r"no fitzpatrick17k\.csv in .*github\.com/mattgroh"):
        source(tmp_path).open()


@pytest.mark.parametrize("bad", [{"label": "qc"}, {"groups": ["sex"]}, {"missing": "ignore"}])
def test_settings(tmp_path, bad):
    with pytest.raises(ValidationError):
        source(tmp_path, **bad)


def test_an_audit(folder, tmp_path):
    found = describe(source(folder).load())
    assert found["near_duplicates_across_patients"]["sets"] == 0
    result = run_source(
        source(folder),
        tmp_path / "out",
        train=TrainSettings(model={"name": "small_cnn", "width": 4}, epochs=1, batch_size=8),
        audit=AuditBlock(n_models=4, attacks=("loss",)),
    )
    assert result.records["record"].tolist() == [md5(i) for i in range(16) if i not in (3, 7)]
    assert set(result.groups["group"]) <= {"skin_type", "skin_type_centaur"}
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert "each image counts as a patient of its own" in manifest["notes"][0]


def test_the_publishers_labels(real_data, tmp_path, monkeypatch):
    """The real table, as if every image were there."""
    path = real_data / "fitzpatrick17k_labels_nc" / "labels.csv.gz"
    if not path.is_file():
        pytest.skip("no fitzpatrick17k_labels_nc among the real data")
    (tmp_path / "fitzpatrick17k.csv").write_bytes(gzip.decompress(path.read_bytes()))
    monkeypatch.setattr(
        fitzpatrick17k, "_found", lambda root, ids: ("", np.ones(len(ids), dtype=bool))
    )
    listed, cohort, test = Fitzpatrick17k(path=tmp_path).cohort(tmp_path)
    assert cohort.n_records == cohort.n_patients == 16_577 - 3
    assert "3 images that show no skin are left out." in listed.notes
    assert test.sum() == 348
    counts = dict(zip(cohort.classes, np.bincount(cohort.label).tolist(), strict=True))
    assert counts == {"benign": 2_234, "malignant": 2_263, "non-neoplastic": 12_080 - 3}
    skin = cohort.groups["skin_type"]
    assert skin.value_counts().to_dict() == {"I/II": 7_755, "III/IV": 6_089, "V/VI": 2_168}
    assert skin.isna().sum() == 565 - 3
    centaur = cohort.groups["skin_type_centaur"]
    assert centaur.value_counts().to_dict() == {"I/II": 8_741, "III/IV": 4_908, "V/VI": 1_855}
    assert centaur.isna().sum() == 1_073 - 3
    for label, n_classes in (("nine_partition_label", 9), ("label", 114)):
        _, found, _ = Fitzpatrick17k(path=tmp_path, label=label).cohort(tmp_path)
        assert len(found.classes) == n_classes
