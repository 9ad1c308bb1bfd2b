"""What a cohort holds, as tables for a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from confide.reports import numbers

_MOST_ROWS = 20


def renderables(found: dict[str, Any], *, title: str) -> list[RenderableType]:
    """Tables of what :func:`confide.datasets.describe` returns."""
    parts: list[RenderableType] = [_counts(found, title), _labels(found)]
    parts += [_group(name, group) for name, group in found["groups"].items()]
    if found["missing"]:
        parts.append(_missing(found["missing"]))
    same = found["duplicates_across_patients"]
    if same["records"]:
        parts.append(
            Text(
                f"{same['records']:,} records have exactly the inputs of another patient's "
                f"record, in {same['sets']:,} sets: the same person under two ids?"
            )
        )
    if found["notes"]:
        parts.append(Text("\n".join(f"Note: {numbers.name(note)}" for note in found["notes"])))
    return [parts[0], *(Padding(part, (1, 0, 0, 0)) for part in parts[1:])]


def _table(title: str, *columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(Text(title, style="bold"), overflow="fold")
    for column in columns:
        table.add_column(Text(column), justify="right", no_wrap=True)
    return table


def _add(table: Table, name: Any, *cells: int | str) -> None:
    # Text, so that brackets in names are not read as markup.
    figures = (f"{cell:,}" if isinstance(cell, int) else cell for cell in cells)
    table.add_row(Text(numbers.name(name)), *map(Text, figures))


def _counts(found: dict[str, Any], title: str) -> Table:
    table = _table(numbers.name(title), "all", "held out")
    _add(table, "records", found["records"], found["test_records"])
    _add(table, "patients", found["patients"], found["test_patients"])
    per = found["records_per_patient"]
    spread = f"{per['min']} to {per['max']}, median {per['median']:g}"
    _add(table, "records per patient", spread, "")
    _add(table, "inputs per record", " x ".join(map(str, found["inputs"])), "")
    _add(table, "task", found["task"], "")
    return table


def _labels(found: dict[str, Any]) -> Table:
    if found["task"] == "multilabel":
        table = _table("label", "positive", "negative", "unknown")
        for name, n in found["labels"].items():
            _add(table, name, n["positive"], n["negative"], n["unknown"])
        return table
    table = _table("label", "records")
    for name, n in list(found["labels"].items())[:_MOST_ROWS]:
        _add(table, name, n)
    if len(found["labels"]) > _MOST_ROWS:
        _add(table, f"... {len(found['labels']) - _MOST_ROWS} more", "")
    return table


def _group(name: str, group: dict[str, Any]) -> Table:
    table = _table(f"group {numbers.name(name)}", "patients", "records")
    for value, n in group["values"].items():
        _add(table, value, n["patients"], n["records"])
    if group["missing"]["records"]:
        _add(table, "(missing)", group["missing"]["patients"], group["missing"]["records"])
    if group["conflicting_patients"]:
        _add(table, "(records of a patient disagree)", group["conflicting_patients"], "")
    return table


def _missing(missing: dict[str, int]) -> Table:
    table = _table("missing values", "records")
    worst = sorted(missing.items(), key=lambda item: -item[1])
    for name, n in worst[:_MOST_ROWS]:
        _add(table, name, n)
    if len(worst) > _MOST_ROWS:
        _add(table, f"... {len(worst) - _MOST_ROWS} more features", "")
    return table
