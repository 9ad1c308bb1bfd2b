"""Made-up chest images."""

import numpy as np
import pytest
from scipy.stats import kstest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from confide.datasets import Phantom, chest, phantom


@pytest.fixture(scope="module")
def data():
    return Phantom(n_patients=300, max_views=3, size=(32, 32), rare=0.1, hard=0.1, seed=1).load()


def test_counts_are_as_asked(data):
    cohort = data.cohort
    assert cohort.n_patients == 300
    assert data.inputs.shape == (cohort.n_records, 1, 32, 32)
    assert set(cohort.records_per_patient) == {1, 2, 3}
    groups, conflicts = cohort.patient_groups()
    assert (groups["planted"] == "hard").sum() == 30
    assert (groups["rare"] == "pacemaker").sum() == 30
    assert 0.4 < (groups["sex"] == "female").mean() < 0.6
    assert set(conflicts.values()) == {0}
    assert len(set(zip(cohort.patient, cohort.label, strict=True))) == 300
    assert 0.4 < cohort.label.mean() < 0.6
    assert cohort.classes == ("clear", "opacity")
    assert len(np.unique(cohort.patient_index[data.test])) == 60


def test_the_same_on_every_machine():
    # Written down once; a change of it is a change of the phantom.
    source = Phantom(n_patients=12, max_views=3, size=(16, 24), rare=0.2, hard=0.2, seed=5)
    known = "8f90bea4e455900dbf06d9d4fb933a92bfa5bb1164225e8a7081edcd80e6acea"
    assert source.load().fingerprint() == known
    assert source.model_copy(update={"seed": 6}).load().fingerprint() != known


def test_the_number_of_images_at_once_does_not_matter(monkeypatch):
    source = Phantom(n_patients=20, size=(16, 16))
    before = source.load().fingerprint()
    monkeypatch.setattr(phantom, "_PIXELS_AT_ONCE", 700)
    assert source.load().fingerprint() == before


def test_the_split_does_not_change_the_images():
    plain = Phantom(n_patients=20, size=(16, 16)).load()
    other = Phantom(n_patients=20, size=(16, 16), test={"fraction": 0.5, "seed": 3}).load()
    assert np.array_equal(plain.inputs, other.inputs)
    assert other.test.sum() > plain.test.sum()


def test_images_of_a_patient_are_alike(data):
    x = data.inputs.reshape(len(data.inputs), -1).astype(float)
    x = (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True)
    likeness = x @ x.T / x.shape[1]
    owner = data.cohort.patient_index
    same = owner[:, None] == owner[None]
    other_view = same & ~np.eye(len(x), dtype=bool)
    assert likeness[other_view].mean() > likeness[~same].mean() + 0.02
    assert likeness[other_view].max() < 0.999


def test_the_label_is_in_the_image_but_for_the_hard_patients():
    data = Phantom(n_patients=1500, max_views=1, size=(24, 24), hard=0.1, seed=2).load()
    x = data.inputs.reshape(len(data.inputs), -1).astype(float)
    x = (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True)
    hard = (data.cohort.groups["planted"] == "hard").to_numpy()
    pool = ~data.test & ~hard
    model = LogisticRegression(C=0.01, max_iter=500).fit(x[pool], data.cohort.label[pool])
    score = model.decision_function(x)
    typical = data.test & ~hard
    assert roc_auc_score(data.cohort.label[typical], score[typical]) > 0.8
    assert roc_auc_score(data.cohort.label[hard], score[hard]) < 0.4


def test_the_anatomy_is_that_of_a_chest():
    data = Phantom(n_patients=200, size=(64, 64), hard=0, rare=0).load()
    mean = data.inputs[:, 0].mean(0)
    right, left = mean[20:30, 10:20], mean[20:30, 46:54]  # the patient's, as in a radiograph
    spine, belly, heart = mean[10:50, 31:33], mean[58:, 10:50], mean[36:42, 34:40]
    assert max(right.mean(), left.mean()) + 40 < min(spine.mean(), belly.mean(), heart.mean())
    mirrored = mean[36:42, 24:30]
    assert heart.mean() > mirrored.mean() + 20
    assert mean[:6, :6].mean() < 60


def test_hard_patients_have_the_heart_on_the_other_side(data):
    hard = (data.cohort.groups["planted"] == "hard").to_numpy()
    low = data.inputs[:, 0, 18:22].astype(float)
    side = low[..., 18:21].mean((1, 2)) - low[..., 11:14].mean((1, 2))
    assert roc_auc_score(~hard, side) > 0.95


def test_a_pacemaker_is_bright(data):
    typical = (data.cohort.groups["planted"] == "typical").to_numpy()
    has = (data.cohort.groups["rare"] == "pacemaker").to_numpy()
    place = data.inputs[:, 0, 7:11, 22:26].mean((1, 2))
    assert roc_auc_score(has[typical], place[typical]) > 0.98


def test_shares_may_be_none_or_all():
    none = Phantom(n_patients=5, size=(8, 8), rare=0, hard=0, max_views=1).load().cohort
    assert set(none.groups["planted"]) == {"typical"}
    assert none.n_records == 5
    every = Phantom(n_patients=5, size=(8, 8), rare=1, hard=1).load().cohort
    assert set(every.groups["rare"]) == {"pacemaker"}
    assert set(every.groups["planted"]) == {"hard"}


def test_noise_has_mean_0_and_variance_1():
    noise = phantom._noise(np.random.default_rng(0), 100, (20, 20)).ravel()
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 1) < 0.02
    assert kstest(noise, "norm").statistic < 0.03


def test_interpolation_of_the_texture_against_a_loop():
    rng = np.random.default_rng(0)
    grid = rng.random((2, 5, 5), dtype=np.float32)
    x = rng.uniform(-1, 1, (2, 6, 6)).astype(np.float32)
    y = rng.uniform(-1, 1, (2, 6, 6)).astype(np.float32)
    found = chest._bilinear(grid, x, y)
    for at in np.ndindex(x.shape):
        column, row = (x[at] + 1) * 2, (y[at] + 1) * 2
        expected = 0.0
        for i in range(5):
            for j in range(5):
                weight = max(0, 1 - abs(row - i)) * max(0, 1 - abs(column - j))
                expected += weight * grid[at[0], i, j]
        assert found[at] == pytest.approx(expected, abs=1e-5)
