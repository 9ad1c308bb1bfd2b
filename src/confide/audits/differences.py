"""Differences between two audits of the same patients, with 95 % intervals.

Where two audits share their masks, model i of the one held the same patients as model i of the
other, and both patients and models are paired: the differences, model by model and patient by
patient, are treated as a single audit's figures are (:mod:`confide.audits.clustered`).  Where they
do not share them, the intervals of the two figures are combined as if the figures were
independent, which is too wide where patients who are easy in one audit are easy in the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, ndtr, stdtr, stdtrit
from scipy.stats import rankdata

from confide.audits.clustered import (
    LEVEL,
    Interval,
    MeanOverModels,
    Z,
    auc_influence,
    ordered,
)
from confide.audits.patients import joint_signal
from confide.audits.utility import Logits, positives
from confide.cohort import Cohort
from confide.errors import ArgumentError

Floats = NDArray[np.float64]
_QUANTILE = (1.0 + LEVEL) / 2.0
_CHUNK_ELEMENTS = 2_000_000


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A figure of one audit minus that of another.

    Attributes
    ----------
    value, low, high : the difference and its 95 % interval
    p_value : two-sided, of no difference; None where the interval covers patients alone, because
        it then says too little about the recipes
    paired : whether models were paired by shared masks
    covers : "patients and models", or "patients": how much the figure would change with others
    """

    value: float
    low: float
    high: float
    p_value: float | None
    paired: bool
    covers: str = "patients and models"

    @property
    def detected(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


class Measure(Protocol):
    """A mean with its standard error over patients and models."""

    def mean(self) -> float:
        """The figure."""

    def error(self) -> tuple[float, float]:
        """Standard error and degrees of freedom."""


@dataclass(frozen=True, kw_only=True, eq=False)
class OverModels:
    """A figure of every model, and the influence of every patient on it.

    Attributes
    ----------
    values : (n_models,) NaN where a model says nothing
    influence : (n_models, n_patients) float32; see :class:`confide.audits.clustered.MeanOverModels`
    shared : models are one another's references
    """

    values: Floats
    influence: NDArray[np.float32]
    shared: bool

    def minus(self, other: OverModels) -> OverModels:
        """Differences, model by model and patient by patient.

        Raises
        ------
        ArgumentError : other numbers of models or patients
        """
        if self.influence.shape != other.influence.shape:
            raise ArgumentError(
                f"Figures of {self.influence.shape} and of {other.influence.shape} models and "
                "patients cannot be paired."
            )
        return OverModels(
            values=self.values - other.values,
            influence=self.influence - other.influence,
            shared=self.shared,
        )

    def _summed(self) -> MeanOverModels:
        total = MeanOverModels(self.influence.shape[1], shared=self.shared)
        for value, influence in zip(self.values, self.influence, strict=True):
            total.add(float(value), influence.astype(np.float64))
        return total

    def mean(self) -> float:
        """Mean over models."""
        return self._summed().mean

    def error(self) -> tuple[float, float]:
        """Standard error of the mean, and its degrees of freedom."""
        return self._summed().se()


@dataclass(frozen=True, kw_only=True, eq=False)
class PatientAreas:
    """The area over models of every patient, and what each model adds to it.

    Attributes
    ----------
    areas : (n_patients,) NaN where unknown
    cells : (n_models, n_patients) float32; the squares of a column add up to DeLong's variance of
        the patient's area
    """

    areas: Floats
    cells: NDArray[np.float32]

    def minus(self, other: PatientAreas) -> PatientAreas:
        """Differences, patient by patient and model by model.

        Raises
        ------
        ArgumentError : other numbers of models or patients
        """
        if self.cells.shape != other.cells.shape:
            raise ArgumentError(
                f"Areas of {self.cells.shape} and of {other.cells.shape} models and patients "
                "cannot be paired."
            )
        return PatientAreas(areas=self.areas - other.areas, cells=self.cells - other.cells)

    def mean(self) -> float:
        """Mean over patients."""
        return float(np.nanmean(self.areas))

    def error(self) -> tuple[float, float]:
        """Standard error of the mean over patients and models, and its degrees of freedom.

        Two-way clustering (Cameron, Gelbach and Miller, J. Bus. Econ. Stat. 29 (2011) 238-249,
        eq. 2.11): the variance over patients, plus that over models, less what both hold twice;
        the models' own part is never taken to be below zero.  The degrees of freedom are those of
        the models, where they are fewer than the patients: with 8 models more would be too many.
        """
        known = ~np.isnan(self.areas)
        areas, n_models = self.areas[known], len(self.cells)
        n = max(len(areas), 1)
        patients = float(np.var(areas, ddof=1)) / n if n > 1 else 0.0
        by_model, both = np.zeros(n_models), 0.0
        for i, row in enumerate(self.cells):
            cells = row[known].astype(np.float64)
            by_model[i] = cells.sum() / n
            both += float(cells @ cells) / n**2
        models = max(0.0, float(by_model @ by_model) - both)
        return float(np.sqrt(patients + models)), float(max(min(n, n_models) - 1, 1))


def record_auc(scores: Floats, membership: NDArray[np.bool_], cohort: Cohort) -> OverModels:
    """Area under the ROC curve of an attack on every model, over records.

    Parameters
    ----------
    scores : (n_models, n_records), higher = more like a member; NaN is left out
    membership : (n_models, n_patients) bool
    cohort : whose records they are
    """
    values = np.empty(len(scores))
    influence = np.empty(membership.shape, dtype=np.float32)
    for i, row in enumerate(scores):
        o = ordered(row, cohort.expand(membership[i]))
        values[i], influence[i] = auc_influence(o, cohort.patient_index, cohort.n_patients)
    return OverModels(values=values, influence=influence, shared=True)


def heldout_auroc(logits: Logits, cohort: Cohort) -> OverModels:
    """AUROC of the task of every model, as :func:`confide.audits.utility.utility` has it.

    Parameters
    ----------
    logits : (n_models, n_records, n_views, n_classes) of the held-out records, read model by model
    cohort : the held-out records
    """
    positive = positives(cohort)
    values = np.empty(len(logits))
    influence = np.zeros((len(logits), cohort.n_patients), dtype=np.float32)
    for i in range(len(logits)):
        scores = np.asarray(logits[i], dtype=np.float64).mean(axis=1)
        if cohort.task == "multiclass":
            scores = log_softmax(scores, axis=1)
        found = []
        for column, truth in zip(scores.T, positive.T, strict=True):
            o = ordered(np.where(np.isnan(truth), np.nan, column), truth == 1)
            found.append(auc_influence(o, cohort.patient_index, cohort.n_patients))
        known = [one for one in found if np.isfinite(one[0])]
        values[i] = np.mean([area for area, _ in known]) if known else np.nan
        if known:
            influence[i] = np.mean([own for _, own in known], axis=0)
    return OverModels(values=values, influence=influence, shared=False)


def patient_areas(signal: Floats, membership: NDArray[np.bool_], cohort: Cohort) -> PatientAreas:
    """Area over models of every patient, all records together (`auc_joint`), with its parts.

    Parameters
    ----------
    signal : (n_models, n_records) one number a record, NaN for a record without a known label
    membership : (n_models, n_patients) bool
    cohort : whose records they are

    Notes
    -----
    DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988) 837-845, equations 3 to 6.
    """
    summed = joint_signal(signal, cohort)
    areas = np.empty(cohort.n_patients)
    cells = np.empty(summed.shape, dtype=np.float32)
    step = max(1, _CHUNK_ELEMENTS // len(summed))
    for start in range(0, cohort.n_patients, step):
        part = slice(start, start + step)
        areas[part], cells[:, part] = _placed(summed[:, part], membership[:, part])
    known = np.bincount(
        cohort.patient_index, weights=~np.isnan(signal[0]), minlength=cohort.n_patients
    )
    areas[known == 0] = np.nan
    return PatientAreas(areas=areas, cells=cells)


def _placed(values: Floats, held: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Areas (n_patients,) and what each model adds (n_models, n_patients)."""
    n_in = held.sum(axis=0)
    n_out = len(held) - n_in
    # Of the other side, the share on the right side of each model; ties half.
    place = rankdata(values, axis=0)
    own_in = rankdata(np.where(held, values, np.inf), axis=0)
    own_out = rankdata(np.where(held, np.inf, values), axis=0)
    share = np.where(held, (place - own_in) / n_out, 1.0 - (place - own_out) / n_in)
    area = np.where(held, share, 0.0).sum(axis=0) / n_in
    least = np.maximum(np.where(held, n_in, n_out) - 1, 1)
    return area, (share - area) / np.sqrt(np.where(held, n_in, n_out) * least)


def interval(measure: Measure) -> Interval:
    """A mean with its symmetric 95 % interval."""
    value, (error, dof) = measure.mean(), measure.error()
    half = float(stdtrit(dof, _QUANTILE)) * error
    return Interval(value=value, low=value - half, high=value + half)


def paired(difference: Measure) -> Difference:
    """The difference of two audits that share their masks: pass ``first.minus(second)``."""
    value, (error, dof) = difference.mean(), difference.error()
    half = float(stdtrit(dof, _QUANTILE)) * error
    # Without any spread there is no telling.
    p = 2.0 * float(stdtr(dof, -abs(value) / error)) if error > 0 else 1.0
    return Difference(value=value, low=value - half, high=value + half, p_value=p, paired=True)


def unpaired(first: Interval, second: Interval) -> Difference:
    """The difference of two figures from their intervals alone, taken as independent.

    Zou and Donner, Statist. Med. 27 (2008) 1693-1702, equation 4: squares of the distances to the
    limits add up.
    """
    value = first.value - second.value
    below = float(np.hypot(first.value - first.low, second.high - second.value))
    above = float(np.hypot(first.high - first.value, second.value - second.low))
    towards = below if value > 0 else above
    p = 2.0 * float(ndtr(-Z * abs(value) / towards)) if towards > 0 else 1.0
    return Difference(value=value, low=value - below, high=value + above, p_value=p, paired=False)


def over_patients(first: Floats, second: Floats) -> Difference:
    """Mean difference of two figures of the same patients; the interval covers patients alone.

    `first`, `second` (n_patients,), NaN where unknown.
    """
    gap = first - second
    gap = gap[~np.isnan(gap)]
    value, n = float(gap.mean()), len(gap)
    error = float(np.std(gap, ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
    half = float(stdtrit(max(n - 1, 1), _QUANTILE)) * error
    return Difference(
        value=value,
        low=value - half,
        high=value + half,
        p_value=None,
        paired=False,
        covers="patients",
    )
