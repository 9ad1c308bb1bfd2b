"""All that is so about one target: the attack is given a part of it, the scores the rest."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from confide.errors import ArgumentError
from confide.inversion.base import (
    ArrayCodes,
    Codes,
    CodesOnly,
    Floats,
    Integers,
    KnownAttributes,
    KnownPairs,
    LabelledPlaintexts,
    OneKey,
    Records,
    SameImages,
    TwoReleases,
    Unpaired,
)
from confide.inversion.scores import Truth
from confide.inversion.targets import (
    Kind,
    Target,
    ceiling,
    encoded,
    negative_control,
    positive_control,
    shallow_control,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Hidden:
    """What the codes are of; no attack sees it.

    Attributes
    ----------
    records : (n_codes, *shape) in the order of the codes
    patient : (n_codes,) number of the patient
    match : (n_codes,) number of the attacker's plaintext that is the record; -1 if it has none
    attribute : (n_codes,) 0, 1, or -1 where it is missing
    """

    records: Records
    patient: Integers
    match: Integers
    attribute: Integers


@dataclass(frozen=True, kw_only=True, eq=False)
class Plaintexts:
    """What the attacker has besides the release.

    Attributes
    ----------
    records : (n_plaintexts, *shape)
    patient : (n_plaintexts,) number of the patient
    attribute : (n_plaintexts,) 0, 1, or -1 where it is missing
    """

    records: Records
    patient: Integers
    attribute: Integers


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """A target, what an attacker may know of it, and what is true.

    Parameters
    ----------
    target : what is attacked
    plaintexts : the attacker's; None for an attacker who has none
    hidden : what the codes are of; None where the truth is not at hand, and then nothing is scored
    known_share : share of the patients whose pair, or attribute, an attacker knows who knows some
    seed : chooses these patients, and the keys of simulated releases
    device : where releases are simulated
    """

    target: Target
    plaintexts: Plaintexts | None
    hidden: Hidden | None
    known_share: float = 0.5
    seed: int = 0
    device: torch.device | str = "cpu"

    def known(self, kind: type[CodesOnly]) -> CodesOnly:
        """What an attacker of that kind knows.

        Raises
        ------
        NotThereError : there is nothing to know of that kind here; says why
        """
        facts: dict[str, Any] = {
            "architecture": self.target.architecture,
            "codes": self.target.codes,
        }
        if issubclass(kind, TwoReleases):
            first, second = self._halves()
            seeds = (self.seed, self.seed + (0 if issubclass(kind, OneKey) else 1))
            facts["codes"], facts["other"] = self._releases((first, second), seeds)
        if issubclass(kind, KnownAttributes):
            facts["attribute"] = np.where(self._chosen(), self._hidden().attribute, -1)
            _require_both(facts["attribute"], "the codes whose attribute the attacker knows")
        if issubclass(kind, Unpaired):
            facts |= self._plaintexts(kind)
        if issubclass(kind, KnownPairs):
            hidden = self._hidden()
            codes = np.flatnonzero(self._chosen() & (hidden.match >= 0))
            codes = np.random.default_rng([self.seed, 1]).permutation(codes)
            facts["pairs"] = np.column_stack([codes, hidden.match[codes]])
        return kind(**facts)

    def truth(self, kind: type[CodesOnly]) -> Truth:
        """What the answer of an attacker of that kind is scored by."""
        hidden, rows = self._hidden(), np.arange(self.target.codes.n_records)
        codes: Codes = self.target.codes
        other = None
        if issubclass(kind, TwoReleases):
            rows, others = self._halves()
            other = hidden.patient[others]
        elif issubclass(kind, KnownPairs):
            # What was told is no finding.
            rows = np.flatnonzero(~self._chosen())
        if len(rows) < codes.n_records:
            codes = Some(codes, rows)
        attribute = hidden.attribute
        if issubclass(kind, KnownAttributes):
            attribute = np.where(self._chosen(), -1, attribute)
            _require_both(attribute, "the codes whose attribute is asked for")
        return Truth(
            records=hidden.records[rows],
            patient=hidden.patient[rows],
            match=hidden.match[rows] if issubclass(kind, SameImages) else None,
            attribute=attribute[rows],
            codes=codes,
            other_patient=other,
        )

    def _plaintexts(self, kind: type[CodesOnly]) -> dict[str, Any]:
        if self.plaintexts is None:
            raise NotThereError("The attacker has no plaintexts.")
        rows = np.arange(len(self.plaintexts.records))
        facts: dict[str, Any] = {}
        if issubclass(kind, LabelledPlaintexts):
            rows = np.flatnonzero(self.plaintexts.attribute >= 0)
            facts["attribute"] = self.plaintexts.attribute[rows]
            _require_both(facts["attribute"], "the attacker's plaintexts")
        return facts | {"plaintexts": self.plaintexts.records[rows]}

    def _hidden(self) -> Hidden:
        if self.hidden is None:
            raise NotThereError(
                "The truth is not at hand (--truth): of it the attacker would know a part, or "
                "releases would be simulated."
            )
        return self.hidden

    def _chosen(self) -> np.ndarray:
        """(n_codes,) bool: codes of random patients, whom the attacker knows about."""
        patient = self._hidden().patient
        each = np.unique(patient)
        rng = np.random.default_rng([self.seed, 2])
        some = rng.permutation(each)[: round(self.known_share * len(each))]
        return np.isin(patient, some)

    def _halves(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows of two releases: every other record of each patient, and the rest."""
        patient = self._hidden().patient
        order = np.argsort(patient, kind="stable")
        first = np.r_[True, np.diff(patient[order]) != 0]
        start = np.maximum.accumulate(np.where(first, np.arange(len(order)), 0))
        odd = np.empty(len(order), dtype=bool)
        odd[order] = (np.arange(len(order)) - start) % 2 == 1
        if not odd.any():
            raise NotThereError("No patient has two records, so that none can be in two releases.")
        return np.flatnonzero(~odd), np.flatnonzero(odd)

    def _releases(
        self, halves: tuple[np.ndarray, np.ndarray], seeds: tuple[int, int]
    ) -> tuple[Codes, Codes]:
        """Two releases as they would be of this architecture; the secret key is not at hand."""
        records = self._hidden().records
        if self.target.kind == "noise":
            rng = np.random.default_rng([self.seed, 3])
            records = rng.standard_normal(records.shape, dtype=np.float32)
        made: list[Floats] = []
        for i, (rows, seed) in enumerate(zip(halves, seeds, strict=True)):
            part = encoded(
                self.target.architecture,
                records[rows],
                seed,
                orders=i,
                calibration=records[halves[0]],
                device=self.device,
            )
            made.append(part)
        return ArrayCodes(made[0]), ArrayCodes(made[1])


