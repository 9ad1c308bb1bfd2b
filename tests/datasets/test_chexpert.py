"""CheXpert in its publisher's layout, written by the test."""

import sys
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

import confide
from confide import config
from confide.datasets import ByColumn, CheXpert
from confide.errors import ImageError, MissingFileError, TableError

sys.path.insert(0, str(Path(__file__).parent))  # tests are imported from files
from layouts import (
    CHEXPERT_DEMO,
    CHEXPERT_TRAIN,
    CHEXPERT_VALID,
    FINDINGS,
    write_chexpert,
    write_image,
    write_text,
)

NAN = float("nan")
UNCERTAIN = (
    "7 uncertain findings count as 1: Cardiomegaly 1, Edema 1, Consolidation 3, Atelectasis 1, "
    "Pleural Effusion 1."
)
ABSENT = "1 patient has no row in CHEXPERT_DEMO.csv; the race is left unknown."
SMALL = {"size": (16, 16)}
RECORDS = [line.split(",")[0] for line in (*CHEXPERT_TRAIN, *CHEXPERT_VALID)]


@pytest.fixture
def folder(tmp_path):
    return write_chexpert(tmp_path / "CheXpert-v1.0-small")


def source(folder, **changed):
    return CheXpert(**({"path": folder, **SMALL} | changed))


def rewrite(path, old, new, count=1):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, count))


def groups(cohort):
    """Every group as a list, missing as None."""
    table = cohort.groups
    return {name: [None if v != v else v for v in table[name]] for name in table.columns}


def test_records_patients_labels_groups(folder):
    data = source(folder).load()
    cohort = data.cohort
    assert cohort.record.tolist() == RECORDS
    assert cohort.patient.tolist() == [r.split("/")[1] for r in RECORDS]
    assert (cohort.n_records, cohort.n_patients) == (10, 7)
    assert cohort.task == "multilabel"
    assert ",".join(cohort.classes) == FINDINGS
    assert groups(cohort) == {
        "sex": [*["Female"] * 4, "Male", None, *["Male"] * 4],
        "age": ["60-79", "80+", "80+", "80+", "40-59", "0-19", None, "60-79", "20-39", "20-39"],
        "race": ["White", *["Black"] * 3, None, "Other", None, "Asian", "Other", "Other"],
        "view": ["AP", "AP", "PA", "other", "AP", "other", "other", "AP", "PA", "other"],
    }
    assert data.inputs.shape == (10, 1, 16, 16)
    assert data.inputs.dtype == np.uint8
    assert len({image.tobytes() for image in data.inputs}) == 10
    assert data.notes == (UNCERTAIN, ABSENT)


def expected_labels(uncertain, blank):
    """The 14 findings, read from the lines of the test in the plainest way."""
    meaning = {"1.0": 1.0, "0.0": 0.0, "-1.0": uncertain, "": blank}
    lines = (*CHEXPERT_TRAIN, *CHEXPERT_VALID)
    return [[meaning[value] for value in line.split(",")[5:]] for line in lines]


@pytest.mark.parametrize(
    ("uncertain", "one"), [("ones", 1.0), ("zeros", 0.0), ("unknown", NAN), (None, 1.0)]
)
@pytest.mark.parametrize(("blank", "none"), [("unknown", NAN), ("zeros", 0.0), (None, NAN)])
def test_uncertain_and_blank(folder, uncertain, one, blank, none):
    said = {k: v for k, v in {"uncertain": uncertain, "blank": blank}.items() if v}
    label = source(folder, **said).cohort(folder)[1].label
    assert np.array_equal(label, expected_labels(one, none), equal_nan=True)


def test_how_many_findings_are_taken_for_known(folder):
    label = ["Edema", "Pneumothorax"]
    (zeros, blank, _) = source(folder, label=label, uncertain="zeros", blank="zeros").load().notes
    assert zeros == "1 uncertain finding counts as 0: Edema 1."
    lines = [line.split(",")[5:] for line in (*CHEXPERT_TRAIN, *CHEXPERT_VALID)]
    counts = [[line[FINDINGS.split(",").index(name)] for line in lines].count("") for name in label]
    assert blank == (
        f"{sum(counts)} blank findings count as 0: Edema {counts[0]}, Pneumothorax {counts[1]}."
    )
    assert source(folder, label=label, uncertain="unknown").load().notes == (ABSENT,)


def test_other_spellings_are_the_same(folder):
    first = groups(source(folder).load().cohort)
    rewrite(folder / "train.csv", "Female", "female", 2)
    rewrite(folder / "train.csv", ",Male,", ",MALE ,")
    rewrite(folder / "train.csv", "Frontal,AP,", "Frontal, ap,", 2)
    assert groups(source(folder).load().cohort) == first


