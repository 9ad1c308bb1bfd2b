"""A certificate for a terminal of 80 columns and without colour."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from confide.reports import certificate_view as view
from confide.reports import certificate_words as words
from confide.reports import numbers
from confide.reports.certificate_view import Attack, Figure
from confide.reports.view import part

_LEGEND = (
    "Below a score: its 95% interval, with patients as the units. Below chance: the range that "
    "chance alone leaves less than once in a thousand runs. Controls: a linear encoder, which has "
    "to be broken, and codes of noise, which have to stay at chance."
)


def renderables(certificate: Mapping[str, Any]) -> list[RenderableType]:
    """What to print, in order, with ``rich.console.Console.print``.

    The verdict, the gate, the notes, one row an attack, why outcomes are open, what failed attacks
    mean, and how to check.

    Parameters
    ----------
    certificate : the content of certificate.json
    """
    shown = view.attacks(certificate)
    parts = [
        _verdict(certificate),
        _notes(certificate),
        _table(shown),
        _open(shown),
        Text(_legend(shown)) if shown else None,
        Text(numbers.name(certificate.get("statement") or words.FAILED)),
        _checked(certificate),
    ]
    kept = [one for one in parts if one is not None]
    return [kept[0], *(Padding(one, (1, 0, 0, 0)) for one in kept[1:])]


def _verdict(certificate: Mapping[str, Any]) -> RenderableType:
    verdict = words.verdict(certificate)
    label = f"RE-IDENTIFICATION {verdict.label.upper()}: "
    text = Text.assemble((label, "bold"), verdict.text or verdict.headline)
    state, sentence = words.gate(certificate)
    text.append(f"\n{sentence}", style="bold" if state == "missed" else "")
    if verdict.status != "at_risk":
        against = verdict.means_not[0]
        text.append(f"\nNot to be read as: {against[:1].lower()}{against[1:]}")
    return text


def _notes(certificate: Mapping[str, Any]) -> RenderableType | None:
    notes = [f"Note: {numbers.name(note)}" for note in certificate.get("notes") or []]
    return Text("\n".join(notes)) if notes else None


def _table(shown: list[Attack]) -> RenderableType:
    if not shown:
        return Text("No attack was asked for.")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    # Names fold onto the next line; a figure is never cut or broken.
    table.add_column("attack", overflow="fold", vertical="top")
    table.add_column("outcome", overflow="fold", min_width=11, max_width=11)
    for column in ("score", "by chance", "controls"):
        table.add_column(column, justify="right", no_wrap=True)
    for one in shown:
        table.add_row(
            Text(f"{one.name}\n{one.title}"),
            Text(one.state),
            _stacked(one.release.value, one.release.interval),
            _stacked(one.release.chance, one.release.range),
            _controls(one.weak, one.noise),
        )
    return table


def _stacked(value: str, below: str) -> Text:
    return Text(value if below == numbers.MISSING else f"{value}\n{below}")


def _controls(weak: Figure, noise: Figure) -> Text:
    return Text(f"linear {weak.value}\nnoise {noise.value}")


def _open(shown: list[Attack]) -> RenderableType | None:
    lines = [Text(f"{one.name}: {one.why}") for one in shown if one.explained and one.why]
    return Group(*lines) if lines else None


def _legend(shown: list[Attack]) -> str:
    states = dict.fromkeys(one.state for one in shown if one.control)
    of_controls = [s for s in states if s in words.OF_CONTROLS.values()]
    lines = (f"{state.capitalize()}: {words.OUTCOMES[state]}" for state in of_controls)
    return "\n".join([_LEGEND, *lines])


def _checked(certificate: Mapping[str, Any]) -> RenderableType:
    release = part(certificate, "release")
    lines = [f"SHA-256 of the certificate: {numbers.name(certificate.get('sha256'))}"]
    if release.get("manifest_digest"):
        digest = numbers.name(release["manifest_digest"])
        lines.insert(0, f"To check, `confide encode verify RELEASE` must print digest {digest}")
    return Text("\n".join(lines), overflow="fold")
