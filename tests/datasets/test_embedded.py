"""The data that come with scikit-learn."""

import numpy as np
from sklearn.datasets import load_breast_cancer

from confide.datasets import ByFraction, Embedded


def test_embedded_against_scikit_learn():
    bunch = load_breast_cancer()
    data = Embedded().load()
    cohort = data.cohort
    assert (cohort.n_records, cohort.n_patients) == (569, 569)
    assert cohort.patients[0] == "wdbc-000"
    assert (cohort.task, cohort.classes) == ("binary", ("benign", "malignant"))
    names = np.array(cohort.classes)[cohort.label]
    assert np.array_equal(names, bunch.target_names[bunch.target])
    assert data.feature_names == tuple(bunch.feature_names)

    pool = bunch.data[~data.test]
    expected = (bunch.data - pool.mean(0)) / pool.std(0)
    assert data.inputs.dtype == np.float32
    np.testing.assert_allclose(data.inputs, expected, atol=1e-5)


def test_the_groups_are_thirds_by_mean_radius():
    data = Embedded().load()
    radius = load_breast_cancer().data[:, 0]
    group = data.cohort.groups["radius"].to_numpy()
    assert [int((group == g).sum()) for g in ("small", "medium", "large")] == [190, 190, 189]
    assert radius[group == "small"].max() <= radius[group == "medium"].min()
    assert radius[group == "medium"].max() <= radius[group == "large"].min()


def test_a_fifth_of_the_patients_is_held_out():
    assert Embedded().load().test.sum() == 114
    half = Embedded(test=ByFraction(fraction=0.5, seed=3)).load()
    assert half.test.sum() == 284
    assert half.fingerprint() != Embedded().load().fingerprint()
