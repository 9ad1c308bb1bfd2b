"""What verdicts, outcomes, scores and attackers of a certificate mean, in plain words.

"Nothing found" and "not established" are two answers, and neither of them is "safe".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from confide.reports import numbers
from confide.reports.view import part

FAILED = "An attack that failed shows only that this attack failed."
"""Said beside every verdict, whatever the certificate states."""

Unit = Literal["share", "area", "decimal", "rank", "number"]
"""How a score is written; "share" and "area" lie between 0 and 1 and have an axis."""


@dataclass(frozen=True, kw_only=True)
class ScoreWords:
    """What a score is.

    Attributes
    ----------
    title : two or three words
    unit : how it is written
    sentence : what it says, with what guessing or nothing gives where that is fixed
    """

    title: str
    unit: Unit
    sentence: str


_SMALLER = "The smaller, the more was found."

_SCORES = {
    "reid": ScoreWords(
        title="re-identified",
        unit="share",
        sentence="Share of the codes whose own plaintext was named, where each plaintext may be "
        "named once; a code without an answer counts as wrong.",
    ),
    "reid_identical": ScoreWords(
        title="re-identified, copies count",
        unit="share",
        sentence="The same, where a plaintext that is identical to the right one, value by value, "
        "counts as right.",
    ),
    "patient": ScoreWords(
        title="right patient",
        unit="share",
        sentence="Share of the codes for which a plaintext of the right patient was named.",
    ),
    "first_rank": ScoreWords(
        title="right one first",
        unit="share",
        sentence="Share of the codes of which the right record comes first, ahead of all others.",
    ),
    "mean_rank": ScoreWords(
        title="mean rank",
        unit="rank",
        sentence=f"Mean place of the right record among all plaintexts; 1 is first. {_SMALLER}",
    ),
    "coverage": ScoreWords(
        title="answered",
        unit="share",
        sentence="Share of the codes for which a plaintext was named at all, right or wrong.",
    ),
    "challenge2": ScoreWords(
        title="nearest prediction",
        unit="share",
        sentence="Share of the codes whose mean row is nearest to the one predicted for their own "
        "record, among those predicted for all records.",
    ),
    "challenge2_reverse": ScoreWords(
        title="nearest code",
        unit="share",
        sentence="Share of the predictions that are nearest to the code of their own record, "
        "among all codes.",
    ),
    "mse_ratio": ScoreWords(
        title="error ratio",
        unit="decimal",
        sentence="Squared error of the predictions over that of always predicting the mean; 0 is "
        f"no error, 1 is no better than the mean. {_SMALLER}",
    ),
    "mmd": ScoreWords(
        title="discrepancy",
        unit="number",
        sentence="Squared maximum mean discrepancy of predicted and true codes; 0 where both have "
        "one distribution. It says nothing of single records, and has no level of chance.",
    ),
    "auc": ScoreWords(
        title="AUC",
        unit="area",
        sentence="Chance that a case looked for (a code with the attribute, or two codes of one "
        "patient) scores higher than another; 0.5 is guessing, 1 is certainty.",
    ),
    "precision_at_1": ScoreWords(
        title="nearest is the patient's",
        unit="share",
        sentence="Share of the codes whose most similar other code is of the same patient, among "
        "codes of patients who have another.",
    ),
    "map_correlation": ScoreWords(
        title="correlation of maps",
        unit="decimal",
        sentence="Mean correlation of the map recovered of a hidden record, patch by patch, with "
        "the map that the record itself gives; 1 is the same map.",
    ),
    "linkage_first_rank": ScoreWords(
        title="map is nearest to its own",
        unit="share",
        sentence="Share of the codes whose recovered map is most like that of their own record, "
        "among the hidden records: who comes upon that record could tell whose code it is.",
    ),
    "linkage_assigned": ScoreWords(
        title="map is assigned its own",
        unit="share",
        sentence="The same, where each record is given to one code.",
    ),
    "correlation": ScoreWords(
        title="correlation of records",
        unit="decimal",
        sentence="Median correlation of a rebuilt record with the true one, value by value; 1 is "
        "the same but for brightness and contrast.",
    ),
}


def score(name: Any) -> ScoreWords:
    """What a score of that name is; of an unknown one only its name."""
    known = _SCORES.get(str(name))
    return known or ScoreWords(
        title=numbers.name(name),
        unit="number",
        sentence="A score that this page has no words for; see the documentation of its attack.",
    )


def written(value: Any, unit: Unit, like: Any = None) -> str:
    """A score as text; with `like`, as many digits of a share as that one would have.

    >>> written(0.05, "share"), written(0.61, "area"), written(1234.5, "rank"), written(2e-5, "")
    ('5.0%', '0.610', '1,234.5', '2e-05')
    """
    x = numbers.number(value)
    if x is None:
        return numbers.MISSING
    if unit == "share":
        return numbers.percent(x, like=like)
    if unit in ("area", "decimal"):
        return numbers.auc(x)
    return f"{x:,.1f}" if unit == "rank" else f"{x:.3g}"


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
    "not established": "A control failed or could not be made, so that the score on the release "
    "means nothing, in either direction.",
    "not scored": "The attack ran, but the truth by which it is scored was not at hand.",
    "not run": "The attack could not be run here.",
}
"""What the outcome of an attack means."""


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
                    "are of.",
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
                    "The intervals of all attacks that single out records end at 20% or below, "
                    "and some of them above 5%.",
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
                    "The intervals of all attacks that single out records end at 5% or below.",
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
