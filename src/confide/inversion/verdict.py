"""What an attack run says of a release: what leaks, what was not established, and the gate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from confide.inversion.base import Finding, Maps, Matching, Reconstruction, Substitute

SINGLES_OUT: dict[type[Finding], tuple[str, ...]] = {
    Matching: ("reid", "reid_identical", "patient"),
    Substitute: ("challenge2",),
    Maps: ("linkage_first_rank",),
    Reconstruction: ("first_rank",),
}
"""By what an attack answers: scores that are shares of hidden records singled out among all.

The highest counts: who finds the patient of a code, or an equal picture, needs not the very record.
A map or a picture singles out a record if it is more like it than like any other hidden record."""

GOOD, MODERATE = 0.05, 0.20
"""Bands of re-identification of the authors of NeuraCrypt (Yala et al., arXiv 2106.02484)."""

NOTHING = "nothing found"

Scored = Mapping[str, Mapping[str, float]]
"""{score: {"value", "low", "high", "chance", "chance_low", "chance_high", ...}} of one target."""


def outcome(
    headline: str,
    breaks_at: float,
    release: Scored,
    linear: Scored,
    noise: Scored,
    shallow: Scored | None = None,
    also: tuple[str, ...] = (),
) -> tuple[str, str]:
    """What one attack shows, and why.

    Parameters
    ----------
    headline : the score by which it is judged
    breaks_at : value from which the positive control counts as broken; infinite of an attack that
        is itself a control and should find nothing
    release, linear, noise : scores of the release and of the positive and the negative control;
        empty where there are none
    shallow : scores of the second positive control, codes like those of the release but without
        hidden layers; None for attacks that have none
    also : other scores of the same answer by which it may leak, such as "patient"

    Returns
    -------
    one of
    "leaks" : the release is above what chance reaches once in a thousand, and noise is not
    "nothing found" : it is not, though the same attack broke the positive control
    "not established" : a control failed or is missing, so that the release's score means nothing
    "not scored" : the truth was not at hand
    and the reason in a sentence
    """
    if headline not in release:
        return "not scored", "The truth was not at hand."
    if headline not in noise:
        return "not established", "The negative control could not be made."
    names = dict.fromkeys((headline, *also))
    for name in names:
        null = noise[name]
        if not null["chance_low"] <= null["value"] <= null["chance_high"]:
            return (
                "not established",
                f"The negative control is off: {name} {null['value']:.3g} on codes of noise, "
                f"expected {null['chance_low']:.3g} to {null['chance_high']:.3g}.",
            )
    for name in names:
        found = release[name]
        if _beyond(found):
            return "leaks", f"{name} {found['value']:.3g}, by chance {found['chance']:.3g}."
    found = release[headline]
    if math.isinf(breaks_at):
        return NOTHING, f"{found['value']:.3g}, by chance {found['chance']:.3g}, as expected of it."
    if headline not in linear:
        return "not established", "The positive control could not be made."
    for scores, what in ((linear, "on the linear encoder"), (shallow, "without hidden layers")):
        if scores is None:
            continue
        if headline not in scores or scores[headline]["value"] < breaks_at:
            weak = f"{scores[headline]['value']:.3g}" if headline in scores else "not made"
            return (
                "not established",
                f"The positive control was not broken: {weak} {what}, expected at least "
                f"{breaks_at:.3g}; give more records or a larger budget.",
            )
    if found["chance_high"] >= 1 or not _beyond(linear[headline]):
        return "not established", "There are too few codes to tell a success from chance."
    return NOTHING, f"{found['value']:.3g}, by chance {found['chance']:.3g}."


def reidentification(attacks: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The verdict on re-identification over all attacks that could show it.

    Parameters
    ----------
    attacks : by name; of each "outcome", the scores of the "release", "singles_out", the names of
        the scores that are shares of records singled out, none of a control, and "limited",
        whether it cannot do on these codes what it rests on

    Returns
    -------
    {"verdict", "attack", "value", "low", "high", "text"}: "verdict" is "bad" (some attack singled
    out more than 20 %), "moderate" or "good" (the upper end of the interval of every attack is at
    most 20 % or 5 %, and all that were asked for ran and broke their positive control), "not
    established" or "not measured"
    """
    of_interest = {n: one for n, one in attacks.items() if one["singles_out"]}
    scored = {
        name: _worst([one["release"][score] for score in one["singles_out"]])
        for name, one in of_interest.items()
        if one["outcome"] not in ("not scored", "not run")
    }
    nothing = dict.fromkeys(("attack", "value", "low", "high"))
    if not scored:
        return {
            "verdict": "not measured",
            **nothing,
            "text": "No attack that singles out records was run and scored.",
        }
    leaks = {
        name: s
        for name, s in scored.items()
        if of_interest[name]["outcome"] == "leaks" and _beyond(s)
    }
    worst = max(leaks or scored, key=lambda name: scored[name]["value"])
    found = {"attack": worst, **{k: scored[worst][k] for k in ("value", "low", "high")}}
    singled = f"{worst} singled out {found['value']:.1%} of the records"
    if leaks and found["value"] > MODERATE:
        return {"verdict": "bad", **found, "text": f"{singled}, above 20%."}
    open_ = [name for name, one in of_interest.items() if not _established(one)]
    if open_:
        return {
            "verdict": "not established",
            **found,
            "text": f"{', '.join(open_)}: the controls failed or it was not run and scored, so "
            "that what was not found means nothing.",
        }
    top = max(
        _top_of(one["release"][n]) for one in of_interest.values() for n in one["singles_out"]
    )
    if top >= MODERATE:
        return {
            "verdict": "not established",
            **found,
            "text": f"{singled}; with so few patients it may be more than 20% (up to {top:.1%}).",
        }
    band = "good" if top < GOOD else "moderate"
    return {
        "verdict": band,
        **found,
        "text": f"{singled}, at most {top:.1%} with 95% confidence, by these attacks with this "
        "effort; others may do better.",
    }


