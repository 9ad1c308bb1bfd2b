"""MIMIC-CXR, in the layout of its publisher."""

import gzip
import io
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pydantic
import pytest
from PIL import Image

from confide.config import AuditBlock
from confide.datasets import KNOWN, describe
from confide.datasets.mimic_cxr import MimicCxr, races
from confide.errors import ImageError, MissingFileError, TableError
from confide.runs.launch import run_source
from confide.training.settings import TrainSettings

sys.path.insert(0, str(Path(__file__).parent))  # tests are imported from files
from dicom_files import write

# dicom_id, subject_id, study_id, ViewPosition
IMAGES = [
    ("02aa804e-bde0afdd", 10000032, 50414267, "PA"),
    ("174413ec-4ec4c1f7", 10000032, 50414267, "LATERAL"),
    ("2a2277a9-b0ded155", 10000032, 53189527, "AP"),
    ("68b5c4b1-227d0485", 10000764, 57375967, "LL"),
    ("8a05c0ba-8ce2d6e4", 10000898, 50771383, "RAO"),
    ("1e647043-3e7299a4", 10000935, 50578979, None),
    ("d7a4e5ba-11d3d4a7", 11000011, 51029426, "AP"),
    ("df96a5f2-c8f4b1e1", 19999987, 55368167, "AP"),
]
METADATA = (
    "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,"
    "StudyDate,StudyTime,ProcedureCodeSequence_CodeMeaning,ViewCodeSequence_CodeMeaning,"
    "PatientOrientationCodeSequence_CodeMeaning\n"
)
LABELS = (
    "subject_id,study_id,Atelectasis,Cardiomegaly,Consolidation,Edema,"
    "Enlarged Cardiomediastinum,Fracture,Lung Lesion,Lung Opacity,No Finding,Pleural Effusion,"
    "Pleural Other,Pneumonia,Pneumothorax,Support Devices\n"
)
CHEXPERT = (
    LABELS
    + """\
10000032,50414267,,,,,,,,,1.0,,,,,
10000032,53189527,,1.0,,-1.0,,,,,,0.0,,,0.0,1.0
10000764,57375967,-1.0,,,,,,,1.0,,,,-1.0,,
10000898,50771383,,0.0,,0.0,,,,,1.0,,,,,
10000935,50578979,,,,,,,1.0,,,,,,,
11000011,51029426,,,,,,,,,,,,,,
19999987,55368167,1.0,,,,,,,,,,,,,0.0
"""
)
NEGBIO = CHEXPERT.replace("53189527,,1.0,,-1.0", "53189527,,0.0,,1.0")
SPLITS = ("train", "train", "train", "validate", "test", "train", "test", "train")
PATIENTS = """\
subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod
10000032,F,52,2180,2014 - 2016,2180-09-09
10000764,M,86,2132,2014 - 2016,
10000898,F,79,2188,2014 - 2016,
10000935,F,52,2182,2008 - 2010,2187-11-12
11000011,M,91,2150,2011 - 2013,
10009999,M,18,2150,2011 - 2013,
"""
ADMISSIONS = (
    "subject_id,hadm_id,admittime,dischtime,deathtime,admission_type,admit_provider_id,"
    "admission_location,discharge_location,insurance,language,marital_status,race,edregtime,"
    "edouttime,hospital_expire_flag\n"
)
# subject_id, admittime, insurance, race
STAYS = [
    (10000032, "2180-06-26 18:27:00", "Medicaid", "WHITE"),
    (10000032, "2180-05-06 22:23:00", "Other", "WHITE - RUSSIAN"),
    (10000764, "2132-10-14 23:31:00", "Medicare", "BLACK/CAPE VERDEAN"),
    (10000764, "2133-10-14 23:31:00", "Medicare", "WHITE"),
    (10000898, "2188-03-01 09:00:00", "", "HISPANIC OR LATINO"),
    (10000898, "2188-04-01 09:00:00", "Private", "HISPANIC/LATINO - CUBAN"),
    (10000935, "2182-01-01 00:00:00", "Medicaid", "PORTUGUESE"),
    (11000011, "2150-02-01 00:00:00", "Private", "ASIAN - CHINESE"),
    (10009999, "2150-02-01 00:00:00", "Private", "WHITE"),
    (10009999, "2150-03-01 00:00:00", "Private", "UNKNOWN"),
]


