"""EMBED, in the layout of its publisher."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pydantic
import pytest
from PIL import Image

from confide.config import AuditBlock
from confide.datasets import KNOWN, describe
from confide.datasets.embed import Embed
from confide.errors import ImageError, MissingFileError, TableError
from confide.runs.launch import run_source
from confide.training.settings import TrainSettings

sys.path.insert(0, str(Path(__file__).parent))  # tests are imported from files
from dicom_files import write

ROOT = "/mnt/NAS2/mammo/anon_dicom/"  # stands before the paths of the publisher's table
BLACK, WHITE = "African American  or Black", "Caucasian or White"
TOMO = "MG Screen Bilat Tomo/CAD Stnd Protocol"
SCREEN = "MG Screening Bilateral w/CAD"

# patient, exam, description, side, assessment, density, gender, age, race
FINDINGS = [
    (60000001, 3065491565033830, SCREEN, None, "N", 3.0, "Female", 61.2, BLACK),
    (60000001, 9352670611034712, TOMO, "L", "A", 2.0, "Female", 62.9, BLACK),
    (60000001, 9352670611034712, TOMO, "L", "B", 2.0, "Female", 62.9, BLACK),
    (60000001, 9352670611034712, TOMO, "R", "N", 2.0, "Female", 62.9, BLACK),
    (60000002, 4000000000000001, SCREEN, "B", "B", 4.0, "Female", 39.9, WHITE),
    (60000003, 4000000000000002, SCREEN, None, "N", 1.0, "Female", 80.0, "Asian"),
    (60000004, 4000000000000003, SCREEN, "R", "X", 1.0, "Female", None, "Multiple"),
    (60000005, 4000000000000004, SCREEN, None, None, 2.0, "Female", 55.0, "Not Recorded"),
    (60000006, 4000000000000005, "MG Diagnostic Left", "L", "S", 2.0, "Female", 55.0, WHITE),
    (60000007, 4000000000000006, SCREEN, None, "N", 2.0, "Male", 55.0, WHITE),
    (60000008, 4000000000000007, SCREEN, None, "N", 5.0, "Female", 55.0, WHITE),
    (60000008, 4000000000000008, SCREEN, None, "N", None, "Female", 55.0, WHITE),
    (60000008, 4000000000000009, SCREEN, "L", "A", 2.0, "Female", 55.0, WHITE),
    (60000008, 4000000000000009, SCREEN, "R", "N", 3.0, "Female", 55.0, WHITE),
    (60000009, 4000000000000010, None, None, "N", 3.0, "Female", 55.0, WHITE),
]
# patient, exam, type, side, view
IMAGES = [
    (60000001, 3065491565033830, "2D", "L", "MLO"),
    (60000001, 3065491565033830, "2D", "R", "CC"),
    (60000001, 3065491565033830, "cview", "R", "CC"),
    (60000001, 9352670611034712, "2D", "L", "CC"),
    (60000001, 9352670611034712, "2D", "R", "CC"),
    (60000002, 4000000000000001, "2D", "R", "XCCL"),
    (60000003, 4000000000000002, "2D", "L", None),
    (60000004, 4000000000000003, "2D", "L", "MLO"),
    (60000004, 4000000000000003, "2D", "R", "MLO"),
    (60000005, 4000000000000004, "2D", "L", "MLO"),
    (60000006, 4000000000000005, "2D", "L", "MLO"),
    (60000007, 4000000000000006, "2D", "L", "MLO"),
    (60000008, 4000000000000007, "2D", "L", "MLO"),
    (60000008, 4000000000000008, "2D", "L", "MLO"),
    (60000008, 4000000000000009, "2D", "L", "MLO"),
    (60000008, 4000000000000009, "2D", "R", "MLO"),
    (60000009, 4000000000000010, "2D", "R", "MLO"),
    (60000002, 3065491565033830, "2D", "R", "MLO"),  # an exam of another patient
]
KEPT = [0, 1, 3, 4, 5, 6, 7, 8, 9]


def name(i):
    """The end of the path of an image, as long as the publisher's."""
    patient, exam, *_ = IMAGES[i]
    return f"cohort_{1 + patient % 2}/{patient}/1.2.845.{exam}/1.2.842.1/1.2.826.0.1.{i}.dcm"


