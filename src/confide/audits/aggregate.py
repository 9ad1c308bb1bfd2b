"""How well an attack tells members from non-members of a model, over all target models."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_array

from confide.audits.clustered import (
    MeanOverModels,
    Ordered,
    auc_influence,
    ordered,
    share_interval,
    two_way,
)
from confide.cohort import Cohort

Floats = NDArray[np.float64]
FPRS = (0.1, 0.01, 0.001, 0.0001)
PREVALENCES = (0.5, 0.1, 0.01)
_N_BOOTSTRAP = 200


def false_positive_grid(n_negative: int) -> Floats:
    """Rates at which the mean ROC curve is drawn, from 1 / n_negative to 1, evenly in log."""
    least = max(1.0 / max(n_negative, 2), 1e-6)
    grid: Floats = np.geomspace(least, 1.0, 100)
    return np.unique(np.append(grid, [f for f in FPRS if f >= least]))


def true_positive_rate(o: Ordered, fpr: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """(true positive rate, false positives) of one model at rates of false positives.

    The threshold is the score of the k-th highest negative, k = rate x number of negatives
    (rounded down, at least one).  Positives between it and the next negative are not counted:
    they would make the rate of an attack that guesses (k + 1) / k times what it is.  Equal scores
    fall on one side together.
    """
    allowed = np.maximum(np.floor(fpr * o.n_false + 1e-9), 1.0)
    step = np.searchsorted(o.false, allowed, side="right")
    false = np.concatenate([[0], o.false])[step]
    allowed[fpr >= 1.0] = o.n_false + 1.0
    step = np.searchsorted(_reached_at(o), allowed, side="right")
    return np.concatenate([[0], o.true])[step] / max(o.n_true, 1), false


def _reached_at(o: Ordered) -> NDArray[np.int64]:
    """(n_steps,) the number of false positives at which the positives of a step count."""
    return o.false + (np.diff(o.false, prepend=0) == 0)


@dataclass
class _Bootstrap:
    """Patient bootstrap of the true positive rates, for their variance.

    The order of a model is cut into bins at given numbers of false positives (each of the first
    ones, then finer than 3 %), and the weights of a bin's records are summed by one sparse
    product; nothing is sorted again.  Between the ends of a wide bin the curve is a straight line.
    """

    weights: NDArray[np.float32]  # (n_patients, n_bootstrap) multinomial counts
    fprs: Floats
    total: Floats = field(init=False)
    within: Floats = field(init=False)

    def __post_init__(self) -> None:
        self.total = np.zeros((self.weights.shape[1], len(self.fprs)))
        self.within = np.zeros(len(self.fprs))

    def add(self, o: Ordered, patient_index: NDArray[np.intp]) -> None:
        """Add one model."""
        if not len(self.fprs):
            return
        # Far enough down the order for the largest rate in every replicate.
        reach = min(o.n_false, int(1.6 * self.fprs.max() * o.n_false) + 50)
        edges = np.unique(np.append(0, np.geomspace(1, reach, 400).astype(np.int64)))
        owner = patient_index[o.rows]
        true, n_true = self._down_the_order(o, _reached_at(o), owner, o.positive, edges)
        false, n_false = self._down_the_order(o, o.false, owner, ~o.positive, edges)
        allowed = self.fprs * n_false[:, None] + 1e-4
        # The first false positive counts even if it alone weighs more than allowed.
        at = np.clip(_search_rows(false, allowed) - 1, 1, None)
        after = np.minimum(at + 1, len(edges) - 1)
        wide = np.diff(edges, append=edges[-1] + 1) > 1
        false_at, true_at = (np.take_along_axis(x, at, axis=1) for x in (false, true))
        gap = np.maximum(np.take_along_axis(false, after, axis=1) - false_at, 1.0)
        share = np.where(wide[at], np.clip((allowed - false_at) / gap, 0.0, 1.0), 0.0)
        rates = true_at + share * (np.take_along_axis(true, after, axis=1) - true_at)
        rates /= np.maximum(n_true, 1.0)[:, None]
        self.total += rates
        self.within += rates.var(axis=0, ddof=1)

    def _down_the_order(
        self,
        o: Ordered,
        reached_at: NDArray[np.int64],
        owner: NDArray[np.intp],
        chosen: NDArray[np.bool_],
        edges: NDArray[np.int64],
    ) -> tuple[Floats, Floats]:
        """Weights of the chosen records: (n_bootstrap, n_edges) down to each edge, and of all.

        `reached_at` (n_steps,) rises; `owner`, `chosen` (n,) are in the order of the scores.
        """
        total = np.bincount(owner[chosen], minlength=len(self.weights)).astype(np.float32)
        # Most records lie beyond the last edge, where only their total counts.
        n_steps = int(np.searchsorted(reached_at, edges[-1], side="right"))
        ends = o.ends[:n_steps]
        near = chosen[: int(ends[-1]) + 1 if n_steps else 0]
        bins = np.searchsorted(edges, reached_at[:n_steps], side="left")
        bins = np.repeat(bins, np.diff(ends, prepend=-1))[near]
        by_bin = coo_array(
            (np.ones(len(bins), np.float32), (bins, owner[: len(near)][near])),
            shape=(len(edges), len(self.weights)),
        ).tocsr()
        down = np.cumsum(by_bin @ self.weights, axis=0, dtype=np.float64).T
        return np.ascontiguousarray(down), (total @ self.weights).astype(np.float64)


def _search_rows(rows: Floats, values: Floats) -> NDArray[np.intp]:
    """How many of each row (rising, not negative) are at most each value: (n, k), (n, m)."""
    offset = (np.arange(len(rows)) * (max(rows.max(), values.max()) + 1.0))[:, None]
    found = np.searchsorted((rows + offset).ravel(), (values + offset).ravel(), side="right")
    return found.reshape(values.shape) - np.arange(len(rows))[:, None] * rows.shape[1]


def evaluate(
    scores: Floats, membership: NDArray[np.bool_], cohort: Cohort, *, seed: int = 0
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Aggregate measures of an attack, with every model as target.

    Parameters
    ----------
    scores : (n_models, n_records), higher = more likely a member; NaN is left out
    membership : (n_models, n_patients) bool
    cohort : whose records they are
    seed : of the patient bootstrap

    Returns
    -------
    measures : auc, balanced_accuracy and true positive rates at fixed false positive rates, means
        over targets with 95 % intervals (patients and models are the sampling units); the JSON
        form of ``summary["attacks"][name]``
    roc : columns x (false), y (true positive rate), low, high of the mean ROC curve; the band is
        pointwise and given up to a false positive rate of 10 %
    """
    area, balanced, curves = MeanOverModels(cohort.n_patients, shared=True), [], []
    n_negative = int(np.median(~membership @ cohort.records_per_patient))
    grid = false_positive_grid(n_negative)
    bootstrap = _Bootstrap(_patient_weights(cohort.n_patients, seed), grid[grid <= FPRS[0]])
    for t in range(len(scores)):
        o = ordered(scores[t], cohort.expand(membership[t]))
        area.add(*auc_influence(o, cohort.patient_index, cohort.n_patients))
        if o.n_true and o.n_false:
            curves.append(np.stack(true_positive_rate(o, grid)))
            balanced.append(_balanced_accuracy(o))
            bootstrap.add(o, cohort.patient_index)
    auc = area.interval()
    measures: dict[str, Any] = {
        "auc": auc.value,
        "auc_low": auc.low,
        "auc_high": auc.high,
        "balanced_accuracy": float(np.mean(balanced)) if balanced else None,
        "tpr_at_fpr": {f"{f:g}": None for f in FPRS},
    }
    if not curves:
        return measures, pd.DataFrame(columns=["x", "y", "low", "high"])
    rates, false = np.asarray(curves).transpose(1, 0, 2)
    roc = _mean_curve(grid, rates, bootstrap, cohort.n_patients)
    for fpr in FPRS:
        if fpr * n_negative >= 1.0:  # below one false positive a rate is not measurable
            at = int(np.argmin(np.abs(grid - fpr)))
            point = roc.iloc[at]
            measures["tpr_at_fpr"][f"{fpr:g}"] = {
                "tpr": float(point["y"]),
                "low": float(point["low"]),
                "high": float(point["high"]),
                "n_false_positives": int(false[:, at].sum()),
                "ppv": {f"{p:g}": _predictive_value(point["y"], fpr, p) for p in PREVALENCES},
            }
    return measures, roc


