"""The difficulty-calibrated loss: the target's loss against that of models without the record.

Watson et al., "On the importance of difficulty calibration in membership inference attacks", ICLR
2022, the calibrated score of the loss.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from confide.attacks.base import Attack, Signals, check_membership, chunks
from confide.attacks.references import Pairing, uneven
from confide.signals import log_probability

Floats = NDArray[np.float64]


class CalibratedLoss(Attack):
    """Log probability of the true label, less its mean over references without the record.

    The log probability is the negative loss.  What an easy record loses in every model is taken
    off, so that a small loss counts only where other models do worse; unlike LiRA it knows nothing
    of how much the loss of a record varies.
    """

    name: ClassVar[str] = "calibrated_loss"

    def score(
        self,
        target: Floats,
        references: Floats,
        membership: NDArray[np.bool_],
        population: tuple[Floats, Floats] | None = None,
    ) -> Floats:
        """See :meth:`Attack.score`; the population is not used."""
        check_membership(references, membership)
        log_p = log_probability(references)
        with np.errstate(invalid="ignore"):
            mean_out = (log_p * ~membership).sum(axis=0) / (~membership).sum(axis=0)
        result: Floats = log_probability(target[None])[0] - mean_out
        return result

    def leave_one_out(
        self,
        signals: Signals,
        membership: NDArray[np.bool_],
        population: Floats | None = None,
    ) -> Floats:
        """See :meth:`Attack.leave_one_out`."""
        check_membership(signals, membership)
        result = np.empty(tuple(signals.shape[:2]))
        even = uneven(membership)
        for part in chunks(signals):
            log_p, pairing = (
                log_probability(signals[:, part]),
                Pairing(membership[:, part], even=even),
            )
            left_out = pairing.of_left_out(log_p)
            with np.errstate(invalid="ignore", divide="ignore"):
                mean_out = ((log_p * pairing.free).sum(axis=0) - left_out) / pairing.n_out
            result[:, part] = np.where(pairing.scorable, log_p - mean_out, np.nan)
        return result
