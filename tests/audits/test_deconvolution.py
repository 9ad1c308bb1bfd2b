"""The law of a measured area, and the distribution of true areas, against simulation."""

import numpy as np
import pytest
from scipy.special import ndtr, ndtri

from audits.areas import chance, measured_risk, published, sparse, strong
from confide.audits.deconvolution import (
    AREAS,
    PROBITS,
    area_law,
    area_variance,
    count_areas,
    fit_prior,
    posterior,
    share_at_or_above,
    variance_share,
)
from confide.audits.mann_whitney import null_se, survival

HALF = int(np.argmin(np.abs(AREAS - 0.5)))


def normal_weights(mean, sd):
    weights = np.exp(-0.5 * ((PROBITS - mean) / sd) ** 2)
    return weights / weights.sum()


@pytest.mark.parametrize(("n_in", "n_out"), [(1, 1), (2, 2), (8, 8), (5, 12), (100, 100), (40, 9)])
def test_without_effect_the_law_is_the_exact_null(n_in, n_out):
    law = area_law(n_in, n_out)
    exact = survival(n_in, n_out, law.first)
    ours = np.cumsum(law.probability[HALF, ::-1])[::-1]
    np.testing.assert_allclose(ours, exact, atol=1e-4)  # bins stand for their middle
    np.testing.assert_allclose(law.chance()[::-1].cumsum()[::-1], exact, atol=1e-12)


@pytest.mark.parametrize("share_in", [0.2, 0.5, 0.8])
@pytest.mark.parametrize(("n_in", "n_out"), [(4, 4), (8, 24), (32, 32), (100, 100), (250, 250)])
def test_the_law_has_the_moments_of_normal_signals(n_in, n_out, share_in):
    law = area_law(n_in, n_out, share_in=share_in)
    last = np.append(law.first[1:] - 1, n_in * n_out)
    area = (law.first + last) / (2 * n_in * n_out)
    variance = area_variance(AREAS, n_in, n_out, share_in=share_in)
    mean = law.probability @ area
    np.testing.assert_allclose(mean, AREAS, atol=1e-5)
    np.testing.assert_allclose(law.probability @ area**2 - mean**2, variance, rtol=1e-2, atol=1e-9)
    assert (law.probability >= 0).all()
    np.testing.assert_allclose(law.probability.sum(axis=1), 1.0)


def test_a_larger_true_area_makes_larger_areas_likelier():
    below = np.cumsum(area_law(16, 16).probability, axis=1)
    assert (np.diff(below, axis=0) < 1e-9).all()


@pytest.mark.parametrize(("n_in", "n_out", "share_in"), [(8, 8, 0.5), (12, 20, 0.8), (40, 40, 0.3)])
def test_law_and_variance_are_the_simulated_ones(n_in, n_out, share_in):
    rng = np.random.default_rng(0)
    law = area_law(n_in, n_out, share_in=share_in)
    for probit, furthest in ((0.0, 0.006), (0.26, 0.008), (0.7, 0.012), (1.3, 0.035)):
        at = int(np.argmin(np.abs(PROBITS - probit)))
        truth = np.full(20_000, AREAS[at])
        area = measured_risk(truth, n_in, n_out, rng, share_in=share_in).joint
        variance = area_variance(AREAS[at : at + 1], n_in, n_out, share_in=share_in)[0]
        assert area.var() == pytest.approx(variance, rel=0.05)
        seen = np.bincount(law.bin_of(area), minlength=len(law.first)) / len(area)
        distance = np.abs(np.cumsum(seen) - np.cumsum(law.probability[at])).max()
        assert distance < furthest + 1.9 / np.sqrt(len(area))


def test_variance_without_effect():
    for n_in, n_out in ((1, 1), (7, 7), (3, 20)):
        variance = area_variance(np.array([0.5]), n_in, n_out)
        assert variance[0] == pytest.approx(null_se(n_in, n_out) ** 2)


