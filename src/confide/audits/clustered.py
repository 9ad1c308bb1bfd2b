"""Means over models of per-model statistics, with errors for patients and models together.

Records of one patient are not independent, and models trained by one recipe differ.  The variance
of a mean over models of a statistic of patients has two parts: V_patients, from patients as the
sampling units, with all their records and models; and what models differ beyond that (a two-way
layout with random effects, by its moments), never less than zero.  Degrees of freedom are
Satterthwaite's, so that few models make wide intervals.  For the area under the ROC curve
V_patients is Obuchowski's clustered DeLong variance (Biometrics 53 (1997) 567-578), carried from
one model to the mean over models.

The scores of an attack on one target use the other models as references, and that dependence
between targets is no part of the layout: with few models the variance comes out too small where
leaks differ widely.  For attacks the degrees of freedom are therefore at most those of the models,
and with up to 16 models nothing is taken off what models differ: the variance is then an upper
bound, and the intervals cover more than 95 % where leaks do not differ.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, expit, ndtri, stdtrit

Floats = NDArray[np.float64]
LEVEL = 0.95
_QUANTILE = (1.0 + LEVEL) / 2.0
Z = float(ndtri(_QUANTILE))
_FEW = 16
"""Up to as many models that are one another's references, the variance is an upper bound."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass
class MeanOverModels:
    """Adds up a statistic model by model; see the module for the error of the mean.

    `add` takes the value of a model and the influence of each patient on it (n_patients,), which
    sums to zero and whose squares sum to the variance over patients.  `shared`: the models are one
    another's references.
    """

    n_patients: int
    shared: bool = False
    values: list[float] = field(default_factory=list)
    _within: float = 0.0
    _influence: Floats | None = None

    def add(self, value: float, influence: Floats) -> None:
        """Add one model."""
        if not np.isfinite(value):
            return  # a model without both classes says nothing
        self.values.append(value)
        self._within += float(influence @ influence)
        self._influence = influence if self._influence is None else self._influence + influence

    @property
    def mean(self) -> float:
        """Mean over models, NaN without any."""
        return float(np.mean(self.values)) if self.values else float("nan")

    def se(self) -> tuple[float, float]:
        """Standard error of the mean over patients and models, and its degrees of freedom."""
        n = len(self.values)
        if n == 0 or self._influence is None:
            return float("nan"), float("nan")
        correction = self.n_patients / max(self.n_patients - 1, 1)
        patients = float(self._influence @ self._influence) / n**2 * correction
        within = self._within / n * correction
        return two_way(patients, self.values, within, self.n_patients, shared=self.shared)

    def interval(self) -> Interval:
        """95 % interval on the logit scale, which keeps it in (0, 1)."""
        return logit_interval(self.mean, *self.se(), self.n_patients)


def two_way(
    patients: float, values: list[float], within: float, n_patients: int, *, shared: bool = False
) -> tuple[float, float]:
    """Standard error of a mean over models, and its degrees of freedom.

    Parameters
    ----------
    patients : variance of the mean over models as patients vary
    values : of each model
    within : variance of the value of a single model as patients vary, mean over models
    n_patients : number of patients
    shared : models are one another's references; see the module
    """
    n, dof = len(values), float(max(n_patients - 1, 1))
    if n < 2:
        return float(np.sqrt(patients)), dof
    # What is left of the variance over patients after averaging over models is common to them and
    # does not make models differ; the rest does.
    own = max(0.0, within - patients) * n / (n - 1)
    if shared and n <= _FEW:
        own = 0.0
    between = float(np.var(values, ddof=1))
    variance = patients + max(0.0, between - own) / n
    if between > own:
        spread = patients**2 / dof + (between / n) ** 2 / (n - 1)
        dof = max(variance**2 / spread, n - 1.0)
    if shared:
        dof = min(dof, n - 1.0)
    return float(np.sqrt(variance)), dof


def logit_interval(value: float, se: float, dof: float, n: int) -> Interval:
    """95 % interval of a share or area from its standard error."""
    if not np.isfinite(value) or not np.isfinite(se):
        return Interval(value=value, low=float("nan"), high=float("nan"))
    if not 0.0 < value < 1.0 or se == 0.0:
        return share_interval(value, 0.0, dof, n)
    logit = np.log(value / (1 - value))
    width = stdtrit(dof, _QUANTILE) * se / (value * (1 - value))
    return Interval(value=value, low=float(expit(logit - width)), high=float(expit(logit + width)))


def share_interval(value: float, se: float, dof: float, n: float) -> Interval:
    """95 % interval of a share: Clopper and Pearson's with the effective number of patients.

    The effective number is value (1 - value) / se^2, less for few degrees of freedom, and `n`
    where the share is 0 or 1 (Korn and Graubard, Survey Methodology 24 (1998) 193-201).
    """
    if not np.isfinite(value):
        return Interval(value=value, low=float("nan"), high=float("nan"))
    effective = float(n)
    if se > 0 and 0 < value < 1:
        effective = value * (1 - value) / se**2 * float(Z / stdtrit(dof, _QUANTILE)) ** 2
    low, high = clopper_pearson(value * effective, effective)
    return Interval(value=value, low=low, high=high)


