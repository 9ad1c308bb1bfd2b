"""The audit of one released model: an attack on it, and how far the attack can be believed.

There is one target, so there is no risk of a patient over models and no list of patients.  What
can be measured is how well attacks tell the target's training data from other data of the same
source, with patients as the sampling units, over records and over patients.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import norm, rankdata

from confide.attacks import RMIA, Attack, LiRA, LossThreshold, OfflineLiRA, OfflineRMIA
from confide.audits.aggregate import evaluate
from confide.audits.clustered import sum_by_patient
from confide.audits.drawn import Compared, drawn, drawn_alike, reference_guard
from confide.audits.result import AuditResult
from confide.cohort import Cohort
from confide.errors import ArgumentError

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

NAMED_AT = (0.01, 0.001)
"""False-positive rates at which the table of patients says whom an attack would name."""

_NAMES = {
    "loss": "the loss threshold",
    "lira_offline": "offline LiRA",
    "rmia_offline": "offline RMIA",
    "lira": "LiRA",
    "rmia": "RMIA",
}
_DEFAULT_A = 0.3  # Zarifzadeh et al.'s value for CIFAR-10, where nothing can be tuned on
_GRID = np.linspace(0.0, 1.0, 11)
_TUNING_RECORDS = 5_000
_MOST_TUNED = 8


def audit_released(
    signals: Floats, membership: Mask, cohort: Cohort, *, seed: int = 0
) -> AuditResult:
    """Audit one model from its signals and those of references.

    Parameters
    ----------
    signals : (1 + n_references, n_records[, n_views[, n_labels]]) float64, the target first;
        higher = more like a member; NaN where a label is unknown
    membership : (1 + n_references, n_patients) bool
    cohort : members and non-members of the target, from one source
    seed : of the draw of references and of the bootstrap

    Returns
    -------
    AuditResult.  `records`: record, patient, group_*, member, score_<attack>.  `patients`:
    patient, n_records, group_*, member, score_<attack>, and named_<attack>_at_<rate>, whether an
    attacker who accepts that rate of false alarms would name the patient.  `groups` is empty.
    `curves` has the curves "roc" (records) and "roc_patients".  In `summary`, each attack has the
    measures of :func:`confide.audits.aggregate.evaluate` over records, and the same over patients
    under "by_patient"

    Raises
    ------
    ArgumentError : shapes that do not fit, or fewer than two patients on a side
    """
    member = _checked(signals, membership, cohort)
    references, held = signals[1:], membership[1:]
    rng = np.random.default_rng(seed)
    out = drawn(~held, member, rng)
    pair = drawn_alike(~held, member, rng), drawn_alike(held, member, rng)
    guard = reference_guard(held, member, [one for one in (out, *pair) if one is not None])
    scores: dict[str, Floats] = {"loss": _loss(signals[0])}
    if out is not None and guard is not None and guard["status"] == "passed":
        scores |= _offline(signals[0], references, held, out, cohort)
        scores |= _online(signals[0], references, *pair, cohort)
    patient_scores = {name: by_patient(score, cohort) for name, score in scores.items()}
    people = _people(cohort)
    attacks: dict[str, Any] = {}
    curves = []
    for name, score in scores.items():
        attacks[name], roc = _evaluated(score, member, cohort, seed)
        attacks[name]["by_patient"], of_patients = _evaluated(
            patient_scores[name], member, people, seed
        )
        curves += [
            roc.assign(curve="roc", series=name),
            of_patients.assign(curve="roc_patients", series=name),
        ]
    of_record = cohort.expand(member)
    summary: dict[str, Any] = {
        "kind": "released_model",
        "n_models": 1,
        "n_references": len(references),
        "n_references_compared": _mean_used(out, scores),
        "n_patients": cohort.n_patients,
        "n_records": cohort.n_records,
        "members": {"n_patients": int(member.sum()), "n_records": int(of_record.sum())},
        "nonmembers": {"n_patients": int((~member).sum()), "n_records": int((~of_record).sum())},
        "models_missing": [],
        "task": cohort.task,
        "attacks": attacks,
        "smallest_detectable_auc": _smallest(attacks),
        "patients": {},
        "groups": {},
        "utility": None,
        "epsilon": [],
        "guards": [] if guard is None else [guard],
        "warnings": _warnings(member, scores, held),
    }
    summary["verdict"] = verdict(summary)
    groups, _ = cohort.patient_groups()
    return AuditResult(
        records=_table({"record": cohort.record, "patient": cohort.patient}, cohort.groups)
        .assign(member=of_record)
        .assign(**{f"score_{name}": score for name, score in scores.items()}),
        patients=_table(
            {"patient": cohort.patients, "n_records": cohort.records_per_patient}, groups
        )
        .assign(member=member)
        .assign(**{f"score_{name}": score for name, score in patient_scores.items()})
        .assign(**_named(patient_scores, member)),
        groups=pd.DataFrame(columns=["group", "value", "n_patients"]),
        curves=pd.concat(curves, ignore_index=True)[["curve", "series", "x", "y", "low", "high"]],
        summary=summary,
    )


def _checked(signals: Floats, membership: Mask, cohort: Cohort) -> Mask:
    if signals.ndim < 2 or signals.shape[1] != cohort.n_records or len(signals) < 1:
        raise ArgumentError(
            f"Expected signals of a target and its references on {cohort.n_records} records, got "
            f"shape {signals.shape}."
        )
    wanted = (len(signals), cohort.n_patients)
    if membership.dtype != np.bool_ or membership.shape != wanted:
        raise ArgumentError(
            f"Expected bool membership of shape {wanted}, got {membership.dtype} of shape "
            f"{membership.shape}."
        )
    member = membership[0]
    if min(member.sum(), (~member).sum()) < 2:
        raise ArgumentError(
            f"{int(member.sum())} patients are members and {int((~member).sum())} are not; an "
            "audit needs at least 2 of each, from one source."
        )
    return member


def _mean_used(out: Compared | None, scores: Mapping[str, Floats]) -> float:
    """References without a patient that the patient is compared with, on average."""
    return float(out.n_used.mean()) if out is not None and len(scores) > 1 else 0.0


def _loss(target: Floats) -> Floats:
    nothing = target[None][:0]
    return LossThreshold().score(target, nothing, np.zeros(nothing.shape[:2], dtype=bool))


def _offline(
    target: Floats, references: Floats, held: Mask, out: Compared, cohort: Cohort
) -> dict[str, Floats]:
    against, given = out.of(references, cohort)
    attacks: list[Attack] = [
        OfflineLiRA(),
        OfflineRMIA(a=tuned_a(references, cohort.expand(held))),
    ]
    # What is not given stands on the side that these attacks do not read.
    return {
        attack.name: np.where(given.any(axis=0), attack.score(target, against, ~given), np.nan)
        for attack in attacks
    }


def _online(
    target: Floats,
    references: Floats,
    out: Compared | None,
    within: Compared | None,
    cohort: Cohort,
) -> dict[str, Floats]:
    """Attacks that need references of both kinds, at least two of each; else nothing."""
    if out is None or within is None or min(out.n_used.max(), within.n_used.max()) < 2:
        return {}
    (with_it, given_in), (without, given_out) = (
        one.of(references, cohort) for one in (within, out)
    )
    held = np.zeros((len(with_it) + len(without), cohort.n_records), dtype=bool)
    held[: len(with_it)] = True
    keep = given_in.any(axis=0) & given_out.any(axis=0)
    against = np.concatenate([with_it, without])
    attacks: list[Attack] = [LiRA(), RMIA()]
    scores = {}
    for attack in attacks:
        scores[attack.name] = np.full(cohort.n_records, np.nan)
        scores[attack.name][keep] = attack.score(target[keep], against[:, keep], held[:, keep])
    return scores


def tuned_a(references: Floats, held: Mask) -> float:
    """The `a` of offline RMIA that is best when references play the target.

    Zarifzadeh et al., ICML 2024, appendix B; the target's own membership is never used.

    Parameters
    ----------
    references : (n_references, n_records, ...) signals
    held : (n_references, n_records) bool

    Returns
    -------
    in [0, 1]; 0.3 where no reference was trained on some of the records and not on others
    """
    n_references, n_records = held.shape
    rows = np.arange(0, n_records, max(1, n_records // _TUNING_RECORDS))
    signals, held = references[:, rows], held[:, rows]
    total = np.zeros(len(_GRID))
    n_tuned = 0
    for one in range(n_references):
        others = np.delete(np.arange(n_references), one)
        usable = (~held[others]).any(axis=0) & np.isfinite(_loss(signals[one]))
        truth = held[one][usable]
        if not len(others) or truth.all() or not truth.any():
            continue
        for i, a in enumerate(_GRID):
            score = OfflineRMIA(a=float(a)).score(
                signals[one][usable], signals[others][:, usable], held[others][:, usable]
            )
            total[i] += _auc(score, truth)
        n_tuned += 1
        if n_tuned == _MOST_TUNED:
            break
    return float(_GRID[int(np.argmax(total))]) if n_tuned else _DEFAULT_A


def _auc(scores: Floats, truth: Mask) -> float:
    n = int(truth.sum())
    return float((rankdata(scores)[truth].sum() - n * (n + 1) / 2) / (n * (len(truth) - n)))


def by_patient(score: Floats, cohort: Cohort) -> Floats:
    """One score a patient: the sum of its records' normal scores over the root of their number.

    Ranks over all records make the scores of an attack comparable with any other's; the root
    keeps the spread alike for patients with many records and with few.  NaN for a patient none of
    whose records has a score.

    Parameters
    ----------
    score : (n_records,) higher = more like a member, NaN where unknown

    Returns
    -------
    (n_patients,)
    """
    known = np.isfinite(score)
    normal = np.zeros(len(score))
    normal[known] = norm.ppf((rankdata(score[known]) - 0.5) / max(known.sum(), 1))
    n = sum_by_patient(known.astype(np.float64), cohort.patient_index, cohort.n_patients)
    total = sum_by_patient(normal, cohort.patient_index, cohort.n_patients)
    return np.divide(total, np.sqrt(n), out=np.full(len(n), np.nan), where=n > 0)


def _people(cohort: Cohort) -> Cohort:
    """One row a patient, whose label has no meaning."""
    return Cohort(
        record=cohort.patients,
        patient=cohort.patients,
        label=np.zeros(cohort.n_patients, dtype=np.int64),
        task="binary",
        classes=("0", "1"),
    )


def _evaluated(
    score: Floats, member: Mask, cohort: Cohort, seed: int
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Measures over the records that have a score, so that rates and their limits are of these."""
    known = np.isfinite(score)
    part = cohort.select(known)
    # Patients of the part, in its own order.
    place = pd.Series(np.arange(cohort.n_patients), index=cohort.patients)
    of_part = member[place.loc[part.patients].to_numpy()]
    measures, roc = evaluate(score[known][None], of_part[None], part, seed=seed)
    measures["n_scored"] = {
        "members": int(part.expand(of_part).sum()),
        "nonmembers": int((~part.expand(of_part)).sum()),
    }
    return measures, roc


