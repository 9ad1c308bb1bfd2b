"""The guards of a run: duplicates, features for the blind guard, real sources told apart."""

import numpy as np
import pandas as pd
import pytest

from confide.audits.blind import blind_test
from confide.audits.guards import blind_guard, refusal
from confide.cohort import Cohort
from confide.datasets import Data, Embedded, Phantom
from confide.runs.guards import blind_features, data_guards, data_warnings, designed


def cohort_of(patient, label=None, **given):
    n = len(patient)
    return Cohort(
        record=np.arange(n),
        patient=np.asarray(patient),
        label=np.zeros(n, dtype=np.int64) if label is None else label,
        task="multiclass" if label is None or np.ndim(label) == 1 else "multilabel",
        classes=("a", "b"),
        **given,
    )


def data_of(inputs, patient, **given):
    names = tuple(f"x{i}" for i in range(inputs.shape[1])) if inputs.ndim == 2 else ()
    return Data(
        cohort=cohort_of(patient, **given),
        inputs=inputs,
        test=np.zeros(len(inputs), dtype=bool),
        feature_names=names,
    )


def statuses(guards):
    return {guard["name"]: guard["status"] for guard in guards}


def noise(seed, shape):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_images_of_two_patients_are_compared():
    images = noise(0, (20, 1, 16, 16))
    fine = data_guards(data_of(images, np.arange(20)))
    assert statuses(fine) == {"duplicates": "passed", "near-duplicates": "passed"}
    images[7] = images[3] // 2 + 10
    images[8] = 0
    near = data_guards(data_of(images, np.arange(20)))
    assert statuses(near) == {"duplicates": "passed", "near-duplicates": "failed"}
    assert "Fewer than 10 images are almost the same as an image of another" in near[1]["message"]
    assert near[1]["message"].endswith("1 images show nothing and were not compared.")
    images[7] = images[3]
    assert set(statuses(data_guards(data_of(images, np.arange(20)))).values()) == {"failed"}
    # One person's images may be alike.
    owner = np.where(np.arange(20) == 7, 3, np.arange(20))
    assert set(statuses(data_guards(data_of(images, owner))).values()) == {"passed"}


def test_tables_are_compared_exactly_only():
    inputs = np.random.default_rng(0).standard_normal((12, 3)).astype(np.float32)
    assert statuses(data_guards(data_of(inputs, np.arange(12)))) == {"duplicates": "passed"}
    inputs[4] = inputs[2]
    assert statuses(data_guards(data_of(inputs, np.arange(12)))) == {"duplicates": "failed"}


def test_a_designed_audit_passes_what_it_makes_true_itself():
    found = designed(Embedded().load())
    assert statuses(found)["blind"] == statuses(found)["recipe"] == "passed"
    assert refusal(found) is None


def test_phantoms_have_no_duplicates():
    found = data_guards(Phantom(n_patients=60, size=(32, 32)).load())
    assert statuses(found) == {"duplicates": "passed", "near-duplicates": "passed"}


def test_warnings_are_of_audited_records():
    patient = np.repeat(np.arange(40), 3)
    inputs = np.random.default_rng(0).standard_normal((120, 2)).astype(np.float32)
    data = data_of(inputs, patient, label=patient % 2)
    assert "In 40 of 40 patients" in data_warnings(data)[0]
    held = Data(cohort=data.cohort, inputs=inputs, test=patient >= 20, feature_names=("x0", "x1"))
    assert "In 20 of 20 patients" in data_warnings(held)[0]


def test_features_of_labels_groups_and_columns():
    groups = pd.DataFrame({"sex": ["f", "m", None, "f"], "n": [1.0, np.nan, 3.0, np.inf]})
    cohort = cohort_of(range(4), label=np.array([0, 1, 1, 0]), groups=groups)
    found = blind_features(cohort, columns=pd.DataFrame({"width": [5, 6, 7, 8]}))
    label, sex, n, width = np.split(found, [3, 6, 7], axis=1)
    assert label.tolist() == [[0, 1, 0], [0, 0, 1], [0, 0, 1], [0, 1, 0]]
    assert sex.tolist() == [[0, 1, 0], [0, 0, 1], [1, 0, 0], [0, 1, 0]]
    np.testing.assert_array_equal(n[:, 0], [1, np.nan, 3, np.nan])
    assert width[:, 0].tolist() == [5, 6, 7, 8]
    multi = cohort_of(range(2), label=np.array([[0, 1], [np.nan, 1]]))
    np.testing.assert_array_equal(blind_features(multi), [[0, 1], [np.nan, 1]])


