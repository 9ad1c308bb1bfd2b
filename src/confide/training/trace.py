"""Loss traces: the loss of every record after each epoch, and how far it moved."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from confide.cohort import Task
from confide.errors import TrainingError
from confide.training.forward import Weights, forward
from confide.training.plan import Plan
from confide.training.records import Records

_TOO_LARGE = "The loss of a record is not finite after epoch {}; lower train.optimizer.lr."


class LossTraces:
    """Losses of all audited records, members or not, epoch by epoch, for the models of one stack.

    Of the weights as they are after the epoch, not their average, and of the records themselves,
    not augmented: as in Pollock et al., arXiv 2411.05743, whose training averages no weights.  The
    averaged weights lag behind and would smooth away how far a loss moved.

    Parameters
    ----------
    network, records, plan : of the training; see :func:`confide.training.loop.train`
    """

    def __init__(self, network: nn.Module, records: Records, plan: Plan) -> None:
        self._network, self._records, self._plan = network, records, plan
        self._losses: list[NDArray[np.float32]] = []

    def add(self, weights: Weights) -> None:
        """Evaluate the models as they are now.

        Raises
        ------
        TrainingError : a loss is not finite
        """
        records, n = self._records, len(self._records.label)
        parts = []
        with torch.no_grad():
            for start in range(0, n, self._plan.rows_at_once):
                rows = slice(start, min(start + self._plan.rows_at_once, n))
                x = records.standardised(rows)
                logits = forward(self._network, weights, x[None], half=self._plan.half)
                parts.append(record_losses(logits, records.label[rows], records.task))
        losses = torch.cat(parts, dim=1).cpu()
        unknown = losses.isnan() & ~_some_label(records.label, records.task).cpu()
        if not bool((losses.isfinite() | unknown).all()):
            raise TrainingError(_TOO_LARGE.format(len(self._losses) + 1))
        self._losses.append(losses.numpy())

    def ranges(self) -> NDArray[np.float32]:
        """(n_models, n_audited) inter-quartile range of each trace, linear between its values.

        NaN for a record without any known label.
        """
        # Model by model, so that sorting takes a copy of one model's traces alone.
        rows = []
        for model in range(len(self._losses[0])):
            losses = np.stack([each[model] for each in self._losses])
            low, high = np.quantile(losses, [0.25, 0.75], axis=0)
            rows.append((high - low).astype(np.float32))
        return np.stack(rows)


def record_losses(logits: Tensor, label: Tensor, task: Task) -> Tensor:
    """Loss of each model on each record, as :func:`~.losses.losses` has its mean over a batch.

    Parameters
    ----------
    logits : (n_models, n, n_outputs)
    label : (n,) or, for multilabel, (n, n_outputs) with NaN for unknown

    Returns
    -------
    (n_models, n) cross entropy; for multilabel the mean over known labels, NaN if none is known
    """
    if task == "multiclass":
        y = label.expand(logits.shape[:2])
        each = functional.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none")
        return each.view(logits.shape[:2])
    y = label.to(logits.dtype).view(-1, logits.shape[-1]).expand(logits.shape)
    known = ~y.isnan()
    each = functional.binary_cross_entropy_with_logits(logits, y.nan_to_num(0.0), reduction="none")
    return (each * known).sum(dim=-1) / known.sum(dim=-1)


def _some_label(label: Tensor, task: Task) -> Tensor:
    """(n,) bool, whether any label of a record is known."""
    if task == "multilabel":
        return ~label.isnan().all(dim=1)
    return torch.ones(len(label), dtype=torch.bool)
