"""How good the models are: AUROC and accuracy on patients that no model was trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from confide.audits.clustered import MeanOverModels, auc_influence, ordered, sum_by_patient
from confide.audits.groups import MISSING
from confide.cohort import Cohort

Floats = NDArray[np.float64]


def utility(logits: NDArray[Any], cohort: Cohort) -> dict[str, Any]:
    """AUROC and accuracy on held-out patients, overall and by group.

    Parameters
    ----------
    logits : (n_models, n_records, n_views, n_classes) of the held-out records
    cohort : the held-out records

    Returns
    -------
    {"overall": measures, "by_group": {group: {value: measures}}} with auroc, low, high, accuracy,
    accuracy_low, accuracy_high, n_patients.  Means over models; the intervals are for patients and
    models as sampling units.  AUROC is the macro average over classes (one against the rest) or
    labels; it is None where no class has both sides.
    """
    mean = np.asarray(logits, dtype=np.float64).mean(axis=2)
    table, _ = cohort.patient_groups()
    by_group: dict[str, dict[str, Any]] = {}
    for name in table.columns:
        values = table[name].astype(object).where(table[name].notna(), MISSING).astype(str)
        of_record = values.to_numpy()[cohort.patient_index]
        by_group[str(name)] = {
            str(value): _measures(mean[:, of_record == value], cohort.select(of_record == value))
            for value in sorted(set(of_record))
        }
    return {"overall": _measures(mean, cohort), "by_group": by_group}


def _measures(logits: Floats, cohort: Cohort) -> dict[str, Any]:
    areas = MeanOverModels(cohort.n_patients)
    shares = MeanOverModels(cohort.n_patients)
    positive = positives(cohort)
    for model in logits:
        area, influence = _macro_auc(_class_scores(model, cohort), positive, cohort)
        areas.add(area, influence)
        shares.add(*_accuracy(model, cohort))
    auroc, accuracy = areas.interval(), shares.interval()
    return {
        "auroc": _plain(auroc.value),
        "low": _plain(auroc.low),
        "high": _plain(auroc.high),
        "accuracy": _plain(accuracy.value),
        "accuracy_low": _plain(accuracy.low),
        "accuracy_high": _plain(accuracy.high),
        "n_patients": cohort.n_patients,
    }


def _plain(value: float) -> float | None:
    return value if np.isfinite(value) else None


def positives(cohort: Cohort) -> Floats:
    """(n_records, n_tests) 1, 0 or NaN: one test for binary, one a class or label else."""
    if cohort.task == "multilabel":
        return np.asarray(cohort.label, dtype=np.float64)
    if cohort.task == "binary":
        return cohort.label[:, None].astype(np.float64)
    return (cohort.label[:, None] == np.arange(len(cohort.classes))).astype(np.float64)


def _class_scores(logits: Floats, cohort: Cohort) -> Floats:
    if cohort.task != "multiclass":
        return logits
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def _macro_auc(scores: Floats, positive: Floats, cohort: Cohort) -> tuple[float, Floats]:
    values, influences = [], []
    for column in range(positive.shape[1]):
        known = ~np.isnan(positive[:, column])
        o = ordered(np.where(known, scores[:, column], np.nan), positive[:, column] == 1)
        value, influence = auc_influence(o, cohort.patient_index, cohort.n_patients)
        if np.isfinite(value):
            values.append(value)
            influences.append(influence)
    if not values:
        return float("nan"), np.zeros(cohort.n_patients)
    return float(np.mean(values)), np.mean(influences, axis=0)


def _accuracy(logits: Floats, cohort: Cohort) -> tuple[float, Floats]:
    """Share of known labels that are right, and each patient's influence on it."""
    if cohort.task == "multiclass":
        right = (logits.argmax(axis=1) == cohort.label).astype(np.float64)
        known = np.ones(len(right))
    else:
        truth = positives(cohort)
        mask = ~np.isnan(truth)
        right = (((logits > 0) == (truth == 1)) & mask).sum(axis=1).astype(np.float64)
        known = mask.sum(axis=1).astype(np.float64)
    total = known.sum()
    if total == 0:
        return float("nan"), np.zeros(cohort.n_patients)
    share = float(right.sum() / total)
    residual = (right - share * known) / total
    return share, sum_by_patient(residual, cohort.patient_index, cohort.n_patients)