def _named(scores: Mapping[str, Floats], member: Mask) -> dict[str, Any]:
    """Whom an attacker would name who accepts a rate of false alarms among non-members."""
    found: dict[str, Any] = {}
    for name, score in scores.items():
        others = np.sort(score[~member & np.isfinite(score)])[::-1]
        for rate in NAMED_AT:
            k = int(np.floor(rate * len(others) + 1e-9))
            if k:
                found[f"named_{name}_at_{rate:g}"] = score >= others[k - 1]
    return found


def _table(columns: Mapping[str, Any], groups: pd.DataFrame) -> pd.DataFrame:
    named = {f"group_{name}": groups[name].to_numpy() for name in groups.columns}
    return pd.DataFrame(dict(columns) | named)


def _smallest(attacks: Mapping[str, Any]) -> float | None:
    """The area that the best of the attacks would have shown in four of five such audits."""
    z = float(ndtri(1 - 0.025 / (2 * len(attacks))))  # over records and over patients
    errors = [
        (measured["auc_high"] - measured["auc_low"]) / (2 * float(ndtri(0.975)))
        for measured in attacks.values()
    ]
    known = [error for error in errors if np.isfinite(error)]
    return min(1.0, 0.5 + (z + float(ndtri(0.8))) * min(known)) if known else None