def _mean_curve(
    grid: Floats, rates: Floats, bootstrap: _Bootstrap, n_patients: int
) -> pd.DataFrame:
    """Mean curve over targets, with its pointwise band up to a false positive rate of 10 %."""
    n = len(rates)
    mean = rates.mean(axis=0)
    low, high = np.full((2, len(grid)), np.nan)
    for i in range(len(bootstrap.fprs)):
        patients = float(np.var(bootstrap.total[:, i] / n, ddof=1))
        within = float(bootstrap.within[i] / n)
        error = two_way(patients, rates[:, i].tolist(), within, n_patients, shared=True)
        band = share_interval(float(mean[i]), *error, n_patients)
        low[i], high[i] = band.low, band.high
    return pd.DataFrame({"x": grid, "y": mean, "low": low, "high": high})


def _patient_weights(n_patients: int, seed: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(n_patients, np.full(n_patients, 1.0 / n_patients), size=_N_BOOTSTRAP)
    return np.ascontiguousarray(drawn.T, dtype=np.float32)


def _predictive_value(tpr: float, fpr: float, prevalence: float) -> float:
    """Share of true members among those that the attack names, at a prevalence of members."""
    hit, alarm = tpr * prevalence, fpr * (1.0 - prevalence)
    return float(hit / (hit + alarm))


def _balanced_accuracy(o: Ordered) -> float:
    """Calling the better half of the records members; .5 by chance, no threshold is tuned."""
    step = int(np.searchsorted(o.ends, len(o.rows) // 2, side="left"))
    if step == 0:
        return 0.5
    tpr, fpr = o.true[step - 1] / o.n_true, o.false[step - 1] / o.n_false
    return float(0.5 * (tpr + 1.0 - fpr))
