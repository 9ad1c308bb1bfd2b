"""The area under the ROC curve over models: Mann-Whitney, its exact null, DeLong's error.

One row a record (or patient), one column a model.  The null: given the values of a row, every
choice of which models are "in" is equally likely.  Balanced masks make that true by design.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from confide.attacks.threads import in_threads

Floats = NDArray[np.float64]
_EXACT_UP_TO = 200
"""Largest group for which the distribution is computed exactly; see `survival`."""
_CHUNK_ELEMENTS = 4_000_000
_CACHED_ELEMENTS = 200_000
"""Few enough to stay in a processor's cache."""


@dataclass(frozen=True, kw_only=True)
class RowAuc:
    """Areas of many rows.

    Attributes
    ----------
    auc : (n_rows,) share of (in, out) pairs in the right order, ties half; NaN without both
    se : (n_rows,) DeLong standard error; NaN with fewer than two in or out.  It is 0 where in and
        out are separated perfectly, which says that the estimate is at its bound, not that it is
        certain
    strict : (n_rows,) number of (in, out) pairs with in above out, ties not counted
    n_in, n_out : (n_rows,)
    """

    auc: Floats
    se: Floats
    strict: NDArray[np.int64]
    n_in: NDArray[np.int64]
    n_out: NDArray[np.int64]

    def p_value(self) -> Floats:
        """(n_rows,) exact one-sided p-values: P(U >= strict) when membership has no effect.

        Exact without ties.  A tie between in and out counts as evidence of nothing, which makes
        the p-value larger, never smaller.  NaN (nothing to compare) gives 1.
        """
        p = np.ones(len(self.auc))
        for n_in, n_out in {(int(a), int(b)) for a, b in zip(self.n_in, self.n_out, strict=True)}:
            if n_in and n_out:
                rows = (self.n_in == n_in) & (self.n_out == n_out)
                p[rows] = survival(n_in, n_out, self.strict[rows])
        return np.where(np.isnan(self.auc), 1.0, p)