def _warnings(member: Mask, scores: Mapping[str, Floats], held: Mask) -> list[str]:
    found = []
    fewest = int(min(member.sum(), (~member).sum()))
    if fewest < 100:
        found.append(
            f"Only {fewest} patients are on one side: the intervals are wide, and less exact than "
            "stated."
        )
    if not len(held):
        found.append(
            "No reference model was given: only the loss threshold was run, by far the weakest "
            "attack. What it does not find, an attacker with references may."
        )
    elif len(held) == 1:
        found.append("One reference is few: an attacker with more may find more.")
    unscored = {name: int(np.isnan(score).sum()) for name, score in scores.items()}
    found += [
        f"{n:,} records have no score of {_NAMES[name]}: their label is unknown, or too few "
        "references are left for them."
        for name, n in unscored.items()
        if n
    ]
    return found


def verdict(summary: Mapping[str, Any]) -> dict[str, str]:
    """Status and text from the attacks of a summary.

    Statuses: "detectable" (an attack tells members from non-members of this model better than
    chance, over records or over patients) and "not_shown" (none does; never "safe").
    """
    seen = []
    measured = {
        f"{_NAMES[name]} over {unit}": one
        for name, of_records in summary["attacks"].items()
        for unit, one in (("records", of_records), ("patients", of_records["by_patient"]))
    }
    for name, one in measured.items():
        auc, low = one["auc"], one["auc_low"]
        widened = float(ndtri(1 - 0.025 / len(measured)) / ndtri(0.975)) * (auc - low)
        if auc - widened > 0.5:  # False for NaN
            high = one["auc_high"]
            seen.append(f"{name} (AUC {auc:.3f}, 95% interval {low:.3f} to {high:.3f})")
    if seen:
        text = (
            "What this model says about a record tells better than chance whether the record was "
            f"in its training data: {'; '.join(seen)}."
        )
        return {"status": "detectable", "text": text}
    smallest = summary["smallest_detectable_auc"]
    reach = (
        ""
        if smallest is None
        else f" An attack with an AUC of {smallest:.3f} or more would probably have been seen."
    )
    text = (
        "None of the attacks that were run is shown to tell this model's training data from other "
        f"data of the same source.{reach} This does not say that nothing leaks: stronger attacks "
        "and single patients stay unseen."
    )
    return {"status": "not_shown", "text": text}
