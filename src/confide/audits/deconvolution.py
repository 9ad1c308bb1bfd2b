"""The distribution of true areas behind measured ones.

An area over models is measured with an error that depends on the true area and on the numbers of
models, so the measured areas of many patients spread wider than the true ones.  Here: the law of
a measured area given the true one, the distribution of the true ones that explains a cohort
(the prior, in the sense of empirical Bayes), and what it says about one patient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import ndtr, ndtri, owens_t

from confide.audits.mann_whitney import null_se, survival

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_STEP = 0.02
PROBITS: Floats = np.arange(-30, 151, dtype=np.float64) * _STEP
PROBITS.setflags(write=False)
"""The grid of true areas, as probits: -0.6 to 3.0, that is areas from 0.27 to 0.9987."""
AREAS: Floats = ndtr(PROBITS)
AREAS.setflags(write=False)
_EDGES: Floats = np.append(PROBITS - _STEP / 2, PROBITS[-1] + _STEP / 2)
_N_BINS = 400
_SAME_SE = 0.01
_MOST_DESIGNS = 32
_PENALTIES = 10.0 ** np.arange(-1, -9, -1)


@dataclass(frozen=True, kw_only=True)
class AreaLaw:
    """P(measured area in a bin | true area) for one design.

    Attributes
    ----------
    n_in, n_out : models with and without the patient
    first : (n_bins,) smallest number of ordered pairs U of each bin; the area is U / (n_in n_out)
    probability : (n_areas, n_bins), rows sum to one; rows are the true areas of ``AREAS``
    """

    n_in: int
    n_out: int
    first: Ints
    probability: Floats

    def chance(self) -> Floats:
        """(n_bins,) exact probabilities when membership has no effect."""
        from_bin = survival(self.n_in, self.n_out, self.first)
        return from_bin - np.append(from_bin[1:], 0.0)

    def bin_of(self, area: Floats) -> NDArray[np.intp]:
        """(n_patients,) bin of each measured area; half a tied pair is rounded down."""
        u = np.floor(area * (self.n_in * self.n_out) + 1e-6)
        return np.searchsorted(self.first, u, side="right") - 1


def area_variance(areas: Floats, n_in: int, n_out: int, *, share_in: float = 0.5) -> Floats:
    """Variance of the measured area when signals are normal: (n_areas,).

    Parameters
    ----------
    areas : (n_areas,) true areas, strictly between 0 and 1
    n_in, n_out : models with and without the patient
    share_in : var_in / (var_in + var_out); 0.5 for equal variances

    Notes
    -----
    The variance of a two-sample U statistic (Bamber 1975, equation 4); its probabilities of two
    pairs that share a model are orthant probabilities of the bivariate normal (Owen 1956).
    """
    return _variance(areas, n_in, n_out, share_in, 1)


def _variance(areas: Floats, n_in: int, n_out: int, share_in: float, remainders: int) -> Floats:
    """With one remainder the variance of the area; with two, what DeLong's estimate is on average.

    DeLong's squared error is the sum of two sample variances, each of which holds the remainder.
    """
    probit = ndtri(areas)

    def shared(correlation: float) -> Floats:
        slope = np.sqrt((1 - correlation) / (1 + correlation))
        return ndtr(probit) - 2 * owens_t(probit, slope) - areas**2

    of_in, of_out = shared(share_in), shared(1 - share_in)
    remainder = areas * (1 - areas) - of_in - of_out
    return (n_out * of_in + n_in * of_out + remainders * remainder) / (n_in * n_out)


def variance_share(area: Floats, se: Floats, n_in: Ints, n_out: Ints) -> float:
    """var_in / (var_in + var_out) of the signals, as the standard errors of the cohort tell it.

    Parameters
    ----------
    area, se : (n_patients,) measured areas and DeLong's errors, NaN where there is none
    n_in, n_out : (n_patients,) models with and without each patient

    Notes
    -----
    The share, between 0.1 and 0.9, at which the mean of the squared errors is what normal signals
    give at the mean of a (1 - a).  It matters where n_in and n_out differ.  With equal numbers a
    share and its complement have the same variance, which is least at one half.
    """
    known = np.flatnonzero(~np.isnan(area) & ~np.isnan(se))
    candidates = np.linspace(0.1, 0.9, 81)
    expected = np.zeros(len(candidates))
    for patients, (a, b) in _designs(known, n_in, n_out):
        # The spread of measured areas lowers the mean of A (1 - A) by their mean variance.
        noise = float((se[patients] ** 2).mean())
        product = float((area[patients] * (1 - area[patients])).mean()) + noise
        typical = np.array([0.5 + np.sqrt(max(0.25 - product, 0.0))])
        each = [float(_variance(typical, a, b, share, 2)[0]) for share in candidates]
        expected += len(patients) * np.asarray(each)
    off = np.abs(expected - float((se[known] ** 2).sum()))
    nearest = off <= off.min() * (1 + 1e-9)
    return float(candidates[nearest][np.argmin(np.abs(candidates[nearest] - 0.5))])


def area_law(n_in: int, n_out: int, *, share_in: float = 0.5) -> AreaLaw:
    """The law of the measured area for every true area of the grid.

    Parameters
    ----------
    n_in, n_out : models with and without the patient, at least one each
    share_in : var_in / (var_in + var_out)

    Notes
    -----
    On the scale z = Phi^-1(F0(U)), F0 the exact null law, U is taken as normal with the mean and
    deviation that give the measured area its exact mean and binormal variance.  At area 0.5 with
    equal variances this is the exact null.  Largest distance to simulated laws: below .006 for
    areas up to .7, below .03 up to .95, the most with 8 models a side, a third of that with 100.
    """
    first = _bins(n_in * n_out)
    if len(first) == 2:  # a single pair is in order with the probability that is the area
        probability = np.stack([1 - AREAS, AREAS], axis=1)
        return AreaLaw(n_in=n_in, n_out=n_out, first=first, probability=probability)
    pairs = float(n_in * n_out)
    upper = survival(n_in, n_out, first[1:])
    lower = survival(n_in, n_out, n_in * n_out + 1 - first[1:])
    z = np.where(upper < 0.5, -ndtri(upper), ndtri(lower))
    # Beyond 38 deviations a float holds no tail; there the null is the normal approximation.
    unit = null_se(n_in, n_out)
    z = np.where(np.isfinite(z), z, ((first[1:] - 0.5) / pairs - 0.5) / unit)
    last = np.append(first[1:] - 1, n_in * n_out)
    centre = (first + last) / (2 * pairs)
    variance = area_variance(AREAS, n_in, n_out, share_in=share_in)
    mean, log_sd = _match(z, centre, variance, unit)
    below = ndtr((z - mean[:, None]) / np.exp(log_sd)[:, None])
    ends = np.zeros((len(AREAS), 1)), np.ones((len(AREAS), 1))
    probability = np.diff(np.concatenate([ends[0], below, ends[1]], axis=1), axis=1)
    return AreaLaw(n_in=n_in, n_out=n_out, first=first, probability=probability)


def _bins(pairs: int) -> Ints:
    """Smallest U of each bin: single values where there are few, finer towards separation."""
    regular = np.unique(np.round(np.linspace(0, pairs, min(pairs, _N_BINS) + 1)).astype(np.int64))
    width = max(1, pairs // _N_BINS)
    fine = np.array([1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256])
    top = pairs + 1 - fine[fine <= 4 * width]
    return np.unique(np.concatenate([regular[regular < pairs], top[top > 0], [pairs]]))


def _match(z: Floats, centre: Floats, variance: Floats, unit: float) -> tuple[Floats, Floats]:
    """Mean and log deviation on the z scale, by Newton steps on the two moments of the area."""
    at = np.interp(AREAS, (centre[1:] + centre[:-1]) / 2, z)
    slope = np.interp(AREAS, (centre[1:] + centre[:-1]) / 2, np.gradient(z, centre[1:]))
    mean, log_sd = at.copy(), np.log(np.clip(np.sqrt(variance) * slope, 0.2, 1.5))
    weight, weight2 = np.diff(centre), np.diff(centre**2)
    for _ in range(60):
        sd = np.exp(log_sd)[:, None]
        t = (z - mean[:, None]) / sd
        below = ndtr(t)
        density = np.exp(-0.5 * t * t) / (np.sqrt(2 * np.pi) * sd)
        first = centre[-1] - below @ weight
        off_mean = first - AREAS
        off_var = centre[-1] ** 2 - below @ weight2 - first**2 - variance
        if max(np.abs(off_mean).max() / unit, np.abs(off_var / variance).max()) < 1e-5:
            break
        a, b = density @ weight, (density * t * sd) @ weight
        c = density @ weight2 - 2 * first * a
        d = (density * t * sd) @ weight2 - 2 * first * b
        det = a * d - b * c
        safe = np.where(np.abs(det) > 1e-300, det, np.inf)
        limit = 0.5 * sd[:, 0]
        mean = mean - np.clip((off_mean * d - off_var * b) / safe, -limit, limit)
        log_sd = log_sd - np.clip((a * off_var - c * off_mean) / safe, -0.25, 0.25)
    return mean, log_sd


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Measured areas of a cohort, counted by design and bin.

    Attributes
    ----------
    likelihood : (n_rows, n_areas) P(bin | true area) of each (design, bin) that occurs
    count : (n_rows,) patients there
    row : (n_patients,) row of each patient; -1 for a patient without a measured area
    laws : the law of each design
    design, bin : (n_rows,) index into `laws`, and into the bins of that law
    """

    likelihood: Floats
    count: Floats
    row: NDArray[np.intp]
    laws: Sequence[AreaLaw]
    design: NDArray[np.intp]
    bin: NDArray[np.intp]


