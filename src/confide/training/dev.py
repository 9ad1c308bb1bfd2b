"""Which epoch of a training is kept: the one with the lowest loss on patients set apart for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from confide.errors import ArgumentError, TrainingError
from confide.training.forward import Weights, forward
from confide.training.plan import Plan
from confide.training.records import Records
from confide.training.settings import TrainSettings
from confide.training.trace import record_losses


class BestEpoch:
    """The weights of each model of one stack as they were after its best epoch so far.

    The best epoch has the lowest dev loss, of equal ones the first; after `patience` epochs in a
    row without a lower one a model has stopped, and keeps what it has, whatever its neighbours in
    the stack do.  Each model's choice is its own; losses of two epochs that are equal up to the
    rounding of float32 may be told apart otherwise in another stack.

    The dev loss is that of the averaged weights, which are what is evaluated, on the dev records
    themselves: without augmentation and regularisers.  It is the mean over records; with
    `balance` over classes, as in training; of a multilabel task over all known labels.

    Parameters
    ----------
    network, plan : of the training; see :func:`confide.training.loop.train`
    dev : the dev records, see :func:`dev_records`
    settings : of the training, with `dev`
    n_models : in the stack

    Attributes
    ----------
    weights : the best of each model, stacked; empty before the first epoch
    epochs : (n_models,) int64 best epoch of each model, counted from 1
    stopped : (n_models,) bool, which models have stopped
    """

    def __init__(
        self,
        network: nn.Module,
        dev: Records,
        settings: TrainSettings,
        plan: Plan,
        n_models: int,
    ) -> None:
        self._network, self._records, self._plan = network, dev, plan
        self._patience = None if settings.dev is None else settings.dev.patience
        self._weight = record_weights(dev, balance=settings.balance)
        self._epoch = 0
        self.weights: Weights = {}
        device = dev.inputs.device
        self.epochs = torch.zeros(n_models, dtype=torch.int64, device=device)
        self.stopped = torch.zeros(n_models, dtype=torch.bool, device=device)
        self._lowest = torch.full((n_models,), torch.inf, dtype=torch.float64, device=device)

    def add(self, average: Weights) -> None:
        """Look at the models after one more epoch.

        Raises
        ------
        TrainingError : the dev loss of a model that has not stopped is not finite
        """
        self._epoch += 1
        losses = self.losses(average)
        bad = ~self.stopped & ~losses.isfinite()
        if bool(bad.any()):
            raise TrainingError(
                f"The dev loss of the model at position {int(bad.int().argmax())} of {len(bad)} is "
                f"not finite after epoch {self._epoch}; lower train.optimizer.lr or check the "
                "records."
            )
        better = ~self.stopped & (losses < self._lowest)
        self._lowest = torch.where(better, losses, self._lowest)
        self.epochs[better] = self._epoch
        if not self.weights:
            self.weights = {name: w.detach().clone() for name, w in average.items()}
        for name, w in average.items():
            self.weights[name][better] = w[better]
        if self._patience is not None:
            self.stopped |= self._epoch - self.epochs >= self._patience

    @torch.no_grad()
    def losses(self, weights: Weights) -> Tensor:
        """(n_models,) float64 dev loss of some weights."""
        records, n = self._records, len(self._records.label)
        total = torch.zeros((), dtype=torch.float64, device=records.inputs.device)
        for start in range(0, n, self._plan.rows_at_once):
            rows = slice(start, min(start + self._plan.rows_at_once, n))
            logits = forward(
                self._network, weights, records.standardised(rows)[None], half=self._plan.half
            )
            each = record_losses(logits, records.label[rows], records.task).double()
            weight = self._weight[rows]
            # A record without a known label has no loss, and no weight.
            total = total + (torch.where(weight > 0, each, 0.0) * weight).sum(dim=1)
        return total / self._weight.sum()


def dev_records(inputs: NDArray[Any], label: NDArray[Any], audited: Records) -> Records:
    """The dev records, standardised like the audited ones.

    Parameters
    ----------
    inputs : (n_dev, ...) of the type and shape of the audited ones
    label : (n_dev,) or (n_dev, n_labels), as those of the audited ones
    audited : the records that models are trained on

    Raises
    ------
    ArgumentError : inputs or labels that do not fit, or without any known label
    """
    n_classes = 2 if audited.task == "binary" else audited.n_outputs
    dev = Records.on(audited.inputs.device, inputs, label, audited.task, n_classes, len(inputs))
    if dev.shape != audited.shape or dev.inputs.dtype != audited.inputs.dtype:
        raise ArgumentError(
            f"Expected dev records like the audited ones, {audited.inputs.dtype} of shape "
            f"{audited.shape}, got {dev.inputs.dtype} of shape {dev.shape}."
        )
    if not bool(record_weights(dev, balance=False).any()):
        raise ArgumentError(
            "None of the dev records has a known label, so none can choose an epoch; set apart "
            "more patients."
        )
    return replace(dev, mean=audited.mean, scale=audited.scale)


def record_weights(records: Records, *, balance: bool) -> Tensor:
    """(n,) float64, how much the loss of each record counts.

    One, or the number of its known labels; with `balance` one over the records of its class.
    """
    label = records.label
    if records.task == "multilabel":
        return (~label.isnan()).sum(dim=1).double()
    if balance:
        return 1.0 / label.bincount()[label].double()
    return torch.ones(len(label), dtype=torch.float64, device=label.device)
