"""What was measured of classifiers of codes, as rows of written text for page and terminal.

Nothing is computed here but where a mark stands: figures are chosen, put in order, withheld where
a cell is small, and written out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from confide.reports import numbers
from confide.reports.codes_axis import Axis
from confide.reports.figures import Mark
from confide.reports.view import SMALL_CELL, WITHHELD, part

NOT_DISTINGUISHABLE = "not distinguishable from none"

MOST_VALUES = 50
"""Of each group, so many values are shown."""

_WITHHELD = "withheld"
# What is written for the models and the test records of a row of the table.
_MODELS = {"all sites": "one model", "own site": "own-site models", "one site": "one site"}
_MODELS_AT_SITE = {"all sites": "one model", "own site": "its own model"}
_TESTED = {"all sites": "all records", "mean over sites": "mean over sites"}


@dataclass(frozen=True, kw_only=True)
class Figure:
    """An AUC or a difference of two as text, with its interval and what may be said of it."""

    value: str
    interval: str = numbers.MISSING
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One row of the main table.

    Attributes
    ----------
    areas : one for each of the label's `columns`
    gain : of one model of all sites over own-site models; None with one site
    differences : one for each of the label's `against`; None where the arm is not compared
    """

    name: str
    areas: tuple[Figure, ...]
    gain: Figure | None
    differences: tuple[Figure | None, ...]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One row of a table with marks; a `withheld` line holds no figure at all."""

    name: str
    withheld: bool
    area: Figure = Figure(value=_WITHHELD)
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
    columns : headings of the areas of an arm, each (models, what they were tested on)
    against : arms that others are compared with
    overall : one block an arm, or one block with a line an arm
    sites : one block a site, empty with one site
    epochs : headings and rows of the table of epochs
    """

    name: str
    positive: str
    negative: str
    withheld: bool
    columns: tuple[tuple[str, str], ...] = ()
    against: tuple[str, ...] = ()
    arms: tuple[Arm, ...] = ()
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
    units : what was resampled, "patients", or "records" where patients are unknown
    one_site : whether there is one site, so that nothing is compared between sites
    """

    labels: tuple[Label, ...]
    axis: Axis
    units: str
    one_site: bool


def read(table: pd.DataFrame, summary: Mapping[str, Any]) -> View:
    """Figures as text; for the arguments see :func:`confide.reports.codes.render_codes`."""
    source = _source(table, summary)
    return View(
        labels=tuple(_label(str(key), source) for key in part(summary, "labels")),
        axis=source.axis,
        units=source.units,
        one_site=source.one_site,
    )


Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class _Source:
    """What is read: rows of the table, the summary, and what holds for all of it."""

    rows: list[Row]
    summary: Mapping[str, Any]
    sites: tuple[str, ...]
    units: str
    axis: Axis

    @property
    def one_site(self) -> bool:
        return len(self.sites) < 2

    def is_small(self, row: Row) -> bool:
        return _is_small(row, self.units)

    def is_overall(self, row: Row) -> bool:
        """Whether a row is about all test records, as against those of one of several sites."""
        return self.one_site or row["tested_on"] not in self.sites


def _is_small(row: Row, units: str) -> bool:
    patients, records = numbers.number(row["n_patients"]), numbers.number(row["n_records"])
    size = records if patients is None and units == "records" else patients
    return size is None or size < SMALL_CELL  # a cell of unknown size is treated as a small one


def _source(table: pd.DataFrame, summary: Mapping[str, Any]) -> _Source:
    rows: list[Row] = [
        {str(k): v for k, v in row.items()}
        | {"group": "" if pd.isna(row["group"]) else row["group"]}
        for row in table.to_dict("records")
    ]
    units = "records" if summary.get("units") == "records" else "patients"
    return _Source(
        rows=rows,
        summary=summary,
        sites=tuple(str(site.get("site")) for site in summary.get("sites") or []),
        units=units,
        axis=Axis.of(
            numbers.number(row[key])
            for row in rows
            if not _is_small(row, units)
            for key in ("auc", "low", "high")
        ),
    )


def _label(key: str, source: _Source) -> Label:
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
    against = tuple(dict.fromkeys(str(one["against"]) for one in found.get("differences") or []))
    return replace(
        label,
        columns=tuple(column for _, column in _columns(source)),
        against=tuple(map(numbers.name, against)),
        arms=tuple(_arm(arm, found, against, source) for arm in measured),
        overall=_by_arm(overall, list(measured), source),
        sites=() if source.one_site else _by_site(rows, list(measured), source),
        groups=_groups([row for row in rows if source.is_overall(row)], list(measured), source),
        epochs=_epochs(measured),
    )


def _columns(source: _Source) -> list[tuple[str, tuple[str, str]]]:
    """Keys of an arm's areas, each with its heading."""
    if source.one_site:
        return [("own_site", ("AUC", ""))]
    return [
        ("all_sites", ("One model of all sites", "all records")),
        ("mean_over_sites", ("One model of all sites", "mean over sites")),
        ("own_site", ("Own-site models", "mean over sites")),
    ]


