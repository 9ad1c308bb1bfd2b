"""Figures of an audit for papers: the plots of the report, as vector graphics."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from confide.audits.result import AuditResult
from confide.reports import figures, groups_view, numbers
from confide.reports.paper_style import COLOURS, GREY, Format, Style, blank, encode, styled
from confide.reports.view import part

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Rectangle

_SHADINGS = {
    "measured": "95% interval of the measured",
    "corrected": "95% bounds of the corrected",
    "null": "middle 95% of chance",
}
_ROW = 3.6  # mm of a row of a forest plot
_MOST_ROWS = 55  # of one file, so that it fits a page
_LETTERS = 28  # of a name
_WIDEST = 5  # beyond 32 times as many the end of an interval says nothing more

Span = tuple[float, float, float]
"""Low, middle and high."""


def draw(result: AuditResult, *, style: Style, kind: Format) -> dict[str, bytes]:
    """Draw the figures of an audit.

    Parameters
    ----------
    result : of an audit of many models, or of a released model
    style, kind : how they look, and the form of the files

    Returns
    -------
    {name: file}: "roc" and "survival"; "groups" (ratios by group) and "utility" (utility beside
    exposure by group), and "groups-2" and so on where they fill more than one page; of a released
    model "roc-records" and "roc-patients".  What was not measured is left out, and small groups are
    withheld

    Raises
    ------
    MissingExtraError : matplotlib is not installed
    """
    with styled(style):
        made = dict(_figures(result, style))
        return {name: encode(figure, kind) for name, figure in made.items()}


def _figures(result: AuditResult, style: Style) -> Iterator[tuple[str, Figure]]:
    curves = result.curves
    if result.summary.get("kind") == "released_model":
        for name, curve in (("roc-records", "roc"), ("roc-patients", "roc_patients")):
            found = figures.roc(curves[curves["curve"] == curve].assign(curve="roc"))
            if found is not None:
                yield name, _roc(found, style)
        return
    roc, survival = figures.roc(curves), figures.survival(curves)
    if roc is not None:
        yield "roc", _roc(roc, style)
    if survival is not None:
        yield "survival", _survival(survival, style)
    for i, page in enumerate(_pages(rows_of(result)), start=1):
        end = "" if i == 1 else f"-{i}"
        if any(row.ratio for row in page):
            yield f"groups{end}", _forest(page, style)
        if any(row.auroc for row in page):
            overall = part(result.summary, "utility", "overall")
            yield f"utility{end}", _utility(page, numbers.number(overall.get("auroc")), style)


def _roc(found: Mapping[str, Any], style: Style) -> Figure:
    figure = blank(style.single, 0.86 * style.single)
    axes = figure.add_subplot()
    floor = float(found["x_floor"])
    diagonal = axes.plot([floor, 1], [floor, 1], color=GREY, linestyle=":", linewidth=style.line)
    drawn = _series(axes, found, style)
    for axis in ("x", "y"):
        _logarithmic(axes, axis, floor)
    axes.set_xlabel("False-positive rate")
    axes.set_ylabel("True-positive rate")
    names = [_short(one["name"]) for one in found["series"]]
    _legend(figure, [*drawn, *diagonal], [*names, "guessing"])
    return figure


def _survival(found: Mapping[str, Any], style: Style) -> Figure:
    figure = blank(style.single, 1.05 * style.single)
    axes = figure.add_subplot()
    drawn = _series(axes, found, style)
    axes.set_xlim(0.5, 1.0)
    axes.set_xticks([0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    _logarithmic(axes, "y", float(found["y_floor"]))
    axes.set_xlabel("AUC of a patient")
    axes.set_ylabel("Patients at or above")
    shaded = {one["style"]: _band(one) for one in found["series"] if one["band_x"]}
    _legend(
        figure,
        [*drawn, *(_patch(band) for band in shaded.values())],
        [*(one["name"] for one in found["series"]), *(_SHADINGS[key] for key in shaded)],
    )
    return figure


def _series(axes: Axes, found: Mapping[str, Any], style: Style) -> list[Line2D]:
    """Bands and lines as the report draws them; the lines."""
    floor = float(found["y_floor"])
    for one in found["series"]:
        if one["band_x"]:
            low, high = ([max(v, floor) for v in one[key]] for key in ("low", "high"))
            axes.fill_between(one["band_x"], low, high, linewidth=0, **_band(one))
    lines = []
    for one in found["series"]:
        is_null = one["style"] == "null"
        lines += axes.plot(
            one["x"],
            one["y"],
            color=COLOURS[one["colour"]],
            linestyle="--" if is_null else "-",
            linewidth=style.line * (1.4 if is_null or one["style"] == "beside" else 2),
            marker="" if len(one["x"]) > 1 else "o",
            markersize=3,
        )
    return lines


def _band(one: Mapping[str, Any]) -> dict[str, Any]:
    """Colour and strength of the shading of a series."""
    return {
        "color": GREY if one["style"] == "null" else COLOURS[one["colour"]],
        "alpha": 0.12 if one["style"] == "corrected" else 0.22,
    }


def _patch(band: Mapping[str, Any]) -> Rectangle:
    """A shading as it stands in a legend."""
    from matplotlib.patches import Rectangle

    return Rectangle((0, 0), 1, 1, linewidth=0, **band)


def _legend(figure: Figure, lines: Sequence[Line2D | Rectangle], names: Sequence[str]) -> None:
    # Handed over, not asked of the axes, which hide lines whose name begins with _.
    figure.legend(lines, names, loc="outside lower center", ncols=2)


def _logarithmic(axes: Axes, which: str, floor: float) -> None:
    decades = [10.0**k for k in range(round(math.log10(floor)), 1)]
    is_x = which == "x"
    (axes.set_xscale if is_x else axes.set_yscale)("log")
    (axes.set_xlim if is_x else axes.set_ylim)(floor, 1.05)
    axis = axes.xaxis if is_x else axes.yaxis
    axis.set_ticks(decades, labels=[numbers.rate(value) for value in decades])


@dataclass(frozen=True, kw_only=True)
class Row:
    """One value of a group, or the name of a group above its values.

    Attributes
    ----------
    text : what stands beside the row
    is_head : whether it is the name of a group
    ratio : share of the highest risk over share of patients
    difference : mean AUC of its patients minus that of all others
    auroc : of the task, on held-out patients
    """

    text: str
    is_head: bool = False
    ratio: Span | None = None
    difference: Span | None = None
    auroc: Span | None = None


def rows_of(result: AuditResult) -> list[list[Row]]:
    """The values of each group below its name; withheld values are named without a figure."""
    utility = groups_view.utility_by_group(result)
    found = []
    for group in groups_view.groups(result):
        shown = {one.value: one for one in utility.get(group.name, []) if not one.withheld}
        rows = [Row(text=_short(group.name), is_head=True)]
        for cell in group.cells:
            if cell.withheld:
                rows.append(Row(text=f"{_short(cell.value)} (withheld)"))
                continue
            beside = shown.get(cell.value)
            rows.append(
                Row(
                    text=f"{_short(cell.value)} ({cell.n_patients})",
                    ratio=_all(*cell.bounds),
                    difference=_span(cell.difference, cell.difference_interval),
                    auroc=_span(beside.auroc, beside.auroc_interval) if beside else None,
                )
            )
        found.append(rows)
    return found


def _all(low: float | None, middle: float | None, high: float | None) -> Span | None:
    return None if low is None or middle is None or high is None else (low, middle, high)


def _span(middle: str, bounds: str) -> Span | None:
    """The numbers behind a written figure and its interval; None where one was not measured."""
    written = [
        getattr(bounds, "low", ""),
        getattr(middle, "value", ""),
        getattr(bounds, "high", ""),
    ]
    if not all(written):
        return None
    low, value, high = map(float, written)
    return low, value, high


def _pages(groups: Sequence[Sequence[Row]]) -> Iterator[list[Row]]:
    """The rows of all groups, cut so that each file fits a page."""
    page: list[Row] = []
    for head, *values in groups:
        for start in range(0, len(values), _MOST_ROWS - 1):
            chunk = [head, *values[start : start + _MOST_ROWS - 1]]
            if len(page) + len(chunk) > _MOST_ROWS:
                yield page
                page = []
            page += chunk
    if page:
        yield page


def _sheet(page: Sequence[Row], width: float, style: Style) -> Figure:
    return blank(width, _ROW * style.letters / 7 * len(page) + 14)


def _names(axes: Axes, page: Sequence[Row]) -> None:
    """The rows from the top downwards, and their names on the left."""
    axes.set_ylim(len(page) - 0.4, -0.6)
    axes.set_yticks(range(len(page)), [row.text for row in page])
    for label, row in zip(axes.get_yticklabels(), page, strict=True):
        label.set_fontweight("bold" if row.is_head else "normal")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _forest(page: Sequence[Row], style: Style) -> Figure:
    """Ratios with their intervals on a logarithmic axis, one row a value."""
    figure = _sheet(page, style.single, style)
    axes = figure.add_subplot()
    logs = [math.log2(v) for row in page for v in row.ratio or () if 0 < v < math.inf]
    low = max(min([math.floor(v) for v in logs], default=-1), -_WIDEST)
    high = min(max([math.ceil(v) for v in logs], default=1), _WIDEST)
    low, high = min(low, -1), max(high, 1)
    axes.set_xscale("log", base=2)
    axes.set_xlim(2.0 ** (low - 0.2), 2.0 ** (high + 0.2))
    axes.axvline(1.0, color=GREY, linestyle=":", linewidth=style.line)
    for y, row in enumerate(page):
        _interval(axes, y, row.ratio, style)
    ticks = [k for k in range(low, high + 1) if high - low <= 6 or k % 2 == 0]
    axes.xaxis.set_ticks(
        [2.0**k for k in ticks], labels=[f"1/{2**-k}" if k < 0 else f"{2**k}" for k in ticks]
    )
    axes.xaxis.set_ticks([], minor=True)
    _names(axes, page)
    figure.supxlabel("Share of the highest risk / share of patients (95% interval)")
    return figure


def _utility(page: Sequence[Row], overall: float | None, style: Style) -> Figure:
    """How well the task is done for a value of a group, beside how exposed its patients are."""
    figure = _sheet(page, style.double, style)
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, line in ((left, overall), (right, 0.0)):
        if line is not None:
            axes.axvline(line, color=GREY, linestyle=":", linewidth=style.line)
    for y, row in enumerate(page):
        _interval(left, y, row.auroc, style)
        _interval(right, y, row.difference, style)
    left.set_xlabel("AUROC of the task, held-out patients (95% interval)")
    right.set_xlabel("Mean patient AUC minus that of all others (95% interval)")
    right.spines["left"].set_visible(False)
    right.tick_params(axis="y", length=0, labelleft=False)
    _names(left, page)
    return figure


def _interval(axes: Axes, y: float, span: Span | None, style: Style) -> None:
    """A dot and its interval; an arrow where it goes on beyond the axis; a ratio of 0 is a 0."""
    if span is None:
        return
    low, middle, high = span
    is_linear = axes.get_xscale() == "linear"
    first, last = (-math.inf, math.inf) if is_linear else axes.get_xlim()
    axes.plot(
        (max(low, first), min(high, last)),
        (y, y),
        color=COLOURS[0],
        linewidth=2 * style.line,
        solid_capstyle="butt",
    )
    for is_cut, x, marker in ((low < first, first, "<"), (high > last, last, ">")):
        if is_cut:
            axes.plot(x, y, marker, color=COLOURS[0], markersize=3, clip_on=False)
    if first <= middle <= last:
        axes.plot(middle, y, "o", color=COLOURS[0], markersize=3)
    elif middle == 0:  # which has no place on a logarithmic axis
        axes.annotate(
            "0",
            (first, y),
            xytext=(style.letters, 0),
            textcoords="offset points",
            ha="center",
            va="center_baseline",
            color=COLOURS[0],
            bbox={"facecolor": "white", "linewidth": 0, "pad": 0.8},
        )


def _short(name: str) -> str:
    """A name on one line, not too long for its place.

    >>> _short("a" * 40)
    'aaaaaaaaaaaaaaaaaaaaaaaaaaa…'
    """
    text = numbers.name(name)
    return text if len(text) <= _LETTERS else f"{text[: _LETTERS - 1]}…"
