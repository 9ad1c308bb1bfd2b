"""The loss threshold: no references at all.

Yeom et al., "Privacy risk in machine learning", CSF 2018.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from confide.attacks.base import Attack, Signals, check_membership, chunks
from confide.signals import log_probability

Floats = NDArray[np.float64]


class LossThreshold(Attack):
    """The log probability of the true label, that is the negative cross-entropy loss."""

    name: ClassVar[str] = "loss"

    def score(
        self,
        target: Floats,
        references: Floats,
        membership: NDArray[np.bool_],
        population: tuple[Floats, Floats] | None = None,
    ) -> Floats:
        """See :meth:`Attack.score`; references and population are not used."""
        return log_probability(target[None])[0]

    def leave_one_out(
        self,
        signals: Signals,
        membership: NDArray[np.bool_],
        population: Floats | None = None,
    ) -> Floats:
        """See :meth:`Attack.leave_one_out`; nothing is left out, since nothing is used."""
        check_membership(signals, membership)
        result = np.empty(tuple(signals.shape[:2]))
        for part in chunks(signals):
            result[:, part] = log_probability(signals[:, part])
        return result
