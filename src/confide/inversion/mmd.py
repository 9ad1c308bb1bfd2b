"""A substitute encoder whose codes are distributed like those of a release (Yala et al., 2021)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from confide.inversion.base import (
    CodesOnly,
    InversionAttack,
    Substitute,
    Unpaired,
    Work,
    require_plaintexts,
)
from confide.inversion.settings import Budget
from confide.inversion.similarity import MMD_WIDTHS
from confide.inversion.substitute import (
    TrainableEncoder,
    descend,
    draws,
    reached,
    standardiser,
    substitute,
    target_inputs,
    untrained,
)
from confide.training.inputs import Inputs, Rows


def kernel(a: Tensor, b: Tensor) -> Tensor:
    """(n, d), (m, d) -> (n, m): the sum over 19 widths s of exp(-|a - b|^2 / (2 s)).

    As in the published code of Yala et al., arXiv 2106.02484 (2021).
    """
    # In float64, so that what is left of two large squares is right for the narrow kernels.
    a, b = a.double(), b.double()
    squares = (a**2).sum(dim=1)[:, None] + (b**2).sum(dim=1) - 2 * a @ b.T
    rates = -0.5 / squares.new_tensor(MMD_WIDTHS)
    return torch.exp(squares.clamp_min(0)[..., None] * rates).sum(dim=-1)


def mmd2(real: Tensor, made: Tensor) -> Tensor:
    """Squared maximum mean discrepancy of two samples, (n, d) and (m, d); in float64.

    The biased estimate (Gretton et al., JMLR 13 (2012), equation 5), which is 0 for equal samples
    and positive otherwise, but for rounding.
    """
    middle = real.mean(dim=0)
    real, made = real - middle, made - middle
    return kernel(real, real).mean() + kernel(made, made).mean() - 2 * kernel(real, made).mean()


@dataclass(frozen=True, kw_only=True)
class MMD(InversionAttack[Unpaired, Substitute]):
    """Train a substitute so that its codes of known plaintexts are distributed as the release is.

    The squared maximum mean discrepancy of batches of both is what is made small; of mean rows if
    the rows of the codes are shuffled, of whole codes if not.

    Parameters
    ----------
    steps : of training
    batch_size : codes, and plaintexts, a step
    lr : learning rate at the start
    """

    steps: int = 3000
    batch_size: int = 256
    lr: float = 3e-3

    name: ClassVar[str] = "mmd"
    knowledge: ClassVar[type[CodesOnly]] = Unpaired
    finding: ClassVar[type[Substitute]] = Substitute
    headline: ClassVar[str] = "challenge2"
    breaks_at: ClassVar[float] = 0.5
    about: ClassVar[str] = (
        "Trains a substitute encoder on plaintexts of other patients until its codes are "
        "distributed like those of the release."
    )
    source: ClassVar[str] = "Yala et al., arXiv 2106.02484 (2021), code: mmd.py"

    @classmethod
    def of(cls, budget: Budget) -> Self:
        """See :meth:`InversionAttack.of`; "paper" has the batch and learning rate of the authors.

        They trained for 25 to 50 passes over their data sets, whose size is not that of a release.
        """
        if budget == "quick":
            return cls(steps=400, batch_size=64, lr=1e-2)
        return cls() if budget == "standard" else cls(steps=50_000, batch_size=64, lr=1e-4)

    def __call__(self, known: Unpaired, work: Work) -> Substitute:
        """See :meth:`InversionAttack.__call__`."""
        require_plaintexts(known)
        standard = standardiser(known.plaintexts, work.device)
        public = self._public(standard(known.plaintexts), work)
        network, notes = self.fit(known, public, work)
        return substitute(network, standard, public, notes)

    def fit(
        self, known: CodesOnly, public: Inputs, work: Work, *, total: int | None = None
    ) -> tuple[TrainableEncoder, tuple[str, ...]]:
        """Train the substitute.

        Parameters
        ----------
        known : the release
        public : standardised plaintexts
        work : how
        total : steps in all, for the progress, where others follow

        Returns
        -------
        the network and notes for the finding
        """
        start, *seeds = work.seeds(3)
        network = untrained(known.architecture, start, work.device)
        targets = target_inputs(known, work.device)
        n, size = self.steps, self.batch_size
        theirs = targets.batches(draws(len(targets), size, seeds[0], n))
        mine = public.batches(draws(len(public), size, seeds[1], n))

        def loss() -> Tensor:
            made = reached(network, next(mine), known)
            return mmd2(next(theirs).flatten(1), made.flatten(1))

        notes = descend(network, loss, work, steps=n, lr=self.lr, total=total)
        return network, notes

    def _public(self, plaintexts: Inputs, work: Work) -> Inputs:
        """What the substitute is trained on."""
        return plaintexts


@dataclass(frozen=True, kw_only=True)
class FromNoise(MMD):
    """The control of the authors that knows no plaintexts: :class:`MMD` on white noise.

    What it finds is not in the plaintexts, of which it has the mean and spread alone.
    """

    name: ClassVar[str] = "noise-mmd"
    breaks_at: ClassVar[float] = math.inf
    about: ClassVar[str] = (
        "The control of the attack 'mmd' that is given white noise for plaintexts, and so must "
        "stay at chance."
    )

    def _public(self, plaintexts: Inputs, work: Work) -> Inputs:
        *_, seed = work.seeds(4)
        return _Noise(len(plaintexts), plaintexts.shape, work.device, seed)


class _Noise(Inputs):
    """Standard normal records, fresh ones in each batch."""

    def __init__(self, n: int, shape: tuple[int, ...], device: torch.device, seed: int) -> None:
        self._n, self.shape, self.device = n, shape, device
        self._generator = torch.Generator(device).manual_seed(seed)

    def __len__(self) -> int:
        return self._n

    def batch(self, rows: Rows) -> Tensor:
        """See :meth:`Inputs.batch`."""
        shape = (len(rows), *self.shape)
        return torch.randn(shape, generator=self._generator, device=self.device)
