"""LiRA against norm.logpdf in a loop, and its variances against Smyth's formulas."""

import numpy as np
import pytest
from scipy.special import polygamma

import oracles
from attacks.contract import mean_auc, study
from confide.attacks import Global, LiRA, Moderated, OfflineLiRA, PerRecord
from confide.attacks.references import Pairing, moments_left_out
from confide.attacks.variance import inverse_trigamma
from confide.masks import balanced


@pytest.mark.parametrize(
    ("rule", "name"), [(PerRecord(), "own"), (Global(), "global"), (Moderated(), "moderated")]
)
@pytest.mark.parametrize("n_models", [9, 30])
def test_online_is_the_plain_one(rule, name, n_models):
    signals, held = study(0, n_models=n_models + 1, n_records=60, leak=0.7)
    ours = LiRA(rule).score(signals[0], signals[1:], held[1:])
    plain = oracles.lira(signals[0], signals[1:], held[1:], name)
    np.testing.assert_allclose(ours, plain, rtol=1e-7, atol=1e-9)


def test_offline_is_the_plain_one():
    signals, held = study(1, n_models=20, n_records=60, leak=0.7)
    ours = OfflineLiRA().score(signals[0], signals[1:], held[1:])
    plain = oracles.lira_offline(signals[0], signals[1:], held[1:])
    np.testing.assert_allclose(ours, plain, rtol=1e-7)


def test_offline_uses_out_references_alone():
    signals, held = study(2, n_models=20, n_records=60)
    there = np.where(held[1:], signals[1:] + 100.0, signals[1:])
    np.testing.assert_array_equal(
        OfflineLiRA().score(signals[0], signals[1:], held[1:]),
        OfflineLiRA().score(signals[0], there, held[1:]),
    )


def test_moderated_finds_the_prior_and_shrinks_to_it():
    rng = np.random.default_rng(0)
    d0, s0, d, n = 6.0, 2.0, 9.0, 40_000
    sigma2 = s0 * d0 / rng.chisquare(d0, n)
    variance = sigma2 * rng.chisquare(d, n) / d
    rule, dof = Moderated(), np.full(n, d)
    sums = rule.sums(variance[None], dof)
    found_d0, found_s0 = rule.prior(sums)
    assert found_d0[0] == pytest.approx(d0, rel=0.05)
    assert found_s0[0] == pytest.approx(s0, rel=0.03)
    plain = oracles.smyth_prior(variance, dof)
    assert (found_d0[0], found_s0[0]) == pytest.approx(plain, rel=1e-8)
    applied = rule.apply(variance[None], dof, sums)[0]
    expected = (plain[0] * plain[1] + d * variance) / (plain[0] + d)
    np.testing.assert_allclose(applied, expected, rtol=1e-8)


def test_moderated_is_global_when_variances_are_equal():
    """No more spread of log variances than chance: one variance for all."""
    variance = np.full((1, 50), 3.0)
    rule = Moderated()
    applied = rule.apply(variance, np.full(50, 7.0), rule.sums(variance, np.full(50, 7.0)))
    assert np.ptp(applied) == 0.0


def test_inverse_trigamma():
    x = np.array([0.01, 0.3, 1.0, 40.0, 1e4])
    np.testing.assert_allclose(inverse_trigamma(polygamma(1, x)), x, rtol=1e-8)


def test_down_dates_are_the_moments_of_the_rest():
    rng = np.random.default_rng(1)
    for held, even in ((balanced(10, 20, seed=1), False), (rng.random((10, 20)) < 0.4, True)):
        signals = rng.normal(1e4, 1.0, (10, 20))  # far from zero: cancellation would show
        pairing = Pairing(held, even=even)
        m = moments_left_out(signals, pairing)
        for t in range(10):
            for x in np.flatnonzero(pairing.scorable):
                used_in = pairing.held[:, x] & (np.arange(10) != pairing.left_in[t, x])
                used_out = pairing.free[:, x] & (np.arange(10) != pairing.left_out[t, x])
                assert not used_in[t]
                assert not used_out[t]
                assert used_in.sum() == pairing.n_in[x]
                assert used_out.sum() == pairing.n_out[x]
                assert m.mean_in[t, x] == pytest.approx(signals[used_in, x].mean(), rel=1e-12)
                if used_out.sum() > 1:
                    truth = signals[used_out, x].var(ddof=1)
                    assert m.var_out[t, x] == pytest.approx(truth, rel=1e-6)


def test_counts_of_coins_do_not_tell_members():
    """Regression: unequal counts of references gave an area of .53 without any leak."""
    areas = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        held = rng.random((8, 2000)) < 0.5
        signals = rng.standard_normal((8, 2000))
        areas.append(mean_auc(LiRA().leave_one_out(signals, held), held))
    assert abs(np.mean(areas) - 0.5) < 0.006


def test_clipped_signals_stay_finite():
    """Saturated probabilities give some records no variance at all."""
    signals, held = study(3, n_models=8, leak=0.5)
    signals = np.clip(signals, -0.5, 0.8)
    for rule in (PerRecord(), Global(), Moderated()):
        assert np.isfinite(LiRA(rule).leave_one_out(signals, held)).all()


def test_a_prior_of_some_records_is_that_of_all(monkeypatch):
    from confide.attacks import lira

    rng = np.random.default_rng(4)
    held = balanced(12, 40_000, seed=4)
    spread = np.exp(0.4 * rng.standard_normal(40_000))
    signals = rng.standard_normal((12, 40_000)) * spread + held
    some = lira.LiRA().leave_one_out(signals, held)
    monkeypatch.setattr(lira, "_PRIOR_RECORDS", 40_000)
    every = lira.LiRA().leave_one_out(signals, held)
    monkeypatch.setattr(lira, "_PRIOR_RECORDS", 3_000)
    fewer = lira.LiRA().leave_one_out(signals, held)
    assert np.corrcoef(some.ravel(), every.ravel())[0, 1] > 0.9999
    assert np.abs(fewer - every).mean() < 0.05 * every.std()
    assert not np.array_equal(fewer, every)


@pytest.mark.parametrize("even", [False, True])
def test_what_a_left_out_model_says_is_its_signal(even):
    """Masks in either order of memory, and records that all models or none hold."""
    rng = np.random.default_rng(2)
    signals, held = rng.standard_normal((9, 30)), rng.random((9, 30)) < 0.5
    held[:, 4], held[:, 29] = True, False
    for mask in (held, np.asfortranarray(held)):
        pairing = Pairing(mask, even=even)
        said = (pairing.of_left_in(signals), pairing.of_left_out(signals[::-1])[:, ::-1])
        for t in range(9):
            for x in np.flatnonzero(pairing.scorable):
                left_in, left_out = pairing.left_in[t, x], pairing.left_out[t, x]
                assert pairing.held[left_in, x]
                assert pairing.free[left_out, x]
                assert said[0][t, x] == signals[left_in, x]
                assert said[1][t, 29 - x] == signals[8 - left_out, x]