class NotThereError(ArgumentError):
    """An attack cannot be run here, since what its attacker would know does not exist."""


@dataclass(frozen=True)
class Some:
    """Some of the codes, as codes of their own.

    Parameters
    ----------
    of : all codes
    rows : (n,) numbers of those that are in it, in its order
    """

    of: Codes
    rows: np.ndarray

    @property
    def n_records(self) -> int:
        """Number of codes."""
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, int]:
        """(P, C)."""
        return self.of.shape

    def codes(self, rows: slice | np.ndarray) -> Floats:
        """(n, P, C) of the codes asked for."""
        return self.of.codes(self.rows[rows])


def control(scene: Scene, kind: Kind, most_numbers: int) -> Scene:
    """The same scene with a control in place of the release.

    Parameters
    ----------
    scene : of the release
    kind : any but "release"
    most_numbers : numbers in its codes, at most; the control is made of fewer records if there
        would be more

    Raises
    ------
    NotThereError : there is neither the truth nor a plaintext to make a control of
    """
    hidden, plaintexts = scene.hidden, scene.plaintexts
    settings = scene.target.architecture.settings
    most = max(2, most_numbers // (scene.target.architecture.n_patches * settings.width))
    rng = np.random.default_rng([scene.seed, 4])
    if hidden is None:
        hidden, plaintexts = _of_plaintexts(plaintexts, rng)
    if len(hidden.records) > most:
        rows = _of_whole_patients(hidden.patient, most, rng)
        hidden, plaintexts = _part(hidden, plaintexts, rows)
    make = _CONTROLS[kind]
    target = make(scene.target.architecture, hidden.records, scene.seed, device=scene.device)
    return replace(scene, target=target, hidden=hidden, plaintexts=plaintexts)


_CONTROLS = {
    "linear": positive_control,
    "shallow": shallow_control,
    "noise": negative_control,
    "raw": ceiling,
}


def _of_plaintexts(
    plaintexts: Plaintexts | None, rng: np.random.Generator
) -> tuple[Hidden, Plaintexts]:
    """Hide the attacker's own plaintexts, where the truth is not at hand."""
    if plaintexts is None:
        raise NotThereError(
            "There are no records to make a control of: give the truth, or plaintexts."
        )
    order = rng.permutation(len(plaintexts.records))
    hidden = Hidden(
        records=plaintexts.records[order],
        patient=plaintexts.patient[order],
        match=order.astype(np.int64),
        attribute=plaintexts.attribute[order],
    )
    return hidden, plaintexts


def _of_whole_patients(patient: Integers, most: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of random patients, all of each but the last, `most` in all."""
    each, number = np.unique(patient, return_inverse=True)
    place = rng.permutation(len(each))[number]
    return np.sort(np.argsort(place, kind="stable")[:most])


def _part(
    hidden: Hidden, plaintexts: Plaintexts | None, rows: np.ndarray
) -> tuple[Hidden, Plaintexts | None]:
    """Some of the hidden records, with their plaintexts alone if the attacker has them."""
    hidden = Hidden(
        records=hidden.records[rows],
        patient=hidden.patient[rows],
        match=hidden.match[rows],
        attribute=hidden.attribute[rows],
    )
    if plaintexts is None or (hidden.match < 0).all():
        return hidden, plaintexts
    kept = np.unique(hidden.match[hidden.match >= 0])
    place = np.full(len(plaintexts.records), -1)
    place[kept] = np.arange(len(kept))
    return (
        replace(hidden, match=np.where(hidden.match >= 0, place[hidden.match], -1)),
        Plaintexts(
            records=plaintexts.records[kept],
            patient=plaintexts.patient[kept],
            attribute=plaintexts.attribute[kept],
        ),
    )


def _require_both(attribute: Integers, where: str) -> None:
    values = attribute[attribute >= 0]
    if not (values == 0).any() or not (values == 1).any():
        raise NotThereError(f"The attribute has fewer than two values in {where}.")
