"""Two small networks that put a patch, and a row of a code, where they can be compared.

Trained on pairs under keys of the attacker's own, by a contrastive loss (Carlini et al., arXiv
2108.07256, 2021): of all rows of a batch, the own one shall be the most similar.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from confide.errors import TrainingError
from confide.inversion.base import Work
from confide.inversion.moments import N_FEATURES
from confide.models.layers import initialise_uniform, leaky_relu

N_HIDDEN, N_OUTPUTS = 64, 8

ROWS_AT_ONCE = 2**18

LATE = "The time was over before the comparison of patches and rows was trained to the end."


class _Tower(nn.Module):
    """Features -> unit vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(N_FEATURES, N_HIDDEN)
        self.second = nn.Linear(N_HIDDEN, N_HIDDEN)
        self.last = nn.Linear(N_HIDDEN, N_OUTPUTS)

    def forward(self, x: Tensor) -> Tensor:
        x = leaky_relu(self.second(leaky_relu(self.first(x))))
        return functional.normalize(self.last(x), dim=-1)


class Towers(nn.Module):
    """What compares patches with rows: the inner product of their vectors, from -1 to 1.

    Attributes
    ----------
    plain, code : standardised features (..., 14) -> (..., 8), of length 1
    """

    def __init__(self) -> None:
        super().__init__()
        self.plain, self.code = _Tower(), _Tower()
        self.scale = nn.Parameter(torch.empty(()))

    def loss(self, plain: Tensor, code: Tensor) -> Tensor:
        """Cross entropy of the own row among all, for patches (n, 14) and their rows (n, 14)."""
        own = torch.arange(len(plain), device=plain.device)
        scale = self.scale.clamp(-2.0, 4.0).exp()
        return functional.cross_entropy(scale * (self.plain(plain) @ self.code(code).T), own)

    @torch.no_grad()
    def of(self, tower: nn.Module, features: Tensor) -> Tensor:
        """(n, P, 14) -> (n, P, 8) by one of the two, some rows at a time."""
        each = torch.split(features.flatten(0, -2), ROWS_AT_ONCE)
        return torch.cat([tower(part) for part in each]).view(*features.shape[:-1], -1)


def trained(
    plain: Tensor,
    code: Tensor,
    work: Work,
    *,
    steps: int,
    batch_size: int,
    lr: float,
    seed: int,
) -> tuple[Towers, tuple[str, ...]]:
    """Train on pairs of a patch and its row.

    Parameters
    ----------
    plain, code : (n, 14) standardised features of patches and of their rows, on `work.device`
    steps, batch_size : of Adam, and pairs a step
    lr : learning rate of the first step, which falls linearly to 0
    seed : of the weights and the batches

    Returns
    -------
    the networks, and notes for the finding

    Raises
    ------
    TrainingError : the loss is not finite
    """
    towers = _untrained(seed).to(work.device)
    draw = torch.Generator(work.device).manual_seed(seed)
    optimizer = torch.optim.Adam(towers.parameters(), lr=lr, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / max(1, steps))
    every = max(1, steps // 100)
    for step in range(steps):
        if work.late():
            return towers, (LATE,)
        pairs = torch.randint(len(plain), (batch_size,), generator=draw, device=work.device)
        loss = towers.loss(plain[pairs], code[pairs])
        if step % every == 0:  # reading a loss waits for the device
            _require_finite(loss.item(), step)
            work.progress(step, steps)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
    return towers, ()


def _require_finite(loss: float, step: int) -> None:
    if not math.isfinite(loss):
        raise TrainingError(
            f"The contrastive loss is {loss} at step {step}; lower the learning rate of the attack."
        )


def _untrained(seed: int) -> Towers:
    with torch.device("meta"):  # so that torch draws nothing from its global generator
        towers = Towers()
    towers.to_empty(device="cpu")
    initialise_uniform(towers, torch.Generator().manual_seed(seed))
    nn.init.zeros_(towers.scale)
    return towers
