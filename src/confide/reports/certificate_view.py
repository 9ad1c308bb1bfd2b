"""A certificate as rows of written text, the same for the page and the terminal.

Nothing is computed here: values are chosen, put in order and written out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from confide.reports import certificate_figures as figures
from confide.reports import certificate_words as words
from confide.reports import numbers
from confide.reports.certificate_figures import Curve, Scored, Track
from confide.reports.certificate_scores import Unit, written
from confide.reports.certificate_scores import of as score_words
from confide.reports.view import SMALL_CELL, WITHHELD, method_rows, part

_OURS = "confide"
TARGETS = {
    "release": "The release",
    "linear": "Positive control: a linear encoder",
    "shallow": "Second positive control: codes without hidden layers",
    "noise": "Negative control: codes of noise",
    "raw": "Ceiling: the records themselves, without any encoding",
}


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A score as text, with its interval and what chance gives."""

    value: str
    interval: str
    chance: str
    range: str


@dataclass(frozen=True, kw_only=True)
class Line:
    """One score of an attack, on the release and on the controls; `n` of the release."""

    name: str
    title: str
    release: Figure
    weak: Figure
    noise: Figure
    n: str
    n_patients: str


@dataclass(frozen=True, kw_only=True)
class Effort:
    """What was done to one target, in words, and what has to be known of the result."""

    target: str
    done: str
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Attack:
    """One attack.

    Attributes
    ----------
    file : part of the name of a file for its tables
    knows, more : what its attacker knows, in short and as the end of a sentence (or "")
    control : whether it is itself a control, which should find nothing
    state : outcome as in the certificate, in the words of a control for one; `why` as there
    title : of the score by which it is judged; `unit` of it
    release, weak, second, noise, raw : that score on the release, on the controls and on the
        records themselves; the second positive control and the last are not made for all
    breaks_at : from where the positive control counts as broken
    """

    name: str
    file: str
    about: str
    source: str
    knows: str
    more: str
    control: bool
    state: str
    why: str
    score: str
    title: str
    unit: Unit
    release: Figure
    weak: Figure
    second: Figure
    raw: Figure
    noise: Figure
    breaks_at: str
    settings: tuple[tuple[str, str], ...]
    lines: tuple[Line, ...]
    efforts: tuple[Effort, ...]
    track: Track | None
    curves: tuple[Curve, ...]

    @property
    def explained(self) -> bool:
        """Whether the outcome needs its reason beside it, since the figures do not show it."""
        return self.state not in ("leaks", "nothing found", *words.OF_CONTROLS.values())


def attacks(certificate: Mapping[str, Any]) -> list[Attack]:
    """The attacks, in the order of the certificate."""
    share = certificate.get("known_share")
    found = part(certificate, "attacks")
    return [_attack(name, part(found, name), share) for name in found]


def _attack(name: str, found: Mapping[str, Any], share: Any) -> Attack:
    headline = str(found.get("headline"))
    score = score_words(headline)
    scored = {target: part(found, target, headline) for target in TARGETS}
    short, more = words.known(found.get("knowledge"), share)
    release = _figure(scored["release"], score.unit)
    shown = numbers.name(name)
    control = "breaks_at" in found and found["breaks_at"] is None
    state = numbers.name(found.get("outcome"))
    label = f"{shown}: {score.title} {numbers.with_interval(release.value, release.interval)}"
    return Attack(
        name=shown,
        file=re.sub(r"[^a-z0-9]+", "-", shown.lower())[:40].strip("-"),
        about=_text(found.get("about")),
        source=_text(found.get("source")),
        knows=short,
        more=more,
        control=control,
        state=words.OF_CONTROLS.get(state, state) if control else state,
        why=_text(found.get("why")),
        score=numbers.name(headline),
        title=score.title,
        unit=score.unit,
        release=release,
        weak=_figure(scored["linear"], score.unit),
        second=_figure(scored["shallow"], score.unit),
        raw=_figure(scored["raw"], score.unit),
        noise=_figure(scored["noise"], score.unit),
        breaks_at=written(found.get("breaks_at"), score.unit),
        settings=tuple(method_rows(part(found, "settings"))),
        lines=_lines(found),
        efforts=tuple(
            _effort(target, found, headline)
            for target in TARGETS
            # Only some attacks have a second positive control, or a ceiling.
            if target not in ("shallow", "raw") or target in part(found, "seconds")
        ),
        track=figures.track(
            scored["release"],
            scored["linear"],
            scored["noise"],
            score.unit,
            f"{label}, by chance {release.chance}",
        ),
        curves=tuple(
            figures.curve(axis, points, headline, score.unit)
            for axis, points in part(found, "curves").items()
            if points
        ),
    )


