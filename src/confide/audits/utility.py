"""How good the models are: AUROC and accuracy on patients that no model was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confide.audits.clustered import MeanOverModels, sum_by_patient, twice_above
from confide.audits.groups import MISSING
from confide.audits.suppression import jointly_withheld
from confide.cohort import Cohort
from confide.errors import SignalError

Floats = NDArray[np.float64]


class Logits(Protocol):
    """Logits of some models, in memory or read from disk one model at a time."""

    def __len__(self) -> int:
        """Number of models."""

    def __getitem__(self, model: int, /) -> NDArray[Any]:
        """(n_records, n_views, n_classes) of one model."""


def utility(logits: Logits, cohort: Cohort) -> dict[str, Any]:
    """AUROC and accuracy on held-out patients, overall and by group.

    Parameters
    ----------
    logits : (n_models, n_records, n_views, n_classes) of the held-out records, an array or
        anything that gives one model at a time
    cohort : the held-out records

    Returns
    -------
    {"overall": measures, "by_group": {group: {value: measures}}} with auroc, low, high, accuracy,
    accuracy_low, accuracy_high, n_patients; by group also withheld, whether a small cell would
    follow from what is shown.  Means over models; the intervals are for patients and
    models as sampling units.  AUROC is the macro average over classes (one against the rest) or
    labels; it is None where no class has both sides.

    Raises
    ------
    SignalError : a logit that is not finite
    """
    table, _ = cohort.patient_groups()
    everyone = _Values(np.zeros(cohort.n_patients, dtype=np.int16), ["all"], cohort)
    groups = {}
    for name in table.columns:
        values = table[name].astype(object).where(table[name].notna(), MISSING).astype(str)
        codes, labels = pd.factorize(values.to_numpy(), sort=True)
        groups[str(name)] = _Values(codes.astype(np.int16), [str(x) for x in labels], cohort)
    positive = positives(cohort)
    for i in range(len(logits)):
        mean = np.asarray(logits[i], dtype=np.float64).mean(axis=1)
        if not np.isfinite(mean).all():
            raise SignalError(
                f"A logit of model {i} for the held-out records is not finite; every logit must "
                "be. Did the training diverge?"
            )
        scores = _class_scores(mean, cohort)
        right, known = _right(mean, positive, cohort)
        falling = [_falling(scores[:, k], positive[:, k]) for k in range(positive.shape[1])]
        for part in (everyone, *groups.values()):
            part.add_areas(falling)
            part.add_shares(right, known)
    by_group = {name: part.measures() for name, part in groups.items()}
    hidden = jointly_withheld([part.of_patient.astype(np.intp) for part in groups.values()])
    for measures, small in zip(by_group.values(), hidden, strict=True):
        for measured, one in zip(measures.values(), small, strict=True):
            measured["withheld"] = bool(one)
    return {"overall": everyone.measures()["all"], "by_group": by_group}


@dataclass(frozen=True, kw_only=True)
class _Falling:
    """Records with a known truth, (n_known,) each, highest score first; `tied` if any are."""

    rows: NDArray[np.intp]
    score: Floats
    positive: NDArray[np.bool_]
    tied: bool


def _falling(scores: Floats, positive: Floats) -> _Falling:
    """Scores and truths (1, 0 or NaN) of the records, (n_records,) each, sorted."""
    rows = np.flatnonzero(~np.isnan(positive))
    rows = rows[np.argsort(-scores[rows])]
    score = scores[rows]
    tied = bool((score[1:] == score[:-1]).any())
    return _Falling(rows=rows, score=score, positive=positive[rows] == 1, tied=tied)


class _Values:
    """The measures of every value of a group, added up model by model.

    A patient has one value; the records are sorted once and dealt to the values in that order.
    """

    def __init__(self, of_patient: NDArray[np.int16], labels: list[str], cohort: Cohort) -> None:
        self._labels, self.of_patient = labels, of_patient
        self._patient_index = cohort.patient_index
        self._of_record = of_patient[cohort.patient_index]
        self._patients = [np.flatnonzero(of_patient == value) for value in range(len(labels))]
        self._areas = [MeanOverModels(len(patients)) for patients in self._patients]
        self._shares = [MeanOverModels(len(patients)) for patients in self._patients]

    def add_areas(self, columns: list[_Falling]) -> None:
        """Macro averages of the areas of one model; one entry a class or label."""
        total, count = np.zeros((2, len(self._labels)))
        influence = np.zeros(len(self.of_patient))
        for column in columns:
            area, of_patient = self._column(column)
            known = np.isfinite(area)
            total += np.where(known, area, 0.0)
            count += known
            influence += np.where(known[self.of_patient], of_patient, 0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            self._add(self._areas, total / count, influence / count[self.of_patient])

    def _column(self, column: _Falling) -> tuple[Floats, Floats]:
        """Areas (n_values,) and influences (n_patients,) of a class or label.

        As :func:`confide.audits.clustered.auc_influence`, for all values together: the records
        are put value after value, and what lies before a value is taken off by patient.
        """
        order = np.argsort(self._of_record[column.rows], kind="stable")  # by counting
        positive, rows = column.positive[order], column.rows[order]
        value = self._of_record[rows]
        new = value[1:] != value[:-1]
        if column.tied:
            new |= column.score[order][1:] != column.score[order][:-1]
            starts = np.flatnonzero(np.append(True, new)[: len(rows)])
        else:
            starts = np.arange(len(rows))
        true, places = twice_above(positive, starts)
        owner, n_patients = self._patient_index[rows], len(self.of_patient)
        pairs = sum_by_patient(true - positive * places, owner, n_patients)
        n_positive = sum_by_patient(positive.astype(np.float64), owner, n_patients)
        n_all = np.bincount(owner, minlength=n_patients)
        of, n_values = self.of_patient, len(self._labels)
        n, n_true = np.bincount(of, n_all, n_values), np.bincount(of, n_positive, n_values)
        n_false = n - n_true
        before, true_before = np.cumsum(n) - n, np.cumsum(n_true) - n_true
        pairs += 2.0 * (n_positive * (n_false + before)[of] - n_all * true_before[of])
        with np.errstate(invalid="ignore", divide="ignore"):
            area = np.bincount(of, pairs, n_values) / (4.0 * n_true * n_false)
            share = n_positive / n_true[of] + (n_all - n_positive) / n_false[of]
            return area, pairs / (2.0 * n_true * n_false)[of] - area[of] * share

    def add_shares(self, right: Floats, known: Floats) -> None:
        """Shares of right labels of one model: labels right and known, (n_records,) each."""
        n_right, n_known = (
            np.bincount(self._of_record, x, len(self._labels)) for x in (right, known)
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            share = n_right / n_known
            residual = (right - share[self._of_record] * known) / n_known[self._of_record]
        influence = sum_by_patient(residual, self._patient_index, len(self.of_patient))
        self._add(self._shares, share, influence)

    def _add(self, means: list[MeanOverModels], value: Floats, influence: Floats) -> None:
        for mean, one, patients in zip(means, value, self._patients, strict=True):
            mean.add(float(one), influence[patients])

    def measures(self) -> dict[str, dict[str, Any]]:
        """Measures of each value."""
        return {
            label: _measures(*means)
            for label, *means in zip(self._labels, self._areas, self._shares, strict=True)
        }


def _measures(areas: MeanOverModels, shares: MeanOverModels) -> dict[str, Any]:
    auroc, accuracy = areas.interval(), shares.interval()
    return {
        "auroc": _plain(auroc.value),
        "low": _plain(auroc.low),
        "high": _plain(auroc.high),
        "accuracy": _plain(accuracy.value),
        "accuracy_low": _plain(accuracy.low),
        "accuracy_high": _plain(accuracy.high),
        "n_patients": areas.n_patients,
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


def _right(logits: Floats, truth: Floats, cohort: Cohort) -> tuple[Floats, Floats]:
    """Labels that are right and that are known, of one model: (n_records,) each."""
    if cohort.task == "multiclass":
        right = (logits.argmax(axis=1) == cohort.label).astype(np.float64)
        return right, np.ones(len(right))
    known = ~np.isnan(truth)
    right = (((logits > 0) == (truth == 1)) & known).sum(axis=1).astype(np.float64)
    return right, known.sum(axis=1).astype(np.float64)
