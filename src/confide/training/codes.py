"""Training one classifier on codes, or on plain records with a trainable encoder in front."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from confide import _check
from confide.errors import ArgumentError, TrainingError
from confide.models.layers import initialise_uniform
from confide.training.allocator import keep_freed_memory
from confide.training.codes_settings import CodeTrainSettings, Plateau
from confide.training.device import tensor_float32
from confide.training.inputs import ArrayInputs, Inputs, Rows, StreamInputs
from confide.training.losses import losses
from confide.training.settings import Performance
from confide.training.weights import from_bytes, to_bytes

__all__ = [
    "ArrayInputs",
    "Epoch",
    "Fitted",
    "Inputs",
    "StreamInputs",
    "fit",
    "from_bytes",
    "predict",
    "to_bytes",
]

Labels = NDArray[np.integer]


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One pass.

    Attributes
    ----------
    epoch : 1, 2, ...
    train_loss : mean over the records that were drawn, each before the step that it took part in
    dev_loss : mean over the dev records after the pass; None without any
    lr : learning rate of the pass
    """

    epoch: int
    train_loss: float
    dev_loss: float | None
    lr: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Fitted:
    """A trained classifier.

    Attributes
    ----------
    weights : weights and running statistics by name, on the CPU, of the chosen epoch
    history : all epochs
    best_epoch : the chosen epoch, counted from 1
    chosen_by : "dev loss": the lowest, of equal ones the first; "last epoch": no dev records
    """

    weights: dict[str, Tensor]
    history: tuple[Epoch, ...]
    best_epoch: int
    chosen_by: Literal["dev loss", "last epoch"]


def fit(
    network: nn.Module,
    inputs: Inputs,
    label: Labels,
    train_rows: Rows,
    dev_rows: Rows,
    settings: CodeTrainSettings,
    performance: Performance | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Fitted:
    """Train a classifier and keep the epoch with the lowest loss on the dev records.

    On a CPU the same call gives the same bits.  Global random states are neither read nor changed.
    With two classes the network has one logit and the loss is the binary cross entropy: the same
    models as with the two logits and the cross entropy of Yala et al., with one of them fixed at 0.

    Parameters
    ----------
    network : (n, *inputs.shape) -> (n, 1) for two classes, else (n, n_classes); its own weights
        are overwritten, it ends with those of the chosen epoch, on the device of `inputs`
    inputs : all records
    label : (len(inputs),) integer class of each record; read at the given rows only
    train_rows, dev_rows : row numbers, without a row in both
    settings : what changes the answer
    performance : its precision; the device is that of `inputs`, the rest has no effect here
    progress : called with epochs done and all epochs

    Raises
    ------
    ArgumentError : labels, rows or outputs that do not fit, or one class alone to train on
    TrainingError : a loss is not finite, or the device is out of memory
    """
    performance = performance or Performance()
    label = _checked_label(label, inputs, train_rows, dev_rows)
    order, start, chance = (int(s) for s in np.random.SeedSequence(settings.seed).generate_state(3))
    initialise_uniform(network.cpu(), torch.Generator().manual_seed(start))
    network.to(inputs.device)
    if inputs.device.type == "cpu":
        keep_freed_memory()
    try:
        with tensor_float32(_tf32(inputs, performance)), _own_chance(inputs, chance):
            training = _Training(network, inputs, label, settings, performance)
            drawn = epochs(label, train_rows, settings, np.random.default_rng(order))
            return training.run(drawn, dev_rows, progress or (lambda done, total: None))
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"A batch of {settings.batch_size} records of shape {inputs.shape} does not fit into "
            "the memory of the device; set train.batch_size lower."
        ) from error


