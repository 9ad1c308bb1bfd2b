"""What was measured of classifiers of codes, as rows of written text for page and terminal.

Nothing is computed here but where a mark stands: figures are chosen, put in order, withheld where
a cell is small, and written out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from confide.reports import codes_source, codes_tables, numbers
from confide.reports.codes_axis import Axis
from confide.reports.codes_source import (
    ALL_SITES,
    MEAN,
    ONE_FOR_ALL,
    ONE_SITE,
    OWN_SITE,
    Row,
    Source,
)
from confide.reports.codes_tables import WITHHELD_FIGURE, Figure, Sheet, Where
from confide.reports.figures import Mark
from confide.reports.view import SMALL_CELL, WITHHELD, part

MOST_VALUES = 50
"""Of each group, so many values are shown."""

# What is written for the models and the test records of a row of the table.
_OVERALL = {
    (ALL_SITES, ALL_SITES): "model of all sites, all records",
    (ALL_SITES, MEAN): "model of all sites, mean over sites",
    (OWN_SITE, MEAN): "models of one site, at their own site",
    (ONE_FOR_ALL, MEAN): "models of one site, at all sites",
}
_AT_SITE = {ALL_SITES: "model of all sites", OWN_SITE: "its own model"}
_MODELS = {
    ALL_SITES: "model of all sites",
    OWN_SITE: "each site's own model",
    ONE_FOR_ALL: "models of one site, at all sites",
}


@dataclass(frozen=True, kw_only=True)
class Line:
    """One row of a table with marks; a `withheld` line holds no figure at all."""

    name: str
    withheld: bool
    area: Figure = WITHHELD_FIGURE
    mark: Mark | None = None
    n_patients: str = WITHHELD
    n_records: str = ""
    n_positive: str = ""


@dataclass(frozen=True, kw_only=True)
class Block:
    """Lines under one heading, which is empty where the lines speak for themselves."""

    heading: str
    lines: tuple[Line, ...]


@dataclass(frozen=True, kw_only=True)
class Group:
    """The first values of one group; `n_values` counts all of them."""

    name: str
    n_values: int
    blocks: tuple[Block, ...]


@dataclass(frozen=True, kw_only=True)
class Label:
    """Everything on one label; where it is `withheld`, names only.

    Attributes
    ----------
    sheets : the main tables
    where : which model works where, one an arm; empty with one site
    overall : one block an arm, or one block with a line an arm
    sites : one block a site, empty with one site
    epochs : headings and rows of the table of epochs
    """

    name: str
    positive: str
    negative: str
    withheld: bool
    sheets: tuple[Sheet, ...] = ()
    where: tuple[Where, ...] = ()
    overall: tuple[Block, ...] = ()
    sites: tuple[Block, ...] = ()
    groups: tuple[Group, ...] = ()
    epochs: tuple[tuple[str, ...], tuple[tuple[str, ...], ...]] = ((), ())


@dataclass(frozen=True, kw_only=True)
class View:
    """All labels, and what they share.

    Attributes
    ----------
    axis : holds every figure that may be shown
    sites : their names
    units : what was resampled, "patients", or "records" where patients are unknown
    rows : every AUC that may be shown, as (label, arm, models, tested on, group, value) and
        figures
    """

    labels: tuple[Label, ...]
    rows: tuple[tuple[tuple[str, ...], Line], ...]
    axis: Axis
    sites: tuple[str, ...]
    units: str

    @property
    def one_site(self) -> bool:
        """Whether nothing is compared between sites."""
        return len(self.sites) < 2


def read(table: pd.DataFrame, summary: Mapping[str, Any]) -> View:
    """Figures as text; for the arguments see :func:`confide.reports.codes.render_codes`."""
    source = codes_source.read(table, summary)
    labels = {str(key): _label(str(key), source) for key in part(summary, "labels")}
    return View(
        labels=tuple(labels.values()),
        rows=_rows(source, {key for key, label in labels.items() if not label.withheld}),
        axis=source.axis,
        sites=tuple(map(numbers.name, source.sites)),
        units=source.units,
    )


def _label(key: str, source: Source) -> Label:
    found = part(source.summary, "labels", key)
    rows = [row for row in source.rows if str(row["label"]) == key]
    overall = [row for row in rows if not row["group"] and source.is_overall(row)]
    label = Label(
        name=numbers.name(key),
        positive=numbers.name(found.get("positive")),
        negative=numbers.name(found.get("negative")),
        withheld=any(source.is_small(row) for row in overall),
    )
    if label.withheld:
        return label
    measured = part(found, "arms")
    return replace(
        label,
        sheets=codes_tables.sheets(found, one_site=source.one_site),
        where=codes_tables.where(key, list(measured), source),
        overall=_by_arm(overall, list(measured), source),
        sites=() if source.one_site else _by_site(rows, list(measured), source),
        groups=_groups([row for row in rows if source.is_overall(row)], list(measured), source),
        epochs=_epochs(measured),
    )


def _rows(source: Source, labels: set[str]) -> tuple[tuple[tuple[str, ...], Line], ...]:
    """All that may be shown of these labels."""
    shown = [row for row in source.rows if not row["group"] or source.is_overall(row)]
    shown += [row for (_, _, model, _), row in source.where.items() if model not in _MODELS]
    return tuple(
        (
            (
                *(numbers.name(row[key]) for key in ("label", "arm")),
                _MODELS.get(row["model"], numbers.name(row["model"])),
                numbers.name(row["tested_on"]),
                *(numbers.name(row[key]) if row["group"] else "" for key in ("group", "value")),
            ),
            _line(row, numbers.name(row["arm"]), source),
        )
        for row in shown
        if str(row["label"]) in labels and not source.is_small(row)
    )


def _words(row: Row, source: Source) -> str:
    """Which models a row is about, and which records unless a heading says so."""
    model, tested_on = numbers.name(row["model"]), numbers.name(row["tested_on"])
    if source.one_site:
        return ONE_SITE
    if not source.is_overall(row):
        return _AT_SITE.get(row["model"], model)
    return _OVERALL.get((row["model"], row["tested_on"]), f"{model}, {tested_on}")


def _line(row: Row, name: str, source: Source) -> Line:
    if source.is_small(row):
        return Line(name=name, withheld=True)
    area = codes_tables.area(row)
    return Line(
        name=name,
        withheld=False,
        area=area,
        mark=source.axis.mark(
            *(numbers.number(row[key]) for key in ("auc", "low", "high")),
            label=f"{name}: AUC {area.value}, interval {area.interval}",
        ),
        n_patients=numbers.count(row["n_patients"]),
        n_records=numbers.count(row["n_records"]),
        n_positive=_positives(row),
    )


def _positives(row: Row) -> str:
    n, positive = numbers.number(row["n_records"]), numbers.number(row["n_positive"])
    # Few of one class, and the records of that class could be told from the others.
    if n is None or positive is None or min(positive, n - positive) < SMALL_CELL:
        return WITHHELD_FIGURE.value
    return numbers.count(positive)


def _by_arm(rows: list[Row], order: list[str], source: Source) -> tuple[Block, ...]:
    """One block an arm; where each has one line, one block of all."""
    blocks = [
        Block(
            heading=numbers.name(arm),
            lines=tuple(
                _line(row, _words(row, source), source) for row in rows if row["arm"] == arm
            ),
        )
        for arm in order
    ]
    if all(len(block.lines) <= 1 for block in blocks):
        lines = tuple(replace(line, name=b.heading) for b in blocks for line in b.lines)
        return (Block(heading="", lines=lines),) if lines else ()
    return tuple(block for block in blocks if block.lines)


def _block(heading: str, rows: list[Row], order: list[str], source: Source) -> Block:
    """Lines of all arms on the same test records."""
    kinds = {_words(row, source) for row in rows}
    lines = []
    for arm in order:
        for row in (row for row in rows if row["arm"] == arm):
            more = f": {_words(row, source)}" if len(kinds) > 1 else ""
            lines.append(_line(row, f"{numbers.name(arm)}{more}", source))
    if all(line.withheld for line in lines):
        lines = [Line(name="every arm", withheld=True)] if lines else []
    return Block(heading=heading, lines=tuple(lines))


def _by_site(rows: list[Row], order: list[str], source: Source) -> tuple[Block, ...]:
    blocks = []
    for site in source.sites:
        here = [row for row in rows if row["tested_on"] == site and not row["group"]]
        blocks.append(_block(numbers.name(site), here, order, source))
    return tuple(block for block in blocks if block.lines)


def _groups(rows: list[Row], order: list[str], source: Source) -> tuple[Group, ...]:
    found: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        if row["group"]:
            values = found.setdefault(numbers.name(row["group"]), {})
            values.setdefault(numbers.name(row["value"]), []).append(row)
    return tuple(
        Group(
            name=group,
            n_values=len(values),
            blocks=tuple(
                _block(value, here, order, source)
                for value, here in list(values.items())[:MOST_VALUES]
            ),
        )
        for group, values in found.items()
    )


def _epochs(
    measured: Mapping[str, Any],
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    of_arm = {arm: part(measured, arm, "best_epoch") for arm in measured}
    models = list(dict.fromkeys(model for epochs in of_arm.values() for model in epochs))
    header = tuple(
        "Model of all sites" if model == ALL_SITES else numbers.name(model) for model in models
    )
    rows = (
        (numbers.name(arm), *(numbers.count(epochs.get(model)) for model in models))
        for arm, epochs in of_arm.items()
    )
    return (header, tuple(rows)) if models else ((), ())
