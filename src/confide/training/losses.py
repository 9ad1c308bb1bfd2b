"""Losses of stacked models: one mean over the batch for each model."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from confide.cohort import Task


def losses(logits: Tensor, label: Tensor, task: Task, *, smoothing: float = 0.0) -> Tensor:
    """Mean loss of each model over its batch.

    Parameters
    ----------
    logits : (n_models, n_batch, n_outputs) float32
    label : (n_models, n_batch) int64 class index, or for multilabel (n_models, n_batch,
        n_outputs) float32 of 1, 0 and NaN for unknown
    smoothing : share e of each label that is spread evenly over its K classes, (1 - e) y + e / K
        (Szegedy et al., CVPR 2016, section 7); K = 2 for binary tasks and for each label of a
        multilabel one

    Returns
    -------
    (n_models,) : cross entropy for binary (one logit) and multiclass tasks; for multilabel the
        binary cross entropy averaged over the known labels of the batch, 0 if none is known
    """
    if task == "binary":
        return functional.binary_cross_entropy_with_logits(
            logits[..., 0], _smooth(label.to(logits.dtype), smoothing), reduction="none"
        ).mean(dim=1)
    if task == "multiclass":
        each = functional.cross_entropy(
            logits.flatten(0, 1), label.flatten(), reduction="none", label_smoothing=smoothing
        )
        return each.view(label.shape).mean(dim=1)
    known = ~label.isnan()
    each = functional.binary_cross_entropy_with_logits(
        logits, _smooth(label.nan_to_num(0.0), smoothing), reduction="none"
    )
    return (each * known).sum(dim=(1, 2)) / known.sum(dim=(1, 2)).clamp(min=1)


def _smooth(label: Tensor, smoothing: float) -> Tensor:
    """Labels of two classes, 0 or 1, some of it spread over both."""
    return label * (1.0 - smoothing) + smoothing / 2 if smoothing else label
