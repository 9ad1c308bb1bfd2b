"""Sums of clipped gradients: of each record, or of all records of a patient together.

Records come as blocks (n_models, n_blocks, length) whose units, records or patients, never cross
a block.  Norms follow from the inner products of the gradients of the records of a block, so that
a patient's sum of gradients is never formed before it is clipped.

For networks for tables the gradient of a weight matrix for one record
is g a', of the layer's input a and the gradient g of its output; inner products and weighted sums
follow from a and g alone (Goodfellow, arXiv 1510.01799; Lee and Kifer, PoPETs 2021; Bu et al.,
ICML 2023).  For all others the gradient of each record is computed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from confide.cohort import Task
from confide.models.tabular_resnet import TabularResNet
from confide.training.forward import Weights
from confide.training.losses import losses

MARGIN = 1e-4
"""Of the squared length of all gradients of a unit, added to the squared norm of their sum: more
than float32 rounds, also where gradients cancel."""

Blocks = tuple[int, int]
"""Number and length of the blocks of a batch."""

RowGradients = Callable[[Weights, Tensor, Tensor], "Gradients"]
"""(weights, inputs (n_models, n, ...), labels (n_models, n, ...)) -> gradients of each row."""


class Gradients(ABC):
    """The gradients of the losses of n records, for stacked models."""

    @abstractmethod
    def products(self, blocks: Blocks) -> Tensor:
        """(n_models, n_blocks, length, length) inner products of gradients of the same block."""

    @abstractmethod
    def weighted(self, factor: Tensor) -> Weights:
        """Sums over records, each times its factor (n_models, n); rows with factor 0 do not count.

        Also where their gradients are not finite.
        """


def row_gradients(network: nn.Module, task: Task, *, smoothing: float = 0.0) -> RowGradients:
    """How to take the gradients of a network, in the cheaper way where its layers allow it."""

    def loss_of(logits: Tensor, y: Tensor) -> Tensor:
        """(n,) loss of each of n records."""
        return losses(logits.unsqueeze(1), y.unsqueeze(1), task, smoothing=smoothing)

    # Each of its linear layers reads vectors (n, features), once: what the cheaper way rests on.
    if isinstance(network, TabularResNet):
        return _factored(network, loss_of)
    return _materialised(network, loss_of)


def factors(products: Tensor, unit: Tensor, clip: float) -> Tensor:
    """What scales each record, so that its unit's sum of gradients has at most the norm `clip`.

    Parameters
    ----------
    products : (n_models, n_blocks, length, length) from :meth:`Gradients.products`
    unit : (n_models, n_blocks, length) int64, equal for the records of one unit of a block; -1 for
        padding
    clip : largest norm of a unit

    Returns
    -------
    (n_models, n_blocks, length) in [0, 1]: min(1, clip / norm of the unit), 0 for padding and for
    units whose gradients are not finite
    """
    used = unit >= 0
    same = (unit.unsqueeze(-1) == unit.unsqueeze(-2)) & used.unsqueeze(-1)
    each = torch.where(same, products, 0.0).sum(dim=-1)
    length = products.diagonal(dim1=-2, dim2=-1).clamp(min=0.0).sqrt()
    total = torch.where(same, each.unsqueeze(-2), 0.0).sum(dim=-1)
    reach = torch.where(same, length.unsqueeze(-2), 0.0).sum(dim=-1)
    square = total.clamp(min=0.0) + MARGIN * reach.square()
    factor = clip / square.sqrt().clamp(min=clip)
    return torch.where(used & square.isfinite(), factor, 0.0)


def _factored(network: nn.Module, loss_of: Callable[[Tensor, Tensor], Tensor]) -> RowGradients:
    layers = {name: m for name, m in network.named_modules() if isinstance(m, nn.Linear)}
    matrices = {f"{name}.weight" if name else "weight" for name in layers}

    def compute(weights: Weights, x: Tensor, y: Tensor) -> Gradients:
        n_models, n = x.shape[:2]
        given = {name: w.detach() for name, w in weights.items()}
        # One copy of each vector a record, so that autograd gives each record its own gradient.
        vectors = {
            name: w.unsqueeze(1).expand(n_models, n, -1).requires_grad_()
            for name, w in given.items()
            if name not in matrices
        }
        with _inputs_of(layers) as seen:

            def call(w: Weights, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
                seen.clear()
                logits = functional_call(network, w, (x,))
                return logits, dict(seen)

            logits, inputs = vmap(call)(given | vectors, x)
        loss = loss_of(logits.flatten(0, 1), y.flatten(0, 1))
        found = torch.autograd.grad(loss.sum(), list(vectors.values()))
        return _Factored(
            {n: a.detach() for n, a in inputs.items()}, dict(zip(vectors, found, strict=True))
        )

    return compute


class _Factored(Gradients):
    """Inputs of linear layers by the layer's name, gradients of vectors by theirs.

    The gradient of a layer's bias is that of its output.
    """

    def __init__(self, inputs: dict[str, Tensor], vectors: dict[str, Tensor]) -> None:
        self._inputs, self._vectors = inputs, vectors

    def products(self, blocks: Blocks) -> Tensor:
        total = None
        for name, vector in self._vectors.items():
            found = _products(vector, blocks)
            layer = name.removesuffix("bias").removesuffix(".")
            if layer in self._inputs:
                found = found * (1.0 + _products(self._inputs[layer], blocks))
            total = found if total is None else total + found
        if total is None:
            raise ValueError("a network without weights")
        return total

    def weighted(self, factor: Tensor) -> Weights:
        counts = (factor > 0).unsqueeze(-1)
        sums = {}
        for name, vector in self._vectors.items():
            scaled = torch.where(counts, vector, 0.0) * factor.unsqueeze(-1)
            sums[name] = scaled.sum(dim=1)
            layer = name.removesuffix("bias").removesuffix(".")
            if layer in self._inputs:
                matrix = f"{layer}.weight" if layer else "weight"
                sums[matrix] = scaled.mT @ torch.where(counts, self._inputs[layer], 0.0)
        return sums


def _materialised(network: nn.Module, loss_of: Callable[[Tensor, Tensor], Tensor]) -> RowGradients:
    def loss_of_one(w: Weights, x: Tensor, y: Tensor) -> Tensor:
        return loss_of(functional_call(network, w, (x.unsqueeze(0),)), y.unsqueeze(0)).sum()

    of_rows = vmap(grad(loss_of_one), in_dims=(None, 0, 0))

    def compute(weights: Weights, x: Tensor, y: Tensor) -> Gradients:
        given = {name: w.detach() for name, w in weights.items()}
        return _Materialised(vmap(of_rows)(given, x, y))

    return compute


class _Materialised(Gradients):
    """(n_models, n, ...) gradients by the name of the weight."""

    def __init__(self, rows: Weights) -> None:
        self._rows = rows

    def products(self, blocks: Blocks) -> Tensor:
        total = None
        for each in self._rows.values():
            found = _products(each.flatten(2), blocks)
            total = found if total is None else total + found
        if total is None:
            raise ValueError("a network without weights")
        return total

    def weighted(self, factor: Tensor) -> Weights:
        sums = {}
        for name, each in self._rows.items():
            rows = each.flatten(2)
            rows = torch.where((factor > 0).unsqueeze(-1), rows, 0.0)
            sums[name] = (factor.unsqueeze(1) @ rows).view(len(each), *each.shape[2:])
        return sums


def _products(rows: Tensor, blocks: Blocks) -> Tensor:
    """(n_models, n_blocks, length, length) of (n_models, n, width)."""
    n_blocks, length = blocks
    if length == 1:
        return rows.square().sum(dim=-1)[..., None, None]
    parts = rows.reshape(len(rows), n_blocks, length, rows.shape[-1])
    return parts @ parts.mT


@contextmanager
def _inputs_of(layers: Mapping[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """What the layers are called with, while the context is open."""
    seen: dict[str, Tensor] = {}

    def note(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            seen[name] = arguments[0]

        return hook

    handles = [layer.register_forward_pre_hook(note(name)) for name, layer in layers.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
