"""The audit: signals, masks and a cohort -> risk by record, patient and group."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confide import _check
from confide.attacks import Attack, named
from confide.attacks.base import Signals, check_membership, chunks
from confide.audits.aggregate import evaluate
from confide.audits.clustered import clopper_pearson
from confide.audits.control import planted_control
from confide.audits.groups import group_table
from confide.audits.mann_whitney import RowAuc
from confide.audits.null import joint_survival, max_survival
from confide.audits.patients import (
    PatientRisk,
    check_fdr,
    patient_risk,
    smallest_detectable_auc,
)
from confide.audits.result import AuditResult
from confide.audits.utility import utility
from confide.audits.verdict import verdict
from confide.cohort import Cohort
from confide.errors import ArgumentError, SignalError
from confide.signals import scalar

Floats = NDArray[np.float64]
TAIL_THRESHOLDS = (0.6, 0.7, 0.8, 0.9)
_SURVIVAL_GRID = np.linspace(0.5, 1.0, 101)


@dataclass(frozen=True, kw_only=True)
class AuditSettings:
    """What an audit computes.

    Parameters
    ----------
    attacks : names (see ``confide.attacks.KNOWN``) or attack objects
    fdr : false discovery rate of the list of patients at risk
    top : share of patients in the tail whose groups are compared
    n_permutations : draws for the null of the `max` statistic
    seed : of permutations, bootstraps and the control; the numbers of the list do not depend on it
    """

    attacks: Sequence[str | Attack] = ("lira", "rmia")
    fdr: float = 0.05
    top: float = 0.01
    n_permutations: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        check_fdr(self.fdr)
        _check.in_range(0, 1, top=self.top)
        if not self.attacks:
            raise ArgumentError("Expected at least one attack.")
        _check.at_least(1, n_permutations=self.n_permutations)
        named(self.attacks)


def audit(
    signals: Signals,
    membership: NDArray[np.bool_],
    cohort: Cohort,
    *,
    population: Floats | None = None,
    heldout: tuple[NDArray[Any], Cohort] | None = None,
    settings: AuditSettings | None = None,
) -> AuditResult:
    """Audit a training recipe from the signals of many models.

    Parameters
    ----------
    signals : (n_models, n_records[, n_views[, n_labels]]) float64, higher = more like a member; an
        array, or anything that slices like one (read from disk part by part)
    membership : (n_models, n_patients) bool, columns in the order of ``cohort.patients``
    cohort : the records, in the order of the second axis of `signals`
    population : signals of records that no model was trained on, as `signals`; RMIA compares with
        them
    heldout : (logits (n_models, n_heldout, n_views, n_classes), cohort) of patients that no model
        was trained on, for utility
    settings : what to compute

    Returns
    -------
    AuditResult

    Raises
    ------
    ArgumentError : shapes that do not fit, fewer than 4 models, a patient never in or never out
    SignalError : a signal that is infinite, or unknown in one model and known in another
    """
    settings = settings or AuditSettings()
    _check_design(signals, membership, cohort)
    signal = _scalar_signal(signals)
    records, risk = patient_risk(signal, membership, cohort, fdr=settings.fdr)
    by_record = cohort.expand(membership)
    attacks, curves = {}, [_survival(signal, membership, cohort, risk, settings)]
    for attack in named(settings.attacks):
        scores = attack.leave_one_out(signals, by_record, population)
        attacks[attack.name], roc = evaluate(scores, membership, cohort, seed=settings.seed)
        curves.append(roc.assign(curve="roc", series=attack.name))
    groups, conflicts = cohort.patient_groups()
    table, overall = group_table(risk.joint, groups, top=settings.top, seed=settings.seed)
    drawn = pd.concat(curves, ignore_index=True)[["curve", "series", "x", "y", "low", "high"]]
    summary: dict[str, Any] = {
        "n_models": len(membership),
        "n_patients": cohort.n_patients,
        "n_records": cohort.n_records,
        "n_heldout_records": 0 if heldout is None else heldout[1].n_records,
        "n_population": 0 if population is None else int(population.shape[1]),
        "models_missing": [],
        "task": cohort.task,
        "attacks": attacks,
        "patients": _patient_summary(signal, membership, cohort, risk, drawn, settings),
        "groups": {k: v | {"n_conflicts": conflicts[k]} for k, v in overall.items()},
        "utility": None if heldout is None else utility(*heldout),
        "epsilon": [],
        "guards": [],
        "warnings": _warnings(membership, cohort, risk, population, settings)
        + _conflict_warnings(conflicts),
    }
    summary["verdict"] = verdict(summary)
    return AuditResult(
        records=_record_table(records, cohort),
        patients=_patient_table(risk, cohort, groups),
        groups=table,
        curves=drawn,
        summary=summary,
    )


def annotated(
    result: AuditResult,
    *,
    models_missing: Sequence[int] = (),
    guards: Sequence[dict[str, str]] = (),
    warnings: Sequence[str] = (),
) -> AuditResult:
    """The same result with what only the run knows: missing models, guards, warnings."""
    summary = dict(result.summary)
    if any(g["name"] == "membership" and g["status"] == "failed" for g in guards):
        text = "The p-values need membership drawn at random; see the guards. No claim is made."
        summary["verdict"] = {"status": "not_established", "text": text}
    summary["models_missing"] = list(models_missing)
    summary["guards"] = [*summary["guards"], *guards]
    summary["warnings"] = [*summary["warnings"], *warnings]
    return replace(result, summary=summary)


def _check_design(signals: Signals, membership: NDArray[np.bool_], cohort: Cohort) -> None:
    n_models = signals.shape[0]
    if signals.shape[1] != cohort.n_records:
        raise ArgumentError(
            f"Expected signals of {cohort.n_records} records, got {signals.shape[1]}."
        )
    if membership.dtype != np.bool_ or membership.shape != (n_models, cohort.n_patients):
        raise ArgumentError(
            f"Expected bool membership of shape ({n_models}, {cohort.n_patients}), got "
            f"{membership.dtype} of shape {membership.shape}."
        )
    if n_models < 4:
        raise ArgumentError(f"An audit needs at least 4 models, got {n_models}.")
    n_in = membership.sum(axis=0)
    for n, word in ((n_in, "in"), (n_models - n_in, "out of")):
        if (n == 0).any():
            patient = cohort.patients[int(np.argmax(n == 0))]
            raise ArgumentError(
                f"Patient {patient!r} is never {word} the training data of any model; every "
                "patient must be in some models and out of others."
            )
    check_membership(signals, cohort.expand(membership))


def _scalar_signal(signals: Signals) -> Floats:
    """(n_models, n_records) one number a record, read part by part."""
    result = np.empty(tuple(signals.shape[:2]))
    for part in chunks(signals):
        values = signals[:, part]
        if np.isinf(values).any():
            model, record = (int(i) for i in np.argwhere(np.isinf(values))[0][:2])
            raise SignalError(
                f"The signal of model {model}, record {part.start + record} is infinite."
            )
        unknown = np.isnan(values)
        if unknown.any() and (unknown != unknown[:1]).any():
            model, record = (int(i) for i in np.argwhere(unknown != unknown[:1])[0][:2])
            raise SignalError(
                f"The signal of record {part.start + record} is missing in model {model} or in "
                "model 0 but not in both; a label is known or unknown for all models."
            )
        result[:, part] = scalar(values)
    return result


def _survival(
    signal: Floats,
    membership: NDArray[np.bool_],
    cohort: Cohort,
    risk: PatientRisk,
    settings: AuditSettings,
) -> pd.DataFrame:
    frames = []
    for series, measured in (("joint", risk.joint), ("max", risk.maximum)):
        known = measured[~np.isnan(measured)]
        count = [int((known >= x - 1e-12).sum()) for x in _SURVIVAL_GRID]
        limits = [clopper_pearson(c, max(len(known), 1)) for c in count]
        frames.append(
            pd.DataFrame(
                {
                    "series": series,
                    "x": _SURVIVAL_GRID,
                    "y": np.asarray(count) / max(len(known), 1),
                    "low": [low for low, _ in limits],
                    "high": [high for _, high in limits],
                }
            )
        )
    has_risk = ~np.isnan(risk.joint)
    nulls = {
        "joint_null": joint_survival(risk.n_in[has_risk], risk.n_out[has_risk], _SURVIVAL_GRID),
        "max_null": max_survival(
            signal,
            membership,
            cohort,
            _SURVIVAL_GRID,
            n_permutations=settings.n_permutations,
            seed=settings.seed,
        ),
    }
    frames += [
        pd.DataFrame({"series": name, "x": _SURVIVAL_GRID, "y": y, "low": np.nan, "high": np.nan})
        for name, y in nulls.items()
    ]
    return pd.concat(frames, ignore_index=True).assign(curve="survival")


def _patient_summary(
    signal: Floats,
    membership: NDArray[np.bool_],
    cohort: Cohort,
    risk: PatientRisk,
    curves: pd.DataFrame,
    settings: AuditSettings,
) -> dict[str, Any]:
    smallest, needed = smallest_detectable_auc(
        risk.n_in, risk.n_out, cohort.records_per_patient, fdr=settings.fdr
    )
    joint = curves[(curves["series"] == "joint") & (curves["curve"] == "survival")]
    null = curves[(curves["series"] == "joint_null") & (curves["curve"] == "survival")]
    tail = {}
    for threshold in TAIL_THRESHOLDS:
        at = int(np.argmin(np.abs(_SURVIVAL_GRID - threshold)))
        tail[f"{threshold:g}"] = {
            "raw": float(joint["y"].iloc[at]),
            "null": float(null["y"].iloc[at]),
            "corrected": None,
            "low": float(joint["low"].iloc[at]),
            "high": float(joint["high"].iloc[at]),
        }
    return {
        "n_at_risk": int(risk.at_risk.sum()),
        "fdr": settings.fdr,
        "smallest_detectable_auc": smallest,
        "n_perfect_needed": needed,
        "tail": tail,
        "control": planted_control(
            signal, membership, cohort, risk.p_value, fdr=settings.fdr, seed=settings.seed
        ),
    }


def _warnings(
    membership: NDArray[np.bool_],
    cohort: Cohort,
    risk: PatientRisk,
    population: Floats | None,
    settings: AuditSettings,
) -> list[str]:
    found = []
    few = int((np.minimum(risk.n_in, risk.n_out) < 2).sum())
    if few:
        found.append(
            f"{few:,} patients are in or out of fewer than two models; the attacks leave their "
            "records out, and their risk has no standard error."
        )
    unknown = int(np.isnan(risk.joint).sum())
    if unknown:
        found.append(f"{unknown:,} patients have no record with a known label; they have no risk.")
    ratio = any(a.name.startswith("rmia") for a in named(settings.attacks))
    if ratio and population is None:
        found.append(
            "No population records were given: RMIA orders the records of each target by their "
            "likelihood ratio, and its scores are not comparable between targets."
        )
    if len(membership) < 16:
        found.append(
            f"{len(membership)} models are few: the risk of single patients is hardly resolved."
        )
    return found


def _conflict_warnings(conflicts: dict[str, int]) -> list[str]:
    return [
        f"Group {name!r} differs between the records of {n:,} patients; the first record's value "
        "is used."
        for name, n in conflicts.items()
        if n
    ]


def _record_table(records: RowAuc, cohort: Cohort) -> pd.DataFrame:
    label: dict[str, Any] = {}
    if cohort.task == "multilabel":
        label = {f"label_{name}": cohort.label[:, i] for i, name in enumerate(cohort.classes)}
    else:
        names: Any = np.asarray(cohort.classes, dtype=object)
        if all(re.fullmatch(r"0|-?[1-9]\d{0,17}", name) for name in cohort.classes):
            names = names.astype(np.int64)  # numbers in the user's table stay numbers
        label = {"label": names[cohort.label]}
    return pd.DataFrame(
        {"record": cohort.record, "patient": cohort.patient}
        | label
        | {f"group_{name}": cohort.groups[name].to_numpy() for name in cohort.groups.columns}
        | {"auc": records.auc, "auc_se": records.se}
    )


def _patient_table(risk: PatientRisk, cohort: Cohort, groups: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {"patient": cohort.patients, "n_records": cohort.records_per_patient}
        | {f"group_{name}": groups[name].to_numpy() for name in groups.columns}
        | {
            "auc_joint": risk.joint,
            "auc_max": risk.maximum,
            "auc_se": risk.se,
            "p_joint": risk.p_joint,
            "p_max": risk.p_max,
            "p_value": risk.p_value,
            "q_value": risk.q_value,
            "at_risk": risk.at_risk,
        }
    )
