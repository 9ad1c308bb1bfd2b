"""A classifier of substitute codes, applied to a release (Yala et al., 2021)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Self

import numpy as np
from torch import Tensor

from confide import _check
from confide.errors import ArgumentError
from confide.inversion.base import (
    Attributes,
    CodesOnly,
    Floats,
    Integers,
    InversionAttack,
    LabelledPlaintexts,
    Work,
    require_plaintexts,
)
from confide.inversion.mmd import MMD
from confide.inversion.settings import Budget
from confide.inversion.substitute import TrainableEncoder, code_inputs, standardiser
from confide.models import DeepViTSettings, build_code_classifier
from confide.training.codes import fit, predict
from confide.training.codes_settings import Adam, CodeTrainSettings
from confide.training.inputs import Inputs, MappedInputs, Rows


@dataclass(frozen=True, kw_only=True)
class Transfer(InversionAttack[LabelledPlaintexts, Attributes]):
    """Learn an attribute on substitute codes of known plaintexts, and read it off the release.

    The substitute is that of :class:`~confide.inversion.mmd.MMD`; the classifier is the one that
    the release is meant for, trained on a balanced draw.

    Parameters
    ----------
    substitute : how the substitute encoder is trained
    epochs : passes of the classifier over the plaintexts
    lr : its learning rate
    heads, head_width : of the classifier, see :class:`~confide.models.DeepViTSettings`
    """

    substitute: MMD = field(default_factory=MMD)
    epochs: int = 25
    lr: float = 1e-4
    heads: int = 8
    head_width: int = 64

    name: ClassVar[str] = "transfer"
    knowledge: ClassVar[type[CodesOnly]] = LabelledPlaintexts
    finding: ClassVar[type[Attributes]] = Attributes
    headline: ClassVar[str] = "auc"
    breaks_at: ClassVar[float] = 0.7
    about: ClassVar[str] = (
        "Trains a classifier of an attribute on codes by a substitute encoder and applies it to "
        "the release."
    )
    source: ClassVar[str] = "Yala et al., arXiv 2106.02484 (2021), code: adversarial_transfer.json"

    @classmethod
    def of(cls, budget: Budget) -> Self:
        """See :meth:`InversionAttack.of`."""
        if budget == "quick":
            return cls(substitute=MMD.of(budget), epochs=60, lr=3e-3, heads=4, head_width=16)
        return cls(substitute=MMD.of(budget))

    def __call__(self, known: LabelledPlaintexts, work: Work) -> Attributes:
        """See :meth:`InversionAttack.__call__`.

        Raises
        ------
        ArgumentError : plaintexts of another shape, labels that are not 0 and 1, or all the same
        """
        require_plaintexts(known)
        attribute = _checked(known)
        public = standardiser(known.plaintexts, work.device)(known.plaintexts)
        total = self.substitute.steps + self.epochs
        network, notes = self.substitute.fit(known, public, work, total=total)
        network.settle(public)
        # A classifier of one pass where no time is left.
        epochs = 1 if work.late() else self.epochs
        if epochs < self.epochs:
            notes = (*notes, "The time was over before the classifier was trained to the end.")
        made = _encoded(network, public, known)
        scores = self._classified(known, made, attribute, epochs, work)
        return Attributes(scores=scores, notes=notes)

    def _classified(
        self,
        known: LabelledPlaintexts,
        made: Inputs,
        attribute: Integers,
        epochs: int,
        work: Work,
    ) -> Floats:
        """(n_codes,) logits of the release's codes by a classifier of those made."""
        *_, seed = work.seeds(4)
        settings = CodeTrainSettings(
            model=DeepViTSettings(heads=self.heads, head_width=self.head_width),
            epochs=epochs,
            optimizer=Adam(lr=self.lr),
            seed=seed,
        )
        ordered = not known.architecture.settings.shuffle
        judge = build_code_classifier(settings.model, made.shape, 1, position=ordered)
        before, total = self.substitute.steps, self.substitute.steps + self.epochs
        fit(
            judge,
            made,
            attribute,
            np.arange(len(made)),
            np.arange(0),
            settings,
            progress=lambda done, _: work.progress(before + done, total),
        )
        codes = code_inputs(known.codes, work.device)
        return predict(judge, codes, np.arange(len(codes)))[:, 0]


def _encoded(network: TrainableEncoder, public: Inputs, known: CodesOnly) -> Inputs:
    """Substitute codes of all plaintexts, made batch by batch."""

    def codes(rows: Rows, x: Tensor) -> Tensor:
        out: Tensor = network(x)
        return out

    return MappedInputs(public, codes, known.codes.shape)


def _checked(known: LabelledPlaintexts) -> Integers:
    attribute = known.attribute
    _check.shape((len(known.plaintexts),), attribute=attribute)
    if not np.array_equal(np.unique(attribute), [0, 1]):
        raise ArgumentError(
            "Expected an attribute of the plaintexts that is 0 for some and 1 for the others, got "
            f"{np.unique(attribute)[:5].tolist()}."
        )
    return attribute
