"""How well an attack tells members from non-members of a model, over all target models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_array

from confide.attacks.threads import in_threads
from confide.audits.clustered import (
    MeanOverModels,
    Ordered,
    Owners,
    influence_of,
    ordered,
    owners,
    share_interval,
    two_way,
)
from confide.cohort import Cohort

Floats = NDArray[np.float64]
FPRS = (0.1, 0.01, 0.001, 0.0001)
PREVALENCES = (0.5, 0.1, 0.01)
_N_BOOTSTRAP, _AT_ONCE = 200, 20
_MODELS = 4
"""Models whose orders are in memory together, so that the weights are read once for all of them."""


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

    def add(self, models: Sequence[tuple[Ordered, Owners]]) -> None:
        """Add some models."""
        if not len(self.fprs):
            return
        # Most records lie beyond the last edge, where only their total counts.
        count = [kind for _, whose in models for kind in (whose.positive, whose.negative)]
        total = (np.asarray(count, dtype=np.float32) @ self.weights).astype(np.float64)
        for rates in in_threads(self._rates, zip(models, total[::2], total[1::2], strict=True)):
            self.total += rates
            self.within += rates.var(axis=0, ddof=1)

    def _rates(self, item: tuple[tuple[Ordered, Owners], Floats, Floats]) -> Floats:
        """Rates of one model, (n_bootstrap, n_fprs), from the weights of its positives and of all
        its negatives, (n_bootstrap,) each.
        """
        (o, whose), n_true, n_false = item
        # Far enough down the order for the largest rate in every replicate.
        reach = min(o.n_false, int(1.6 * self.fprs.max() * o.n_false) + 50)
        edges = np.unique(np.append(0, np.geomspace(1, reach, 400).astype(np.int64)))
        true = self._down_the_order(_reached_at(o), o.true, o.positive, whose.owner, edges)
        false = self._down_the_order(o.false, o.false, ~o.positive, whose.owner, edges)
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
        return rates

    def _down_the_order(
        self,
        reached_at: NDArray[np.int64],
        count: NDArray[np.int64],
        chosen: NDArray[np.bool_],
        owner: NDArray[np.intp],
        edges: NDArray[np.int64],
    ) -> Floats:
        """Weights of the chosen records down to each edge: (n_bootstrap, n_edges).

        `reached_at` (n_steps,) rises, `count` (n_steps,) is the number of chosen records down to
        each step; `chosen`, `owner` (n,) are in the order of the scores.
        """
        steps = np.searchsorted(reached_at, edges, side="right")
        starts = np.concatenate([[0], np.concatenate([[0], count])[steps]])
        near = owner[np.flatnonzero(chosen)[: starts[-1]]]
        by_bin = csr_array(
            (np.ones(len(near), np.float32), near, starts), shape=(len(edges), len(self.weights))
        )
        down = np.cumsum(by_bin @ self.weights, axis=0, dtype=np.float64).T
        return np.ascontiguousarray(down)


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

    def sort(t: int) -> tuple[Ordered, Owners, tuple[float, Floats]]:
        o = ordered(scores[t], cohort.expand(membership[t]))
        whose = owners(o, cohort.patient_index, cohort.n_patients)
        return o, whose, influence_of(o, whose)

    for start in range(0, len(scores), _MODELS):
        both_sides = []
        for o, whose, influence in in_threads(sort, range(len(scores))[start : start + _MODELS]):
            area.add(*influence)
            if o.n_true and o.n_false:
                curves.append(np.stack(true_positive_rate(o, grid)))
                balanced.append(_balanced_accuracy(o))
                both_sides.append((o, whose))
        bootstrap.add(both_sides)
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
    even = np.full(n_patients, 1.0 / n_patients)
    weights = np.empty((n_patients, _N_BOOTSTRAP), dtype=np.float32)
    for start in range(0, _N_BOOTSTRAP, _AT_ONCE):  # all counts at a time are 64-bit integers
        drawn = rng.multinomial(n_patients, even, size=_AT_ONCE)
        weights[:, start : start + _AT_ONCE] = drawn.T
    return weights


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
