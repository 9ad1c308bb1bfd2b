"""A comparison of audits for a terminal of 80 columns and without colour."""

from __future__ import annotations

from rich import box
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from confide.audits.comparison import THRESHOLDS, Comparison
from confide.reports import compare_view, numbers
from confide.reports.compare import STATUS
from confide.reports.compare_view import Figure, Row

_WIDE = 4
"""Audits whose settings fit beside each other."""


def renderables(found: Comparison) -> list[RenderableType]:
    """What to print, in order: warnings, result, figures of each audit, pairs, what differs."""
    summary = found.summary
    verdict = summary["verdict"]
    parts: list[RenderableType] = [
        Text(f"Warning: {numbers.name(line)}") for line in summary["warnings"]
    ]
    parts += [
        Text(f"Warning: guard {guard} {status} in {name}: {message}")
        for name, guard, status, message in compare_view.guards(summary)
    ]
    result = Text(f"{STATUS[verdict['status']]}. ", style="bold")
    parts.append(result.append(numbers.name(verdict["text"]), style="not bold"))
    parts.append(_figures(found))
    parts.append(_tail(found))
    if differ := compare_view.settings(summary):
        parts.append(_settings(differ, compare_view.names(summary)))
    if unknown := compare_view.unknown_settings(summary):
        parts.append(Text(unknown))
    parts += [Text(numbers.name(pair["text"])) for pair in summary["pairs"]]
    return [parts[0], *(Padding(part, (1, 0, 0, 0)) for part in parts[1:])]


def _table(title: str, *columns: str) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD,
        title=Text(title),
        title_justify="left",
        title_style="bold",
        pad_edge=False,
        show_edge=False,
    )
    for i, column in enumerate(columns):
        # Names fold onto the next line; figures are not broken.
        table.add_column(
            Text(column), justify="right" if i else "left", overflow="fold", no_wrap=i > 0
        )
    return table


def _figures(found: Comparison) -> Table:
    attack = compare_view.attack(found.summary)
    n_patients = numbers.count(found.summary["n_patients"])
    table = _table(
        f"Recipes on the same {n_patients} patients; 95% intervals below the figures",
        "recipe",
        "models",
        "at risk",
        f"AUC of {attack}",
        "AUROC",
        "accuracy",
    )
    for row in compare_view.audits(found.summary):
        models, listed, auc, _, auroc, accuracy, _ = row.figures
        table.add_row(Text(row.name), *map(_cell, (models, listed, auc, auroc, accuracy)))
    return table


def _tail(found: Comparison) -> Table:
    table = _table(
        "Patients with an AUC of that much or more, corrected for noise; 95% bounds below",
        "recipe",
        *THRESHOLDS,
    )
    for row in compare_view.shares(found.summary):
        table.add_row(Text(row.name), *map(_cell, row.figures[: len(THRESHOLDS)]))
    return table


def _settings(rows: list[Row], names: list[str]) -> RenderableType:
    if len(names) > _WIDE:
        lines = [
            f"{name}: " + ", ".join(f"{row.name} {row.figures[i].text}" for row in rows)
            for i, name in enumerate(names)
        ]
        return Text("What differs\n" + "\n".join(lines))
    table = _table("What differs", "setting", *names)
    for column in table.columns[1:]:
        column.no_wrap = False
    for row in rows:
        table.add_row(Text(row.name), *(Text(figure.text) for figure in row.figures))
    return table


def _cell(figure: Figure) -> Text:
    bounds = "" if figure.interval == numbers.MISSING else f"\n{figure.interval}"
    return Text(figure.text + bounds)