def test_some_findings_and_one(folder):
    two = source(folder, label=["Edema", "Pneumothorax"]).load().cohort
    assert two.classes == ("Edema", "Pneumothorax")
    assert two.label[:5, 0].tolist()[1] == 1
    one = source(folder, label="Edema", blank="zeros").load().cohort
    assert (one.task, one.classes) == ("binary", ("0", "1"))
    assert one.label.tolist() == [0, 1, 0, 0, 1, 0, 1, 0, 0, 0]
    with pytest.raises(TableError, match=r"train.csv: 3 records have no known 'Edema'; write "):
        source(folder, label="Edema").load()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"label": "Oedema"}, r"no 'Oedema' for `label`, only No Finding, Enl"),
        ({"label": []}, "at least 1 item"),
        ({"groups": ["sex", "insurance"]}, r"no 'insurance' for `groups`, only sex, age, race, v"),
        ({"uncertain": "maybe"}, "'ones', 'zeros' or 'unknown'"),
        ({"record": "Path"}, "Extra inputs"),
    ],
)
def test_settings_that_are_refused(folder, changed, message):
    with pytest.raises(ValidationError, match=message):
        source(folder, **changed)


@pytest.mark.parametrize("above", [False, True])
@pytest.mark.parametrize("inner", ["CheXpert-v1.0", "CheXpert-v1.0-small"])
def test_the_folder_or_the_one_above(tmp_path, inner, above):
    place = write_chexpert(tmp_path / inner, name=inner)
    opened = source(tmp_path if above else place).open()
    assert opened.cohort.record.tolist() == RECORDS
    assert opened.read(np.array([9, 0])).shape == (2, 1, 16, 16)
    assert groups(opened.cohort)["race"][0] == "White"


def test_gzipped_tables_and_the_other_name_of_the_demographics(folder):
    plain = source(folder).load()
    for name in ("train.csv", "valid.csv"):
        write_text(folder / f"{name}.gz", (folder / name).read_text().splitlines())
        (folder / name).unlink()
    (folder / "CHEXPERT_DEMO.csv").rename(folder / "CHEXPERT DEMO.csv")
    assert source(folder).load().fingerprint() == plain.fingerprint()


def test_relative_to_the_configuration(folder):
    assert source(folder.name).load(folder.parent).cohort.n_records == 10


def test_the_split_of_the_publisher_and_by_fraction(folder):
    held = source(folder, test=ByColumn(column="split", value="valid")).load()
    assert held.test.tolist() == [False] * 7 + [True] * 3
    drawn = source(folder, test={"fraction": 0.3, "seed": 1}).load()
    assert np.array_equal(drawn.test, drawn.cohort.split(0.3, 1)[1])


def test_without_demographics(folder):
    (folder / "CHEXPERT_DEMO.csv").unlink()
    data = source(folder).load()
    assert list(data.cohort.groups) == ["sex", "age", "view"]
    note = data.notes[1]
    assert note.startswith(f"The group race is left out: {folder} has no CHEXPERT_DEMO.csv, which")
    assert source(folder, groups=["view"]).load().notes == (UNCERTAIN,)
    with pytest.raises(TableError, match=r"'race' cannot be made: .* has no CHEXPERT_DEMO.csv"):
        source(folder, groups=["race"]).load()


def test_demographics_that_are_no_csv(folder):
    (folder / "CHEXPERT_DEMO.csv").rename(folder / "CHEXPERT DEMO.xlsx")
    with pytest.raises(TableError, match=r"DEMO.xlsx is a spreadsheet; save it as CSV, CHEX"):
        source(folder).load()
    assert list(source(folder, groups=["sex"]).load().cohort.groups) == ["sex"]


def test_demographics_of_others(folder):
    write_text(folder / "CHEXPERT_DEMO.csv", [CHEXPERT_DEMO[0], CHEXPERT_DEMO[-1]])
    with pytest.raises(TableError, match=r"'PATIENT' has none .* ids such as patient00001"):
        source(folder).load()
    rewrite(folder / "CHEXPERT_DEMO.csv", "PRIMARY_RACE", "RACE")
    with pytest.raises(TableError, match=r"DEMO.csv: .* no column 'PRIMARY_RACE'.*Is it the file"):
        source(folder).load()


def test_two_races_of_a_patient_are_none(folder):
    more = ["patient99999,Male,20,Asian,Unknown"]  # of no image
    more += ["patient00001,Female,68,White,Unknown", "patient00002,Female,87,White,Unknown"]
    write_text(folder / "CHEXPERT_DEMO.csv", [*CHEXPERT_DEMO, *more])
    data = source(folder).load()
    assert groups(data.cohort)["race"][:4] == ["White", None, None, None]
    says = "1 patient has two races in CHEXPERT_DEMO.csv; the race is left unknown."
    assert data.notes == (UNCERTAIN, says, ABSENT)


@pytest.mark.parametrize("name", ["train.csv", "valid.csv"])
def test_a_missing_table(folder, name):
    (folder / name).unlink()
    with pytest.raises(MissingFileError, match=rf"no {name} in .*to be had from https://stanford"):
        source(folder).load()


