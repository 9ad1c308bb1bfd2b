"""What a training with differential privacy promises, as written text beside what was measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from confide.reports import numbers
from confide.reports.view import part, strongest

MEANING = (
    "Upper bounds, on average over trainings, for any attacker who sees the finished model and "
    "knows everything else, but not the randomness of the training. Whole patients are in or out "
    "of the models of an audit, so the bounds of a patient are those to hold the attacks against. "
    "The measured attack also learns from other models of the same patients, which the bounds do "
    "not speak of: it stands beside them for orientation. What can refute them is the accounting "
    "guard."
)
"""How the bounds are to be read."""

OUTSIDE = (
    "How inputs are prepared: mean and spread are taken over all audited records, members or not, "
    "without noise; of tables also which columns and categories become inputs, so that a category "
    "that one patient alone has shows in the shape of the network.",
    "The number of records and patients, and the split of the data.",
    "Patients set apart to choose an epoch: nothing is promised to them.",
    "A person under two ids, or at two sites, who counts as two.",
    "Codes, where the models were trained on a release: the release is out, and its encoder was "
    "calibrated on records.",
    "Settings that were tried on the same data before these.",
    "Weights of a network that was trained before, on other data.",
    "Several models: each release of a further model of the same patients adds to what is given "
    "away.",
    "Attackers who know the random numbers or the time that steps take; rounding of floating-point "
    "noise.",
)
"""What the guarantee does not cover."""


@dataclass(frozen=True, kw_only=True)
class Bound:
    """The most that an attack can do about one unit."""

    unit: str
    epsilon: str
    auc: str
    tpr: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Promise:
    """All that a report says of a guarantee.

    Attributes
    ----------
    facts : name and value of what was set and accounted for
    delta : of all epsilons
    bounds : by unit
    rates : the false positive rates of :attr:`Bound.tpr`
    measured : what the strongest measured attack reaches at these rates
    note : what the record's guarantee means for a patient; empty if it is the patient's
    """

    facts: tuple[tuple[str, str], ...]
    delta: str
    bounds: tuple[Bound, ...]
    rates: tuple[str, ...]
    measured: Mapping[str, str]
    note: str


def promise(summary: Mapping[str, Any]) -> Promise | None:
    """The guarantee in a summary, None where there is none."""
    found = part(summary, "privacy")
    if not found:
        return None
    units = part(found, "by_unit")
    bounds = tuple(_bound(unit, part(units, unit)) for unit in units)
    attack = strongest(summary)
    return Promise(
        facts=tuple(_facts(found)),
        delta=_plain(found.get("delta")),
        bounds=bounds,
        rates=tuple(dict.fromkeys(rate for bound in bounds for rate in bound.tpr)),
        measured={} if attack is None else {rate.fpr: rate.tpr for rate in attack.rates},
        note=_note(found),
    )


def _facts(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    epsilon, delta = _up(found.get("epsilon"), 2), _plain(found.get("delta"))
    return [
        ("Unit", f"{numbers.name(found.get('unit'))} ({numbers.name(found.get('adjacency'))})"),
        ("Epsilon and delta", f"{epsilon} at {delta}"),
        ("Clipping norm", _plain(found.get("clip"))),
        ("Noise, in clipping norms", _plain(found.get("noise"))),
        ("Sampling rate", _plain(found.get("rate"))),
        ("Steps", numbers.count(found.get("steps"))),
        ("Accountant", numbers.name(found.get("accountant"))),
    ]


def _bound(unit: str, found: Mapping[str, Any]) -> Bound:
    rates = part(found, "tpr_at_fpr")
    return Bound(
        unit=numbers.name(unit),
        epsilon=_up(found.get("epsilon"), 2),
        auc=_up(found.get("auc"), 3),
        tpr={numbers.rate(rate): _percent(value) for rate, value in rates.items()},
    )


def _note(found: Mapping[str, Any]) -> str:
    if found.get("unit") != "record":
        return ""
    return (
        "The unit of the training is the record. A patient with several records is promised less; "
        "the row of a patient is for the largest number of records that a patient has, here "
        f"{numbers.count(found.get('most_records'))}."
    )


def _up(value: Any, decimals: int) -> str:
    """An upper bound, rounded up.

    >>> _up(0.7311, 2), _up(0.5, 3), _up(None, 2)
    ('0.74', '0.500', 'n/a')
    """
    x = numbers.number(value)
    if x is None:
        return numbers.MISSING
    scale = 10**decimals
    return f"{math.ceil(x * scale - 1e-9) / scale:.{decimals}f}"


def _percent(value: Any) -> str:
    """A share rounded up, with as many decimals as it takes for two digits.

    >>> _percent(0.0271), _percent(0.00042), _percent(1.0)
    ('2.8%', '0.042%', '100%')
    """
    x = numbers.number(value)
    if x is None:
        return numbers.MISSING
    if x >= 0.1 or x <= 0:
        return f"{math.ceil(100 * x - 1e-9)}%"
    decimals = 1 - math.floor(math.log10(100 * x))
    return f"{_up(100 * x, decimals)}%"


def _plain(value: Any) -> str:
    x = numbers.number(value)
    return numbers.MISSING if x is None else f"{x:.4g}"
