"""A substitute encoder whose codes a discriminator cannot tell from those of a release."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from confide.inversion.base import (
    CodesOnly,
    InversionAttack,
    Substitute,
    Unpaired,
    Work,
    require_plaintexts,
)
from confide.inversion.settings import Budget
from confide.inversion.substitute import (
    AT_ONCE,
    adam,
    batches,
    code_inputs,
    descend,
    draws,
    standardiser,
    substitute,
    untrained,
)
from confide.models import DeepViTSettings, build_code_classifier
from confide.models.layers import initialise_uniform
from confide.training.inputs import Inputs

BETAS = (0.0, 0.99)
"""Of Adam for both networks: without momentum, which makes them chase each other."""


@dataclass(frozen=True, kw_only=True)
class Discriminator(InversionAttack[Unpaired, Substitute]):
    """Train a substitute against a network that learns to tell its codes from the release's.

    The generator of a generative adversarial network (Goodfellow et al., NeurIPS 2014) is the
    substitute encoder, on known plaintexts; the discriminator is the classifier of codes of the
    authors, a transformer with a class token.  Each step trains the one and then the other.

    The gradient penalty R1 on the codes of the release (Mescheder et al., ICML 2018), Adam without
    momentum, and codes on the scale of the release are ours: without them the discriminator won
    within a few hundred steps, and the substitute of a linear encoder learned nothing.

    Parameters
    ----------
    steps : of training
    batch_size : codes, and plaintexts, a step
    lr : learning rate of the substitute at the start, and of the discriminator
    penalty : weight of the gradient penalty
    heads, head_width : of the discriminator, see :class:`~confide.models.DeepViTSettings`
    """

    steps: int = 3000
    batch_size: int = 64
    lr: float = 3e-3
    penalty: float = 5.0
    heads: int = 8
    head_width: int = 64

    name: ClassVar[str] = "discriminator"
    knowledge: ClassVar[type[CodesOnly]] = Unpaired
    finding: ClassVar[type[Substitute]] = Substitute
    headline: ClassVar[str] = "challenge2"
    breaks_at: ClassVar[float] = 0.1
    about: ClassVar[str] = (
        "Trains a substitute encoder on plaintexts of other patients until a second network cannot "
        "tell its codes from those of the release."
    )
    source: ClassVar[str] = "Yala et al., arXiv 2106.02484 (2021), code: adversarial_attack.py"

    @classmethod
    def of(cls, budget: Budget) -> Self:
        """See :meth:`InversionAttack.of`; "paper" has the learning rate of the authors.

        They trained for 25 to 50 passes over their data sets, whose size is not that of a release.
        """
        if budget == "quick":
            return cls(steps=800, heads=4, head_width=16)
        return cls() if budget == "standard" else cls(steps=50_000, lr=1e-4)

    def __call__(self, known: Unpaired, work: Work) -> Substitute:
        """See :meth:`InversionAttack.__call__`."""
        require_plaintexts(known)
        standard = standardiser(known.plaintexts, work.device)
        public = standard(known.plaintexts)
        codes = code_inputs(known.codes, work.device)
        start, other, *seeds = work.seeds(4)
        network = untrained(known.architecture, start, work.device)
        judge = self._judge(known, other).to(work.device)
        optimizer = adam(judge, self.lr, BETAS)
        middle, scale = _scale(codes)
        n, size = self.steps, self.batch_size
        theirs = codes.batches(draws(len(codes), size, seeds[0], n))
        mine = public.batches(draws(len(public), size, seeds[1], n))

        def loss() -> Tensor:
            made = (network(next(mine)) - middle) / scale
            real = ((next(theirs) - middle) / scale).requires_grad_()
            optimizer.zero_grad()
            torch.autograd.backward(self._judged(judge, real, made.detach()))
            optimizer.step()
            return _told(judge(made), 1.0)

        notes = descend(network, loss, work, steps=n, lr=self.lr, betas=BETAS)
        return substitute(network, standard, public, notes)

    def _judged(self, judge: nn.Module, real: Tensor, made: Tensor) -> Tensor:
        """The loss of the discriminator: its errors, and how steep it is at the release's codes."""
        logits = judge(real)
        (slope,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
        steepness = slope.square().flatten(1).sum(dim=1).mean()
        return _told(logits, 1.0) + _told(judge(made), 0.0) + self.penalty / 2 * steepness

    def _judge(self, known: CodesOnly, seed: int) -> nn.Module:
        """The discriminator: codes -> (n, 1) logits of being of the release."""
        settings = DeepViTSettings(heads=self.heads, head_width=self.head_width)
        ordered = not known.architecture.settings.shuffle
        judge = build_code_classifier(settings, known.codes.shape, 1, position=ordered)
        initialise_uniform(judge, torch.Generator().manual_seed(seed))
        return judge


def _told(logits: Tensor, label: float) -> Tensor:
    """Mean cross entropy of logits against one label for all."""
    return functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))


def _scale(codes: Inputs) -> tuple[Tensor, Tensor]:
    """(C,) mean of each channel, and one scale for all: the spread about these means."""
    n_rows, width = codes.shape
    total = torch.zeros(width, dtype=torch.float64, device=codes.device)
    square = total.clone()
    for x in codes.batches(batches(len(codes), max(1, AT_ONCE // (n_rows * width)))):
        total += x.sum(dim=(0, 1), dtype=torch.float64)
        square += x.square().sum(dim=(0, 1), dtype=torch.float64)
    n = len(codes) * n_rows
    middle = total / n
    variance = (square / n - middle.square()).mean().clamp_min(1e-12)
    return middle.float(), variance.sqrt().float()
