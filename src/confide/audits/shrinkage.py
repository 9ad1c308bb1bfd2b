"""The risk of each patient with less noise: measured areas, shrunken towards what is expected.

A patient's area from few models is mostly noise, but much of it can be expected from what few
models already tell well: how hard the records are, how much models disagree about them, how rare
their class is, how many they are.  The measured area is combined with that expectation, each with
the weight that its error deserves (empirical Bayes).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from confide.attacks.threads import in_threads
from confide.audits.clustered import sum_by_patient
from confide.audits.deconvolution import area_variance
from confide.audits.patients import PatientRisk
from confide.cohort import Cohort

Floats = NDArray[np.float64]
_FOLDS = 5
_RECORDS = 1024
_FEW = 100
_MANY = 2_000
_PER_BIN = 150
_MOST_BINS = 10
_LEAST_MODELS = 4
_GRID = np.linspace(0.001, 0.999, 999)


@dataclass(frozen=True, kw_only=True)
class Shrunken:
    """Risk of every patient after shrinkage; all arrays are (n_patients,).

    Attributes
    ----------
    risk : posterior median of the area over models
    low, high : central 95 % credible interval.  It holds the true area for about 95 % of the
        patients of a cohort, not for each patient alone
    expected : the area that the covariates alone let expect

    All are NaN for patients that are in or out of fewer than four models, and where a cohort has
    fewer than 100 others.
    """

    risk: Floats
    low: Floats
    high: Floats
    expected: Floats


def shrunken(
    signal: Floats,
    membership: NDArray[np.bool_],
    cohort: Cohort,
    risk: PatientRisk,
    *,
    seed: int = 0,
) -> Shrunken:
    """Shrink the measured joint areas towards what covariates let expect.

    Parameters
    ----------
    signal : (n_models, n_records) one number a record, NaN for a record without a known label
    membership : (n_models, n_patients) bool
    cohort : whose records they are
    risk : measured, from the same signals
    seed : deals patients into folds

    Notes
    -----
    Areas are compared on the scale z = asinh(q d) / q with d = sqrt(2) Phi^-1(area), on which
    their error is nearly the same for all.  The expectation f of z is a regression on covariates,
    fitted on other patients (5 folds); the spread of true z about it is the mean square of z - f
    beyond the error of z, within bins of f; for the interval two standard errors of that mean are
    added, so that few patients do not make it too narrow.  The posterior is normal: Morris,
    J. Am. Stat. Assoc. 78 (1983) 47-65.

    No covariate may know the noise in z.  The mean of the in and the out mean, each weighted by
    the variance of the *other*, is independent of their difference for normal signals (with equal
    weights it is so for equal variances and numbers only), and so is the deviation about them
    (of z itself where nothing leaks; with a leak z is smaller where the deviation came out large,
    which costs some coverage).  The variance over all models, which holds the square of the
    difference, made the spread vanish.

    A patient who leaks as no other patient like him does is drawn towards the others.  The list of
    patients at risk does not use this risk.
    """
    n_models = len(signal)
    least = np.minimum(risk.n_in, risk.n_out)
    rows = np.flatnonzero((least >= _LEAST_MODELS) & ~np.isnan(risk.joint))
    result = {name: np.full(cohort.n_patients, np.nan) for name in Shrunken.__dataclass_fields__}
    if len(rows) < _FEW:
        return Shrunken(**result)
    n_in, n_out = int(np.median(risk.n_in[rows])), int(np.median(risk.n_out[rows]))
    scale = _Scale(n_in, n_out, n_models)
    pairs = (risk.n_in * risk.n_out)[rows]
    # An area of 0 or 1 has no finite z: half a pair more on either side.
    z = scale.z((risk.joint[rows] * pairs + 0.5) / (pairs + 1.0))
    expected = _expected(covariates(signal, membership, cohort)[rows], z, seed)
    noise = scale.variance(expected) * (n_in * n_out / (n_in + n_out)) / _harmonic(risk, rows)
    spread, error = _spread(z, expected, noise)
    beyond = (z - expected) ** 2 - noise
    if beyond.mean() < -2.0 * beyond.std() / np.sqrt(len(z)):
        # Nearer to the measured areas than their noise allows: some of it was fitted after all.
        expected = np.full(len(z), z.mean())
        noise = scale.variance(expected) * (n_in * n_out / (n_in + n_out)) / _harmonic(risk, rows)
        spread, error = _spread(z, expected, noise)
    middle = expected + spread / (spread + noise) * (z - expected)
    wide = spread + 2.0 * error
    half = -ndtri(0.025) * np.sqrt(wide / (wide + noise) * noise)
    for name, at in (
        ("risk", middle),
        ("low", middle - half),
        ("high", middle + half),
        ("expected", expected),
    ):
        result[name][rows] = scale.area(at)
    # Areas at their bound, or two pairs from it, say nothing of how far beyond the truth lies.
    at_bound = rows[risk.joint[rows] * pairs >= pairs - 2]
    result["high"][at_bound] = 1.0
    at_bound = rows[risk.joint[rows] * pairs <= 2]
    result["low"][at_bound] = 0.0
    return Shrunken(**result)


def covariates(signal: Floats, membership: NDArray[np.bool_], cohort: Cohort) -> Floats:
    """What is known of patients without the difference that membership makes.

    Parameters
    ----------
    signal, membership, cohort : as in :func:`shrunken`

    Returns
    -------
    (n_patients, 5): over the patient's records with a known label the mean and the least signal
    (between in and out, see :func:`shrunken`), mean log deviation about the two means, log number
    of records, mean log share of the record's class
    """
    known = ~np.isnan(signal[0])
    mid, deviation = _moments(signal, membership, cohort.patient_index)
    rarity = _log_class_share(cohort)
    count = sum_by_patient(known.astype(np.float64), cohort.patient_index, cohort.n_patients)

    def mean(values: Floats) -> Floats:
        values = np.where(known, values, 0.0)
        total = sum_by_patient(values, cohort.patient_index, cohort.n_patients)
        return total / np.maximum(count, 1.0)

    least = np.full(cohort.n_patients, np.inf)
    np.minimum.at(least, cohort.patient_index[known], mid[known])
    least = np.where(np.isinf(least), 0.0, least)
    size = np.log(np.maximum(count, 1.0))
    return np.stack([mean(mid), least, mean(deviation), size, mean(rarity)], axis=1)


def _moments(
    signal: Floats, membership: NDArray[np.bool_], patient_index: NDArray[np.intp]
) -> tuple[Floats, Floats]:
    """(n_records,) a mean of the in and out means, and log deviation about the two.

    The mean of the two has weights that make it independent of their difference: w = (v_out /
    n_out) / (v_in / n_in + v_out / n_out) for the in mean, with one ratio of variances for all
    records.  Some records at a time keep memory at a few numbers a record.
    """
    n_records = signal.shape[1]
    mean_in, mean_out, square_in, square, n_in, n_out = np.empty((6, n_records))

    def describe(start: int) -> None:
        part = slice(start, start + _RECORDS)
        values, held = signal[:, part], membership.take(patient_index[part], axis=1)
        n_in[part] = np.maximum(held.sum(axis=0), 1)
        n_out[part] = np.maximum(len(held) - held.sum(axis=0), 1)
        sum_in = np.where(held, values, 0.0).sum(axis=0)
        mean_in[part] = sum_in / n_in[part]
        mean_out[part] = (values.sum(axis=0) - sum_in) / n_out[part]
        residual = values - np.where(held, mean_in[part], mean_out[part])
        residual *= residual
        square_in[part] = np.where(held, residual, 0.0).sum(axis=0)
        square[part] = residual.sum(axis=0)

    for _ in in_threads(describe, range(0, n_records, _RECORDS)):
        pass
    tiny = 1e-12 * (np.abs(mean_in + mean_out) + 1.0) ** 2  # constant signals
    variance_in = np.maximum(square_in / np.maximum(n_in - 1, 1), tiny)
    variance_out = np.maximum((square - square_in) / np.maximum(n_out - 1, 1), tiny)
    variance = np.maximum(square / max(len(signal) - 2, 1), tiny)
    ratio = np.log(variance_in) - np.log(variance_out)
    usable = np.isfinite(ratio) & (variance > tiny)
    common = float(np.exp(np.median(ratio[usable]))) if usable.any() else 1.0
    weight = (1.0 / n_out) / (common / n_in + 1.0 / n_out)
    return weight * mean_in + (1.0 - weight) * mean_out, 0.5 * np.log(variance)


def _log_class_share(cohort: Cohort) -> Floats:
    """(n_records,) log of the share of records with the record's label; mean over known labels."""
    if cohort.task != "multilabel":
        share = np.bincount(cohort.label) / cohort.n_records
        return np.log(share[cohort.label])
    known = ~np.isnan(cohort.label)
    n = np.maximum(known.sum(axis=0), 1)
    positive = np.where(known, cohort.label, 0.0).sum(axis=0) / n
    share = np.where(cohort.label == 1, positive, 1.0 - positive)
    logs = np.where(known, np.log(np.maximum(share, 1e-12)), 0.0)
    return logs.sum(axis=1) / np.maximum(known.sum(axis=1), 1)


