"""Assignments of least cost, many at a time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from confide.errors import ArgumentError
from confide.inversion.base import Integers

AT_ONCE = 2**24
"""Costs on the device at once (64 MiB in float32)."""

SOFTNESS = 0.05
"""Temperature of the start, in mean costs above the least of their row and column."""

ROUNDS = 20
"""Of the start: more cost more time than they save."""


def assign(costs: Tensor | NDArray[Any]) -> Integers:
    """The column of each row, so that the sum of the costs is as small as can be.

    Square problems get a start from their entropic relaxation (Sinkhorn; Cuturi, NeurIPS 2013), on
    the device of `costs`: subtracting a number from a row or a column changes no assignment, and
    with the right numbers the solver has little left to search.  All are then solved exactly, in as
    many threads as torch uses, by the shortest augmenting paths of
    :func:`scipy.optimize.linear_sum_assignment`.

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
    costs = torch.as_tensor(costs)
    if costs.ndim not in (2, 3):
        raise ArgumentError(
            f"Expected costs of shape (n, m) or (n_problems, n, m), got {tuple(costs.shape)}."
        )
    problems = costs if costs.ndim == 3 else costs[None]
    n_problems, n, m = problems.shape
    out = np.full((n_problems, n), -1, dtype=np.int64)
    if n and m:
        step = max(1, AT_ONCE // (n * m))
        with ThreadPoolExecutor(torch.get_num_threads()) as threads:
            for i in range(0, n_problems, step):
                _solve(problems[i : i + step], out[i : i + step], threads)
    return out if costs.ndim == 3 else out[0]


def _solve(problems: Tensor, out: Integers, threads: ThreadPoolExecutor) -> None:
    """Write the columns of (B, n, m) problems to (B, n) `out`."""
    if not bool(torch.isfinite(problems).all()):
        raise ArgumentError("The costs hold numbers that are not finite; expected finite ones.")
    costs = problems.cpu().numpy()
    offsets = None
    if problems.shape[1] == problems.shape[2] > 1:
        offsets = [part.double().cpu().numpy() for part in _potentials(problems.float())]

    def one(i: int) -> None:
        own = costs[i].astype(np.float64)
        if offsets is not None:
            own -= offsets[0][i]
            own -= offsets[1][i]
        rows, columns = linear_sum_assignment(own)
        out[i, rows] = columns

    list(threads.map(one, range(len(costs))))


def _potentials(costs: Tensor) -> tuple[Tensor, Tensor]:
    """(B, n, 1) and (B, 1, n) numbers to subtract from the rows and columns of (B, n, n) costs.

    Any finite ones are right; these leave costs near zero where the best assignment is.
    """
    rows = costs.amin(dim=2, keepdim=True)
    columns = (costs - rows).amin(dim=1, keepdim=True)
    kernel = costs - rows - columns
    softness = SOFTNESS * kernel.mean(dim=(1, 2), keepdim=True).clamp_min(1e-30)
    # Each row and column has a 1 in it, and nothing in it underflows to 0.
    kernel = (kernel / -softness).clamp_min_(-80.0).exp_()
    right = torch.ones_like(rows)
    for _ in range(ROUNDS):
        left = torch.bmm(kernel, right).reciprocal_()
        right = torch.bmm(kernel.mT, left).reciprocal_()
    return (
        rows + softness * torch.nan_to_num(left.log(), 0.0, 0.0, 0.0),
        columns + softness * torch.nan_to_num(right.log(), 0.0, 0.0, 0.0).mT,
    )