def clinical(rows):
    """The columns of the reduced clinical table that are known, read or not."""
    read = [
        "empi_anon",
        "acc_anon",
        "desc",
        "side",
        "asses",
        "tissueden",
        "GENDER_DESC",
        "age_at_study",
        "RACE_DESC",
    ]
    frame = pd.DataFrame(rows, columns=read)
    return frame.assign(
        numfind=1,
        bside=None,
        total_L_find=0,
        total_R_find=0,
        massshape=None,
        massmargin=None,
        massdens=None,
        calcfind=None,
        calcdistri=None,
        path_severity=None,
        study_date_anon="2013-05-14",
        ETHNIC_GROUP_DESC="Non-Hispanic or Latino",
    )


def metadata(rows, names):
    read = ["empi_anon", "acc_anon", "FinalImageType", "ImageLateralityFinal", "ViewPosition"]
    frame = pd.DataFrame(rows, columns=read)
    return frame.assign(
        anon_dicom_path=names,
        png_path=None,
        png_filename=None,
        study_date_anon="2013-05-12",
        StudyDescription="MG Screening Bilateral",
        SeriesDescription="L MLO",
        spot_mag=None,
        num_roi=0,
        ROI_coords="()",
        SRC_DST="[]",
        match_level="[]",
        WindowCenter="[2047.0, 2047.0]",
        WindowWidth=4096.0,
    )


@pytest.fixture
def folder(tmp_path):
    """EMBED's own layout, with images of the records that are kept alone."""
    root = tmp_path / "embed"
    (root / "tables").mkdir(parents=True)
    # Written with their row numbers, in a column without a name.
    clinical(FINDINGS).to_csv(root / "tables" / "EMBED_OpenData_clinical_reduced.csv")
    metadata(IMAGES, [ROOT + name(i) for i in range(len(IMAGES))]).to_csv(
        root / "tables" / "EMBED_OpenData_metadata_reduced.csv"
    )
    for i in KEPT:
        path = root / "images" / name(i)
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((20, 16), 200 * i, dtype=np.uint16)
        write(path, pixels, bits=12, WindowCenter=2047, WindowWidth=4096)
    return tmp_path


def source(**changed):
    return Embed(**({"path": "embed", "size": (10, 8)} | changed))


def table(folder, what):
    return folder / "embed" / "tables" / f"EMBED_OpenData_{what}_reduced.csv"


def change(folder, what, old, new, count=1):
    content = table(folder, what).read_text()
    assert old in content
    table(folder, what).write_text(content.replace(old, new, count))


def test_images_of_screening_exams_of_women(folder):
    data = source().load(folder)
    cohort = data.cohort
    assert cohort.record.tolist() == [f"1.2.826.0.1.{i}" for i in KEPT]
    assert cohort.patient.tolist() == [IMAGES[i][0] for i in KEPT]
    assert (cohort.task, cohort.classes) == ("multiclass", ("A", "B", "C", "D"))
    assert [cohort.classes[label] for label in cohort.label] == list("CCBBDAAAB")
    assert data.inputs.shape == (9, 1, 10, 8)
    for row, i in enumerate(KEPT):
        assert np.abs(data.inputs[row].astype(int) - 255 * 200 * i / 4095).max() <= 1
    assert Embed(path="x").size == (64, 48)
    assert KNOWN["embed"] is Embed


def test_what_is_left_out_is_counted(folder):
    assert source().load(folder).notes == (
        "1 image is left out: not 2D (FFDM) but C-view or the like.",
        "4 images are left out: no screening exam of a woman in "
        "EMBED_OpenData_clinical_reduced.csv.",
        "2 images are left out: different densities in the findings of the exam (1 exam).",
        "2 images are left out: no density from 1 to 4 of the exam.",
    )


def test_groups(folder):
    groups = source().load(folder).cohort.groups
    assert list(groups) == ["race", "age", "view", "assessment"]

    def values(group):
        return [None if pd.isna(value) else value for value in groups[group]]

    assert values("race") == ["Black"] * 4 + ["White", "Asian", "Other", "Other", None]
    assert values("age") == ["60-79"] * 4 + ["20-39", "80+", None, None, "40-59"]
    assert values("view") == ["MLO", "CC", "CC", "CC", "other", None, "MLO", "MLO", "MLO"]
    # Of the findings in the image's breast the worst; a bilateral one and one without side are
    # in both; the left breast of 60000004 has no finding.
    assert values("assessment") == ["N", "N", "A", "N", "B", "N", None, "X", None]
    assert describe(source().load(folder))["groups"]["race"]["missing"]["patients"] == 1