@torch.no_grad()
def predict(
    network: nn.Module,
    inputs: Inputs,
    rows: Rows,
    performance: Performance | None = None,
    *,
    batch_size: int = 128,
) -> NDArray[np.float32]:
    """(len(rows), n_outputs) logits of some records, by the network as it is.

    In evaluation mode, in which a record does not depend on its batch (up to rounding).

    Raises
    ------
    TrainingError : a logit is not finite
    """
    performance = performance or Performance()
    network.to(inputs.device).eval()
    parts = np.array_split(rows, range(batch_size, len(rows), batch_size))
    with tensor_float32(_tf32(inputs, performance)):
        out = [_logits(network, x, performance).cpu() for x in inputs.batches(parts)]
    logits = torch.cat(out).numpy()
    if not np.isfinite(logits).all():
        at = int(np.flatnonzero(~np.isfinite(logits).all(axis=1))[0])
        raise TrainingError(
            f"The logits of record {rows[at]} are not finite; lower train.optimizer.lr or check "
            "the record."
        )
    return logits


def epochs(
    label: Labels, rows: Rows, settings: CodeTrainSettings, rng: np.random.Generator
) -> Iterator[list[Rows]]:
    """The batches of each epoch, of equal size up to one record.

    With `settings.balance`, each record is one of a class drawn uniformly; else the rows are
    permuted.
    """
    n_batches = -(-len(rows) // settings.batch_size)
    _, of_row, counts = np.unique(label[rows], return_inverse=True, return_counts=True)
    by_class = rows[np.argsort(of_row, kind="stable")]
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    for _ in range(settings.epochs):
        if settings.balance:
            drawn = rng.integers(len(counts), size=len(rows))
            within = rng.integers(counts[drawn])
            chosen = by_class[first[drawn] + within]
        else:
            chosen = rng.permutation(rows)
        yield np.array_split(chosen, n_batches)


class _Training:
    """One network on its way."""

    def __init__(
        self,
        network: nn.Module,
        inputs: Inputs,
        label: Labels,
        settings: CodeTrainSettings,
        performance: Performance,
    ) -> None:
        self._network, self._inputs, self._label = network, inputs, label
        self._settings, self._performance = settings, performance
        o, s = settings.optimizer, settings.schedule
        self._optimizer = torch.optim.Adam(
            network.parameters(), lr=o.lr, weight_decay=o.weight_decay, fused=True
        )
        self._plateau = None
        if isinstance(s, Plateau):
            self._plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
                self._optimizer, factor=s.factor, patience=s.patience, eps=0.0
            )

    def run(
        self, drawn: Iterator[list[Rows]], dev_rows: Rows, progress: Callable[[int, int], None]
    ) -> Fitted:
        history: list[Epoch] = []
        best, weights = 0, {}
        for epoch, parts in enumerate(drawn, start=1):
            rate = float(self._optimizer.param_groups[0]["lr"])
            train_loss = self._pass(parts, epoch)
            dev_loss = self._dev_loss(dev_rows, epoch) if len(dev_rows) else None
            history.append(Epoch(epoch=epoch, train_loss=train_loss, dev_loss=dev_loss, lr=rate))
            if self._plateau is not None and dev_loss is not None:
                self._plateau.step(dev_loss)
            if best == 0 or dev_loss is None or dev_loss < (history[best - 1].dev_loss or 0.0):
                best, weights = epoch, _copied(self._network)
            progress(epoch, self._settings.epochs)
        self._network.load_state_dict(weights)
        chosen_by: Literal["dev loss", "last epoch"] = "dev loss" if len(dev_rows) else "last epoch"
        return Fitted(weights=weights, history=tuple(history), best_epoch=best, chosen_by=chosen_by)

    def _pass(self, parts: list[Rows], epoch: int) -> float:
        self._network.train()
        total = torch.zeros((), device=self._inputs.device, dtype=torch.float64)
        for rows, x in zip(parts, self._inputs.batches(parts), strict=True):
            loss = self._loss(x, rows)
            self._optimizer.zero_grad()
            torch.autograd.backward(loss)
            self._optimizer.step()
            total += loss.detach() * len(rows)
        return self._finite(total, sum(map(len, parts)), f"training loss of epoch {epoch}")

    @torch.no_grad()
    def _dev_loss(self, dev_rows: Rows, epoch: int) -> float:
        self._network.eval()
        size = self._settings.batch_size
        parts = np.array_split(dev_rows, range(size, len(dev_rows), size))
        total = torch.zeros((), device=self._inputs.device, dtype=torch.float64)
        for rows, x in zip(parts, self._inputs.batches(parts), strict=True):
            total += self._loss(x, rows) * len(rows)
        return self._finite(total, len(dev_rows), f"dev loss of epoch {epoch}")

    def _loss(self, x: Tensor, rows: Rows) -> Tensor:
        logits = _logits(self._network, x, self._performance)
        top = max(1, logits.shape[1] - 1)
        if self._label[rows].max() > top:
            raise ArgumentError(
                f"Expected label in [0, {top}] for a network with {logits.shape[1]} outputs, got "
                f"{self._label[rows].max()}."
            )
        y = torch.from_numpy(self._label[rows]).to(x.device)
        return losses(logits[None], y[None], "binary" if logits.shape[1] == 1 else "multiclass")[0]

    def _finite(self, total: Tensor, n: int, what: str) -> float:
        loss = float(total) / n
        if not np.isfinite(loss):
            raise TrainingError(
                f"The {what} is not finite. Lower train.optimizer.lr (now "
                f"{self._settings.optimizer.lr:g}) or check the records."
            )
        return loss


