"""Undoing the shuffle of the rows, from codes alone.

Each position has a random embedding that all codes of a release share, so that the rows of one
position cluster over the codes.  Which position a cluster is stays unknown.  The attack of Carlini
et al. (arXiv 2108.07256, 2021) uses the same weakness; here the distances are weighted by how rows
of one position differ, so that what the images change in a row does not hide where it stands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from confide.errors import ArgumentError
from confide.inversion.base import Codes, CodesOnly, Floats, Integers, Work
from confide.training.device import tensor_float32

SAMPLE = 48
"""Codes from which it is learned how rows of one position differ."""

ROWS = 4096
"""Rows from which their covariance is taken."""

ROUNDS = 4
SHRINKAGE = 0.3

NUMBERS_AT_ONCE = 2**24
"""Numbers of codes that are in memory at once, beside the sample."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Order:
    """In which order the rows of all codes stand at common positions.

    Attributes
    ----------
    rows : (n_codes, P) int64; row rows[i, j] of code i stands at position j
    mean : (P, C) float32, the mean over codes of the row at each position
    known : whether position j is patch j; otherwise which patch it is remains unknown
    """

    rows: Integers
    mean: Floats
    known: bool

    def read(self, codes: Codes, which: slice | NDArray[np.integer[Any]]) -> Floats:
        """(n, P, C) the codes asked for, with rows in this order."""
        values = codes.codes(which)
        if self.known:
            return values
        return np.take_along_axis(values, self.rows[which][:, :, None], axis=1)


def order_of(known: CodesOnly, work: Work) -> Order:
    """The order of the rows of a release: as they stand if it is not shuffled, else recovered."""
    if known.architecture.settings.shuffle:
        return in_order(known.codes, work)
    return as_given(known.codes, work)


def has_positions(known: CodesOnly) -> bool:
    """Whether rows carry what tells positions apart, or stand at theirs."""
    settings = known.architecture.settings
    return not settings.shuffle or bool(getattr(settings, "position", False))


def as_given(codes: Codes, work: Work) -> Order:
    """The order of codes whose rows were not shuffled."""
    n, n_rows = codes.n_records, codes.shape[0]
    total = np.zeros(codes.shape)
    for part in parts(codes):
        total += codes.codes(part).sum(axis=0, dtype=np.float64)
        work.progress(part.stop, n)
    rows = np.broadcast_to(np.arange(n_rows), (n, n_rows))
    return Order(rows=rows, mean=(total / n).astype(np.float32), known=True)


def in_order(codes: Codes, work: Work) -> Order:
    """Find the order of the rows of each code that puts them at common positions.

    A sample of the codes is put in order by least squared distance to the rows of the first, then
    to the mean of the others, weighted by the inverse covariance of rows about their mean; the
    means so learned then order all codes, some at a time.

    Parameters
    ----------
    codes : with rows shuffled; they are read once, and the sample once more
    work : its seed chooses the sample

    Returns
    -------
    Order : position j is where row j of one of the codes stands

    Raises
    ------
    ArgumentError : no codes
    """
    n = codes.n_records
    if not n:
        raise ArgumentError("Expected at least one code to put in order, got none.")
    rng = np.random.default_rng([work.seed, 0x0D3])
    sample = np.sort(rng.permutation(n)[:SAMPLE])
    with torch.no_grad(), tensor_float32(False):
        x = tensor(codes.codes(sample), work.device)
        found, mean = _learned(x, rng)
        weighted = _Weighting(x, found, mean, rng)(mean)
        del x
        rows = np.empty((n, codes.shape[0]), dtype=np.int64)
        total = torch.zeros(codes.shape, dtype=torch.float64, device=work.device)
        for part in parts(codes):
            x = tensor(codes.codes(part), work.device)
            rows[part] = _nearest(x, mean, weighted)
            learned = np.flatnonzero((sample >= part.start) & (sample < part.stop))
            rows[sample[learned]] = found[learned]
            total += _ordered(x, rows[part]).sum(dim=0, dtype=torch.float64)
            work.progress(part.stop, n)
    return Order(rows=rows, mean=(total / n).float().cpu().numpy(), known=False)


def parts(codes: Codes) -> list[slice]:
    """Parts of codes that are read at once."""
    n = codes.n_records
    step = max(1, NUMBERS_AT_ONCE // (codes.shape[0] * codes.shape[1]))
    return [slice(i, min(i + step, n)) for i in range(0, n, step)]


def tensor(values: Floats, device: torch.device) -> Tensor:
    """On the device; a copy if the array may not be written."""
    return torch.from_numpy(np.require(values, requirements=["C", "W"])).to(device)


def _learned(x: Tensor, rng: np.random.Generator) -> tuple[Integers, Tensor]:
    """Orders (n, P) of a sample of codes (n, P, C), and their mean (P, C) in that order."""
    n, n_rows, _ = x.shape
    if n == 1:
        return np.arange(n_rows)[None], x[0]
    found = _nearest(x, x[0], x[0])
    for _ in range(ROUNDS):
        ordered = _ordered(x, found)
        mean = ordered.mean(dim=0)
        weigh = _Weighting(x, found, mean, rng)
        weighted = weigh(mean)
        new = np.empty_like(found)
        for i in range(n):
            # The mean of the others: its own rows would draw it to where it stands.
            others = (mean * n - ordered[i]) / (n - 1)
            theirs = (weighted * n - weigh(ordered[i])) / (n - 1)
            new[i : i + 1] = _nearest(x[i : i + 1], others, theirs)
        if np.array_equal(new, found):
            break
        found = new
    return found, _ordered(x, found).mean(dim=0)


class _Weighting:
    """Rows times the inverse covariance of rows about their position's mean, shrunk."""

    def __init__(self, x: Tensor, order: Integers, mean: Tensor, rng: np.random.Generator) -> None:
        n, n_rows, _ = x.shape
        chosen = rng.permutation(n * n_rows)[:ROWS]
        record, position = np.divmod(chosen, n_rows)
        row = torch.from_numpy(order[record, position]).to(x.device)
        at = torch.from_numpy(position).to(x.device)
        rest = x[torch.from_numpy(record).to(x.device), row] - mean[at]
        spread = (rest.T @ rest) / len(rest)
        level = float(spread.diagonal().mean())
        spread.diagonal().add_(SHRINKAGE * level if level > 0 else 1.0)
        self._factor = torch.linalg.cholesky(spread)

    def __call__(self, rows: Tensor) -> Tensor:
        return torch.cholesky_solve(rows.T, self._factor).T


def _nearest(x: Tensor, mean: Tensor, weighted: Tensor) -> Integers:
    """Orders (n, P) of codes (n, P, C) of least summed distance to a mean (P, C).

    Where the nearest rows of all positions differ they are the answer; elsewhere the assignment is
    solved.
    """
    n_rows = x.shape[1]
    likely = torch.matmul(weighted, x.transpose(1, 2))
    likely -= (weighted * mean).sum(dim=1)[:, None] / 2
    best = likely.argmax(dim=2).cpu().numpy()
    clash = np.flatnonzero((np.sort(best, axis=1) != np.arange(n_rows)).any(axis=1))
    for i, scores in zip(clash, likely[torch.from_numpy(clash).to(x.device)].cpu(), strict=True):
        best[i] = linear_sum_assignment(scores.numpy(), maximize=True)[1]
    return best


def _ordered(x: Tensor, order: Integers) -> Tensor:
    at = torch.from_numpy(order).to(x.device)
    return torch.take_along_dim(x, at[:, :, None], dim=1)
