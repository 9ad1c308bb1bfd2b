"""The certificate of a release as Markdown, for a data-protection impact assessment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from confide.reports import certificate_view as view
from confide.reports import certificate_words, numbers
from confide.reports import dpia_words as words
from confide.reports import markdown as md
from confide.reports.view import method_rows

_FILE = "certificate.json"
_NOT_TESTED = (
    "Attacks that are not listed here, other knowledge of the attacker, and more effort.",
    "How well a key is kept: whoever has it can encode records and compare.",
    "What models that are trained on the codes give away, which an audit measures.",
    "Other releases, also of the same key or the same patients.",
)


def summary_of_certificate(certificate: Mapping[str, Any]) -> str:
    """Write the certificate of a release as Markdown.

    Parameters
    ----------
    certificate : the content of certificate.json; nothing is computed from it

    Returns
    -------
    the document, which names no patient and no record; numbers of fewer than 10 patients are
    withheld
    """
    shown = view.attacks(certificate)
    return md.document(
        [
            *words.opening(
                view.title(certificate),
                certificate.get("confide"),
                "Measured: what attacks recover from a release of codes.",
                words.LAW_OF_RELEASES,
            ),
            *_result(certificate),
            md.heading(2, "Description of the processing (Art. 35(7)(a))"),
            words.blanks("Fact", words.PROCESSING),
            f"What was attacked. Source: {md.code(f'{_FILE}: release, attacked')}.",
            md.table(["Fact", "Value"], view.subject(certificate)),
            md.heading(2, "Necessity and proportionality (Art. 35(7)(b))"),
            words.blanks("Fact", words.NECESSITY),
            *_tested(certificate, shown),
            *_likelihood(shown),
            md.heading(2, "Groups of data subjects"),
            "A certificate does not measure groups.",
            md.heading(2, "Measures (Art. 35(7)(d))"),
            "The records were encoded with a secret key; the encoder stands above.",
            words.blanks("Measure", words.MEASURES),
            *_open(certificate, shown),
            *words.who_judges(),
            md.heading(2, "Method and versions"),
            md.table(["Setting", "Value"], method_rows(view.run(certificate))),
            f"SHA-256 of {md.code(_FILE)} without this key: {md.text(certificate.get('sha256'))}.",
        ]
    )


def _result(certificate: Mapping[str, Any]) -> Iterator[str]:
    said = certificate_words.verdict(certificate)
    yield md.heading(2, "What was found, in short")
    yield f"**{md.text(said.label)}.** {md.text(said.headline)}"
    yield md.text(said.text) if said.text else ""
    yield md.text(certificate_words.gate(certificate)[1])
    yield certificate_words.FAILED
    yield from words.points("This means", said.means)
    yield from words.points("This does not mean", said.means_not)
    yield f"Source: {md.code(f'{_FILE}: reidentification, gate')}."


def _tested(certificate: Mapping[str, Any], shown: list[view.Attack]) -> Iterator[str]:
    yield md.heading(2, "What was tested")
    yield "The attacker"
    yield md.bullets(certificate_words.attacker(certificate))
    yield md.table(
        ["Attack", "What it does", "Uses", "Source of the attack"],
        [(one.name, one.about, one.knows, one.source) for one in shown],
    )


def _likelihood(shown: list[view.Attack]) -> Iterator[str]:
    yield md.heading(2, "Likelihood of identification by the tested means (Art. 35(7)(c))")
    yield (
        "Each attack is judged by one score. The same attack, with the same effort, was run on a "
        "weak encoder, which must fall, and on codes of noise, in which there is nothing. Source: "
        f"{md.code(f'{_FILE}: attacks')}."
    )
    head = ["Attack", "Score", "Release (95%)", "By chance (range)", "Weak encoder", "Noise"]
    yield md.table(
        [*head, "Outcome"],
        [
            (
                one.name,
                one.title,
                numbers.with_interval(one.release.value, one.release.interval),
                numbers.with_interval(one.release.chance, one.release.range),
                one.weak.value,
                one.noise.value,
                one.state,
            )
            for one in shown
        ],
    )
    yield md.bullets(
        f"{state}: {certificate_words.OUTCOMES.get(state, '')}" for state, _ in view.outcomes(shown)
    )


def _open(certificate: Mapping[str, Any], shown: list[view.Attack]) -> Iterator[str]:
    yield md.heading(2, "Residual uncertainty")
    yield md.bullets(
        [
            "An attack that failed shows only that this attack failed.",
            *(f"{one.name}: {one.why}" for one in shown if one.explained and one.why),
        ]
    )
    # Notes on the data may quote single records.
    yield f"What was decided on the way stands in {md.code(f'{_FILE}: notes')}."
    yield md.heading(2, "What was not tested")
    yield md.bullets(_NOT_TESTED)
