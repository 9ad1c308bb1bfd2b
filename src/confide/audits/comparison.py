"""Several audits of the same patients side by side: what each recipe gives away, and what it is
good for.

Two recipes are told apart by what they give away where the difference between them is significant
after Holm's correction over all differences that are tested here.  Whether the one that gives away
less has lower utility is judged by the uncorrected interval: a correction would make it easier to
overlook a loss.  Nothing is ranked otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from confide.audits.clustered import Interval
from confide.audits.comparison_groups import group_table
from confide.audits.comparison_text import headline, pair_text
from confide.audits.comparison_warnings import warnings_on
from confide.audits.differences import (
    Difference,
    OverModels,
    PatientAreas,
    interval,
    over_patients,
    paired,
    unpaired,
)
from confide.audits.guards import voided
from confide.audits.multiple import holm
from confide.audits.verdict import SCREENS
from confide.errors import ArgumentError

ALPHA = 0.05
RATES = ("0.01", "0.001")
THRESHOLDS = ("0.6", "0.7", "0.8")
MEASURES = ("attack_auc", "mean_auc", "auroc")


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """What only the stored signals of an audit tell.

    Attributes
    ----------
    attack : area of the common attack, by model
    areas : areas of the patients, by model
    auroc : of the task on held-out patients, by model; None without any
    masks : digest of who was in which model
    """

    attack: OverModels
    areas: PatientAreas
    auroc: OverModels | None
    masks: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Arm:
    """One audit to compare.

    Attributes
    ----------
    name : what it is called
    recipe : the settings that differ between the audits, by dotted name
    summary : its summary.json
    patients, groups : its tables
    fraction : share of the models that hold a patient; None where it is not known
    settings_known : whether its settings are known; of predictions from elsewhere they are not
    erased : whether the signals were erased
    measured : from its signals; None where they were erased
    """

    name: str
    recipe: Mapping[str, Any]
    summary: Mapping[str, Any]
    patients: pd.DataFrame
    groups: pd.DataFrame
    fraction: float | None
    settings_known: bool = True
    erased: bool = False
    measured: Measured | None = None

    @property
    def areas(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """(n_patients,) area of every patient, all records together."""
        return self.patients["auc_joint"].to_numpy(dtype=np.float64, na_value=np.nan)


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """Audits side by side.

    Attributes
    ----------
    summary : plain JSON: verdict, warnings, attack, frontier_by ("auc" of the attack, or
        "mean_auc" of patients where numbers of models or shares of patients differ), n_patients,
        n_records, arms, pairs
    arms : one row an audit
    groups : one row an audit and group value, see
        :func:`confide.audits.comparison_groups.group_table`
    """

    summary: dict[str, Any]
    arms: pd.DataFrame
    groups: pd.DataFrame


def strongest_common(summaries: Sequence[Mapping[str, Any]]) -> str:
    """The attack with the highest mean area among those that were run in all audits.

    Raises
    ------
    ArgumentError : there is none
    """
    common = [
        name
        for name, found in summaries[0]["attacks"].items()
        if name not in SCREENS
        and all(_known(one["attacks"].get(name, {}).get("auc")) for one in summaries)
    ]
    if not common:
        raise ArgumentError(
            "The audits have no attack in common; name the same one under `audit: attacks` of "
            "all configurations and run `confide audit run` again, which trains nothing."
        )
    return max(
        common, key=lambda name: float(np.mean([s["attacks"][name]["auc"] for s in summaries]))
    )


def compare(arms: Sequence[Arm], attack: str, *, warnings: Sequence[str] = ()) -> Comparison:
    """Put audits of the same patients side by side.

    Parameters
    ----------
    arms : two or more, of the same patients and records in the same order
    attack : the one that all ran; see :func:`strongest_common`
    warnings : to be shown above the figures

    Raises
    ------
    ArgumentError : fewer than two, or names that are not different
    """
    names = [arm.name for arm in arms]
    if len(arms) < 2 or len(set(names)) < len(names):
        raise ArgumentError(f"Expected two audits or more with different names, got {names}.")
    rows = [_row(arm, attack) for arm in arms]
    # An attack finds more with more references, so that its area compares equal numbers only.
    alike = len({(arm.summary["n_models"], arm.fraction) for arm in arms}) == 1
    risk = "auc" if alike else "mean_auc"
    frontier = _frontier(rows, risk)
    for row, at in zip(rows, frontier, strict=True):
        row["on_frontier"] = at
    pairs = _pairs(arms, attack)
    groups, dropped = group_table(arms)
    summary = {
        "verdict": headline(pairs, names),
        "warnings": [*warnings_on(arms, pairs), *dropped, *warnings],
        "attack": attack,
        "frontier_by": risk,
        "n_patients": arms[0].summary["n_patients"],
        "n_records": arms[0].summary["n_records"],
        "arms": rows,
        "pairs": pairs,
    }
    return Comparison(summary=summary, arms=_flat(rows), groups=groups)


def _known(value: Any) -> bool:
    return isinstance(value, int | float) and bool(np.isfinite(value))


def _row(arm: Arm, attack: str) -> dict[str, Any]:
    """The figures of one audit."""
    found, patients = arm.summary["attacks"][attack], arm.summary["patients"]
    rates = found["tpr_at_fpr"]
    mean = _mean_area(arm)
    utility = (arm.summary.get("utility") or {}).get("overall") or {}
    return {
        "name": arm.name,
        "recipe": dict(arm.recipe),
        "settings_known": arm.settings_known,
        "erased": arm.erased,
        "n_models": arm.summary["n_models"],
        "status": arm.summary["verdict"]["status"],
        "n_at_risk": patients["n_at_risk"],
        "fdr": patients["fdr"],
        "auc": found["auc"],
        "auc_low": found["auc_low"],
        "auc_high": found["auc_high"],
        "tpr_at_fpr": {
            rate: None
            if not rates.get(rate)
            else {k: rates[rate][k] for k in ("tpr", "low", "high")}
            for rate in RATES
        },
        "attacks": {
            name: {key: one.get(key) for key in ("auc", "auc_low", "auc_high")}
            for name, one in arm.summary["attacks"].items()
            if name not in SCREENS
        },
        "mean_auc": mean.value,
        "mean_auc_low": mean.low,
        "mean_auc_high": mean.high,
        "mean_auc_covers": "patients" if arm.measured is None else "patients and models",
        "tail": {
            threshold: {
                key: patients["tail"][threshold][key] for key in ("corrected", "low", "high")
            }
            for threshold in THRESHOLDS
        },
        "auroc": utility.get("auroc"),
        "auroc_low": utility.get("low"),
        "auroc_high": utility.get("high"),
        "accuracy": utility.get("accuracy"),
        "accuracy_low": utility.get("accuracy_low"),
        "accuracy_high": utility.get("accuracy_high"),
        "guards": [
            dict(guard)
            for guard in arm.summary["guards"]
            if guard.get("status") in ("failed", "accepted")
        ],
    }


def _mean_area(arm: Arm) -> Interval:
    if arm.measured is not None:
        return interval(arm.measured.areas)
    alone = over_patients(arm.areas, np.zeros(len(arm.areas)))
    return Interval(value=alone.value, low=alone.low, high=alone.high)


def _frontier(rows: Sequence[Mapping[str, Any]], risk: str) -> list[bool]:
    """Which audits no other one beats in `risk` and utility both, by the estimates alone."""

    def beaten(one: Mapping[str, Any]) -> bool:
        return any(
            other[risk] <= one[risk]
            and other["auroc"] >= one["auroc"]
            and (other[risk], other["auroc"]) != (one[risk], one["auroc"])
            for other in rows
            if _known(other["auroc"])
        )

    return [_known(row["auroc"]) and not beaten(row) for row in rows]


def _pairs(arms: Sequence[Arm], attack: str) -> list[dict[str, Any]]:
    """All pairs of audits: differences, what they say, and in words."""
    made = [(a, b, _differences(a, b, attack)) for a, b in combinations(arms, 2)]
    tested = [d for _, _, found in made for d in found.values() if d and d.p_value is not None]
    adjusted = holm(np.array([d.p_value for d in tested], dtype=np.float64))
    p_holm = {id(d): float(p) for d, p in zip(tested, adjusted, strict=True)}
    pairs = []
    for a, b, found in made:
        corrected = {name: p_holm.get(id(d)) for name, d in found.items()}
        pair: dict[str, Any] = {"first": a.name, "second": b.name, "not_compared": _refused(a, b)}
        pair |= _judged(a, b, found, corrected)
        for name, d in found.items():
            pair[name] = None if d is None else asdict(d) | {"p_holm": corrected[name]}
        pair["text"] = pair_text(pair)
        pairs.append(pair)
    return pairs


def _differences(a: Arm, b: Arm, attack: str) -> dict[str, Difference | None]:
    one, other = a.measured, b.measured
    if one is not None and other is not None and one.masks == other.masks:
        both = one.auroc is not None and other.auroc is not None
        return {
            "attack_auc": paired(one.attack.minus(other.attack)),
            "mean_auc": paired(one.areas.minus(other.areas)),
            "auroc": paired(one.auroc.minus(other.auroc))
            if both and one.auroc is not None and other.auroc is not None
            else None,
        }
    mean = over_patients(a.areas, b.areas)
    if one is not None and other is not None:
        mean = unpaired(interval(one.areas), interval(other.areas))
    attacks = (arm.summary["attacks"][attack] for arm in (a, b))
    utility = ((arm.summary.get("utility") or {}).get("overall") or {} for arm in (a, b))
    return {
        "attack_auc": _from_intervals(*attacks, keys=("auc", "auc_low", "auc_high")),
        "mean_auc": mean,
        "auroc": _from_intervals(*utility, keys=("auroc", "low", "high")),
    }


def _from_intervals(
    first: Mapping[str, Any], second: Mapping[str, Any], *, keys: tuple[str, str, str]
) -> Difference | None:
    if not all(_known(found.get(key)) for found in (first, second) for key in keys):
        return None
    one, other = (
        Interval(value=found[keys[0]], low=found[keys[1]], high=found[keys[2]])
        for found in (first, second)
    )
    return unpaired(one, other)


def _refused(a: Arm, b: Arm) -> str | None:
    """Why nothing can be said of what two audits give away."""
    for arm in (a, b):
        if why := voided(arm.summary["guards"]):
            return f"In “{arm.name}”: {why}"
    return None


def _judged(
    a: Arm,
    b: Arm,
    found: Mapping[str, Difference | None],
    p_holm: Mapping[str, float | None],
) -> dict[str, Any]:
    """Which of two gives away less, by which figure, and what that costs.

    The attack is stronger with more references, so that audits with other numbers of models are
    judged by the mean area of patients, whose expectation does not depend on their number.
    """
    alike = (a.summary["n_models"], a.fraction) == (b.summary["n_models"], b.fraction)
    by = "attack_auc" if alike else "mean_auc"
    risk, utility = found[by], found["auroc"]
    p = p_holm[by]
    judged: dict[str, Any] = {"by": by, "less": None, "utility": _utility(utility, p_holm["auroc"])}
    if risk is None or p is None or _refused(a, b):
        return judged | {"status": "not_compared"}
    if p > ALPHA:
        return judged | {"status": "not_told_apart"}
    judged["less"] = a.name if risk.value < 0 else b.name
    if utility is None:
        return judged | {"status": "less"}
    # As seen from the one that gives away less.
    high = utility.high if risk.value < 0 else -utility.low
    return judged | {"status": "less_at_a_cost" if high < 0 else "less_at_no_detected_cost"}


def _utility(difference: Difference | None, p_holm: float | None) -> str | None:
    """Whose utility is higher: "first", "second" or "neither"; None where it was not measured."""
    if difference is None or p_holm is None:
        return None
    if p_holm > ALPHA:
        return "neither"
    return "first" if difference.value > 0 else "second"


def _flat(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row an audit, nested figures as columns such as tail_0.6_low."""
    table = pd.json_normalize(
        [{k: v for k, v in row.items() if k != "guards"} for row in rows], sep="_"
    )
    for status in ("failed", "accepted"):
        table[f"guards_{status}"] = [
            ", ".join(str(g.get("name")) for g in row["guards"] if g["status"] == status)
            for row in rows
        ]
    # Settings of any kind, as text.
    for column in table.columns[table.columns.str.startswith("recipe_")]:
        table[column] = table[column].map(str)
    return table
