"""Areas under the ROC curve of a few scores, their differences and means, by resampling patients.

The patient is what is drawn, with all records, so that records of one patient may depend on each
other in any way (Field and Welsh, J. R. Stat. Soc. B 69 (2007) 369-390).  All scores see the same
resamples, so that a difference of two areas has the interval of a paired comparison.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from confide import _check
from confide.audits.clustered import LEVEL, Interval, share_interval
from confide.errors import ArgumentError

Floats = NDArray[np.float64]
Integers = NDArray[np.integer]
_CHUNK_ELEMENTS = 2_000_000


@dataclass(frozen=True, kw_only=True, eq=False)
class Areas:
    """Areas of some scores, as observed and in each resample.

    Attributes
    ----------
    value : (n_scores,) share of (positive, negative) pairs in the right order, ties half; NaN
        without both classes
    draws : (n_resamples, n_scores); NaN in resamples without both classes, and everywhere when
        fewer than two patients have a positive or fewer than two a negative record, because
        resampling would then not vary what it should
    n_patients : the patients that were resampled
    """

    value: Floats
    draws: Floats
    n_patients: int

    @property
    def n_dropped(self) -> int:
        """Resamples without both classes, which the intervals leave out."""
        return int(np.isnan(self.draws[:, 0]).sum())

    def interval(self, score: int) -> Interval | None:
        """Area of a score with its 95 % percentile interval; None where there is no telling.

        An area of exactly 0 or 1 is the same in every resample; its interval is that of a share of
        `n_patients` (Clopper and Pearson).
        """
        value = float(self.value[score])
        if value in (0.0, 1.0) and self.n_dropped < len(self.draws):
            return share_interval(value, 0.0, self.n_patients - 1.0, self.n_patients)
        return _percentile(value, self.draws[:, score])

    def difference(self, first: int, second: int) -> Interval | None:
        """Area of the first score minus that of the second, with its 95 % percentile interval.

        None where there is no telling, such as where both areas are 1 in every resample.
        """
        if self._fixed([first, second]):
            return None
        value = float(self.value[first] - self.value[second])
        return _percentile(value, self.draws[:, first] - self.draws[:, second])

    def _fixed(self, scores: list[int]) -> bool:
        """Whether these areas are the same in every resample, which then tells nothing of them."""
        draws = self.draws[~np.isnan(self.draws[:, 0])][:, scores]
        return len(draws) > 0 and bool(np.all(np.ptp(draws, axis=0) == 0))

    def combination(self, weights: Floats) -> Interval | None:
        """Weighted sum of the areas, weights (n_scores,), with its 95 % percentile interval.

        None where there is no telling.
        """
        _check.shape(self.value.shape, weights=weights)
        if self._fixed(np.flatnonzero(weights).tolist()):
            return None
        return _percentile(float(weights @ self.value), self.draws @ weights)


@dataclass(frozen=True, kw_only=True, eq=False)
class Resampled:
    """What :func:`patient_bootstrap` returns.

    Attributes
    ----------
    pooled : areas over all records
    by_stratum : areas over the records of each stratum, in the order of their numbers
    """

    pooled: Areas
    by_stratum: tuple[Areas, ...]

    def mean_over_strata(self) -> Areas:
        """Unweighted means over the strata of the areas within each, from the same resamples.

        A stratum without both classes leaves no mean: its values are NaN, and the intervals None.
        """
        return Areas(
            value=np.mean([areas.value for areas in self.by_stratum], axis=0),
            draws=np.mean([areas.draws for areas in self.by_stratum], axis=0),
            n_patients=sum(areas.n_patients for areas in self.by_stratum),
        )


def patient_bootstrap(
    scores: NDArray[np.floating],
    positive: NDArray[np.bool_],
    patient: Integers,
    *,
    stratum: Integers | None = None,
    n_resamples: int = 2000,
    seed: int,
) -> Resampled:
    """Areas under the ROC curve in resamples of patients with replacement.

    Parameters
    ----------
    scores : (n_scores, n_records), higher = more like a positive
    positive : (n_records,) bool
    patient : (n_records,) number of the patient, each of 0 ... n_patients - 1 at least once
    stratum : (n_patients,) number of the site, or the like, each of 0 ... n_strata - 1 at least
        once; patients are drawn within their stratum.  None: all are one stratum
    n_resamples : how many
    seed : of the draws

    Returns
    -------
    Resampled, with exact areas (sums of integers) of every resample

    Raises
    ------
    ArgumentError : shapes or types that do not fit, scores that are not finite, numbers left out
    """
    scores, stratum = _checked(scores, positive, patient, stratum)
    _check.in_range(1, 1_000_000, n_resamples=n_resamples)
    sites = [np.flatnonzero(stratum == one) for one in range(int(stratum.max()) + 1)]
    parts = [np.flatnonzero(stratum[patient] == one) for one in range(len(sites))]
    if len(sites) > 1:
        parts.insert(0, np.arange(len(positive)))
    ranked = [
        [_Ranked.of(row[part], positive[part], patient[part]) for row in scores] for part in parts
    ]
    draws = np.full((len(parts), n_resamples, len(scores)), np.nan)
    step = max(1, _CHUNK_ELEMENTS // len(positive))
    for chosen, counts in _counts(sites, n_resamples, step, seed):
        for part, rows in enumerate(ranked):
            for score, one in enumerate(rows):
                if one.varies:
                    draws[part, chosen, score] = one.areas(counts)
    once = np.ones((len(stratum), 1), dtype=np.int64)
    areas = [
        Areas(
            value=np.concatenate([one.areas(once) for one in rows]),
            draws=drawn,
            n_patients=len(np.unique(patient[part])),
        )
        for rows, drawn, part in zip(ranked, draws, parts, strict=True)
    ]
    return Resampled(pooled=areas[0], by_stratum=tuple(areas[1:] or areas))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Ranked:
    """One score, sorted: patients of the negatives, and of the positives with their places.

    The first `below[i]` negatives lie below positive i, the first `up_to[i]` not above it.  It
    `varies` between resamples when two patients or more have negatives, and as many positives.
    """

    negative: Integers
    positive: Integers
    below: NDArray[np.intp]
    up_to: NDArray[np.intp]
    varies: bool

    @classmethod
    def of(cls, score: Floats, held: NDArray[np.bool_], patient: Integers) -> _Ranked:
        order = np.argsort(score, kind="stable")
        score, held, patient = score[order], held[order], patient[order]
        return cls(
            negative=patient[~held],
            positive=patient[held],
            below=np.searchsorted(score[~held], score[held], side="left"),
            up_to=np.searchsorted(score[~held], score[held], side="right"),
            varies=min(len(np.unique(patient[held])), len(np.unique(patient[~held]))) > 1,
        )

    def areas(self, counts: NDArray[np.int64]) -> Floats:
        """(n_patients, n) how often each patient counts -> (n,) areas, NaN without both classes."""
        sums = np.zeros((len(self.negative) + 1, counts.shape[1]), dtype=np.int64)
        np.cumsum(counts[self.negative], axis=0, out=sums[1:])
        times = counts[self.positive]
        # Twice the pairs in the right order, ties half.
        right = np.einsum("ij,ij->j", times, sums[self.below])
        right += np.einsum("ij,ij->j", times, sums[self.up_to])
        pairs = times.sum(axis=0) * sums[-1]
        return np.where(pairs > 0, right / (2.0 * np.maximum(pairs, 1)), np.nan)


def _counts(
    sites: list[NDArray[np.intp]], n_resamples: int, step: int, seed: int
) -> Iterator[tuple[slice, NDArray[np.int64]]]:
    """(n_patients, n) how often each patient was drawn, for n resamples after another.

    Each site has a generator of its own, so that the draws do not depend on `step`.
    """
    n_patients = sum(map(len, sites))
    dice = [
        np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(len(sites))
    ]
    for start in range(0, n_resamples, step):
        n = min(step, n_resamples - start)
        place = np.arange(n)[:, None]
        drawn = [
            (site[rng.integers(len(site), size=(n, len(site)))] * n + place).ravel()
            for site, rng in zip(sites, dice, strict=True)
        ]
        counts = np.bincount(np.concatenate(drawn), minlength=n_patients * n)
        yield slice(start, start + n), counts.reshape(n_patients, n)


def _percentile(value: float, draws: Floats) -> Interval | None:
    known = draws[~np.isnan(draws)]
    if np.isnan(value) or not len(known):
        return None
    tail = (1.0 - LEVEL) / 2.0
    low, high = np.quantile(known, [tail, 1.0 - tail])
    return Interval(value=value, low=float(low), high=float(high))


def _checked(
    scores: NDArray[np.floating],
    positive: NDArray[np.bool_],
    patient: Integers,
    stratum: Integers | None,
) -> tuple[Floats, Integers]:
    n = len(positive)
    if n == 0 or scores.ndim != 2 or not len(scores):
        raise ArgumentError(
            "Expected scores of shape (n_scores, n_records) with a score and a record or more, got "
            f"{scores.shape} and {n} records."
        )
    _check.shape((None, n), scores=scores)
    _check.shape((n,), positive=positive)
    _check.shape((n,), patient=patient)
    if positive.dtype != bool:
        raise ArgumentError(f"Expected positive of type bool, got {positive.dtype}.")
    exact = np.asarray(scores, dtype=np.float64)
    _check.finite(scores=exact)
    n_patients = _complete(patient, "patient")
    if stratum is None:
        stratum = np.zeros(n_patients, dtype=np.int64)
    _check.shape((n_patients,), stratum=stratum)
    _complete(stratum, "stratum")
    return exact, stratum


def _complete(numbers: Integers, name: str) -> int:
    """How many there are of numbers that should be 0, 1, ... without one left out."""
    if not np.issubdtype(numbers.dtype, np.integer):
        raise ArgumentError(f"Expected {name} as integers, got {numbers.dtype}.")
    found = np.unique(numbers)
    if found[0] != 0 or found[-1] != len(found) - 1:
        raise ArgumentError(
            f"Expected {name} numbers 0 to {len(found) - 1}, none left out, got {found[0]} to "
            f"{found[-1]}; number them with numpy.unique(..., return_inverse=True)."
        )
    return len(found)
