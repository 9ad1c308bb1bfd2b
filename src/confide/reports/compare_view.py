"""A comparison of audits as rows of written text; nothing is computed here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from confide.audits.comparison import MEASURES, RATES, THRESHOLDS
from confide.audits.comparison_text import signed
from confide.reports import numbers
from confide.reports.view import part, rows


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure as text with its interval, and the numbers behind it."""

    text: str
    interval: str = numbers.MISSING
    value: float | None = None
    low: float | None = None
    high: float | None = None
    note: str = ""


WITHHELD = Figure(text="withheld")


@dataclass(frozen=True, kw_only=True)
class Row:
    """A named line of figures."""

    name: str
    figures: tuple[Figure, ...]


@dataclass(frozen=True, kw_only=True)
class Group:
    """A group: its values, with what each audit says of them."""

    name: str
    rows: tuple[Row, ...]


def attack(summary: Mapping[str, Any]) -> str:
    """The name of the attack that all audits are compared by."""
    return numbers.attack(summary.get("attack"))


def names(summary: Mapping[str, Any]) -> list[str]:
    """What the audits are called."""
    return [numbers.name(arm["name"]) for arm in summary["arms"]]


def settings(summary: Mapping[str, Any]) -> list[Row]:
    """The settings that differ, one line each, one figure an audit."""
    keys = dict.fromkeys(key for arm in summary["arms"] for key in arm["recipe"])
    return [
        Row(
            name=numbers.name(key.removeprefix("train.")),
            figures=tuple(
                Figure(
                    text=_setting(arm["recipe"].get(key))
                    if arm["settings_known"]
                    else numbers.MISSING
                )
                for arm in summary["arms"]
            ),
        )
        for key in keys
    ]


def unknown_settings(summary: Mapping[str, Any]) -> str:
    """A sentence on audits whose settings are not known; empty where all are."""
    unknown = [arm for arm in summary["arms"] if not arm["settings_known"]]
    if not unknown:
        return ""
    if len(unknown) == len(summary["arms"]):
        return "The settings are not known to these audits, so what differs cannot be said."
    listed = ", ".join(f"“{numbers.name(arm['name'])}”" for arm in unknown)
    return f"The settings are not known of {listed}, so how these differ cannot be said."