class _Scale:
    """The scale on which areas from n_in and n_out models have nearly the same error."""

    def __init__(self, n_in: int, n_out: int, n_models: int) -> None:
        effective = n_in * n_out / (n_in + n_out)
        self._q = float(np.sqrt(effective / (2.0 * max(n_models - 2, 1))))
        self._z = self.z(_GRID)
        slope = np.gradient(self._z, _GRID)
        self._variance = area_variance(_GRID, n_in, n_out) * slope**2

    def z(self, area: Floats) -> Floats:
        return np.arcsinh(np.sqrt(2.0) * ndtri(area) * self._q) / self._q

    def area(self, z: Floats) -> Floats:
        return ndtr(np.sinh(z * self._q) / self._q / np.sqrt(2.0))

    def variance(self, z: Floats) -> Floats:
        """Of the measured z where the true one is `z`."""
        return np.interp(z, self._z, self._variance)


def _harmonic(risk: PatientRisk, rows: NDArray[np.intp]) -> Floats:
    n_in, n_out = risk.n_in[rows], risk.n_out[rows]
    return n_in * n_out / (n_in + n_out)


def _expected(features: Floats, z: Floats, seed: int) -> Floats:
    """Regression of z on the features of other patients: (n,)."""
    from sklearn.model_selection import KFold
    from sklearn.preprocessing import StandardScaler

    features = StandardScaler().fit_transform(features)
    result = np.empty(len(z))
    folds = KFold(_FOLDS, shuffle=True, random_state=seed)
    for fitted, asked in folds.split(features):
        model = _regression(len(z), seed).fit(features[fitted], z[fitted])
        predicted = model.predict(features[asked])
        result[asked] = np.clip(predicted, z[fitted].min(), z[fitted].max())
    return result


