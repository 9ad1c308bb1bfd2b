"""Areas with clustered records, intervals of means over models, and their coverage."""

import numpy as np
import pytest
from scipy import stats

import oracles
from audits.studies import study
from confide.audits.clustered import (
    MeanOverModels,
    auc_influence,
    clopper_pearson,
    logit_interval,
    ordered,
    share_interval,
    two_way,
)


def one_model(seed, n_patients=40, ties=False):
    signal, held, cohort = study(seed, n_patients=n_patients, n_models=4, leak=0.8)
    scores = np.round(signal[0]) if ties else signal[0]
    return scores, cohort.expand(held)[0], cohort


@pytest.mark.parametrize("ties", [False, True])
def test_area_and_variance_are_obuchowskis(ties):
    scores, held, cohort = one_model(0, ties=ties)
    auc, influence = auc_influence(ordered(scores, held), cohort.patient_index, cohort.n_patients)
    assert auc == pytest.approx(oracles.auc(scores[held], scores[~held]))
    assert influence.sum() == pytest.approx(0.0, abs=1e-12)
    n = cohort.n_patients
    truth = oracles.clustered_variance(scores, held, cohort.patient_index)
    assert influence @ influence * n / (n - 1) == pytest.approx(truth)


def test_variance_is_the_patient_bootstraps():
    scores, held, cohort = one_model(1, n_patients=150)
    _, influence = auc_influence(ordered(scores, held), cohort.patient_index, cohort.n_patients)
    rng = np.random.default_rng(0)
    rows = [np.flatnonzero(cohort.patient_index == p) for p in range(150)]
    areas = []
    for _ in range(400):
        drawn = np.concatenate([rows[p] for p in rng.integers(0, 150, 150)])
        s, h = scores[drawn], held[drawn]
        u = stats.rankdata(s)[h].sum() - h.sum() * (h.sum() + 1) / 2
        areas.append(u / (h.sum() * (~h).sum()))
    assert np.sqrt(influence @ influence) == pytest.approx(np.std(areas, ddof=1), rel=0.12)


def test_unknown_scores_and_one_class():
    o = ordered(np.array([1.0, np.nan, 3.0]), np.array([True, True, False]))
    assert (o.n_true, o.n_false) == (1, 1)
    o = ordered(np.array([1.0, np.nan]), np.array([True, False]))
    assert np.isnan(auc_influence(o, np.arange(2), 2)[0])
    mean = MeanOverModels(2)
    mean.add(float("nan"), np.zeros(2))
    assert np.isnan([mean.mean, mean.interval().low]).all()


def test_two_way_variance_has_no_bias():
    """A layout with random effects of models, patients and both."""
    rng = np.random.default_rng(0)
    for n_models, sd in ((4, (0.3, 1.0, 1.0)), (10, (0.5, 1.0, 2.0))):
        variances = []
        for _ in range(2000):
            y = (
                sd[0] * rng.standard_normal((n_models, 1))
                + sd[1] * rng.standard_normal(30)
                + sd[2] * rng.standard_normal((n_models, 30))
            )
            values = y.mean(axis=1)
            within = y.var(axis=1, ddof=1).mean() / 30
            patients = y.mean(axis=0).var(ddof=1) / 30
            se, dof = two_way(patients, values.tolist(), within, 30)
            assert n_models - 1 <= dof <= 29 + n_models
            variances.append(se**2)
        truth = sd[0] ** 2 / n_models + sd[1] ** 2 / 30 + sd[2] ** 2 / (30 * n_models)
        # Not less than the truth; a little more, since no part is below zero.
        assert 0.97 < np.mean(variances) / truth < 1.15


def test_targets_that_share_references_have_wider_errors():
    values = np.random.default_rng(0).normal(0.5, 0.02, 32).tolist()
    for n in (8, 16, 32):
        alone = two_way(1e-4, values[:n], 3e-4, 200)
        shared = two_way(1e-4, values[:n], 3e-4, 200, shared=True)
        assert shared[1] <= n - 1 <= alone[1]
        if n <= 16:
            expected = np.sqrt(1e-4 + np.var(values[:n], ddof=1) / n)
            np.testing.assert_allclose(shared[0], expected, rtol=1e-12)
        else:
            assert shared[0] == alone[0]


def coverage(n_models, n_patients, sd, n_studies=1500, seed=1):
    rng = np.random.default_rng(seed)
    inside = 0
    for _ in range(n_studies):
        y = (
            0.5
            + sd[0] * rng.standard_normal((n_models, 1))
            + sd[1] * rng.standard_normal(n_patients)
            + sd[2] * rng.standard_normal((n_models, n_patients))
        )
        mean = MeanOverModels(n_patients)
        for row in y:
            mean.add(row.mean(), (row - row.mean()) / n_patients)
        found = mean.interval()
        inside += found.low <= 0.5 <= found.high
    return inside / n_studies


@pytest.mark.parametrize("n_models", [4, 16])
@pytest.mark.parametrize("sd", [(0.0, 0.5, 0.5), (0.03, 0.5, 0.5), (0.1, 0.3, 0.3)])
def test_intervals_of_means_cover(n_models, sd):
    error = np.sqrt(0.95 * 0.05 / 1500)
    assert coverage(n_models, 120, sd) >= 0.95 - 4 * error


def test_exact_limits():
    for k, n in ((0, 9), (3, 20), (20, 20)):
        truth = stats.binomtest(k, n).proportion_ci(method="exact")
        assert clopper_pearson(k, n) == pytest.approx((truth.low, truth.high))


@pytest.mark.parametrize("share", [0.004, 0.05, 0.5])
def test_clopper_pearson_covers(share):
    n = 60
    k = np.arange(n + 1)
    limits = [clopper_pearson(int(i), n) for i in k]
    inside = np.array([low <= share <= high for low, high in limits])
    assert stats.binom.pmf(k, n, share)[inside].sum() >= 0.95


def test_share_interval():
    """A binomial share with its own error is Clopper and Pearson's; fewer dof are wider."""
    se = np.sqrt(0.2 * 0.8 / 50)
    plain = share_interval(0.2, se, 1e9, 7)
    assert (plain.low, plain.high) == pytest.approx(clopper_pearson(10, 50), rel=1e-6)
    few = share_interval(0.2, se, 3.0, 7)
    assert few.low < plain.low < plain.high < few.high
    at_zero = share_interval(0.0, 0.0, 5.0, 7)
    assert (at_zero.low, at_zero.high) == clopper_pearson(0, 7)
    assert np.isnan(share_interval(float("nan"), 0.1, 5, 7).low)


def test_logit_interval():
    found = logit_interval(0.6, 0.02, 1e9, 100)
    assert found.high - found.low == pytest.approx(2 * 1.96 * 0.02, rel=0.01)
    one = logit_interval(1.0, 0.0, 9.0, 30)
    assert one.high == 1.0
    assert one.low == pytest.approx(0.025 ** (1 / 30))
