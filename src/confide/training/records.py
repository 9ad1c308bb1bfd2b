"""The inputs and labels of all records, on the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from confide import _check
from confide.cohort import Task
from confide.errors import ArgumentError

_IMAGES_AT_ONCE = 4096
_NUMBERS_AT_ONCE = 2**22  # of signals


@dataclass(frozen=True, kw_only=True, eq=False)
class Records:
    """All records that a trainer knows: audited ones first, then held-out ones.

    Attributes
    ----------
    inputs : (n_all, n_features) float32, (n_all, leads, samples) float32 or
        (n_all, channels, height, width) uint8
    label : (n_audited,) int64, or (n_audited, n_labels) float32 with NaN for unknown
    mean, scale : (channels, 1, 1) float32 of the audited images, or (leads, 1) of the audited
        signals; None for tables
    task : of the labels
    n_outputs : logits a record
    """

    inputs: Tensor
    label: Tensor
    mean: Tensor | None
    scale: Tensor | None
    task: Task
    n_outputs: int

    @classmethod
    def on(
        cls,
        device: torch.device,
        inputs: NDArray[Any],
        label: NDArray[Any],
        task: Task,
        n_classes: int,
        n_audited: int,
    ) -> Records:
        """Check the arrays and put them on a device; see :class:`~.trainer.TorchTrainer`."""
        _check_inputs(inputs, n_audited)
        if len(label) < n_audited:
            raise ArgumentError(f"Expected {n_audited} labels, got {len(label)}.")
        label = label[:n_audited]
        _check_label(label, task, n_classes)
        data = torch.from_numpy(_writeable(inputs)).to(device)
        mean, scale = _statistics(data[:n_audited])
        kind = np.float32 if task == "multilabel" else np.int64
        return cls(
            inputs=data,
            label=torch.from_numpy(label.astype(kind)).to(device),
            mean=mean,
            scale=scale,
            task=task,
            n_outputs=1 if task == "binary" else n_classes,
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one record."""
        return tuple(self.inputs.shape[1:])

    def standardised(self, rows: Tensor | slice) -> Tensor:
        """(n, ...) float32 inputs of some rows; mean 0, sd 1 by channel or lead."""
        x = self.inputs[rows]
        if self.mean is None or self.scale is None:
            return x
        return (x.float() - self.mean) / self.scale


def _check_inputs(inputs: NDArray[Any], n_audited: int) -> None:
    table = inputs.ndim == 2 and inputs.dtype == np.float32
    signals = inputs.ndim == 3 and inputs.dtype == np.float32
    images = inputs.ndim == 4 and inputs.dtype == np.uint8
    if not (table or signals or images) or 0 in inputs.shape:
        raise ArgumentError(
            "Expected inputs as float32 (records, features) or (records, leads, samples), or uint8 "
            "(records, channels, height, width), none of them empty, got "
            f"{inputs.dtype} {inputs.shape}."
        )
    _check.in_range(1, len(inputs), n_audited=n_audited)
    if not images:
        _check.finite(inputs=inputs)


def _check_label(label: NDArray[Any], task: Task, n_classes: int) -> None:
    _check.one_of(("binary", "multiclass", "multilabel"), task=task)
    if task == "multilabel":
        _check.shape((None, n_classes), label=label)
        if not (np.isnan(label) | (label == 0) | (label == 1)).all():
            raise ArgumentError("Expected multilabel labels of 0, 1 or NaN.")
        return
    _check.shape((None,), label=label)
    if not np.issubdtype(label.dtype, np.integer):
        raise ArgumentError(f"Expected label as class indices (integers), got {label.dtype}.")
    top = 1 if task == "binary" else n_classes - 1
    if label.min() < 0 or label.max() > top:
        raise ArgumentError(
            f"Expected label in [0, {top}] for a {task} task, got {label.min()} to {label.max()}."
        )


def _writeable(array: NDArray[Any]) -> NDArray[Any]:
    """The array itself where torch can share its memory, else a copy."""
    shareable = array.flags.writeable and array.flags.c_contiguous and array.dtype.isnative
    return array if shareable else array.astype(array.dtype.newbyteorder("="), order="C", copy=True)


def _statistics(inputs: Tensor) -> tuple[Tensor, Tensor] | tuple[None, None]:
    """Mean and standard deviation by which records are standardised; tables are already."""
    if inputs.ndim == 4:
        return _of_images(inputs)
    return _of_signals(inputs) if inputs.ndim == 3 else (None, None)


def _of_signals(signals: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each lead, (leads, 1), in two passes over pieces."""
    n, leads, samples = signals.shape
    pieces = torch.split(signals, max(1, _NUMBERS_AT_ONCE // (leads * samples)))
    mean = torch.zeros(leads, dtype=torch.float64, device=signals.device)
    for part in pieces:
        mean += part.double().sum(dim=(0, 2))
    mean /= n * samples
    squares = torch.zeros_like(mean)
    for part in pieces:
        squares += (part.double() - mean[:, None]).square().sum(dim=(0, 2))
    sd = (squares / (n * samples)).sqrt()
    # A constant lead becomes 0; what is left of it is rounding.
    scale = torch.where(sd > 1e-12 * mean.abs(), sd, 1.0)
    return mean.float()[:, None], scale.float()[:, None]


def _of_images(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel, from exact integer sums."""
    total = torch.zeros(images.shape[1], dtype=torch.int64, device=images.device)
    squares = torch.zeros_like(total)
    for part in torch.split(images, _IMAGES_AT_ONCE):
        values = part.to(torch.int32)
        total += values.sum(dim=(0, 2, 3))
        squares += values.square().sum(dim=(0, 2, 3))
    n = images[:, 0].numel()
    mean = total.double() / n
    sd = (squares.double() / n - mean.square()).clamp(min=0).sqrt()
    scale = torch.where(sd > 0, sd, 1.0)  # a constant channel becomes 0
    return mean.float()[:, None, None], scale.float()[:, None, None]
