"""Harvard-FairVision, in the publisher's folders and tables."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pydantic import ValidationError

from confide.config import AuditBlock
from confide.datasets import ByFraction, FairVision
from confide.datasets.fairvision import _Copies
from confide.datasets.image_files import Files
from confide.errors import ImageError, MissingFileError, TableError
from confide.runs import run_source
from confide.training.settings import TrainSettings

WORDS = {
    "Glaucoma": ("no", "yes"),
    "DR": ("non-vision threatening dr", "vision threatening dr"),
    "AMD": ("normal", "early amd", "intermediate amd", "late amd"),
}
CLASSES = {
    "no": "healthy",
    "yes": "glaucoma",
    "non-vision threatening dr": "non-vision-threatening DR",
    "vision threatening dr": "vision-threatening DR",
    "normal": "healthy",
    "early amd": "early AMD",
    "intermediate amd": "intermediate AMD",
    "late amd": "late AMD",
}
USES = ("training", "training", "validation", "test")
RACES = ("asian", "black", "white")
N = 8


def summary(disease):
    """The columns of data_summary_<disease>.csv, all of them."""
    rows = np.arange(N)
    frame = pd.DataFrame(
        {
            "filename": [f"data_{i + 1:05d}.npz" for i in rows],
            "age": [(38.59, 56.82, 79.99, 86.05)[i % 4] for i in rows],
            "gender": [("female", "male")[i % 2] for i in rows],
            "race": [RACES[i % 3] for i in rows],
            "ethnicity": [("non-hispanic", "hispanic", "Unknown")[i % 3] for i in rows],
            "language": "english",
            "maritalstatus": [("single", "married or partnered")[i % 2] for i in rows],
        }
    )
    if disease == "Glaucoma":
        frame["md"] = -0.5 * rows
    frame[disease.lower()] = [WORDS[disease][i % len(WORDS[disease])] for i in rows]
    frame["use"] = [USES[i % 4] for i in rows]
    return frame


def pixels(disease, i):
    rng = np.random.default_rng([len(disease), i])
    coarse = Image.fromarray(rng.integers(0, 200, (5, 5), dtype=np.uint8))
    return np.asarray(coarse.resize((24, 18), Image.Resampling.BICUBIC))


def save_slo(path, grey):
    """Grey JPEG files of three channels, as the publisher's."""
    Image.fromarray(np.stack([grey] * 3, axis=-1)).save(path, quality=95, subsampling=0)


def write(folder, *diseases, parts=("Training", "Validation", "Test"), copies=False):
    for disease in diseases:
        frame = summary(disease)
        (folder / disease / "ReadMe").mkdir(parents=True)
        frame.to_csv(
            folder / disease / "ReadMe" / f"data_summary_{disease.lower()}.csv", index=False
        )
        for part in parts:
            (folder / disease / part).mkdir()
        place = dict(zip(("training", "validation", "test"), parts, strict=True))
        for i, use in enumerate(frame["use"]):
            where = folder / disease / place[use]
            save_slo(where / f"slo_fundus_{i + 1:05d}.jpg", pixels(disease, i))
            if copies:
                save_copy(where / f"data_{i + 1:05d}.npz", pixels(disease, i))
    return folder


def save_copy(path, slo):
    np.savez(
        path,
        oct_bscans=np.zeros((4, 5, 5), dtype=np.uint8),
        slo_fundus=slo,
        race=np.array(1),
        male=np.array(0),
        dr_subtype=np.array("mild.npdr"),
    )


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "FairVision", "Glaucoma", "DR", "AMD")


@pytest.fixture
def archived(tmp_path):
    """With the archives."""
    return write(tmp_path / "FairVision", "Glaucoma", "DR", "AMD", copies=True)


def source(folder, **changed):
    return FairVision(**({"path": folder, "size": (18, 24)} | changed))


def test_every_part(folder):
    data = source(folder).load()
    cohort = data.cohort
    assert data.inputs.shape == (3 * N, 1, 18, 24)
    assert np.abs(data.inputs[0, 0].astype(int) - pixels("Glaucoma", 0)).mean() < 3  # JPEG
    assert np.abs(data.inputs[N + 2, 0].astype(int) - pixels("DR", 2)).mean() < 3
    names = [f"{letter}_{i + 1:05d}" for letter in "gda" for i in range(N)]
    assert cohort.record.tolist() == cohort.patient.tolist() == names
    told = [cohort.classes[label] for label in cohort.label]
    assert told == [CLASSES[word] for d in WORDS for word in summary(d)[d.lower()]]
    assert set(cohort.classes) == set(CLASSES.values())
    assert len(cohort.classes) == 7
    assert data.test.tolist() == [False, False, False, True] * 6
    groups = cohort.groups.astype(object).where(cohort.groups.notna(), None)
    assert list(groups) == ["race", "sex", "age", "ethnicity"]
    assert groups["race"].tolist() == [RACES[i % 3] for i in range(N)] * 3
    assert groups["sex"].tolist() == ["female", "male"] * 12
    assert groups["age"].tolist() == ["20-39", "40-59", "60-79", "80+"] * 6
    ethnicity = ("non-hispanic", "hispanic", None)
    assert groups["ethnicity"].tolist() == [ethnicity[i % 3] for i in range(N)] * 3
    assert data.notes == (
        "The folder has the records of Glaucoma, DR, AMD.",
        "Each disease numbers its patients anew; whether the same person is in two of them cannot "
        "be known.",
        "The class non-vision-threatening DR is the publisher's, and holds those without any "
        "retinopathy too.",
        "The class healthy is without the disease that the record was collected for, and may have "
        "another.",
    )


