"""Risk of records and patients over models, with exact nulls.

Two statistics of a patient, always both.  `joint` adds up the patient's standardised signals in
each model and takes the area over models: it finds a leak that is spread over the records.  `max`
is the largest area of the patient's records, the published one (Knolle et al., Nature 2026): it
finds one leaking record among several.  The list of patients uses both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from confide.attacks.threads import in_threads
from confide.audits.clustered import sum_by_patient
from confide.audits.mann_whitney import (
    RowAuc,
    blocked_p_value,
    blocked_tail,
    row_auc,
    survival,
)
from confide.audits.multiple import benjamini_hochberg
from confide.cohort import Cohort
from confide.errors import ArgumentError

Floats = NDArray[np.float64]
_RECORDS = 4096


@dataclass(frozen=True, kw_only=True)
class PatientRisk:
    """Risk of every patient; all arrays are (n_patients,).

    Attributes
    ----------
    joint, maximum : areas over models
    se : DeLong standard error of `joint`
    p_joint, p_max : exact one-sided p-values against "the patient's membership has no effect"
    p_value : of the two together
    q_value : Benjamini-Hochberg over patients
    at_risk : q_value <= fdr
    n_in, n_out : models with and without the patient
    """

    joint: Floats
    maximum: Floats
    se: Floats
    p_joint: Floats
    p_max: Floats
    p_value: Floats
    q_value: Floats
    at_risk: NDArray[np.bool_]
    n_in: NDArray[np.int64]
    n_out: NDArray[np.int64]


def patient_risk(
    signal: Floats,
    membership: NDArray[np.bool_],
    cohort: Cohort,
    *,
    fdr: float = 0.05,
    block: NDArray[np.int64] | None = None,
) -> tuple[RowAuc, PatientRisk]:
    """Risk of the records and of the patients of a cohort.

    Parameters
    ----------
    signal : (n_models, n_records) one number a record, NaN for a record without a known label
    membership : (n_models, n_patients) bool
    cohort : whose records they are
    fdr : false discovery rate of the list of patients at risk
    block : (n_models,) the blocks within which membership was drawn; None for a single one

    Returns
    -------
    areas of the records, risk of the patients

    Notes
    -----
    Given everything else, the membership column of a patient is exchangeable over models when the
    patient's outputs do not depend on it.  `joint` is computed from values in which membership had
    no part, so its Mann-Whitney p-value is exact.  k times the p-value of the best of k records
    is valid for `max` whatever the correlation between records.  With one record both are the
    same test; else p = min(1, 2 min(p_joint, p_max)).
    """
    check_fdr(fdr)
    by_record, summed = cohort.expand(membership), joint_signal(signal, cohort)
    records, joint = row_auc(signal, by_record), row_auc(summed, membership)
    if block is None or (block == block[0]).all():
        p_records, p_summed = records.p_value(), joint.p_value()
    else:
        p_records = blocked_p_value(signal, by_record, block)
        p_summed = blocked_p_value(summed, membership, block)
    known = sum_by_patient(
        (~np.isnan(records.auc)).astype(np.float64), cohort.patient_index, cohort.n_patients
    )
    none = known == 0
    p_joint = np.where(none, 1.0, p_summed)
    best_p = np.ones(cohort.n_patients)
    np.minimum.at(best_p, cohort.patient_index, p_records)
    p_max = np.minimum(1.0, known * best_p)
    p_max[none] = 1.0
    p_value = combined_p(p_joint, p_max, known)
    q_value = benjamini_hochberg(p_value)
    return records, PatientRisk(
        joint=np.where(none, np.nan, joint.auc),
        maximum=segment_max(records.auc, cohort),
        se=np.where(none, np.nan, joint.se),
        p_joint=p_joint,
        p_max=p_max,
        p_value=p_value,
        q_value=q_value,
        at_risk=q_value <= fdr,
        n_in=joint.n_in,
        n_out=joint.n_out,
    )


def check_fdr(fdr: float) -> None:
    """Refuse a false discovery rate that is not strictly between 0 and 1."""
    if not 0 < fdr < 1:
        raise ArgumentError(f"Expected fdr={fdr!r} strictly between 0 and 1.")


def combined_p(p_joint: Floats, p_max: Floats, n_records: Floats) -> Floats:
    """The p-value of the two tests together: Bonferroni, or the one test with one record."""
    return np.where(n_records <= 1, p_joint, np.minimum(1.0, 2.0 * np.minimum(p_joint, p_max)))


def joint_signal(signal: Floats, cohort: Cohort) -> Floats:
    """Sum over a patient's records of signals standardised over models: (n_models, n_patients).

    Mean and deviation are over all models whatever their membership, so the sum treats models
    alike; a record whose signal is constant or unknown adds nothing.
    """
    result = np.empty((len(signal), cohort.n_patients))
    mean, deviation = _centred(signal)
    usable = deviation > 1e-12 * (np.abs(mean) + 1.0)
    scale = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=usable)
    centre = np.where(usable, mean, 0.0)

    def add_up(model: int) -> None:
        standard = np.where(usable, (signal[model] - centre) * scale, 0.0)
        result[model] = sum_by_patient(standard, cohort.patient_index, cohort.n_patients)

    for _ in in_threads(add_up, range(len(signal))):
        pass
    return result


def _centred(signal: Floats) -> tuple[Floats, Floats]:
    """Mean and deviation over models: (n_records,) each, of some records at a time.

    The deviation of all at a time would take as much memory as the signals.
    """
    mean, deviation = np.empty((2, signal.shape[1]))
    for start in range(0, signal.shape[1], _RECORDS):
        part = slice(start, start + _RECORDS)
        mean[part] = signal[:, part].mean(axis=0)
        deviation[part] = signal[:, part].std(axis=0)
    return mean, deviation


def segment_max(values: Floats, cohort: Cohort) -> Floats:
    """Largest value of each patient's records: (n_records,) -> (n_patients,), NaN if none."""
    best = np.full(cohort.n_patients, -np.inf)
    np.fmax.at(best, cohort.patient_index, values)
    return np.where(np.isinf(best), np.nan, best)


def smallest_detectable_auc(
    n_in: NDArray[np.int64],
    n_out: NDArray[np.int64],
    n_records: NDArray[np.int64],
    *,
    fdr: float = 0.05,
    n_blocks: int = 1,
) -> tuple[float | None, int]:
    """What the number of models allows: (smallest listable area, patients needed).

    The smallest area at which the median patient, alone, would be on the list at this `fdr`; None
    if even perfect separation would not be.  The second number says how many patients with
    perfect separation it takes for any to be listed (1 where one is enough).  `n_blocks` equal
    blocks, within which membership was drawn, compare their own models only.
    """
    n_patients = len(n_in)
    side_in, side_out = int(np.median(n_in)), int(np.median(n_out))
    tests = 1 if np.median(n_records) <= 1 else 2
    if n_blocks == 1:
        tail = survival(side_in, side_out, np.arange(side_in * side_out + 1))
    else:
        tail = blocked_tail(((side_in // n_blocks, side_out // n_blocks),) * n_blocks)[:-1]
    pairs = len(tail) - 1
    needed = int(np.ceil(tests * float(tail[-1]) * n_patients / fdr - 1e-9))
    enough = np.flatnonzero(tests * tail <= fdr / n_patients)
    return (float(enough[0] / pairs) if len(enough) else None), max(needed, 1)
