"""An audit result as rows of written text, the same for the page and the terminal.

Nothing is computed here: values are chosen, put in order, withheld where a cell is small, and
written out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from confide.audits import suppression
from confide.audits.verdict import SCREENS
from confide.reports import numbers

SMALL_CELL = suppression.SMALL_CELL
"""Figures of fewer patients than this are withheld from every report."""

WITHHELD = f"< {SMALL_CELL}"


@dataclass(frozen=True, kw_only=True)
class Rate:
    """What an attack reaches at one false-positive rate."""

    fpr: str
    tpr: str
    interval: str
    false_positives: str
    ppv: Mapping[str, str]

    @property
    def measurable(self) -> bool:
        """Whether there were enough non-members to see this false-positive rate."""
        return self.tpr != numbers.MISSING


@dataclass(frozen=True, kw_only=True)
class Attack:
    """One attack over all target models."""

    name: str
    auc: str
    interval: str
    balanced_accuracy: str
    rates: tuple[Rate, ...]


@dataclass(frozen=True, kw_only=True)
class Screen:
    """An attack that ranks members, of which an AUC would say nothing."""

    name: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Tail:
    """Share of patients at or above one AUC, each estimate with its own interval.

    Attributes
    ----------
    threshold : the AUC
    raw, raw_interval : share measured, and its 95 % interval
    null, null_interval : share by chance alone, and the middle 95 % of what chance gives
    corrected, corrected_interval : share whose true AUC is that large, and its 95 % bounds
    """

    threshold: str
    raw: str
    raw_interval: str
    null: str
    null_interval: str
    corrected: str
    corrected_interval: str


def part(summary: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    """The mapping under some keys of a summary; empty where it was not measured."""
    found: Any = summary
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _falling(measured: Mapping[str, Any]) -> list[str]:
    return sorted(measured, key=float, reverse=True)


def attacks(summary: Mapping[str, Any]) -> list[Attack]:
    """The attacks, in the order of the summary; without those that only rank members."""
    return [
        Attack(
            name=numbers.attack(key),
            auc=numbers.auc(found.get("auc")),
            interval=auc_interval(found, "auc_low", "auc_high"),
            balanced_accuracy=numbers.auc(found.get("balanced_accuracy")),
            rates=tuple(
                _rate(fpr, part(found, "tpr_at_fpr", fpr))
                for fpr in _falling(part(found, "tpr_at_fpr"))
            ),
        )
        for key in part(summary, "attacks")
        if key not in SCREENS
        for found in [part(summary, "attacks", key)]
    ]


def screens(summary: Mapping[str, Any]) -> list[Screen]:
    """The attacks that only rank members, each with what it is worth."""
    return [
        Screen(
            name=numbers.attack(key),
            text="It ranks the members of a model, those most at risk first; it was not made to "
            "tell members from outsiders, so its AUC is left out. "
            + _screened(part(summary, "attacks", key, "screen")),
        )
        for key in part(summary, "attacks")
        if key in SCREENS
    ]


def _screened(found: Mapping[str, Any]) -> str:
    precision, share = (numbers.percent(found.get(key)) for key in ("precision", "all"))
    if numbers.MISSING in (precision, share):
        return "How well it ranks them was not measured."
    by, top, fpr = found.get("by"), found.get("top"), found.get("fpr")
    return (
        f"Of the {numbers.rate(top)} of members that it ranks first, {numbers.attack(by)} finds "
        f"{precision} at {numbers.rate(fpr)} false positives; of all members {share}."
    )


def strongest(summary: Mapping[str, Any]) -> Attack | None:
    """The attack with the highest AUC, None if there is none."""
    measured = [key for key in part(summary, "attacks") if key not in SCREENS]
    order = [numbers.number(part(summary, "attacks", key).get("auc")) for key in measured]
    ranked = sorted(
        zip(order, attacks(summary), strict=True), key=lambda x: -1.0 if x[0] is None else x[0]
    )
    return ranked[-1][1] if ranked else None


def auc_interval(found: Mapping[str, Any], low: str, high: str) -> str:
    """Two bounds of an AUC, found under these keys, as one text."""
    return numbers.interval(numbers.auc(found.get(low)), numbers.auc(found.get(high)))


def _percent_interval(
    found: Mapping[str, Any], middle: Any, low: str = "low", high: str = "high"
) -> str:
    # A tiny estimate would give both bounds decimals that say nothing.
    like = numbers.number(found.get(high)) or middle
    return numbers.interval(
        numbers.percent(found.get(low), like=like), numbers.percent(found.get(high), like=like)
    )


def _rate(fpr: str, found: Mapping[str, Any]) -> Rate:
    ppv = part(found, "ppv")
    return Rate(
        fpr=numbers.rate(fpr),
        tpr=numbers.percent(found.get("tpr")),
        interval=_percent_interval(found, found.get("tpr")),
        false_positives=numbers.count(found.get("n_false_positives")),
        ppv={numbers.rate(key): numbers.percent(ppv[key]) for key in _falling(ppv)},
    )


def prevalences(summary: Mapping[str, Any]) -> list[str]:
    """The shares of members for which any predictive value was measured, falling."""
    keys = {
        prevalence
        for attack in part(summary, "attacks")
        for fpr in part(summary, "attacks", attack, "tpr_at_fpr")
        for prevalence in part(summary, "attacks", attack, "tpr_at_fpr", fpr, "ppv")
    }
    return [numbers.rate(key) for key in sorted(keys, key=float, reverse=True)]


def tails(summary: Mapping[str, Any]) -> list[Tail]:
    """Shares of patients above some AUCs, rising."""
    found = part(summary, "patients", "tail")
    return [
        Tail(
            threshold=key,
            raw=numbers.percent(one.get("raw")),
            raw_interval=_percent_interval(one, one.get("raw"), "raw_low", "raw_high"),
            null=numbers.percent(one.get("null")),
            null_interval=_percent_interval(one, one.get("null"), "null_low", "null_high"),
            corrected=numbers.percent(one.get("corrected")),
            corrected_interval=_percent_interval(one, one.get("corrected")),
        )
        for key in sorted(found, key=float)
        for one in [part(found, key)]
    ]


def rows(frame: pd.DataFrame) -> Iterable[dict[str, Any]]:
    """The rows of a table, each as a mapping from column to value."""
    return ({str(k): v for k, v in row.items()} for row in frame.to_dict("records"))


def guards(summary: Mapping[str, Any]) -> list[dict[str, str]]:
    """Name, status and message of every guard, those that did not pass first."""
    found = [
        {key: numbers.name(guard.get(key)) for key in ("name", "status", "message")}
        for guard in summary.get("guards") or []
    ]
    rank = {"failed": 0, "accepted": 1, "unknown": 2, "passed": 3}
    return sorted(found, key=lambda guard: rank.get(guard["status"], 2))


def alerts(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What stands on top of a report: guards that failed, whether accepted or not, and why."""
    return [
        (
            f"Guard {guard['name']} failed{' and was accepted' * (status == 'accepted')}.",
            guard["message"],
        )
        for guard in guards(summary)
        for status in [guard["status"]]
        if status in ("failed", "accepted")
    ]


def warnings(summary: Mapping[str, Any]) -> list[str]:
    """The warnings of the audit, and the models that are missing from it."""
    missing = summary.get("models_missing") or []
    gone = (
        f"Models that are missing and were left out: {_listed(missing)}. The figures hold only if "
        "this had nothing to do with who was in their training data."
    )
    return [*([gone] if missing else []), *map(numbers.name, summary.get("warnings") or [])]


def _listed(values: Iterable[Any], most: int = 20) -> str:
    items = list(values)
    shown = ", ".join(_plain(value) for value in items[:most])
    return f"{shown}, ... ({len(items)} in all)" if len(items) > most else shown


def _plain(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple | set):
        return _listed(value) if value else "none"
    return f"{value:g}" if isinstance(value, float) else numbers.name(value)


def method_rows(method: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Facts of the method as (name, text); a nested mapping gives dotted names."""
    rows: list[tuple[str, str]] = []
    for key, value in method.items():
        label = f"{prefix}{numbers.name(key)}"
        if isinstance(value, Mapping) and value:
            rows += method_rows(value, f"{label}.")
        else:
            rows.append((label, _plain(None if isinstance(value, Mapping) else value)))
    return rows
