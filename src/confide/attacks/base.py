"""What a membership attack is.

An attack compares what a target model says about a record with what reference models say that
held the record (in) or did not (out).  To add one: subclass :class:`Attack`, write the two
methods, register it in ``confide.attacks.KNOWN``; `threshold.py` is the shortest example.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from confide.errors import ArgumentError

CHUNK_ELEMENTS = 100_000
"""Signals that a streaming attack works on at a time: few enough to stay in a processor's cache."""


class Signals(Protocol):
    """An array of signals, in memory or read from disk as it is sliced.

    Shape (n_models, n_records), (n_models, n_records, n_views) or
    (n_models, n_records, n_views, n_labels); NaN marks an unknown label.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""

    def __getitem__(self, key: Any, /) -> NDArray[np.float64]:
        """Slice as NumPy does; ``signals[:, a:b]`` reads some records of all models."""


class Attack(ABC):
    """Reference signals, their masks and target signals -> scores; higher = more like a member.

    Attributes
    ----------
    name : what a configuration calls it
    reads : "signal", or "trace" for an attack that takes ranges of loss traces in their place
    needs_population : whether it refuses to work without signals of the population
    """

    name: ClassVar[str]
    reads: ClassVar[Literal["signal", "trace"]] = "signal"
    needs_population: ClassVar[bool] = False

    @abstractmethod
    def score(
        self,
        target: NDArray[np.float64],
        references: NDArray[np.float64],
        membership: NDArray[np.bool_],
        population: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
    ) -> NDArray[np.float64]:
        """Score the records of one target model.

        Parameters
        ----------
        target : (n_records[, n_views[, n_labels]]) signals of the target model
        references : (n_models, n_records[, n_views[, n_labels]]) signals of reference models,
            the target not among them
        membership : (n_models, n_records) bool; which reference held which record
        population : signals of records in no training set, of the target (n_population, ...) and
            of the references (n_models, n_population, ...); attacks that need none ignore it

        Returns
        -------
        (n_records,) scores
        """

    @abstractmethod
    def leave_one_out(
        self,
        signals: Signals,
        membership: NDArray[np.bool_],
        population: NDArray[np.float64] | None = None,
    ) -> NDArray[np.float64]:
        """Score all records of every model, each model in turn the target.

        For each target and record the target and one model of the opposite membership (its
        partner, see :class:`~confide.attacks.references.Pairing`) are left out of the references,
        so that the numbers of in and out references are the same whether the target held the
        record or not: with balanced masks the counts would otherwise reveal membership.  Where some
        records are in more models than others, as many in as out references are used.

        Parameters
        ----------
        signals : (n_models, n_records[, n_views[, n_labels]])
        membership : (n_models, n_records) bool
        population : (n_models, n_population[, n_views[, n_labels]]) or None

        Returns
        -------
        (n_models, n_records); NaN where a record has fewer than two models in or two out, or no
        known label
        """


def chunks(signals: Signals) -> Iterator[slice]:
    """Slices of records such that one chunk of all models fits in CHUNK_ELEMENTS."""
    n_models, n_records = signals.shape[:2]
    width = n_models * int(np.prod(signals.shape[2:], dtype=np.int64))
    step = max(1, CHUNK_ELEMENTS // max(width, 1))
    for start in range(0, n_records, step):
        yield slice(start, min(start + step, n_records))


def no_population(attack: Attack) -> ArgumentError:
    """The error of an attack that needs a population and was given none."""
    return ArgumentError(
        f"Attack {attack.name!r} learns from records that no model was trained on, and there are "
        "none; hold some patients out, or leave the attack out."
    )


def check_membership(signals: Signals, membership: NDArray[np.bool_]) -> None:
    """Refuse a mask that does not fit the signals."""
    if membership.dtype != np.bool_ or membership.shape != tuple(signals.shape[:2]):
        raise ArgumentError(
            f"Expected bool membership of shape {tuple(signals.shape[:2])}, got "
            f"{membership.dtype} of shape {membership.shape}."
        )
