"""Means and variances of reference signals, in and out, with the target left out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Pairing:
    """Which two models are left out of the references of each target and record.

    The target itself and a partner of opposite membership: the k-th model that held a record is
    paired with the k-th that did not (cyclically where the counts differ).  All targets then have
    n_in - 1 and n_out - 1 references for a record, members and non-members alike.

    Parameters
    ----------
    membership : (n_models, n_records) bool

    Attributes
    ----------
    left_in, left_out : (n_models, n_records) the model with, and the one without, the record that
        is left out when the row's model is the target
    n_in, n_out : (n_records,) references that remain; below one where the record cannot be scored
    """

    def __init__(self, membership: NDArray[np.bool_]) -> None:
        n_models = len(membership)
        total_in = membership.sum(axis=0)
        total_out = n_models - total_in
        self.n_in = (total_in - 1).astype(np.float64)
        self.n_out = (total_out - 1).astype(np.float64)
        # Models in the order: those that held the record, then the others (stable).
        order = np.argsort(~membership.T, axis=1, kind="stable")
        place = np.arange(n_models)[None, :]
        held, free = total_in[:, None], total_out[:, None]
        partner_place = np.where(
            place < held,
            held + place % np.maximum(free, 1),
            (place - held) % np.maximum(held, 1),
        )
        partner = np.take_along_axis(order, np.minimum(partner_place, n_models - 1), axis=1)
        left = np.empty_like(order)
        np.put_along_axis(left, order, partner, axis=1)
        own = np.arange(n_models)[:, None]
        self.left_in = np.where(membership, own, left.T)
        self.left_out = np.where(membership, left.T, own)

    @property
    def scorable(self) -> NDArray[np.bool_]:
        """(n_records,) at least one in and one out reference remains."""
        return (self.n_in >= 1) & (self.n_out >= 1)


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


def moments_left_out(values: Floats, membership: NDArray[np.bool_], pairing: Pairing) -> Moments:
    """Moments of the references of every target: down-dates of sums, O(n_models x n_records)."""
    held = membership.astype(np.float64)
    left_in = np.take_along_axis(values, pairing.left_in, axis=0)
    mean_in, var_in = _one_side(values, held, pairing.n_in, left_in)
    left_out = np.take_along_axis(values, pairing.left_out, axis=0)
    mean_out, var_out = _one_side(values, 1.0 - held, pairing.n_out, left_out)
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
