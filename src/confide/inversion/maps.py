"""Pictures of hidden records, from their codes and from records of other patients."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from confide.inversion.alignment import notes, patches_of
from confide.inversion.base import (
    Finding,
    Floats,
    InversionAttack,
    Maps,
    Records,
    Unpaired,
    Work,
    require_plaintexts,
    silent,
)
from confide.inversion.rows import order_of
from confide.inversion.settings import Budget
from confide.inversion.statistics import EnergyMap, Plain, Shadows, Summary, summary


@dataclass(frozen=True, kw_only=True)
class UnpairedAlignment(InversionAttack[Unpaired, Maps]):
    """Recover a contrast map of each hidden record.

    As :class:`confide.inversion.alignment.Alignment` finds the patches of the positions, with
    records of other patients of the same kind, none of which is hidden.  The energies of the rows,
    put at their patches, then show where a hidden record differs from the mean of all.

    A map is the best linear prediction, from the energies, of the log root mean square of each
    patch beyond the mean of the plaintexts, in grey values.  With hidden layers an energy weighs
    texture more than brightness, so that a map is to be compared with `expected` of a record, which
    weighs them alike; the correlation with the plain contrast is lower.  The hidden records lie
    about a mean of their own, which is not known and makes the two differ somewhat.

    Parameters
    ----------
    keys : of the attacker's own
    records : plaintexts encoded under each
    patience : exchanges without success after which the search for the positions ends
    """

    name: ClassVar[str] = "unpaired-alignment"
    knowledge: ClassVar[type[Unpaired]] = Unpaired
    finding: ClassVar[type[Finding]] = Maps
    headline: ClassVar[str] = "map_correlation"
    breaks_at: ClassVar[float] = 0.7
    needs_positions: ClassVar[bool] = True
    about: ClassVar[str] = (
        "Recovers a map of the contrast of each hidden record, patch by patch, with records of "
        "other patients alone."
    )
    source: ClassVar[str] = "confide"

    keys: int = 3
    records: int = 500
    patience: int = 3000

    @classmethod
    def of(cls, budget: Budget) -> Self:
        """See :meth:`InversionAttack.of`."""
        if budget == "quick":
            return cls(keys=2, records=250, patience=1000)
        return cls() if budget == "standard" else cls(keys=6, records=2000, patience=10_000)

    def __call__(self, known: Unpaired, work: Work) -> Maps:
        """See :meth:`InversionAttack.__call__`."""
        require_plaintexts(known)
        quiet = replace(work, progress=silent)
        order = order_of(known, quiet)
        work.progress(1, 4)
        hidden = summary(known.codes, order, quiet)
        work.progress(2, 4)
        shadows = Shadows(keys=self.keys, records=self.records).encode(
            known.architecture, known.plaintexts, quiet
        )
        work.progress(3, 4)
        plain = Plain.of(known.plaintexts, known.architecture.settings.patch)
        predict = EnergyMap.fitted(plain, [(x, s.energy) for x, s in shadows])
        slope, offset = _scale(plain, shadows)
        patch = patches_of(hidden, [s for _, s in shadows], order.known, quiet, self.patience)
        maps = np.empty_like(hidden.energy)
        maps[:, patch] = hidden.energy * slope + offset
        work.progress(4, 4)

        def expected(records: Records) -> Floats:
            return predict(records) * slope + offset

        return Maps(maps=maps, expected=expected, notes=notes(known, len(shadows), self.keys))


def _scale(plain: Plain, shadows: list[tuple[Records, Summary]]) -> tuple[np.float32, np.float32]:
    """Slope and offset of the best linear prediction of contrast from energy."""
    energy = np.concatenate([s.energy.ravel() for _, s in shadows]).astype(np.float64)
    contrast = np.concatenate([plain.contrast(x).ravel() for x, _ in shadows]).astype(np.float64)
    variance = float(energy.var())
    covariance = float(((energy - energy.mean()) * contrast).mean())
    slope = covariance / variance if variance > 0 else 0.0
    return np.float32(slope), np.float32(contrast.mean() - slope * energy.mean())
