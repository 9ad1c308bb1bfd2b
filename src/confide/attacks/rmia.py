"""RMIA, the robust membership inference attack, by ranks over the whole population.

Zarifzadeh et al., "Low-cost high-power membership inference attacks", ICML 2024, equations 4, 5
and 10.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import rankdata

from confide import _check
from confide.attacks.base import Attack, Signals, check_membership, chunks
from confide.attacks.references import Pairing, uneven
from confide.attacks.threads import in_threads
from confide.signals import log_probability

Floats = NDArray[np.float64]
_TINY = np.finfo(np.float64).tiny
_GRID = np.linspace(0.0, 1.0, 11)
_TUNING_RECORDS = 5_000


class _Ratio(Attack):
    """Compare p(x | target) / p(x) of a record with that of the population.

    The score is the share of the population z with ratio(x) / ratio(z) >= gamma; records with the
    same share are ordered by ratio(x) itself, so that a small population makes no ties.  Without a
    population the score is log ratio(x), which orders the records of one target in the same way.
    """

    def __init__(self, gamma: float = 1.0) -> None:
        self.gamma = _check.at_least(_TINY, gamma=gamma)

    def _rank(self, log_ratio: Floats, population_log_ratio: Floats | None) -> Floats:
        """Scores of one target: (n_records,) and (n_population,) -> (n_records,)."""
        if population_log_ratio is None:
            return log_ratio
        z = np.sort(population_log_ratio[~np.isnan(population_log_ratio)])
        below = np.empty(len(log_ratio), dtype=np.int64)
        order = np.argsort(log_ratio)  # neighbours are found faster one after the other
        below[order] = np.searchsorted(z, log_ratio[order] - np.log(self.gamma), side="right")
        scores = (below + expit(log_ratio)) / (len(z) + 1.0)
        return np.where(np.isnan(log_ratio), np.nan, scores)

    def _scores(
        self,
        signals: Signals,
        ratio: Callable[[slice, Floats], Floats],
        population_log_ratio: Floats | None,
    ) -> Floats:
        """Scores of every target: ranks of `ratio`, which takes log probabilities of a part."""
        result = np.empty(tuple(signals.shape[:2]))

        def compare(item: tuple[slice, Floats]) -> None:
            part, values = item
            result[:, part] = ratio(part, log_probability(values))

        def rank(t: int) -> None:
            z = None if population_log_ratio is None else population_log_ratio[t]
            result[t] = self._rank(result[t], z)

        for _ in in_threads(compare, ((part, signals[:, part]) for part in chunks(signals))):
            pass
        for _ in in_threads(rank, range(len(result))):
            pass
        return result


class RMIA(_Ratio):
    """Online RMIA: p(x) is the mean over in and out references, half each.

    Parameters
    ----------
    gamma : the ratio to dominate, 1 by default
    """

    name: ClassVar[str] = "rmia"

    def score(
        self,
        target: Floats,
        references: Floats,
        membership: NDArray[np.bool_],
        population: tuple[Floats, Floats] | None = None,
    ) -> Floats:
        """See :meth:`Attack.score`."""
        check_membership(references, membership)
        p = np.exp(log_probability(references))
        with np.errstate(invalid="ignore"):
            mean_in = (p * membership).sum(axis=0) / membership.sum(axis=0)
            mean_out = (p * ~membership).sum(axis=0) / (~membership).sum(axis=0)
        log_ratio = log_probability(target[None])[0] - _log(0.5 * (mean_in + mean_out))
        if population is None:
            return self._rank(log_ratio, None)
        mean = np.exp(log_probability(population[1])).mean(axis=0)
        return self._rank(log_ratio, log_probability(population[0][None])[0] - _log(mean))

    def leave_one_out(
        self,
        signals: Signals,
        membership: NDArray[np.bool_],
        population: Floats | None = None,
    ) -> Floats:
        """See :meth:`Attack.leave_one_out`."""
        check_membership(signals, membership)
        even = uneven(membership)

        def ratio(part: slice, log_p: Floats) -> Floats:
            p, pairing = np.exp(log_p), Pairing(membership[:, part], even=even)
            with np.errstate(invalid="ignore", divide="ignore"):
                mean_in = ((p * pairing.held).sum(axis=0) - pairing.of_left_in(p)) / pairing.n_in
                mean_out = ((p * pairing.free).sum(axis=0) - pairing.of_left_out(p)) / pairing.n_out
            found = log_p - _log(0.5 * (mean_in + mean_out))
            return np.where(pairing.scorable, found, np.nan)

        return self._scores(signals, ratio, _population_ratios(population))


class OfflineRMIA(_Ratio):
    """Offline RMIA: p(x) = ((1 + a) mean_out + (1 - a)) / 2, from out references alone.

    Parameters
    ----------
    a : in [0, 1]; None (default) tunes it for each target on one of its reference models, which
        plays the target for that purpose; the target's own membership is never used
    gamma : the ratio to dominate, 1 by default
    """

    name: ClassVar[str] = "rmia_offline"

    def __init__(self, a: float | None = None, gamma: float = 1.0) -> None:
        super().__init__(gamma)
        self.a = a if a is None else _check.in_range(0, 1, a=a)

    def score(
        self,
        target: Floats,
        references: Floats,
        membership: NDArray[np.bool_],
        population: tuple[Floats, Floats] | None = None,
    ) -> Floats:
        """See :meth:`Attack.score`."""
        check_membership(references, membership)
        log_p = log_probability(references)
        a = self._tuned(log_p, membership)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean_out = (np.exp(log_p) * ~membership).sum(axis=0) / (~membership).sum(axis=0)
        log_ratio = log_probability(target[None])[0] - _offline(mean_out, a)
        if population is None:
            return self._rank(log_ratio, None)
        mean = np.exp(log_probability(population[1])).mean(axis=0)
        return self._rank(log_ratio, log_probability(population[0][None])[0] - _offline(mean, a))

    def leave_one_out(
        self,
        signals: Signals,
        membership: NDArray[np.bool_],
        population: Floats | None = None,
    ) -> Floats:
        """See :meth:`Attack.leave_one_out`."""
        check_membership(signals, membership)
        a = self._tuned_for_all(signals, membership)[:, None]
        even = uneven(membership)

        def ratio(part: slice, log_p: Floats) -> Floats:
            p, pairing = np.exp(log_p), Pairing(membership[:, part], even=even)
            with np.errstate(invalid="ignore", divide="ignore"):
                mean_out = ((p * pairing.free).sum(axis=0) - pairing.of_left_out(p)) / pairing.n_out
            return np.where(pairing.scorable, log_p - _offline(mean_out, a), np.nan)

        z = None
        if population is not None:
            log_z = log_probability(population)
            z = log_z - _offline(_mean_of_others(np.exp(log_z)), a)
        return self._scores(signals, ratio, z)

    def _tuned_for_all(self, signals: Signals, membership: NDArray[np.bool_]) -> Floats:
        n_models, n_records = membership.shape
        if self.a is not None:
            return np.full(n_models, self.a)
        # A strided sample of records decides `a`: it is one number out of eleven.
        rows = np.arange(0, n_records, max(1, n_records // _TUNING_RECORDS))[:_TUNING_RECORDS]
        pieces = [
            log_probability(signals[:, part])[
                :, rows[(rows >= part.start) & (rows < part.stop)] - part.start
            ]
            for part in chunks(signals)
        ]
        log_p, held = np.concatenate(pieces, axis=1), membership[:, rows]
        everyone = np.arange(n_models)
        # Rolled so that every target is tuned on another reference: the next one.
        return np.asarray(
            [
                self._tuned(log_p[np.roll(everyone, -t)[1:]], held[np.roll(everyone, -t)[1:]])
                for t in everyone
            ]
        )

    def _tuned(self, log_p: Floats, membership: NDArray[np.bool_]) -> float:
        """The `a` whose attack on the first reference has the largest AUC."""
        if self.a is not None:
            return self.a
        own, others, held = log_p[0], np.exp(log_p[1:]), membership[1:]
        count = (~held).sum(axis=0)
        usable = (count > 0) & ~np.isnan(own)
        truth = membership[0][usable]
        if truth.all() or not truth.any():
            return 0.3  # nothing to tune on; the authors' value for CIFAR-10
        mean_out = (others * ~held).sum(axis=0)[usable] / count[usable]
        aucs = [_auc(own[usable] - _offline(mean_out, float(a)), truth) for a in _GRID]
        return float(_GRID[int(np.argmax(aucs))])


def _offline(mean_out: Floats, a: Floats | float) -> Floats:
    return _log(0.5 * ((1.0 + a) * mean_out + (1.0 - a)))


def _log(p: Floats) -> Floats:
    # A down-date can end a rounding error below zero.
    return np.log(np.maximum(p, _TINY))


def _mean_of_others(p: Floats) -> Floats:
    return np.maximum(p.sum(axis=0) - p, 0.0) / (len(p) - 1)


def _population_ratios(population: Floats | None) -> Floats | None:
    """(n_models, n_population) log ratios; every reference is an out reference."""
    if population is None:
        return None
    log_z = log_probability(population)
    return log_z - _log(_mean_of_others(np.exp(log_z)))


def _auc(scores: Floats, member: NDArray[np.bool_]) -> float:
    n_in = int(member.sum())
    ranks = rankdata(scores)
    return float((ranks[member].sum() - n_in * (n_in + 1) / 2) / (n_in * (len(member) - n_in)))
