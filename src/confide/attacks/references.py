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
    n_in, n_out : (n_records,) references that remain; below one where the record cannot be scored
    """

    def __init__(self, membership: NDArray[np.bool_], *, even: bool = False) -> None:
        # Masks that patients were expanded to lie the other way round in memory than signals do.
        membership = np.ascontiguousarray(membership)
        n_models = len(membership)
        total_in = membership.sum(axis=0)
        total_out = n_models - total_in
        up_to = np.cumsum(membership, axis=0, dtype=np.int32)
        # Place of each model among those of its side.
        number = np.arange(1, n_models + 1, dtype=np.int32)[:, None]
        place = np.where(membership, up_to, number - up_to) - 1
        if even:
            total_in = total_out = np.minimum(total_in, total_out)
        self.held = membership & (place < total_in)
        self.free = ~membership & (place < total_out)
        self.n_in = (total_in - 1).astype(np.float64)
        self.n_out = (total_out - 1).astype(np.float64)
        self._cell_in = _cell_at(self.held, place, total_in)
        self._cell_out = _cell_at(self.free, place, total_out)

    @property
    def left_in(self) -> NDArray[np.intp]:
        """(n_models, n_records) the model with the record that each row's target leaves out."""
        return self._cell_in // self._cell_in.shape[1]

    @property
    def left_out(self) -> NDArray[np.intp]:
        """(n_models, n_records) the model without the record that each row's target leaves out."""
        return self._cell_out // self._cell_out.shape[1]

    def of_left_in(self, values: Floats) -> Floats:
        """What the models of `left_in` say of each record: both (n_models, n_records)."""
        return values.take(self._cell_in)

    def of_left_out(self, values: Floats) -> Floats:
        """What the models of `left_out` say of each record: both (n_models, n_records)."""
        return values.take(self._cell_out)

    @property
    def scorable(self) -> NDArray[np.bool_]:
        """(n_records,) at least one in and one out reference remains."""
        return (self.n_in >= 1) & (self.n_out >= 1)


def uneven(membership: NDArray[np.bool_]) -> bool:
    """Whether some records are in more models than others: (n_models, n_records) -> bool."""
    total = membership.sum(axis=0)
    return bool((total != total[:1]).any())


def _cell_at(
    side: NDArray[np.bool_], place: NDArray[np.int32], total: NDArray[np.int64]
) -> NDArray[np.intp]:
    """The model at a place (cyclically) among those of a side, all (n_models, n_records).

    Given as the number of its cell in a flat (n_models, n_records) array.
    """
    n_models, n_records = side.shape
    record = np.repeat(np.arange(n_records), total)
    model = np.flatnonzero(np.ascontiguousarray(side.T)) - record * n_models  # record by record
    # A record without any model on the side cannot be scored; any cell does.
    cells = np.append(model * n_records + record, 0)
    start = np.cumsum(total) - total
    return cells.take(start + place % np.maximum(total, 1).astype(np.int32))


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
    left_in = pairing.of_left_in(values)
    mean_in, var_in = _one_side(values, pairing.held.astype(np.float64), pairing.n_in, left_in)
    left_out = pairing.of_left_out(values)
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
        deviation = values - centre
        deviation *= weight
        deviation *= deviation
        square = deviation.sum(axis=0)[None, :]
        if left_out is None:
            mean = np.zeros_like(square)
        else:
            removed = left_out - centre
            mean = removed / -n
            removed *= removed
            square = square - removed
        moved = n * mean
        moved *= mean
        variance = np.maximum(square - moved, 0.0)
        variance /= n - 1.0
        mean += centre
    variance[:, n < 2] = np.nan
    mean[:, n < 1] = np.nan
    return mean, variance
