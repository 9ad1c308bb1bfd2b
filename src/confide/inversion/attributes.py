"""An attribute of patients from their codes: sex, a finding, a view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold

from confide import _check
from confide.errors import ArgumentError
from confide.inversion.base import (
    Attributes,
    CodesOnly,
    Floats,
    Integers,
    InversionAttack,
    KnownAttributes,
    Work,
)
from confide.inversion.settings import Budget
from confide.inversion.summaries import components, of_one_key, standardised

_STRENGTHS = tuple(10.0**k for k in range(-5, 2))
"""Inverse strengths of the penalty that are tried."""


@dataclass(frozen=True, kw_only=True)
class AttributeProbe(InversionAttack[KnownAttributes, Attributes]):
    """Logistic regression on summaries of codes, trained on those whose attribute is known.

    The penalty is chosen by cross-validation among the known codes.

    Parameters
    ----------
    n_components : principal components of the summaries, of all codes, at most
    folds : of the cross-validation, at most
    """

    name: ClassVar[str] = "attribute-probe"
    knowledge: ClassVar[type[CodesOnly]] = KnownAttributes
    finding: ClassVar[type[Attributes]] = Attributes
    headline: ClassVar[str] = "auc"
    breaks_at: ClassVar[float] = 0.6
    about: ClassVar[str] = "Learns an attribute from codes of which it is known, for the others."
    source: ClassVar[str] = "confide"

    n_components: int = 256
    folds: int = 5

    def __post_init__(self) -> None:
        _check.at_least(1, n_components=self.n_components)
        _check.at_least(2, folds=self.folds)

    @classmethod
    def of(cls, budget: Budget) -> Self:
        """The same for every budget."""
        return cls()

    def __call__(self, known: KnownAttributes, work: Work) -> Attributes:
        """See :meth:`InversionAttack.__call__`."""
        attribute = known.attribute
        _check.shape((known.codes.n_records,), attribute=attribute)
        told = attribute >= 0
        fewest = int(np.bincount(attribute[told], minlength=2).min())
        if fewest < 2:
            raise ArgumentError(
                "The attack needs at least 2 codes with either value of the attribute, got "
                f"{fewest}."
            )
        features = standardised(of_one_key(known.codes, known.architecture, work))
        features = components(features, self.n_components, 1.0, work.seed)
        if not features.shape[1]:
            raise ArgumentError("The codes are all alike, so that nothing can be learnt from them.")
        steps = len(_STRENGTHS) + 1
        work.progress(1, steps)
        losses = self._losses(features[told], attribute[told], work)
        strength = _STRENGTHS[int(np.argmin(losses))]
        model = _fitted(features[told], attribute[told], strength)
        scores = np.full(len(attribute), np.nan, dtype=np.float32)
        if not told.all():
            scores[~told] = model.decision_function(features[~told])
        work.progress(steps, steps)
        notes: tuple[str, ...] = ()
        if len(losses) < len(_STRENGTHS):
            notes = (f"Time was over after {len(losses)} of {len(_STRENGTHS)} penalties.",)
        return Attributes(scores=scores, notes=notes)

    def _losses(self, features: Floats, attribute: Integers, work: Work) -> list[float]:
        """Loss of each strength in cross-validation, of the first alone if the time is over."""
        folds = min(self.folds, int(np.bincount(attribute).min()))
        split = StratifiedKFold(folds, shuffle=True, random_state=work.seed % 2**32)
        parts = list(split.split(features, attribute))
        losses: list[float] = []
        for done, strength in enumerate(_STRENGTHS, 1):
            if losses and work.late():
                break
            found = np.zeros(len(attribute))
            for train, test in parts:
                model = _fitted(features[train], attribute[train], strength)
                found[test] = model.predict_proba(features[test])[:, 1]
            losses.append(float(log_loss(attribute, found)))
            work.progress(done, len(_STRENGTHS) + 1)
        return losses


def _fitted(features: Floats, attribute: Integers, strength: float) -> LogisticRegression:
    return LogisticRegression(C=strength, max_iter=5000).fit(features, attribute)
