"""Regularisers that change the loss of a step: label smoothing, dropout, mix-up.

Drawing (:class:`Chances`, on the CPU, from generators of each model) and computing
(:func:`regularised_loss`) are apart, so that a model gets the same draws in any stack.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from scipy.special import betaincinv
from torch import Tensor, nn

from confide.cohort import Task
from confide.errors import ArgumentError
from confide.training.forward import LossFunction, Weights, forward
from confide.training.losses import losses
from confide.training.settings import TrainSettings

Draws = tuple[Tensor | None, Tensor | None, Tensor | None]
"""Of one step: share and partner of mix-up, see :func:`draw_mixup`, and what dropout keeps,
(n_models, batch, n_features) bool; None for what is off."""


def regularises(settings: TrainSettings) -> bool:
    """Whether the loss differs from the plain one."""
    return bool(settings.label_smoothing or settings.dropout or settings.mixup)


def regularised_loss(
    network: nn.Module, task: Task, settings: TrainSettings, *, half: bool
) -> LossFunction:
    """The loss of stacked models with regularisers, as a function (weights, x, y, *draws).

    Mix-up is of inputs and losses: share l(x', y) + (1 - share) l(x', y of the partner), with
    x' = share x + (1 - share) x of the partner; cross entropies are linear in the label, so this is
    the loss of the mixed label (Zhang et al., ICLR 2018, section 2).  An unknown label of a
    multilabel task adds nothing, and a record's known ones count by its share.  Dropout divides
    what it keeps by 1 - dropout, so that the sizes are those of an evaluation.
    """
    smoothing, dropout = settings.label_smoothing, settings.dropout
    body = copy.deepcopy(network)
    body.head = nn.Identity()

    def logits_of(weights: Weights, x: Tensor, keep: Tensor | None) -> Tensor:
        if keep is None:
            return forward(network, weights, x, half=half)
        below = {name: w for name, w in weights.items() if not name.startswith("head.")}
        features = forward(body, below, x, half=half) * keep / (1.0 - dropout)
        bias = weights["head.bias"].unsqueeze(1)
        return torch.baddbmm(bias, features, weights["head.weight"].mT)

    def loss_of(
        weights: Weights,
        x: Tensor,
        y: Tensor,
        share: Tensor | None = None,
        partner: Tensor | None = None,
        keep: Tensor | None = None,
    ) -> Tensor:
        if share is None or partner is None:
            return losses(logits_of(weights, x, keep), y, task, smoothing=smoothing)
        model = torch.arange(len(x), device=x.device).unsqueeze(1)
        of_input = share.view(-1, *[1] * (x.ndim - 1))
        logits = logits_of(weights, of_input * x + (1.0 - of_input) * x[model, partner], keep)
        own = losses(logits, y, task, smoothing=smoothing)
        other = losses(logits, y[model, partner], task, smoothing=smoothing)
        return share * own + (1.0 - share) * other

    return loss_of


class Chances:
    """Draws, step by step, for the models of one stack.

    Parameters
    ----------
    settings : what is on
    mixup, dropout : generators on the CPU, one a model each
    shape : records a step, and inputs of the last layer (of dropout)
    device : where the draws are put
    """

    def __init__(
        self,
        settings: TrainSettings,
        mixup: Sequence[torch.Generator],
        dropout: Sequence[torch.Generator],
        shape: tuple[int, int],
        device: torch.device,
    ) -> None:
        self._settings, self._mixup, self._dropout = settings, mixup, dropout
        self._shape, self._device = shape, device

    def draw(self) -> Draws | tuple[()]:
        """The draws of the next step; nothing where there is nothing to draw."""
        alpha, p = self._settings.mixup, self._settings.dropout
        if not alpha and not p:
            return ()
        share = partner = keep = None
        if alpha:
            drawn = [draw_mixup(alpha, self._shape[0], one) for one in self._mixup]
            share = torch.stack([s for s, _ in drawn]).to(self._device)
            partner = torch.stack([order for _, order in drawn]).to(self._device)
        if p:
            uniform = torch.stack([torch.rand(self._shape, generator=d) for d in self._dropout])
            keep = (uniform >= p).to(self._device)
        return share, partner, keep


def draw_mixup(alpha: float, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """What one batch of one model is mixed with.

    Returns
    -------
    share : () float32 of each record itself, from Beta(alpha, alpha)
    partner : (batch,) int64 position of the record that it is mixed with, a permutation
    """
    uniform = torch.rand((), generator=generator, dtype=torch.float64)
    share = torch.tensor(float(betaincinv(alpha, alpha, uniform.item())))
    return share, torch.randperm(batch, generator=generator)


def width_of_head(network: nn.Module) -> int:
    """Inputs of the last layer.

    Raises
    ------
    ArgumentError : the network does not end in a linear layer called `head`
    """
    head = getattr(network, "head", None)
    if not isinstance(head, nn.Linear) or head.bias is None:
        raise ArgumentError(
            f"train.dropout acts before a last linear layer `head`, which {type(network).__name__} "
            "does not have; set dropout: 0."
        )
    return head.in_features