def metadata(rows):
    lines = [
        f"{image},{subject},{study},CHEST (PA AND LAT),{view or ''},3056,2544,21800506,213014.531,"
        "CHEST (PA AND LAT),postero-anterior,Erect\n"
        for image, subject, study, view in rows
    ]
    return METADATA + "".join(lines)


def admissions(rows):
    lines = [
        f"{subject},{22595853 + i},{time},2190-01-01 10:00:00,,URGENT,P874LG,EMERGENCY ROOM,HOME,"
        f"{insurance},ENGLISH,WIDOWED,{race},,,0\n"
        for i, (subject, time, insurance, race) in enumerate(rows)
    ]
    return ADMISSIONS + "".join(lines)


def place(folder, subject, study):
    made = folder / "files" / f"p{str(subject)[:2]}" / f"p{subject}" / f"s{study}"
    made.mkdir(parents=True, exist_ok=True)
    return made


@pytest.fixture
def folder(tmp_path):
    """Eight images of six patients, the tables gzipped as they are published."""
    root = tmp_path / "mimic-cxr-jpg"
    splits = "".join(
        f"{image},{study},{subject},{side}\n"
        for (image, subject, study, _), side in zip(IMAGES, SPLITS, strict=True)
    )
    root.mkdir()
    for name, content in {
        "metadata": metadata(IMAGES),
        "chexpert": CHEXPERT,
        "negbio": NEGBIO,
        "split": "dicom_id,study_id,subject_id,split\n" + splits,
    }.items():
        (root / f"mimic-cxr-2.0.0-{name}.csv.gz").write_bytes(gzip.compress(content.encode()))
    (root / "patients.csv").write_text(PATIENTS)
    (root / "admissions.csv.gz").write_bytes(gzip.compress(admissions(STAYS).encode()))
    for i, (image, subject, study, _) in enumerate(IMAGES):
        pixels = np.full((30, 20), 30 * i, dtype=np.uint8)
        Image.fromarray(pixels).save(place(root, subject, study) / f"{image}.jpg", quality=95)
    return tmp_path


def source(**changed):
    return MimicCxr(**({"path": "mimic-cxr-jpg", "size": (12, 8)} | changed))


def change(folder, name, old, new):
    """Replace text in a table, gzipped or not."""
    path = next((folder / "mimic-cxr-jpg").glob(f"*{name}.csv*"))
    packed = path.suffix == ".gz"
    content = gzip.decompress(path.read_bytes()) if packed else path.read_bytes()
    assert old.encode() in content
    content = content.replace(old.encode(), new.encode(), 1)
    path.write_bytes(gzip.compress(content) if packed else content)


def test_images_of_patients_with_findings(folder):
    data = source().load(folder)
    cohort = data.cohort
    assert cohort.record.tolist() == [row[0] for row in IMAGES]
    assert cohort.patient.tolist() == [row[1] for row in IMAGES]
    assert cohort.task == "multilabel"
    assert len(cohort.classes) == 14
    assert data.inputs.shape == (8, 1, 12, 8)
    for i in range(8):
        assert np.abs(data.inputs[i].astype(int) - 30 * i).max() <= 2
    columns = [cohort.classes.index(c) for c in ("No Finding", "Cardiomegaly", "Edema")]
    nan = np.nan
    expected = [
        [1, nan, nan],
        [1, nan, nan],  # both images of one study
        [nan, 1, 1],  # -1 is 1 by default
        [nan, nan, nan],
        [1, 0, 0],
        *[[nan, nan, nan]] * 3,
    ]
    assert np.array_equal(cohort.label[:, columns], expected, equal_nan=True)
    assert KNOWN["mimic-cxr"] is MimicCxr
    assert MimicCxr(path="x").size == (64, 64)


