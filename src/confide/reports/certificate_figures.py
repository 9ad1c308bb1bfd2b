"""The figures of a certificate as plain data: an axis of scores, curves and pictures.

Places are in percent of a figure's width or height.  No colour is chosen here.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from confide.reports import numbers
from confide.reports.certificate_scores import Unit, written

Scored = Mapping[str, Any]
"""One score: "value", "low", "high", "chance", "chance_low", "chance_high"; any may be missing."""

TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)
_LEFT, _WIDE = 5.0, 90.0  # the outer ticks keep their text


def place(value: Any) -> float | None:
    """Place on an axis from 0 to 1, None without a value."""
    x = numbers.number(value)
    return None if x is None else _LEFT + _WIDE * min(max(x, 0.0), 1.0)


@dataclass(frozen=True, kw_only=True)
class Track:
    """One attack on the axis.

    Attributes
    ----------
    dot, left, right : the score on the release and its interval
    weak, noise : scores on the positive and the negative control
    chance, chance_left, chance_right : of the score on the release
    label : the same in words
    """

    dot: float
    left: float
    right: float
    weak: float | None
    noise: float | None
    chance: float | None
    chance_left: float | None
    chance_right: float | None
    label: str


def track(release: Scored, linear: Scored, noise: Scored, unit: Unit, label: str) -> Track | None:
    """The marks of one attack; None without a score or where its scores have no common axis."""
    dot = place(release.get("value"))
    if dot is None or unit not in ("share", "area"):
        return None
    left, right = place(release.get("low")), place(release.get("high"))
    low, high = place(release.get("chance_low")), place(release.get("chance_high"))
    return Track(
        dot=dot,
        left=dot if left is None or right is None else left,
        right=dot if left is None or right is None else right,
        weak=place(linear.get("value")),
        noise=place(noise.get("value")),
        chance=place(release.get("chance")),
        chance_left=low if high is not None else None,
        chance_right=high if low is not None else None,
        label=label,
    )


@dataclass(frozen=True, kw_only=True)
class Point:
    """One point of a curve."""

    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Curve:
    """How a score depends on effort or knowledge.

    Attributes
    ----------
    axis : what is varied
    logarithmic : whether the axis of that is
    points, chance : of the score, and of chance (place, height)
    x_ticks, y_ticks : (place, text)
    rows : (x, score, interval, chance, seconds) as text, of points without a score too
    label : in words
    """

    axis: str
    logarithmic: bool
    points: tuple[Point, ...]
    chance: tuple[tuple[float, float], ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    rows: tuple[tuple[str, ...], ...]
    label: str


_X = (13.0, 95.0)
_Y = (84.0, 6.0)  # heights are counted from the top
_NARROWEST = 9.0


def curve(axis: str, found: Sequence[Mapping[str, Any]], score: str, unit: Unit) -> Curve:
    """One curve of the score by which an attack is judged.

    Parameters
    ----------
    axis : what is varied
    found : of every point "x", "scores" {score: ...} and "seconds", in any order
    score, unit : which score, and how it is written
    """
    ordered = sorted(found, key=lambda one: float(one["x"]))
    pairs = [(float(one["x"]), _scored(one, score)) for one in ordered]
    drawn = [(x, s) for x, s in pairs if numbers.number(s.get("value")) is not None]
    logarithmic = len(drawn) > 1 and drawn[0][0] > 0 and drawn[-1][0] / drawn[0][0] >= 20
    y_ticks = _ticks([s for _, s in drawn], unit)

    def across(x: float) -> float:
        if len(drawn) < 2 or drawn[0][0] == drawn[-1][0]:
            return sum(_X) / 2
        first, last, here = (
            math.log(v) if logarithmic else v for v in (drawn[0][0], drawn[-1][0], x)
        )
        return _X[0] + (_X[1] - _X[0]) * (here - first) / (last - first)

    def up(value: Any) -> float:
        share = (float(value) - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return _Y[0] + (_Y[1] - _Y[0]) * min(max(share, 0.0), 1.0)

    def point(x: float, s: Scored) -> Point:
        low, high = (s["value"] if s.get(k) is None else s[k] for k in ("low", "high"))
        return Point(x=across(x), y=up(s["value"]), low=up(low), high=up(high))

    return Curve(
        axis=numbers.name(axis),
        logarithmic=logarithmic,
        points=tuple(point(x, s) for x, s in drawn),
        chance=tuple((across(x), up(s["chance"])) for x, s in drawn if s.get("chance") is not None),
        x_ticks=_apart((across(x), f"{x:,.10g}") for x, _ in drawn),
        y_ticks=tuple((up(value), _short(value, unit)) for value in y_ticks),
        rows=tuple(_row(one, _scored(one, score), unit) for one in ordered),
        label="; ".join(
            f"{x:,.10g}: {written(s['value'], unit)}, by chance {written(s.get('chance'), unit)}"
            for x, s in drawn
        ),
    )


def _scored(one: Mapping[str, Any], score: str) -> Scored:
    found = (one.get("scores") or {}).get(score)
    return found if isinstance(found, Mapping) else {}


def _row(one: Mapping[str, Any], scored: Scored, unit: Unit) -> tuple[str, ...]:
    return (
        numbers.Written(f"{float(one['x']):,.10g}", one["x"]),
        written(scored.get("value"), unit),
        interval(scored, unit),
        written(scored.get("chance"), unit),
        seconds(one.get("seconds")),
    )


def interval(scored: Scored, unit: Unit, low: str = "low", high: str = "high") -> str:
    """The interval of a score, or another pair of its bounds, as one text."""
    # The digits of the upper bound: the lower one is often 0, which has none.
    ends = (written(scored.get(key), unit, like=scored.get(high)) for key in (low, high))
    return numbers.interval(*ends)


def seconds(value: Any) -> numbers.Written:
    """A time.

    >>> seconds(4.2), seconds(75), seconds(4000), seconds(None)
    ('4.2 s', '75 s', '67 min', 'n/a')
    """
    x = numbers.number(value)
    if x is None:
        return numbers.Written(numbers.MISSING)
    if x < 10:
        return numbers.Written(f"{x:.1f} s", x)
    return numbers.Written(f"{x:,.0f} s" if x < 600 else f"{x / 60:,.0f} min", x)


def _ticks(scores: Iterable[Scored], unit: Unit) -> list[float]:
    """Values to be written beside the upright axis; the first and the last are its ends."""
    if unit in ("share", "area"):
        return list(TICKS)
    keys = ("value", "low", "high", "chance")
    known = [float(s[k]) for s in scores for k in keys if s.get(k) is not None]
    low, high = min([0.0, *known]), max([0.0, *known])
    if low == high:
        return [0.0, 1.0]
    rough = (high - low) / 4
    ten = 10.0 ** math.floor(math.log10(rough))
    step = next(k * ten for k in (1, 2, 5, 10) if k * ten >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [k * step for k in range(first, last + 1)]


def _short(value: float, unit: Unit) -> str:
    return f"{100 * value:g}%" if unit == "share" else f"{value:,.6g}"


def _apart(ticks: Iterable[tuple[float, str]]) -> tuple[tuple[float, str], ...]:
    """Ticks whose texts do not touch."""
    kept: list[tuple[float, str]] = []
    for at, text in ticks:
        if not kept or at - kept[-1][0] >= _NARROWEST:
            kept.append((at, text))
    return tuple(kept)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A hidden record, or its map, and what was recovered of it, as addresses of images."""

    truth: str
    recovered: str


def pairs(pictures: Sequence[Mapping[str, Any]]) -> tuple[Pair, ...]:
    """Pictures beside each other.

    Parameters
    ----------
    pictures : of each record "truth" and "recovered", rows of numbers from 0 (black) to 1
    """
    return tuple(
        Pair(truth=_png(one["truth"]), recovered=_png(one["recovered"])) for one in pictures
    )


def _png(rows: Sequence[Sequence[float]]) -> str:
    values = np.clip(np.nan_to_num(np.array(rows, dtype=np.float64)), 0.0, 1.0)
    stream = io.BytesIO()
    Image.fromarray(np.round(255 * values).astype(np.uint8)).save(stream, "PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