def _figure(scored: Scored, unit: Unit) -> Figure:
    return Figure(
        value=written(scored.get("value"), unit),
        interval=figures.interval(scored, unit),
        chance=written(scored.get("chance"), unit),
        range=figures.interval(scored, unit, "chance_low", "chance_high"),
    )


def _lines(found: Mapping[str, Any]) -> tuple[Line, ...]:
    names = dict.fromkeys(name for target in TARGETS for name in part(found, target))
    return tuple(
        Line(
            name=numbers.name(name),
            title=score_words(name).title,
            **{
                key: _figure(part(found, target, name), score_words(name).unit)
                for key, target in (("release", "release"), ("weak", "linear"), ("noise", "noise"))
            },
            n=numbers.count(part(found, "release", name).get("n")),
            n_patients=patients(part(found, "release", name).get("n_patients")),
        )
        for name in names
    )


def _effort(target: str, found: Mapping[str, Any], headline: str) -> Effort:
    notes = tuple(numbers.name(note) for note in part(found, "notes").get(target) or [])
    not_run = part(found, "not_run").get(target)
    if not_run:
        done = f"not run. {numbers.name(not_run)}"
    else:
        scored = part(found, target, headline)
        n = numbers.count(scored.get("n"))
        known = numbers.number(scored.get("n_patients"))
        whose = f" of {_whose(known)} patients" if known else ""
        done = (
            f"{numbers.count(part(found, 'n_codes').get(target))} codes attacked; "
            f"{'none' if n == numbers.MISSING else f'{n} codes{whose}'} scored; "
            f"{figures.seconds(part(found, 'seconds').get(target))}."
        )
    return Effort(target=TARGETS[target], done=done, notes=notes)


def patients(n: Any) -> str:
    """A number of patients; small ones are not told, and 0 means that they are not known."""
    known = numbers.number(n)
    if not known:
        return numbers.MISSING
    return WITHHELD if known < SMALL_CELL else numbers.count(known)


def _text(value: Any) -> str:
    return numbers.name(value) if value else ""


def outcomes(shown: list[Attack]) -> list[tuple[str, str]]:
    """How the attacks came out: (outcome, their names); none for outcomes that did not occur."""
    states = dict.fromkeys([*words.OUTCOMES, *(one.state for one in shown)])
    named = (
        (state, ", ".join(one.name for one in shown if one.state == state)) for state in states
    )
    return [(state, names) for state, names in named if names]


def meanings(shown: list[Attack]) -> dict[str, str]:
    """What outcomes mean; those of controls only where there is one."""
    states = {one.state for one in shown}
    of_controls = set(words.OF_CONTROLS.values())
    return {
        state: meaning
        for state, meaning in words.OUTCOMES.items()
        if state in states or state not in of_controls
    }


def counted(shown: list[Attack]) -> str:
    """How many attacks there are, and how many controls beside them, in words."""
    n = sum(one.control for one in shown)
    attacks, controls = (
        f"{k:,} {what}{'s' * (k != 1)}" for k, what in ((len(shown) - n, "attack"), (n, "control"))
    )
    return f"What {attacks} recovered from these codes{f', beside {controls}' if n else ''}"