def _setting(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(_setting, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else numbers.name(value)


def area(found: Mapping[str, Any], name: str) -> Figure:
    """An AUC with its interval, under the keys NAME, NAME_low and NAME_high."""
    value, low, high = (numbers.number(found.get(f"{name}{end}")) for end in ("", "_low", "_high"))
    return Figure(
        text=numbers.auc(value),
        interval=numbers.interval(numbers.auc(low), numbers.auc(high)),
        value=value,
        low=low,
        high=high,
    )


def share(found: Mapping[str, Any], name: str) -> Figure:
    """A share with its interval, under the keys NAME, low and high."""
    value, low, high = (numbers.number(found.get(key)) for key in (name, "low", "high"))
    like = high or value  # a tiny estimate would give both bounds decimals that say nothing
    bounds = (numbers.percent(end, like=like) for end in (low, high))
    return Figure(
        text=numbers.percent(value),
        interval=numbers.interval(*bounds),
        value=value,
        low=low,
        high=high,
    )


def audits(summary: Mapping[str, Any]) -> list[Row]:
    """Models, patients listed, attack AUC, mean AUC, AUROC, accuracy and guards of each."""
    return [
        Row(
            name=numbers.name(arm["name"]),
            figures=(
                Figure(text=numbers.count(arm["n_models"]), value=arm["n_models"]),
                Figure(text=_listed(arm), value=arm["n_at_risk"]),
                *(area(arm, name) for name in ("auc", "mean_auc", "auroc", "accuracy")),
                Figure(text=_guards(arm)),
            ),
        )
        for arm in summary["arms"]
    ]


def shares(summary: Mapping[str, Any]) -> list[Row]:
    """Corrected shares of patients at or above each threshold, and members found at each rate."""
    return [
        Row(
            name=numbers.name(arm["name"]),
            figures=(
                *(share(part(arm, "tail", at), "corrected") for at in THRESHOLDS),
                *(share(part(arm, "tpr_at_fpr", rate), "tpr") for rate in RATES),
            ),
        )
        for arm in summary["arms"]
    ]


def _guards(arm: Mapping[str, Any]) -> str:
    failed = [
        numbers.name(guard["name"]) + (" (accepted)" if guard["status"] == "accepted" else "")
        for guard in arm["guards"]
    ]
    return ", ".join(failed) or "none"


def guards(summary: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """(audits, guard, "failed" or "failed and was accepted", message) of guards that failed."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for arm in summary["arms"]:
        for guard in arm["guards"]:
            status = "failed" + " and was accepted" * (guard["status"] == "accepted")
            key = (numbers.name(guard["name"]), status, numbers.name(guard["message"]))
            found.setdefault(key, []).append(numbers.name(arm["name"]))
    return [(", ".join(arms), *key) for key, arms in found.items()]


def differences(summary: Mapping[str, Any]) -> list[Row]:
    """First minus second audit of every pair: attack AUC, mean AUC of patients, AUROC."""
    return [
        Row(
            name=f"{numbers.name(pair['first'])} − {numbers.name(pair['second'])}",
            figures=tuple(_difference(pair.get(name)) for name in MEASURES),
        )
        for pair in summary["pairs"]
    ]


def _difference(found: Mapping[str, Any] | None) -> Figure:
    if found is None:
        return Figure(text=numbers.MISSING)
    value, low, high = (float(found[key]) for key in ("value", "low", "high"))
    p = numbers.p_value(found["p_holm"])
    note = "covers patients alone" if found["p_holm"] is None else f"p {p}"
    return Figure(
        text=signed(value),
        interval=numbers.interval(signed(low), signed(high)),
        value=value,
        low=low,
        high=high,
        note=note,
    )


def _listed(arm: Mapping[str, Any]) -> str:
    listed = numbers.count(arm["n_at_risk"])
    return f"{listed}; not established" if arm["status"] == "not_established" else listed


def attacks(summary: Mapping[str, Any]) -> list[Row]:
    """The AUC of every attack that any audit ran, one figure an audit."""
    keys = dict.fromkeys(key for arm in summary["arms"] for key in arm["attacks"])
    return [
        Row(
            name=numbers.attack(key),
            figures=tuple(area(part(arm, "attacks", key), "auc") for arm in summary["arms"]),
        )
        for key in keys
    ]


def groups(table: pd.DataFrame, summary: Mapping[str, Any]) -> list[Group]:
    """By group: patients, the mean area of every audit, held-out patients, every AUROC."""
    arms = [str(arm["name"]) for arm in summary["arms"]]
    found: dict[str, dict[str, dict[str, dict[str, Any]]]] = {}
    for row in rows(table):
        values = found.setdefault(str(row["group"]), {})
        values.setdefault(str(row["value"]), {})[str(row["arm"])] = row
    return [
        Group(
            name=numbers.name(group),
            rows=tuple(
                Row(name=numbers.name(value), figures=tuple(_cells([of[arm] for arm in arms])))
                for value, of in values.items()
            ),
        )
        for group, values in found.items()
    ]


def _cells(of: Sequence[Mapping[str, Any]]) -> list[Figure]:
    risk = [_counted(of, "withheld", "n_patients"), *_areas(of, "withheld", "mean_auc")]
    held = _counted(of, "utility_withheld", "n_heldout_patients")
    return [*risk, held, *_areas(of, "utility_withheld", "auroc")]


def _counted(of: Sequence[Mapping[str, Any]], flag: str, name: str) -> Figure:
    if of[0][flag]:
        return WITHHELD
    known = [n for n in (numbers.number(one[name]) for one in of) if n is not None]
    return Figure(text=numbers.count(max(known, default=None)), value=max(known, default=None))


def _areas(of: Sequence[Mapping[str, Any]], flag: str, name: str) -> list[Figure]:
    return [WITHHELD if one[flag] else area(one, name) for one in of]
