"""Differences in mean risk: closed forms, coverage, and what adjustment takes away."""

import numpy as np
import pytest
from scipy import stats

from audits.studies import cohort_of
from confide.audits.adjusted import Regression, covariates
from confide.cohort import Cohort


def test_without_covariates_it_is_welchs():
    rng = np.random.default_rng(0)
    inside = np.arange(300) < 40
    risk = rng.standard_normal(300) * np.where(inside, 3, 1) + inside
    found = Regression(risk).difference(inside)
    welch = stats.ttest_ind(risk[inside], risk[~inside], equal_var=False)
    assert found.value == pytest.approx(risk[inside].mean() - risk[~inside].mean())
    # The same standard error; the degrees of freedom are those of equal variances.
    width = (found.high - found.low) / 2
    dof = _dof(40, 260)
    assert width == pytest.approx(stats.t.ppf(0.975, dof) * found.value / welch.statistic)
    assert found.p_value == pytest.approx(2 * stats.t.sf(abs(welch.statistic), dof))


def _dof(n, m):
    """Satterthwaite's degrees of freedom of Welch's variance where variances are equal."""
    return (1 / n + 1 / m) ** 2 / (1 / (n**2 * (n - 1)) + 1 / (m**2 * (m - 1)))


def slow(risk, inside, covariates):
    """HC2 and Bell and McCaffrey from their matrix formulas, all n x n."""
    design = np.column_stack([np.ones(len(risk)), covariates, inside])
    inverse = np.linalg.pinv(design.T @ design)
    hat = design @ inverse @ design.T
    residual = np.eye(len(risk)) - hat
    weights = (inverse @ design.T)[-1] / np.sqrt(np.diag(residual))
    columns = residual * weights  # row i: how residuals enter, weighted
    product = columns.T @ columns
    dof = np.trace(product) ** 2 / np.sum(product**2)
    error = residual @ risk
    return (inverse @ design.T @ risk)[-1], np.sqrt(np.sum((weights * error) ** 2)), dof


def test_against_the_matrix_formulas():
    rng = np.random.default_rng(1)
    for n_inside in (3, 12, 60):
        given = rng.standard_normal((120, 3)) + np.arange(120)[:, None] / 100
        inside = np.arange(120) < n_inside
        risk = given @ [1, 2, 3] + rng.standard_normal(120) * (1 + inside)
        value, se, dof = slow(risk, inside, given)
        found = Regression(risk, given).difference(inside)
        width = stats.t.ppf(0.975, dof) * se
        assert found.value == pytest.approx(value)
        assert found.low == pytest.approx(value - width)
        assert found.high == pytest.approx(value + width)
        assert found.p_value == pytest.approx(2 * stats.t.sf(abs(value) / se, dof))


def test_collinear_and_unknown_covariates():
    rng = np.random.default_rng(2)
    risk, inside = rng.standard_normal(80), np.arange(80) % 3 == 0
    one = rng.standard_normal((80, 1))
    lean = Regression(risk, one).difference(inside)
    fat = Regression(risk, np.column_stack([one, 2 * one, np.ones(80)])).difference(inside)
    assert fat.value == pytest.approx(lean.value)
    assert fat.p_value == pytest.approx(lean.p_value)
    risk[0], one[1] = np.nan, np.nan
    rest = Regression(risk[2:], one[2:]).difference(inside[2:])
    assert Regression(risk, one).difference(inside).value == pytest.approx(rest.value)


def test_what_cannot_be_told_is_not():
    risk = np.random.default_rng(3).standard_normal(50)
    first = np.arange(50) < 1
    half = np.arange(50) < 25
    nothing = np.zeros(50, dtype=bool)
    assert np.isnan(Regression(risk).difference(nothing).value)
    assert np.isnan(Regression(risk).difference(~nothing).value)
    assert np.isnan(Regression(risk, half[:, None] * 1.0).difference(half).value)
    alone = Regression(risk).difference(first)  # one patient has a value and no error
    assert alone.value == pytest.approx(risk[0] - risk[1:].mean())
    assert np.isnan([alone.low, alone.high, alone.p_value]).all()
    flat = Regression(np.full(50, 0.5)).difference(half)
    assert flat.value == pytest.approx(0)
    assert np.isnan(flat.p_value)


