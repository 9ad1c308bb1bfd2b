"""Made-up chest images."""

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError
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


@pytest.mark.parametrize(
    ("settings", "known"),
    [
        (
            {"n_patients": 30, "size": (16, 16)},
            "40683e41e3e61ea7f24587ed4483bb130ee661b329a4a9b3d9de0e72e44b37fa",
        ),
        (
            {
                **{"n_patients": 25, "max_views": 2, "size": (12, 20)},
                **{"rare": 0.3, "hard": 0.4, "seed": 9},
            },
            "f718a1bcbbb4169f626ae11dd064c91770e821d9692e0b62156da3a220c1a696",
        ),
        (
            {"n_patients": 10, "size": (64, 64), "hard": 0, "seed": 3},
            "0276405b340b44c493c0f75fc344b770d09b921af94fbf1f0a553341a00b380f",
        ),
    ],
    ids=str,
)
def test_as_before_there_were_opacity_and_mislabelled(settings, known):
    # Written down with the version that had neither.
    assert Phantom(**settings).load().fingerprint() == known
    assert Phantom(**settings, opacity=0.5, mislabelled=0).load().fingerprint() == known


def test_an_opacity_as_dense_as_asked():
    found = {
        share: Phantom(n_patients=60, size=(24, 24), hard=0.2, opacity=share).load()
        for share in (0.0, 0.25, 1.0)
    }
    none, faint, dense = (data.inputs.astype(int) for data in found.values())
    labels = [data.cohort.label for data in found.values()]
    assert np.array_equal(labels[0], labels[1])
    assert np.array_equal(labels[0], labels[2])
    hard = (found[0.0].cohort.groups["planted"] == "hard").to_numpy()
    opaque = (labels[0] == 1) ^ hard
    assert 0 < opaque.sum() < len(opaque)
    assert np.array_equal(none[~opaque], faint[~opaque])
    assert np.array_equal(none[~opaque], dense[~opaque])
    # Brighter everywhere or the same, at its place by the share of white times the exposure.
    for darker, brighter in ((none, faint), (faint, dense)):
        assert (brighter[opaque] >= darker[opaque]).all()
    added = (faint - none)[opaque].reshape(opaque.sum(), -1).max(axis=1)
    assert 0.15 * 255 < np.median(added) < 0.35 * 255
    assert (dense - none)[opaque].reshape(opaque.sum(), -1).max(axis=1).min() > 80


def test_mislabelled_patients_have_the_other_label_and_nothing_else():
    settings = {"n_patients": 200, "size": (8, 8), "hard": 0.1, "seed": 4}
    right, wrong = (Phantom(**settings, mislabelled=m).load() for m in (0, 0.3))
    assert np.array_equal(right.inputs, wrong.inputs)
    assert np.array_equal(right.test, wrong.test)
    pd.testing.assert_frame_equal(right.cohort.groups, wrong.cohort.groups)
    changed = right.cohort.label != wrong.cohort.label
    # All records of a patient, or none; none of the hard ones.
    assert len(set(zip(right.cohort.patient, changed, strict=True))) == 200
    assert len(set(right.cohort.patient[changed])) == round(0.3 * 180)
    assert not changed[(right.cohort.groups["planted"] == "hard").to_numpy()].any()
    # Of both labels, and another seed mislabels others.
    assert 0.3 < right.cohort.label[changed].mean() < 0.7
    every = Phantom(**settings, mislabelled=1).load().cohort.label
    typical = (right.cohort.groups["planted"] == "typical").to_numpy()
    assert np.array_equal(every[typical], 1 - right.cohort.label[typical])
    assert np.array_equal(every[~typical], right.cohort.label[~typical])


def test_half_of_the_labels_wrong_leaves_nothing_to_learn():
    data = Phantom(
        n_patients=1500, max_views=1, size=(12, 12), hard=0, opacity=1.0, mislabelled=0.5
    ).load()
    right = Phantom(n_patients=1500, max_views=1, size=(12, 12), hard=0, opacity=1.0).load()
    agree = data.cohort.label == right.cohort.label
    assert agree.mean() == 0.5
    for side in (data.test, ~data.test):
        assert abs(agree[side].mean() - 0.5) < 0.1


@pytest.mark.parametrize("name", ["opacity", "mislabelled"])
@pytest.mark.parametrize("value", [-0.1, 1.1, "much"])
def test_shares_are_shares(name, value):
    with pytest.raises(ValidationError, match=name):
        Phantom(**{name: value})


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
