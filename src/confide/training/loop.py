"""The training loop: several models as one stack of tensors, and their evaluation.

Weights are tensors (n_models, ...).  Losses are summed over models, so that autograd gives each
model its own gradient, and optimizers work element by element, so that each model takes the steps
that it would take alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from confide.errors import TrainingError
from confide.models.layers import initialise
from confide.training import augment
from confide.training.dev import BestEpoch
from confide.training.forward import LossFunction, Weights, forward
from confide.training.plan import Plan
from confide.training.records import Records
from confide.training.regularise import Chances, width_of_head
from confide.training.settings import TrainSettings
from confide.training.step import Step
from confide.training.stream import balanced_batches, batches

_VIEWS_SEED = 20220
"""Of the augmented views: one constant, so that all models are asked the same questions."""


@dataclass(frozen=True, eq=False)
class Dice:
    """The random numbers of one model, drawn on the CPU so that they are the same everywhere."""

    weights: torch.Generator
    order: torch.Generator
    chance: torch.Generator
    mixup: torch.Generator
    dropout: torch.Generator

    @classmethod
    def of(cls, seed: int) -> Dice:
        """Independent generators from one seed; further ones would not change the first."""
        states = np.random.SeedSequence(seed).generate_state(5, np.uint32)
        return cls(*(torch.Generator().manual_seed(int(state)) for state in states))


def train(
    network: nn.Module,
    loss_of: LossFunction,
    records: Records,
    members: Sequence[Tensor],
    seeds: Sequence[int],
    settings: TrainSettings,
    plan: Plan,
    after_epoch: Callable[[Weights], None] | None = None,
    best: BestEpoch | None = None,
    step: Step | None = None,
) -> Weights:
    """Train one model for each of `members` and return the stacked (averaged) weights.

    Those after the last epoch, or after the best epoch of each model where `best` looks for it.

    Parameters
    ----------
    network : the architecture; its own weights are overwritten
    loss_of : its losses, see :func:`confide.training.forward.loss_function` and, where something
        regularises, :func:`confide.training.regularise.regularised_loss`
    members : (n_members,) int64 rows of each model
    seeds : one a model
    after_epoch : called with the weights as they are, not their average, to look at and not to keep
    best : looks at the averaged weights after each epoch; training ends when all models have
        stopped
    step : its steps, see :func:`confide.training.step.step_of`; they hold the weights that are
        returned until they begin anew

    Raises
    ------
    TrainingError : the loss of a model that has not stopped is not finite; names its position
    """
    dice = [Dice.of(seed) for seed in seeds]
    step = step or Step(loss_of, records, settings, plan)
    step.begin(drawn(network, dice))
    streams = [
        _batches(rows, d, records, settings, plan) for rows, d in zip(members, dice, strict=True)
    ]
    chances = Chances(
        settings,
        [d.mixup for d in dice],
        [d.dropout for d in dice],
        (plan.batch, width_of_head(network) if settings.dropout else 0),
        records.inputs.device,
    )
    ahead = _epoch(streams, dice, settings, plan)
    for epoch in range(settings.epochs):
        step.epoch(*ahead, chances)
        if epoch + 1 < settings.epochs:  # drawn while the device works
            ahead = _epoch(streams, dice, settings, plan)
        finite = step.finite if best is None else step.finite | best.stopped
        _refuse_divergence(finite, f"in epoch {epoch + 1}", settings)
        if after_epoch is not None:
            after_epoch(step.weights)
        if best is not None:
            best.add(step.average)
            if bool(best.stopped.all()):
                break
    return step.average if best is None else best.weights


def _epoch(
    streams: Sequence[Iterator[Tensor]], dice: Sequence[Dice], settings: TrainSettings, plan: Plan
) -> tuple[Tensor, Tensor | None]:
    """Rows (n_models, n_steps, batch) of the next epoch, and the chances of their images."""
    rows = torch.stack([torch.stack(list(islice(s, plan.steps_per_epoch))) for s in streams])
    if settings.augment == "none":
        return rows, None
    shape = (plan.steps_per_epoch, plan.batch)
    return rows, torch.stack([augment.draw(shape, d.chance) for d in dice])


def evaluate(
    network: nn.Module, weights: Weights, records: Records, settings: TrainSettings, plan: Plan
) -> NDArray[np.float32]:
    """(n_models, n_all, n_views, n_outputs) logits of all records, some rows at a time.

    Raises
    ------
    TrainingError : a logit is not finite; names the model's position
    """
    n_all = len(records.inputs)
    n_models = len(next(iter(weights.values())))
    generator = torch.Generator().manual_seed(_VIEWS_SEED)
    out = torch.empty(n_models, n_all, settings.views, records.n_outputs)
    with torch.no_grad():
        for view in range(settings.views):
            chance = augment.draw((n_all,), generator) if view else None
            for start in range(0, n_all, plan.rows_at_once):
                part = slice(start, min(start + plan.rows_at_once, n_all))
                x = records.standardised(part)
                if chance is not None:
                    x = augment.apply(x, chance[part].to(x.device), settings.augment)
                out[:, part, view] = forward(network, weights, x[None], half=plan.half).cpu()
    _refuse_divergence(out.isfinite().flatten(1).all(dim=1), "at the end", settings)
    return out.numpy()


def _batches(
    rows: Tensor, dice: Dice, records: Records, settings: TrainSettings, plan: Plan
) -> Iterator[Tensor]:
    if settings.balance:
        label = records.label[rows.to(records.label.device)].cpu()
        return balanced_batches(rows, label, plan.batch, dice.order)
    return batches(rows, plan.batch, dice.order)


def drawn(network: nn.Module, dice: Sequence[Dice]) -> Weights:
    """First weights of each model, stacked; the network's own are overwritten."""
    drawn = []
    for d in dice:
        initialise(network, d.weights)
        drawn.append({name: w.detach().clone() for name, w in network.named_parameters()})
    return {name: torch.stack([weights[name] for weights in drawn]) for name in drawn[0]}


def _refuse_divergence(finite: Tensor, when: str, settings: TrainSettings) -> None:
    if not bool(finite.all()):
        at = int(finite.int().argmin())
        raise TrainingError(
            f"The model at position {at} of {len(finite)} diverged {when}: it is not finite. "
            f"Lower train.optimizer.lr (now {settings.optimizer.lr:g}) or lengthen "
            "train.schedule.warmup."
        )
