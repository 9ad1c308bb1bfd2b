"""Which codes are of one patient (linkage): of one release, of two, under one key or two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from confide import _check
from confide.errors import ArgumentError
from confide.inversion.base import (
    CodesOnly,
    Floats,
    InversionAttack,
    Linked,
    OneKey,
    TwoKeys,
    TwoReleases,
    Work,
)
from confide.inversion.settings import Budget
from confide.inversion.summaries import (
    components,
    cosines,
    of_any_key,
    of_one_key,
    standardised,
)

_POWER = 0.25
"""Of the standard deviations of components: large ones, such as exposure, say little of a person;
0 would make noise count as much as anatomy."""
_POWER_OF_TWO_KEYS = 0.5


@dataclass(frozen=True, kw_only=True)
class Linkage(InversionAttack[CodesOnly, Linked]):
    """Codes of one release by the cosine of their summaries.

    Parameters
    ----------
    n_components : principal components of the summaries that are compared, at most; a quarter of
        the number of codes where that is less
    """

    name: ClassVar[str] = "linkage"
    knowledge: ClassVar[type[CodesOnly]] = CodesOnly
    finding: ClassVar[type[Linked]] = Linked
    headline: ClassVar[str] = "auc"
    breaks_at: ClassVar[float] = 0.6
    about: ClassVar[str] = "Finds codes of the same patient within one release."
    source: ClassVar[str] = "confide"

    n_components: int = 100

    def __post_init__(self) -> None:
        _check.at_least(1, n_components=self.n_components)

    @classmethod
    def of(cls, budget: Budget) -> Self:
        """The same for every budget."""
        return cls()

    def __call__(self, known: CodesOnly, work: Work) -> Linked:
        """See :meth:`InversionAttack.__call__`."""
        _require_two(known.codes.n_records)
        features = of_one_key(known.codes, known.architecture, work)
        work.progress(1, 2)
        similarity = _compared(standardised(features), self.n_components, _POWER, work)
        np.fill_diagonal(similarity, np.nan)
        work.progress(2, 2)
        return Linked(similarity=similarity)


@dataclass(frozen=True, kw_only=True)
class OneKeyLinkage(InversionAttack[OneKey, Linked]):
    """Codes of two releases of one key, compared as those of one release.

    Parameters
    ----------
    n_components : as of :class:`Linkage`
    """

    name: ClassVar[str] = "one-key-linkage"
    knowledge: ClassVar[type[CodesOnly]] = OneKey
    finding: ClassVar[type[Linked]] = Linked
    headline: ClassVar[str] = "auc"
    breaks_at: ClassVar[float] = 0.6
    about: ClassVar[str] = "Finds codes of the same patient in two releases made with one key."
    source: ClassVar[str] = "confide"

    n_components: int = 100

    def __post_init__(self) -> None:
        _check.at_least(1, n_components=self.n_components)

    @classmethod
    def of(cls, budget: Budget) -> Self:
        """The same for every budget."""
        return cls()

    def __call__(self, known: OneKey, work: Work) -> Linked:
        """See :meth:`InversionAttack.__call__`."""
        _require_alike(known)
        releases = (known.codes, known.other)
        features = [of_one_key(codes, known.architecture, work) for codes in releases]
        work.progress(1, 2)
        n = known.codes.n_records
        together = standardised(np.concatenate(features))
        similarity = _compared(together, self.n_components, _POWER, work)
        work.progress(2, 2)
        return Linked(similarity=similarity[:n, n:])


@dataclass(frozen=True, kw_only=True)
class TwoKeysLinkage(InversionAttack[TwoKeys, Linked]):
    """Codes of two releases of two keys, by statistics that depend on the key little.

    Parameters
    ----------
    n_components : as of :class:`Linkage`
    """

    name: ClassVar[str] = "two-keys-linkage"
    knowledge: ClassVar[type[CodesOnly]] = TwoKeys
    finding: ClassVar[type[Linked]] = Linked
    headline: ClassVar[str] = "auc"
    breaks_at: ClassVar[float] = 0.55
    about: ClassVar[str] = "Finds codes of the same patient in two releases made with two keys."
    source: ClassVar[str] = "confide"

    n_components: int = 15

    def __post_init__(self) -> None:
        _check.at_least(1, n_components=self.n_components)

    @classmethod
    def of(cls, budget: Budget) -> Self:
        """The same for every budget."""
        return cls()

    def __call__(self, known: TwoKeys, work: Work) -> Linked:
        """See :meth:`InversionAttack.__call__`."""
        _require_alike(known)
        releases = (known.codes, known.other)
        # Each release has a scale of its own, which its key makes.
        features = [standardised(of_any_key(codes, known.architecture, work)) for codes in releases]
        work.progress(1, 2)
        n = known.codes.n_records
        together = np.concatenate(features)
        similarity = _compared(together, self.n_components, _POWER_OF_TWO_KEYS, work)
        work.progress(2, 2)
        return Linked(similarity=similarity[:n, n:])


def _compared(features: Floats, n_components: int, power: float, work: Work) -> Floats:
    most = max(2, min(n_components, len(features) // 4))
    parts = components(features, most, power, work.seed)
    return cosines(parts, parts)


def _require_two(n: int) -> None:
    if n < 2:
        raise ArgumentError(f"Expected at least 2 codes to link, got {n}.")


def _require_alike(known: TwoReleases) -> None:
    if known.codes.shape != known.other.shape:
        raise ArgumentError(
            f"Expected two releases of one architecture, got codes {known.codes.shape} and "
            f"{known.other.shape}."
        )
    _require_two(min(known.codes.n_records, known.other.n_records))
