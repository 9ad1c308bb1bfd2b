"""Similarities of many codes with many plaintexts, and what follows from their order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.stats import rankdata

from confide.audits.clustered import auc_influence, logit_interval, ordered
from confide.errors import ArgumentError
from confide.inversion.base import Codes, Floats, Integers
from confide.inversion.estimates import Estimate

Matrix = NDArray[np.float64]

MMD_WIDTHS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1, 5, 10, 15, 20, 25, 30, 35, 100,
              1e3, 1e4, 1e5, 1e6)  # fmt: skip
"""Of the kernel of Yala et al. (arXiv 2106.02484, published code)."""
_NUMBERS_AT_ONCE = 2**22


def mean_code_rows(codes: Codes) -> Floats:
    """(n_codes, C) float32, the mean over the rows of each code; reads some codes at a time."""
    rows, width = codes.shape
    step = max(1, _NUMBERS_AT_ONCE // (rows * width))
    parts = [
        codes.codes(slice(i, min(i + step, codes.n_records))).mean(axis=1, dtype=np.float64)
        for i in range(0, codes.n_records, step)
    ]
    return np.concatenate(parts).astype(np.float32)


def nearness(a: NDArray[np.generic], b: NDArray[np.generic]) -> Matrix:
    """(n, m) minus the squared distances of the rows of a (n, d) and b (m, d).

    Both are moved by one mean first, so that no digits are lost to a common offset.
    """
    centre = a.mean(axis=0, dtype=np.float64)
    out = np.empty((len(a), len(b)))
    step = max(1, _NUMBERS_AT_ONCE // a.shape[1])
    squares = np.empty(len(b))
    for j in range(0, len(b), step):
        right = b[j : j + step] - centre
        squares[j : j + step] = np.einsum("ij,ij->i", right, right)
        for i in range(0, len(a), step):
            left = a[i : i + step] - centre
            inner = left @ right.T
            own = np.einsum("ij,ij->i", left, left)
            out[i : i + step, j : j + step] = 2.0 * inner - own[:, None] - squares[j : j + step]
    return np.minimum(out, 0.0, out=out)


def spread(values: NDArray[np.generic]) -> float:
    """Mean squared distance of the rows (n, d) from their mean."""
    step = max(1, _NUMBERS_AT_ONCE // values.shape[1])
    centre = values.mean(axis=0, dtype=np.float64)
    total = 0.0
    for i in range(0, len(values), step):
        total += float(np.square(values[i : i + step] - centre).sum())
    return total / len(values)


def correlations(found: NDArray[np.generic], true: NDArray[np.generic]) -> Matrix:
    """(n, n) correlation of found i with true j, each minus its mean over the n; 0 for constants.

    Raises
    ------
    ArgumentError : what was found is not finite
    """
    left, right = (values.reshape(len(values), -1) for values in (found, true))
    out = np.empty((len(left), len(right)))
    step = max(1, _NUMBERS_AT_ONCE // left.shape[1])
    means = [values.mean(axis=0, dtype=np.float64) for values in (left, right)]
    for i in range(0, len(left), step):
        rows = _standard(left[i : i + step] - means[0])
        if not np.isfinite(rows).all():
            raise ArgumentError("What the attack found holds numbers that are not finite.")
        for j in range(0, len(right), step):
            out[i : i + step, j : j + step] = rows @ _standard(right[j : j + step] - means[1]).T
    return out


def _standard(rows: Matrix) -> Matrix:
    """Each row minus its mean, over its length; a constant row gives zeros."""
    largest = np.abs(rows).max(axis=1, keepdims=True)
    rows = rows - rows.mean(axis=1, keepdims=True)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    constant = length <= 1e-9 * largest * np.sqrt(rows.shape[1])
    return np.where(constant, 0.0, rows / np.where(constant, 1.0, length))


def ranks(similarity: NDArray[np.floating]) -> Matrix:
    """(n, m) rank of each column in its row, 1 for the most similar; ties have their mean."""
    if np.isnan(similarity).any():
        raise ArgumentError("Expected similarities without NaN.")
    step = max(1, _NUMBERS_AT_ONCE // similarity.shape[1])
    parts = [rankdata(-similarity[i : i + step], axis=1) for i in range(0, len(similarity), step)]
    return np.concatenate(parts)


def first_ranked(
    similarity: NDArray[np.floating],
    match: NDArray[np.integer],
    kind: NDArray[np.integer] | None = None,
) -> tuple[Matrix, float]:
    """Whether the most similar column is the true one, and how often it is by chance.

    Parameters
    ----------
    similarity : (n, m); of tied columns each counts its share
    match : (n,) the true column
    kind : (m,) columns of one kind count as one; all differ by default

    Returns
    -------
    (n,) hits, from 0 to 1, and the number of hits of a random pairing on average
    """
    kind = np.arange(similarity.shape[1]) if kind is None else kind
    top = similarity == similarity.max(axis=1, keepdims=True)
    own = kind == kind[match][:, None]
    times = np.bincount(kind)[kind]
    hits = (top & own).sum(axis=1) / top.sum(axis=1)
    expected = float(((top @ times.astype(np.float64)) / top.sum(axis=1)).sum()) / len(kind)
    return hits, expected


def assigned_columns(similarity: NDArray[np.floating]) -> NDArray[np.int64]:
    """(n,) the columns of the one-to-one assignment with the largest sum.

    Of assignments that are equal one is drawn: SciPy takes the diagonal, where the truth stands.
    """
    order = np.random.default_rng(similarity.shape[1]).permutation(similarity.shape[1])
    columns: NDArray[np.int64] = order[
        linear_sum_assignment(similarity[:, order], maximize=True)[1]
    ]
    return columns


def mmd2(a: Floats, b: Floats) -> float:
    """Squared maximum mean discrepancy of two samples (n, d) and (m, d), never below zero.

    The kernel is the sum of exp(-|x - y|^2 / (2 w)) over :data:`MMD_WIDTHS`, as in the published
    code of Yala et al.; pairs of a sample with itself count, as there.
    """
    return max(0.0, _kernel(a, a) + _kernel(b, b) - 2.0 * _kernel(a, b))


def _kernel(a: Floats, b: Floats) -> float:
    total = 0.0
    step = max(1, _NUMBERS_AT_ONCE // len(b) // 4)
    for i in range(0, len(a), step):
        near = nearness(a[i : i + step], b)
        if a is b:
            # A record with itself: exactly 0, which the narrowest kernels tell from rounding.
            at = np.arange(len(near))
            near[at, at + i] = 0.0
        total += sum(float(np.exp(near / (2.0 * width)).sum()) for width in MMD_WIDTHS)
    return total / (len(a) * len(b))


@dataclass(frozen=True, kw_only=True, eq=False)
class Links:
    """Pairs of codes of one release or of two.

    Attributes
    ----------
    left, right : (n_pairs,) their codes; within a release each pair of different codes once
    value : (n_pairs,) how similar they are
    same : (n_pairs,) whether they are of one patient
    first, second : (n_codes,) and (n_others,) numbers of the patients, 0 to n_patients - 1
    n_patients : in all
    """

    left: NDArray[np.intp]
    right: NDArray[np.intp]
    value: Matrix
    same: NDArray[np.bool_]
    first: NDArray[np.intp]
    second: NDArray[np.intp]
    n_patients: int

    @classmethod
    def of(cls, similarity: NDArray[np.floating], mine: Integers, theirs: Integers | None) -> Links:
        """All pairs.

        Parameters
        ----------
        similarity : (n_codes, n_others)
        mine : (n_codes,) patients
        theirs : (n_others,) patients in a second release; None within one, where the two
            similarities of a pair are averaged

        Raises
        ------
        ArgumentError : a similarity is NaN, or no pair is of one patient, or all are
        """
        within = theirs is None
        together = mine if theirs is None else np.concatenate([mine, theirs])
        _, owner = np.unique(together, return_inverse=True)
        first, second = (owner, owner) if within else (owner[: len(mine)], owner[len(mine) :])
        if within:
            left, right = np.triu_indices(len(mine), 1)
            value = (similarity[left, right].astype(np.float64) + similarity[right, left]) / 2.0
        else:
            left, right = (index.ravel() for index in np.indices(similarity.shape))
            value = np.ravel(similarity).astype(np.float64)
        if np.isnan(value).any():
            raise ArgumentError("Expected similarities of different codes without NaN.")
        same = first[left] == second[right]
        if not same.any() or same.all():
            raise ArgumentError(
                "Linkage is scored by pairs of codes of one patient and pairs of different ones, "
                f"got {int(same.sum()):,} and {int((~same).sum()):,}."
            )
        return cls(
            left=left,
            right=right,
            value=value,
            same=same,
            first=first,
            second=second,
            n_patients=int(owner.max()) + 1,
        )

    def area(self) -> Estimate:
        """Area under the ROC curve, same patient against different ones, with its 95 % interval.

        Patients are the units: a pair of two patients varies with both (the Hajek projection of a
        statistic of pairs).
        """
        order, n = ordered(self.value, self.same), self.n_patients
        one, two = self.first[self.left], self.second[self.right]
        # The influence of a pair counts for both of its patients, once if they are the same.
        value, of_first = auc_influence(order, one, n)
        _, of_second = auc_influence(order, np.where(self.same, n, two), n + 1)
        influence = of_first + of_second[:n]
        linked = len(np.unique(one[self.same]))
        if linked < 2:
            return Estimate(value=value, low=None, high=None)
        error = float(np.sqrt(influence @ influence * n / (n - 1)))
        interval = logit_interval(value, error, linked - 1.0, linked)
        return Estimate(value=value, low=interval.low, high=interval.high)

    def ranks(self) -> Matrix:
        """(n_codes, n_others) rank of each pair, 1 the least similar, ties their mean."""
        table = np.zeros((len(self.first), len(self.second)))
        table[self.left, self.right] = rankdata(self.value)
        return table