def test_groups(folder):
    groups = source().load(folder).cohort.groups
    assert list(groups) == ["sex", "age", "race", "view", "insurance"]

    def values(name):
        return [None if pd.isna(value) else value for value in groups[name]]

    assert values("sex") == ["F", "F", "F", "M", "F", "F", "M", None]
    assert values("age") == ["40-59"] * 3 + ["80+", "60-79", "40-59", "80+", None]
    # White and White - Russian are White; Black and White are inconsistent.
    unclear = "Other/Unknown"
    assert values("race") == ["White"] * 3 + [unclear, "Hispanic", unclear, "Asian", None]
    assert values("view") == ["PA", "LATERAL", "AP", "LL", "other", None, "AP", "AP"]
    # Of the first admission by time, not by row; blank is unknown.
    assert values("insurance") == ["Other"] * 3 + ["Medicare", None, "Medicaid", "Private", None]


def test_notes_count_only_patients_with_images(folder):
    assert source().load(folder).notes == (
        "3 uncertain findings count as 1: Edema 1, Pneumonia 1, Atelectasis 1.",
        "1 patient has different races at different admissions; the race is Other/Unknown.",
    )
    assert describe(source().load(folder))["groups"]["race"]["conflicting_patients"] == 0


@pytest.mark.parametrize(
    "none",
    ["UNKNOWN", "UNABLE TO OBTAIN", "PATIENT DECLINED TO ANSWER", "declined", " unknown ", ""],
)
def test_an_admission_without_an_answer_takes_no_race_away(folder, none):
    change(folder, "admissions", ",WHITE - RUSSIAN,", f",{none},")  # the earlier admission
    change(folder, "admissions", ",ASIAN - CHINESE,", f",{none},")  # the only admission
    data = source().load(folder)
    race = data.cohort.groups["race"].tolist()
    assert race[:4] == ["White"] * 3 + ["Other/Unknown"]  # Black and White are still two answers
    assert race[6] == "Other/Unknown"
    assert any("different races" in note and note.startswith("1 ") for note in data.notes)


def test_another_answer_is_a_different_one(folder):
    change(folder, "admissions", ",WHITE - RUSSIAN,", ",PORTUGUESE,")
    data = source().load(folder)
    assert data.cohort.groups["race"][0] == "Other/Unknown"
    assert any(note.startswith("2 patients have different races") for note in data.notes)


def test_races_by_their_first_word():
    expected = {
        "WHITE - OTHER EUROPEAN": "White",
        "WHITE - BRAZILIAN": "White",
        "BLACK/AFRICAN AMERICAN": "Black",
        "BLACK/CARIBBEAN ISLAND": "Black",
        "ASIAN": "Asian",
        "ASIAN - SOUTH EAST ASIAN": "Asian",
        "HISPANIC OR LATINO": "Hispanic",
        "HISPANIC/LATINO - PUERTO RICAN": "Hispanic",
        "PORTUGUESE": "Other/Unknown",
        "SOUTH AMERICAN": "Other/Unknown",
        "AMERICAN INDIAN/ALASKA NATIVE": "Other/Unknown",
        "NATIVE HAWAIIAN OR OTHER PACIFIC ISLANDER": "Other/Unknown",
        "MULTIPLE RACE/ETHNICITY": "Other/Unknown",
        "UNABLE TO OBTAIN": "Other/Unknown",
        "PATIENT DECLINED TO ANSWER": "Other/Unknown",
        None: "Other/Unknown",
    }
    assert races(pd.Series(list(expected))).tolist() == list(expected.values())


def test_labels_of_negbio_and_other_readings(folder):
    labels = ["Cardiomegaly", "Edema"]
    read = source(labeller="negbio", label=labels).load(folder).cohort
    assert read.label[2].tolist() == [0, 1]
    read = source(label=labels, uncertain="zeros", blank="zeros").load(folder).cohort
    assert read.label[2].tolist() == [1, 0]
    assert not np.isnan(read.label).any()
    one = source(label="Cardiomegaly", blank="zeros").load(folder).cohort
    assert (one.task, one.classes) == ("binary", ("0", "1"))
    assert one.label.tolist() == [0, 0, 1, 0, 0, 0, 0, 0]


def test_images_without_labels_are_left_out(folder):
    change(folder, "chexpert", "10000032,50414267,,,,,,,,,1.0,,,,,\n", "")
    data = source().load(folder)
    assert data.cohort.record.tolist() == [row[0] for row in IMAGES[2:]]
    assert data.inputs[0].mean() == pytest.approx(60, abs=2)
    assert data.cohort.label[0, data.cohort.classes.index("Cardiomegaly")] == 1
    assert data.notes[0] == (
        "2 images are left out: mimic-cxr-2.0.0-chexpert.csv.gz has no row for 1 study."
    )


