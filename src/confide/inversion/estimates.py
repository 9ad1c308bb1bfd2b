"""Intervals of scores with patients as the units, and what chance alone gives.

Chance is an attacker who knows nothing: the truth is a random pairing, independent of the finding.
The range of chance is one that such an attacker leaves less than once in a thousand runs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit
from scipy.stats import poisson

from confide.audits.clustered import share_interval

Floats = NDArray[np.floating]
Integers = NDArray[np.integer]

RARE = 0.001
"""Share of the runs in which an attacker who knows nothing leaves the range of chance, at most."""
_DEVIATIONS = 3.2905
"""Standard normal quantile of 1 - RARE / 2."""
_DRAWS = 20_000
_AT_ONCE = 2**22


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value with the limits of its 95 % interval, None where there is no telling."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class Chance:
    """What an attacker who knows nothing reaches: on average, and the range of nearly all runs."""

    value: float
    low: float
    high: float


def share(hits: Floats, patient: Integers) -> Estimate:
    """Mean of values in [0, 1] with its 95 % interval.

    The interval is that of Korn and Graubard (Survey Methodology 24 (1998) 193-201), with patients
    as the units, and never narrower than that of as many independent records as there are
    patients.  It takes patients as independent, which hits of a one-to-one assignment are not
    quite: one wrong pair makes another.

    Parameters
    ----------
    hits : (n,) one a code
    patient : (n,) whose codes, any integers
    """
    owner, n_patients = _numbered(patient)
    value = float(np.mean(hits))
    error = _error(np.asarray(hits, dtype=np.float64), owner, n_patients)
    if 0.0 < value < 1.0:
        if n_patients < 2:
            return Estimate(value=value, low=None, high=None)
        error = max(error, float(np.sqrt(value * (1.0 - value) / n_patients)))
    interval = share_interval(value, error, max(n_patients - 1.0, 1.0), n_patients)
    return Estimate(value=value, low=min(interval.low, value), high=max(interval.high, value))


def mean(values: Floats, patient: Integers, limits: tuple[float, float]) -> Estimate:
    """Mean of values with its 95 % interval from the spread between patients (Student's t)."""
    owner, n_patients = _numbered(patient)
    value = float(np.mean(values))
    if n_patients < 2:
        return Estimate(value=value, low=None, high=None)
    error = _error(np.asarray(values, dtype=np.float64), owner, n_patients)
    width = float(stdtrit(n_patients - 1, 0.975)) * error
    return Estimate(
        value=value, low=max(value - width, limits[0]), high=min(value + width, limits[1])
    )


def median(values: Floats, patient: Integers) -> Estimate:
    """Median with its 95 % interval: the quantiles at the limits of the share below it (Woodruff).

    Woodruff, J. Am. Stat. Assoc. 47 (1952) 635-646, with patients as the units.
    """
    value = float(np.median(values))
    below = share((np.asarray(values) <= value).astype(np.float64), patient)
    if below.low is None or below.high is None:
        return Estimate(value=value, low=None, high=None)
    # The share at most the median may lie above one half; the interval is laid around one half.
    low = np.quantile(values, max(0.0, 0.5 - (below.value - below.low)))
    high = np.quantile(values, min(1.0, 0.5 + (below.high - below.value)))
    return Estimate(value=value, low=min(float(low), value), high=max(float(high), value))


def random_hits(expected: float, n: int, *, clump: float = 1.0) -> Chance:
    """Share of n codes that a random pairing gets right.

    The number of hits is taken as Poisson: the limit of the number of fixed points of a random
    permutation (de Montmort), which its tail approaches from below.

    Parameters
    ----------
    expected : number of hits on average; n / m for n codes and m plaintexts
    clump : hits that come together, on average; such as the images of a patient
    """
    low, high = (float(poisson.ppf(q, expected / clump)) for q in (RARE / 2, 1 - RARE / 2))
    return Chance(
        value=expected / n,
        low=max(0.0, min(low * clump, expected) / n),
        high=min(1.0, max(high * clump, expected) / n),
    )


def random_pairs(values: Floats, patient: Integers) -> Chance:
    """Mean of the entries that a random pairing picks from a matrix, as large as it may be.

    Mean and variance are exact for pairings of single records (Hoeffding, Ann. Math. Stat. 22
    (1951) 558-566); the variance is then that of records whose patient is right or wrong as one.

    Parameters
    ----------
    values : (n, m) one a code and plaintext, m >= n
    patient : (n,) whose codes
    """
    n, m = values.shape
    centre = float(values.mean(dtype=np.float64))
    inside = values - values.mean(axis=1, keepdims=True, dtype=np.float64)
    # m - n codes that are not there would be rows of zeros.
    squares = float(np.square(inside).sum() - np.square(inside.sum(axis=0)).sum() / m)
    variance = max(squares, 0.0) / max(m - 1, 1) / n**2
    reach = _DEVIATIONS * float(np.sqrt(variance * clumping(patient)))
    return Chance(value=centre, low=centre - reach, high=centre + reach)


def random_median(values: Floats, patient: Integers) -> Chance:
    """Median of the entries that a random pairing picks from a matrix (n, m)."""
    reach = _DEVIATIONS * 0.5 / float(np.sqrt(len(values) / clumping(patient)))
    spread = [0.5, max(0.0, 0.5 - reach), min(1.0, 0.5 + reach)]
    value, low, high = (float(q) for q in np.quantile(values, spread))
    return Chance(value=value, low=low, high=high)


def random_area(positive: Integers, negative: Integers) -> Chance:
    """Area under the ROC curve of scores that tell nothing, normal approximation.

    Its error is that of single values (Mann and Whitney), as many as there are patients
    effectively: records of a patient may all fare alike.

    Parameters
    ----------
    positive, negative : (n_patients,) how many records or pairs of either class a patient has
    """
    n_1, n_0 = (
        float(k.sum()) ** 2 / float((k.astype(np.float64) ** 2).sum()) for k in (positive, negative)
    )
    reach = _DEVIATIONS * float(np.sqrt((n_1 + n_0 + 1.0) / (12.0 * n_1 * n_0)))
    return Chance(value=0.5, low=max(0.0, 0.5 - reach), high=min(1.0, 0.5 + reach))


def random_owners(
    nearest: Integers, mine: Integers, theirs: Integers, *, within: bool, seed: int
) -> Chance:
    """Share of codes whose nearest neighbour is of their patient when patients are dealt at random.

    By simulation, because neighbours are often mutual, and hits then come in pairs.

    Parameters
    ----------
    nearest : (n,) number of the nearest of the others
    mine, theirs : (n,) and (n_others,) patients
    within : whether the others are the codes themselves
    """
    rng = np.random.default_rng(seed)
    hits = np.empty(_DRAWS)
    step = max(1, _AT_ONCE // len(theirs))
    for start in range(0, _DRAWS, step):
        size = min(step, _DRAWS - start)
        dealt = rng.permuted(np.broadcast_to(theirs, (size, len(theirs))), axis=1)
        own = dealt[:, : len(mine)] if within else mine
        hits[start : start + size] = (own == dealt[:, nearest]).mean(axis=1)
    low, high = np.quantile(hits, [RARE / 2, 1 - RARE / 2])
    return Chance(value=float(hits.mean()), low=float(low), high=float(high))


def clumping(patient: Integers) -> float:
    """Records of the patient of a record, on average over records: variances grow by as much."""
    counts = np.unique(patient, return_counts=True)[1].astype(np.float64)
    return float((counts**2).sum() / counts.sum())


def _numbered(patient: Integers) -> tuple[NDArray[np.intp], int]:
    values, owner = np.unique(patient, return_inverse=True)
    return owner, len(values)


def _error(values: NDArray[np.float64], owner: NDArray[np.intp], n_patients: int) -> float:
    """Standard error of the mean of values with patients as the units."""
    influence = np.bincount(owner, weights=values - values.mean(), minlength=n_patients)
    factor = n_patients / max(n_patients - 1, 1)
    return float(np.sqrt(influence @ influence * factor)) / len(values)