def test_bins_hold_their_areas():
    law = area_law(3, 4)
    assert law.first.tolist() == list(range(13))
    u = np.arange(13)
    assert law.bin_of(u / 12).tolist() == u.tolist()
    assert law.bin_of((u[:-1] + 0.5) / 12).tolist() == u[:-1].tolist()
    law = area_law(60, 60)
    area = np.random.default_rng(0).integers(0, 3601, 500) / 3600
    bins = law.bin_of(area)
    assert (law.first[bins] <= area * 3600 + 1e-6).all()
    assert (np.append(law.first[1:], 3601)[bins] > area * 3600 - 1e-6).all()
    assert law.bin_of(np.array([0.0, 1.0])).tolist() == [0, len(law.first) - 1]


def test_designs_that_differ_little_share_a_law():
    rng = np.random.default_rng(1)
    n_in = rng.binomial(200, 0.5, 3000)
    found = count_areas(rng.random(3000), n_in, 200 - n_in)
    assert len(found.laws) <= 6
    few = count_areas(np.full(4, 0.5), np.array([4, 4, 5, 6]), np.array([4, 4, 4, 4]))
    assert {(law.n_in, law.n_out) for law in few.laws} == {(4, 4), (5, 4), (6, 4)}
    many = count_areas(rng.random(500), rng.integers(2, 40, 500), rng.integers(2, 40, 500))
    assert len(many.laws) <= 33


def test_patients_are_counted_once_and_found_again():
    rng = np.random.default_rng(2)
    n_in, n_out = rng.integers(4, 7, (2, 300))
    area = rng.integers(0, n_in * n_out + 1) / (n_in * n_out)
    area[::7] = np.nan
    found = count_areas(area, n_in, n_out)
    known = ~np.isnan(area)
    assert found.count.sum() == known.sum()
    assert (found.row[~known] == -1).all()
    for p in np.flatnonzero(known)[:40]:
        row = found.row[p]
        law = found.laws[found.design[row]]
        if (law.n_in, law.n_out) == (n_in[p], n_out[p]):
            own = area_law(n_in[p], n_out[p]).probability[:, round(area[p] * n_in[p] * n_out[p])]
            np.testing.assert_allclose(found.likelihood[row], np.maximum(own, 1e-250))


def test_the_fit_is_nearly_as_likely_as_the_free_one():
    """Against the nonparametric maximum by expectation and maximisation, a thousand steps."""
    rng = np.random.default_rng(3)
    risk = measured_risk(published(3000, rng), 24, 24, rng)
    found = count_areas(risk.joint, risk.n_in, risk.n_out)
    free = np.full(len(AREAS), 1 / len(AREAS))
    for _ in range(1000):
        free *= (found.count / (found.likelihood @ free)) @ found.likelihood / 3000
    weights = fit_prior(found.likelihood, found.count)
    best = found.count @ np.log(found.likelihood @ free)
    ours = found.count @ np.log(found.likelihood @ weights)
    assert weights.min() >= 0
    assert weights.sum() == pytest.approx(1)
    assert best - 6 < ours < best + 0.5


@pytest.mark.parametrize(("n_side", "mean", "sd"), [(16, 0.15, 0.25), (100, 0.17, 0.10)])
def test_a_normal_distribution_of_probits_is_found_again(n_side, mean, sd):
    """No sampling error: the counts are the expected ones."""
    law = area_law(n_side, n_side)
    truth = normal_weights(mean, sd)
    weights = fit_prior(np.maximum(law.probability.T, 1e-250), 20_000 * truth @ law.probability)
    cuts = np.array([0.5, 0.55, 0.6, 0.7])
    np.testing.assert_allclose(
        share_at_or_above(weights, cuts), share_at_or_above(truth, cuts), atol=0.01
    )


