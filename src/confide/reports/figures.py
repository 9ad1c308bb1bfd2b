"""The figures of a report as plain data: what the page's script and template need to draw.

No colour is chosen here; colours belong to the style sheet, which knows light, dark and paper.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pandas as pd

from confide.audits.verdict import SCREENS
from confide.reports import numbers
from confide.reports.groups_view import Cell

# Survival series in the order of the legend: (series, what the reader is told, style, colour).
_SURVIVAL = (
    ("joint", "measured, all records together", "measured", 0),
    ("joint_null", "all records, by chance", "null", 0),
    ("joint_corrected", "all records, corrected for noise", "corrected", 2),
    ("max", "measured, the worst record", "beside", 1),
    ("max_null", "worst record, by chance", "null", 1),
)


def roc(curves: pd.DataFrame) -> dict[str, Any] | None:
    """ROC curves on two logarithmic axes, None if there is no point to draw."""
    points = _of(curves, "roc")
    # A logarithmic axis has no zero: points there are left out, bands are cut at the floor.
    points = points[(points["x"] > 0) & (points["y"] > 0) & ~points["series"].isin(SCREENS)]
    if points.empty:
        return None
    # dict.fromkeys: each series once, in the order of the table.
    series = [
        _series(points[points["series"] == key], numbers.attack(key), "measured", i)
        for i, key in enumerate(dict.fromkeys(points["series"]))
    ]
    floor = _decade(float(points["x"].min()))
    return {"series": series, "x_floor": floor, "y_floor": floor, "diagonal": True}


def survival(curves: pd.DataFrame) -> dict[str, Any] | None:
    """Share of patients at or above an AUC, None if there is no point to draw."""
    points = _of(curves, "survival")
    points = points[points["x"] >= 0.5]
    if _same(points, "joint", "max"):  # every patient has one record
        points = points[~points["series"].isin(["max", "max_null"])]
    present = set(points.loc[points["y"] > 0, "series"])
    if not present:
        return None
    series = [
        _series(points[points["series"] == key], label, style, colour)
        for key, label, style, colour in _SURVIVAL
        if key in present
    ]
    points = points[points["y"] > 0]
    measured = points[points["series"].isin(["joint", "max"])]
    lowest = float((measured if len(measured) else points)["y"].min())
    return {
        "series": series,
        "x_floor": 0.5,
        "y_floor": _decade(lowest),
        "diagonal": False,
        "drawn": sorted(present),
        "chance_band": any(one["band_x"] for one in series if one["style"] == "null"),
    }


def thresholds(curves: pd.DataFrame, patients: pd.DataFrame) -> dict[str, Any] | None:
    """What the slider below the survival curve says, threshold by threshold.

    Parameters
    ----------
    curves, patients : of an audit; a share times the number of patients with a measured AUC is the
        number that is told

    Returns
    -------
    {"at": AUCs, rising; "step" between them; "said": one text each}; None where nothing was
    measured.  The thresholds are those at which all that is told was computed, measured, by chance
    and corrected; nothing is interpolated.
    """
    points = _of(curves, "survival")
    points = points[points["x"] >= 0.5]
    # Numbers of patients, not of a group of them: a small one tells of nobody in particular.
    found = {
        str(key): dict(zip(rows["x"].round(6), rows.itertuples(), strict=True))
        for key, rows in points.groupby("series")
    }
    worst = "max" in found and not _same(points, "joint", "max")
    grids = [set(found[key]) for key in ("joint", "joint_null", "joint_corrected") if key in found]
    grid = sorted(set.intersection(*grids)) if "joint" in found else []
    if len(grid) < 2 or not {"auc_joint", "auc_max"} <= set(patients.columns):
        return None
    n, n_max = (int(patients[key].notna().sum()) for key in ("auc_joint", "auc_max"))
    said = [
        "\n".join([_said(found, x, n), *([_said_of_worst(found, x, n_max)] if worst else [])])
        for x in grid
    ]
    step = round(min(b - a for a, b in pairwise(grid)), 6)
    return {"at": grid, "step": step, "said": said}


def _said(found: Mapping[str, Mapping[float, Any]], x: float, n: int) -> str:
    measured = numbers.count(round(found["joint"][x].y * n))
    text = f"At or above AUC {x:.3f}: {measured} of {n:,} patients measured"
    if "joint_null" in found:
        text += f", where {_expected(found['joint_null'][x].y * n)} expected by chance"
    if "joint_corrected" not in found:
        return f"{text}."
    one = found["joint_corrected"][x]
    corrected = f"corrected for noise {numbers.count(one.y * n)}"
    bounds = [numbers.count(end * n) for end in (one.low, one.high)]
    if numbers.MISSING in bounds:
        return f"{text}; {corrected}."
    return f"{text}; {corrected} (95% bounds {bounds[0]} to {bounds[1]})."


def _said_of_worst(found: Mapping[str, Mapping[float, Any]], x: float, n: int) -> str:
    if x not in found["max"]:
        return ""
    text = f"By the worst record: {numbers.count(round(found['max'][x].y * n))} of {n:,}"
    null = found.get("max_null", {}).get(x)
    if null is not None:
        text += f", where {_expected(null.y * n)} expected by chance"
    return f"{text}."


def _expected(value: float) -> str:
    """A mean number by chance, which need not be whole, and its verb."""
    if 0 < value < 0.1:
        return "fewer than 0.1 are"
    return f"{value:.1f} are" if 0 < value < 10 else f"{value:,.0f} are"


def _of(curves: pd.DataFrame, curve: str) -> pd.DataFrame:
    if not len(curves):
        return pd.DataFrame(columns=["series", "x", "y", "low", "high"])
    return (
        curves[curves["curve"] == curve].dropna(subset=["x", "y"]).sort_values("x", kind="stable")
    )


def _same(points: pd.DataFrame, one: str, other: str) -> bool:
    a, b = (points.loc[points["series"] == key, ["x", "y"]].to_numpy() for key in (one, other))
    return bool(len(a)) and a.shape == b.shape and bool((a == b).all())


def _series(points: pd.DataFrame, label: str, style: str, colour: int) -> dict[str, Any]:
    # A logarithmic axis has no zero, but an upper bound of a share of zero has its place.
    band = points[(points["high"] > 0) & (style != "beside")].dropna(subset=["low", "high"])
    points = points[points["y"] > 0]
    return {
        "name": label,
        # plotly reads a few tags in names; escaped, they are shown as they were written.
        "hover": html.escape(label),
        "style": style,
        "colour": colour % 6,
        "x": [float(v) for v in points["x"]],
        "y": [float(v) for v in points["y"]],
        "band_x": [float(v) for v in band["x"]],
        "low": [float(v) for v in band["low"]],
        "high": [float(v) for v in band["high"]],
    }


def _decade(value: float) -> float:
    # Never above 1 %: an axis of less than two decades has too few marks to read.
    return min(10.0 ** math.floor(math.log10(value) + 1e-9), 0.01)


def to_json(data: Any) -> str:
    """JSON that is safe inside an HTML script element, whatever the strings hold.

    >>> to_json({"name": "</script>"})
    '{"name":"\\\\u003c/script\\\\u003e"}'
    """
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))  # ASCII: U+2028 is escaped too
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A dot and its interval on the axis of a forest plot, in percent of its width.

    `cut_left` and `cut_right`: the interval goes on beyond the axis.
    """

    dot: float | None
    left: float
    right: float
    cut_left: bool
    cut_right: bool
    label: str