def _regression(n: int, seed: int) -> Any:
    if n >= _MANY:
        from sklearn.ensemble import HistGradientBoostingRegressor

        return HistGradientBoostingRegressor(
            max_iter=60,
            learning_rate=0.08,
            max_leaf_nodes=8,
            min_samples_leaf=100,
            early_stopping=False,
            random_state=seed,
        )
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import SplineTransformer

    # Constant beyond what was seen: a line would promise the outlying patient an extreme risk.
    splines = SplineTransformer(3, degree=2, extrapolation="constant", knots="quantile")
    return make_pipeline(splines, RidgeCV(np.logspace(-1, 4, 15)))


def _spread(z: Floats, expected: Floats, noise: Floats) -> tuple[Floats, Floats]:
    """Variance of the true z about its expectation, for each patient, and its error: (n,)."""
    n_bins = int(np.clip(len(z) // _PER_BIN, 1, _MOST_BINS))
    edges = np.quantile(expected, np.arange(1, n_bins) / n_bins)
    place = np.digitize(expected, edges)
    beyond = (z - expected) ** 2 - noise
    n = np.maximum(np.bincount(place, minlength=n_bins), 1)  # ties can leave a bin empty
    mean = np.bincount(place, beyond, n_bins) / n
    square = np.bincount(place, beyond**2, n_bins) / n - mean**2
    error = np.sqrt(np.maximum(square, 0.0) / n)
    return np.maximum(mean, 0.0)[place], np.maximum(error, 1e-9)[place]