@pytest.mark.parametrize("disease", WORDS)
def test_one_disease(tmp_path, disease):
    data = source(write(tmp_path, disease)).load()
    assert set(data.cohort.classes) == {CLASSES[word] for word in WORDS[disease]}
    assert data.cohort.task == ("multiclass" if disease == "AMD" else "binary")
    assert data.notes[0] == f"The folder has the records of {disease}."
    assert len(data.notes) == 2


def test_two_diseases_and_fewer_groups(tmp_path):
    write(tmp_path, "DR", "AMD")
    chosen = source(tmp_path, groups=["age"], test=ByFraction(fraction=0.25, seed=0)).load()
    assert chosen.cohort.n_patients == 2 * N
    assert list(chosen.cohort.groups) == ["age"]
    assert chosen.test.sum() == 4
    assert chosen.notes[0] == "The folder has the records of DR, AMD."


def test_other_names_of_the_folders(tmp_path, folder):
    """As the publisher's code wants them: tables beside, parts renamed."""
    other = write(tmp_path / "o", "Glaucoma", "DR", "AMD", parts=("train", "val", "test"))
    for disease in WORDS:
        name = f"data_summary_{disease.lower()}.csv"
        (other / disease / "ReadMe" / name).rename(other / name)
    found, expected = source(other).load(), source(folder).load()
    assert np.array_equal(found.inputs, expected.inputs)
    assert found.cohort.record.tolist() == expected.cohort.record.tolist()


def test_copies_in_the_archives(archived):
    data = source(archived, image="npz").load()
    assert data.inputs.shape == (3 * N, 1, 18, 24)
    for row, (disease, i) in {0: ("Glaucoma", 0), N + 3: ("DR", 3), 3 * N - 1: ("AMD", 7)}.items():
        assert np.array_equal(data.inputs[row, 0], pixels(disease, i))
    assert data.cohort.label.tolist() == source(archived).load().cohort.label.tolist()
    three = source(archived, image="npz", channels=3).load().inputs
    assert np.array_equal(three, np.repeat(data.inputs, 3, axis=1))


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_copies_of_fractions(archived, kind):
    path = archived / "Glaucoma" / "Training" / "data_00001.npz"
    save_copy(path, (pixels("Glaucoma", 0) * 0.9 + 0.3).astype(kind))
    opened = source(archived, image="npz").open()
    expected = np.round(pixels("Glaucoma", 0) * 0.9 + 0.3)
    assert np.array_equal(opened.read(np.array([0]))[0, 0], expected)


def test_the_volumes_are_not_read(archived):
    path = archived / "Glaucoma" / "Training" / "data_00001.npz"
    np.savez(path, oct_bscans=np.array([{}], dtype=object), slo_fundus=pixels("Glaucoma", 0))
    opened = source(archived, image="npz").open()
    assert np.array_equal(opened.read(np.array([0]))[0, 0], pixels("Glaucoma", 0))


def test_fingerprints_follow_the_pixels(archived):
    before = {image: source(archived, image=image).open().fingerprint() for image in ("slo", "npz")}
    assert len(set(before.values())) == 2
    volume = archived / "DR" / "Test" / "data_00004.npz"
    save_copy(volume, 255 - pixels("DR", 3))
    assert source(archived).open().fingerprint() == before["slo"]
    assert source(archived, image="npz").open().fingerprint() != before["npz"]


