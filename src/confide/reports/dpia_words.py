"""What every summary for an impact assessment says, whatever was measured.

Paragraphs are those of Opinion 28/2024 of the European Data Protection Board, adopted on 17
December 2024; articles are those of the GDPR, Regulation (EU) 2016/679.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from confide.reports import markdown as md
from confide.reports import numbers, view

TITLE = "Measurements for a data-protection impact assessment"

BLANK = md.Markdown("**\\[to be completed by the controller\\]**")

LAW = (
    "Opinion 28/2024 of the European Data Protection Board says that whether an AI model counts as "
    "anonymous is assessed case by case (paragraph 34), and that both the likelihood of extracting "
    "personal data of those it was trained on and the likelihood of obtaining them by queries "
    "should then be insignificant for any person, taking into account all the means reasonably "
    "likely to be used (paragraph 43). Tests of resistance to attacks, membership inference among "
    "them, are evidence for the attacks that were tested and for no others (paragraph 55). Such "
    "tests are part of the documentation that a supervisory authority may ask for (paragraph 58)."
)

LAW_OF_RELEASES = (
    "Recital 26 of the GDPR says that, to tell whether a person is identifiable, all the means "
    "reasonably likely to be used are taken into account, singling out among them, by the "
    "controller or by another person. Opinion 28/2024 of the European Data Protection Board is "
    "about AI models, such as those that are trained on a release, and not about a release itself; "
    "what it says of tests is said here by analogy: they are evidence for the attacks that were "
    "tested and for no others (paragraph 55)."
)

NO_CONCLUSION = (
    "This document states what was measured, how surely, and what was not measured. It draws no "
    "legal conclusion: no figure in it shows that a model or data set is anonymous, that a risk is "
    "acceptable, or that it is not."
)

PROCESSING = (
    "Controller, joint controllers and processors",
    "Purposes of the processing, and where it takes place",
    "Nature, scope and context; the people concerned and how their data were obtained",
    "Who can query or receive the model or the release, and what they see of its answers",
    "Retention, and what happens to the data, the models and this audit afterwards",
)
"""Facts of Art. 35(7)(a) that no measurement knows."""

NECESSITY = (
    "Why the purpose needs these personal data, and why less would not do",
    "Legal basis (Art. 6), and the condition for data concerning health (Art. 9)",
    "How people are informed, and how they exercise their rights",
)
"""Facts of Art. 35(7)(b) that no measurement knows."""

MEASURES = (
    "Limits on access, on the number of queries, and on what an answer shows",
    "Contracts, training of staff, monitoring and response to incidents",
    "Other technical measures, and the date of the next assessment",
)
"""Measures of Art. 35(7)(d) that no measurement knows."""

JUDGES: tuple[tuple[str, str], ...] = (
    (
        "Whether the means tested are those reasonably likely to be used against this processing, "
        "now and as technology develops",
        "the controller, with the advice of the data-protection officer (Art. 35(2))",
    ),
    (
        "Whether the likelihood of identification is insignificant for every person concerned",
        "the controller; a supervisory authority, case by case",
    ),
    (
        "How severe it is for a person if it becomes known that he or she is in these data",
        "the controller, with the views of those concerned where appropriate (Art. 35(9))",
    ),
    (
        "Whether differences between groups are acceptable",
        "the controller, with people who know the groups and the medicine",
    ),
    (
        "Whether checks that failed, were accepted or are unknown take the ground from a figure",
        "whoever made the measurements, in writing",
    ),
    (
        "Whether the measures suffice, and whether the supervisory authority is to be consulted "
        "first (Art. 36)",
        "the controller, with the advice of the data-protection officer",
    ),
)
"""(question, who decides it)."""


def opening(title: str, version: Any, what: str, law: str = LAW) -> list[str]:
    """Title, what this is, what it is not, and what the law asks."""
    by = f"Written by confide {md.text(version)}." if version else "Written by confide."
    return [
        md.heading(1, TITLE),
        f"**{md.text(title)}**",
        f"{by} {what} {NO_CONCLUSION}",
        law,
        f"Blanks are marked {BLANK}. A source is a file beside this one, and the key in it.",
    ]


def blanks(head: str, questions: Sequence[str]) -> str:
    """A table of facts that the controller has to give."""
    return md.table([head, "Statement"], [(question, BLANK) for question in questions])


def who_judges() -> list[str]:
    """Who decides what this document leaves open."""
    return [
        md.heading(2, "Who judges what"),
        md.table(["Question", "For whom to decide", "Decision"], [(*row, BLANK) for row in JUDGES]),
    ]


def checks(summary: Mapping[str, Any]) -> list[str]:
    """The guards and the warnings of an audit."""
    guards = [(one["name"], one["status"], one["message"]) for one in view.guards(summary)]
    warnings = view.warnings(summary)
    return [
        md.heading(2, "Checks of the measurements"),
        "A check that failed, was accepted by name or is unknown can take the ground from the "
        "figures. Source: " + md.code("summary.json: guards, warnings") + ".",
        md.table(["Check", "Status", "Finding"], guards) if guards else "No check was recorded.",
        "Warnings:" if warnings else "No warning was given.",
        md.bullets(warnings),
    ]


def method_table(method: Mapping[str, Any]) -> str:
    """Settings and versions, without what could help to tell who was a member.

    Notes on the data may quote single records; from a seed and the data masks can be drawn again;
    a fingerprint may cover a list of members.
    """
    rows = [
        (name, value)
        for name, value in view.method_rows(method)
        if not any(word in name.lower() for word in ("note", "seed", "fingerprint"))
    ]
    return md.table(["Setting", "Value"], rows)


def alerts(summary: Mapping[str, Any]) -> str:
    """Guards that failed or were accepted, to stand before every figure."""
    return md.bullets(f"{head} {message}" for head, message in view.alerts(summary))


def points(title: str, lines: Sequence[str]) -> list[str]:
    """A short heading and a list under it."""
    return [md.heading(3, title), md.bullets(lines)] if lines else []


def facts(rows: Sequence[tuple[Any, str, str, str]], file: str = "summary.json") -> str:
    """Facts as (what, figure, interval, key in the file); unmeasured ones are said to be."""
    return md.table(
        ["Fact", "Figure", "95% interval", f"Key in {file}"],
        [
            (what, _measured(figure), "" if interval == numbers.MISSING else interval, md.code(key))
            for what, figure, interval, key in rows
        ],
    )


def _measured(figure: str) -> str:
    return "not measured" if figure == numbers.MISSING else figure
