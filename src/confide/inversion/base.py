"""What an inversion attack is: what the attacker knows, and what comes out.

An attack on a release wants the pairing of codes and patients, the key, the images, or an
attribute.  Its type says what it is given: ``InversionAttack[SameImages, Matching]`` knows the
plaintexts of the codes, though not which is whose, and answers with a matching.

To add one: subclass :class:`InversionAttack` as a frozen dataclass of its settings, write `of` and
`__call__`, and name it in ``confide.inversion.suite``; `linkage.py` is the shortest example.  The
test suite that all attacks inherit is ``tests/inversion/contract.py``.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from confide import _check
from confide.encoders.base import Encoder, build
from confide.encoders.key import Key
from confide.encoders.settings import EncodeSettings, Shape
from confide.errors import ArgumentError
from confide.inversion.settings import Budget

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
Records = NDArray[Any]
"""(n, *shape) plaintext records, uint8 or float32."""
Progress = Callable[[int, int], None]
"""Called with (steps done, steps in all)."""


def silent(done: int, total: int) -> None:
    """No progress shown."""


class Codes(Protocol):
    """Codes in memory or on disk; a :class:`~confide.encoders.release.Release` is one."""

    @property
    def n_records(self) -> int:
        """Number of codes."""

    @property
    def shape(self) -> tuple[int, int]:
        """(P, C), rows of a code and length of a row."""

    def codes(self, rows: slice | NDArray[np.integer[Any]], /) -> Floats:
        """(n, P, C) float32 of the codes asked for."""


@dataclass(frozen=True, eq=False)
class ArrayCodes:
    """Codes in memory: (n, P, C) float32."""

    values: Floats

    def __post_init__(self) -> None:
        _check.shape((None, None, None), values=self.values)

    @property
    def n_records(self) -> int:
        """Number of codes."""
        return len(self.values)

    @property
    def shape(self) -> tuple[int, int]:
        """(P, C)."""
        return self.values.shape[1], self.values.shape[2]

    def codes(self, rows: slice | NDArray[np.integer[Any]]) -> Floats:
        """(n, P, C) of the codes asked for."""
        return np.asarray(self.values[rows], dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """How the codes were made, but for the key: every attacker knows it.

    Parameters
    ----------
    settings : of the encoder, as its release states them
    shape : of one record, (channels, height, width) or (leads, samples)
    """

    settings: EncodeSettings
    shape: Shape

    @property
    def n_patches(self) -> int:
        """Rows of a code."""
        return self.settings.n_patches(self.shape)

    def shadow(self, records: Records, seed: int, *, device: torch.device | str = "cpu") -> Encoder:
        """An encoder of this architecture under a key of the attacker's own.

        Its codes keep the order of their rows, so that row j of a code comes from patch j.

        Parameters
        ----------
        records : (n, *shape) that calibrate it
        seed : of its key; the same seed gives the same encoder
        """
        secret = np.random.default_rng([seed, 0x5AD0]).bytes(32)
        settings = self.settings.model_copy(update={"shuffle": False})
        encoder = build(settings, self.shape, Key(secret), device=device)
        encoder.calibrate(records)
        return encoder


@dataclass(frozen=True, kw_only=True, eq=False)
class CodesOnly:
    """An attacker who has the release and nothing else.

    Attributes
    ----------
    architecture : how the codes were made, but for the key
    codes : the codes, rows shuffled if the architecture says so
    """

    architecture: Architecture
    codes: Codes


@dataclass(frozen=True, kw_only=True, eq=False)
class KnownAttributes(CodesOnly):
    """An attacker who knows an attribute of some of the codes, and wants that of the others.

    Attributes
    ----------
    attribute : (n_codes,) 0 or 1; -1 where it is not known
    """

    attribute: Integers


@dataclass(frozen=True, kw_only=True, eq=False)
class TwoReleases(CodesOnly):
    """An attacker who has a second release too.

    Attributes
    ----------
    other : its codes, of the same architecture
    """

    other: Codes


@dataclass(frozen=True, kw_only=True, eq=False)
class OneKey(TwoReleases):
    """The second release was made with the same key."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TwoKeys(TwoReleases):
    """The second release was made with another key."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Unpaired(CodesOnly):
    """An attacker who has plaintexts of the same kind (challenge 2 of the authors).

    Attributes
    ----------
    plaintexts : (n_plaintexts, *shape)
    """

    plaintexts: Records


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledPlaintexts(Unpaired):
    """An attacker whose plaintexts of the same kind have a known attribute.

    Attributes
    ----------
    attribute : (n_plaintexts,) 0 or 1
    """

    attribute: Integers


@dataclass(frozen=True, kw_only=True, eq=False)
class SameImages(Unpaired):
    """An attacker whose plaintexts are those of the codes, in an unrelated order (challenge 1).

    There may be more plaintexts than codes.
    """


@dataclass(frozen=True, kw_only=True, eq=False)
class KnownPairs(SameImages):
    """An attacker who also knows of some codes which plaintext is theirs.

    Attributes
    ----------
    pairs : (n_pairs, 2) numbers of a code and of its plaintext, in random order
    """

    pairs: Integers


@dataclass(frozen=True, kw_only=True, eq=False)
class Finding:
    """What an attack answers.

    Attributes
    ----------
    notes : what a reader of the result has to know, a sentence each, such as a deadline that
        stopped it
    """

    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Matching(Finding):
    """Which plaintext is whose code.

    Attributes
    ----------
    similarity : (n_codes, n_plaintexts) float32, higher = more likely a pair
    assigned : (n_codes,) number of a plaintext, each at most once; -1 for none
    """

    similarity: Floats
    assigned: Integers


@dataclass(frozen=True, kw_only=True, eq=False)
class Substitute(Finding):
    """An encoder that stands in for the secret one.

    Attributes
    ----------
    means : (n, *shape) records -> (n, C) float32, the predicted mean row of their codes
    """

    means: Callable[[Records], Floats] = field(repr=False)


@dataclass(frozen=True, kw_only=True, eq=False)
class Attributes(Finding):
    """An attribute of the codes.

    Attributes
    ----------
    scores : (n_codes,) float32, higher = more likely 1; NaN where it was known
    """

    scores: Floats


@dataclass(frozen=True, kw_only=True, eq=False)
class Linked(Finding):
    """Which codes are of one patient.

    Attributes
    ----------
    similarity : (n_codes, n_others) float32, higher = more likely one patient; within one release
        the others are the codes themselves and the diagonal is NaN
    """

    similarity: Floats


@dataclass(frozen=True, kw_only=True, eq=False)
class Maps(Finding):
    """A picture of each hidden record, patch by patch: its contrast.

    Attributes
    ----------
    maps : (n_codes, P) float32, patches in row-major order
    expected : (n, *shape) records -> (n, P) the map that their codes would give
    """

    maps: Floats
    expected: Callable[[Records], Floats] = field(repr=False)


@dataclass(frozen=True, kw_only=True, eq=False)
class Reconstruction(Finding):
    """The hidden records themselves.

    Attributes
    ----------
    records : (n_codes, *shape) float32, on the scale of the plaintexts
    """

    records: Floats


@dataclass(frozen=True, kw_only=True)
class Work:
    """How an attack is carried out; a seed makes it repeatable on one machine.

    Parameters
    ----------
    seed : of all that is random in it
    device : where tensors live
    seconds : training stops when that many have passed since this was made, and the finding says
        so; None for no limit
    progress : called with (steps done, steps in all)
    """

    seed: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    seconds: float | None = None
    progress: Progress = silent
    started: float = field(default_factory=time.monotonic)

    def late(self) -> bool:
        """Whether the time is over."""
        return self.seconds is not None and time.monotonic() - self.started > self.seconds

    def seeds(self, n: int) -> list[int]:
        """Independent seeds derived from this one."""
        children = np.random.SeedSequence(self.seed).spawn(n)
        return [int(child.generate_state(1, np.uint64)[0] >> 1) for child in children]


K = TypeVar("K", bound=CodesOnly, contravariant=True)
F = TypeVar("F", bound=Finding, covariant=True)


class InversionAttack(ABC, Generic[K, F]):
    """Knowledge in, finding out; settings in the constructor, nothing kept between calls.

    Attributes
    ----------
    name : in configurations and certificates
    knowledge : the class of what it is given, as in its type
    finding : the class of what it returns
    headline : the score by which it is judged, see :mod:`confide.inversion.scores`
    breaks_at : value of that score from which the positive control counts as broken; infinite of an
        attack that is itself a control and should find nothing
    needs_positions : whether its failure says nothing where rows are shuffled and carry no position
    about : one sentence for reports
    source : paper with its section, or "confide"
    """

    name: ClassVar[str]
    knowledge: ClassVar[type[CodesOnly]]
    finding: ClassVar[type[Finding]]
    headline: ClassVar[str]
    breaks_at: ClassVar[float]
    needs_positions: ClassVar[bool] = False
    about: ClassVar[str]
    source: ClassVar[str]

    @classmethod
    @abstractmethod
    def of(cls, budget: Budget) -> Self:
        """The attack with the settings of a budget.

        "quick" is for minutes on two cores and small codes, "standard" for tens of minutes, "paper"
        for the published effort, on a GPU.
        """

    @abstractmethod
    def __call__(self, known: K, work: Work) -> F:
        """Attack.

        Raises
        ------
        ArgumentError : what is known does not fit the architecture, or is too little
        """

    def curves(self) -> Mapping[str, Mapping[float, Self]]:
        """Variants to show how its success depends on effort or knowledge: {axis: {x: attack}}."""
        return {}

    def settings(self) -> dict[str, Any]:
        """Its settings as plain values."""
        return asdict(self)  # type: ignore[call-overload]


def require_plaintexts(known: Unpaired, at_least: int = 2) -> None:
    """Refuse plaintexts of another shape than the architecture's, or too few.

    Raises
    ------
    ArgumentError : names what does not fit
    """
    _check.shape((None, *known.architecture.shape), plaintexts=known.plaintexts)
    if len(known.plaintexts) < at_least:
        raise ArgumentError(
            f"The attack needs at least {at_least} plaintexts, got {len(known.plaintexts)}."
        )
