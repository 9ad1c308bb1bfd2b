"""Risk with less noise: it is nearer to the truth, and its intervals hold it."""

import numpy as np
import pytest
from scipy.special import ndtr

from audits.studies import cohort_of
from confide.audits.patients import patient_risk
from confide.audits.shrinkage import covariates, shrunken
from confide.masks import balanced


def leaking(seed, n_patients, n_models, *, known=1.0, common=0.6):
    """Single-record patients whose leak follows their difficulty, in part; and their true areas.

    `known` is the share of the leak's deviation that difficulty tells.
    """
    rng = np.random.default_rng(seed)
    difficulty = rng.standard_normal(n_patients)
    other = rng.standard_normal(n_patients)
    d = common + 0.5 * (known * difficulty + np.sqrt(1 - known**2) * other)
    held = balanced(n_models, n_patients, seed=seed)
    scale = np.exp(0.3 * rng.standard_normal(n_patients))
    noise = rng.standard_normal((n_models, n_patients))
    signal = 2.0 - 1.5 * difficulty + scale * (noise + d * (held - 0.5))
    return signal, held, cohort_of(np.arange(n_patients)), ndtr(d / np.sqrt(2))


def rmse(found, truth):
    return float(np.sqrt(np.nanmean((found - truth) ** 2)))


@pytest.mark.parametrize(
    ("n_patients", "n_models", "known"), [(3000, 16, 0.9), (3000, 50, 0.9), (400, 32, 0.0)]
)
def test_nearer_to_the_truth_and_covered(n_patients, n_models, known):
    signal, held, cohort, truth = leaking(1, n_patients, n_models, known=known)
    _, risk = patient_risk(signal, held, cohort)
    found = shrunken(signal, held, cohort, risk)
    assert rmse(found.risk, truth) < (0.7 if known else 0.9) * rmse(risk.joint, truth)
    assert abs(np.nanmean(found.risk - truth)) < 0.01
    covered = np.mean((truth >= found.low) & (truth <= found.high))
    assert 0.93 <= covered <= 0.995
    assert (found.low <= found.risk).all()
    assert (found.risk <= found.high).all()


def test_nothing_leaks():
    """Where nobody leaks, risk is near one half for all, and the interval says so."""
    rng = np.random.default_rng(2)
    held = balanced(32, 3000, seed=2)
    signal = rng.standard_normal((32, 3000)) + rng.standard_normal(3000)
    cohort = cohort_of(np.arange(3000))
    _, risk = patient_risk(signal, held, cohort)
    found = shrunken(signal, held, cohort, risk)
    assert np.abs(found.risk - 0.5).max() < 0.15
    assert np.mean((found.low <= 0.5) & (found.high >= 0.5)) > 0.97
    assert rmse(found.risk, 0.5) < 0.3 * rmse(risk.joint, 0.5)


def test_covariates_know_nothing_of_the_noise():
    """The error of the measured area is unrelated to every covariate, so they cannot fit it."""
    rng = np.random.default_rng(3)
    held = balanced(12, 20_000, seed=3)
    noise = rng.standard_normal((12, 20_000))
    cohort = cohort_of(np.arange(20_000))
    _, risk = patient_risk(noise, held, cohort)
    features = covariates(noise, held, cohort)
    _, leak = patient_risk(noise + held, held, cohort)
    mid = covariates(noise + held, held, cohort)[:, 0]
    assert abs(np.corrcoef(mid, leak.joint)[0, 1]) < 4 / np.sqrt(20_000)
    for column in features.T:
        if column.std() > 0:
            assert abs(np.corrcoef(column, risk.joint)[0, 1]) < 4 / np.sqrt(20_000)


def test_covariates_of_several_records():
    held = balanced(8, 2, seed=0)
    patient = np.array([0, 1, 0])
    cohort = cohort_of(patient, label=np.array([0, 0, 1]))
    rng = np.random.default_rng(0)
    signal = rng.standard_normal((8, 3))
    signal[:, 2] = np.nan  # no known label
    found = covariates(signal, held, cohort)
    sides = [(signal[held[:, p], p], signal[~held[:, p], p]) for p in (0, 1)]
    # The in mean is weighted by the variance of the out mean; one ratio for all records.
    ratio = np.exp(np.median([np.log(a.var(ddof=1) / b.var(ddof=1)) for a, b in sides]))
    for p, (inside, outside) in enumerate(sides):
        residual = np.concatenate([inside - inside.mean(), outside - outside.mean()])
        mid = (inside.mean() + ratio * outside.mean()) / (1.0 + ratio)
        variance = (residual**2).sum() / 6
        expected = [mid, mid, 0.5 * np.log(variance), 0.0, np.log(2 / 3)]
        np.testing.assert_allclose(found[p], expected)


def test_too_few_to_shrink():
    signal, held, cohort, _ = leaking(4, 99, 16)
    _, risk = patient_risk(signal, held, cohort)
    assert np.isnan(shrunken(signal, held, cohort, risk).risk).all()
    signal, held, cohort, _ = leaking(4, 300, 6)
    _, risk = patient_risk(signal, held, cohort)
    assert np.isnan(shrunken(signal, held, cohort, risk).risk).all()


def test_perfect_separation_and_constant_signals():
    signal, held, cohort, _ = leaking(5, 300, 16)
    signal[:, 0] = held[:, 0]
    signal[:, 1] = 3.0
    _, risk = patient_risk(signal, held, cohort)
    found = shrunken(signal, held, cohort, risk)
    assert np.isfinite(found.risk).all()
    assert found.risk[0] > np.median(found.risk)


def test_the_seed_deals_folds_only():
    signal, held, cohort, _ = leaking(6, 600, 16)
    _, risk = patient_risk(signal, held, cohort)
    one, two = (shrunken(signal, held, cohort, risk, seed=s) for s in (0, 0))
    np.testing.assert_array_equal(one.risk, two.risk)
    other = shrunken(signal, held, cohort, risk, seed=1)
    assert np.abs(one.risk - other.risk).max() < 0.1
    assert rmse(one.risk, other.risk) < 0.03


@pytest.mark.parametrize(
    ("sd_in", "fraction", "leak"), [(0.3, 0.5, 0.0), (0.5, 0.5, 0.0), (1.0, 0.25, 0.3)]
)
def test_patients_who_are_all_alike(sd_in, fraction, leak):
    """Unequal spreads or numbers, nothing to expect risk from: noise must not be fitted."""
    covered = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        held = balanced(64, 400, fraction=fraction, seed=seed)
        d = leak + leak * rng.standard_normal(400)
        noise = rng.standard_normal((64, 400)) * np.where(held, sd_in, 1.0)
        signal = noise + d * held
        truth = ndtr(d / np.sqrt(1.0 + sd_in**2))
        cohort = cohort_of(np.arange(400))
        _, risk = patient_risk(signal, held, cohort)
        found = shrunken(signal, held, cohort, risk)
        covered.append(np.mean((found.low <= truth) & (truth <= found.high)))
    assert np.mean(covered) > 0.93