@dataclass(frozen=True, kw_only=True)
class Forest:
    """One logarithmic axis shared by all tables, and the marks of their cells in order.

    Attributes
    ----------
    ticks : (position in percent, text)
    one : position of a ratio of 1
    marks : for every table one mark a cell, None where there is nothing to draw
    """

    ticks: tuple[tuple[float, str], ...]
    one: float
    marks: tuple[tuple[Mark | None, ...], ...]


_WIDEST = 5  # 2^5: beyond 32 times as many the end of an interval says nothing more
_MARGIN = 6.0  # percent on each side, so that the outer ticks keep their text


def forest(tables: Sequence[Sequence[Cell]]) -> Forest:
    """The forest plot of all group values that may be shown, table by table."""
    values = [
        math.log2(bound)
        for cells in tables
        for cell in cells
        for bound in cell.bounds
        if bound is not None and 0 < bound < math.inf
    ]
    low = max(min([math.floor(v) for v in values], default=-1), -_WIDEST)
    high = min(max([math.ceil(v) for v in values], default=1), _WIDEST)
    low, high = min(low, -1), max(high, 1)

    def place(value: float) -> float:
        return _MARGIN + (100 - 2 * _MARGIN) * (value - low) / (high - low)

    def clipped(ratio: float) -> float:
        log = math.log2(ratio) if 0 < ratio < math.inf else math.copysign(math.inf, ratio - 1)
        return place(min(max(log, low), high))

    def mark(bounds: tuple[float | None, float | None, float | None], label: str) -> Mark | None:
        left, dot, right = bounds
        if left is None or right is None:
            return None
        return Mark(
            dot=None if dot is None or not 2.0**low <= dot <= 2.0**high else clipped(dot),
            left=clipped(left),
            right=clipped(right),
            cut_left=left < 2.0**low,
            cut_right=right > 2.0**high,
            label=label,
        )

    return Forest(
        # At most seven marks: on a wide axis every second power of two.
        ticks=tuple(
            (place(k), f"1/{2**-k}" if k < 0 else f"{2**k}")
            for k in range(low, high + 1)
            if high - low <= 6 or k % 2 == 0
        ),
        one=place(0),
        marks=tuple(
            tuple(
                mark(cell.bounds, f"{cell.value}: ratio {cell.ratio}, interval {cell.interval}")
                for cell in cells
            )
            for cells in tables
        ),
    )
