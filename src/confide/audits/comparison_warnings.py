"""What a reader of a comparison of audits must know before its figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from confide.audits.guards import ACCOUNTING

if TYPE_CHECKING:
    from confide.audits.comparison import Arm


def warnings_on(arms: Sequence[Arm], pairs: Sequence[Mapping[str, Any]]) -> list[str]:
    """What keeps figures of audits from being compared as they stand, one sentence or two each.

    Parameters
    ----------
    arms : the audits
    pairs : of :func:`confide.audits.comparison.compare`
    """
    found = [
        f"“{a.name}” and “{b.name}” {_alike(a, b)}: the same patients are in the same models, and "
        "every patient has the same AUC in both."
        for a, b in combinations(arms, 2)
        if _copies(a, b)
    ]
    found += [
        f"The audit of “{arm.name}” established nothing: that it lists "
        f"{arm.summary['patients']['n_at_risk']:,} patients says nothing about the others."
        for arm in arms
        if arm.summary["verdict"]["status"] == "not_established"
    ]
    if len({arm.summary["n_models"] for arm in arms}) > 1:
        found.append(
            "The audits have different numbers of models. With more models an attack is stronger "
            "and more patients can be listed, whatever the recipe: the AUC of the attack, its "
            "rates and the patients at risk are not comparable between them. The mean AUC of "
            "patients is, and so are the bounds of corrected shares; the estimates of these lean "
            "with few models."
        )
    if len({arm.fraction for arm in arms}) > 1:
        found.append("The models of the audits were trained on different shares of the patients.")
    if len({(a.summary["patients"]["fdr"], a.summary["patients"].get("looks")) for a in arms}) > 1:
        found.append(
            "The lists of patients were made at different false discovery rates, or with different "
            "numbers of looks: their lengths are not comparable."
        )
    erased = [arm.name for arm in arms if arm.erased]
    if erased:
        found.append(
            f"The signals of {', '.join(f'“{name}”' for name in erased)} were erased. Differences "
            "to it are taken from the tables: those of the mean AUC have intervals that cover "
            "patients alone, not models."
        )
    return found + _guarantees(arms) + _unpaired(pairs, erased)


def _guarantees(arms: Sequence[Arm]) -> list[str]:
    """What differential privacy promises a patient in each audit, and whether it was refuted."""
    found = []
    for arm in arms:
        privacy = arm.summary.get("privacy")
        if not privacy:
            continue
        unit, by_unit = privacy["unit"], privacy["by_unit"]
        text = (
            f"“{arm.name}” was trained with differential privacy by {unit}: epsilon is at most "
            f"{_up(by_unit[unit]['epsilon'])} for one {unit}"
        )
        if unit == "record":
            epsilon = by_unit["patient"]["epsilon"]
            text += f", and {'without bound' if epsilon is None else _up(epsilon)}"
            text += (
                f" for a patient with {privacy['most_records']:,} records, the most that one has"
            )
        found.append(f"{text} (delta {privacy['delta']:g}).")
        failed = {g["name"] for g in arm.summary["guards"] if g["status"] == "failed"}
        if ACCOUNTING in failed:
            found.append(
                f"The guarantee of “{arm.name}” was refuted by its own audit: the training or its "
                "accounting is not what it is taken for. Release no model of that recipe, whatever "
                "the order here."
            )
    return found


def _up(value: float) -> str:
    """An upper bound, rounded up."""
    return f"{math.ceil(10 * value - 1e-9) / 10:g}"


def _alike(a: Arm, b: Arm) -> str:
    if a.recipe == b.recipe:
        return "are copies of one audit"
    return "have other settings, but all their models came out the same"


def _copies(a: Arm, b: Arm) -> bool:
    one, other = a.measured, b.measured
    if one is None or other is None or one.masks != other.masks:
        return False
    return np.array_equal(one.areas.areas, other.areas.areas, equal_nan=True)


def _unpaired(pairs: Sequence[Mapping[str, Any]], erased: Sequence[str]) -> list[str]:
    """Pairs that have signals but other masks; of those erased, masks are not known."""
    loose = [
        f"“{p['first']}” and “{p['second']}”"
        for p in pairs
        if p["attack_auc"]
        and not p["attack_auc"]["paired"]
        and p["first"] not in erased
        and p["second"] not in erased
    ]
    if not loose:
        return []
    return [
        "Not the same patients were in the same models, so that intervals of differences are "
        f"wider than they could be: {'; '.join(loose)}. Audits with the same seed and number of "
        "models can be paired."
    ]