def listed(folder):
    """The records that the tables list, without their images."""
    return source().listed(folder / "embed").frame


def test_the_worst_assessment_of_a_breast(folder):
    findings = clinical(FINDINGS)
    two = findings["acc_anon"].eq(9352670611034712) & findings["side"].eq("L")
    for letters in ("NB", "BP", "PA", "AS", "SM", "MK", "XN"):
        for order in (letters, letters[::-1]):
            findings.loc[two, "asses"] = list(order)
            findings.to_csv(table(folder, "clinical"))
            assert listed(folder)["assessment"].tolist()[2:4] == [letters[1], "N"]


def test_races(folder):
    expected = {
        "Native Hawaiian or Other Pacific Islander": "Other",
        "American Indian or Alaskan Native": "Other",
        "African American or Black": "Black",
        "Patient Declines": None,
        "Unknown, Unavailable or Unreported": None,
        None: None,
    }
    findings = clinical(FINDINGS)
    for race, group in expected.items():
        findings.loc[5, "RACE_DESC"] = race
        findings.to_csv(table(folder, "clinical"))
        found = listed(folder)["race"][5]
        assert (None if pd.isna(found) else found) == group


def test_a_density_that_one_row_leaves_open(folder):
    findings = clinical(FINDINGS)
    findings.loc[1, "tissueden"] = np.nan
    findings.to_csv(table(folder, "clinical"))
    assert "".join(listed(folder)["density"]) == "CCBBDAAAB"


def test_whole_tables_beside_the_images(folder):
    first = source().load(folder)
    root = folder / "embed"
    for what in ("clinical", "metadata"):
        table(folder, what).rename(root / f"EMBED_OpenData_{what}.csv")
    for cohort in (root / "images").iterdir():
        cohort.rename(root / cohort.name)
    (root / "images").rmdir()
    data = source().load(folder)
    assert np.array_equal(data.inputs, first.inputs)
    assert data.cohort.groups.equals(first.cohort.groups)


def test_png_by_patient(folder):
    for row, i in enumerate(KEPT):
        (folder / "embed" / "images" / name(i)).unlink()
        place = folder / "embed" / "images" / str(IMAGES[i][0])
        place.mkdir(exist_ok=True)
        pixels = np.full((20, 16), 25 * row, dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"1.2.826.0.1.{i}.png")
    opened = source().open(folder)
    assert opened.frame["file"][0] == "images/60000001/1.2.826.0.1.0.png"
    assert opened.load().inputs[:, 0, 0, 0].tolist() == [25 * row for row in range(9)]


def test_columns_of_groups_that_are_not_there(folder):
    change(folder, "clinical", "age_at_study", "age_at_study_anon")
    data = source().open(folder)
    assert list(data.cohort.groups) == ["race", "view", "assessment"]
    why = "EMBED_OpenData_clinical_reduced.csv has no column 'age_at_study'"
    assert data.notes[-1] == f"The group age is left out: {why}."
    with pytest.raises(TableError, match=f"'age' cannot be made: {why}"):
        source(groups=["age"]).open(folder)


def test_records_to_look_at_need_no_density(folder):
    root = folder / "embed" / "images"
    for i in (12, 13, 14, 15):  # without a density, or with two
        (root / name(i)).parent.mkdir(parents=True, exist_ok=True)
        write(root / name(i), np.full((20, 16), 9, dtype=np.uint8))
    opened = source().unlabelled().open(folder)
    assert opened.cohort.n_records == 13
    assert opened.cohort.classes == ()
    assert len(opened.notes) > 1


@pytest.mark.parametrize(
    ("what", "old", "new", "message"),
    [
        ("clinical", "tissueden", "density", r"clinical_reduced\.csv: .* no column 'tissueden'"),
        (
            "metadata",
            "FinalImageType",
            "Type",
            r"no column 'FinalImageType'.*github\.com/Emory-HITI",
        ),
        ("clinical", "61.2", "old", "'age_at_study' in row 0 is 'old'; expected an age in years"),
        ("metadata", "1.2.826.0.1.3.dcm", "1.2.826.0.1.1.dcm", "'1.2.826.0.1.1' .row 2. is given"),
    ],
)
def test_tables_that_cannot_be_used(folder, what, old, new, message):
    change(folder, what, old, new)
    with pytest.raises(TableError, match=message):
        source().open(folder)


