"""One training step of a stack of models, taken as it is written or replayed on a CUDA device."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from confide.training import augment
from confide.training.forward import LossFunction, Weights
from confide.training.plan import Plan
from confide.training.records import Records
from confide.training.regularise import Chances
from confide.training.settings import SGD, TrainSettings

_TRIES = 3  # steps before one is recorded, in which libraries choose and reserve what they need


class Step:
    """The steps of one stack after another, with the same settings and as many models each.

    Parameters
    ----------
    loss_of : the losses of stacked models, see :func:`confide.training.forward.loss_function`
    records, settings, plan : of the training

    Attributes
    ----------
    weights, average : of the stack that was begun last; further steps change them in place
    finite : (n_models,) bool, whether all losses since :meth:`epoch` began were finite
    """

    weights: Weights
    average: Weights
    finite: Tensor

    def __init__(
        self, loss_of: LossFunction, records: Records, settings: TrainSettings, plan: Plan
    ) -> None:
        self.loss_of, self._records = loss_of, records
        self._settings, self._plan = settings, plan
        self._optimizer: torch.optim.Optimizer

    def begin(self, first: Weights) -> None:
        """Begin to train models with these (n_models, ...) weights."""
        device = self._records.inputs.device
        self.weights = {name: w.to(device).requires_grad_() for name, w in first.items()}
        self.average = {name: w.detach().clone() for name, w in self.weights.items()}
        self._optimizer = optimizer_of(self._settings, list(self.weights.values()))
        self._done = 0

    def epoch(self, rows: Tensor, chance: Tensor | None, chances: Chances) -> None:
        """Take the steps of one epoch.

        Parameters
        ----------
        rows : (n_models, n_steps, batch) int64
        chance : (n_models, n_steps, batch, 6) of :func:`confide.training.augment.draw`, or None
        chances : draws of the regularisers
        """
        device = self._records.inputs.device
        rows = rows.to(device)
        chance = None if chance is None else chance.to(device)
        self.finite = torch.ones(len(rows), dtype=torch.bool, device=device)
        settings, plan = self._settings, self._plan
        for i in range(plan.steps_per_epoch):
            self._done += 1
            loss = self._losses(
                rows[:, i], None if chance is None else chance[:, i], *chances.draw()
            )
            self.finite &= loss.detach().isfinite()
            rate = settings.optimizer.lr * settings.schedule.factor(self._done / plan.steps)
            self._optimizer.param_groups[0]["lr"] = rate
            self._optimizer.zero_grad()
            torch.autograd.backward(loss.sum())
            self._optimizer.step()
            follow(self.average, self.weights, decay_at(settings.ema, self._done))

    def _losses(self, rows: Tensor, chance: Tensor | None, *draws: Tensor | None) -> Tensor:
        """(n_models,) losses of (n_models, batch) rows."""
        x = self._records.standardised(rows.flatten())
        if chance is not None:
            x = augment.apply(x, chance.flatten(0, 1), self._settings.augment)
        y = self._records.label[rows]
        return self.loss_of(self.weights, x.view(*rows.shape, *x.shape[1:]), y, *draws)


class Replayed(Step):
    """The same steps, recorded once as a CUDA graph: no time is lost between their kernels.

    What a step reads, its place in the epoch included, is in tensors that stay where they are.
    Not for networks or draws that are not the same operations in every step.

    Raises
    ------
    RuntimeError : a step cannot be recorded
    """

    def __init__(
        self,
        network: nn.Module,
        loss_of: LossFunction,
        records: Records,
        settings: TrainSettings,
        plan: Plan,
        n_models: int,
    ) -> None:
        super().__init__(loss_of, records, settings, plan)
        device, n_steps = records.inputs.device, plan.steps_per_epoch
        self._rows = torch.zeros((n_models, n_steps, plan.batch), dtype=torch.int64, device=device)
        self._chance = None
        if settings.augment != "none":
            self._chance = torch.zeros((*self._rows.shape, augment.N_DRAWS), device=device)
        self.finite = torch.ones(n_models, dtype=torch.bool, device=device)
        self._place = torch.zeros(1, dtype=torch.int64, device=device)  # in the epoch
        self._at = torch.zeros(1, dtype=torch.int64, device=device)  # in the training
        steps = range(1, plan.steps + 1)
        factors = [settings.schedule.factor(step / plan.steps) for step in steps]
        self._rates = settings.optimizer.lr * torch.tensor(factors, device=device)
        moves = [1.0 - decay_at(settings.ema, step) for step in steps]
        self._moves = torch.tensor(moves, device=device)
        self.weights = {
            name: _held(w.expand(n_models, *w.shape), device).requires_grad_()
            for name, w in network.named_parameters()
        }
        self.average = {name: w.detach().clone() for name, w in self.weights.items()}
        self._optimizer = optimizer_of(settings, list(self.weights.values()), device)
        self._graph = self._recorded()

    def begin(self, first: Weights) -> None:
        """See :meth:`Step.begin`."""
        with torch.no_grad():
            for name, w in first.items():
                self.weights[name].copy_(w)
                self.average[name].copy_(w)
            for state in self._optimizer.state.values():
                for value in state.values():
                    if isinstance(value, Tensor):
                        value.zero_()  # as before the first step
        self._at.zero_()

    def epoch(self, rows: Tensor, chance: Tensor | None, chances: Chances) -> None:
        """See :meth:`Step.epoch`; there are no draws of regularisers."""
        self._rows.copy_(rows)
        if self._chance is not None and chance is not None:
            self._chance.copy_(chance)
        self.finite.fill_(True)
        self._place.zero_()
        for _ in range(self._plan.steps_per_epoch):
            self._graph.replay()

    def _recorded(self) -> torch.cuda.CUDAGraph:
        beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        beside.wait_stream(torch.cuda.current_stream())
        before = torch.backends.cudnn.benchmark
        torch.backends.cudnn.benchmark = True  # tries convolutions out
        try:
            with torch.cuda.stream(beside):
                for _ in range(_TRIES):
                    self._take()
                    self._place.zero_()
                    self._at.zero_()
            torch.cuda.current_stream().wait_stream(beside)
            graph = torch.cuda.CUDAGraph()
            # The outer one sets the stream back also where the recording ends in an error.
            with torch.cuda.stream(torch.cuda.current_stream()), torch.cuda.graph(graph):
                self._take()
        finally:
            torch.backends.cudnn.benchmark = before
        return graph

    def _take(self) -> None:
        rows = self._rows.index_select(1, self._place).squeeze(1)
        chance = None
        if self._chance is not None:
            chance = self._chance.index_select(1, self._place).squeeze(1)
        loss = self._losses(rows, chance)
        self.finite &= loss.detach().isfinite()
        self._optimizer.param_groups[0]["lr"].copy_(self._rates.index_select(0, self._at)[0])
        self._optimizer.zero_grad()
        torch.autograd.backward(loss.sum())
        self._optimizer.step()
        with torch.no_grad():
            move = self._moves.index_select(0, self._at)[0]
            for name, w in self.weights.items():
                self.average[name].lerp_(w, move)
        self._place += 1
        self._at += 1


def step_of(
    network: nn.Module,
    loss_of: LossFunction,
    records: Records,
    settings: TrainSettings,
    plan: Plan,
    n_models: int,
) -> Step:
    """The step of a plan; as it is written, with a warning, where it cannot be recorded."""
    if plan.replays:
        try:
            return Replayed(network, loss_of, records, settings, plan, n_models)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            warnings.warn(
                f"A training step cannot be recorded here ({type(error).__name__}); training goes "
                "on without. Set performance.compile: false to silence this.",
                RuntimeWarning,
                stacklevel=2,
            )
    return Step(loss_of, records, settings, plan)


def _held(w: Tensor, device: torch.device) -> Tensor:
    """A copy on the device; a single model's convolutions with channels last."""
    w = w.detach().to(device, copy=True)
    if len(w) == 1 and w.ndim == 5:
        return w[0].contiguous(memory_format=torch.channels_last).unsqueeze(0)
    return w


