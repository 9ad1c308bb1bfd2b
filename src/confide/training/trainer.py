"""Training with PyTorch: the trainer behind a configuration."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from confide import _check
from confide.cohort import Task
from confide.errors import ArgumentError, TrainingError
from confide.models import build
from confide.training.allocator import keep_freed_memory
from confide.training.base import Fit, Trainer
from confide.training.dev import BestEpoch, dev_records
from confide.training.device import device_of, tensor_float32
from confide.training.forward import LossFunction, Weights, compiled, loss_function
from confide.training.loop import evaluate, train
from confide.training.plan import Plan
from confide.training.private import Noise, noise_of, train_private
from confide.training.records import Records
from confide.training.regularise import (
    Chances,
    Draws,
    regularised_loss,
    regularises,
    width_of_head,
)
from confide.training.settings import Performance, TrainSettings
from confide.training.step import Replayed, Step, step_of
from confide.training.trace import LossTraces


class TorchTrainer(Trainer):
    """Trains neural networks, several at once as one stack where that is faster.

    A model depends on its members and its seed alone, not on which others are in its stack, up
    to the rounding of the products; on a CPU the same call gives the same bits.  Global random
    states are neither read nor changed.  With `settings.privacy` batches and noise come from the
    operating system instead of the seed, and no model can be trained again as it was.  Images are
    standardised by mean and standard deviation of each channel over all audited records, members or
    not, so that all models share them, and signals by those of each lead.

    Parameters
    ----------
    inputs : (n_all, n_features) float32, (n_all, leads, samples) float32 or
        (n_all, channels, height, width) uint8, audited records first, then held-out ones; tables
        are expected in standardised form
    label : labels of the audited records, as in :class:`confide.cohort.Cohort`; further rows are
        not read
    task : "binary", "multiclass" or "multilabel"
    n_classes : number of classes, or of labels for multilabel; a binary task has one logit
    n_audited : number of audited records
    expected_members : records that a model is trained on, on average; fixes the number of steps,
        which is the same for all models
    settings : what changes the answer
    performance : what changes only the speed
    dev : inputs and labels of the patients that choose the epoch, where `settings.dev` keeps the
        best; they are none of the audited or held-out ones, and no logits of them are returned
    patient : (n_audited,) integers, the patient of each audited record; needed with
        `settings.privacy`, without it only counted where an error speaks of patients
    folder : files that `settings.model` names are relative to it

    Raises
    ------
    ArgumentError : arrays that do not fit together or the architecture, settings that do not fit
        the task or the sizes, or privacy without `patient`
    ConfigError : device "cuda" where there is none
    """

    def __init__(
        self,
        inputs: NDArray[Any],
        label: NDArray[Any],
        *,
        task: Task,
        n_classes: int,
        n_audited: int,
        expected_members: float,
        settings: TrainSettings | None = None,
        performance: Performance | None = None,
        dev: tuple[NDArray[Any], NDArray[Any]] | None = None,
        patient: NDArray[np.integer[Any]] | None = None,
        folder: Path = Path(),
    ) -> None:
        self._settings = settings or TrainSettings()
        performance = performance or Performance()
        device = device_of(performance)
        self._tf32 = device.type == "cuda" and performance.precision != "float32"
        self._records = Records.on(device, inputs, label, task, n_classes, n_audited)
        _check.in_range(1, n_audited, expected_members=expected_members)
        shape = self._records.shape
        self._network = build(self._settings.model, shape, self._records.n_outputs, folder=folder)
        for buffer in self._network.buffers():  # constants; the weights are put there when drawn
            buffer.data = buffer.data.to(device)
        self._expected, self._patient = expected_members, patient
        self._plan = Plan.of(
            self._settings,
            performance,
            device.type,
            shape,
            expected_members,
            sum(p.numel() for p in self._network.parameters()),
        )
        self._dev = None if dev is None else dev_records(*dev, self._records)
        self._check_fit()
        self._noise: Noise | None = None
        if self._settings.privacy is not None:
            if patient is None:
                raise ArgumentError(
                    "train.privacy needs patient, the patient of each audited record, but it is "
                    "None; where each record is a patient of its own give patient="
                    "np.arange(n_audited)."
                )
            self._noise, self.privacy = noise_of(
                self._settings.privacy,
                self._network,
                self._plan,
                expected_members,
                n_audited,
                patient,
            )
            # The settings alone do not say it: models of two guarantees must not share a folder.
            counted = ("unit", "noise", "rate", "steps", "most_records")
            self._mechanism = {name: self.privacy[name] for name in counted} | {
                "patient_sha256": sha256(np.asarray(patient, dtype="<i8").tobytes()).hexdigest()
            }
        self._losses: dict[int, LossFunction] = {}
        self._replayed: tuple[int, Replayed] | None = None
        self.models_at_once = self._plan.models_at_once
        self.keeps_traces = self._settings.trace
        self.logits_shape = (self._settings.views, self._records.n_outputs)
        if device.type == "cpu":
            keep_freed_memory()

    def fit(self, members: NDArray[np.bool_], seeds: Sequence[int]) -> NDArray[np.float32]:
        """See :meth:`Trainer.fit`.

        Raises
        ------
        ArgumentError : members or seeds of a wrong shape, or a model without members
        TrainingError : a model diverged or the device is out of memory; names the position of the
            model and the remedy
        """
        return self.fit_whole(members, seeds).logits

    def fit_traced(
        self, members: NDArray[np.bool_], seeds: Sequence[int]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """See :meth:`Trainer.fit_traced` and, for errors, :meth:`fit`."""
        found = self.fit_whole(members, seeds)
        return found.logits, found.trace

    def fit_whole(self, members: NDArray[np.bool_], seeds: Sequence[int]) -> Fit:
        """See :meth:`Trainer.fit_whole` and, for errors, :meth:`fit`."""
        self._check_members(members, seeds)
        rows = [torch.from_numpy(np.flatnonzero(row)) for row in members]
        traces = None
        if self._settings.trace:
            traces = LossTraces(self._network, self._records, self._plan)
        best = None
        if self._dev is not None:
            best = BestEpoch(self._network, self._dev, self._settings, self._plan, len(members))
        try:
            with tensor_float32(self._tf32):
                weights = self._trained(rows, seeds, traces, best)
                logits = evaluate(self._network, weights, self._records, self._settings, self._plan)
        except torch.OutOfMemoryError as error:
            raise TrainingError(
                f"{len(members)} models at once do not fit into the memory of the device; set "
                "performance.models_at_once lower."
            ) from error
        return Fit(
            logits=logits,
            trace=None if traces is None else traces.ranges(),
            epochs=None if best is None else best.epochs.cpu().numpy(),
        )

    def _trained(
        self,
        rows: Sequence[Tensor],
        seeds: Sequence[int],
        traces: LossTraces | None,
        best: BestEpoch | None,
    ) -> Weights:
        if self._noise is not None:
            return train_private(
                self._network,
                self._records,
                rows,
                seeds,
                self._settings,
                self._plan,
                self._noise,
                tf32=self._tf32,
                best=best,
            )
        step = self._step_of(len(rows))
        return train(
            self._network,
            step.loss_of,
            self._records,
            rows,
            seeds,
            self._settings,
            self._plan,
            None if traces is None else traces.add,
            best,
            step,
        )

    def _step_of(self, n_models: int) -> Step:
        """The recorded one of the last stack if that was as large; one more would hold memory."""
        if self._replayed is not None and self._replayed[0] == n_models:
            return self._replayed[1]
        self._replayed = None
        loss_of = self._loss_of(n_models)
        found = step_of(self._network, loss_of, self._records, self._settings, self._plan, n_models)
        if isinstance(found, Replayed):
            self._replayed = n_models, found
        return found

    def _loss_of(self, n_models: int) -> LossFunction:
        """Made, and compiled where that pays, once for each size of stack."""
        if n_models in self._losses:
            return self._losses[n_models]
        network, task, half = self._network, self._records.task, self._plan.half
        if regularises(self._settings):
            loss_of = regularised_loss(network, task, self._settings, half=half)
        else:
            loss_of = loss_function(network, task, half=half)
        if self._plan.compiles:
            inputs, label = self._records.inputs, self._records.label
            stack = (n_models, self._plan.batch)
            weights = {
                name: torch.zeros((n_models, *w.shape), device=inputs.device, requires_grad=True)
                for name, w in self._network.named_parameters()
            }
            x = torch.zeros(stack + inputs.shape[1:], device=inputs.device)
            y = torch.zeros(stack + label.shape[1:], device=inputs.device, dtype=label.dtype)
            loss_of = compiled(loss_of, weights, x, y, *self._example_draws(n_models))
        self._losses[n_models] = loss_of
        return loss_of

    def _example_draws(self, n_models: int) -> Draws | tuple[()]:
        any_seed = [torch.Generator()] * n_models
        shape = self._plan.batch, width_of_head(self._network) if self._settings.dropout else 0
        device = self._records.inputs.device
        return Chances(self._settings, any_seed, any_seed, shape, device).draw()

    def _check_fit(self) -> None:
        """Settings against the task, the sizes and the dev records."""
        settings = self._settings
        chooses = settings.dev is not None and settings.dev.keep == "best"
        if chooses != (self._dev is not None):
            raise ArgumentError(
                "Expected dev records with settings.dev that keeps the best epoch, and none "
                f"without; got {'none' if chooses else 'some'} and dev={settings.dev!r}."
            )
        if settings.balance and self._records.task == "multilabel":
            raise ArgumentError(
                "train.balance needs one class a record, but a multilabel task has several labels; "
                "set balance: false."
            )
        if settings.mixup and self._plan.batch == 1:
            raise ArgumentError(
                "train.mixup mixes records of a batch, but batches have one record; set mixup: 0 "
                "or a larger train.batch_size."
            )
        if settings.dropout:
            width_of_head(self._network)

    def _check_members(self, members: NDArray[np.bool_], seeds: Sequence[int]) -> None:
        n_audited = len(self._records.label)
        _check.shape((None, n_audited), members=members)
        if members.dtype != bool:
            raise ArgumentError(f"Expected members of type bool, got {members.dtype}.")
        if not 1 <= len(members) <= self.models_at_once or len(seeds) != len(members):
            raise ArgumentError(
                f"Expected 1 to {self.models_at_once} rows of members and as many seeds, got "
                f"{len(members)} and {len(seeds)}."
            )
        empty = ~members.any(axis=1)
        if empty.any():
            left = f"{n_audited:,} record(s)"
            if self._patient is not None:
                left += f" of {len(np.unique(self._patient)):,} patient(s)"
            raise ArgumentError(
                f"The model at position {int(np.argmax(empty))} has no members: {left} are left to "
                "audit, and its draw holds none of them; audit more patients, or hold out or set "
                "apart fewer by a smaller `test` or `train.dev`."
            )

    def describe(self) -> dict[str, Any]:
        """See :meth:`Trainer.describe`."""
        found = {
            "trainer": type(self).__name__,
            "task": self._records.task,
            "n_outputs": self._records.n_outputs,
            "expected_members": self._expected,
            "settings": self._settings.model_dump(mode="json"),
            **self._network.identity,
        }
        if self._plan.half:  # models of two precisions must not share a folder
            found["precision"] = "bfloat16"
        return found if self.privacy is None else found | {"privacy": self._mechanism}
