"""Means and variances of reference signals, in and out, with the target left out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Pairing:
    """Which models are the references of each record, and which two of them each target leaves out.

    A target and a partner of opposite membership are left out: the k-th model that held a record
    is paired with the k-th that did not.  Members and non-members then have equally many in and
    equally many out references.

    Where some records are in more models than others, the counts themselves say who is more often
    a member.  Then as many in as out references are used for each record (the first ones; a model
    beyond them, as target, leaves out a pair too), so that noise in the references is alike on
    both sides and favours neither answer.

    Parameters
    ----------
    membership : (n_models, n_records) bool
    even : use as many in as out references, see :func:`uneven`

    Attributes
    ----------
    held, free : (n_models, n_records) bool; the references with, and without, the record
    left_in, left_out : (n_models, n_records) the model with, and the one without, the record that
        is left out when the row's model is the target
    n_in, n_out : (n_records,) references that remain; below one where the record cannot be scored
    """

    def __init__(self, membership: NDArray[np.bool_], *, even: bool = False) -> None:
        n_models = len(membership)
        total_in = membership.sum(axis=0)
        total_out = n_models - total_in
        up_to = np.cumsum(membership, axis=0, dtype=np.int32)
        # Place of each model among those of its side.
        place = np.where(membership, up_to, np.arange(1, n_models + 1)[:, None] - up_to) - 1
        if even:
            total_in = total_out = np.minimum(total_in, total_out)
        self.held = membership & (place < total_in)
        self.free = ~membership & (place < total_out)
        self.n_in = (total_in - 1).astype(np.float64)
        self.n_out = (total_out - 1).astype(np.float64)
        self.left_in = _model_at(self.held, place, total_in)
        self.left_out = _model_at(self.free, place, total_out)

    @property
    def scorable(self) -> NDArray[np.bool_]:
        """(n_records,) at least one in and one out reference remains."""
        return (self.n_in >= 1) & (self.n_out >= 1)


def uneven(membership: NDArray[np.bool_]) -> bool:
    """Whether some records are in more models than others: (n_models, n_records) -> bool."""
    total = membership.sum(axis=0)
    return bool((total != total[:1]).any())


def _model_at(
    side: NDArray[np.bool_], place: NDArray[np.int64], total: NDArray[np.int64]
) -> NDArray[np.intp]:
    """The model at a place (cyclically) among those of a side, all (n_models, n_records)."""
    models = np.nonzero(side.T)[1]  # record by record
    start = np.cumsum(total) - total
    at = start + place % np.maximum(total, 1)
    # A record without any model on the side cannot be scored; any model does.
    return models[np.minimum(at, len(models) - 1)] if len(models) else np.zeros_like(at)


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Means and variances of the reference signals of records.

    Arrays are (n_targets, n_records); counts (n_records,).  A variance has the unbiased divisor
    (n - 1) and is NaN where n < 2.
    """

    mean_in: Floats
    var_in: Floats
    n_in: Floats
    mean_out: Floats
    var_out: Floats
    n_out: Floats


def moments(values: Floats, membership: NDArray[np.bool_]) -> Moments:
    """Moments of all references, for a target that is not among them: (1, n_records)."""
    held = membership.astype(np.float64)
    n_in = held.sum(axis=0)
    n_out = len(held) - n_in
    mean_in, var_in = _one_side(values, held, n_in, None)
    mean_out, var_out = _one_side(values, 1.0 - held, n_out, None)
    return Moments(
        mean_in=mean_in, var_in=var_in, n_in=n_in, mean_out=mean_out, var_out=var_out, n_out=n_out
    )


def moments_left_out(values: Floats, pairing: Pairing) -> Moments:
    """Moments of the references of every target: down-dates of sums, O(n_models x n_records)."""
    left_in = np.take_along_axis(values, pairing.left_in, axis=0)
    mean_in, var_in = _one_side(values, pairing.held.astype(np.float64), pairing.n_in, left_in)
    left_out = np.take_along_axis(values, pairing.left_out, axis=0)
    mean_out, var_out = _one_side(values, pairing.free.astype(np.float64), pairing.n_out, left_out)
    return Moments(
        mean_in=mean_in,
        var_in=var_in,
        n_in=pairing.n_in,
        mean_out=mean_out,
        var_out=var_out,
        n_out=pairing.n_out,
    )


def _one_side(
    values: Floats, weight: Floats, n: Floats, left_out: Floats | None
) -> tuple[Floats, Floats]:
    # Centring first keeps the down-dates of sums of squares accurate.
    with np.errstate(invalid="ignore", divide="ignore"):
        total_weight = weight.sum(axis=0)
        centre = (values * weight).sum(axis=0) / total_weight
        deviation = (values - centre) * weight
        square = (deviation * deviation).sum(axis=0)[None, :]
        if left_out is None:
            mean = np.zeros_like(square)
        else:
            removed = left_out - centre
            mean = -removed / n
            square = square - removed * removed
        variance = np.maximum(square - n * mean * mean, 0.0) / (n - 1.0)
    variance = np.where(n >= 2, variance, np.nan)
    return np.where(n >= 1, mean + centre, np.nan), variance
