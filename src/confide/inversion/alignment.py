"""Re-identification by population statistics: nothing is trained, and no image is paired first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from confide.inversion.assign import assign
from confide.inversion.base import (
    CodesOnly,
    Finding,
    Floats,
    Integers,
    InversionAttack,
    Matching,
    SameImages,
    Work,
    require_plaintexts,
    silent,
)
from confide.inversion.graph import Doubles, match
from confide.inversion.rows import has_positions, order_of
from confide.inversion.settings import Budget
from confide.inversion.statistics import (
    EnergyMap,
    Plain,
    Shadows,
    Summary,
    problem,
    standardised,
    summary,
)

CERTAIN = 0.9
"""The correlation of energy and prediction that is believed at most."""


@dataclass(frozen=True, kw_only=True)
class Alignment(InversionAttack[SameImages, Matching]):
    """Match codes and plaintexts of the same images.

    The rows of all codes are put in one order (:mod:`confide.inversion.rows`).  How rows of two
    positions correlate over the codes hardly depends on the key, so that matching it with the same
    for keys of the attacker's own finds the patch of each position
    (:mod:`confide.inversion.graph`).  The energies of the rows of a code are then a coarse picture
    of its image, which is compared with the energies predicted for each plaintext.

    Costs do not grow with the square of the number of images but for one product and one
    assignment; codes are read twice, some at a time.

    Parameters
    ----------
    keys : of the attacker's own
    records : plaintexts encoded under each
    rounds : at most so often the patches of the positions are found anew from the images matched,
        and the images anew from these, as long as something changes
    patience : exchanges without success after which the search for the positions ends
    """

    name: ClassVar[str] = "alignment"
    knowledge: ClassVar[type[SameImages]] = SameImages
    finding: ClassVar[type[Finding]] = Matching
    headline: ClassVar[str] = "reid_identical"
    breaks_at: ClassVar[float] = 0.9
    needs_positions: ClassVar[bool] = True
    about: ClassVar[str] = (
        "Puts rows in order, finds their patches by how positions correlate over the images, and "
        "matches images by how far each row lies from the mean."
    )
    source: ClassVar[str] = "confide"

    keys: int = 3
    records: int = 128
    rounds: int = 10
    patience: int = 1500

    @classmethod
    def of(cls, budget: Budget) -> Self:
        """See :meth:`InversionAttack.of`."""
        if budget == "quick":
            return cls(keys=2, records=64, patience=500)
        return cls() if budget == "standard" else cls(keys=5, records=256, patience=5000)

    def curves(self) -> Mapping[str, Mapping[float, Self]]:
        """By the number of keys of the attacker's own."""
        return {"shadow keys": {k: replace(self, keys=k) for k in (1, 2, 3, 5)}}

    def __call__(self, known: SameImages, work: Work) -> Matching:
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
        theirs = standardised(predict(known.plaintexts))
        ours = standardised(hidden.energy)
        patch = patches_of(hidden, [s for _, s in shadows], order.known, quiet, self.patience)
        similarity = _similarity(ours, theirs, patch, predict.certainty)
        assigned = assign(-similarity)
        for _ in range(0 if order.known else self.rounds):
            new = _patches_by_images(ours, theirs, assigned)
            if np.array_equal(new, patch):
                break
            patch = new
            similarity = _similarity(ours, theirs, patch, predict.certainty)
            assigned = assign(-similarity)
        work.progress(4, 4)
        return Matching(
            similarity=similarity, assigned=assigned, notes=notes(known, len(shadows), self.keys)
        )


def patches_of(
    hidden: Summary, shadows: list[Summary], known: bool, work: Work, patience: int
) -> Integers:
    """(P,) the patch that each position of codes in order is taken to be."""
    if known:
        return np.arange(len(hidden.products))
    return match(problem(hidden, shadows), work, patience=patience)[0]


def notes(known: CodesOnly, n_keys: int, wanted: int) -> tuple[str, ...]:
    """What a reader of the result has to know."""
    out = []
    if not has_positions(known):
        out.append(
            "The rows are shuffled and carry no position, so that they cannot be put in order; "
            "this attack rests on that."
        )
    if n_keys < wanted:
        out.append(f"The time was over after {n_keys} of {wanted} keys of the attacker's own.")
    return tuple(out)


def _similarity(ours: Doubles, theirs: Doubles, patch: Integers, certainty: Doubles) -> Floats:
    """(n_codes, n_plaintexts) log likelihood ratio of a pair, as a mean over positions.

    Ours and theirs, (n, P) standardised, are taken for normal, with the correlation `certainty` for
    a pair and none otherwise.
    """
    theirs = theirs[:, patch]
    r = np.clip(certainty[patch], 0.0, CERTAIN)
    w = r / (1 - r**2) / len(patch)
    cross = (ours * w) @ theirs.T
    own = (ours**2 @ (w * r))[:, None] + (theirs**2 @ (w * r))[None]
    return (cross - own / 2).astype(np.float32)


def _patches_by_images(ours: Doubles, theirs: Doubles, assigned: Integers) -> Integers:
    """(P,) the patch of each position whose energies correlate best over the images matched."""
    matched = assigned >= 0
    return assign(-(ours[matched].T @ theirs[assigned[matched]]))
