"""What an audit says of groups, as rows of written text; small cells are withheld.

It is not told which of the withheld cells are small and which would only give them away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from confide.audits.groups import JOINER
from confide.audits.result import AuditResult
from confide.audits.suppression import SMALL_CELL, told, withheld
from confide.reports import numbers
from confide.reports.view import auc_interval, part, rows

WITHHELD = "withheld"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One value of one group; `withheld` cells hold no figure at all.

    `difference` is the mean AUC minus that of all other patients, `adjusted` the same at equal
    numbers of records and rarity of classes.
    """

    group: str
    value: str
    withheld: bool
    n_patients: str = WITHHELD
    share: str = ""
    ratio: str = ""
    interval: str = ""
    p_value: str = ""
    p_holm: str = ""
    q_value: str = ""
    mean_auc: str = ""
    difference: str = ""
    difference_interval: str = ""
    adjusted: str = ""
    adjusted_interval: str = ""
    bounds: tuple[float | None, float | None, float | None] = (None, None, None)
    order: float = field(default=np.inf, compare=False)

    @property
    def full_name(self) -> str:
        """The group and its value."""
        return f"{self.group}: {self.value}"


@dataclass(frozen=True, kw_only=True)
class Group:
    """All values of one group, and what holds for the group as a whole."""

    name: str
    p_value: str
    p_adjusted: str
    n_tail: str
    n_conflicts: str
    cells: tuple[Cell, ...]


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


def groups(result: AuditResult) -> list[Group]:
    """Every group with its values, in the order of the table of groups."""
    overall = part(result.summary, "groups")
    cells, _ = _cells(result)
    return [
        Group(
            name=numbers.name(key),
            p_value=numbers.p_value(part(overall, key).get("p_value")),
            p_adjusted=numbers.p_value(part(overall, key).get("p_adjusted")),
            n_tail=numbers.count(part(overall, key).get("n_tail")),
            n_conflicts=_conflicts(part(overall, key).get("n_conflicts")),
            cells=tuple(cells.get(key, ())),
        )
        for key in [*cells, *(key for key in overall if key not in cells)]
    ]


def pairs(result: AuditResult) -> list[Cell]:
    """The pairs of values of two groups that may be shown, smallest p-value first."""
    return sorted(_cells(result)[1], key=lambda cell: cell.order)


def top_cells(result: AuditResult, n: int) -> list[Cell]:
    """The `n` group values or pairs with the smallest p-values that may be shown."""
    cells, paired = _cells(result)
    shown = [cell for group in cells.values() for cell in group if not cell.withheld]
    return sorted([*shown, *paired], key=lambda cell: cell.order)[:n]


def _cells(result: AuditResult) -> tuple[dict[str, list[Cell]], list[Cell]]:
    """Values by group, and pairs of values; what is small, or would tell it, is withheld."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows(result.groups):
        found.setdefault(str(row["group"]), []).append(row)
    overall = part(result.summary, "groups")
    cells, paired = {}, []
    for name, group in found.items():
        sizes = _sizes([row.get("n_patients") for row in group])
        if name not in overall and JOINER in name:
            # The audit leaves out pairs that would tell a small number; a table need not be ours.
            paired += [_cell(row) for row, n in zip(group, sizes, strict=True) if n >= SMALL_CELL]
        else:
            # A table without the joint decision is judged group by group.
            hidden = withheld(sizes) | [_flagged(row) for row in group]
            cells[name] = [_cell(row, gone) for row, gone in zip(group, hidden, strict=True)]
    return cells, paired


def _sizes(counts: Sequence[Any]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Numbers of patients; an unknown one is treated as a small one."""
    return np.array([int(numbers.number(n) or 0) for n in counts], dtype=np.int64)


def _conflicts(n: Any) -> str:
    known = numbers.number(n)
    return told(int(known)) if known else ""


def _cell(row: Mapping[str, Any], hidden: bool = False) -> Cell:
    group, value = numbers.name(row["group"]), numbers.name(row["value"])
    if hidden:
        return Cell(group=group, value=value, withheld=True)
    low, high = row.get("ratio_low"), row.get("ratio_high")
    p_value = numbers.number(row.get("p_value"))
    return Cell(
        group=group,
        value=value,
        withheld=False,
        n_patients=numbers.count(row["n_patients"]),
        share=numbers.percent(row.get("share_of_tail")),
        ratio=numbers.ratio(row.get("ratio")),
        interval=numbers.interval(numbers.ratio(low), numbers.ratio(high)),
        p_value=numbers.p_value(p_value),
        p_holm=numbers.p_value(row.get("p_holm")),
        q_value=numbers.p_value(row.get("q_value")),
        mean_auc=numbers.auc(row.get("mean_auc")),
        difference=_signed(row.get("mean_difference")),
        difference_interval=_signed_interval(row, "mean_difference"),
        adjusted=_signed(row.get("adjusted_difference")),
        adjusted_interval=_signed_interval(row, "adjusted_difference"),
        bounds=(numbers.number(low), numbers.number(row.get("ratio")), numbers.number(high)),
        order=np.inf if p_value is None else p_value,
    )


def _signed(value: Any) -> numbers.Written:
    x = numbers.number(value)
    text = numbers.MISSING if x is None else f"{x:+.3f}".replace("-0.000", "+0.000")
    return numbers.Written(text, x)


def _signed_interval(row: Mapping[str, Any], name: str) -> str:
    return numbers.interval(_signed(row.get(f"{name}_low")), _signed(row.get(f"{name}_high")))


def utility_overall(summary: Mapping[str, Any]) -> Utility | None:
    """Utility over all held-out patients, None where it was not measured."""
    found = part(summary, "utility", "overall")
    if not found:
        return None
    small = _sizes([found.get("n_patients")])[0] < SMALL_CELL
    return _utility("All held-out patients", found, bool(small), None)


def utility_by_group(result: AuditResult) -> dict[str, list[Utility]]:
    """Utility of every group value, each beside the privacy of the same value."""
    cells, _ = _cells(result)
    by_group = part(result.summary, "utility", "by_group")
    shown = {}
    for group in by_group:
        found = part(by_group, group)
        values = [str(row["value"]) for row in rows(result.groups) if str(row["group"]) == group]
        beside = dict(zip(values, cells.get(group, []), strict=False))
        sizes = _sizes([part(found, value).get("n_patients") for value in found])
        hidden = withheld(sizes) | [_gone(part(found, v), beside.get(v)) for v in found]
        shown[numbers.name(group)] = [
            _utility(numbers.name(value), part(found, value), gone, beside.get(value))
            for value, gone in zip(found, hidden, strict=True)
        ]
    return shown


def _flagged(found: Mapping[str, Any]) -> bool:
    flag = found.get("withheld")
    return isinstance(flag, bool | np.bool_) and bool(flag)


def _gone(found: Mapping[str, Any], beside: Cell | None) -> bool:
    """Whether the audit withholds a value, of the held-out patients or of its own."""
    return _flagged(found) or (beside is not None and beside.withheld)


def _utility(value: str, found: Mapping[str, Any], hidden: bool, beside: Cell | None) -> Utility:
    if hidden:
        return Utility(value=value, withheld=True, beside=beside)
    return Utility(
        value=value,
        withheld=False,
        n_patients=numbers.count(found.get("n_patients")),
        auroc=numbers.auc(found.get("auroc")),
        auroc_interval=auc_interval(found, "low", "high"),
        accuracy=numbers.auc(found.get("accuracy")),
        accuracy_interval=auc_interval(found, "accuracy_low", "accuracy_high"),
        beside=beside,
    )
