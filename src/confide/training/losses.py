"""Losses of stacked models: one mean over the batch for each model."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from confide.cohort import Task


def losses(logits: Tensor, label: Tensor, task: Task) -> Tensor:
    """Mean loss of each model over its batch.

    Parameters
    ----------
    logits : (n_models, n_batch, n_outputs) float32
    label : (n_models, n_batch) int64 class index, or for multilabel (n_models, n_batch,
        n_outputs) float32 of 1, 0 and NaN for unknown

    Returns
    -------
    (n_models,) : cross entropy for binary (one logit) and multiclass tasks; for multilabel the
        binary cross entropy averaged over the known labels of the batch, 0 if none is known
    """
    if task == "binary":
        return functional.binary_cross_entropy_with_logits(
            logits[..., 0], label.to(logits.dtype), reduction="none"
        ).mean(dim=1)
    if task == "multiclass":
        each = functional.cross_entropy(logits.flatten(0, 1), label.flatten(), reduction="none")
        return each.view(label.shape).mean(dim=1)
    known = ~label.isnan()
    each = functional.binary_cross_entropy_with_logits(
        logits, label.nan_to_num(0.0), reduction="none"
    )
    return (each * known).sum(dim=(1, 2)) / known.sum(dim=(1, 2)).clamp(min=1)