def test_many_values_of_a_column_are_cut():
    groups = pd.DataFrame({"site": [f"s{i}" for i in range(60)]}, dtype=object)
    cohort = cohort_of(range(60), groups=groups)
    assert blind_features(cohort).shape == (60, 2 + 21)


@pytest.mark.parametrize(
    ("inputs", "n_features"),
    [
        (np.array([[0.5, np.inf], [1.0, 2.0]], dtype=np.float32), 2),
        (np.zeros((2, 12, 50), dtype=np.float32), 12 * 6),
        (np.zeros((2, 3, 20, 30), dtype=np.uint8), 3 * (64 + 8)),
    ],
)
def test_features_of_inputs(inputs, n_features):
    found = blind_features(cohort_of([0, 1]), inputs)
    assert found.shape == (2, n_features + 2)
    assert not np.isinf(found).any()


def test_features_of_images_by_hand(monkeypatch):
    image = np.tile(np.array([0, 255], dtype=np.uint8), (1, 1, 16, 8))
    found = blind_features(cohort_of([0]), image)[0, :-2]
    np.testing.assert_allclose(found[:64], 127.5)
    # Deviation, three quantiles, share of 0 and of 255, steps down and across.
    np.testing.assert_allclose(found[64:], [127.5, 0, 0, 255, 0.5, 0.5, 0, 255], rtol=1e-6)
    many = noise(1, (9, 2, 12, 10))
    whole = blind_features(cohort_of(range(9)), many)
    monkeypatch.setattr("confide.runs.guards._PART", 2)
    np.testing.assert_allclose(blind_features(cohort_of(range(9)), many), whole, rtol=1e-6)


def test_another_scanner_is_told_by_its_images():
    data = Phantom(n_patients=120, size=(24, 24)).load()
    cohort = data.cohort
    member = (np.random.default_rng(0).permutation(cohort.n_patients) < 60)[cohort.patient_index]
    fine = blind_guard(blind_features(cohort, data.inputs), member, cohort.patient_index)
    assert fine["status"] == "passed"
    other = np.where(member[:, None, None, None], data.inputs, data.inputs // 8 * 8)
    shifted = blind_guard(blind_features(cohort, other), member, cohort.patient_index)
    assert shifted["status"] == "failed"
    assert refusal([shifted]) is not None


def chest(folder, name):
    from PIL import Image

    if not (folder / name).is_dir():
        pytest.skip(f"{name} is not there")
    frame = pd.read_csv(folder / name / "metadata.csv")
    images = [
        np.asarray(Image.open(folder / name / "images" / file).convert("L").resize((64, 64)))
        for file in frame["image"]
    ]
    return np.stack(images)[:, None], frame["patient_id"].to_numpy(object)


def test_two_real_sources_are_told_apart(real_data):
    parts = [chest(real_data, name) for name in ("cxr_open", "cxr_nc")]
    images = np.concatenate([part[0] for part in parts])
    cohort = cohort_of(np.concatenate([part[1] for part in parts]))
    features = blind_features(cohort, images)
    member = np.arange(len(images)) < len(parts[0][0])
    found = blind_test(features, member, cohort.patient_index)
    assert min(one.auc.low for one in found) > 0.6
    # The same images split by patient, whatever their source.
    assert not split_fails(features, cohort, 1)


def split_fails(features, cohort, seed):
    half = np.random.default_rng([seed, 7]).permutation(cohort.n_patients) < cohort.n_patients // 2
    found = blind_guard(features, half[cohort.patient_index], cohort.patient_index, seed)
    return found["status"] == "failed"


def nih(real_data):
    folder = real_data / "nih_cxr64"
    if not folder.is_dir():
        pytest.skip("nih_cxr64 is not there")
    frame = pd.read_csv(folder / "metadata.csv")
    images = np.load(folder / "images.npz")["images"][:, None]
    cohort = cohort_of(
        frame["patient_id"].to_numpy(object),
        label=frame["abnormal"].to_numpy(),
        groups=frame[["sex", "view"]].astype(object),
    )
    return blind_features(cohort, images, frame[["age"]]), cohort


def test_a_proper_split_of_real_images_passes(real_data):
    features, cohort = nih(real_data)
    assert not split_fails(features, cohort, 0)


@pytest.mark.slow
def test_proper_splits_of_real_images_rarely_fail(real_data):
    features, cohort = nih(real_data)
    n = 60
    failed = sum(split_fails(features, cohort, seed) for seed in range(n))
    assert failed <= n * 0.025 + 4 * np.sqrt(n * 0.025 * 0.975)
