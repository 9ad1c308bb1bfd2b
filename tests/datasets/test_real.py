"""Real data, where the environment variable CONFIDE_DATA says they are."""

import resource

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from confide.datasets import ByColumn, Images, Table, describe
from confide.errors import TableError


def needs(folder, name):
    if not (folder / name).is_dir():
        pytest.skip(f"no {name} among the real data")
    return folder / name


def test_diabetes130(real_data):
    folder = needs(real_data, "diabetes130")
    source = Table(
        path="records.csv.gz",
        patient="patient_nbr",
        label="readmitted",
        groups=["race", "gender", "age"],
        record="encounter_id",
    )
    data = source.load(folder)
    found = describe(data)
    assert (found["records"], found["patients"]) == (81_665, 57_327)
    assert found["records_per_patient"]["counts"]["1"] == 43_860
    assert found["records_per_patient"]["max"] == 40
    assert found["labels"] == {"<30": 9_127, ">30": 28_546, "NO": 43_992}
    race = found["groups"]["race"]
    assert race["missing"]["records"] == 1_809
    assert race["values"]["Asian"]["records"] == 489
    assert (race["conflicting_patients"], found["groups"]["gender"]["conflicting_patients"]) == (
        95,
        3,
    )
    assert found["missing"]["weight"] == 79_067
    assert found["test_patients"] == round(0.2 * 57_327)
    assert "max_glu_serum=None" in data.feature_names  # not measured, which is no gap
    assert not {"race", "gender", "age"} & {name.split("=")[0] for name in data.feature_names}
    assert any("admission_type_id" in note for note in data.notes)
    assert np.isfinite(data.inputs).all()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB, of the whole test run
    assert peak < 2 * 2**20


def test_nih_cxr64(real_data):
    folder = needs(real_data, "nih_cxr64")
    source = Images(
        path="metadata.csv",
        array="images.npz",
        patient="patient_id",
        label="abnormal",
        groups={"sex": [], "age": [40, 60]},
        record="image",
    )
    data = source.load(folder)
    found = describe(data)
    assert (found["records"], found["patients"]) == (895, 219)
    assert found["labels"] == {"0": 418, "1": 477}
    assert found["groups"]["sex"]["values"]["M"] == {"patients": 124, "records": 421}
    assert found["duplicates_across_patients"]["sets"] == 0
    assert np.array_equal(data.inputs[:, 0], np.load(folder / "images.npz")["images"])
    # The split that came with these images puts patients on both sides.
    split = ByColumn(column="source_folder", value="test/1_abnormal")
    with pytest.raises(TableError, match="is on both sides of the split"):
        source.model_copy(update={"test": split}).load(folder)


def test_cxr_open(real_data):
    folder = needs(real_data, "cxr_open")
    source = Images(
        path="metadata.csv",
        images="images",
        patient="patient_id",
        label="view",
        groups=["sex"],
        size=(32, 48),
    )
    data = source.load(folder)
    found = describe(data)
    assert (found["records"], found["patients"]) == (192, 60)
    assert found["labels"] == {"AP": 149, "PA": 43}
    assert found["groups"]["sex"]["missing"] == {"patients": 3, "records": 3}
    assert data.inputs.shape == (192, 1, 32, 48)
    first = pd.read_csv(folder / "metadata.csv")["image"][0]
    with Image.open(folder / "images" / first) as image:
        expected = np.asarray(image.resize((48, 32), Image.Resampling.BILINEAR))
    assert np.array_equal(data.inputs[0, 0], expected)


def test_ham10000(real_data):
    folder = needs(real_data, "ham10000_nc")
    source = Images(
        path="metadata.csv",
        array="images28_gray.npz",
        patient="lesion_id",
        label="dx",
        size=(28, 28),
    )
    found = describe(source.load(folder))
    assert (found["records"], found["patients"]) == (8_008, 5_955)
    assert found["labels"]["nv"] == 5_362


def test_mimic3_demo(real_data):
    folder = needs(real_data, "mimic3_demo")
    source = Table(path="admissions.csv", patient="subject_id", label="admission_type")
    found = describe(source.load(folder))
    assert (found["records"], found["patients"]) == (129, 100)
    assert found["labels"] == {"ELECTIVE": 8, "EMERGENCY": 119, "URGENT": 2}
