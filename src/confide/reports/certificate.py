"""The certificate of an attack run: one HTML file that opens offline, and its words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from confide.reports import certificate_figures as figures
from confide.reports import certificate_view as view
from confide.reports import certificate_words as words
from confide.reports import html, numbers
from confide.reports.view import part

_AXES = {
    "share": (
        "Shares of the codes",
        tuple((figures.place(t), f"{100 * t:g}%") for t in figures.TICKS),
    ),
    "area": (
        "Areas under the ROC curve (AUC)",
        tuple((figures.place(t), f"{t:g}") for t in figures.TICKS),
    ),
}


def render_certificate(
    certificate: Mapping[str, Any], pictures: Mapping[str, Sequence[Mapping[str, Any]]]
) -> str:
    """Draw a certificate as one HTML page.

    Parameters
    ----------
    certificate : the content of certificate.json; nothing is computed from it, it is only written
        out
    pictures : of each attack that is to be shown with some, of each record "truth" and "recovered",
        rows of numbers from 0 (dark) to 1; they show hidden records, and the page says so

    Returns
    -------
    the page, which says everything without its script (sorting and downloads of tables) and asks
    nothing of any network; numbers of fewer than 10 patients are withheld
    """
    shown = view.attacks(certificate)
    statement = numbers.name(certificate.get("statement") or words.FAILED)
    drawn = {numbers.name(name): figures.pairs(found) for name, found in pictures.items() if found}
    return html.page(
        "certificate.html.j2",
        title=view.title(certificate),
        method=view.run(certificate),
        scripts=[html.template_file("tables.js")],
        version=numbers.name(certificate.get("confide")),
        verdict=words.verdict(certificate),
        gate=words.gate(certificate),
        statement=statement,
        failed="" if words.FAILED.rstrip(".") in statement else words.FAILED,
        outcomes=view.outcomes(shown),
        outcome_words=view.meanings(shown),
        notes=[numbers.name(note) for note in certificate.get("notes") or []],
        attacker=words.attacker(certificate),
        subject=view.subject(certificate),
        attacks=shown,
        counted=view.counted(shown),
        axes=[
            (heading, ticks, tracked)
            for unit, (heading, ticks) in _AXES.items()
            if (tracked := [one for one in shown if one.track and one.unit == unit])
        ],
        scores=view.scores(shown),
        pictures=drawn,
        captions={one.name: _caption(one) for one in shown},
        checks=words.check(certificate),
        with_interval=numbers.with_interval,
        challenge=bool(part(certificate, "release").get("challenge")),
        sha256=numbers.name(certificate.get("sha256")),
        sources=view.sources(shown),
        references=words.REFERENCES,
    )


def _caption(attack: view.Attack) -> str:
    """What the pictures of an attack are, as its scores tell."""
    names = {line.name for line in attack.lines}
    if "map_correlation" in names:
        what = (
            "One square a patch: how much contrast the patch has. Left, the map that the hidden "
            "record itself gives; right, the map recovered from its code"
        )
    elif "correlation" in names:
        what = "Left, the hidden record; right, what was rebuilt from its code"
    else:
        what = "Left, the truth; right, what was recovered"
    return (
        f"{what}. These are the first records of the run, not chosen. Each "
        "picture is scaled to its own darkest and brightest value, so that only the pattern can "
        "be compared."
    )