def test_other_spellings_are_the_same(folder):
    split = {"column": "split", "value": "test"}
    first = source(test=split).load(folder)
    change(folder, "patients", "10000032,F", "10000032, f ")
    change(folder, "admissions", ",Medicare,", ", medicare,")
    change(folder, "split", ",test\n", ",TEST \n")
    found = source(test=split).load(folder)
    assert found.cohort.groups.equals(first.cohort.groups)
    assert np.array_equal(found.test, first.test)
    change(folder, "split", ",validate\n", ",dev\n")
    with pytest.raises(
        TableError, match=r"split\.csv\.gz: .*'split' in row 3 is 'dev'; expected tr"
    ):
        source(test=split).load(folder)


def test_the_publishers_split(folder):
    split = {"column": "split", "value": "test"}
    assert source(test=split).load(folder).test.tolist() == [side == "test" for side in SPLITS]
    change(folder, "split", ",validate\n", ",\n")
    with pytest.raises(TableError, match="'split' of the split is missing in row 3"):
        source(test=split).load(folder)
    next((folder / "mimic-cxr-jpg").glob("*split*")).unlink()
    with pytest.raises(MissingFileError, match=r"There is no mimic-cxr-2\.0\.0-split\.csv in .*"):
        source(test=split).load(folder)
    assert source().load(folder).test.sum() >= 1  # by patient, without the publisher's split


def test_without_mimic_iv(folder):
    root = folder / "mimic-cxr-jpg"
    (root / "admissions.csv.gz").unlink()
    data = source().load(folder)
    assert list(data.cohort.groups) == ["sex", "age", "view"]
    assert [note[:34] for note in data.notes[1:]] == [
        "The group race is left out: it nee",
        "The group insurance is left out: i",
    ]
    (root / "patients.csv").unlink()
    assert list(source().load(folder).cohort.groups) == ["view"]
    message = (
        r"'sex' cannot be made: it needs patients\.csv or hosp/patients\.csv of MIMIC-IV \(http"
    )
    with pytest.raises(TableError, match=message):
        source(groups=["view", "sex"]).load(folder)
    assert source(groups=["view"]).load(folder).notes == data.notes[:1]


def test_tables_of_mimic_iv_in_its_own_folder(folder):
    root = folder / "mimic-cxr-jpg"
    wanted = source().load(folder).cohort.groups
    (root / "hosp").mkdir()
    for name in ("patients.csv", "admissions.csv.gz"):
        (root / name).rename(root / "hosp" / name)
    assert source().load(folder).cohort.groups.equals(wanted)


def test_dicom_files(folder):
    root = folder / "mimic-cxr-jpg"
    for i, (image, subject, study, _) in enumerate(IMAGES):
        (place(root, subject, study) / f"{image}.jpg").unlink()
        pixels = np.full((30, 20), 10 * i, dtype=np.uint8)
        pixels[0] = 255
        write(place(root, subject, study) / f"{image}.dcm", pixels)
    opened = source().open(folder)
    assert opened.frame["file"][0].endswith("p10/p10000032/s50414267/02aa804e-bde0afdd.dcm")
    assert opened.read(np.array([5])).shape == (1, 1, 12, 8)


