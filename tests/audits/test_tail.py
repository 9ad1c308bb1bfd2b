"""The tail corrected for noise: unbiased where the measured one is not, with bounds that hold."""

import numpy as np
import pytest

from audits.areas import chance, measured_risk, published, sparse, strong
from audits.studies import study
from confide.audits.clustered import clopper_pearson
from confide.audits.deconvolution import count_areas, fit_prior, share_at_or_above
from confide.audits.null import joint_survival
from confide.audits.patients import patient_risk
from confide.audits.tail import Tail, local_fdr, tail, tail_bounds
from confide.errors import ArgumentError

CUTS = np.array([0.6, 0.7, 0.8, 0.9])


def share_of(truth):
    return (truth[:, None] >= CUTS).mean(axis=0)


def test_measured_and_null_shares():
    rng = np.random.default_rng(0)
    risk = measured_risk(strong(400, rng), 6, 6, rng)
    found = tail(risk, CUTS)
    for i, cut in enumerate(CUTS):
        count = sum(a >= cut - 1e-9 for a in risk.joint)
        assert found.raw[i] == count / 400
        low, high = clopper_pearson(count, 400)
        assert (found.raw_low[i], found.raw_high[i]) == pytest.approx((low, high))
    np.testing.assert_allclose(found.null, joint_survival(risk.n_in, risk.n_out, CUTS))
    draws = rng.binomial(400, found.null[:, None], (4, 20_000)) / 400
    np.testing.assert_allclose(found.null_low, np.quantile(draws, 0.025, axis=1), atol=0.0026)
    np.testing.assert_allclose(found.null_high, np.quantile(draws, 0.975, axis=1), atol=0.0026)


def test_everything_is_in_order():
    rng = np.random.default_rng(1)
    risk = measured_risk(published(500, rng), 10, 14, rng)
    risk.joint[::9] = risk.se[::9] = np.nan
    cuts = np.linspace(0.5, 1.0, 11)
    found = tail(risk, cuts)
    for name in ("corrected", "low", "high", "null"):
        share = getattr(found, name)
        assert ((share >= 0) & (share <= 1)).all()
        assert (np.diff(share) <= 1e-6).all()
    assert (found.low <= found.corrected).all()
    assert (found.corrected <= found.high).all()
    known = ~np.isnan(risk.joint)
    for name in ("risk", "risk_low", "risk_high", "local_fdr"):
        value = getattr(found, name)
        assert (np.isnan(value) == ~known).all()
        assert ((value[known] >= 0) & (value[known] <= 1)).all()
    order = np.argsort(risk.joint[known])
    assert (np.diff(found.local_fdr[known][order]) <= 0).all()
    assert (np.diff(found.risk[known][order]) >= 0).all()
    assert (found.risk_low <= found.risk_high)[known].all()


def test_edges():
    rng = np.random.default_rng(2)
    risk = measured_risk(chance(30, rng), 4, 4, rng)
    for cuts in ([0.0], [1.2], [np.nan]):
        with pytest.raises(ArgumentError, match="thresholds"):
            tail(risk, np.array(cuts))
    risk.joint[:] = risk.se[:] = np.nan
    nothing = tail(risk, CUTS)
    assert isinstance(nothing, Tail)
    assert np.isnan(nothing.corrected).all()
    assert nothing.risk.shape == (30,)
    for value in (0.0, 1.0):  # all separated perfectly, or the other way round
        risk.joint[:], risk.se[:] = value, 0.0
        found = tail(risk, CUTS)
        assert np.isfinite(found.corrected).all()
        assert found.corrected[0] == pytest.approx(value, abs=0.1)
    risk.joint[1:] = np.nan
    assert np.isfinite(tail(risk, CUTS).high).all()


@pytest.mark.parametrize("n_side", [8, 32])
def test_without_a_leak_nobody_is_above(n_side):
    rng = np.random.default_rng(3)
    risk = measured_risk(chance(2000, rng), n_side, n_side, rng)
    found = tail(risk, CUTS)
    assert found.corrected[0] < 0.02
    assert (found.corrected[1:] < 1e-3).all()
    assert (found.low == 0).all()
    assert found.null_low[0] <= found.raw[0] <= found.null_high[0]
    assert found.local_fdr.min() > 0.3


