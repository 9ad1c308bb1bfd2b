"""The `attack:` block of a configuration; plain values, without importing torch."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from confide._check import did_you_mean
from confide.datasets import AnySource
from confide.datasets.base import Settings

Budget = Literal["quick", "standard", "paper"]
Knowledge = Literal["codes", "unpaired", "same-images", "pairs"]

KNOWLEDGE: tuple[Knowledge, ...] = ("codes", "unpaired", "same-images", "pairs")
"""From least to most: who knows more can do what those can who know less."""

NEEDS: dict[str, Knowledge] = {
    "linkage": "codes",
    "one-key-linkage": "codes",
    "two-keys-linkage": "codes",
    "attribute-probe": "codes",
    "mmd": "unpaired",
    "noise-mmd": "unpaired",
    "discriminator": "unpaired",
    "transfer": "unpaired",
    "unpaired-alignment": "unpaired",
    "reconstruction": "unpaired",
    "alignment": "same-images",
    "assignment": "same-images",
    "plaintext": "pairs",
    "wrongly-paired": "pairs",
}
"""The attacks that a configuration can name, and the least that their attacker knows."""

_OF_CODES = ("linkage", "one-key-linkage", "two-keys-linkage", "attribute-probe")

DEFAULT: dict[Knowledge, tuple[str, ...]] = {
    "codes": _OF_CODES,
    "unpaired": (*_OF_CODES, "unpaired-alignment", "reconstruction"),
    "same-images": (*_OF_CODES, "alignment", "assignment"),
    "pairs": (*_OF_CODES, "alignment", "assignment", "plaintext", "wrongly-paired"),
}
"""What is run if nothing is named: all that is known to break its positive control on a CPU."""

RECORDS: dict[Budget, int] = {"quick": 500, "standard": 2000, "paper": 5000}
"""Codes that are attacked, at most; more are sampled."""

CONTROL_NUMBERS: dict[Budget, int] = {"quick": 2**26, "standard": 2**28, "paper": 2**31}
"""Numbers in the codes of a control, at most: they are held in memory."""


class Gate(Settings):
    """What a release has to meet.

    Parameters
    ----------
    reid : re-identification that the upper end of the interval may not exceed, for any attack
    """

    reid: float = Field(ge=0, le=1)


class AttackBlock(Settings):
    """The `attack:` block: what the attacker knows and tries.

    Parameters
    ----------
    knowledge : what the attacker has besides the release: "codes" nothing; "unpaired" records of
        other patients; "same-images" the records of the codes, not which is whose; "pairs" some
        pairs too
    plaintexts : the records that the attacker has; by default those of `data`, which is not
        allowed for "unpaired"
    attacks : names; by default those that are known to work at this knowledge
    attribute : column of the tables that probes look for; the label by default
    known_share : share of the patients whose pair (or attribute) the attacker knows
    budget : effort, "quick", "standard" or "paper"
    minutes : of training an attack and target, at most
    seed : of all that is random in the attacks
    gate : what the release has to meet, if anything
    """

    knowledge: Knowledge = "same-images"
    plaintexts: AnySource | None = None
    attacks: tuple[str, ...] = ()
    attribute: str | None = None
    known_share: float = Field(default=0.5, gt=0, lt=1)
    budget: Budget = "quick"
    minutes: float | None = Field(default=None, gt=0)
    seed: int = Field(default=0, ge=0, lt=2**62)
    gate: Gate | None = None

    @field_validator("attacks")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in NEEDS:
                raise ValueError(f"unknown attack {name!r}.{did_you_mean(name, NEEDS)}")
            if names.count(name) > 1:
                raise ValueError(f"the attack {name!r} is named twice; name it once")
        return names

    @model_validator(mode="after")
    def _possible(self) -> Self:
        rank = KNOWLEDGE.index(self.knowledge)
        for name in self.attacks:
            if KNOWLEDGE.index(NEEDS[name]) > rank:
                raise ValueError(
                    f"the attack {name!r} needs knowledge: {NEEDS[name]}, this attacker has "
                    f"{self.knowledge}"
                )
        if self.knowledge == "unpaired" and self.plaintexts is None:
            raise ValueError(
                "knowledge: unpaired needs `plaintexts`, a data block of records of other patients"
            )
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The attacks to run."""
        return self.attacks or DEFAULT[self.knowledge]