@contextmanager
def _own_chance(inputs: Inputs, seed: int) -> Iterator[None]:
    """Global generators, which dropout draws from, are seeded here and set back afterwards."""
    devices = [inputs.device] if inputs.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield


def _tf32(inputs: Inputs, performance: Performance) -> bool:
    return inputs.device.type == "cuda" and performance.precision != "float32"


def _logits(network: nn.Module, x: Tensor, performance: Performance) -> Tensor:
    half = performance.precision == "bfloat16"
    with torch.autocast(x.device.type, torch.bfloat16, enabled=half):
        logits: Tensor = network(x)
    return logits.float()


def _copied(network: nn.Module) -> dict[str, Tensor]:
    return {
        name: tensor.detach().to("cpu", copy=True) for name, tensor in network.state_dict().items()
    }


def _checked_label(
    label: Labels, inputs: Inputs, train_rows: Rows, dev_rows: Rows
) -> NDArray[np.int64]:
    _check.shape((len(inputs),), label=label)
    if not np.issubdtype(label.dtype, np.integer):
        raise ArgumentError(f"Expected label as class indices (integers), got {label.dtype}.")
    for name, rows in (("train_rows", train_rows), ("dev_rows", dev_rows)):
        if rows.ndim != 1 or not np.issubdtype(rows.dtype, np.integer):
            raise ArgumentError(
                f"Expected {name} as integers of shape (n,), got {rows.dtype} {rows.shape}."
            )
        if len(rows) and (rows.min() < 0 or rows.max() >= len(inputs)):
            raise ArgumentError(
                f"Expected {name} in [0, {len(inputs) - 1}], got {rows.min()} to {rows.max()}."
            )
        if len(rows) and label[rows].min() < 0:
            raise ArgumentError(f"Expected label of at least 0, got {label[rows].min()}.")
    both = np.intersect1d(train_rows, dev_rows)
    if len(both):
        raise ArgumentError(
            f"Row {both[0]} is in train_rows and in dev_rows ({len(both)} are); expected none."
        )
    if len(np.unique(label[train_rows])) < 2:
        raise ArgumentError(
            f"Expected two classes or more among the {len(train_rows)} rows to train on, got "
            f"{np.unique(label[train_rows]).tolist()}; there is nothing to tell apart."
        )
    return label.astype(np.int64)
