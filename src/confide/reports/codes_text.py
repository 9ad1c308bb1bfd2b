"""What was measured of classifiers of codes, for a terminal of 80 columns and without colour."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from rich import box
from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from confide.reports import codes, codes_view, numbers
from confide.reports.codes_tables import GAIN, NOT_DISTINGUISHABLE, OTHER_KEYS, Figure, Sheet
from confide.reports.codes_view import Label, View
from confide.reports.view import SMALL_CELL

_MARK = "*"
_WIDTH, _GAP = 80, 2
_WHERE = "Which model works where"


def renderables(table: pd.DataFrame, summary: Mapping[str, Any]) -> list[RenderableType]:
    """What to print, in order, with ``rich.console.Console.print``.

    Warnings, the main tables of every label, and what the figures are and are not.  The arguments
    are those of :func:`confide.reports.codes.render_codes`.
    """
    view = codes_view.read(table, summary)
    parts: list[RenderableType] = [Text(f"Warning: {line}") for line in codes.warnings(summary)]
    for label in view.labels:
        parts += [_withheld(label, view.units)] if label.withheld else _label(label, view)
    parts.append(Text(_explanation(summary, view)))
    return [parts[0], *(Padding(part, (1, 0, 0, 0)) for part in parts[1:])]


def _title(label: Label) -> str:
    return f"{label.name}: AUC of {label.positive} against {label.negative}"


def _withheld(label: Label, units: str) -> Text:
    return Text(f"{_title(label)}: withheld, fewer than {SMALL_CELL} test {units}")


def _label(label: Label, view: View) -> list[RenderableType]:
    first, *others = [_sheet(sheet) for sheet in label.sheets]
    return [Group(Text(_title(label), style="bold"), first), *others, *_where(label, view.sites)]


def _sheet(sheet: Sheet) -> RenderableType:
    marked = any(figure and figure.note for _, figures in sheet.rows for figure in figures)
    table = _table(
        sheet.first.lower(),
        *map(_heading, sheet.columns),
        caption=f"{_MARK} {NOT_DISTINGUISHABLE}" if marked else "",
    )
    for name, figures in sheet.rows:
        table.add_row(Text(name), *(_stacked(figure) for figure in figures))
    return Group(Text(sheet.heading), table) if sheet.heading else table


def _heading(column: tuple[str, str]) -> str:
    """A heading of lines as short as figures, so that four stand side by side."""
    what, records = column
    lines = [what if what.isupper() else what.lower().replace(" of ", "\nof ")]
    return "\n".join([*lines, records] if records else lines)


def _where(label: Label, sites: tuple[str, ...]) -> list[RenderableType]:
    """Which model works where, without intervals; nothing where the names leave no room for it."""
    columns = ("model", *(f"on {site}" for site in sites))
    table = _table(*columns, caption="")
    widths = [cell_len(column) for column in columns]
    for block in label.where:
        for name, _, figures in block.rows:
            cells = [
                f"{block.arm}: {name}",
                *(figure.value if figure else "" for figure in figures),
            ]
            table.add_row(*map(Text, cells))
            widths = list(map(max, widths, map(cell_len, cells)))
        table.add_section()
    if not label.where or sum(widths) + _GAP * (len(widths) - 1) > _WIDTH:
        return []
    return [Group(Text(f"{_WHERE}, AUC (intervals: see the report)"), table)]


def _table(first: str, *columns: str, caption: str) -> Table:
    """A table whose first column are names and whose other columns are figures."""
    table = Table(
        box=box.SIMPLE_HEAD,
        caption=Text(caption) if caption else None,
        caption_justify="left",
        caption_style="",
        pad_edge=False,
        show_edge=False,
    )
    # Names fold onto the next line; a figure is never cut or broken.
    table.add_column(Text(first), overflow="fold", vertical="top")
    for column in columns:
        table.add_column(Text(column), justify="right", no_wrap=True)
    return table


def _stacked(figure: Figure | None) -> Text:
    """The figure above its interval, so that four of them stand side by side."""
    if figure is None:
        return Text("")
    text = Text(f"{figure.value}{_MARK}" if figure.note else figure.value)
    if figure.interval != numbers.MISSING:
        text.append(f"\n{figure.interval}")
    return text


def _explanation(summary: Mapping[str, Any], view: View) -> str:
    return " ".join(
        [
            f"{codes.AUC} Intervals: 95%, from {numbers.count(summary.get('n_resamples'))} "
            f"resamples of the test {view.units}.",
            *([] if view.one_site else [GAIN, OTHER_KEYS]),
            *codes.statement(summary),
        ]
    )
