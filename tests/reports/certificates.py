"""Certificates as attack runs write them: realistic in form and size, made up from a seed."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

import numpy as np

from confide.inversion import verdict

N, N_PATIENTS, N_PLAINTEXTS = 425, 180, 425

STATEMENT = (
    "What these attacks recovered from this release, with this knowledge and this effort. An "
    "attack that failed shows only that this attack failed; no release is private, anonymous or "
    "safe because of this certificate."
)

Scores = dict[str, dict[str, Any]]


def score(
    value: float,
    chance: float | None,
    *,
    half: float = 0.03,
    reach: float | None = None,
    limits: tuple[float, float] = (0.0, 1.0),
    n: int = N,
    n_patients: int = N_PATIENTS,
) -> dict[str, Any]:
    """One score; without a level of chance it has no interval either."""
    bare = chance is None
    reach = 2.5 * half if reach is None else reach
    return {
        "value": value,
        "low": None if bare else max(value - half, limits[0]),
        "high": None if bare else min(value + half, limits[1]),
        "chance": chance,
        "chance_low": None if bare else max(chance - reach, limits[0]),
        "chance_high": None if bare else min(chance + reach, limits[1]),
        "n": n,
        "n_patients": n_patients,
    }


def matching(share: float, *, half: float = 0.014) -> Scores:
    """Scores of a matching that gets that share right."""
    one = 1 / N_PLAINTEXTS
    return {
        "reid": score(share, one, half=half, reach=0.012),
        "reid_identical": score(min(share + 0.02, 1.0), 0.0026, half=half, reach=0.012),
        "patient": score(share, 0.0061, half=half, reach=0.02),
        "first_rank": score(share, one, half=half, reach=0.012),
        "mean_rank": score(1 + 212 * (1 - share), 213.0, half=9.0, limits=(1.0, 425.0)),
        "coverage": score(1.0, 1.0, half=0.02, reach=1.0),
    }


def areas(value: float) -> Scores:
    """Scores of a probe."""
    return {"auc": score(value, 0.5, half=0.045, reach=0.094)}


def linked(value: float) -> Scores:
    """Scores of a linkage."""
    share = min(max(2 * value - 1, 0.004), 1.0)
    precision = score(share, 0.0041, half=0.05, reach=0.011, n=391)
    return {"auc": score(value, 0.5, half=0.04, reach=0.08), "precision_at_1": precision}


def substitute(share: float) -> Scores:
    """Scores of a substitute encoder."""
    one = 1 / N
    return {
        "challenge2": score(share, one, half=0.03, reach=0.012),
        "challenge2_reverse": score(share * 0.97, one, half=0.03, reach=0.012),
        "mse_ratio": score(1 - 0.9 * share, 1.0, half=0.05, limits=(0.0, 9.0)),
        "mmd": score(0.000123, None),
    }


def maps(correlation: float) -> Scores:
    """Scores of maps."""
    return {
        "map_correlation": score(correlation, 0.02, half=0.02, reach=0.03, limits=(-1.0, 1.0)),
        "linkage_first_rank": score(max(correlation, 0.003), 0.0024, half=0.03, reach=0.012),
        "linkage_assigned": score(max(correlation, 0.003), 0.0024, half=0.03, reach=0.012),
    }


_OF = {
    "linkage": (linked, "auc", 0.9, "CodesOnly"),
    "one-key-linkage": (linked, "auc", 0.9, "OneKey"),
    "two-keys-linkage": (linked, "auc", 0.9, "TwoKeys"),
    "attribute-probe": (areas, "auc", 0.7, "KnownAttributes"),
    "alignment": (matching, "reid", 0.9, "SameImages"),
    "assignment": (matching, "reid", 0.9, "SameImages"),
    "plaintext": (substitute, "challenge2", 0.9, "KnownPairs"),
    "wrongly-paired": (substitute, "challenge2", math.inf, "KnownPairs"),
    "unpaired-alignment": (maps, "map_correlation", 0.5, "Unpaired"),
    "transfer": (areas, "auc", 0.7, "LabelledPlaintexts"),
}
"""Scores, the one that decides, where its positive control is broken (infinite of an attack that is
itself a control), and what is known."""

_SINGLES_OUT = {
    matching: ["reid"],
    substitute: ["challenge2"],
    maps: ["linkage_first_rank"],
}

# Value on the release, on the linear encoder, on noise; None where it was not run.
ALL: dict[str, tuple[float | None, float | None, float | None]] = {
    "linkage": (0.618, 0.94, 0.51),
    "one-key-linkage": (0.93, 0.97, 0.49),
    "two-keys-linkage": (0.512, 0.95, 0.5),
    "attribute-probe": (0.711, 0.86, 0.52),
    "alignment": (0.978, 1.0, 0.0024),
    "assignment": (0.0047, 0.35, 0.0),
    "plaintext": (0.842, 1.0, 0.0047),
    "wrongly-paired": (0.0024, 1.0, 0.0024),
    "unpaired-alignment": (0.731, 0.94, 0.02),
    "transfer": (None, None, None),
}

_SETTINGS = {"n_keys": 3, "epochs": 20, "learning_rate": 1e-4, "schedule": {"name": "plateau"}}


def attack(name: str, of: str, values: tuple[float | None, ...], **more: Any) -> dict[str, Any]:
    """One attack, made up of that kind."""
    make_scores, headline, breaks_at, knowledge = _OF[of]
    control = math.isinf(breaks_at)
    by = dict(zip(("release", "linear", "noise"), values, strict=True))
    scores = {t: {} if value is None else make_scores(value) for t, value in by.items()}
    why_not = "The attribute has fewer than two values in the attacker's plaintexts."
    if by["release"] is None:
        state, why = "not run", why_not
    else:
        state, why = verdict.outcome(headline, breaks_at, *scores.values())
    return {
        "about": f"What {name} does, in one sentence.",
        "source": "Carlini et al. 2021, arXiv 2108.07256, section 4"
        if of == "assignment"
        else "confide",
        "knowledge": knowledge,
        "settings": _SETTINGS,
        "headline": headline,
        "singles_out": [] if control else _SINGLES_OUT.get(make_scores, []),
        "breaks_at": None if control else breaks_at,
        "outcome": state,
        "why": why,
        **scores,
        "seconds": {"release": 47.31, "linear": 1803.2, "noise": 4.25},
        "n_codes": {t: None if value is None else N for t, value in by.items()},
        "notes": {"release": [f"{name} stopped at its deadline."]} if of == "plaintext" else {},
        "not_run": {t: why_not for t, value in by.items() if value is None},
        "curves": {},
    } | more


def points(make_scores: Any, xs: tuple[float, ...], values: tuple[float, ...]) -> list[dict]:
    """A curve."""
    return [
        {"x": x, "scores": make_scores(value), "seconds": 10.0 * i}
        for i, (x, value) in enumerate(zip(xs, values, strict=True), 1)
    ]


def make(
    values: dict[str, tuple[float | None, ...]] | None = None,
    *,
    most: float | None = None,
    **replaced: Any,
) -> dict[str, Any]:
    """A certificate of attacks with these scores; `replaced` are its keys."""
    values = ALL if values is None else values
    attacks = {name: attack(name, name, of) for name, of in values.items()}
    if "alignment" in attacks:
        attacks["alignment"]["curves"] = {
            "shadow keys": points(matching, (1, 2, 3, 5), (0.61, 0.87, 0.953, 0.978))
        }
    if "plaintext" in attacks:
        found = points(substitute, (5, 10, 50, 200), (0.01, 0.04, 0.45, 0.842))
        attacks["plaintext"]["curves"] = {"known pairs": found}
    return signed(
        {
            "format": 1,
            "confide": "0.1.0",
            "statement": STATEMENT,
            "release": {
                "release_id": "4f" * 16,
                "key_id": "9c" * 16,
                "manifest_digest": "ab12" * 16,
                "release_json_sha256": "cd34" * 16,
                "n_records": 11_214,
                "shape": [256, 2048],
                "dtype": "float32",
                "encoder": {"name": "neuracrypt", "patch": 16, "width": 2048, "private_depth": 4},
                "labels": ["opacity"],
                "columns": ["view"],
                "pseudonyms": False,
            },
            "attacked": {
                "n_codes": N,
                "n_patients": N_PATIENTS,
                "n_plaintexts": N_PLAINTEXTS,
                "attribute": "sex: F against M",
                "attribute_is_published": False,
            },
            "knowledge": "pairs",
            "known_share": 0.5,
            "budget": "quick",
            "minutes": None,
            "seed": 7,
            "device": "cpu",
            "attacks": attacks,
            "notes": ["425 of 11,214 codes were attacked, drawn by chance."],
            "versions": {"confide": "0.1.0", "numpy": "2.3.0", "torch": "2.13.0"},
        }
        | judged(attacks, most)
        | replaced
    )


def judged(attacks: dict[str, Any], most: float | None) -> dict[str, Any]:
    """Verdict and gate, by the rules of attack runs."""
    total = verdict.reidentification(attacks)
    return {
        "reidentification": total,
        "gate": None if most is None else verdict.gate(total, attacks, most),
    }


def signed(content: dict[str, Any]) -> dict[str, Any]:
    """With the sum of its canonical JSON."""
    kept = {key: value for key, value in content.items() if key != "sha256"}
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return {**kept, "sha256": hashlib.sha256(text.encode()).hexdigest()}


FAILED = {"alignment": (0.0024, 1.0, 0.0024)}
"""An attack that finds nothing, with both controls as they should be."""


def small(share: float, half: float) -> dict[str, Any]:
    """A certificate of one attack whose interval on the release has that half-width."""
    attacks = {"alignment": attack("alignment", "alignment", (share, 1.0, 0.0024))}
    attacks["alignment"]["release"] = matching(share, half=half)
    return make({}, attacks=attacks, **judged(attacks, 0.1))


def verdicts() -> dict[str, dict[str, Any]]:
    """A certificate of every verdict on re-identification."""
    return {
        "bad": make(most=0.05),
        "moderate": small(0.1, 0.03),
        "good": small(0.0024, 0.01),
        "not established": make({"assignment": ALL["assignment"]}, most=0.05),
        "not measured": make({"linkage": ALL["linkage"]}),
    }


def challenge() -> dict[str, Any]:
    """A certificate of the codes of a challenge, whose truth is not at hand."""
    made = attack("alignment", "alignment", (0.5, 1.0, 0.0024))
    made |= {"release": {}, "outcome": "not scored", "why": "The truth was not at hand."}
    attacks = {"alignment": made}
    return make(
        {},
        attacks=attacks,
        release={
            "challenge": True,
            "n_records": N,
            "shape": [256, 2048],
            "encoder": {"name": "neuracrypt", "patch": 16, "shuffle": True},
        },
        attacked={
            "n_codes": N,
            "n_patients": None,
            "n_plaintexts": N,
            "attribute": "No Finding",
            "attribute_is_published": False,
        },
        knowledge="same-images",
        notes=[],
        **judged(attacks, None),
    )


def hostile(names: tuple[str, ...]) -> dict[str, Any]:
    """A certificate with such names wherever one can stand."""
    attacks = {
        name: attack(
            name,
            "alignment",
            ALL["alignment"],
            about=name,
            source=name,
            knowledge=name,
            settings={name: name},
            why=name,
            outcome=name if i % 2 else "not established",
            notes={"release": [name]},
            not_run={"noise": name},
            curves={name: points(matching, (1, 3), (0.2, 0.9))},
        )
        for i, name in enumerate(names)
    }
    one = attacks[names[0]]
    one["release"] = one["release"] | {name: score(0.3, 0.1) for name in names}
    one["headline"] = names[0]
    text = dict.fromkeys(("release_id", "key_id", "manifest_digest", "dtype"), names[1])
    released = {**text, "labels": list(names), "columns": [names[0]], "shape": [names[2], names[3]]}
    released |= {"encoder": {names[2]: names[0]}, "shape": [256, 64], "n_records": N}
    verdict_ = {"verdict": names[0], "text": names[1]}
    return make(
        {},
        attacks=attacks,
        release=released,
        attacked={"n_codes": N, "n_patients": 12, "n_plaintexts": N, "attribute": names[5]},
        reidentification=verdict_,
        gate={"reid": 0.05, "met": False, "why": names[2]},
        statement=names[0],
        notes=list(names),
        versions={names[0]: names[1]},
        knowledge=names[4],
        budget=names[2],
    )


def pictures(*names: str) -> dict[str, list[dict[str, Any]]]:
    """Six pairs of pictures for each attack."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1:1:16j, -1:1:16j]
    made = []
    for _ in range(6):
        a, b = rng.uniform(-0.5, 0.5, 2)
        truth = np.exp(-4 * ((x - a) ** 2 + (y - b) ** 2))
        found = np.clip(truth + 0.12 * rng.standard_normal(truth.shape), 0, 1)
        made.append({"truth": truth.round(3).tolist(), "recovered": found.round(3).tolist()})
    return dict.fromkeys(names, made)
