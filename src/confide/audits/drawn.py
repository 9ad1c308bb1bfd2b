"""Which references each patient is compared with, when there is one target.

References can give membership away by themselves: by how many of them are left for a record, and
by which.  So references are drawn at random from those that did (or did not) hold a patient, as
many for members as for non-members, and a check fails where the draw depends on membership.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import fisher_exact

from confide.audits.guards import Guard
from confide.cohort import Cohort

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
_ENOUGH = 0.95  # share of the patients of each side that have the references of a comparison
_DEPENDS = 1e-3  # p-value, over all references, below which the choice depends on membership


@dataclass(frozen=True, kw_only=True)
class Compared:
    """The references that each patient is compared with.

    Attributes
    ----------
    used : (n_references, n_patients) bool
    """

    used: Mask

    @property
    def n_used(self) -> NDArray[np.int64]:
        """(n_patients,) how many; a patient with none is not scored."""
        return self.used.sum(axis=0)

    def of(self, signals: Floats, cohort: Cohort) -> tuple[Floats, Mask]:
        """The signals (n_references, n_records, ...) of the references used, each record's first.

        Returns
        -------
        (most, n_records, ...) signals, and (most, n_records) bool, false where a record has fewer
        """
        most = int(self.n_used.max())
        order = np.argsort(~self.used, axis=0, kind="stable")[:most][:, cohort.patient_index]
        n_used = self.n_used[cohort.patient_index]
        found = signals[order, np.arange(cohort.n_records)[None, :]]
        return found, np.arange(most)[:, None] < n_used[None, :]


def drawn(side: Mask, member: Mask, rng: np.random.Generator) -> Compared | None:
    """References for each patient, drawn from those of a side (n_references, n_patients).

    Members and non-members have the same distribution of their number: patients of equal rank on
    the two sides get the smaller of the two numbers that they have.
    """
    count = side.sum(axis=0)
    n_used = np.zeros(len(count), dtype=np.int64)
    for mine, other in ((member, ~member), (~member, member)):
        rows = np.flatnonzero(mine)
        rows = rows[np.lexsort([rng.random(len(rows)), count[rows]])]
        theirs = np.sort(count[other])
        place = (np.arange(len(rows)) + 0.5) / len(rows) * len(theirs)
        n_used[rows] = np.minimum(count[rows], theirs[place.astype(np.int64)])
    return _some_of(side, n_used, member, rng)


def drawn_alike(side: Mask, member: Mask, rng: np.random.Generator) -> Compared | None:
    """As :func:`_drawn`, with one number for all patients, which 95 % of either side have."""
    count = side.sum(axis=0)
    k = min(
        int(np.quantile(count[who], 1 - _ENOUGH, method="lower")) if len(side) else 0
        for who in (member, ~member)
    )
    return _some_of(side, np.where(count >= k, k, 0), member, rng)


def _some_of(
    side: Mask, n_used: NDArray[np.int64], member: Mask, rng: np.random.Generator
) -> Compared | None:
    if min((n_used[member] > 0).sum(), (n_used[~member] > 0).sum()) < 2:
        return None
    lot = rng.random(side.shape)
    lot[~side] = np.inf
    return Compared(used=np.argsort(np.argsort(lot, axis=0), axis=0) < n_used)


def reference_guard(held: Mask, member: Mask, drawn: Sequence[Compared]) -> Guard | None:
    """Does the choice of references depend on membership in the target?

    If it does, differences between references are taken for membership.
    """
    if not len(held):
        return None
    if not drawn or held.all(axis=1).all():
        return {
            "name": "references",
            "status": "failed",
            "message": "No reference is left that was trained without the patients of both sides, "
            "members and non-members of the target, so the references were not used.",
        }
    uses = [use for one in drawn for use in one.used if use.any() and not use.all()]
    p = [float(fisher_exact(_two_by_two(use, member)).pvalue) for use in uses]
    if p and min(p) * len(p) < _DEPENDS:
        return {
            "name": "references",
            "status": "failed",
            "message": "Which references were trained with a patient depends on whether the target "
            "was, so differences between references would be taken for membership; they were not "
            "used. Use references that were trained on none of the records, or on patients drawn "
            "without regard to the target's.",
        }
    return {
        "name": "references",
        "status": "passed",
        "message": "How many references a patient is compared with, and which, was not seen to "
        "depend on membership in the target.",
    }


def _two_by_two(use: Mask, member: Mask) -> NDArray[np.int64]:
    return np.asarray([[(use & m).sum(), (~use & m).sum()] for m in (member, ~member)])