def test_other_spellings_are_the_same(folder):
    first = listed(folder)
    change(folder, "metadata", ",2D,L,", ", 2d,l ,", count=-1)
    change(folder, "clinical", ",L,A,", ",l , a,", count=-1)
    change(folder, "clinical", "Female", " female ", count=3)
    assert listed(folder).equals(first)


@pytest.mark.parametrize(
    ("what", "old", "new", "message"),
    [
        ("metadata", ",2D,L,", ",2D,left,", "'ImageLateralityFinal' in row 0 is 'left'; expected"),
        ("clinical", ",L,A,", ",left,A,", "'side' in row 1 is 'left'; expected L, R, B or nothing"),
        ("clinical", ",L,A,", ",L,Q,", "'asses' in row 1 is 'Q'; expected X, N, B, P, A, S, M, K"),
    ],
)
def test_sides_and_assessments_that_are_none(folder, what, old, new, message):
    change(folder, what, old, new)
    with pytest.raises(TableError, match=message):
        source().open(folder)
    if what == "clinical":  # read for the assessment alone
        assert source(groups=["race"]).open(folder).cohort.n_records == 9


def test_nothing_left(folder):
    change(folder, "metadata", ",2D,", ",cview,", count=-1)
    with pytest.raises(TableError, match=r"No record is left\. 18 images are left out: not 2D"):
        source().open(folder)


def test_files_that_are_not_there_or_elsewhere(folder):
    (folder / "embed" / "images" / name(4)).unlink()
    with pytest.raises(ImageError, match=r"Row 3: .*no image .*1\.2\.826\.0\.1\.4\.dcm \(1 of 9"):
        source().open(folder)
    change(folder, "metadata", ROOT + name(4), "cohort_1/../../../secret.dcm")
    with pytest.raises(ImageError, match="is outside the folder"):
        source().open(folder)
    table(folder, "metadata").unlink()
    message = r"no tables/EMBED_OpenData_metadata_reduced\.csv or .*Emory-HITI/EMBED_Open_Data"
    with pytest.raises(MissingFileError, match=message):
        source().open(folder)


def test_settings():
    with pytest.raises(pydantic.ValidationError, match=r"no 'tissueden' for `label`, only density"):
        source(label="tissueden")
    with pytest.raises(pydantic.ValidationError, match=r"no 'sex' for `groups`, only race, age"):
        source(groups=["sex"])


def test_an_audit(tmp_path):
    """Four models of sixteen women with two images each."""
    root, rng = tmp_path / "embed", np.random.default_rng(0)
    root.mkdir()
    women = [(60000000 + i, 4000000000000000 + i) for i in range(16)]
    clinical(
        [
            (*woman, SCREEN, None, "N", 1.0 + i % 4, "Female", 50.0 + i, (BLACK, WHITE)[i % 2])
            for i, woman in enumerate(women)
        ]
    ).to_csv(root / "EMBED_OpenData_clinical.csv")
    rows = [(*woman, "2D", "L", view) for woman in women for view in ("MLO", "CC")]
    names = [f"{ROOT}cohort_1/{row[0]}/1.2.{i}.dcm" for i, row in enumerate(rows)]
    metadata(rows, names).to_csv(root / "EMBED_OpenData_metadata.csv")
    for i, row in enumerate(rows):
        (root / str(row[0])).mkdir(exist_ok=True)
        pixels = rng.integers(0, 256, (20, 16), dtype=np.uint8)
        Image.fromarray(pixels).save(root / str(row[0]) / f"1.2.{i}.png")
    result = run_source(
        source(size=(20, 16)),
        tmp_path / "out",
        folder=tmp_path,
        train=TrainSettings(
            model={"name": "small_cnn", "width": 4}, epochs=1, batch_size=8, augment="none"
        ),
        audit=AuditBlock(n_models=4),
    )
    assert result.summary["n_patients"] == 13  # three are held out
    assert result.summary["task"] == "multiclass"
    assert set(result.records["label"]) <= set("ABCD")
    assert result.records["group_view"].tolist() == ["MLO", "CC"] * 13
