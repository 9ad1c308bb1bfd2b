"""A substitute for the secret encoder: the same layers, with weights that are trained.

What the attacks that train one share: the network, its batches, its way downhill, and the finding
that is made of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from confide.encoders.settings import NeuraCryptSettings
from confide.errors import TrainingError
from confide.inversion.base import Architecture, Codes, CodesOnly, Floats, Records, Substitute, Work
from confide.models.layers import initialise_uniform
from confide.models.patch_encoder import patches
from confide.training.inputs import ArrayInputs, Inputs, Rows, StreamInputs

AT_ONCE = 2**25
"""Numbers in an activation when nothing is trained (128 MiB in float32)."""

HELD = 2**28
"""Numbers of codes that are held (1 GiB in float32); more are read batch by batch."""

LATE = "The time was over before the substitute encoder was trained to the end."


class TrainableEncoder(nn.Module):
    """Records -> codes, rows in order, by the layers of an architecture.

    Its normalisation is that of the batch in training, with a trained scale and shift, as in the
    code of Yala et al., arXiv 2106.02484 (2021); afterwards that of :meth:`settle`, so that what it
    predicts of a record does not depend on its batch.

    Parameters
    ----------
    architecture : whose layers it has
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        settings, shape = architecture.settings, architecture.shape
        self.patch, width = settings.patch, settings.width
        self.first = nn.Linear(shape[0] * self.patch ** (len(shape) - 1), width)
        self.hidden, self.norms = nn.ModuleList(), nn.ModuleList()
        self.position: nn.Parameter | None = None
        self.last: nn.Linear | None = None
        if isinstance(settings, NeuraCryptSettings):
            for _ in range(settings.private_depth):
                self.hidden.append(nn.Linear(width, width))
                # Without a momentum running statistics are plain averages over batches.
                self.norms.append(nn.BatchNorm1d(width, momentum=None))
            if settings.position:
                self.position = nn.Parameter(torch.empty(architecture.n_patches, width))
            self.last = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(n, *shape) standardised -> (n, P, C)."""
        rows = self._before_last(x)
        return rows if self.last is None else self.last(rows)

    def means(self, x: Tensor) -> Tensor:
        """(n, *shape) standardised -> (n, C), the mean row of each code."""
        # The last layer is linear: the mean may be taken before it, which saves most products.
        rows = self._before_last(x).mean(dim=1)
        return rows if self.last is None else self.last(rows)

    def _before_last(self, x: Tensor) -> Tensor:
        rows = patches(x, self.patch)
        y: Tensor = self.first(rows)
        if self.last is None:
            return y
        y = functional.relu(y.flatten(0, 1))
        for linear, norm in zip(self.hidden, self.norms, strict=True):
            y = functional.relu(norm(linear(y)))
        y = y.view(*rows.shape[:2], -1)
        if self.position is not None:
            y = y + self.position
        return functional.relu(y)

    @torch.no_grad()
    def settle(self, inputs: Inputs) -> None:
        """Normalise by the statistics of all of `inputs` from now on."""
        norms = [module for module in self.modules() if isinstance(module, nn.BatchNorm1d)]
        for norm in norms:
            norm.reset_running_stats()
        if norms:
            self.train()
            for rows in batches(len(inputs), self._at_once(inputs)):
                self._before_last(inputs.batch(rows))
        self.eval()

    @torch.no_grad()
    def predict(self, inputs: Inputs) -> Floats:
        """(n, C) mean rows of all of `inputs`."""
        parts = batches(len(inputs), self._at_once(inputs))
        return torch.cat([self.means(inputs.batch(rows)).cpu() for rows in parts]).numpy()

    def _at_once(self, inputs: Inputs) -> int:
        numbers = math.prod(inputs.shape) // self.first.in_features * self.first.out_features
        return max(2, AT_ONCE // numbers)


def untrained(architecture: Architecture, seed: int, device: torch.device) -> TrainableEncoder:
    """A substitute whose weights are drawn as those of an encoder are."""
    with torch.device("meta"):  # so that torch draws nothing from its global generator
        network = TrainableEncoder(architecture)
    network.to_empty(device="cpu")
    initialise_uniform(network, torch.Generator().manual_seed(seed))
    return network.to(device)


def substitute(
    network: TrainableEncoder,
    standard: Callable[[Records], Inputs],
    settled_on: Inputs,
    notes: tuple[str, ...] = (),
) -> Substitute:
    """The finding that a trained network is.

    Parameters
    ----------
    network : as trained
    standard : records -> as the network takes them
    settled_on : records whose statistics its norms use
    notes : of the finding
    """
    network.settle(settled_on)
    return Substitute(notes=notes, means=lambda records: network.predict(standard(records)))


def standardiser(plaintexts: Records, device: torch.device) -> Callable[[Records], ArrayInputs]:
    """A function that standardises records, channel by channel, by statistics of `plaintexts`."""
    axes = (0, *range(2, plaintexts.ndim))
    mean = plaintexts.mean(axis=axes, dtype=np.float64)
    scale = plaintexts.std(axis=axes, dtype=np.float64)
    scale = np.where(scale > 1e-7 * np.abs(mean), scale, 1.0)

    def standard(records: Records) -> ArrayInputs:
        if records.dtype != np.uint8:
            records = records.astype(np.float32, copy=False)
        return ArrayInputs(records, device, mean=mean, scale=scale)

    return standard


def code_inputs(codes: Codes, device: torch.device) -> Inputs:
    """Codes batch by batch: held on the device if they are few, else read when needed."""
    n, (n_rows, width) = codes.n_records, codes.shape
    if n * n_rows * width <= HELD:
        return ArrayInputs(codes.codes(slice(None)), device)
    return StreamInputs(codes.codes, n, codes.shape, device)


def target_inputs(known: CodesOnly, device: torch.device) -> Inputs:
    """What a substitute has to reach for each code: the code, or its mean row if it is shuffled.

    A code whose rows stand in an unknown order cannot be compared row by row: a perfect attacker
    would seem to be wrong.
    """
    if not known.architecture.settings.shuffle:
        return code_inputs(known.codes, device)
    n_rows, width = known.codes.shape
    parts = batches(known.codes.n_records, max(1, AT_ONCE // (n_rows * width)))
    means = [known.codes.codes(rows).mean(axis=1) for rows in parts]
    return ArrayInputs(np.concatenate(means), device)


def reached(network: TrainableEncoder, x: Tensor, known: CodesOnly) -> Tensor:
    """What a substitute makes of standardised records, to be compared with `target_inputs`."""
    out: Tensor = network.means(x) if known.architecture.settings.shuffle else network(x)
    return out


def draws(n: int, size: int, seed: int, steps: int) -> Iterator[Rows]:
    """Random batches of `size` different numbers of 0 .. n - 1, all of them if there are fewer.

    In rising order, in which they are read fastest.
    """
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        yield np.sort(rng.choice(n, min(n, size), replace=False))


def batches(n: int, at_most: int) -> list[Rows]:
    """Numbers 0 .. n - 1 in as few parts as there can be, of equal size up to one."""
    return np.array_split(np.arange(n), max(1, -(-n // at_most)))


def descend(
    network: nn.Module,
    loss: Callable[[], Tensor],
    work: Work,
    *,
    steps: int,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    total: int | None = None,
) -> tuple[str, ...]:
    """Train with Adam, the learning rate falling linearly to 0.

    Parameters
    ----------
    network : whose parameters are trained, in place
    loss : draws a batch and returns its loss; called once a step
    work : shows progress and tells when the time is over
    steps : at most
    lr : learning rate of the first step
    betas : of Adam
    total : steps in all, for the progress, where others follow; `steps` by default

    Returns
    -------
    notes for the finding: whether the time was over before the end

    Raises
    ------
    TrainingError : the loss is not finite
    """
    total = steps if total is None else total
    network.train()
    optimizer = adam(network, lr, betas)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / max(1, steps))
    every = max(1, steps // 100)
    for step in range(steps):
        if work.late():
            return (LATE,)
        value = loss()
        if step % every == 0:  # reading a loss waits for the device
            _require_finite(value, step)
            work.progress(step, total)
        optimizer.zero_grad()
        torch.autograd.backward(value)
        optimizer.step()
        schedule.step()
    work.progress(steps, total)
    return ()


def adam(network: nn.Module, lr: float, betas: tuple[float, float]) -> torch.optim.Adam:
    """Adam on all parameters of a network."""
    return torch.optim.Adam(network.parameters(), lr=lr, betas=betas, fused=True)


def _require_finite(loss: Tensor, step: int) -> None:
    value = float(loss.detach())
    if not math.isfinite(value):
        raise TrainingError(
            f"The loss of the substitute encoder is {value} at step {step}; lower the "
            "learning rate of the attack, or check the plaintexts."
        )
