"""Assignments of least cost, one or many at a time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from confide import _check
from confide.errors import ArgumentError
from confide.inversion.base import Integers

Matrix = NDArray[np.float64]

EPSILON = 2.0**-53
TOLERANCE = 1e-11
"""Relative to the least cost: how far from it the cost of an answer may be."""

SOFTNESS = 0.05
"""Temperature of the start, in mean costs above the least of their row and column."""

ROUNDS = 40
"""Of the start; more would take more time than they save."""


def assign(costs: NDArray[Any]) -> Integers:
    """The column of each row for which the sum of the costs is as small as can be.

    Exact: the shortest augmenting paths of :func:`scipy.optimize.linear_sum_assignment`, in as many
    threads as torch uses.  Square problems get a start from their entropic relaxation (Sinkhorn;
    Cuturi, NeurIPS 2013): to subtract a number from a row or a column changes no assignment, and
    with the right numbers there is little left to search.

    Parameters
    ----------
    costs : (n, m), or (n_problems, n, m); finite

    Returns
    -------
    (n,) or (n_problems, n) int64, each column at most once; -1 for the n - m rows that are left
    over if there are fewer columns

    Raises
    ------
    ArgumentError : another number of axes, or a cost that is not finite

    >>> assign(np.array([[4.0, 1.0, 3.0], [2.0, 0.0, 5.0]]))
    array([1, 0])
    """
    if costs.ndim not in (2, 3):
        raise ArgumentError(
            f"Expected costs of shape (n, m) or (n_problems, n, m), got {costs.shape}."
        )
    _check.finite(costs=costs)
    if costs.ndim == 2:
        return _columns(costs)
    if len(costs) == 0:
        return np.empty(costs.shape[:2], dtype=np.int64)
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        return np.stack(list(threads.map(_columns, costs)))


def _columns(costs: NDArray[Any]) -> Integers:
    """(n, m) costs -> (n,) columns."""
    n, m = costs.shape
    exact = costs.astype(np.float64)
    if n == m > 1:
        left, right = _potentials(exact)
        rows, columns = linear_sum_assignment(exact - left - right)
        # What the subtraction rounded away must not matter beside the cost that was found.
        rounded = n * EPSILON * float(np.abs(left).max() + np.abs(right).max())
        if rounded <= TOLERANCE * np.abs(exact[rows, columns]).sum():
            return columns.astype(np.int64)
    rows, columns = linear_sum_assignment(exact)
    out = np.full(n, -1, dtype=np.int64)
    out[rows] = columns
    return out


def _potentials(costs: Matrix) -> tuple[Matrix, Matrix]:
    """(n, 1) and (1, n) numbers to subtract from the rows and the columns of (n, n) costs.

    Any finite ones are right; these leave costs near zero where the best assignment is.
    """
    rows = costs.min(axis=1, keepdims=True)
    with np.errstate(all="ignore"):
        kernel = (costs - rows).astype(np.float32)
        columns = kernel.min(axis=0, keepdims=True)
        kernel -= columns
        softness = np.float32(SOFTNESS) * kernel.mean()
        if not 0 < softness < np.inf:
            return rows, np.zeros_like(costs[:1])
        kernel /= -softness
        # Each row and each column has a 1 in it, and nothing underflows to 0.
        np.exp(np.maximum(kernel, -80.0, out=kernel), out=kernel)
        across = np.ascontiguousarray(kernel.T)
        right = np.ones((len(costs), 1), dtype=np.float32)
        for _ in range(ROUNDS):
            left = 1.0 / (kernel @ right)
            right = 1.0 / (across @ left)
        moved = [softness * np.log(side) for side in (left, right)]
    if not all(np.isfinite(side).all() for side in moved):
        return rows, columns
    return rows + moved[0], columns + moved[1].T
