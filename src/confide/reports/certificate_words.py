"""What verdicts, outcomes and attackers of a certificate mean, in plain words.

"Nothing found" and "not established" are two answers, and neither of them is "safe".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from confide.reports import numbers
from confide.reports.view import part

FAILED = "An attack that failed shows only that this attack failed."
"""Said beside every verdict, whatever the certificate states."""

_ATTACKER = {
    "codes": ("has no records to compare the codes with.",),
    "unpaired": (
        "has plaintext records of the same kind, but not those of the codes (the setting of the "
        "authors' second challenge).",
    ),
    "same-images": (
        "has the plaintext records of the codes, perhaps among others, but does not know which is "
        "whose (the setting of the authors' first challenge).",
    ),
    "pairs": (
        "has the plaintext records of the codes, perhaps among others;",
        "knows of {share} of the patients which plaintext is whose code. These codes are not "
        "scored.",
    ),
}


def attacker(certificate: Mapping[str, Any]) -> list[str]:
    """What the attacker has, as ends of the sentence "The attacker ..."."""
    knowledge = certificate.get("knowledge")
    share = numbers.rate(certificate.get("known_share"))
    more = _ATTACKER.get(str(knowledge), (f"has what is called {numbers.name(knowledge)}.",))
    return [
        "holds the release: its codes and what is published beside them;",
        "knows how the codes were made, all but the key, and can make keys of the same kind;",
        *(line.format(share=share) for line in more),
    ]


_KNOWN = {
    "CodesOnly": ("the codes", ""),
    "KnownAttributes": (
        "codes, some attributes",
        "knows the attribute of {share} of the patients, and guesses that of the others",
    ),
    "TwoReleases": ("two releases", "has two releases with records of the same patients"),
    "OneKey": (
        "two releases, one key",
        "has two releases with records of the same patients, made with one key. Both were "
        "simulated for this certificate, with keys of its own: the codes of the release itself "
        "were not used",
    ),
    "TwoKeys": (
        "two releases, two keys",
        "has two releases with records of the same patients, made with different keys. Both were "
        "simulated for this certificate, with keys of its own: the codes of the release itself "
        "were not used",
    ),
    "Unpaired": ("codes, plaintexts", "uses the plaintexts without any pairing"),
    "LabelledPlaintexts": (
        "codes, plaintexts with an attribute",
        "uses plaintexts whose attribute is known, without any pairing",
    ),
    "SameImages": (
        "codes, their plaintexts",
        "uses that the plaintexts of the codes are among those at hand",
    ),
    "KnownPairs": (
        "codes, their plaintexts, some pairs",
        "knows of {share} of the patients which plaintext is whose code; these codes are not "
        "scored",
    ),
}


def known(kind: Any, share: Any) -> tuple[str, str]:
    """What one attack is given: in short, and as the end of "Its attacker ..." or ""."""
    short, more = _KNOWN.get(str(kind), (numbers.name(kind), ""))
    return short, more.format(share=numbers.rate(share))


OUTCOMES = {
    "leaks": "Better than the range of chance on the release, while codes of noise stay within it.",
    "nothing found": "Not better than the range of chance on the release, though the same attack, "
    "with the same effort, broke the positive control.",
    "not established": "A control failed or could not be made, or these codes lack what the attack "
    "rests on; its score on the release means nothing, in either direction.",
    "control held": "An attack that is itself a control, and should stay within the range of "
    "chance on the release, did. That says nothing of the release.",
    "control failed": "An attack that is itself a control, and should stay within the range of "
    "chance on the release, did not: what the attack that it belongs to finds may come from "
    "elsewhere than from what that attack is told.",
    "not scored": "The attack ran, but the truth by which it is scored was not at hand.",
    "not run": "The attack could not be run here.",
}
"""What the outcome of an attack means."""

OF_CONTROLS = {"nothing found": "control held", "leaks": "control failed"}
"""What an outcome is called where the attack is itself a control."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The verdict on re-identification in words.

    Attributes
    ----------
    status : class of the style sheet
    label : the verdict as one to three words
    headline : one sentence
    text : what the certificate itself says of its verdict; may be empty
    means, means_not : sentences
    """

    status: str
    label: str
    headline: str
    text: str
    means: tuple[str, ...]
    means_not: tuple[str, ...]


_BANDS = (
    "The bands are those of the authors of NeuraCrypt for the share of records re-identified: "
    "below 5% good, to 20% moderate, above bad. For good and moderate the upper end of every "
    "interval counts here, so that a few patients never look good; for bad, the share itself."
)
_BETTER = (
    "That others cannot do better: with more effort, other knowledge or an attack not listed here."
)
_OTHERWISE = (
    "That nothing else is given away: the verdict is about singling out records. Who is linked to "
    "whom, and attributes of patients, stand in the table of attacks."
)


def verdict(certificate: Mapping[str, Any]) -> Verdict:
    """The verdict of a certificate in words; a certificate without one is "not established"."""
    found = part(certificate, "reidentification")
    text = numbers.name(found.get("text") or "").removeprefix("(blank)")
    match found.get("verdict"):
        case "bad":
            return Verdict(
                status="at_risk",
                label="Bad",
                headline="Records can be re-identified from this release.",
                text=text,
                means=(
                    "An attacker as described below tells of many of the codes which record they "
                    "are of, or would know it again, should the record come to hand.",
                    _BANDS,
                ),
                means_not=(
                    "That the other records are safe: what was recovered is the least that can "
                    "be, not the most.",
                    _OTHERWISE,
                ),
            )
        case "moderate":
            return Verdict(
                status="detectable",
                label="Moderate",
                headline="By these attacks at most 20% of the records can be re-identified; at "
                "most 5% was not shown.",
                text=text,
                means=(
                    "The intervals of all attacks run here that single out records end at 20% or "
                    "below, and some of them above 5%.",
                    "Each of these attacks leaked, or broke a weak encoder with the same effort.",
                    _BANDS,
                ),
                means_not=(_BETTER, _OTHERWISE),
            )
        case "good":
            return Verdict(
                status="none_found",
                label="Good, for these attacks",
                headline="By these attacks at most 5% of the records can be re-identified.",
                text=text,
                means=(
                    "The intervals of all attacks run here that single out records end at 5% or "
                    "below.",
                    "Each of these attacks leaked, or broke a weak encoder with the same effort.",
                    _BANDS,
                ),
                means_not=(
                    "That the release is safe. Good is the authors' word for a figure, and the "
                    "figure is of these attacks.",
                    _BETTER,
                    _OTHERWISE,
                ),
            )
        case "not measured":
            return Verdict(
                status="not_established",
                label="Not measured",
                headline="How many records can be re-identified was not measured.",
                text=text,
                means=(
                    "No attack that singles out records was run and scored, so there is no answer.",
                ),
                means_not=("That records cannot be re-identified: this is open.", _OTHERWISE),
            )
        case _:
            return Verdict(
                status="not_established",
                label="Not established",
                headline="This certificate cannot say how many records can be re-identified.",
                text=text,
                means=(
                    "It was not shown that these attacks would have found more, had there been "
                    "more to find, or there were too few patients to tell.",
                    "What was found still holds: see the table of attacks.",
                ),
                means_not=(
                    "That records cannot be re-identified. Not established is never safe.",
                    _OTHERWISE,
                ),
            )


def gate(certificate: Mapping[str, Any]) -> tuple[str, str]:
    """Whether the gate was met as a short word ("met", "missed", "none"), and in a sentence."""
    found = part(certificate, "gate")
    if not found:
        return "none", "No gate was set: nothing was asked of this release."
    most = numbers.rate(found.get("reid"))
    why = numbers.name(found.get("why") or "").removeprefix("(blank)")
    state = "met" if found.get("met") is True else "missed"
    asked = f"Gate {state}: at most {most} of the records may be singled out."
    return state, f"{asked} {why}".strip()


def check(certificate: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How to check that a certificate is of a release, and is unchanged: (command, what for)."""
    release = part(certificate, "release")
    digest = release.get("manifest_digest")
    same_file = (
        "import json,hashlib; c=json.load(open('certificate.json')); h=c.pop('sha256'); "
        "print(h==hashlib.sha256(json.dumps(c,sort_keys=True,separators=(',',':'))"
        ".encode()).hexdigest())"
    )
    lines = []
    if digest:
        lines.append(
            (
                "confide encode verify RELEASE",
                f"must find the release intact and print the digest {numbers.name(digest)}. "
                "Otherwise this certificate is about another release.",
            )
        )
    lines.append(
        (
            f'python -c "{same_file}"',
            "must print True: certificate.json, beside this page, is as it was written. This is "
            "no signature: whoever changes a certificate can write another sum.",
        )
    )
    return lines


REFERENCES = (
    "Yala et al. NeuraCrypt: hiding private health data via random neural networks for public "
    "training. arXiv:2106.02484, 2021. (the encoder, its challenges and the bands)",
    "Carlini et al. NeuraCrypt is not private. arXiv:2108.07256, 2021. (the attack that broke it)",
    "Korn, Graubard. Confidence intervals for proportions with small expected number of positive "
    "counts estimated from survey data. Survey Methodology 24:193-201, 1998. (intervals of shares)",
)
"""The papers behind every certificate; each attack names its own beside these."""
