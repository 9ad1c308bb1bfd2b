"""Membership attacks on a model."""

from __future__ import annotations

from collections.abc import Sequence

from confide import _check
from confide.attacks.base import Attack
from confide.attacks.lira import LiRA, OfflineLiRA
from confide.attacks.rmia import RMIA, OfflineRMIA
from confide.attacks.threshold import LossThreshold
from confide.attacks.variance import Global, Moderated, PerRecord, Variance

__all__ = [
    "KNOWN",
    "RMIA",
    "Attack",
    "Global",
    "LiRA",
    "LossThreshold",
    "Moderated",
    "OfflineLiRA",
    "OfflineRMIA",
    "PerRecord",
    "Variance",
    "named",
]

KNOWN: dict[str, type[Attack]] = {
    attack.name: attack for attack in (LiRA, OfflineLiRA, RMIA, OfflineRMIA, LossThreshold)
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
