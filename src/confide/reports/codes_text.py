"""What was measured of classifiers of codes, for a terminal of 80 columns and without colour."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from confide.reports import codes, codes_view, numbers
from confide.reports.codes_view import Figure, Label
from confide.reports.view import SMALL_CELL

_MARK = "*"
_COLUMNS = (
    "one model\nall records",
    "one model\nmean over sites",
    "own-site models\nmean over sites",
    "gain\nmean over sites",
)


def renderables(table: pd.DataFrame, summary: Mapping[str, Any]) -> list[RenderableType]:
    """What to print, in order, with ``rich.console.Console.print``.

    Warnings, the main table of every label, and what the figures are and are not.  The arguments
    are those of :func:`confide.reports.codes.render_codes`.
    """
    view = codes_view.read(table, summary)
    parts: list[RenderableType] = [Text(f"Warning: {line}") for line in codes.warnings(summary)]
    for label in view.labels:
        parts += [_withheld(label, view.units)] if label.withheld else _label(label)
    parts.append(Text(_explanation(summary, view.units)))
    return [parts[0], *(Padding(part, (1, 0, 0, 0)) for part in parts[1:])]


def _title(label: Label) -> str:
    return f"{label.name}: AUC of {label.positive} against {label.negative}"


def _withheld(label: Label, units: str) -> Text:
    return Text(f"{_title(label)}: withheld, fewer than {SMALL_CELL} test {units}")


def _label(label: Label) -> list[RenderableType]:
    gain = any(arm.gain for arm in label.arms)
    marked = any(arm.gain and arm.gain.note for arm in label.arms)
    table = _table(
        # Over several sites the page's headings would leave no room for the arm.
        *(_COLUMNS if gain else ["AUC"]),
        caption=f"{_MARK} {codes_view.NOT_DISTINGUISHABLE}" if marked else "",
    )
    for arm in label.arms:
        cells = [*arm.areas, *([arm.gain] if arm.gain else [])]
        table.add_row(Text(arm.name), *(_stacked(cell) for cell in cells))
    compared = [
        f"{arm.name} minus {against}: {_sentence(difference)}"
        for arm in label.arms
        for against, difference in zip(label.against, arm.differences, strict=True)
        if difference is not None
    ]
    title = Text(_title(label), style="bold")
    return [Group(title, table), *([Text("\n".join(compared))] if compared else [])]


def _table(*columns: str, caption: str) -> Table:
    """A table whose first column are arms and whose other columns are figures."""
    table = Table(
        box=box.SIMPLE_HEAD,
        caption=Text(caption) if caption else None,
        caption_justify="left",
        caption_style="",
        pad_edge=False,
        show_edge=False,
    )
    # Names fold onto the next line; a figure is never cut or broken.
    table.add_column(Text("arm"), overflow="fold", vertical="top")
    for column in columns:
        table.add_column(Text(column), justify="right", no_wrap=True)
    return table


def _stacked(figure: Figure) -> Text:
    """The figure above its interval, so that four of them stand side by side."""
    text = Text(f"{figure.value}{_MARK}" if figure.note else figure.value)
    if figure.interval != numbers.MISSING:
        text.append(f"\n{figure.interval}")
    return text


def _sentence(figure: Figure) -> str:
    written = numbers.with_interval(figure.value, figure.interval)
    return f"{written}, {figure.note}" if figure.note else written


def _explanation(summary: Mapping[str, Any], units: str) -> str:
    return " ".join(
        [
            f"{codes.AUC} Intervals: 95%, from {numbers.count(summary.get('n_resamples'))} "
            f"resamples of the test {units}.",
            *codes.statement(summary),
        ]
    )