def study(seed, n=1500, leak=0.6, n_models=64):
    """Patients of the group have more records, and so more risk; else they are like others."""
    rng = np.random.default_rng(seed)
    inside = rng.random(n) < 0.3
    n_records = rng.geometric(np.where(inside, 0.2, 0.5))
    true = stats.norm.cdf(leak * np.sqrt(n_records / 2))
    auc = np.clip(true + rng.standard_normal(n) * np.sqrt(true * (1 - true) * 4 / n_models), 0, 1)
    cohort = cohort_of(np.repeat(np.arange(n), n_records))
    return auc, inside, cohort


def test_adjustment_takes_away_what_more_records_explain():
    plain, adjusted = [], []
    for seed in range(100):
        auc, inside, cohort = study(seed)
        plain.append(Regression(auc).difference(inside).low > 0)
        found = Regression(auc, covariates(cohort)).difference(inside)
        adjusted.append(found.low <= 0 <= found.high)
    assert np.mean(plain) > 0.95  # they are more at risk
    assert np.mean(adjusted) >= 0.95 - 4 * np.sqrt(0.95 * 0.05 / 100)  # for their records


def test_adjustment_keeps_what_records_do_not_explain():
    inside_interval = []
    for seed in range(100):
        auc, inside, cohort = study(seed, leak=0.0)
        found = Regression(auc + 0.05 * inside, covariates(cohort)).difference(inside)
        inside_interval.append(found.low <= 0.05 <= found.high)
        assert found.p_value < 0.001
    assert np.mean(inside_interval) >= 0.95 - 4 * np.sqrt(0.95 * 0.05 / 100)


@pytest.mark.parametrize(("n_inside", "skewed"), [(5, False), (10, False), (10, True), (100, True)])
def test_coverage_of_small_and_unequal_groups(n_inside, skewed):
    rng = np.random.default_rng(4)
    given = rng.standard_normal((400, 2))
    group = np.arange(400) < n_inside
    hits = 0
    for _ in range(400):
        noise = rng.standard_normal(400) if not skewed else rng.beta(8, 6, 400) - 8 / 14
        found = Regression(given @ [0.5, 0.2] + noise, given).difference(group)
        hits += found.low <= 0 <= found.high
    assert hits / 400 >= 0.95 - 4 * np.sqrt(0.95 * 0.05 / 400)


def test_covariates_are_records_and_rarity():
    label = np.array([0, 0, 0, 0, 0, 1, 0, 1])
    cohort = cohort_of([0, 1, 1, 2, 2, 2, 3, 3], label=label)
    found = covariates(cohort)
    assert found.shape == (4, 6)
    n = np.log([1, 2, 3, 2])
    assert found[:, 0] == pytest.approx((n - n.mean()) / n.std())
    common, rare = np.log(6 / 8), np.log(2 / 8)
    rarity = np.array([common, common, (2 * common + rare) / 3, (common + rare) / 2])
    assert found[:, 3] == pytest.approx((rarity - rarity.mean()) / rarity.std())
    assert found[:, 2] == pytest.approx(found[:, 0] ** 3)


def test_covariates_of_several_labels():
    label = np.array([[1, np.nan], [0, 1], [np.nan, np.nan], [0, 0]])
    cohort = Cohort(
        record=np.arange(4),
        patient=np.array([0, 1, 2, 3]),
        label=label,
        task="multilabel",
        classes=("a", "b"),
    )
    found = covariates(cohort)
    rarity = np.array([np.log(1 / 3), (np.log(2 / 3) + np.log(1 / 2)) / 2, np.nan, 0.0])
    rarity[3] = rarity[1]
    known = rarity[[0, 1, 3]]
    assert found[:, 3] == pytest.approx((rarity - known.mean()) / known.std(), nan_ok=True)
    assert (found[:, 0] == 0).all()  # one record each: nothing to adjust for
