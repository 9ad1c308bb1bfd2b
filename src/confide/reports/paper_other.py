"""Figures for papers of a comparison of audits and of the certificate of a release."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from confide.reports import certificate_view, numbers
from confide.reports.certificate_scores import of as score_words
from confide.reports.compare_frontier import risk_words
from confide.reports.paper_style import COLOURS, GREY, Format, Style, blank, encode, styled
from confide.reports.view import part

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LETTERS = 36  # of a name
_ROW = 4.2  # mm
_GUESSING = 0.5
_AXES = {"share": "Share of the codes", "area": "Area under the ROC curve (AUC)"}

Point = tuple[str, tuple[float, float, float], tuple[float, float, float], bool]
"""Name, (low, middle, high) of what is given away, and of the AUROC, whether none beats it."""


def draw_comparison(summary: Mapping[str, Any], *, style: Style, kind: Format) -> dict[str, bytes]:
    """Draw the frontier of utility against exposure of a comparison.

    Parameters
    ----------
    summary : the content of compare.json
    style, kind : how it looks, and the form of the file

    Returns
    -------
    {"frontier": file}; empty where no audit measured utility
    """
    points = list(_points(summary))
    if not points:
        return {}
    words = risk_words(summary, numbers.attack(summary.get("attack")))
    with styled(style):
        return {"frontier": encode(_frontier(points, words, style), kind)}


def _points(summary: Mapping[str, Any]) -> Iterator[Point]:
    for arm in summary.get("arms") or []:
        risk = summary["frontier_by"]
        x = [numbers.number(arm.get(f"{risk}{end}")) for end in ("_low", "", "_high")]
        y = [numbers.number(arm.get(key)) for key in ("auroc_low", "auroc", "auroc_high")]
        known = [value for value in (*x, *y) if value is not None]
        if len(known) == 6:
            name = numbers.name(arm.get("name"))
            name = name if len(name) <= _LETTERS else f"{name[: _LETTERS - 1]}…"
            yield (
                f"{name}{_guarded(arm)}",
                (known[0], known[1], known[2]),
                (known[3], known[4], known[5]),
                arm.get("on_frontier") is True,
            )


def _guarded(arm: Mapping[str, Any]) -> str:
    found = {guard.get("status") for guard in arm.get("guards") or []}
    if not found:
        return ""
    return " (a guard accepted)" if found == {"accepted"} else " (a guard failed)"


def _frontier(points: Sequence[Point], words: str, style: Style) -> Figure:
    """Right is more exposed, up is more useful; the line joins audits that none beats in both."""
    figure = blank(style.single, 0.95 * style.single)
    axes = figure.add_subplot()
    best = sorted((x[1], y[1]) for _, x, y, is_best in points if is_best)
    if len(best) > 1:
        axes.plot(*zip(*best, strict=True), "--", color=GREY, linewidth=style.line)
    drawn: list[Any] = []
    for i, (_, x, y, is_best) in enumerate(points):
        colour = COLOURS[i % len(COLOURS)]
        drawn.append(
            axes.errorbar(
                x[1],
                y[1],
                xerr=[[x[1] - x[0]], [x[2] - x[1]]],
                yerr=[[y[1] - y[0]], [y[2] - y[1]]],
                fmt="os^Dvp"[i // len(COLOURS) % 6],
                color=colour,
                markerfacecolor=colour if is_best else "white",
                markersize=4,
                linewidth=style.line,
            )
        )
    axes.axvline(_GUESSING, color=GREY, linewidth=style.line, linestyle=":")
    axes.annotate(
        "guessing",
        (_GUESSING, 0),
        (3, 3),
        xycoords=axes.get_xaxis_transform(),
        textcoords="offset points",
        color=GREY,
    )
    axes.set_xlabel(f"{words} (0.5 is guessing)")
    axes.set_ylabel("AUROC of the task, held-out patients")
    figure.legend(
        drawn,
        [name for name, *_ in points],
        loc="outside lower center",
        ncols=2,
        title=_said(len(best), len(points)),
        alignment="left",
    )
    return figure


def _said(n_best: int, n_points: int) -> str:
    """What the marks are, as the page of the comparison says it."""
    lines = [
        f"Filled{', dashed line' if n_best > 1 else ''}: no other recipe here is better in both,",
        "by the estimates alone."
        + (" Hollow: another is." if n_best < n_points else "")
        + " Crosses: 95% intervals.",
    ]
    return "\n".join(lines)


def draw_certificate(
    certificate: Mapping[str, Any], *, style: Style, kind: Format
) -> dict[str, bytes]:
    """Draw what attacks recovered from a release, beside chance and the controls.

    Parameters
    ----------
    certificate : the content of certificate.json
    style, kind : how it looks, and the form of the file

    Returns
    -------
    {"shares": file, "areas": file}, of attacks that are judged by a share of the codes and by an
    area; without scores there is none
    """
    with styled(style):
        return {
            f"{unit}s": encode(_recovered(rows, label, style), kind)
            for unit, label in _AXES.items()
            if (rows := _scored(certificate, unit))
        }


def _scored(certificate: Mapping[str, Any], unit: str) -> list[tuple[str, Mapping[str, Any]]]:
    """Attacks with a headline score of this unit: (name, {target: score})."""
    found: list[tuple[str, Mapping[str, Any]]] = []
    for name in part(certificate, "attacks"):
        attack = part(certificate, "attacks", name)
        headline = str(attack.get("headline"))
        scores = {target: part(attack, target, headline) for target in certificate_view.TARGETS}
        value = numbers.number(scores["release"].get("value"))
        if value is not None and score_words(headline).unit == unit:
            found.append((numbers.name(name)[:_LETTERS], scores))
    return found


def _recovered(rows: Sequence[tuple[str, Mapping[str, Any]]], label: str, style: Style) -> Figure:
    figure = blank(style.single, _ROW * style.letters / 7 * len(rows) + 26)
    axes = figure.add_subplot()
    marks: dict[str, Any] = {}
    for y, (_, scores) in enumerate(rows):
        chance = _ends(scores["release"], "chance_low", "chance_high")
        if chance:
            marks["range of chance"] = axes.plot(
                chance, (y, y), color=GREY, alpha=0.35, linewidth=6, solid_capstyle="butt"
            )[0]
        ends = _ends(scores["release"], "low", "high")
        if ends:
            axes.plot(ends, (y, y), color=COLOURS[0], linewidth=2 * style.line)
        for target, name, marker, size, colour in (
            ("noise", "noise", "x", 4, GREY),
            ("linear", "weak encoder", "|", 9, COLOURS[1]),
            ("release", "release (95% interval)", "o", 4, COLOURS[0]),
        ):
            value = numbers.number(scores[target].get("value"))
            if value is not None:
                marks[name] = axes.plot(value, y, marker, color=colour, markersize=size)[0]
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(label)
    figure.legend(list(marks.values()), list(marks), loc="outside lower center", ncols=2)
    return figure


def _ends(scored: Mapping[str, Any], low: str, high: str) -> tuple[float, float] | None:
    first, last = numbers.number(scored.get(low)), numbers.number(scored.get(high))
    return None if first is None or last is None else (first, last)
