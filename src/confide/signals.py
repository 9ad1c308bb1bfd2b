"""Logits and labels -> membership signals.  Higher is more like a member.

All functions are pure, work in float64 and keep leading axes.  Axes, in this order: n_models,
n_records, n_views, n_classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_expit, logsumexp

from confide.cohort import Task
from confide.errors import ArgumentError, SignalError


def signals(logits: NDArray[Any], label: NDArray[Any], task: Task) -> NDArray[np.float64]:
    """Signal of every record, view and (for multilabel) finding.

    Parameters
    ----------
    logits : (..., n_records, n_views, n_classes); binary tasks have n_classes = 1
    label : (n_records,) class index, or (n_records, n_labels) 1/0/NaN for multilabel

    Returns
    -------
    (..., n_records, n_views), or (..., n_records, n_views, n_labels) for multilabel, where an
    unknown label gives NaN

    Raises
    ------
    ArgumentError : shapes that do not fit
    SignalError : a logit that is not finite
    """
    logits = _checked(logits, label, task)
    if task == "binary":
        return binary(logits[..., 0], label[:, None])
    if task == "multiclass":
        return multiclass(logits, label[:, None])
    return binary(logits, label[:, None, :])


def channels(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """View signals as (n_models, n_records, n_views, n_labels), adding axes of length one."""
    if not 2 <= signal.ndim <= 4:
        raise ArgumentError(
            "Expected signals of shape (n_models, n_records[, n_views[, n_labels]]), "
            f"got {signal.shape}."
        )
    return signal.reshape(*signal.shape, *(1,) * (4 - signal.ndim))


def scalar(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """One number a record: the mean over known labels, then over views.

    Takes (n_models, n_records[, n_views[, n_labels]]) and returns (n_models, n_records); NaN for
    a record without any known label.
    """
    return _mean_known(channels(signal)).mean(axis=-1)


def log_probability(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log of the probability of the true label; what RMIA and the loss threshold compare.

    Softmax p_y for multiclass, the sigmoid of the true side for binary, the geometric mean of the
    true-side sigmoids over known labels for multilabel; then the mean over views.  Takes
    (n_models, n_records[, n_views[, n_labels]]) and returns (n_models, n_records), NaN for a
    record without any known label.
    """
    log_p = _mean_known(log_expit(channels(signal)))
    if log_p.shape[-1] == 1:
        return log_p[..., 0]
    return logsumexp(log_p, axis=-1) - np.log(log_p.shape[-1])


def _mean_known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    if values.shape[-1] == 1:
        return values[..., 0]
    known = ~np.isnan(values)
    count = known.sum(axis=-1)
    total = np.where(known, values, 0.0).sum(axis=-1)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def multiclass(logits: NDArray[Any], label: NDArray[Any]) -> NDArray[np.float64]:
    """``z_y - logsumexp(z_c, c != y)``, which is logit(p_y), exact and without an epsilon.

    `logits` (..., n_classes), `label` (...) broadcast against the leading axes.
    Carlini et al., "Membership inference attacks from first principles", S&P 2022, section IV-B.

    >>> float(multiclass(np.array([[1.0, 1.0]]), np.array([0]))[0])
    0.0
    """
    z = np.asarray(logits, dtype=np.float64)
    y = np.broadcast_to(label, z.shape[:-1])[..., None].astype(np.intp)
    own = np.take_along_axis(z, y, axis=-1)[..., 0]
    if z.shape[-1] == 2:  # the other class alone: no exponentials needed
        return own - np.take_along_axis(z, 1 - y, axis=-1)[..., 0]
    # Class by class, in place: scipy's logsumexp takes four times as long.
    others = np.moveaxis(z, -1, 0).copy(order="C")
    np.put_along_axis(others, np.moveaxis(y, -1, 0), -np.inf, axis=0)
    top = others.max(axis=0)
    others -= top
    np.exp(others, out=others)
    return own - top - np.log(others.sum(axis=0))


def binary(logit: NDArray[Any], label: NDArray[Any]) -> NDArray[np.float64]:
    """``(2y - 1) z``, the logit of the true side; NaN where the label is unknown.

    >>> binary(np.array([2.0, 2.0, 2.0]), np.array([1, 0, np.nan])).tolist()
    [2.0, -2.0, nan]
    """
    return (2.0 * np.asarray(label, dtype=np.float64) - 1.0) * np.asarray(logit, dtype=np.float64)


def _checked(logits: NDArray[Any], label: NDArray[Any], task: Task) -> NDArray[np.float64]:
    logits = np.asarray(logits)
    n_classes = {"binary": 1, "multilabel": label.shape[-1]}.get(task)
    if logits.ndim < 3 or logits.shape[-3] != len(label):
        raise ArgumentError(
            f"Expected logits of shape (..., {len(label)}, n_views, n_classes), got {logits.shape}."
        )
    if n_classes is not None and logits.shape[-1] != n_classes:
        raise ArgumentError(
            f"A {task} task has {n_classes} logits a record, got {logits.shape[-1]}."
        )
    ok = np.isfinite(logits)
    if not ok.all():
        at = np.argwhere(~ok)[0]
        model = f"model {at[0]}, " if logits.ndim == 4 else ""
        raise SignalError(
            f"The logit of {model}record {at[-3]} (view {at[-2]}, class {at[-1]}) is "
            f"{logits[tuple(at)]}; every logit must be finite. Did the training diverge?"
        )
    return logits.astype(np.float64, copy=False)
