"""The frontier of utility against risk, as places on a drawing; nothing is computed but those.

Places are percentages of the drawing, so that it can be of any width without its text growing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from confide.reports import numbers
from confide.reports.compare_view import Figure, area, share
from confide.reports.view import part

_COLOURS = 6
_LONGEST = 18
_APART = 6.0  # percent of the height: a line of text
_ABOVE = 3.0


@dataclass(frozen=True, kw_only=True)
class Point:
    """An audit: its cross, and where its name is written."""

    name: str
    colour: int
    x: float
    y: float
    left: float
    right: float
    top: float
    bottom: float
    filled: bool
    label_y: float
    label_end: bool
    led: bool
    said: str


@dataclass(frozen=True, kw_only=True)
class Frontier:
    """Utility against one measure of risk.

    Attributes
    ----------
    key : names the drawing
    risk : what the horizontal axis is
    toggle : the same in a few words
    reference : (place, words) of the line of no risk
    x_ticks, y_ticks : (place, text)
    lines : (x1, y1, x2, y2) between neighbours on the frontier
    """

    key: str
    risk: str
    toggle: str
    reference: tuple[float, str]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    points: tuple[Point, ...]
    lines: tuple[tuple[float, float, float, float], ...]


def frontiers(summary: Mapping[str, Any], attack: str) -> list[Frontier]:
    """Two drawings: by the AUC of the attack, or the mean AUC of patients where audits differ in
    their numbers of models, and by the corrected share at or above 0.6.

    Audits without a figure of utility are left out; without any, there is no drawing.
    """
    arms = [
        (i, arm, area(arm, "auroc"))
        for i, arm in enumerate(summary["arms"])
        if numbers.number(arm.get("auroc")) is not None
    ]
    if not arms:
        return []
    by_area = [area(arm, str(summary["frontier_by"])) for _, arm, _ in arms]
    words = risk_words(summary, attack)
    by_tail = [share(part(arm, "tail", "0.6"), "corrected") for _, arm, _ in arms]
    return [
        _frontier(
            "attack",
            f"{words} (0.5: guessing)",
            words,
            (0.5, "guessing"),
            arms,
            by_area,
            numbers.ratio,
        ),
        _frontier(
            "tail",
            "corrected share of patients with an AUC of 0.6 or more",
            "share of patients at 0.6 or more",
            (0.0, "nobody"),
            arms,
            by_tail,
            lambda x: f"{100 * x:.0f}%",
        ),
    ]


def risk_words(summary: Mapping[str, Any], attack: str) -> str:
    """What the frontier is drawn over."""
    return f"AUC of {attack}" if summary["frontier_by"] == "auc" else "mean AUC of patients"


def _frontier(
    key: str,
    risk: str,
    toggle: str,
    reference: tuple[float, str],
    arms: Sequence[tuple[int, Mapping[str, Any], Figure]],
    risks: Sequence[Figure],
    written: Callable[[float], str],
) -> Frontier:
    across, x_ticks = _axis([*_ends(risks), reference[0]], written, before=0.06, after=0.08)
    utilities = [utility for _, _, utility in arms]
    upward, y_ticks = _axis(_ends(utilities), _decimals, before=0.12, after=0.26)

    def up(value: float) -> float:
        return 100.0 - upward(value)

    by_risk = key == "attack"
    centres = [_triple(utility)[0] for utility in utilities]
    heights = spread([up(value) - _ABOVE for value in centres], _APART)
    points = []
    for (i, arm, utility), one, label_y in zip(arms, risks, heights, strict=True):
        x, left, right = (across(v) for v in _triple(one))
        y, bottom, top = (up(v) for v in _triple(utility))
        name = numbers.name(arm["name"])
        points.append(
            Point(
                name=name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…",
                colour=i % _COLOURS,
                x=x,
                y=y,
                left=left,
                right=right,
                top=top,
                bottom=bottom,
                filled=bool(arm.get("on_frontier")) or not by_risk,
                label_y=label_y,
                label_end=x > 60,
                led=abs(label_y - (y - _ABOVE)) > _APART / 2,
                said=f"{name}: {toggle} {one.text} ({one.interval}), AUROC {utility.text} "
                f"({utility.interval})",
            )
        )
    return Frontier(
        key=key,
        risk=risk,
        toggle=toggle,
        reference=(across(reference[0]), reference[1]),
        x_ticks=x_ticks,
        y_ticks=y_ticks,
        points=tuple(points),
        lines=_lines(points) if by_risk else (),
    )


def _triple(figure: Figure) -> tuple[float, float, float]:
    value = figure.value or 0.0
    return (
        value,
        value if figure.low is None else figure.low,
        value if figure.high is None else figure.high,
    )


def _ends(figures: Sequence[Figure]) -> list[float]:
    return [x for figure in figures for x in _triple(figure)]


def _lines(points: Sequence[Point]) -> tuple[tuple[float, float, float, float], ...]:
    best = sorted((p for p in points if p.filled), key=lambda p: p.x)
    return tuple((a.x, a.y, b.x, b.y) for a, b in pairwise(best))


def _decimals(value: float) -> str:
    return f"{value:.3f}".rstrip("0").ljust(4, "0")


def _axis(
    values: Sequence[float], written: Callable[[float], str], *, before: float, after: float
) -> tuple[Callable[[float], float], tuple[tuple[float, str], ...]]:
    """Value -> percent along an axis that holds all values with room around, and its ticks."""
    least, most = min(values), max(values)
    span = max(most - least, 0.02)
    low, high = least - before * span, most + after * span

    def place(value: float) -> float:
        return 100.0 * (value - low) / (high - low)

    return place, tuple((place(v), written(v)) for v in ticks(low, min(high, 1.0)))


def ticks(low: float, high: float) -> list[float]:
    """Three to seven round numbers within two bounds.

    >>> ticks(0.49, 0.83)
    [0.5, 0.6, 0.7, 0.8]
    """
    span = high - low
    power = 10.0 ** math.floor(math.log10(span))
    step = next(s * power for s in (0.1, 0.2, 0.25, 0.5, 1.0, 2.0) if span / (s * power) <= 6)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(k * step, 10) + 0.0 for k in range(first, last + 1)]


def spread(wanted: Sequence[float], apart: float) -> list[float]:
    """Places as near to those wanted as they can be, `apart` from each other, within 1 and 99.

    >>> spread([50.0, 51.0, 10.0], 6.0)
    [47.5, 53.5, 10.0]
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    blocks: list[tuple[list[int], float]] = []  # indices, place of the first
    for i in order:
        members, start = [i], wanted[i]
        while blocks and start < blocks[-1][1] + apart * len(blocks[-1][0]):
            members = blocks.pop()[0] + members
            start = sum(wanted[m] - apart * k for k, m in enumerate(members)) / len(members)
        blocks.append((members, start))
    found = [0.0] * len(wanted)
    for members, start in blocks:
        inside = min(max(start, 1.0), 99.0 - apart * (len(members) - 1))
        for k, m in enumerate(members):
            found[m] = inside + apart * k
    return found
