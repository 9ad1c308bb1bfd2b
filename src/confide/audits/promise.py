"""Upper bounds: the most that an attack can do where a training is differentially private.

A training that is (epsilon, delta)-private for a unit allows no test of "was this unit in?" with a
true positive rate above min(e^epsilon FPR + delta, 1 - e^-epsilon (1 - delta - FPR)), on average
over the randomness of the training (Kairouz, Oh and Viswanath, ICML 2015, theorem 2.1; Dong, Roth
and Su, JRSS B 84 (2022), equation 5).  Where several points of the privacy curve are known, the
least of their bounds holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from confide import _check
from confide.audits.guards import ACCOUNTING, Guard
from confide.errors import ArgumentError

Floats = NDArray[np.float64]

RATES = (0.1, 0.01, 0.001, 0.0001)


def tpr_bound(fpr: ArrayLike, epsilon: ArrayLike, delta: ArrayLike) -> Floats:
    """Largest true positive rate at some false positive rates.

    Parameters
    ----------
    fpr : (n,) in [0, 1]
    epsilon, delta : points of the privacy curve, (k,) each, or numbers

    Returns
    -------
    (n,) in [0, 1]

    >>> tpr_bound([0.01, 0.5], 1.0, 0.0).round(4).tolist()
    [0.0272, 0.8161]
    """
    slope, height = _lines(epsilon, delta)
    x = np.atleast_1d(np.asarray(fpr, dtype=np.float64))
    if not ((x >= 0) & (x <= 1)).all():
        raise ArgumentError(f"Expected fpr in [0, 1], got {x.min():g} to {x.max():g}.")
    return np.asarray(np.clip((slope * x[:, None] + height).min(axis=1), x, 1.0))


def auc_bound(epsilon: ArrayLike, delta: ArrayLike) -> float:
    """Largest area under the ROC curve: the area under :func:`tpr_bound`, exactly.

    For one epsilon and delta 0 it is 1 - 1 / (1 + e^epsilon) = e^epsilon / (1 + e^epsilon).

    >>> round(auc_bound(1.0, 0.0), 4), auc_bound(0.0, 0.0)
    (0.7311, 0.5)
    """
    slope, height = _lines(epsilon, delta)
    # Corners lie where two of the lines meet, among them the line at 1.
    with np.errstate(divide="ignore", invalid="ignore"):
        meet = (height[None, :] - height[:, None]) / (slope[:, None] - slope[None, :])
    corners = meet[np.isfinite(meet) & (meet > 0) & (meet < 1)]
    x = np.unique(np.concatenate([[0.0, 1.0], corners]))
    return float(np.trapezoid(tpr_bound(x, epsilon, delta), x))


def _lines(epsilon: ArrayLike, delta: ArrayLike) -> tuple[Floats, Floats]:
    """Slopes and heights at 0 of all bounds, which are lines in the false positive rate."""
    e, d = np.broadcast_arrays(np.atleast_1d(epsilon), np.atleast_1d(delta))
    e, d = e.astype(np.float64), d.astype(np.float64)
    _check.finite(epsilon=e)
    if (e < 0).any() or not ((d >= 0) & (d <= 1)).all():
        raise ArgumentError("Expected epsilon of at least 0 and delta in [0, 1].")
    e = np.minimum(e, 700.0)  # e^epsilon overflows; the bound is 1 in any case
    back = np.exp(-e)
    slope = np.concatenate([np.exp(e), back, [0.0]])
    return slope, np.concatenate([d, 1.0 - back * (1.0 - d), [1.0]])


def epsilon_at(delta: float, curve: Mapping[str, Any]) -> float | None:
    """Epsilon of a privacy curve at another delta: of its points below `delta` the first.

    None where the curve has no point there.
    """
    epsilon, d = _points(curve)
    below = d <= delta * (1 + 1e-9)
    return float(epsilon[below].min()) if below.any() else None


def promised(privacy: Mapping[str, Any]) -> dict[str, Any]:
    """What the guarantee of a training allows at most, for the summary of an audit.

    Parameters
    ----------
    privacy : from :func:`confide.training.accounting.account`

    Returns
    -------
    the same without curves, and in by_unit, by "patient" or "record": epsilon, auc and tpr_at_fpr,
    the upper bounds of an attack
    """
    found = {key: value for key, value in privacy.items() if key not in ("by_unit", "warnings")}
    found["by_unit"] = {}
    for unit, one in privacy["by_unit"].items():
        epsilon, delta = _points(one["curve"])
        tpr = tpr_bound(RATES, epsilon, delta)
        found["by_unit"][unit] = {
            "epsilon": one["epsilon"],
            "auc": auc_bound(epsilon, delta),
            "tpr_at_fpr": {f"{x:g}": float(y) for x, y in zip(RATES, tpr, strict=True)},
        }
    return found


def accounting_guard(bounds: Sequence[Mapping[str, Any]], privacy: Mapping[str, Any]) -> Guard:
    """Is what was measured within what was guaranteed?

    Parameters
    ----------
    bounds : lower bounds of epsilon, from :func:`confide.audits.canaries.epsilon_bounds`; those
        that assume a Gaussian curve are left out
    privacy : from :func:`confide.training.accounting.account`.  A bound of the unit "record" is of
        patients with one record, to whom the guarantee for a patient applies where the unit of
        the training is the patient

    Returns
    -------
    guard "accounting": failed where a lower bound is above the upper bound of its unit, at its
    delta; unknown where no bound was measured; else passed.  Each bound may err in a share of 1 -
    confidence of audits, all of them together in the sum of these shares (union bound), which the
    message states
    """
    units = privacy["by_unit"]
    compared = []
    for bound in bounds:
        if bound["method"] == "gdp":
            continue
        unit = units.get(bound["unit"], units["patient"])
        upper = epsilon_at(float(bound["delta"]), unit["curve"])
        if upper is not None:
            compared.append((float(bound["epsilon"]), upper, bound))
    if not compared:
        text = (
            "No lower bound of epsilon was measured that could be held against the guarantee of "
            "the training; train more models."
        )
        return {"name": ACCOUNTING, "status": "unknown", "message": text}
    lower, upper, bound = max(compared, key=lambda one: one[0] - one[1])
    figures = (
        f"epsilon of a {bound['unit']} at delta {bound['delta']:g} is at least {_down(lower)} "
        f"(confidence {bound['confidence']:g} by itself) as measured, and at most {_up(upper)} as "
        "guaranteed"
    )
    errors = min(1.0, sum(1.0 - float(one["confidence"]) for _, _, one in compared))
    chance = (
        "A training that keeps its guarantee fails here by chance in at most "
        f"{errors:.0%} of audits (lower bounds compared: {len(compared)})."
    )
    if lower > upper:
        text = (
            f"The attack speaks against the guarantee: {figures}. {chance} Unless it is such a "
            "chance, training or accounting has a bug, or records are not what they are taken for. "
            "A second audit with another seed tells the two apart. Check that no person stands "
            "under two ids, that nothing but the noisy gradients reads the members "
            "(standardisation, sampling, a choice of the epoch), that the network keeps no "
            "statistics of batches, and that the unit, the clipping norm, the noise, the "
            "sampling rate and the steps are those that were accounted for. Do not "
            "release models of this recipe."
        )
        return {"name": ACCOUNTING, "status": "failed", "message": text}
    text = f"The attack does not refute the guarantee: {figures}. {chance} That does not prove it."
    return {"name": ACCOUNTING, "status": "passed", "message": text}


def _points(curve: Mapping[str, Any]) -> tuple[Floats, Floats]:
    return np.asarray(curve["epsilon"], np.float64), np.asarray(curve["delta"], np.float64)


def _down(epsilon: float) -> str:
    return f"{np.floor(100 * epsilon) / 100:.2f}"


def _up(epsilon: float) -> str:
    return f"{np.ceil(100 * epsilon) / 100:.2f}"