def test_the_correction_takes_the_noise_away():
    """Cohorts with the published structure: measured counts exceed the truth, corrected do not."""
    rng = np.random.default_rng(4)
    for n_side, n in ((32, 6000), (100, 3000)):
        truth = published(n, rng)
        found = tail(measured_risk(truth, n_side, n_side, rng), CUTS)
        share = share_of(truth)
        assert found.raw[0] > 1.25 * share[0]
        assert found.corrected[:2] == pytest.approx(share[:2], rel=0.2, abs=0.006)
        assert found.corrected[2:] == pytest.approx(share[2:], abs=0.003)
        assert (found.low <= share).all()
        assert (share <= found.high).all()


def test_unequal_numbers_and_variances():
    """With more models out than in, the variances of in and out no longer cancel."""
    rng = np.random.default_rng(5)
    truth = published(5000, rng)
    for share_in in (0.2, 0.8):
        found = tail(measured_risk(truth, 16, 48, rng, share_in=share_in), CUTS)
        share = share_of(truth)
        assert found.corrected[0] == pytest.approx(share[0], abs=0.06)
        inside = (found.risk_low - 1e-3 <= truth) & (truth <= found.risk_high + 1e-3)
        assert inside.mean() > 0.92
        assert ((found.low <= share) & (share <= found.high)).all()


def test_several_records_need_nothing_else():
    """From signals to the corrected tail, patients with one to five correlated records."""
    signal, held, cohort = study(6, n_patients=1500, n_models=24)
    none = tail(patient_risk(signal, held, cohort)[1], CUTS)
    assert none.corrected[0] < 0.03
    assert (none.low == 0).all()
    signal, held, cohort = study(6, n_patients=1500, n_models=24, leak=3.0, share=0.1)
    some = tail(patient_risk(signal, held, cohort)[1], CUTS)
    assert some.corrected[2] == pytest.approx(0.1, abs=0.02)
    assert some.low[1] < 0.1 < some.high[1]
    assert some.local_fdr.min() < 0.05


def test_listed_by_local_fdr():
    """The sum of the rates over a list is about the number of false ones in it, or more."""
    rng = np.random.default_rng(7)
    expected = false = 0.0
    for _ in range(2):
        truth = sparse(3000, rng, share=0.1)
        risk = measured_risk(truth, 32, 32, rng)
        found = count_areas(risk.joint, risk.n_in, risk.n_out)
        rate = local_fdr(found, fit_prior(found.likelihood, found.count))[found.row]
        listed = rate <= 0.3
        expected += rate[listed].sum()
        false += (truth[listed] == 0.5).sum()
    assert false == pytest.approx(expected, abs=3.5 * np.sqrt(expected))


def holds(kind, n_patients, n_side, n_cohorts, rng):
    """Share of cohorts whose bounds hold all shares, and mean corrected and true shares."""
    held, corrected, true = [], [], []
    for _ in range(n_cohorts):
        truth = kind(n_patients, rng)
        risk = measured_risk(truth, n_side, n_side, rng)
        found = count_areas(risk.joint, risk.n_in, risk.n_out)
        low, high = tail_bounds(found, CUTS)
        weights = fit_prior(found.likelihood, found.count)
        true.append(share_of(truth))
        held.append((low <= true[-1] + 1e-9) & (true[-1] <= high + 1e-9))
        corrected.append(share_at_or_above(weights, CUTS))
    return np.mean(held, axis=0), np.mean(corrected, axis=0), np.mean(true, axis=0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [published, sparse])
@pytest.mark.parametrize(("n_side", "n_patients"), [(16, 2000), (100, 1000)])
def test_bounds_hold_the_truth_in_many_cohorts(kind, n_side, n_patients):
    rng = np.random.default_rng(8)
    held, corrected, true = holds(kind, n_patients, n_side, 100, rng)
    assert (held >= 0.95).all()
    assert np.abs(corrected - true).max() < (0.05 if n_side < 32 else 0.015)