def test_shares_are_those_of_the_normal():
    cuts = np.array([0.01, 0.5, 0.6, 0.75, 0.9, 0.9999, 1.0])
    found = share_at_or_above(normal_weights(0.4, 0.2), cuts)
    np.testing.assert_allclose(found, ndtr((0.4 - ndtri(cuts)) / 0.2), atol=1e-4)
    one = np.zeros(len(AREAS))
    one[HALF] = 1.0
    assert share_at_or_above(one, np.array([0.49, 0.5, 0.51])).tolist() == [1.0, 0.5, 0.0]


def test_posterior_is_bayes_by_hand():
    law = area_law(6, 6)
    weights = normal_weights(0.2, 0.3)
    mean, low, high = posterior(law.probability.T, weights)
    for row in (0, 20, 36):
        each = [w * p for w, p in zip(weights, law.probability[:, row], strict=True)]
        assert mean[row] == pytest.approx(
            sum(e * a for e, a in zip(each, AREAS, strict=True)) / sum(each)
        )
        total = np.cumsum(each) / sum(each)
        assert AREAS[np.searchsorted(total, 0.025)] == pytest.approx(low[row], abs=0.005)
        assert AREAS[np.searchsorted(total, 0.975)] == pytest.approx(high[row], abs=0.005)
    assert (np.diff(mean) > 0).all()


@pytest.mark.parametrize(
    ("n_in", "n_out", "share_in"), [(16, 48, 0.2), (16, 48, 0.5), (48, 16, 0.8), (60, 60, 0.5)]
)
def test_standard_errors_tell_unequal_variances(n_in, n_out, share_in):
    rng = np.random.default_rng(4)
    for truth in (chance(2000, rng), published(2000, rng), strong(2000, rng)):
        risk = measured_risk(truth, n_in, n_out, rng, share_in=share_in)
        found = variance_share(risk.joint, risk.se, risk.n_in, risk.n_out)
        if n_in != n_out:
            assert found == pytest.approx(share_in, abs=0.08)
        else:  # the variance is flat there
            middle = AREAS[(AREAS > 0.3) & (AREAS < 0.9)]
            law = area_variance(middle, n_in, n_out, share_in=found)
            np.testing.assert_allclose(law, area_variance(middle, n_in, n_out), rtol=0.05)
    nothing = np.full(3, np.nan)
    assert variance_share(nothing, nothing, np.ones(3, int), np.ones(3, int)) == 0.5


def coverage(truth, n_side, rng):
    risk = measured_risk(truth, n_side, n_side, rng)
    found = count_areas(risk.joint, risk.n_in, risk.n_out)
    mean, low, high = posterior(found.likelihood, fit_prior(found.likelihood, found.count))
    inside = (low[found.row] - 1e-3 <= truth) & (truth <= high[found.row] + 1e-3)
    gain = np.mean((mean[found.row] - truth) ** 2) / np.mean((risk.joint - truth) ** 2)
    return inside.mean(), gain


def test_credible_intervals_hold_the_truth():
    rng = np.random.default_rng(5)
    for n_side in (8, 32):
        inside, gain = coverage(published(3000, rng), n_side, rng)
        assert 0.92 < inside < 0.99
        assert gain < 0.4


@pytest.mark.slow
@pytest.mark.parametrize("n_side", [8, 16, 32, 100])
@pytest.mark.parametrize("kind", [published, strong, sparse, chance])
def test_credible_intervals_hold_the_truth_on_average(n_side, kind):
    rng = np.random.default_rng(6)
    inside = [coverage(kind(3000, rng), n_side, rng)[0] for _ in range(5)]
    assert np.mean(inside) > 0.935


def test_the_interval_reaches_the_ends_and_holds_the_mean():
    """Mass in the outermost cell of the grid sets no limit short of 0 or 1."""
    likelihood = np.full((2, len(AREAS)), 1e-12)
    likelihood[0, -1] = likelihood[1, 0] = 1.0
    mean, low, high = posterior(likelihood, np.full(len(AREAS), 1.0 / len(AREAS)))
    assert high[0] == 1.0
    assert low[1] == 0.0
    assert (low <= mean).all()
    assert (mean <= high).all()
