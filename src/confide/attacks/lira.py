"""LiRA, the likelihood-ratio attack, online and offline.

Carlini et al., "Membership inference attacks from first principles", S&P 2022, Algorithm 1 and
section V.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from confide.attacks.base import Attack, Signals, check_membership, chunks
from confide.attacks.references import Moments, Pairing, moments, moments_left_out, uneven
from confide.attacks.threads import in_threads
from confide.attacks.variance import Moderated, Variance
from confide.signals import channels

Floats = NDArray[np.float64]
_PRIOR_RECORDS = 20_000
"""Evenly spaced records that the prior of the variances is fitted on, where there are more."""


class _Gaussian(Attack):
    """Scores from Gaussian moments of the reference signals.

    Scores are summed over known labels and averaged over views.
    """

    def __init__(self, variance: Variance | None = None) -> None:
        self.variance = variance or Moderated()

    @abstractmethod
    def _compare(self, target: Floats, m: Moments, var_in: Floats, var_out: Floats) -> Floats:
        """(n_targets, n_records) scores of one channel."""

    def score(
        self,
        target: Floats,
        references: Floats,
        membership: NDArray[np.bool_],
        population: tuple[Floats, Floats] | None = None,
    ) -> Floats:
        """See :meth:`Attack.score`."""
        check_membership(references, membership)
        values, own = channels(references), channels(target[None])

        def moments_of(view: int, label: int) -> tuple[Floats, Moments]:
            return own[:, :, view, label], moments(values[:, :, view, label], membership)

        n_views, n_labels = values.shape[2:]
        sums = self._sums(moments_of, n_views, n_labels)
        return self._scores(moments_of, n_views, n_labels, sums)[0]

    def leave_one_out(
        self,
        signals: Signals,
        membership: NDArray[np.bool_],
        population: Floats | None = None,
    ) -> Floats:
        """See :meth:`Attack.leave_one_out`."""
        check_membership(signals, membership)
        result = np.empty(tuple(signals.shape[:2]))
        even = uneven(membership)
        # The prior of the variances first: it describes all records, and many of them are enough.
        stride = max(1, signals.shape[1] // _PRIOR_RECORDS)

        def summed(item: tuple[slice, Floats]) -> Floats:
            some, values = item
            pairing = Pairing(membership[:, some], even=even)
            return self._sums(_left_out(values, pairing), values.shape[2], values.shape[3])

        def scored(item: tuple[slice, Floats]) -> None:
            part, values = item
            pairing = Pairing(membership[:, part], even=even)
            n_views, n_labels = values.shape[2:]
            scores = self._scores(_left_out(values, pairing), n_views, n_labels, sums)
            result[:, part] = np.where(pairing.scorable, scores, np.nan)

        sums: Floats = sum(in_threads(summed, _read(signals, stride)), np.zeros(()))
        for _ in in_threads(scored, _read(signals, 1)):
            pass
        return result

    def _sums(
        self, moments_of: Callable[[int, int], tuple[Floats, Moments]], n_views: int, n_labels: int
    ) -> Floats:
        """(n_views, n_labels, 2, n_targets, k) sums that the variance rule needs, in and out."""
        rows = []
        for view in range(n_views):
            for label in range(n_labels):
                _, m = moments_of(view, label)
                known = np.isfinite(m.mean_out[0])
                rows.append(
                    [
                        self.variance.sums(np.where(known, m.var_in, np.nan), m.n_in - 1),
                        self.variance.sums(np.where(known, m.var_out, np.nan), m.n_out - 1),
                    ]
                )
        stacked = np.asarray(rows)
        return stacked.reshape(n_views, n_labels, *stacked.shape[1:])

    def _scores(
        self,
        moments_of: Callable[[int, int], tuple[Floats, Moments]],
        n_views: int,
        n_labels: int,
        sums: Floats,
    ) -> Floats:
        total: Floats | float = 0.0
        for view in range(n_views):
            by_label = []
            for label in range(n_labels):
                target, m = moments_of(view, label)
                var_in = self.variance.apply(m.var_in, m.n_in - 1, sums[view, label, 0])
                var_out = self.variance.apply(m.var_out, m.n_out - 1, sums[view, label, 1])
                by_label.append(self._compare(target, m, *_usable(var_in, var_out)))
            total = total + _sum_known(by_label) / n_views
        return np.asarray(total)


class LiRA(_Gaussian):
    """Online LiRA: log N(s; mu_in, var_in) - log N(s; mu_out, var_out).

    Parameters
    ----------
    variance : Moderated() (default), Global() or PerRecord()
    """

    name: ClassVar[str] = "lira"

    def _compare(self, target: Floats, m: Moments, var_in: Floats, var_out: Floats) -> Floats:
        square_in = (target - m.mean_in) ** 2 / var_in
        square_out = (target - m.mean_out) ** 2 / var_out
        return 0.5 * (square_out - square_in + np.log(var_out / var_in))


class OfflineLiRA(_Gaussian):
    """Offline LiRA: the one-sided z = (s - mu_out) / sd_out, from out references alone.

    z orders records as the upper-tail probability does, without its saturation near z = 8.
    """

    name: ClassVar[str] = "lira_offline"

    def _compare(self, target: Floats, m: Moments, var_in: Floats, var_out: Floats) -> Floats:
        return (target - m.mean_out) / np.sqrt(var_out)


def _read(signals: Signals, stride: int) -> Iterator[tuple[slice, Floats]]:
    """Parts of the records, every so many of them, with their signals by view and label."""
    for part in chunks(signals):
        some = slice(part.start + -part.start % stride, part.stop, stride)
        if some.start < some.stop:
            yield some, channels(signals[:, some])


def _left_out(values: Floats, pairing: Pairing) -> Callable[[int, int], tuple[Floats, Moments]]:
    def moments_of(view: int, label: int) -> tuple[Floats, Moments]:
        channel = values[:, :, view, label]
        return channel, moments_left_out(channel, pairing)

    return moments_of


def _usable(var_in: Floats, var_out: Floats) -> tuple[Floats, Floats]:
    """Where one side has too few references for a variance take the other's; else 1.

    With one reference on each side the variance is unknown; a common one leaves the order of
    scores unchanged.  Constant signals have variance 0; the smallest number keeps scores at 0.
    """
    tiny = np.finfo(np.float64).tiny
    filled_in = np.where(np.isnan(var_in), var_out, var_in)
    filled_out = np.where(np.isnan(var_out), var_in, var_out)
    return (
        np.maximum(np.where(np.isnan(filled_in), 1.0, filled_in), tiny),
        np.maximum(np.where(np.isnan(filled_out), 1.0, filled_out), tiny),
    )


def _sum_known(by_label: list[Floats]) -> Floats:
    if len(by_label) == 1:
        return by_label[0]
    scores = np.stack(by_label)
    known = ~np.isnan(scores)
    total: Floats = np.where(known, scores, 0.0).sum(axis=0)
    return np.where(known.any(axis=0), total, np.nan)
