"""An audit result as rows of written text, the same for the page and the terminal.

Nothing is computed here: values are chosen, put in order, withheld where a cell is small, and
written out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from confide.audits.result import AuditResult
from confide.reports import numbers

SMALL_CELL = 10
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
class Tail:
    """Share of patients at or above one AUC."""

    threshold: str
    raw: str
    interval: str
    null: str
    corrected: str


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One value of one group; `withheld` cells hold no figure at all."""

    group: str
    value: str
    withheld: bool
    n_patients: str = WITHHELD
    share: str = ""
    ratio: str = ""
    interval: str = ""
    p_value: str = ""
    q_value: str = ""
    mean_auc: str = ""
    bounds: tuple[float | None, float | None, float | None] = (None, None, None)


@dataclass(frozen=True, kw_only=True)
class Group:
    """All values of one group, and what holds for the group as a whole."""

    name: str
    p_value: str
    n_tail: str
    n_conflicts: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, kw_only=True)
class Patient:
    """One patient at risk."""

    name: str
    n_records: str
    auc_joint: str
    auc_se: str
    auc_max: str
    p_value: str
    q_value: str


@dataclass(frozen=True, kw_only=True)
class Utility:
    """How well the models do their task on patients that no model has seen."""

    value: str
    withheld: bool
    n_patients: str = WITHHELD
    auroc: str = ""
    auroc_interval: str = ""
    accuracy: str = ""
    accuracy_interval: str = ""
    beside: Cell | None = None


def part(summary: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    """The mapping under some keys of a summary; empty where it was not measured."""
    found: Any = summary
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _falling(measured: Mapping[str, Any]) -> list[str]:
    return sorted(measured, key=float, reverse=True)


def attacks(summary: Mapping[str, Any]) -> list[Attack]:
    """The attacks, in the order of the summary."""
    return [
        Attack(
            name=numbers.attack(key),
            auc=numbers.auc(found.get("auc")),
            interval=_auc_interval(found, "auc_low", "auc_high"),
            balanced_accuracy=numbers.auc(found.get("balanced_accuracy")),
            rates=tuple(
                _rate(fpr, part(found, "tpr_at_fpr", fpr))
                for fpr in _falling(part(found, "tpr_at_fpr"))
            ),
        )
        for key in part(summary, "attacks")
        for found in [part(summary, "attacks", key)]
    ]


def strongest(summary: Mapping[str, Any]) -> Attack | None:
    """The attack with the highest AUC, None if there is none."""
    measured = part(summary, "attacks")
    order = [numbers.number(part(measured, key).get("auc")) for key in measured]
    ranked = sorted(
        zip(order, attacks(summary), strict=True), key=lambda x: -1.0 if x[0] is None else x[0]
    )
    return ranked[-1][1] if ranked else None


def _auc_interval(found: Mapping[str, Any], low: str, high: str) -> str:
    return numbers.interval(numbers.auc(found.get(low)), numbers.auc(found.get(high)))


def _percent_interval(found: Mapping[str, Any], middle: Any) -> str:
    like = numbers.number(middle) or found.get("high")  # a share of 0 has no digits to follow
    return numbers.interval(
        numbers.percent(found.get("low"), like=like), numbers.percent(found.get("high"), like=like)
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
            interval=_percent_interval(one, one.get("raw")),
            null=numbers.percent(one.get("null")),
            corrected=numbers.percent(one.get("corrected")),
        )
        for key in sorted(found, key=float)
        for one in [part(found, key)]
    ]


def _rows(frame: pd.DataFrame) -> Iterable[dict[str, Any]]:
    return ({str(k): v for k, v in row.items()} for row in frame.to_dict("records"))


def _is_small(n: Any) -> bool:
    # A cell of unknown size is treated as a small one.
    known = numbers.number(n)
    return known is None or known < SMALL_CELL


def groups(result: AuditResult) -> list[Group]:
    """Every group with its values, in the order of the table of groups."""
    cells: dict[str, list[Cell]] = {}
    for row in _rows(result.groups):
        cells.setdefault(str(row["group"]), []).append(_cell(row))
    overall = part(result.summary, "groups")
    names = [*cells, *(key for key in overall if key not in cells)]
    return [
        Group(
            name=numbers.name(key),
            p_value=numbers.p_value(part(overall, key).get("p_value")),
            n_tail=numbers.count(part(overall, key).get("n_tail")),
            n_conflicts=_conflicts(part(overall, key).get("n_conflicts")),
            cells=tuple(cells.get(key, ())),
        )
        for key in names
    ]


def _conflicts(n: Any) -> str:
    known = numbers.number(n)
    if not known:
        return ""
    return f"fewer than {SMALL_CELL}" if known < SMALL_CELL else numbers.count(known)


