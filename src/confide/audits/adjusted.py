"""Differences in mean risk between patients, as they are and at equal covariates.

A group may be more at risk because its patients have more records or rarer classes.  The adjusted
difference answers: among patients with as many records and classes as frequent, how much larger
is the mean area of the group than that of all others?  It does not make the group's risk go away:
a patient with many records *is* more at risk.  It says how much of the difference goes with
those covariates, as far as a sum of smooth curves describes them; whatever else differs between
the groups stays in it.

Patients are the unit.  The errors are those of least squares with unequal variances (HC2), with
the degrees of freedom of Bell and McCaffrey (Survey Methodology 28 (2002) 169-181), which keep
intervals of small groups honest; without covariates the error is Welch's.  They describe which
patients there are and the noise of each; that all figures come from the same models is no part
of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from confide.audits.clustered import LEVEL, sum_by_patient
from confide.cohort import Cohort

Floats = NDArray[np.float64]
_RANK = 1e-9


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Mean of some patients minus mean of all others, with its 95 % interval and p-value.

    All but `value` are NaN where the error cannot be estimated, and all where `value` cannot.
    """

    value: float
    low: float
    high: float
    p_value: float


_UNKNOWN = Difference(value=np.nan, low=np.nan, high=np.nan, p_value=np.nan)


def covariates(cohort: Cohort) -> Floats:
    """What the number of records and the rarity of classes say of each patient.

    Parameters
    ----------
    cohort : records with their patients and labels

    Returns
    -------
    (n_patients, n_covariates): the logarithm of the number of records and the mean over the
    patient's records of the logarithm of their class's share of all records, each with its
    square and cube, because risk need not rise in a straight line with either.  Of a record with
    several labels the logarithms of the true sides of its known labels are averaged; NaN for a
    patient without any known label.
    """
    n = cohort.records_per_patient
    columns = [np.log(n), sum_by_patient(_log_share(cohort), cohort.patient_index, len(n)) / n]
    return np.column_stack([_standard(column) ** k for column in columns for k in (1, 2, 3)])


def _standard(column: Floats) -> Floats:
    known = column[np.isfinite(column)]
    spread = float(known.std()) if len(known) else 0.0
    if spread <= _RANK:
        return column * 0.0  # NaN stays NaN
    result: Floats = (column - known.mean()) / spread
    return result


def _log_share(cohort: Cohort) -> Floats:
    """(n_records,) logarithm of the share of records that have this record's class."""
    if cohort.task != "multilabel":
        share = np.bincount(cohort.label, minlength=len(cohort.classes)) / cohort.n_records
        return np.asarray(np.log(share[cohort.label]))
    known = ~np.isnan(cohort.label)
    n_known = np.maximum(known.sum(axis=0), 1)
    positive = np.nansum(cohort.label, axis=0) / n_known
    share = np.where(cohort.label == 1, positive, 1 - positive)
    total = np.log(np.where(known, share, 1.0)).sum(axis=1)
    count = known.sum(axis=1)
    return np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)


class Regression:
    """Least squares of risk on covariates, to which one group at a time is added.

    Parameters
    ----------
    risk : (n_patients,)
    covariates : (n_patients, n_covariates), may be collinear; an intercept is added.  Patients
        with an unknown risk or covariate are left out
    """

    def __init__(self, risk: Floats, covariates: Floats | None = None) -> None:
        given = np.empty((len(risk), 0)) if covariates is None else covariates
        self._used = np.isfinite(risk) & np.isfinite(given).all(axis=1)
        design = np.column_stack([np.ones(int(self._used.sum())), given[self._used]])
        left, size, _ = np.linalg.svd(design, full_matrices=False)
        # (n_coefficients, n_used), each row together in memory
        self._basis = np.ascontiguousarray(left[:, size > _RANK * size.max(initial=0.0)].T)
        self._leverage = (self._basis**2).sum(axis=0)
        known = risk[self._used]
        self._size = float(np.abs(known).max(initial=0.0))
        self._rest = known - (self._basis @ known) @ self._basis

    def difference(self, inside: NDArray[np.bool_]) -> Difference:
        """Mean risk of the patients inside minus that of the others, covariates equal.

        `inside` (n_patients,) bool.  The coefficient of `inside` in the regression, found from
        what the covariates leave of it (Frisch, Waugh and Lovell).  O(n_patients) a call.
        """
        member = inside[self._used].astype(np.float64)
        basis = self._basis
        own = member - (basis @ member) @ basis
        square = float(own @ own)
        if not square > _RANK * max(member.sum(), 1.0):
            return _UNKNOWN  # nobody, everybody, or told by the covariates alone
        value = float(own @ self._rest) / square
        unknown = Difference(value=value, low=np.nan, high=np.nan, p_value=np.nan)
        free = 1.0 - self._leverage - own**2 / square
        if free.min() < _RANK:
            return unknown  # a single patient sets a coefficient; nothing tells its error
        weight = (own / square) ** 2 / free
        error = self._rest - value * own
        se = float(np.sqrt(weight @ error**2))
        if not se > _RANK * self._size:
            return unknown
        joined = np.vstack([basis, own / np.sqrt(square)])
        spread = (joined * weight) @ joined.T
        scale = float(weight**2 @ (2.0 * free - 1.0)) + float((spread**2).sum())
        dof = 1.0 / (square**2 * scale)
        width = float(stdtrit(dof, (1 + LEVEL) / 2)) * se
        p = 2.0 * float(stdtr(dof, -abs(value) / se))
        return Difference(value=value, low=value - width, high=value + width, p_value=p)