def count_areas(area: Floats, n_in: Ints, n_out: Ints, *, share_in: float = 0.5) -> Measured:
    """Group patients by design (n_in, n_out) and by bin of their measured area.

    Parameters
    ----------
    area : (n_patients,) measured areas, NaN where there is none
    n_in, n_out : (n_patients,) models with and without each patient
    share_in : var_in / (var_in + var_out) of the signals

    Notes
    -----
    Designs whose standard errors at 0.5 agree within one percent share the law of the most common
    one; with more than 32 such classes the classes are made wider.
    """
    known = np.flatnonzero(~np.isnan(area))
    laws: list[AreaLaw] = []
    design = np.full(len(area), -1, dtype=np.intp)
    bin_ = np.zeros(len(area), dtype=np.intp)
    for patients, pair in _designs(known, n_in, n_out):
        law = area_law(*pair, share_in=share_in)
        design[patients] = len(laws)
        bin_[patients] = law.bin_of(area[patients])
        laws.append(law)
    key = np.stack([design[known], bin_[known]], axis=1)
    rows, inverse, count = np.unique(key, axis=0, return_inverse=True, return_counts=True)
    row = np.full(len(area), -1, dtype=np.intp)
    row[known] = inverse.ravel()
    likelihood = np.array([laws[d].probability[:, b] for d, b in rows]).reshape(-1, len(AREAS))
    return Measured(
        # A floor, so that an area that no true area explains does not make everything zero.
        likelihood=np.maximum(likelihood, 1e-250),
        count=count.astype(np.float64),
        row=row,
        laws=laws,
        design=rows[:, 0],
        bin=rows[:, 1],
    )