def _arm(arm: str, found: Mapping[str, Any], against: tuple[str, ...], source: _Source) -> Arm:
    measured = part(found, "arms", arm)
    compared = {
        str(one["against"]): one for one in found.get("differences") or [] if one["arm"] == arm
    }
    return Arm(
        name=numbers.name(arm),
        areas=tuple(_area(part(measured, key)) for key, _ in _columns(source)),
        gain=None if source.one_site else _difference(part(measured, "gain")),
        differences=tuple(_difference(compared[o]) if o in compared else None for o in against),
    )


def _area(found: Mapping[str, Any]) -> Figure:
    low, high = numbers.auc(found.get("low")), numbers.auc(found.get("high"))
    return Figure(value=numbers.auc(found.get("auc")), interval=numbers.interval(low, high))


def _difference(found: Mapping[str, Any]) -> Figure:
    low, high = numbers.number(found.get("low")), numbers.number(found.get("high"))
    holds_zero = low is not None and high is not None and low <= 0 <= high
    return Figure(
        value=signed(found.get("value")),
        interval=numbers.interval(signed(low), signed(high)),
        note=NOT_DISTINGUISHABLE if holds_zero else "",
    )


def signed(value: Any) -> str:
    """A difference of two AUCs with its sign and three decimals; what rounds to 0 has no sign.

    >>> signed(0.0213), signed(-0.011), signed(-0.0001), signed(None)
    ('+0.021', '-0.011', '0.000', 'n/a')
    """
    x = numbers.number(value)
    if x is None:
        return numbers.MISSING
    return f"{x:+.3f}" if round(x, 3) else "0.000"


def _words(row: Row, source: _Source) -> str:
    """Which models a row is about, and which records unless a heading says so."""
    at_site = not source.is_overall(row)
    names = _MODELS_AT_SITE if at_site else _MODELS
    model = names.get(row["model"]) or numbers.name(row["model"])
    if at_site or source.one_site:
        return model
    return f"{model}, {_TESTED.get(row['tested_on']) or numbers.name(row['tested_on'])}"


def _line(row: Row, name: str, source: _Source) -> Line:
    if source.is_small(row):
        return Line(name=name, withheld=True)
    area = _area(row)
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
        return _WITHHELD
    return numbers.count(positive)


def _by_arm(rows: list[Row], order: list[str], source: _Source) -> tuple[Block, ...]:
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


def _block(heading: str, rows: list[Row], order: list[str], source: _Source) -> Block:
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


def _by_site(rows: list[Row], order: list[str], source: _Source) -> tuple[Block, ...]:
    blocks = []
    for site in source.sites:
        here = [row for row in rows if row["tested_on"] == site and not row["group"]]
        blocks.append(_block(numbers.name(site), here, order, source))
    return tuple(block for block in blocks if block.lines)


def _groups(rows: list[Row], order: list[str], source: _Source) -> tuple[Group, ...]:
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
        "One model of all sites" if model == "all sites" else numbers.name(model)
        for model in models
    )
    rows = (
        (numbers.name(arm), *(numbers.count(epochs.get(model)) for model in models))
        for arm, epochs in of_arm.items()
    )
    return (header, tuple(rows)) if models else ((), ())