def flat(level, spread):
    """Mean `level`, standard deviation `spread`, in blocks that JPEG keeps."""
    signs = np.where(np.arange(24) // 8 % 2, 1, -1)[None, :] * np.ones((16, 1))
    return (level + spread * signs).astype(np.uint8)


@pytest.mark.parametrize("image", ["slo", "npz"])
def test_images_that_show_nothing(archived, image):
    """At a standard deviation of at most 3, or a mean of at most 1, an image is left out."""
    changed = {1: (100, 0), 2: (100, 2), 3: (90, 6), 5: (0, 0)}
    for number, (level, spread) in changed.items():
        grey = flat(level, spread)[:, :16]
        place = archived / "AMD" / {0: "Training", 1: "Training", 2: "Validation"}[(number - 1) % 4]
        save_slo(place / f"slo_fundus_{number:05d}.jpg", grey)
        save_copy(place / f"data_{number:05d}.npz", grey)
    dark = np.zeros((16, 16), dtype=np.uint8)
    dark[0, :2] = 128  # mean 1, standard deviation 11
    save_copy(archived / "AMD" / "Training" / "data_00006.npz", dark)
    dark[0, :16], dark[:, :8] = 0, 0
    save_slo(archived / "AMD" / "Training" / "slo_fundus_00006.jpg", dark)
    data = source(archived, image=image).load()
    gone = {f"a_{number:05d}" for number in (1, 2, 5, 6)}
    everyone = [f"{letter}_{i + 1:05d}" for letter in "gda" for i in range(N)]
    assert data.cohort.record.tolist() == [name for name in everyone if name not in gone]
    assert data.notes[-1] == (
        "4 of 24 images are left out: their grey values have a standard deviation of at most 3, "
        "or a mean of at most 1."
    )
    last = data.inputs[-1, 0].astype(int)
    assert np.abs(last - pixels("AMD", 7)).mean() < 3


@pytest.mark.parametrize("image", ["slo", "npz"])
def test_a_cache_spares_the_decoding(archived, image, monkeypatch):
    for number in (1, 2):
        place = archived / "DR" / "Training"
        save_slo(place / f"slo_fundus_{number:05d}.jpg", flat(80, 1))
        save_copy(place / f"data_{number:05d}.npz", flat(80, 1))
    plain = source(archived, image=image, size=(64, 64))
    kept = plain.model_copy(update={"cache": archived / "kept"})
    wanted, mark, told = plain.load(), plain.open().fingerprint(), []
    first = kept.telling(lambda *at: told.append(at)).load()
    assert told[0] == (3 * N, 3 * N)
    assert len(list((archived / "kept").glob("*.npy"))) == 1
    for form in (Files, _Copies):
        monkeypatch.setattr(form, "decoded", None)
    for found in (first, kept.load()):
        assert np.array_equal(found.inputs, wanted.inputs)
        assert found.fingerprint() == wanted.fingerprint()
        assert found.notes == wanted.notes
        assert found.cohort.n_records == 3 * N - 2
    rows = np.array([20, 3, 8])
    assert np.array_equal(kept.open().read(rows), wanted.inputs[rows])
    assert kept.open().fingerprint() == mark
    save_slo(archived / "DR" / "Test" / "slo_fundus_00004.jpg", pixels("AMD", 1))
    save_copy(archived / "DR" / "Test" / "data_00004.npz", pixels("AMD", 1))
    monkeypatch.undo()
    assert not np.array_equal(kept.load().inputs, wanted.inputs)
    assert np.array_equal(kept.load().inputs, plain.load().inputs)


def test_the_same_records_at_every_size(archived):
    """Fine stripes are grey when they are small."""
    stripes = np.tile(np.array([[90], [110]] * 64, dtype=np.uint8), (1, 128))
    save_copy(archived / "AMD" / "Training" / "data_00001.npz", stripes)
    save_copy(archived / "AMD" / "Training" / "data_00002.npz", np.repeat(stripes[:64], 2, 0))
    listed = [
        source(archived, image="npz", size=(side, side)).open().cohort.record.tolist()
        for side in (4, 64, 128)
    ]
    assert listed[0] == listed[1] == listed[2]
    assert "a_00001" not in listed[0]
    assert "a_00002" in listed[0]


def test_nothing_is_left(tmp_path):
    write(tmp_path, "AMD")
    for path in tmp_path.rglob("*.jpg"):
        save_slo(path, flat(0, 0))
    with pytest.raises(TableError, match=r"No record is left\. .* 8 of 8 images are left out"):
        source(tmp_path).open()


def test_images_that_are_only_looked_at(archived):
    for disease in WORDS:
        path = archived / disease / "ReadMe" / f"data_summary_{disease.lower()}.csv"
        summary(disease)[["filename", "use"]].to_csv(path, index=False)
    opened = source(archived).unlabelled().open()
    assert opened.cohort.n_records == 3 * N
    assert opened.reading == {"scale": 1.0, "channels": 1}
    again = source(archived, image="npz").unlabelled().open(reading=opened.reading)
    assert again.reading == opened.reading


BAD = {
    "filename": ("../x.npz", r"'filename' in row 5 is '\.\./x\.npz'; expected data_00001\.npz"),
    "use": ("holdout", "'use' in row 5 is 'holdout'; expected 'training' or 'validation' or"),
    "dr": ("mild.npdr", "'dr' in row 5 is 'mild.npdr'; expected 'non-vision threatening dr' or"),
    "age": (-1, "'age' in row 5 is -1.0; expected an age"),
}


@pytest.mark.parametrize("column", BAD)
def test_a_bad_value(folder, column):
    value, message = BAD[column]
    path = folder / "DR" / "ReadMe" / "data_summary_dr.csv"
    frame = summary("DR").astype({column: object})
    frame.loc[5, column] = value
    frame.to_csv(path, index=False)
    with pytest.raises(TableError, match=rf"data_summary_dr\.csv: .*{message}"):
        source(folder).open()


def test_other_spellings_of_groups_are_the_same(folder):
    first = source(folder).listed(folder).frame
    path = folder / "DR" / "ReadMe" / "data_summary_dr.csv"
    frame = pd.read_csv(path)
    frame.loc[0, ["race", "gender"]] = ["Asian ", " FEMALE"]
    frame.loc[2, "ethnicity"] = "unknown "
    frame.to_csv(path, index=False)
    assert source(folder).listed(folder).frame.equals(first)
    frame.loc[1, "race"] = "martian"
    frame.to_csv(path, index=False)
    with pytest.raises(TableError, match=r"'race' in row 1 is 'martian'; expected asian, black, w"):
        source(folder).listed(folder)


@pytest.mark.parametrize("column", ["filename", "use", "dr", "race"])
def test_a_missing_column(folder, column):
    path = folder / "DR" / "ReadMe" / "data_summary_dr.csv"
    summary("DR").drop(columns=column).to_csv(path, index=False)
    with pytest.raises(TableError, match=rf"data_summary_dr\.csv: .*no column '{column}'"):
        source(folder).open()


def test_missing_files(folder, tmp_path):
    with pytest.raises(MissingFileError, match=r"no folder Glaucoma, DR, AMD in .*Harvard-Ophth"):
        source(tmp_path).open()
    (folder / "DR" / "Validation" / "slo_fundus_00003.jpg").unlink()
    with pytest.raises(ImageError, match=r"no image .*slo_fundus_00003\.jpg \(1 of 24"):
        source(folder).open()
    (folder / "AMD" / "ReadMe" / "data_summary_amd.csv").unlink()
    with pytest.raises(MissingFileError, match=r"no AMD/ReadMe/data_summary_amd\.csv or"):
        source(folder).open()


def grown(shape, kind, value=0):
    return lambda path: save_copy(path, np.full(shape, value, dtype=kind))


BAD_COPIES = {
    "no array 'slo_fundus'": lambda path: np.savez(path, oct_bscans=np.zeros((2, 2))),
    "damaged": lambda path: path.write_bytes(path.read_bytes()[:200]),
    r"of shape \(4, 4, 3\)": grown((4, 4, 3), np.uint8),
    "type object": grown((4, 4), object),
    "type int16": grown((4, 4), np.int16),
    "values from nan": grown((4, 4), np.float32, np.nan),
    "values from 300 to 300": grown((4, 4), np.float64, 300),
    "takes 18,000,000 bytes": grown((4500, 4000), np.uint8),
}


@pytest.mark.parametrize("message", BAD_COPIES)
def test_a_bad_copy(archived, message):
    path = archived / "DR" / "Training" / "data_00001.npz"
    BAD_COPIES[message](path)
    with pytest.raises(ImageError, match=rf"^Row 8: .*{message}"):
        source(archived, image="npz").open()
    source(archived).open()


@pytest.mark.filterwarnings("ignore")  # Pillow only warns below twice its limit
def test_an_image_that_is_too_large(folder, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    with pytest.raises(ImageError, match=r"^Row 0: .*00001\.jpg has more than 300 pixels"):
        source(folder).open()


def test_a_bad_image(folder):
    path = folder / "DR" / "Training" / "slo_fundus_00001.jpg"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ImageError, match=r"^Row 8: .*slo_fundus_00001\.jpg is damaged"):
        source(folder).open()


@pytest.mark.parametrize("bad", [{"label": "glaucoma"}, {"groups": ["md"]}, {"image": "oct"}])
def test_settings(tmp_path, bad):
    with pytest.raises(ValidationError):
        source(tmp_path, **bad)


def test_an_audit(folder, tmp_path):
    result = run_source(
        source(folder, size=(16, 16)),
        tmp_path / "out",
        train=TrainSettings(model={"name": "small_cnn", "width": 4}, epochs=1, batch_size=8),
        audit=AuditBlock(n_models=4, attacks=("loss",)),
    )
    assert result.summary["n_patients"] == 18
    assert set(result.groups["group"]) >= {"race", "sex", "age"}
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["notes"][0] == "The folder has the records of Glaucoma, DR, AMD."