def _designs(
    known: NDArray[np.intp], n_in: Ints, n_out: Ints
) -> list[tuple[NDArray[np.intp], tuple[int, int]]]:
    """Patients of each class of designs, and the design that stands for the class."""
    if not len(known):
        return []
    pairs, which, count = np.unique(
        np.stack([n_in[known], n_out[known]], axis=1),
        axis=0,
        return_inverse=True,
        return_counts=True,
    )
    which = which.ravel()
    log_se = np.log([null_se(int(a), int(b)) for a, b in pairs])
    width = max(_SAME_SE, float(np.ptp(log_se)) / (_MOST_DESIGNS - 1))
    classes = np.round((log_se - log_se[np.argmax(count)]) / width).astype(np.int64)
    found = []
    for label in np.unique(classes):
        members = np.flatnonzero(classes == label)
        a, b = pairs[members[np.argmax(count[members])]]
        found.append((known[np.isin(which, members)], (int(a), int(b))))
    return found


def fit_prior(likelihood: Floats, count: Floats) -> Floats:
    """The distribution of true areas: (n_areas,) weights on the grid, summing to one.

    Parameters
    ----------
    likelihood : (n_rows, n_areas)
    count : (n_rows,) patients in each row

    Notes
    -----
    Maximum penalised likelihood; the penalty is on the third differences of the log weights over
    probits (Silverman 1982), so that a strong one leaves a normal distribution of probits, however
    narrow, and a weak one nearly anything.  Fits at several strengths are averaged with Akaike
    weights: log-likelihood less effective degrees of freedom.
    """
    third = np.diff(np.eye(len(PROBITS)), 3, axis=0) / _STEP**2.5
    penalty = third.T @ third
    theta = _start(likelihood, count)
    fits, scores = [], []
    for strength in _PENALTIES:
        theta, weights, information = _fit_one(likelihood, count, theta, strength * penalty)
        damped = information + strength * penalty + 1e-6 * np.eye(len(theta))
        freedom = float(np.trace(np.linalg.solve(damped, information)))
        fits.append(weights)
        scores.append(float(count @ np.log(likelihood @ weights)) - freedom)
    share = np.exp(np.asarray(scores) - max(scores))
    return share @ np.asarray(fits) / share.sum()


