"""Intervals of scores with patients as the units, and what chance alone gives.

Chance is an attacker who knows nothing: the truth is a random pairing, independent of the finding.
The range of chance is one that such an attacker leaves less than once in a thousand runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit
from scipy.stats import poisson, rankdata

from confide.audits.clustered import share_interval

Floats = NDArray[np.floating]
Integers = NDArray[np.integer]
Flags = NDArray[np.bool_]

RARE = 0.001
"""Share of the runs in which an attacker who knows nothing leaves the range of chance, at most."""
_DEVIATIONS = 3.2905
"""Standard normal quantile of 1 - RARE / 2."""
_DRAWS = 10_000
_DEALS = 1000
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
    as the units, and never narrower than that of as many independent records as there are patients
    of equal size: (sum of c)^2 / (sum of c^2) for patients of c records (Kish, Survey Sampling,
    1965).  It takes patients as independent, which hits of a one-to-one assignment are not
    quite: one wrong pair makes another.

    Parameters
    ----------
    hits : (n,) one a code
    patient : (n,) whose codes, any integers
    """
    owner, n_patients = _numbered(patient)
    value = float(np.mean(hits))
    error = _error(np.asarray(hits, dtype=np.float64), owner, n_patients)
    size = np.bincount(owner).astype(np.float64)
    effective = float(size.sum() ** 2 / np.square(size).sum())
    if 0.0 < value < 1.0:
        if n_patients < 2:
            return Estimate(value=value, low=None, high=None)
        error = max(error, float(np.sqrt(value * (1.0 - value) / effective)))
    interval = share_interval(value, error, max(effective - 1.0, 1.0), effective)
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


def random_area(scores: Floats, positive: Flags, patient: Integers, seed: int) -> Chance:
    """Area under the ROC curve when what is true of patients is dealt to them at random.

    A patient is dealt all that is true of another one, so that records of one patient may fare
    alike, in their scores and in the truth.

    Parameters
    ----------
    scores : (n,) one a record
    positive : (n,) bool, the truth
    patient : (n,) whose record
    """
    rng = np.random.default_rng(seed)
    order = np.argsort(patient, kind="stable")
    rank, truth = rankdata(scores)[order], positive[order]
    size = np.unique(patient, return_counts=True)[1]
    start = np.concatenate([[0], np.cumsum(size)[:-1]])
    owner = np.repeat(np.arange(len(size)), size)
    number = np.arange(len(rank)) - start[owner]
    areas = []
    for _ in range(_DEALS):
        giver = rng.permutation(len(size))[owner]
        # Of a giver with fewer records they are taken again, in turn.
        dealt = truth[start[giver] + number % size[giver]]
        n_same = int(dealt.sum())
        if 0 < n_same < len(rank):
            areas.append(_area(rank[dealt].sum(), n_same, len(rank)))
    return _about(np.array(areas or [0.5]))


def random_owners(nearest: Integers, patient: Integers, seed: int) -> Chance:
    """Share of codes whose nearest neighbour is of their patient when patients are dealt at random.

    By simulation, because neighbours are often mutual, and hits then come in pairs.

    Parameters
    ----------
    nearest : (n,) number of the nearest of the other codes
    patient : (n,) whose codes; the share is of codes of patients with two or more
    """
    rng = np.random.default_rng(seed)
    n_known = int((np.unique(patient, return_counts=True)[1][_numbered(patient)[0]] > 1).sum())
    hits = np.empty(_DRAWS)
    step = max(1, _AT_ONCE // len(patient))
    for start in range(0, _DRAWS, step):
        size = min(step, _DRAWS - start)
        dealt = rng.permuted(np.broadcast_to(patient, (size, len(patient))), axis=1)
        hits[start : start + size] = (dealt == dealt[:, nearest]).sum(axis=1)
    return _range(hits / n_known)


def random_links(rank: Floats, left: Integers, right: Integers, seed: int) -> Chance:
    """Area under the ROC curve of pairs within a release when patients are dealt at random.

    Parameters
    ----------
    rank : (n, n) symmetric, rank of each pair of different codes among all such pairs, from 1
    left, right : (n_pairs,) the pairs of codes of one patient
    """
    rng = np.random.default_rng(seed)
    n, n_same = len(rank), len(left)
    sums = np.empty(_DEALS)
    for i in range(_DEALS):
        dealt = rng.permutation(n)
        sums[i] = rank[dealt[left], dealt[right]].sum(dtype=np.float64)
    return _about(_area(sums, n_same, n * (n - 1) // 2))


def random_identities(
    rank: Floats, hits: Integers, n_first: Integers, n_second: Integers, seed: int
) -> tuple[Chance, Chance]:
    """Linkage of two releases when nothing tells who of one is who of the other.

    Patients are exchanged as a whole, because codes of a patient resemble each other within each
    release, whatever is known across.

    Parameters
    ----------
    rank : (n_patients, n_patients) sum of the ranks, among all pairs of codes, of the pairs of a
        patient in the first release and one in the second
    hits : (n_patients, n_patients) codes of a patient in the first release whose nearest is of one
        in the second
    n_first, n_second : (n_patients,) codes of each patient in either release

    Returns
    -------
    chance of the area under the ROC curve, and of the share of codes whose nearest is right, of
    those whose patient is in the second release
    """
    rng = np.random.default_rng(seed)
    every, total = np.arange(len(rank)), int(n_first.sum()) * int(n_second.sum())
    areas, shares = [], []
    for _ in range(_DRAWS):
        who = rng.permutation(len(rank))
        n_same = int(n_first @ n_second[who])
        n_known = int(n_first[n_second[who] > 0].sum())
        if 0 < n_same < total:
            areas.append(_area(rank[every, who].sum(), n_same, total))
            shares.append(hits[every, who].sum() / n_known)
    return _range(np.array(areas or [0.5])), _range(np.array(shares or [0.0]))


def _area(rank_sum: Any, n_same: int, n_pairs: int) -> Any:
    """Area under the ROC curve from the sum of the ranks of the positives (Mann and Whitney)."""
    return (rank_sum / n_same - (n_same + 1) / 2.0) / (n_pairs - n_same)


def _about(areas: NDArray[np.float64]) -> Chance:
    """The range from mean and spread: areas are close to normal, and few draws have no tails."""
    value, reach = float(areas.mean()), _DEVIATIONS * float(areas.std())
    return Chance(value=value, low=max(0.0, value - reach), high=min(1.0, value + reach))


def _range(drawn: NDArray[np.float64]) -> Chance:
    low, high = np.quantile(drawn, [RARE / 2, 1 - RARE / 2])
    return Chance(value=float(drawn.mean()), low=float(low), high=float(high))


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