def test_records_to_look_at_need_no_labels(folder):
    for name in ("chexpert", "negbio", "split"):
        (folder / "mimic-cxr-jpg" / f"mimic-cxr-2.0.0-{name}.csv.gz").unlink()
    data = source().unlabelled().load(folder)
    assert data.cohort.n_records == 8
    assert data.cohort.classes == ()
    with pytest.raises(
        MissingFileError, match=r"no mimic-cxr-2\.0\.0-chexpert\.csv in .*physionet"
    ):
        source().load(folder)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        (
            "chexpert",
            "10000764,57375967,-1.0",
            "10000764,57375967,2.0",
            "'Atelectasis' in row 2 is",
        ),
        ("chexpert", "10000764,57375967", "10000764,s57375967", "'study_id' is missing in some"),
        (
            "chexpert",
            "10000032,53189527",
            "10000032,50414267",
            "subject_id 10000032, study_id 50414267 .row 1. is given twice",
        ),
        ("chexpert", "Edema", "Oedema", "no column 'Edema'.* Did you mean 'Oedema'"),
        ("metadata", ",10000764,", ",,", "'subject_id' is missing in some row or no whole number"),
        (
            "metadata",
            "174413ec-4ec4c1f7",
            "02aa804e-bde0afdd",
            "02aa804e-bde0afdd .row 1. is given",
        ),
        ("metadata", "ViewPosition", "View", "no column 'ViewPosition'.* from https://physionet"),
        ("patients", "F,52,2180", "F,old,2180", "'anchor_age' in row 0 is 'old'; expected an age"),
        ("patients", "10000764,M", "10000032,M", r"subject_id 10000032 \(row 1\) is given twice"),
        ("admissions", "\n10000764,", "\nno,", "'subject_id' is missing in some row or no whole"),
        ("admissions", ",race,", ",ethnicity,", "admissions.csv.gz: .* no column 'race'"),
    ],
)
def test_tables_that_cannot_be_used(folder, name, old, new, message):
    change(folder, name, old, new)
    with pytest.raises(TableError, match=message):
        source().load(folder)


def test_nothing_left(folder):
    path = folder / "mimic-cxr-jpg" / "mimic-cxr-2.0.0-chexpert.csv.gz"
    path.write_bytes(gzip.compress((LABELS + "1,2" + "," * 14 + "\n").encode()))
    with pytest.raises(TableError, match=r"No record is left\. 8 images are left out"):
        source().load(folder)


def test_images_that_are_not_there(folder):
    image, subject, study, _ = IMAGES[4]
    (place(folder / "mimic-cxr-jpg", subject, study) / f"{image}.jpg").unlink()
    with pytest.raises(ImageError, match=r"Row 4: .*no image .*8a05c0ba-8ce2d6e4\.jpg \(1 of 8"):
        source().load(folder)


def test_names_that_lead_elsewhere_are_refused(folder):
    change(folder, "metadata", "8a05c0ba-8ce2d6e4", "../../../../../../secret")
    with pytest.raises(ImageError, match="is outside the folder"):
        source().load(folder)


def test_settings():
    with pytest.raises(pydantic.ValidationError, match="no 'Edemas' for `label`, only No Finding"):
        source(label=["Edemas"])
    with pytest.raises(pydantic.ValidationError, match=r"no 'site' for `groups`, only sex, age"):
        source(groups=["site"])
    with pytest.raises(pydantic.ValidationError, match="labeller"):
        source(labeller="both")


def test_an_audit(tmp_path):
    """Four models of sixteen patients with two images each."""
    root, rng = tmp_path / "mimic-cxr-jpg", np.random.default_rng(0)
    rows = [
        (f"{i:08x}-{k}", 10000000 + i, 50000000 + i, ("PA", "LATERAL")[k])
        for i in range(16)
        for k in range(2)
    ]
    root.mkdir()
    (root / "mimic-cxr-2.0.0-metadata.csv").write_text(metadata(rows))
    labels = pd.read_csv(io.StringIO(LABELS))
    for i in range(16):
        labels.loc[i] = [10000000 + i, 50000000 + i, *rng.choice([1, 0, -1, np.nan], 14)]
    labels.loc[0, labels.columns[2:]] = np.nan  # a report that mentions nothing
    labels.astype({"subject_id": int, "study_id": int}).to_csv(
        root / "mimic-cxr-2.0.0-chexpert.csv", index=False
    )
    for image, subject, study, _ in rows:
        pixels = rng.integers(0, 256, (16, 16), dtype=np.uint8)
        Image.fromarray(pixels).save(place(root, subject, study) / f"{image}.jpg")
    result = run_source(
        source(size=(16, 16)),
        tmp_path / "out",
        folder=tmp_path,
        train=TrainSettings(
            model={"name": "small_cnn", "width": 4}, epochs=1, batch_size=8, augment="none"
        ),
        audit=AuditBlock(n_models=4),
    )
    assert result.summary["n_patients"] == 13  # three are held out
    assert result.summary["task"] == "multilabel"
    assert result.records["group_view"].tolist() == ["PA", "LATERAL"] * 13
    assert result.records["auc"].isna().tolist() == [True] * 2 + [False] * 24  # nothing is known
