"""What was found where an audit folder was verified."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Damage:
    """Something stored that is not as it was written.

    Attributes
    ----------
    file : in the folder; an array of signals.zarr is named as its folder
    what : is wrong
    remedy : what mends it
    model : whose signals they are, where it is one model's
    records : the first and the last record that are concerned, of membership the patients
    """

    file: str
    what: str
    remedy: str
    model: int | None = None
    records: tuple[int, int] | None = None


@dataclass(kw_only=True)
class Verified:
    """What was found in an audit folder.

    Attributes
    ----------
    state : "finished", "unfinished" (models are to be trained, or results to be written),
        "erased", or "unknown" where the manifest is damaged
    n_models, n_finished : models planned and finished; None where that is not known
    read : what was read, in words
    damage : what is not sound
    notes : what could not be verified, and what is left to do
    warnings : what is sound but should not be so
    """

    state: str = "unknown"
    n_models: int | None = None
    n_finished: int | None = None
    read: list[str] = field(default_factory=list)
    damage: list[Damage] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether no damage was found."""
        return not self.damage

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, with ``sound`` first."""
        return {"sound": self.sound, **asdict(self)}
