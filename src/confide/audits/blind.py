"""Telling members from non-members without any model: a test for a shift between the two.

Two classifiers, logistic regression and boosted trees, are cross-validated on features of the
records, all records of a patient in one fold.  The area under the ROC curve is taken within each
fold: scores of different folds are not comparable, and pooling them biases the area below .5.
Given the training folds, the expected area of a fold is .5 if patients were assigned at random.

The areas of two folds are not independent, because each fold helps to train the score of the
other.  For scores linear in the training labels, s_i = sum_j k_ij y_j, the sum over folds of
sum_i y_i s_i counts each pair of patients twice, so that without a shift its variance is twice
what treating the scores as given would say.  The clustered variance is doubled accordingly.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, stdtrit

from confide.audits.clustered import Interval, auc_influence, ordered
from confide.errors import ArgumentError

Floats = NDArray[np.float64]

LEVEL = 0.95
MAX_RECORDS = 40_000
"""Of more records, those of randomly drawn patients are used; the standard error of an area is then
.004 to .006."""

_CLASSIFIERS = ("logistic", "boosting")
_N_FOLDS = 5
_MOST_RECORDS = 5  # of one patient, so that none dominates and variances by patient hold
_FEWEST = 10  # patients on each side, so that every fold tests two of each


@dataclass(frozen=True, kw_only=True)
class Blind:
    """How well one classifier tells members from non-members.

    Attributes
    ----------
    classifier : "logistic" or "boosting"
    auc : mean over folds, with its interval: 95 % for all classifiers together (Bonferroni)
    """

    classifier: str
    auc: Interval


def blind_test(
    features: NDArray[Any],
    member: NDArray[np.bool_],
    patient_index: NDArray[np.integer[Any]],
    *,
    seed: int = 0,
) -> list[Blind] | None:
    """Cross-validated areas under the ROC curve of classifiers that see no model.

    Parameters
    ----------
    features : (n_records, n_features) numbers, NaN where unknown
    member : (n_records,) bool
    patient_index : (n_records,) the patient of each record
    seed : of the drawn records, the folds and the trees

    At most 5 records of a patient and 40,000 in all are used, drawn at random.

    Returns
    -------
    one entry a classifier; None with fewer than 10 patients on a side

    Raises
    ------
    ArgumentError : lengths that differ, infinite features, or a patient on both sides
    """
    x = np.asarray(features, dtype=np.float64)
    _check_inputs(x, member, patient_index)
    # Apart from the stream of a split that was drawn with the same seed.
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(2,)))
    patients, owner = np.unique(patient_index, return_inverse=True)
    side = np.zeros(len(patients), dtype=bool)
    side[owner] = member
    if (side[owner] != member).any():
        where = int(patients[owner[int(np.argmax(side[owner] != member))]])
        raise ArgumentError(
            f"Patient {where} (index) has records among members and non-members; no patient may "
            "be on both sides."
        )
    if min(side.sum(), (~side).sum()) < _FEWEST:
        return None
    few = _first_few(owner, rng.permutation(len(owner)))
    fold = _folds(side, np.bincount(owner[few]), rng)[owner]
    used = few & (fold >= 0)
    x, member, owner, fold = x[used], member[used], owner[used], fold[used]
    level = 1 - (1 - LEVEL) / len(_CLASSIFIERS)
    found = []
    for name in _CLASSIFIERS:
        scores = _scores(name, x, member, fold, seed)
        found.append(Blind(classifier=name, auc=_area(scores, member, owner, fold, level)))
    return found


def _check_inputs(
    x: Floats, member: NDArray[np.bool_], patient_index: NDArray[np.integer[Any]]
) -> None:
    n = len(x)
    if x.ndim != 2 or x.shape[1] == 0 or member.shape != (n,) or patient_index.shape != (n,):
        raise ArgumentError(
            f"Expected features (n_records, n_features), member and patient_index (n_records,), "
            f"got {x.shape}, {member.shape} and {patient_index.shape}."
        )
    if member.dtype != np.bool_:
        raise ArgumentError(f"Expected bool member, got {member.dtype}.")
    if np.isinf(x).any():
        row, column = (int(i) for i in np.argwhere(np.isinf(x))[0])
        raise ArgumentError(f"Feature {column} of record {row} is infinite.")


def _first_few(owner: NDArray[np.integer[Any]], order: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(n_records,) the first few records of each patient in an order of all records."""
    by_patient = order[np.argsort(owner[order], kind="stable")]
    sizes = np.bincount(owner)
    place = np.arange(len(owner)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    few = np.zeros(len(owner), dtype=bool)
    few[by_patient[place < _MOST_RECORDS]] = True
    return few


def _folds(
    side: NDArray[np.bool_], n_records: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """(n_patients,) fold of each patient, both sides spread evenly; -1 for those not drawn."""
    fold = np.full(len(side), -1, dtype=np.int64)
    order = rng.permutation(len(side))
    drawn = order[np.cumsum(n_records[order]) <= MAX_RECORDS]
    for half in (drawn[side[drawn]], drawn[~side[drawn]]):
        fold[half] = np.arange(len(half)) % _N_FOLDS
    return fold


def _scores(
    name: str, x: Floats, member: NDArray[np.bool_], fold: NDArray[np.int64], seed: int
) -> Floats:
    """(n_records,) score of each record by a classifier trained on the other folds."""
    from sklearn.exceptions import ConvergenceWarning

    scores = np.zeros(len(x))
    for k in range(_N_FOLDS):
        train, test = fold != k, fold == k
        # A column that nobody in the training folds has a value in; the trees refuse it.
        known = np.where(np.isnan(x[train]).all(axis=0), 0.0, x)
        model = _classifier(name, seed)
        with warnings.catch_warnings():
            # A score that has not converged is as valid for a test as any other.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(known[train], member[train])
        scores[test] = model.decision_function(known[test])
    return scores


def _classifier(name: str, seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if name == "boosting":
        return HistGradientBoostingClassifier(
            max_iter=60, max_leaf_nodes=15, early_stopping=False, random_state=seed
        )
    return make_pipeline(
        SimpleImputer(strategy="mean", add_indicator=True),
        StandardScaler(),
        LogisticRegression(C=0.1, max_iter=200),
    )


def _area(
    scores: Floats,
    member: NDArray[np.bool_],
    owner: NDArray[np.integer[Any]],
    fold: NDArray[np.int64],
    level: float,
) -> Interval:
    """Mean over folds of the area, and its interval on the logit scale."""
    n_patients = int(owner.max()) + 1
    areas, influence = [], np.zeros(n_patients)
    for k in range(_N_FOLDS):
        test = fold == k
        area, part = auc_influence(ordered(scores[test], member[test]), owner[test], n_patients)
        areas.append(area)
        influence += part / _N_FOLDS
    value = float(np.mean(areas))
    sizes = [len(np.unique(owner[held])) for held in (member, ~member)]
    n = sum(sizes)
    se = float(np.sqrt(2.0 * (influence @ influence) * n / (n - 1)))
    if value in (0.0, 1.0):
        # The limit of a share of 1 among so many; each side's patients are at most that many pairs.
        reach = ((1 - level) / 2) ** (1 / min(sizes))
        return Interval(value=value, low=reach if value else 0.0, high=1.0 if value else 1 - reach)
    if se == 0:
        return Interval(value=value, low=0.0, high=1.0)  # all scores are equal
    logit = np.log(value / (1 - value))
    width = stdtrit(n - 1, (1 + level) / 2) * se / (value * (1 - value))
    return Interval(value=value, low=float(expit(logit - width)), high=float(expit(logit + width)))