def gate(
    found: Mapping[str, Any], attacks: Mapping[str, Mapping[str, Any]], most: float
) -> dict[str, Any]:
    """Whether a release may pass: established, and no attack's interval reaches above `most`.

    Parameters
    ----------
    found : from :func:`reidentification`
    attacks : as there
    most : share of records that may be singled out

    Returns
    -------
    {"reid": most, "met", "why"}
    """
    of_interest = [one for one in attacks.values() if one["singles_out"]]
    known = [one for one in of_interest if _established(one)]
    ends = [_top_of(one["release"][name]) for one in known for name in one["singles_out"]]
    high = max(ends, default=0.0)
    if high <= most and (
        len(known) < len(of_interest) or found["verdict"] in ("not established", "not measured")
    ):
        why = f"Re-identification is {found['verdict']}."
        if found["verdict"] not in ("not established", "not measured"):
            why = "Not all attacks that were asked for were established."
        return {"reid": most, "met": False, "why": why}
    met = high <= most
    return {
        "reid": most,
        "met": met,
        "why": f"The upper end of the interval of re-identification is {high:.1%}, "
        f"{'within' if met else 'above'} {most:.1%}.",
    }


def _established(one: Mapping[str, Any]) -> bool:
    """Whether an attack that found no more can be taken for a sign that there is no more."""
    return one["outcome"] in ("leaks", NOTHING) and not one.get("limited", False)


def _beyond(score: Mapping[str, Any]) -> bool:
    """Whether it is more than chance leaves once in a thousand runs."""
    return bool(score["value"] > score["chance_high"])


def _worst(scores: list[Mapping[str, Any]]) -> Mapping[str, Any]:
    return max([s for s in scores if _beyond(s)] or scores, key=_top_of)


def _top_of(score: Mapping[str, Any]) -> float:
    """The upper end of the interval; 1 where there is none, as of a single patient."""
    return 1.0 if score["high"] is None else float(score["high"])
