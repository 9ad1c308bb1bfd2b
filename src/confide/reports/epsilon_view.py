"""Lower bounds of epsilon as written text: whose, at which confidence, and what they assume."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from confide.reports import numbers

LOWER_ONLY = (
    "Lower bounds only: each says which smaller epsilon is refuted, and none proves privacy. A "
    "bound of 0 says nothing. Each holds at its confidence by itself; the largest of several does "
    "not."
)
"""How every such table is to be read."""

_RANDOM = (
    "Whether membership was drawn at random is not established (guard membership). The bounds "
    "hold only if it was."
)
_METHODS = {
    "one_run": "guesses about many",
    "clopper_pearson": "one alone, over models",
    "gdp": "one alone, Gaussian curve",
}
_SINGULAR = {"patients": "patient", "canaries": "canary"}
_GAUSSIAN = "gdp"


@dataclass(frozen=True, kw_only=True)
class Bound:
    """One lower bound; `note` is the number of its assumption."""

    method: str
    whose: str
    unit: str
    value: str
    delta: str
    confidence: str
    evidence: str
    note: int


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """All that a report says of epsilon.

    Attributes
    ----------
    epsilon : bounds of epsilon
    gaussian : bounds of mu, which hold for trainings whose privacy follows a Gaussian curve
    notes : what bounds assume, in the order of their numbers from 1
    caution : what speaks against all of them; empty if nothing does
    """

    epsilon: tuple[Bound, ...]
    gaussian: tuple[Bound, ...]
    notes: tuple[str, ...]
    caution: str


def bounds(summary: Mapping[str, Any]) -> Bounds | None:
    """The bounds of a summary, None where there is none.

    The same bound for two units, as where every patient has one record, is one row.
    """
    found = [one for one in summary.get("epsilon") or [] if isinstance(one, Mapping)]
    if not found:
        return None
    assumed = list(dict.fromkeys(numbers.name(one.get("assumes") or "") for one in found))
    notes = [text for text in assumed if text != numbers.name("")]
    shown = [(one.get("method") == _GAUSSIAN, _bound(one, notes)) for one in found]
    return Bounds(
        epsilon=_merged([bound for gaussian, bound in shown if not gaussian]),
        gaussian=_merged([bound for gaussian, bound in shown if gaussian]),
        notes=tuple(notes),
        caution="" if _random(summary) else _RANDOM,
    )


def _random(summary: Mapping[str, Any]) -> bool:
    """Whether no guard doubts that membership was drawn at random."""
    return all(
        guard.get("status") == "passed"
        for guard in summary.get("guards") or []
        if guard.get("name") == "membership"
    )


def _bound(found: Mapping[str, Any], notes: Sequence[str]) -> Bound:
    method = numbers.name(found.get("method"))
    assumes = numbers.name(found.get("assumes") or "")
    whose, n = numbers.name(found.get("whose")), numbers.count(found.get("n_patients"))
    return Bound(
        method=_METHODS.get(method, method),
        whose=f"{n} {_SINGULAR.get(whose, whose) if n == '1' else whose}",
        unit=numbers.name(found.get("unit")),
        value=_floor(found.get("mu" if method == _GAUSSIAN else "epsilon")),
        delta=_plain(found.get("delta")),
        confidence=numbers.rate(found.get("confidence")),
        evidence=_evidence(found),
        note=notes.index(assumes) + 1 if assumes in notes else 0,
    )


def _evidence(found: Mapping[str, Any]) -> str:
    right, guesses = (numbers.count(found.get(key)) for key in ("n_correct", "n_guesses"))
    if numbers.MISSING not in (right, guesses):
        return f"{right} of {guesses} guesses right"
    n_in, n_out = (numbers.count(found.get(key)) for key in ("n_in", "n_out"))
    if numbers.MISSING in (n_in, n_out):
        return numbers.MISSING
    models = "model" if n_in == "1" else "models"
    return f"a member of {n_in} {models}, not of {n_out}"


def _floor(value: Any) -> str:
    """A lower bound with two decimals, rounded down.

    >>> _floor(0.6479), _floor(0.29), _floor(0.0), _floor(0.004), _floor(None)
    ('0.64', '0.29', '0', '> 0', 'n/a')
    """
    x = numbers.number(value)
    if x is None:
        return numbers.MISSING
    if x == 0:
        return "0"
    down = math.floor(100 * x + 1e-9) / 100
    return f"{down:.2f}" if down > 0 else "> 0"


def _plain(value: Any) -> str:
    x = numbers.number(value)
    return numbers.MISSING if x is None else f"{x:g}"


def _merged(rows: Sequence[Bound]) -> tuple[Bound, ...]:
    units: dict[Bound, list[str]] = {}
    for row in rows:
        units.setdefault(replace(row, unit=""), []).append(row.unit)
    return tuple(replace(row, unit=" = ".join(unit)) for row, unit in units.items())
