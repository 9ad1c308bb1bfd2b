"""What an attack run says of a release: what leaks, what was not established, and the gate."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from confide.inversion.base import Finding, Maps, Matching, Reconstruction, Substitute

SINGLES_OUT: dict[type[Finding], str] = {
    Matching: "reid",
    Substitute: "challenge2",
    Maps: "linkage_first_rank",
    Reconstruction: "first_rank",
}
"""By what an attack answers: the score that is a share of hidden records singled out among all.

A map or a picture singles out a record if it is more like it than like any other hidden record."""

GOOD, MODERATE = 0.05, 0.20
"""Bands of re-identification of the authors of NeuraCrypt (Yala et al., arXiv 2106.02484)."""

NOTHING = "nothing found"

Scored = Mapping[str, Mapping[str, float]]
"""{score: {"value", "low", "high", "chance", "chance_low", "chance_high", ...}} of one target."""


def outcome(
    headline: str, breaks_at: float, release: Scored, linear: Scored, noise: Scored
) -> tuple[str, str]:
    """What one attack shows, and why.

    Parameters
    ----------
    headline : the score by which it is judged
    breaks_at : value from which the positive control counts as broken; infinite of an attack that
        is itself a control and should find nothing
    release, linear, noise : scores of the release and of the positive and the negative control;
        empty where there are none

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
    found = release[headline]
    if headline not in noise:
        return "not established", "The negative control could not be made."
    null = noise[headline]
    if not null["chance_low"] <= null["value"] <= null["chance_high"]:
        return (
            "not established",
            f"The negative control is off: {null['value']:.3g} on codes of noise, expected "
            f"{null['chance_low']:.3g} to {null['chance_high']:.3g}.",
        )
    if found["value"] > found["chance_high"]:
        return "leaks", f"{found['value']:.3g}, by chance {found['chance']:.3g}."
    if math.isinf(breaks_at):
        return NOTHING, f"{found['value']:.3g}, by chance {found['chance']:.3g}, as expected of it."
    if headline not in linear:
        return "not established", "The positive control could not be made."
    weak = linear[headline]["value"]
    if weak < breaks_at:
        return (
            "not established",
            f"The positive control was not broken: {weak:.3g} on the linear encoder, expected at "
            f"least {breaks_at:.3g}; give more records or a larger budget.",
        )
    return NOTHING, f"{found['value']:.3g}, by chance {found['chance']:.3g}."


def reidentification(attacks: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The verdict on re-identification over all attacks that could show it.

    Parameters
    ----------
    attacks : by name; of each "outcome", the scores of the "release", and "singles_out", the name
        of the score that is a share of records singled out, None if it has none

    Returns
    -------
    {"verdict", "attack", "value", "low", "high", "text"}: "verdict" is "bad" (some attack singled
    out more than 20 %), "moderate" or "good" (the upper end of the interval of every attack is at
    most 20 % or 5 %, and all that were asked for ran and broke their positive control), "not
    established" or "not measured"
    """
    of_interest = {n: one for n, one in attacks.items() if one["singles_out"] is not None}
    scored = {
        name: one["release"][one["singles_out"]]
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
    leaks = {name: s for name, s in scored.items() if of_interest[name]["outcome"] == "leaks"}
    worst = max(leaks or scored, key=lambda name: scored[name]["value"])
    found = {"attack": worst, **{k: scored[worst][k] for k in ("value", "low", "high")}}
    singled = f"{worst} singled out {found['value']:.1%} of the records"
    if leaks and found["value"] > MODERATE:
        return {"verdict": "bad", **found, "text": f"{singled}, above 20%."}
    open_ = [n for n, one in of_interest.items() if one["outcome"] not in ("leaks", NOTHING)]
    if open_:
        return {
            "verdict": "not established",
            **found,
            "text": f"{', '.join(open_)}: the controls failed or it was not run and scored, so "
            "that what was not found means nothing.",
        }
    top = _top(scored.values())
    if top > MODERATE:
        return {
            "verdict": "not established",
            **found,
            "text": f"{singled}; with so few patients it may be more than 20% (up to {top:.1%}).",
        }
    band = "good" if top <= GOOD else "moderate"
    return {
        "verdict": band,
        **found,
        "text": f"{singled}, at most {top:.1%} with 95 % confidence, by these attacks with this "
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
    if found["verdict"] in ("not established", "not measured"):
        return {"reid": most, "met": False, "why": f"Re-identification is {found['verdict']}."}
    high = _top(
        one["release"][one["singles_out"]]
        for one in attacks.values()
        if one["singles_out"] is not None and one["outcome"] in ("leaks", NOTHING)
    )
    met = high <= most
    return {
        "reid": most,
        "met": met,
        "why": f"The upper end of the interval of re-identification is {high:.1%}, "
        f"{'within' if met else 'above'} {most:.1%}.",
    }


def _top(scores: Iterable[Mapping[str, Any]]) -> float:
    """The highest upper end of an interval; 1 where there is none, as of a single patient."""
    return max(1.0 if one["high"] is None else float(one["high"]) for one in scores)