def row_auc(values: Floats, membership: NDArray[np.bool_]) -> RowAuc:
    """Area over models of every column: in against out.

    Parameters
    ----------
    values : (n_models, n_rows) signals, higher = more like a member; a column of NaN is left out
    membership : (n_models, n_rows) bool

    Returns
    -------
    RowAuc, with n_rows entries

    Notes
    -----
    DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988) 837-845, equations 3 to 6.
    """
    n_models, n_rows = values.shape
    step = max(1, _CACHED_ELEMENTS // n_models)

    def areas(start: int) -> tuple[NDArray[Any], ...]:
        part = slice(start, start + step)
        return _chunk_auc(values[:, part].T, membership[:, part].T)

    parts = list(in_threads(areas, range(0, n_rows, step)))
    auc, se, strict, n_in, n_out = (np.concatenate(column) for column in zip(*parts, strict=True))
    return RowAuc(auc=auc, se=se, strict=strict, n_in=n_in, n_out=n_out)


def _chunk_auc(
    values: Floats, held: NDArray[np.bool_]
) -> tuple[Floats, Floats, NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    order = np.argsort(values, axis=1)
    values = np.take_along_axis(values, order, axis=1)
    held = np.take_along_axis(held, order, axis=1)
    in_up_to = np.cumsum(held, axis=1, dtype=np.int32)
    out_up_to = np.arange(1, held.shape[1] + 1, dtype=np.int32) - in_up_to
    n_in, n_out = in_up_to[:, -1].astype(np.int64), out_up_to[:, -1].astype(np.int64)
    in_before, out_before = in_up_to - held, out_up_to - ~held
    if (values[:, 1:] == values[:, :-1]).any():
        first, last = _tie_groups(values)
        in_before = np.take_along_axis(in_before, first, axis=1)
        out_before = np.take_along_axis(out_before, first, axis=1)
        in_up_to = np.take_along_axis(in_up_to, last, axis=1)
        out_up_to = np.take_along_axis(out_up_to, last, axis=1)
        strict = np.where(held, out_before, 0).sum(axis=1, dtype=np.int64)
        out_below, in_below = 0.5 * (out_before + out_up_to), 0.5 * (in_before + in_up_to)
    else:
        strict = np.where(held, out_before, 0).sum(axis=1, dtype=np.int64)
        out_below, in_below = out_before.astype(np.float64), in_before.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        auc = np.where(held, out_below, 0.0).sum(axis=1) / (n_in * n_out)
        placed_in = out_below / n_out[:, None] - auc[:, None]
        placed_out = 1.0 - in_below / n_in[:, None] - auc[:, None]
        var_in = np.where(held, placed_in**2, 0.0).sum(axis=1) / (n_in - 1) / n_in
        var_out = np.where(held, 0.0, placed_out**2).sum(axis=1) / (n_out - 1) / n_out
        se = np.where((n_in > 1) & (n_out > 1), np.sqrt(var_in + var_out), np.nan)
    unknown = np.isnan(values).any(axis=1)
    auc[unknown], se[unknown] = np.nan, np.nan
    return auc, se, strict, n_in, n_out


def _tie_groups(values: Floats) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """First and last column of the run of equal values that each sorted value belongs to."""
    n = values.shape[1]
    place = np.broadcast_to(np.arange(n), values.shape)
    starts = np.ones(values.shape, dtype=bool)
    starts[:, 1:] = values[:, 1:] != values[:, :-1]
    first = np.maximum.accumulate(np.where(starts, place, 0), axis=1)
    ends = np.ones(values.shape, dtype=bool)
    ends[:, :-1] = starts[:, 1:]
    last = np.minimum.accumulate(np.where(ends, place, n)[:, ::-1], axis=1)[:, ::-1]
    return first, last


def binormal_auc(values: Floats, membership: NDArray[np.bool_]) -> Floats:
    """Phi((mu_in - mu_out) / sqrt(var_in + var_out)) of every column: (n_rows,).

    `values` and `membership` as in :func:`row_auc`; NaN with fewer than two in or out.
    """
    n_in = membership.sum(axis=0)
    n_out = len(membership) - n_in
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_in = np.where(membership, values, 0.0).sum(axis=0) / n_in
        mean_out = np.where(membership, 0.0, values).sum(axis=0) / n_out
        deviation = values - np.where(membership, mean_in, mean_out)
        square = deviation * deviation
        var_in = np.where(membership, square, 0.0).sum(axis=0) / (n_in - 1)
        var_out = np.where(membership, 0.0, square).sum(axis=0) / (n_out - 1)
        auc = ndtr((mean_in - mean_out) / np.sqrt(var_in + var_out))
    return np.where((n_in > 1) & (n_out > 1), auc, np.nan)


def survival(n_in: int, n_out: int, u: NDArray[np.int64]) -> Floats:
    """P(U >= u) when every choice of `n_in` of the models is equally likely, no ties.

    Exact up to 200 models on each side; above, the normal approximation with continuity
    correction, whose tail is heavier than the exact one.
    """
    u = np.asarray(u)
    if max(n_in, n_out) <= _EXACT_UP_TO:
        tail = _tail(min(n_in, n_out), max(n_in, n_out))
        return tail[np.clip(u, 0, n_in * n_out + 1)]
    sd = np.sqrt(n_in * n_out * (n_in + n_out + 1) / 12.0)
    return ndtr((0.5 * n_in * n_out - u + 0.5) / sd)


def randomised_p_value(values: Floats, membership: NDArray[np.bool_], seed: int) -> Floats:
    """p-values that are exactly uniform where membership has no effect, ties or not: (n_rows,).

    Ties between models, and the steps of the discrete law, are broken at random.  The order of
    these p-values therefore favours no row by chance, whatever its ties or numbers of models; it
    serves to compare groups of rows, not to judge one.  `values` and `membership` as in
    :func:`row_auc`; NaN for a row with an unknown value or nothing to compare.
    """
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(values))
    n_in = membership.sum(axis=0)
    n_out = len(values) - n_in
    below = np.empty(values.shape[1], dtype=np.int64)
    step = max(1, _CHUNK_ELEMENTS // len(values))
    for start in range(0, values.shape[1], step):
        part = slice(start, start + step)
        order = np.argsort(values[shuffled, part], axis=0, kind="stable")
        held = np.take_along_axis(membership[shuffled, part], order, axis=0)
        outside = np.cumsum(~held, axis=0, dtype=np.int64)
        below[part] = np.where(held, outside, 0).sum(axis=0)
    p = np.full(len(below), np.nan)
    where = rng.random(len(below))
    for a, b in {(int(a), int(b)) for a, b in zip(n_in, n_out, strict=True)}:
        rows = (n_in == a) & (n_out == b)
        if a and b:
            beyond = survival(a, b, below[rows] + 1)
            p[rows] = beyond + where[rows] * (survival(a, b, below[rows]) - beyond)
    return np.where(np.isnan(values).any(axis=0), np.nan, p)


def blocked_p_value(
    values: Floats, membership: NDArray[np.bool_], block: NDArray[np.int64]
) -> Floats:
    """Exact one-sided p-values where membership was drawn within blocks of models.

    The statistic adds up the pairs in the right order within each block; its law is that of a sum
    of independent Mann-Whitney counts (van Elteren, Bull. Inst. Int. Statist. 37 (1960) 351-361,
    with equal weights for equal blocks).  With blocks of 16 it needs about 17 models where one
    block needs 16.  Ties count against a finding.

    Parameters
    ----------
    values, membership : as in :func:`row_auc`
    block : (n_models,) which block each model is of

    Returns
    -------
    (n_rows,); 1 where nothing can be compared
    """
    strict = np.zeros(values.shape[1], dtype=np.int64)
    sides = []
    for one in np.unique(block):
        part = row_auc(values[block == one], membership[block == one])
        strict += part.strict
        sides.append(np.stack([part.n_in, part.n_out], axis=1))
    by_row = np.stack(sides, axis=1)  # (n_rows, n_blocks, 2)
    kinds, kind = np.unique(by_row.reshape(len(by_row), -1), axis=0, return_inverse=True)
    p = np.ones(len(strict))
    for i, flat in enumerate(kinds):
        tail = blocked_tail(tuple((int(a), int(b)) for a, b in flat.reshape(-1, 2)))
        rows = kind.ravel() == i
        p[rows] = tail[strict[rows]]
    return np.where(np.isnan(values).any(axis=0), 1.0, p)


def blocked_tail(sides: tuple[tuple[int, int], ...]) -> Floats:
    """(n_pairs + 2,) P(U >= u) for u = 0, ..., n_pairs + 1 of the sum over blocks.

    `sides` gives (models in, models out) of each block.
    """
    law = np.ones(1)
    for n_in, n_out in sorted(sides):
        if n_in and n_out:
            law = np.convolve(law, _law(min(n_in, n_out), max(n_in, n_out)))
    return _upper_tail(law)


@lru_cache(maxsize=512)
def _tail(m: int, n: int) -> Floats:
    """(m n + 2,) P(U >= u) for u = 0, 1, ..., m n + 1."""
    tail = _upper_tail(_law(m, n))
    tail.setflags(write=False)
    return tail


def _upper_tail(law: Floats) -> Floats:
    # By symmetry the upper tail is the lower one, summed from the small end for accuracy.
    lower = np.minimum(np.cumsum(law), 1.0)
    return np.concatenate([lower[::-1], [0.0]])


def _law(m: int, n: int) -> Floats:
    """(m n + 1,) P(U = u).

    Mann and Whitney's recursion, in probabilities: the largest of all values is "in" with chance
    i / (i + j) and then adds j to U.  All terms are positive, so nothing cancels.
    """
    size = m * n + 1
    previous = np.zeros((n + 1, size))
    previous[:, 0] = 1.0  # i = 0
    for i in range(1, m + 1):
        current = np.zeros((n + 1, size))
        current[0, 0] = 1.0
        for j in range(1, n + 1):
            top = i * j + 1  # larger values of U are impossible
            row = current[j, :top]
            row[: i * (j - 1) + 1] = current[j - 1, : i * (j - 1) + 1] * (j / (i + j))
            row[j:] += previous[j, : top - j] * (i / (i + j))
        previous = current
    return previous[n]


def null_se(n_in: int, n_out: int) -> float:
    """Standard deviation of the area when membership has no effect (no ties).

    >>> round(null_se(100, 100), 3)
    0.041
    """
    return float(np.sqrt((n_in + n_out + 1) / (12.0 * n_in * n_out)))
