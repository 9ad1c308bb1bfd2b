"""Outputs and losses of several models at once, whose weights are stacked tensors."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from confide.cohort import Task
from confide.training.losses import losses

Weights = dict[str, Tensor]
"""Name of a parameter -> (n_models, ...) values."""

LossFunction = Callable[..., Tensor]
"""(weights, inputs, labels, *draws) of stacked models -> (n_models,) losses."""


def forward(network: nn.Module, weights: Weights, x: Tensor, *, half: bool = False) -> Tensor:
    """Logits (n_models, n, n_outputs) float32 of inputs (n_models, n, ...).

    Inputs (1, n, ...) are shown to all models.
    """
    n_models = len(next(iter(weights.values())))
    with torch.autocast(x.device.type, torch.bfloat16, enabled=half):
        if n_models == 1:
            alone = {name: tensor.squeeze(0) for name, tensor in weights.items()}
            return functional_call(network, alone, (x[0],))[None].float()
        shared = len(x) == 1
        call = vmap(
            lambda w, x: functional_call(network, w, (x,)), in_dims=(0, None if shared else 0)
        )
        logits: Tensor = call(weights, x[0] if shared else x)
        return logits.float()


def loss_function(network: nn.Module, task: Task, *, half: bool) -> LossFunction:
    """The loss of stacked models, each on its own batch."""

    def loss_of(weights: Weights, x: Tensor, y: Tensor) -> Tensor:
        return losses(forward(network, weights, x, half=half), y, task)

    return loss_of


def compiled(loss_of: LossFunction, weights: Weights, *example: Tensor | None) -> LossFunction:
    """`loss_of` compiled and tried on an example, or itself, with a warning, where that fails."""
    fast: LossFunction = torch.compile(loss_of, dynamic=False)
    try:  # backward too, which is compiled apart
        torch.autograd.grad(fast(weights, *example).sum(), list(weights.values()))
    except RuntimeError as error:
        warnings.warn(
            f"torch.compile does not work here ({type(error).__name__}); training goes on "
            "without it. Set performance.compile: false to silence this.",
            RuntimeWarning,
            stacklevel=2,
        )
        return loss_of
    return fast
