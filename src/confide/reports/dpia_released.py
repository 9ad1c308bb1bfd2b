"""The audit of a released model as Markdown, for a data-protection impact assessment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from confide.audits.result import AuditResult
from confide.reports import dpia_words as words
from confide.reports import markdown as md
from confide.reports import numbers, released
from confide.reports.dpia import attack_tables
from confide.reports.view import part

_LABELS = {
    "detectable": "Leakage detected",
    "not_shown": "No leak shown",
    "not_established": "Not established",
}
_ATTACKER = (
    "holds a person's record, with its label, and asks whether that person was in the training "
    "data of this model;",
    "can put the record to the model and read its output in full;",
    "for attacks that use references, has models trained on known records like these.",
)
_NOT_TESTED = (
    "The risk of one person: with one model there is nothing to compare it with.",
    "Attackers who see more than answers: weights, gradients, several versions of the model.",
    "Attribute inference, extraction, regurgitation, model inversion, reconstruction of records.",
    "Other records than those given: their source, and who is a member, are as the user stated.",
    "Attacks with more or better references. No figure says that more cannot be found.",
)


def summary_of_released(result: AuditResult, *, title: str, method: Mapping[str, Any]) -> str:
    """Write the audit of one released model as Markdown.

    Parameters
    ----------
    result : from :func:`confide.audits.released.audit_released`, with guards and warnings
    title : name of the model
    method : facts on how the figures were made; notes on the data are left out

    Returns
    -------
    the document, which names no person; numbers of fewer than 10 patients are withheld
    """
    summary = result.summary
    return md.document(
        [
            *words.opening(
                title,
                summary.get("version"),
                "Measured: whether an attacker can tell members of the training data of one "
                "released model from other people.",
            ),
            *_result(summary),
            *_processing(summary),
            md.heading(2, "Necessity and proportionality (Art. 35(7)(b))"),
            words.blanks("Fact", words.NECESSITY),
            *_tested(summary),
            *_likelihood(summary),
            md.heading(2, "Groups of data subjects"),
            "An audit of one released model does not measure groups.",
            md.heading(2, "Measures (Art. 35(7)(d))"),
            words.blanks("Measure", words.MEASURES),
            *words.checks(summary),
            md.heading(2, "Residual uncertainty"),
            md.bullets(released.ONE_MODEL),
            md.heading(2, "What was not tested"),
            md.bullets(_NOT_TESTED),
            *words.who_judges(),
            md.heading(2, "Method and versions"),
            words.method_table(method),
        ]
    )


def _result(summary: Mapping[str, Any]) -> Iterator[str]:
    status = released.status_of(summary)
    text = part(summary, "verdict").get("text")
    yield md.heading(2, "What was found, in short")
    yield words.alerts(summary)
    yield f"**{_LABELS[status]}.** {md.text(text) if text else ''}".strip()
    yield from words.points("This means", released.MEANS[status])
    yield from words.points("This does not mean", released.MEANS_NOT[status])
    yield f"Source: {md.code('summary.json: verdict')}."


def _processing(summary: Mapping[str, Any]) -> Iterator[str]:
    yield md.heading(2, "Description of the processing (Art. 35(7)(a))")
    yield words.blanks("Fact", words.PROCESSING)
    yield f"What the audit saw of it. Source: {md.code('summary.json: members, nonmembers')}."
    yield md.table(["Whose records", "Patients", "Records"], released.sides(summary))


def _tested(summary: Mapping[str, Any]) -> Iterator[str]:
    yield md.heading(2, "What was tested")
    yield "Membership inference. The attacker considered"
    yield md.bullets(_ATTACKER)
    names = [numbers.attack(name) for name in part(summary, "attacks")]
    yield f"Attacks: {md.text(', '.join(names) or 'none')}."


def _likelihood(summary: Mapping[str, Any]) -> Iterator[str]:
    yield md.heading(2, "Likelihood of identification by the tested means (Art. 35(7)(c))")
    yield words.facts(
        [
            (
                "Smallest AUC that the attacks could have told from guessing",
                numbers.auc(summary.get("smallest_detectable_auc")),
                "",
                "smallest_detectable_auc",
            )
        ]
    )
    if released.one_record_each(summary):
        yield "Each patient has one record, so that figures over records are those over patients."
    for what, _, attacks in released.units(summary):
        yield md.heading(3, f"Over {what}")
        key = "attacks.NAME.by_patient" if what == "patients" else "attacks"
        yield from attack_tables(summary, attacks, key)
