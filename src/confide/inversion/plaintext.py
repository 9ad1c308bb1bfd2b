"""A substitute encoder trained on pairs of plaintext and code (Yala et al., 2021)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import numpy as np
from torch import Tensor
from torch.nn import functional

from confide import _check
from confide.errors import ArgumentError
from confide.inversion.base import (
    CodesOnly,
    Integers,
    InversionAttack,
    KnownPairs,
    Substitute,
    Work,
    require_plaintexts,
)
from confide.inversion.settings import Budget
from confide.inversion.substitute import (
    descend,
    draws,
    reached,
    standardiser,
    substitute,
    target_inputs,
    untrained,
)
from confide.training.inputs import Rows

Loss = Literal["mse", "l1"]


@dataclass(frozen=True, kw_only=True)
class Plaintext(InversionAttack[KnownPairs, Substitute]):
    """Train a substitute to make of each known plaintext the code that is known to be its own.

    What is compared is the mean row of a code if its rows are shuffled, and all of its rows if not,
    so that a perfect substitute has no error.  (The code of the authors compares shuffled rows one
    by one, where it would have more error than a constant.)

    Parameters
    ----------
    share : of the known pairs that is used, in their order, rounded; with 0 the substitute is not
        trained
    loss : "mse", the mean squared difference, or "l1", the mean absolute one, which wrong pairs
        move less
    steps : of training
    batch_size : pairs a step
    lr : learning rate at the start
    """

    share: float = 1.0
    loss: Loss = "mse"
    steps: int = 3000
    batch_size: int = 64
    lr: float = 1e-3

    name: ClassVar[str] = "plaintext"
    knowledge: ClassVar[type[CodesOnly]] = KnownPairs
    finding: ClassVar[type[Substitute]] = Substitute
    headline: ClassVar[str] = "challenge2"
    breaks_at: ClassVar[float] = 0.9
    about: ClassVar[str] = (
        "Trains a substitute encoder on codes whose plaintexts are known, as an insider may know "
        "some."
    )
    source: ClassVar[str] = "Yala et al., arXiv 2106.02484 (2021), code: adversarial_attack.py"

    def __post_init__(self) -> None:
        _check.in_range(0, 1, share=self.share)
        _check.one_of(("mse", "l1"), loss=self.loss)

    @classmethod
    def of(cls, budget: Budget) -> Self:
        """See :meth:`InversionAttack.of`; "paper" has the batch and learning rate of the authors.

        They trained for 25 passes over their data sets, whose size is not that of a release.
        """
        if budget == "quick":
            return cls(steps=400, lr=3e-3)
        return cls() if budget == "standard" else cls(steps=50_000, lr=1e-4)

    def __call__(self, known: KnownPairs, work: Work) -> Substitute:
        """See :meth:`InversionAttack.__call__`.

        Raises
        ------
        ArgumentError : plaintexts of another shape, or pairs of numbers that do not exist
        """
        require_plaintexts(known)
        pairs = self._used(known)
        standard = standardiser(known.plaintexts, work.device)
        plaintexts = standard(known.plaintexts)
        start, drawn = work.seeds(2)
        network = untrained(known.architecture, start, work.device)
        notes: tuple[str, ...] = ()
        if len(pairs):
            targets = target_inputs(known, work.device)
            codes = targets.batches(pairs[rows, 0] for rows in self._draws(pairs, drawn))
            records = plaintexts.batches(pairs[rows, 1] for rows in self._draws(pairs, drawn))
            compare = functional.mse_loss if self.loss == "mse" else functional.l1_loss

            def loss() -> Tensor:
                return compare(reached(network, next(records), known), next(codes))

            notes = descend(network, loss, work, steps=self.steps, lr=self.lr)
        else:
            work.progress(self.steps, self.steps)
        return substitute(network, standard, plaintexts, notes)

    def curves(self) -> Mapping[str, Mapping[float, Self]]:
        """See :meth:`InversionAttack.curves`: the share of the known pairs."""
        shares = (0.0, 0.125, 0.25, 0.5, 1.0)
        return {"known pairs": {share: replace(self, share=share) for share in shares}}

    def _draws(self, pairs: Integers, seed: int) -> Iterator[Rows]:
        return draws(len(pairs), self.batch_size, seed, self.steps)

    def _used(self, known: KnownPairs) -> Integers:
        """(n, 2) the pairs to train on."""
        pairs = known.pairs
        _check.shape((None, 2), pairs=pairs)
        ends = np.array([known.codes.n_records, len(known.plaintexts)])
        if ((pairs < 0) | (pairs >= ends)).any():
            raise ArgumentError(
                f"Expected pairs of a code in [0, {ends[0] - 1}] and a plaintext in "
                f"[0, {ends[1] - 1}], got {pairs.min(axis=0)} to {pairs.max(axis=0)}."
            )
        return pairs[: round(self.share * len(pairs))]


@dataclass(frozen=True, kw_only=True)
class WronglyPaired(Plaintext):
    """The control of the authors that is told wrong pairs: :class:`Plaintext`, no pair right.

    It stays at chance on shuffled codes.  On the linear control, whose rows are in order, it may
    do better: population means at each position tell something of the matrix, whatever the pairs.
    """

    name: ClassVar[str] = "wrongly-paired"
    breaks_at: ClassVar[float] = math.inf
    about: ClassVar[str] = (
        "The control of the attack 'plaintext' that is told wrong pairs, and so must stay at "
        "chance on shuffled codes."
    )

    def curves(self) -> Mapping[str, Mapping[float, Self]]:
        """None: it is one itself."""
        return {}

    def _used(self, known: KnownPairs) -> Integers:
        pairs = super()._used(known)
        return np.column_stack([pairs[:, 0], np.roll(pairs[:, 1], 1)])
