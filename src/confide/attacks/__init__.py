"""Membership attacks on a model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from confide import _check
from confide.attacks.base import Attack, Signals, no_population
from confide.attacks.calibrated import CalibratedLoss
from confide.attacks.lira import LiRA, OfflineLiRA
from confide.attacks.quantile import Features, QuantileRegression, public_features
from confide.attacks.rmia import RMIA, OfflineRMIA
from confide.attacks.stacked import Stacked
from confide.attacks.threshold import LossThreshold
from confide.attacks.trace import LossTraceIQR, screen_precision
from confide.attacks.variance import Global, Moderated, PerRecord, Variance
from confide.errors import ArgumentError

__all__ = [
    "KNOWN",
    "RMIA",
    "Attack",
    "CalibratedLoss",
    "Global",
    "LiRA",
    "LossThreshold",
    "LossTraceIQR",
    "Moderated",
    "OfflineLiRA",
    "OfflineRMIA",
    "PerRecord",
    "QuantileRegression",
    "Stacked",
    "Variance",
    "named",
    "public_features",
    "require_inputs",
    "scores_of_all",
    "screen_precision",
]

KNOWN: dict[str, type[Attack]] = {
    attack.name: attack
    for attack in (
        LiRA,
        OfflineLiRA,
        RMIA,
        OfflineRMIA,
        LossThreshold,
        CalibratedLoss,
        QuantileRegression,
        LossTraceIQR,
        Stacked,
    )
}
"""The attacks that a configuration can name."""


def named(attacks: Sequence[str | Attack]) -> list[Attack]:
    """Attacks by name (with their default settings) or as objects."""
    result: list[Attack] = []
    for attack in attacks:
        if isinstance(attack, Attack):
            result.append(attack)
        else:
            result.append(KNOWN[_check.one_of(KNOWN, attack=attack)]())
    return result


def require_inputs(attacks: Sequence[str | Attack], *, trace: bool, population: bool) -> None:
    """Refuse attacks for which there is no loss trace, or no population, before any work is done.

    Raises
    ------
    ArgumentError : names the attack and the remedy
    """
    for attack in named(attacks):
        if attack.reads == "trace" and not trace:
            raise ArgumentError(
                f"Attack {attack.name!r} reads loss traces, and none are kept; set train: "
                "{trace: true}, or leave the attack out."
            )
        if attack.needs_population and not population:
            raise no_population(attack)


def scores_of_all(
    attack: Attack,
    signals: Signals,
    membership: NDArray[np.bool_],
    population: NDArray[np.float64] | None = None,
    *,
    features: Features | None = None,
    trace: Signals | None = None,
) -> NDArray[np.float64]:
    """Scores of all records of every model: :meth:`Attack.leave_one_out`, of what the attack reads.

    Parameters
    ----------
    signals, membership, population : see :meth:`Attack.leave_one_out`
    features : of the records and of the population, for attacks that can use them; see
        :func:`public_features`
    trace : (n_models, n_records) inter-quartile ranges of loss traces, for attacks that read them

    Raises
    ------
    ArgumentError : the attack reads what is not given
    """
    require_inputs([attack], trace=trace is not None, population=population is not None)
    if isinstance(attack, QuantileRegression):
        return attack.leave_one_out(signals, membership, population, features=features)
    if attack.reads == "trace" and trace is not None:
        return attack.leave_one_out(trace, membership)
    return attack.leave_one_out(signals, membership, population)