def test_a_missing_folder(tmp_path):
    with pytest.raises(MissingFileError, match=r"no folder .*nowhere; chexpert is to be had from"):
        source(tmp_path / "nowhere").load()


@pytest.mark.parametrize("column", ["Path", "Sex", "Age", "AP/PA", "Pneumonia"])
def test_a_missing_column(folder, column):
    rewrite(folder / "valid.csv", column, "Another")
    with pytest.raises(TableError, match=rf"valid.csv: .*no column '{column}'"):
        source(folder).load()
    if column == "Pneumonia":
        assert source(folder, label=["Edema"]).load().cohort.n_records == 10


def test_values_that_are_refused(folder):
    for old, new, message in (
        (",1.0,,,,,,,,,0.0", ",2.0,,,,,,,,,0.0", r"'No Finding' in row 0 is '?2.0'?; expected"),
        (",Female,", ",woman,", r"'Sex' in row 0 is 'woman'; expected Male, Female, Unknown or no"),
        (",AP,", ",front,", r"'AP/PA' in row 0 is 'front'; expected AP, PA, LL, RL or nothing"),
        (",87,", ",870,", r"'Age' in row 1 is 870.0; expected an age"),
        (",87,", ",old,", r"'Age' in row 1 is 'old'; expected an age"),
        ("patient00002/study2", "patient/study2", r"'Path' in row 1 is .*patient/study2"),
        ("small/train/patient00003", "small/../../patient00003", r"'Path' in row 4 is '"),
        ("CheXpert-v1.0-small/train/patient00003", "/train/patient00003", r"'Path' in row 4"),
        ("small/train/patient00002/study1/view1", "small/train/patient00002/study2/view1", "twice"),
    ):
        text = (folder / "train.csv").read_text()
        rewrite(folder / "train.csv", old, new)
        with pytest.raises(TableError, match=message):
            source(folder).load()
        (folder / "train.csv").write_text(text)


def test_images_that_are_not_there(folder):
    (folder / RECORDS[2]).unlink()
    (folder / RECORDS[9]).unlink()
    with pytest.raises(ImageError, match=r"Row 2: There is no image .*view1_frontal.jpg \(2 of 10"):
        source(folder).open()


def test_an_image_that_leads_out_of_the_folder(folder, tmp_path):
    away = write_image(tmp_path / "away.jpg", 0)
    (folder / RECORDS[4]).unlink()
    (folder / RECORDS[4]).symlink_to(away)
    with pytest.raises(ImageError, match=r"Row 4: .* is outside the folder"):
        source(folder).open()
    (folder / RECORDS[4]).unlink()
    (folder / RECORDS[4]).symlink_to(folder / RECORDS[0])  # a link that stays inside
    assert source(folder).open().cohort.n_records == 10
    rewrite(folder / "valid.csv", RECORDS[7], str(Path(RECORDS[7]).parent / ".."))
    with pytest.raises(ImageError, match=r"Row 7: There is no image"):
        source(folder).open()


def test_records_that_are_only_looked_at(folder):
    rewrite(folder / "train.csv", "Pneumonia", "Another")
    found = source(folder).unlabelled().load()
    assert found.cohort.label.shape == (10, 0)
    assert not found.test.any()
    assert not len(found.cohort.groups.columns)


def test_the_frame_can_be_published_but_not_its_ids(folder):
    opened = source(folder).open()
    assert opened.reserved == ("record", "patient", "file")
    assert {"split", "sex", "age", "race", "view", "Edema"} <= set(opened.frame.columns)


def test_fingerprints_follow_pixels_and_labels(folder):
    def mark(**changed):
        return source(folder, **changed).open().fingerprint()

    first = mark()
    assert mark() == first
    assert mark(uncertain="zeros") != first
    write_image(folder / RECORDS[3], 999)
    assert mark() != first


def test_an_audit_from_a_configuration(folder, tmp_path):
    (tmp_path / "c.yaml").write_text(
        "data:\n"
        "  name: chexpert\n"
        "  path: CheXpert-v1.0-small\n"
        "  label: [Edema, Consolidation]\n"
        "  size: [16, 16]\n"
        "  test: {column: split, value: valid}\n"
        "train: {model: {name: small_cnn, width: 4}, epochs: 1, batch_size: 2}\n"
        "audit: {n_models: 4}\n"
    )
    settings, place = config.load(tmp_path / "c.yaml")
    assert settings.data == source(
        "CheXpert-v1.0-small", label=["Edema", "Consolidation"]
    ).model_copy(update={"test": ByColumn(column="split", value="valid")})
    result = confide.run_source(
        settings.data,
        tmp_path / "out",
        folder=place,
        train=settings.train,
        audit=settings.audit,
        performance=settings.performance,
    )
    assert result.records["record"].tolist() == RECORDS[:7]
    assert len(result.patients) == 5
    assert set(result.groups["group"]) >= {"sex", "age", "race", "view"}
