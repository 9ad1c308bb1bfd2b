"""The audit: signals, masks and a cohort -> risk by record, patient and group."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import binom

from confide import _check
from confide.attacks import (
    Attack,
    named,
    public_features,
    require_inputs,
    scores_of_all,
    screen_precision,
)
from confide.attacks.base import Signals, chunks
from confide.audits.adjusted import covariates
from confide.audits.aggregate import evaluate
from confide.audits.canaries import epsilon_bounds
from confide.audits.clustered import clopper_pearson
from confide.audits.control import planted_control
from confide.audits.groups import group_table
from confide.audits.guards import refuse_shared_patients, voided
from confide.audits.mann_whitney import randomised_p_value
from confide.audits.null import joint_survival, max_survival
from confide.audits.patients import (
    PatientRisk,
    check_fdr,
    joint_signal,
    patient_risk,
    smallest_detectable_auc,
)
from confide.audits.power import detectable_auc
from confide.audits.result import AuditResult
from confide.audits.shrinkage import shrunken
from confide.audits.tables import patient_table, record_table, warnings
from confide.audits.tail import Tail, tail
from confide.audits.utility import Logits, utility
from confide.audits.verdict import verdict
from confide.cohort import Cohort
from confide.errors import ArgumentError, SignalError
from confide.signals import scalar

Floats = NDArray[np.float64]
Blocks = NDArray[np.int64]
TAIL_THRESHOLDS = (0.6, 0.7, 0.8, 0.9)
_SURVIVAL_GRID = np.linspace(0.5, 1.0, 101)
_KEPT_BYTES = 1_000_000_000
"""Signals that stay in memory beside the scores of the attacks; more are read again by each."""
_SCREENED, _SCREEN_FPR = 0.01, 0.001
_CORRECTED_GRID = np.round(np.linspace(0.5, 1.0, 21), 3)


@dataclass(frozen=True, kw_only=True)
class AuditSettings:
    """What an audit computes.

    Parameters
    ----------
    attacks : names (see ``confide.attacks.KNOWN``) or attack objects
    fdr : false discovery rate of the list of patients at risk
    top : share of patients in the tail whose groups are compared
    n_permutations : draws for the null of the `max` statistic
    looks : times that the list is looked at before it is known when to stop; it is made at
        fdr / looks, so that the false share stays at most `fdr` whenever one stops
    seed : of permutations, bootstraps and the control; the numbers of the list do not depend on it
    """

    attacks: Sequence[str | Attack] = ("lira", "rmia")
    fdr: float = 0.05
    top: float = 0.01
    n_permutations: int = 1000
    looks: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        check_fdr(self.fdr)
        _check.at_least(1, looks=self.looks)
        _check.in_range(0, 1, top=self.top)
        if not self.attacks:
            raise ArgumentError("Expected at least one attack.")
        _check.at_least(1, n_permutations=self.n_permutations)
        named(self.attacks)

    @property
    def fdr_of_list(self) -> float:
        """What the list is made at."""
        return self.fdr / self.looks


def audit(
    signals: Signals,
    membership: NDArray[np.bool_],
    cohort: Cohort,
    *,
    population: Floats | None = None,
    heldout: tuple[Logits, Cohort] | None = None,
    trace: Signals | None = None,
    block: Blocks | None = None,
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
    trace : (n_models, n_records) inter-quartile ranges of loss traces, for attacks that read them;
        see :class:`confide.attacks.LossTraceIQR`
    block : (n_models,) the blocks within which membership was drawn; None for a single one
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
    require_inputs(settings.attacks, trace=trace is not None, population=population is not None)
    if heldout is not None:
        refuse_shared_patients(cohort, heldout[1])
    signal = _scalar_signal(signals)
    if signal.size == math.prod(signals.shape) and signal.nbytes <= _KEPT_BYTES:
        signals = signal.reshape(signals.shape)  # read once
    records, risk = patient_risk(signal, membership, cohort, fdr=settings.fdr_of_list, block=block)
    if settings.looks > 1:  # on the scale of `fdr`, so that the list is where q_value <= fdr
        risk = replace(risk, q_value=np.minimum(settings.looks * risk.q_value, 1.0))
    corrected = tail(risk, _CORRECTED_GRID)
    groups, conflicts = cohort.patient_groups()
    table, overall = group_table(
        risk.joint,
        groups,
        order=1.0 - randomised_p_value(joint_signal(signal, cohort), membership, settings.seed),
        top=settings.top,
        seed=settings.seed,
        covariates=covariates(cohort),
    )
    survival = _survival(signal, membership, cohort, risk, corrected, settings, block)
    control = planted_control(
        signal,
        membership,
        cohort,
        risk.p_value,
        fdr=settings.fdr_of_list,
        seed=settings.seed,
        block=block,
    )
    epsilon = epsilon_bounds(signal, membership, cohort, block=block)
    less_noise = shrunken(signal, membership, cohort, risk, seed=settings.seed)
    del signal  # the scores of an attack take as much memory
    attacks, curves = _attacks(signals, membership, cohort, population, heldout, trace, settings)
    drawn = pd.concat([survival, *curves], ignore_index=True)
    summary: dict[str, Any] = {
        "n_models": len(membership),
        "n_patients": cohort.n_patients,
        "n_records": cohort.n_records,
        "n_heldout_records": 0 if heldout is None else heldout[1].n_records,
        "n_population": 0 if population is None else int(population.shape[1]),
        "models_missing": [],
        "task": cohort.task,
        "attacks": attacks,
        "patients": _patient_summary(risk, corrected, cohort, settings, block)
        | {"control": control},
        "groups": {k: v | {"n_conflicts": conflicts[k]} for k, v in overall.items()},
        "utility": None if heldout is None else utility(*heldout),
        "epsilon": epsilon,
        "guards": [],
        "warnings": warnings(
            membership, risk, named(settings.attacks), conflicts, population=population
        ),
    }
    summary["verdict"] = verdict(summary)
    return AuditResult(
        records=record_table(records, cohort),
        patients=patient_table(risk, less_noise, corrected, cohort, groups),
        groups=table,
        curves=drawn[["curve", "series", "x", "y", "low", "high"]],
        summary=summary,
    )


def _attacks(
    signals: Signals,
    membership: NDArray[np.bool_],
    cohort: Cohort,
    population: Floats | None,
    heldout: tuple[Logits, Cohort] | None,
    trace: Signals | None,
    settings: AuditSettings,
) -> tuple[dict[str, Any], list[pd.DataFrame]]:
    """Measures of every attack, by name, and their ROC curves."""
    by_record = cohort.expand(membership)
    n_population = None if population is None else population.shape[1]
    features = None
    if heldout is not None and n_population == heldout[1].n_records:
        features = (public_features(cohort), public_features(heldout[1]))
    attacks: dict[str, Any] = {}
    curves, kept = [], {}
    screens = [a.name for a in named(settings.attacks) if a.reads == "trace"]
    for attack in named(settings.attacks):
        scores = scores_of_all(
            attack, signals, by_record, population, features=features, trace=trace
        )
        attacks[attack.name], roc = evaluate(scores, membership, cohort, seed=settings.seed)
        curves.append(roc.assign(curve="roc", series=attack.name))
        if screens and attack.name in (*screens, "lira"):
            kept[attack.name] = scores
        del scores  # before those of the next attack are made
    for name in screens if "lira" in kept else ():
        precision, share = screen_precision(
            kept[name], kept["lira"], by_record, top=_SCREENED, fpr=_SCREEN_FPR
        )
        attacks[name]["screen"] = {
            "precision": precision,
            "all": share,
            "top": _SCREENED,
            "fpr": _SCREEN_FPR,
            "by": "lira",
        }
    return attacks, curves


def annotated(
    result: AuditResult,
    *,
    models_missing: Sequence[int] = (),
    guards: Sequence[dict[str, str]] = (),
    warnings: Sequence[str] = (),
) -> AuditResult:
    """The same result with what only the run knows: missing models, guards, warnings."""
    summary = dict(result.summary)
    if why := voided(guards):
        summary["verdict"] = {"status": "not_established", "text": why}
        summary["epsilon"] = []  # its bounds assume what the guards deny
    summary["models_missing"] = list(models_missing)
    summary["guards"] = [*summary["guards"], *guards]
    summary["warnings"] = [*summary["warnings"], *warnings]
    # What speaks against the numbers stands above them.
    first = ("verdict", "guards", "warnings")
    return replace(result, summary={key: summary[key] for key in first} | summary)


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
    corrected: Tail,
    settings: AuditSettings,
    block: Blocks | None,
) -> pd.DataFrame:
    frames = []
    for series, measured in (("joint", risk.joint), ("max", risk.maximum)):
        known = measured[~np.isnan(measured)]
        count = [int((known >= x - 1e-12).sum()) for x in _SURVIVAL_GRID]
        limits = [clopper_pearson(c, max(len(known), 1)) for c in count]
        low, high = np.asarray(limits).T
        share = np.asarray(count) / max(len(known), 1)
        frames.append(_curve(series, _SURVIVAL_GRID, share, low, high))
    has_risk = ~np.isnan(risk.joint)
    by_chance = joint_survival(risk.n_in[has_risk], risk.n_out[has_risk], _SURVIVAL_GRID)
    n = max(int(has_risk.sum()), 1)
    null_low, null_high = (binom.ppf(q, n, np.minimum(by_chance, 1.0)) / n for q in (0.025, 0.975))
    of_max = max_survival(
        signal,
        membership,
        cohort,
        _SURVIVAL_GRID,
        n_permutations=settings.n_permutations,
        seed=settings.seed,
        block=block,
    )
    t = corrected
    frames += [
        _curve("joint_null", _SURVIVAL_GRID, by_chance, null_low, null_high),
        _curve("max_null", _SURVIVAL_GRID, of_max, np.nan, np.nan),
        _curve("joint_corrected", t.thresholds, t.corrected, t.low, t.high),
    ]
    return pd.concat(frames, ignore_index=True).assign(curve="survival")


def _curve(
    series: str, x: Floats, y: Floats, low: Floats | float, high: Floats | float
) -> pd.DataFrame:
    return pd.DataFrame({"series": series, "x": x, "y": y, "low": low, "high": high})


def _patient_summary(
    risk: PatientRisk,
    corrected: Tail,
    cohort: Cohort,
    settings: AuditSettings,
    block: Blocks | None,
) -> dict[str, Any]:
    n_blocks = 1 if block is None else len(np.unique(block))
    sizes, fdr = cohort.records_per_patient, settings.fdr_of_list
    smallest, needed = smallest_detectable_auc(
        risk.n_in, risk.n_out, sizes, fdr=fdr, n_blocks=n_blocks
    )
    shares = ("raw", "raw_low", "raw_high", "null", "null_low", "null_high")
    tails = {}
    for threshold in TAIL_THRESHOLDS:
        at = int(np.argmin(np.abs(corrected.thresholds - threshold)))
        tails[f"{threshold:g}"] = {
            name: float(getattr(corrected, name)[at])
            for name in (*shares, "corrected", "low", "high")
        }
    return {
        "n_at_risk": int(risk.at_risk.sum()),
        "fdr": settings.fdr,
        "looks": settings.looks,
        "smallest_detectable_auc": smallest,
        "detectable_auc_80": detectable_auc(
            risk.n_in, risk.n_out, sizes, fdr=fdr, n_blocks=n_blocks, seed=settings.seed
        ),
        "n_perfect_needed": needed,
        "tail": tails,
    }