def clopper_pearson(successes: float, trials: float) -> tuple[float, float]:
    """Exact 95 % limits of a binomial share; the numbers may be fractions.

    >>> low, high = clopper_pearson(0, 10)
    >>> low, round(high, 4)
    (0.0, 0.3085)
    """
    tail = (1 - LEVEL) / 2
    failures = trials - successes
    low = float(betaincinv(successes, failures + 1, tail)) if successes > 0 else 0.0
    high = float(betaincinv(successes + 1, failures, 1 - tail)) if failures > 0 else 1.0
    return low, high


@dataclass(frozen=True, kw_only=True)
class Ordered:
    """Records of one model in falling order of score; ties form one step.

    Attributes
    ----------
    rows : (n,) the records, highest score first, unknown scores left out
    positive : (n,) bool in that order
    ends : (n_steps,) last place of each run of equal scores
    false, true : (n_steps,) negatives and positives down to the end of each step
    """

    rows: NDArray[np.intp]
    positive: NDArray[np.bool_]
    ends: NDArray[np.intp]
    false: NDArray[np.int64]
    true: NDArray[np.int64]

    @property
    def n_false(self) -> int:
        """All negatives."""
        return int(self.false[-1]) if len(self.false) else 0

    @property
    def n_true(self) -> int:
        """All positives."""
        return int(self.true[-1]) if len(self.true) else 0


def ordered(scores: Floats, positive: NDArray[np.bool_]) -> Ordered:
    """Sort the records of one model: (n_records,) scores and truths."""
    rows = np.argsort(-scores)
    n_known = len(scores) - int(np.isnan(scores).sum())
    rows = rows[:n_known]  # NaN sorts last
    held, value = positive[rows], scores[rows]
    ends = np.flatnonzero(np.append(value[1:] != value[:-1], True)) if n_known else rows[:0]
    true = np.cumsum(held, dtype=np.int64)[ends]
    return Ordered(rows=rows, positive=held, ends=ends, true=true, false=ends + 1 - true)


@dataclass(frozen=True, kw_only=True)
class Owners:
    """Whose the records of one model are.

    Attributes
    ----------
    owner : (n,) the patient of each record, in the order of the scores
    positive, negative : (n_patients,) records of each kind with a known score
    """

    owner: NDArray[np.intp]
    positive: NDArray[np.int64]
    negative: NDArray[np.int64]


def owners(o: Ordered, patient_index: NDArray[np.intp], n_patients: int) -> Owners:
    """Whose the records of an order are."""
    owner = patient_index[o.rows]
    positive = np.bincount(owner[o.positive], minlength=n_patients)
    negative = np.bincount(owner, minlength=n_patients) - positive
    return Owners(owner=owner, positive=positive, negative=negative)


def auc_influence(
    o: Ordered, patient_index: NDArray[np.intp], n_patients: int
) -> tuple[float, Floats]:
    """Area under the ROC curve of one model and each patient's influence on it.

    Returns the area (NaN without both classes) and (n_patients,) influences.
    """
    return influence_of(o, owners(o, patient_index, n_patients))


def influence_of(o: Ordered, whose: Owners) -> tuple[float, Floats]:
    """As :func:`auc_influence`, where it is known whose the records are."""
    n_true, n_false, n_patients = o.n_true, o.n_false, len(whose.positive)
    if n_true == 0 or n_false == 0:
        return float("nan"), np.zeros(n_patients)
    starts = np.concatenate([[0], o.ends[:-1] + 1])
    true, places = twice_above(o.positive, starts)
    # Twice the records of the other class that each record is on the right side of, ties half:
    # whole numbers, so that sums are exact; they become shares patient by patient.
    pairs = np.where(o.positive, true - places + 2 * n_false, true)
    by_patient = sum_by_patient(pairs, whose.owner, n_patients)
    auc = float(by_patient.sum() / (4.0 * n_true * n_false))
    share = whose.positive / n_true + whose.negative / n_false
    return auc, by_patient / (2.0 * n_true * n_false) - auc * share


def twice_above(
    positive: NDArray[np.bool_], starts: NDArray[np.intp]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Twice the number of positives, and of all, above each record; itself and its ties half.

    `positive` (n,) in falling order of score, `starts` (n_steps,) the first place of each run of
    equal scores; returns two arrays (n,).
    """
    n = len(positive)
    true = np.concatenate([[0], np.cumsum(positive, dtype=np.int64)])
    if len(starts) == n:
        return true[1:] + true[:-1], 2 * np.arange(n, dtype=np.int64) + 1
    stops = np.append(starts[1:], n)
    both = np.stack([true[starts] + true[stops], starts + stops])
    true, places = np.repeat(both, stops - starts, axis=1)
    return true, places


def sum_by_patient(
    values: Floats | NDArray[np.int64], patient_index: NDArray[np.intp], n_patients: int
) -> Floats:
    """Sum of the values of each patient's records: (n_records,) -> (n_patients,)."""
    return np.bincount(patient_index, weights=values, minlength=n_patients).astype(np.float64)
