"""The certificate of an attack run: what was tried on which release, and what came out."""

from __future__ import annotations

import hashlib
import json
import math
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from confide.config import Config
from confide.encoders.settings import EncodeSettings
from confide.inversion.suite import KNOWN
from confide.inversion.verdict import NOTHING, SINGLES_OUT, gate, outcome, reidentification
from confide.runs.attacked import Attacked
from confide.stores import plain
from confide.training.device import device_of

if TYPE_CHECKING:
    from confide.runs.attack import Part

FORMAT = 1

STATEMENT = (
    "What these attacks recovered from this release, with this knowledge and this effort. An "
    "attack that failed shows only that this attack failed; no release is private, anonymous or "
    "safe because of this certificate."
)


def certificate(
    config: Config,
    given: Attacked,
    parts: Sequence[Part],
    found: Mapping[str, Mapping[str, Any]],
    most: float | None,
) -> dict[str, Any]:
    """The content of certificate.json, as plain values.

    Parameters
    ----------
    config : of the run
    given : what was attacked
    parts, found : what was run, and what is stored of each part by its stem
    most : the gate on re-identification, if there is one
    """
    block = config.attack
    attacks = {
        name: _attack(
            name,
            [part for part in parts if part.attack == name],
            found,
            given.subject.architecture.settings,
        )
        for name in block.names
    }
    total = reidentification(attacks)
    content = {
        "format": FORMAT,
        "confide": version("confide"),
        "statement": STATEMENT,
        "release": given.subject.facts,
        "attacked": given.facts,
        "knowledge": block.knowledge,
        "known_share": block.known_share,
        "budget": block.budget,
        "minutes": block.minutes,
        "seed": block.seed,
        "device": device_of(config.performance).type,
        "attacks": attacks,
        "reidentification": total,
        "gate": None if most is None else gate(total, attacks, most),
        "notes": list(given.notes),
        "versions": {name: version(name) for name in ("confide", "numpy", "scipy", "torch")}
        | {"python": platform.python_version()},
    }
    content = plain(content)
    return {**content, "sha256": digest(content)}


def digest(content: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON of a certificate but for its `sha256`."""
    kept = {name: value for name, value in content.items() if name != "sha256"}
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _attack(
    name: str,
    parts: Sequence[Part],
    found: Mapping[str, Mapping[str, Any]],
    settings: EncodeSettings,
) -> dict[str, Any]:
    attack = KNOWN[name]
    positions = not settings.shuffle or getattr(settings, "position", False)
    limited = attack.needs_positions and not positions
    by_target: dict[str, Mapping[str, Any]] = {
        part.target: found[part.stem] for part in parts if part.x is None
    }
    scores = {target: _by_name(one["scores"]) for target, one in by_target.items()}
    release = by_target["release"]
    control = math.isinf(attack.breaks_at)
    singles = () if control else SINGLES_OUT.get(attack.finding, ())
    if release["not_run"]:
        state, why = "not run", release["not_run"]
    else:
        state, why = outcome(
            attack.headline,
            attack.breaks_at,
            scores["release"],
            scores["linear"],
            scores["noise"],
            scores.get("shallow"),
            singles,
        )
    if limited and state == NOTHING:
        state, why = "not established", "The rows carry no position, on which this attack rests."
    curves: dict[str, list[dict[str, Any]]] = {}
    for part in parts:
        if part.x is not None:
            one = found[part.stem]
            curves.setdefault(part.axis, []).append(
                {
                    "x": part.x,
                    "scores": _by_name(one["scores"]),
                    "seconds": one["seconds"],
                    "not_run": one["not_run"],
                }
            )
    return {
        "about": attack.about,
        "source": attack.source,
        "knowledge": attack.knowledge.__name__,
        "settings": release["settings"],
        "headline": attack.headline,
        "singles_out": list(singles),
        "breaks_at": None if control else attack.breaks_at,
        "limited": limited,
        "outcome": state,
        "why": why,
        **scores,
        "seconds": {target: one["seconds"] for target, one in by_target.items()},
        "n_codes": {target: one.get("n_codes") for target, one in by_target.items()},
        "notes": {target: one["notes"] for target, one in by_target.items() if one["notes"]},
        "not_run": {t: one["not_run"] for t, one in by_target.items() if one["not_run"]},
        "curves": curves,
    }


def _by_name(scores: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    return {s["name"]: {k: v for k, v in s.items() if k != "name"} for s in scores}