def _cell(row: Mapping[str, Any]) -> Cell:
    group, value = numbers.name(row["group"]), numbers.name(row["value"])
    if _is_small(row.get("n_patients")):
        return Cell(group=group, value=value, withheld=True)
    low, high = row.get("ratio_low"), row.get("ratio_high")
    return Cell(
        group=group,
        value=value,
        withheld=False,
        n_patients=numbers.count(row["n_patients"]),
        share=numbers.percent(row.get("share_of_tail")),
        ratio=numbers.ratio(row.get("ratio")),
        interval=numbers.interval(numbers.ratio(low), numbers.ratio(high)),
        p_value=numbers.p_value(row.get("p_value")),
        q_value=numbers.p_value(row.get("q_value")),
        mean_auc=numbers.auc(row.get("mean_auc")),
        bounds=(numbers.number(low), numbers.number(row.get("ratio")), numbers.number(high)),
    )


def top_cells(result: AuditResult, n: int) -> list[Cell]:
    """The `n` group values with the smallest p-values that may be shown."""
    shown = [row for row in _rows(result.groups) if not _is_small(row.get("n_patients"))]
    order = [numbers.number(row.get("p_value")) for row in shown]
    ranked = sorted(
        zip(order, range(len(shown)), strict=True), key=lambda x: 2.0 if x[0] is None else x[0]
    )
    return [_cell(shown[i]) for _, i in ranked[:n]]


def patients_at_risk(result: AuditResult, *, limit: int, show_ids: bool) -> list[Patient]:
    """The first `limit` patients at risk, the most certain first.

    Without `show_ids` they are called P1, P2, ... in that order, and no id is in the result.
    """
    table = result.patients
    if not len(table) or "at_risk" not in table:
        return []
    listed = table[table["at_risk"].eq(True).to_numpy(dtype=bool, na_value=False)]
    listed = listed.sort_values(
        ["p_value", "auc_joint"], ascending=[True, False], kind="stable", na_position="last"
    ).head(limit)
    return [
        Patient(
            name=numbers.name(row["patient"]) if show_ids else f"P{i}",
            n_records=numbers.count(row.get("n_records")),
            auc_joint=numbers.auc(row.get("auc_joint")),
            auc_se=numbers.auc(row.get("auc_se")),
            auc_max=numbers.auc(row.get("auc_max")),
            p_value=numbers.p_value(row.get("p_value")),
            q_value=numbers.p_value(row.get("q_value")),
        )
        for i, row in enumerate(_rows(listed), start=1)
    ]


def utility_overall(summary: Mapping[str, Any]) -> Utility | None:
    """Utility over all held-out patients, None where it was not measured."""
    found = part(summary, "utility", "overall")
    return _utility("All held-out patients", found, None) if found else None


def utility_by_group(result: AuditResult) -> dict[str, list[Utility]]:
    """Utility of every group value, each beside the privacy of the same value."""
    beside = {(str(row["group"]), str(row["value"])): _cell(row) for row in _rows(result.groups)}
    found = part(result.summary, "utility", "by_group")
    return {
        numbers.name(group): [
            _utility(numbers.name(value), part(found, group, value), beside.get((group, value)))
            for value in part(found, group)
        ]
        for group in found
    }


def _utility(value: str, found: Mapping[str, Any], beside: Cell | None) -> Utility:
    if _is_small(found.get("n_patients")):
        return Utility(value=value, withheld=True, beside=beside)
    return Utility(
        value=value,
        withheld=False,
        n_patients=numbers.count(found.get("n_patients")),
        auroc=numbers.auc(found.get("auroc")),
        auroc_interval=_auc_interval(found, "low", "high"),
        accuracy=numbers.auc(found.get("accuracy")),
        accuracy_interval=_auc_interval(found, "accuracy_low", "accuracy_high"),
        beside=beside,
    )


def guards(summary: Mapping[str, Any]) -> list[dict[str, str]]:
    """Name, status and message of every guard, those that did not pass first."""
    found = [
        {key: numbers.name(guard.get(key)) for key in ("name", "status", "message")}
        for guard in summary.get("guards") or []
    ]
    rank = {"failed": 0, "unknown": 1, "passed": 2}
    return sorted(found, key=lambda guard: rank.get(guard["status"], 1))


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


def epsilon_table(summary: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the bounds on epsilon, with whatever facts each bound states."""
    bounds = [bound for bound in summary.get("epsilon") or [] if isinstance(bound, Mapping)]
    header = list(dict.fromkeys(key for bound in bounds for key in bound))
    return [key.replace("_", " ") for key in header], [
        [_plain(bound.get(key)) for key in header] for bound in bounds
    ]
