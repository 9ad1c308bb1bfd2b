"""How many patients are at or above an area: measured, by chance, and corrected for noise.

The measured share is inflated by the error of the measured areas; the corrected one is the share
of patients whose *true* area is at or above the threshold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.special import ndtri
from scipy.stats import beta, binom

from confide.audits.deconvolution import (
    AREAS,
    PROBITS,
    Measured,
    area_law,
    count_areas,
    fit_prior,
    posterior,
    share_at_or_above,
    variance_share,
)
from confide.audits.mann_whitney import null_se
from confide.audits.null import joint_survival
from confide.audits.patients import PatientRisk
from confide.errors import ArgumentError

Floats = NDArray[np.float64]

_VARIANCE_SHARES = (0.5, 0.2, 0.8)
"""var_in / (var_in + var_out) that the bounds allow: deviations apart by up to a factor of two."""


@dataclass(frozen=True, kw_only=True)
class Tail:
    """Shares of patients at or above thresholds, and the risk of each patient without noise.

    Attributes
    ----------
    thresholds : (n_thresholds,) areas
    raw, raw_low, raw_high : measured share, with Clopper and Pearson's 95 % interval
    null, null_low, null_high : share expected by chance alone, and the central 95 % of the shares
        that chance gives a cohort of this size
    corrected, low, high : share of patients whose true area is at or above the threshold, and
        bounds that hold it in at least 95 % of audits whatever the distribution of true areas, for
        normal signals, if true areas have nothing to do with how many models hold a patient
    risk, risk_low, risk_high : (n_patients,) posterior mean of the true area and central 95 %
        credible interval; NaN for a patient without a measured area
    local_fdr : (n_patients,) chance that membership has no effect on a patient with this measured
        area; never larger for a larger area of the same design; NaN as above
    """

    thresholds: Floats
    raw: Floats
    raw_low: Floats
    raw_high: Floats
    null: Floats
    null_low: Floats
    null_high: Floats
    corrected: Floats
    low: Floats
    high: Floats
    risk: Floats
    risk_low: Floats
    risk_high: Floats
    local_fdr: Floats


def tail(risk: PatientRisk, thresholds: Floats) -> Tail:
    """Tail shares and corrected risk of a cohort, from the joint areas of its patients.

    Parameters
    ----------
    risk : of every patient; `joint`, `se`, `n_in` and `n_out` are read
    thresholds : (n_thresholds,) areas strictly between 0 and 1, or 1

    Notes
    -----
    Patients with several records need nothing else: the null law of `joint`, and its law for
    normal signals, depend on the numbers of models alone.  See :func:`fit_prior`,
    :func:`tail_bounds` and :func:`local_fdr` for what the three estimates rest on.
    """
    thresholds = np.asarray(thresholds, dtype=np.float64)
    if not ((thresholds > 0) & (thresholds <= 1)).all():
        raise ArgumentError(f"Expected thresholds={thresholds.tolist()} in (0, 1].")
    known = ~np.isnan(risk.joint)
    n = int(known.sum())
    if not n:
        return _nothing(len(risk.joint), thresholds)
    area = np.sort(risk.joint[known])
    above = n - np.searchsorted(area, thresholds - 1e-9, side="left")
    raw_low, raw_high = _clopper_pearson(above, n, 0.05)
    null = np.minimum(joint_survival(risk.n_in[known], risk.n_out[known], thresholds), 1.0)
    share = variance_share(risk.joint, risk.se, risk.n_in, risk.n_out)
    measured = count_areas(risk.joint, risk.n_in, risk.n_out, share_in=share)
    weights = fit_prior(measured.likelihood, measured.count)
    corrected = share_at_or_above(weights, thresholds)
    low, high = tail_bounds(measured, thresholds)
    mean, risk_low, risk_high = posterior(measured.likelihood, weights)
    risk_low, risk_high = (_by_patient(limit, measured) for limit in (risk_low, risk_high))
    # Areas at their bound, or two pairs from it, say nothing of how far beyond the truth lies.
    pairs = risk.n_in * risk.n_out
    with np.errstate(invalid="ignore"):
        risk_high = np.where(risk.joint * pairs >= pairs - 2, 1.0, risk_high)
        risk_low = np.where(risk.joint * pairs <= 2, 0.0, risk_low)
    return Tail(
        thresholds=thresholds,
        raw=above / n,
        raw_low=raw_low,
        raw_high=raw_high,
        null=null,
        null_low=np.asarray(binom.ppf(0.025, n, null)) / n,
        null_high=np.asarray(binom.ppf(0.975, n, null)) / n,
        corrected=corrected,
        low=np.minimum(low, corrected),
        high=np.maximum(high, corrected),
        risk=_by_patient(mean, measured),
        risk_low=risk_low,
        risk_high=risk_high,
        local_fdr=_by_patient(local_fdr(measured, weights), measured),
    )


def _nothing(n_patients: int, thresholds: Floats) -> Tail:
    shares = dict.fromkeys(
        ("raw", "raw_low", "raw_high", "null", "null_low", "null_high", "corrected", "low", "high"),
        np.full(len(thresholds), np.nan),
    )
    patients = dict.fromkeys(
        ("risk", "risk_low", "risk_high", "local_fdr"), np.full(n_patients, np.nan)
    )
    return Tail(thresholds=thresholds, **shares, **patients)


def _by_patient(values: Floats, measured: Measured) -> Floats:
    return np.where(measured.row >= 0, values[measured.row], np.nan)


def _clopper_pearson(count: NDArray[np.int64], n: int, level: float) -> tuple[Floats, Floats]:
    """Two-sided exact limits at error `level` for counts out of `n`."""
    inner = (count > 0), (count < n)
    low = beta.ppf(level / 2, np.maximum(count, 1), n - count + 1)
    high = beta.isf(level / 2, count + 1, np.maximum(n - count, 1))
    return np.where(inner[0], low, 0.0), np.where(inner[1], high, 1.0)


def tail_bounds(
    measured: Measured, thresholds: Floats, *, level: float = 0.05
) -> tuple[Floats, Floats]:
    """Bounds on the share of true areas at or above each threshold: two arrays (n_thresholds,).

    The smallest and largest share over all distributions of true areas (and of unequal variances
    of the signals) under which the shares measured above some twenty fixed areas all stay inside
    Clopper and Pearson's limits, each at `level` over their number.  Nothing is assumed about the
    shape of the distribution; the price is width, and that the bounds hold their share more often
    than they state.

    Notes
    -----
    F-localisation, Ignatiadis and Wager, arXiv 1902.02774, section 2, with these limits in place
    of the Dvoretzky-Kiefer-Wolfowitz band, which is too wide in the tail.  One cell of the grid is
    added at either side of a threshold.  Where no distribution meets the limits they are widened
    by the least common factor that admits one.
    """
    low, high, expected = _limits(measured, level)
    # Rows are scaled to one: the solver's tolerances are absolute, tail shares are small.
    width = (high - low) / high
    expected = expected / high[:, None]
    matrix = np.concatenate([expected, -expected])
    sides = np.concatenate([np.ones(len(high)), -low / high])
    n_columns = expected.shape[1]
    whole = np.ones((1, n_columns))
    excess: Any = linprog(
        np.append(np.zeros(n_columns), 1.0),
        A_ub=np.column_stack([matrix, -np.concatenate([width, width])]),
        b_ub=sides,
        A_eq=np.append(whole, [[0.0]], axis=1),
        b_eq=[1.0],
        method="highs",
    )
    stretch = float(excess.x[-1]) * (1 + 1e-6) + 1e-6
    sides = sides + stretch * np.concatenate([width, width])
    probit = ndtri(np.clip(thresholds, AREAS[0], AREAS[-1]))
    step = PROBITS[1] - PROBITS[0]
    grid = np.tile(PROBITS, len(_VARIANCE_SHARES))

    def extreme(inside: NDArray[np.bool_], sign: float) -> float:
        found: Any = linprog(
            sign * inside, A_ub=matrix, b_ub=sides, A_eq=whole, b_eq=[1.0], method="highs"
        )
        if found.fun is None:  # the solver gave up: no bound
            return 0.0 if sign > 0 else 1.0
        return float(np.clip(sign * found.fun, 0.0, 1.0))

    least = [extreme(grid > t + (1 - 1e-6) * step, 1.0) for t in probit]
    most = [extreme(grid > t - (1 - 1e-6) * step, -1.0) for t in probit]
    return np.asarray(least), np.asarray(most)


def _limits(measured: Measured, level: float) -> tuple[Floats, Floats, Floats]:
    """Limits of the shares measured above the cuts, and what each true area contributes.

    Returns
    -------
    low, high : (n_cuts,); expected : (n_cuts, n_shares * n_areas)
    """
    n = float(measured.count.sum())
    patients = np.bincount(measured.design, measured.count, len(measured.laws))
    common = measured.laws[int(np.argmax(patients))]
    cuts = _cuts(common.n_in, common.n_out)
    above = np.zeros(len(cuts))
    expected = np.zeros((len(cuts), len(_VARIANCE_SHARES), len(AREAS)))
    for i, law in enumerate(measured.laws):
        rows = measured.design == i
        from_bin = np.searchsorted(law.first, cuts * (law.n_in * law.n_out) - 1e-6)
        above += (measured.bin[rows] >= from_bin[:, None]) @ measured.count[rows]
        for j, share in enumerate(_VARIANCE_SHARES):
            other = area_law(law.n_in, law.n_out, share_in=share)
            from_top = np.cumsum(other.probability[:, ::-1], axis=1)[:, ::-1]
            expected[:, j] += patients[i] / n * from_top[:, from_bin].T
    low, high = _clopper_pearson(above.astype(np.int64), int(n), level / len(cuts))
    return low, high, expected.reshape(len(cuts), -1)


def _cuts(n_in: int, n_out: int) -> Floats:
    """Areas at which shares are limited: every half standard error, wider far out, and 1."""
    z = np.concatenate([np.arange(-3.0, 4.25, 0.5), np.arange(5.0, 60.0)])
    area = 0.5 + z * null_se(n_in, n_out)
    return np.append(area[(area > 0) & (area < 1)], 1.0)


def local_fdr(measured: Measured, weights: Floats) -> Floats:
    """Local false discovery rate of every (design, bin) of measured areas: (n_rows,).

    ``pi0 f0 / f``, with f0 the exact null law, f the fitted law, and pi0 the share of patients
    with an area of at most 0.5 over the share that the null puts there (Storey 2002, at one half),
    at most 1: too high rather than too low.  Within a design the rate is made monotone from above,
    so that a smaller area never has a smaller rate.
    """
    n = float(measured.count.sum())
    low_seen = low_null = 0.0
    for i, law in enumerate(measured.laws):
        rows = measured.design == i
        centre = np.searchsorted(law.first, 0.5 * law.n_in * law.n_out + 1e-6)  # bins up to 0.5
        low_seen += float(measured.count[rows & (measured.bin < centre)].sum())
        share = float(measured.count[rows].sum()) / n
        low_null += share * float(law.chance()[:centre].sum())
    pi0 = min(1.0, (low_seen + 1) / n / low_null)
    rate = np.empty(len(measured.count))
    for i, law in enumerate(measured.laws):
        rows = measured.design == i
        null, fitted = law.chance(), weights @ law.probability
        each = np.minimum(1.0, pi0 * null / np.maximum(fitted, 1e-300))
        rate[rows] = np.maximum.accumulate(each[::-1])[::-1][measured.bin[rows]]
    return rate
