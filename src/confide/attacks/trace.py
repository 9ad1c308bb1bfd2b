"""LT-IQR: how far a record's loss moves while one model is trained; no reference models.

Pollock et al., "Free record-level privacy risk evaluation through artifact-based methods",
arXiv 2411.05743.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from confide import _check
from confide.attacks.base import Attack, Signals, check_membership, chunks
from confide.signals import scalar

Floats = NDArray[np.float64]


class LossTraceIQR(Attack):
    """Inter-quartile range of the loss of a record over the epochs of one training.

    A screen: among the *members* of a model it ranks first those whose loss fell late and far, whom
    other attacks then find most often; :func:`screen_precision` says how well.  It was not made to
    tell members from non-members.  The loss of a record that was not trained on can rise further
    than that of a member falls, and the area under the ROC curve is then below one half, as it was
    for small networks that memorise (.46, and .42 with a tenth of the labels wrong): that area is
    no measure of the screen.

    Where other attacks take signals it takes ranges, (n_models, n_records), as training with
    ``train: {trace: true}`` stores them.
    """

    name: ClassVar[str] = "lt_iqr"
    reads: ClassVar[Literal["signal", "trace"]] = "trace"

    def score(
        self,
        target: Floats,
        references: Floats,
        membership: NDArray[np.bool_],
        population: tuple[Floats, Floats] | None = None,
    ) -> Floats:
        """See :meth:`Attack.score`; references and population are not used."""
        return scalar(target[None])[0]

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
            result[:, part] = scalar(signals[:, part])
        return result


def screen_precision(
    ranges: Floats,
    scores: Floats,
    membership: NDArray[np.bool_],
    *,
    top: float = 0.01,
    fpr: float = 0.001,
) -> tuple[float, float]:
    """How well a screen of members picks those whom an attack with references finds.

    A member is found where its score is above those of all but a share `fpr` of the non-members of
    the same model (rounded down).  The measure of Pollock et al., arXiv 2411.05743.

    Parameters
    ----------
    ranges : (n_models, n_records) what the screen ranks members by, the most vulnerable highest
    scores : (n_models, n_records) of the attack, :class:`~confide.attacks.lira.LiRA` in the paper
    membership : (n_models, n_records) bool
    top : share of the members of a model that the screen picks, at least one
    fpr : rate of false alarms of the attack

    Returns
    -------
    share found among the picked, and among all members; means over models, NaN where no model has
    both a member and a non-member with a range and a score
    """
    _check.in_range(0, 1, top=top)
    _check.in_range(0, 1, fpr=fpr)
    picked_found, all_found = [], []
    for one, score, held in zip(ranges, scores, membership, strict=True):
        known = ~(np.isnan(one) | np.isnan(score))
        members, others = np.flatnonzero(known & held), np.sort(score[known & ~held])[::-1]
        if not (len(members) and len(others)):
            continue
        n_false = min(int(fpr * len(others)), len(others) - 1)
        found = score[members] > others[n_false]
        order = np.argsort(-one[members], kind="stable")
        picked_found.append(found[order[: max(1, int(top * len(members)))]].mean())
        all_found.append(found.mean())
    if not all_found:
        return float("nan"), float("nan")
    return float(np.mean(picked_found)), float(np.mean(all_found))