def decay_at(ema: float, step: int) -> float:
    """Decay of the weight average after `step` steps: lower at the start; see TrainSettings.

    >>> decay_at(0.995, 1), decay_at(0.995, 10_000), decay_at(0.0, 5)
    (0.18181818181818182, 0.995, 0.0)
    """
    return min(ema, (1 + step) / (10 + step))


def optimizer_of(
    settings: TrainSettings, weights: list[Tensor], recorded_on: torch.device | None = None
) -> torch.optim.Optimizer:
    """The optimizer of the settings, for stacked weights.

    Where its step is to be recorded on a device, with a learning rate that is a tensor there.
    """
    o = settings.optimizer
    rate = o.lr if recorded_on is None else torch.tensor(o.lr, device=recorded_on)
    if isinstance(o, SGD):
        return torch.optim.SGD(
            weights, lr=rate, momentum=o.momentum, weight_decay=o.weight_decay, fused=True
        )
    return torch.optim.AdamW(
        weights,
        lr=rate,
        betas=o.betas,
        weight_decay=o.weight_decay,
        fused=True,
        capturable=recorded_on is not None,
    )


@torch.no_grad()
def follow(average: Weights, weights: Weights, decay: float) -> None:
    """Move the average of the weights towards them, in place."""
    torch._foreach_lerp_(list(average.values()), list(weights.values()), 1.0 - decay)
