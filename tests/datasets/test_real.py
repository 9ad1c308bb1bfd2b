"""Real data, where the environment variable CONFIDE_DATA says they are."""

import resource

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from confide.datasets import ByColumn, Images, Table, describe
from confide.datasets.dicom import look, read_dicom
from confide.datasets.features import may_identify
from confide.errors import ImageError, TableError


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


def test_dicom_samples(real_data):
    folder = needs(real_data, "dicom_samples")
    expected = pd.read_csv(folder / "expected.csv", dtype={"transfer_syntax": str})
    assert len(expected) == 6
    for row in expected.itertuples():
        path = folder / row.file
        if pd.isna(row.rows):
            with pytest.raises(ImageError, match="has no image; it holds 12-lead ECG Waveform"):
                read_dicom(path)
            continue
        found = read_dicom(path)
        assert found.shape == (row.rows, row.columns)
        assert found.dtype == np.float32
        assert 0 <= found.min() < found.max() <= 255
        assert look(path).bare == (row.modality == "CT" or "jpeg" in row.file)
        # Decoded by another program: without a window, the mean says that the values are these.
        if look(path).bare:
            scaled = 255 * (row.pixel_mean - row.pixel_min) / (row.pixel_max - row.pixel_min)
            assert found.mean() == pytest.approx(scaled, abs=0.7)


def test_monochrome1_is_inverted(real_data):
    folder = needs(real_data, "dicom_samples")
    chest = read_dicom(folder / "chest_pa_monochrome1_j2k.dcm")
    # The lungs are darker than the middle of the chest, as the standard shows them.
    height, width = chest.shape
    middle = slice(height // 3, height // 2)
    lung, spine = (
        chest[middle, int(x * width) : int((x + 0.1) * width)].mean() for x in (0.25, 0.48)
    )
    assert lung < spine


def test_dicom_and_other_files_in_one_table(real_data, tmp_path):
    folder = needs(real_data, "dicom_samples")
    names = [path.name for path in sorted(folder.glob("*_*.dcm")) if "ecg" not in path.name]
    frame = pd.DataFrame({"image": names, "p": range(5), "y": [0, 1, 0, 1, 0]})
    frame.to_csv(tmp_path / "t.csv")
    source = Images(path="t.csv", images=folder, patient="p", label="y", size=(32, 32))
    opened = source.open(tmp_path)
    assert opened.read(np.array([4, 0])).shape == (2, 1, 32, 32)
    assert opened.notes[0].startswith("2 DICOM images have no window")
    assert np.array_equal(opened.read(np.arange(5)), source.load(tmp_path).inputs)


def test_columns_that_may_identify(real_data):
    frame = pd.read_csv(needs(real_data, "cxr_open") / "metadata.csv")
    told = {name for name in frame if may_identify(frame[name], name)}
    assert {"image", "patient_id", "source_url", "source_file"} <= told
    assert not told & {"sex", "age", "view", "finding", "offset_days", "survival", "width"}
    frame = pd.read_csv(needs(real_data, "mimic3_demo") / "admissions.csv")
    told = {name for name in frame if may_identify(frame[name], name)}
    assert {"subject_id", "hadm_id", "admittime", "edouttime"} <= told
    assert "stays_hosp" not in told