def scores(shown: list[Attack]) -> list[tuple[str, str, str]]:
    """Every score that occurs: (name, title, what it says)."""
    names = dict.fromkeys(line.name for one in shown for line in one.lines)
    return [(name, score_words(name).title, score_words(name).sentence) for name in names]


def sources(shown: list[Attack]) -> list[tuple[str, str]]:
    """The sources of the attacks but for this library: (source, names of the attacks)."""
    found: dict[str, list[str]] = {}
    for one in shown:
        if one.source and one.source != _OURS:
            found.setdefault(one.source, []).append(one.name)
    return [(source, ", ".join(names)) for source, names in found.items()]


def title(certificate: Mapping[str, Any]) -> str:
    """What was attacked, in a few words."""
    release = part(certificate, "release")
    if release.get("challenge"):
        return "Codes of a challenge"
    return f"Release {numbers.name(release.get('release_id'))}"


def subject(certificate: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was attacked, as (fact, text)."""
    release, attacked = part(certificate, "release"), part(certificate, "attacked")
    shape = release.get("shape")
    rows = {
        "Release id": release.get("release_id"),
        "Key id": release.get("key_id"),
        "Digest of the manifest": release.get("manifest_digest"),
        "SHA-256 of release.json": release.get("release_json_sha256"),
        "Codes in it": numbers.count(release.get("n_records")),
        "Codes attacked": _sampled(release, attacked),
        "Their patients": _whose(attacked.get("n_patients")),
        "Plaintexts of the attacker": numbers.count(attacked.get("n_plaintexts")),
        "Each code": _rows(shape, release.get("dtype")),
        "Encoder": _inline(part(release, "encoder")),
        "Published beside the codes": _published(release),
        "Attribute that probes look for": _attribute(attacked),
    }
    return [(fact, numbers.name(text)) for fact, text in rows.items() if text is not None]


def _sampled(release: Mapping[str, Any], attacked: Mapping[str, Any]) -> str:
    n, whole = (numbers.number(one) for one in (attacked.get("n_codes"), release.get("n_records")))
    if n is None or whole is None:
        return numbers.count(n)
    if n < whole:
        return f"{n:,.0f}, a sample; among more codes each is harder to find"
    return f"all {n:,.0f}"


def _whose(n: Any) -> str:
    known = numbers.number(n)
    if known is None:
        return "not known: the truth was not at hand"
    return f"fewer than {SMALL_CELL}" if known < SMALL_CELL else numbers.count(known)


def _rows(shape: Any, dtype: Any) -> str | None:
    if not isinstance(shape, list | tuple) or len(shape) != 2:
        return None
    kind = f", {numbers.name(dtype)}" if dtype else ""
    return f"{numbers.count(shape[0])} rows of {numbers.count(shape[1])} numbers{kind}"


def _inline(facts: Mapping[str, Any]) -> str | None:
    return "; ".join(f"{key} {value}" for key, value in method_rows(facts)) or None


def _published(release: Mapping[str, Any]) -> str | None:
    if release.get("challenge"):
        return None
    names = [*(release.get("labels") or []), *(release.get("columns") or [])]
    names += ["a pseudonym of the patient"] if release.get("pseudonyms") else []
    return ", ".join(numbers.name(name) for name in names) or "nothing"


def _attribute(attacked: Mapping[str, Any]) -> str | None:
    meaning = attacked.get("attribute")
    if not meaning:
        return None
    if attacked.get("attribute_is_published"):
        return f"{numbers.name(meaning)} (the release publishes it: no probe is needed for it)"
    return numbers.name(meaning)


def run(certificate: Mapping[str, Any]) -> dict[str, Any]:
    """How the attacks were run, for the table of the method."""
    minutes = certificate.get("minutes")
    facts = {key: certificate.get(key) for key in ("knowledge", "known_share", "budget")}
    return facts | {
        "minutes of training, at most": "no limit" if minutes is None else minutes,
        "seed": certificate.get("seed"),
        "device": certificate.get("device"),
        "versions": part(certificate, "versions"),
        "format of the certificate": certificate.get("format"),
    }
