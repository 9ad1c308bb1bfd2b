"""The figure of utility beside privacy by group, as positions in a drawing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from confide.reports import numbers
from confide.reports.groups_view import Utility

WIDTH, HEIGHT = 350, 250
LEFT, RIGHT, TOP, BOTTOM = 48, 226, 26, 208
"""The axes in a panel, in its pixels; names stand to the right of them."""
MOST_POINTS = 12
"""Values of a group in a panel."""
_LINE = 15.0  # pixels from name to name
_LETTERS = 17  # of a name

Triple = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Point:
    """One value of a group: (middle, low, high) across and up in pixels, its name and figures."""

    x: Triple
    y: Triple
    name: str
    name_y: float
    label: str


@dataclass(frozen=True, kw_only=True)
class Panel:
    """The values of one group; `n_left_out` have no room."""

    group: str
    points: tuple[Point, ...]
    n_left_out: int

    @property
    def label(self) -> str:
        """The figures of all points, for those who do not see them."""
        return f"AUROC and difference in mean AUC by {self.group}. " + " ".join(
            point.label for point in self.points
        )


@dataclass(frozen=True, kw_only=True)
class Beside:
    """Panels on the same axes.

    Attributes
    ----------
    panels : one a group
    x_ticks, y_ticks : (position, text)
    zero : height of a difference of 0
    overall : position of the AUROC of all held-out patients, None if it is not known
    """

    panels: tuple[Panel, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    zero: float
    overall: float | None


@dataclass(frozen=True, kw_only=True)
class _Axis:
    low: float
    high: float
    start: float
    end: float

    def place(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    def places(self, values: Triple) -> Triple:
        middle, low, high = (self.place(value) for value in values)
        return middle, low, high

    def ticks(self, sign: str) -> tuple[tuple[float, str], ...]:
        step = _step((self.high - self.low) / 3)
        decimals = max(0, math.ceil(-math.log10(step) - 1e-9))
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return tuple(
            (self.place(k * step), f"{k * step:{sign if k else ''}.{decimals}f}")
            for k in range(first, last + 1)
        )


def beside(by_group: Mapping[str, Sequence[Utility]], overall: Utility | None) -> Beside | None:
    """Place every value that may be shown; None if no group has two such values.

    Across: AUROC of the task on held-out patients.  Up: mean AUC of the audited patients minus
    that of all others, so that higher is more exposed.
    """
    shown = {
        group: [(one, *figures) for one in values for figures in [_figures(one)] if figures]
        for group, values in by_group.items()
    }
    shown = {group: values for group, values in shown.items() if len(values) > 1}
    if not shown:
        return None
    every = [figures for values in shown.values() for figures in values]
    middle = _value(overall.auroc) if overall else None
    x = _axis([*(v for _, xs, _ in every for v in xs), *([] if middle is None else [middle])])
    y = _axis([*(v for _, _, ys in every for v in ys), 0.0], BOTTOM, TOP)
    return Beside(
        panels=tuple(_panel(group, values, x, y) for group, values in shown.items()),
        x_ticks=x.ticks(""),
        y_ticks=y.ticks("+"),
        zero=y.place(0.0),
        overall=None if middle is None else x.place(middle),
    )


def _figures(one: Utility) -> tuple[Triple, Triple] | None:
    """(AUROC, low, high) and (difference, low, high); None where something was not measured."""
    cell = one.beside
    if one.withheld or cell is None or cell.withheld:
        return None
    x = _triple(one.auroc, one.auroc_interval)
    y = _triple(cell.difference, cell.difference_interval)
    return None if x is None or y is None else (x, y)


def _triple(middle: str, bounds: str) -> Triple | None:
    value = _value(middle)
    low, high = (_number(getattr(bounds, end, "")) for end in ("low", "high"))
    if value is None:
        return None
    return value, value if low is None else low, value if high is None else high


def _value(written: str) -> float | None:
    return _number(getattr(written, "value", ""))


def _number(text: str) -> float | None:
    return float(text) if text else None


def _axis(values: Sequence[float], start: float = LEFT, end: float = RIGHT) -> _Axis:
    low, high = min(values), max(values)
    room = 0.06 * (high - low) or 0.05
    return _Axis(low=low - room, high=high + room, start=start, end=end)


def _step(least: float) -> float:
    """The next of ..., 0.01, 0.02, 0.05, 0.1, ... from `least` upwards."""
    decade = 10.0 ** math.floor(math.log10(least))
    return next(k * decade for k in (1, 2, 5, 10) if k * decade >= least * (1 - 1e-9))


def _panel(
    group: str, values: Sequence[tuple[Utility, Triple, Triple]], x: _Axis, y: _Axis
) -> Panel:
    def held_out(one: tuple[Utility, Triple, Triple]) -> float:
        return _value(one[0].n_patients) or 0.0

    kept = sorted(values, key=held_out, reverse=True)[:MOST_POINTS]
    kept.sort(key=lambda one: one[2][0], reverse=True)  # from the top downwards
    heights = _apart([y.place(ys[0]) for _, _, ys in kept])
    return Panel(
        group=group,
        points=tuple(
            Point(
                x=x.places(xs),
                y=y.places(ys),
                name=_short(one.value),
                name_y=height,
                label=_told(one),
            )
            for (one, xs, ys), height in zip(kept, heights, strict=True)
        ),
        n_left_out=len(values) - len(kept),
    )


def _told(one: Utility) -> str:
    text = f"{one.value}: AUROC {numbers.with_interval(one.auroc, one.auroc_interval)}"
    if one.beside is None:
        return f"{text}."
    privacy = numbers.with_interval(one.beside.difference, one.beside.difference_interval)
    return f"{text}, difference {privacy}."


def _short(name: str) -> str:
    return name if len(name) <= _LETTERS else f"{name[: _LETTERS - 1]}…"


def _apart(heights: Sequence[float]) -> list[float]:
    """Heights of names, downwards, a line apart and within the axes."""
    found: list[float] = []
    for height in heights:
        found.append(max(height, found[-1] + _LINE if found else TOP))
    lowest = float(BOTTOM)
    for i in reversed(range(len(found))):
        found[i] = round(min(found[i], lowest), 1)
        lowest = found[i] - _LINE
    return found