def _start(likelihood: Floats, count: Floats) -> Floats:
    """Log weights of a normal distribution where the likelihoods point."""
    best = PROBITS[np.argmax(likelihood, axis=1)]
    centre = float(count @ best / count.sum())
    spread = float(np.sqrt(count @ (best - centre) ** 2 / count.sum()))
    return -0.5 * ((PROBITS - centre) / max(0.5 * spread, 0.1)) ** 2


def _fit_one(
    likelihood: Floats, count: Floats, theta: Floats, penalty: Floats
) -> tuple[Floats, Floats, Floats]:
    """Log weights, weights and observed information at one strength of the penalty."""
    n = float(count.sum())

    def weights_of(theta: Floats) -> Floats:
        weights = np.exp(theta - theta.max())
        return weights / weights.sum()

    def loss(theta: Floats) -> float:
        fit = likelihood @ weights_of(theta)
        return float(-(count @ np.log(fit)) + 0.5 * theta @ penalty @ theta)

    def gradient(theta: Floats) -> Floats:
        weights = weights_of(theta)
        expected = weights * ((count / (likelihood @ weights)) @ likelihood)
        return n * weights - expected + penalty @ theta

    def information(theta: Floats) -> Floats:
        weights = weights_of(theta)
        posterior = likelihood * weights / (likelihood @ weights)[:, None]
        missing = np.diag(count @ posterior) - (posterior * count[:, None]).T @ posterior
        return n * (np.diag(weights) - np.outer(weights, weights)) - missing

    solve: Any = minimize  # its stubs know neither the options nor arrays of any shape
    best = solve(
        loss,
        theta,
        jac=gradient,
        hess=lambda x: information(x) + penalty,
        method="trust-exact",
        options={"gtol": 1e-3 * np.sqrt(n), "maxiter": 60, "initial_trust_radius": 10.0},
    )
    found = best.x - best.x.max()
    return found, weights_of(found), information(found)


def share_at_or_above(weights: Floats, thresholds: Floats) -> Floats:
    """Share of true areas at or above each threshold: (n_thresholds,).

    Weights are spread evenly over the cells of the grid (in probits).
    """
    at = np.clip(ndtri(thresholds), _EDGES[0], _EDGES[-1])
    return np.clip(1.0 - np.interp(at, _EDGES, np.append(0.0, np.cumsum(weights))), 0.0, 1.0)


def posterior(
    likelihood: Floats, weights: Floats, *, level: float = 0.95
) -> tuple[Floats, Floats, Floats]:
    """Mean and central credible interval of the true area: three arrays (n_rows,).

    Where the interval ends in the outermost cell of the grid its limit is 0 or 1.
    """
    each = likelihood * weights
    each /= each.sum(axis=1, keepdims=True)
    total = np.concatenate([np.zeros((len(each), 1)), np.cumsum(each, axis=1)], axis=1)
    tail = (1 - level) / 2
    low = np.array([np.interp(tail, row, _EDGES) for row in total])
    high = np.array([np.interp(1 - tail, row, _EDGES) for row in total])
    low = np.where(low < _EDGES[1], 0.0, ndtr(low))
    high = np.where(high > _EDGES[-2], 1.0, ndtr(high))
    return np.clip(each @ AREAS, low, high), low, high
