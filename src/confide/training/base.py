"""What a trainer is: fit models on some records, return logits for all of them.

The one contract between an audit and whatever trains.  A new trainer subclasses :class:`Trainer`;
a function of one's own becomes one through :class:`FunctionTrainer`.
"""

from __future__ import annotations

import copy
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from confide.errors import ArgumentError, ConfideError, TrainingError

_EXPECTED = "expected fit(train, query, seed) -> logits of the records in query"


@dataclass(frozen=True, kw_only=True, eq=False)
class Fit:
    """What came of training some models.

    Attributes
    ----------
    logits : see :meth:`Trainer.fit`
    trace : see :meth:`Trainer.fit_traced`
    epochs : (n,) int64 epoch, counted from 1, whose weights each model kept; None where all models
        kept the last
    """

    logits: NDArray[np.float32]
    trace: NDArray[np.float32] | None = None
    epochs: NDArray[np.int64] | None = None


class Trainer(ABC):
    """Trains models that differ in their members and their seed, and in nothing else.

    Attributes
    ----------
    models_at_once : how many models one call of `fit` takes at most
    keeps_traces : whether `fit_traced` returns ranges of loss traces
    logits_shape : (n_views, n_classes) of the logits of `fit`; None where a model has to be
        trained to know
    privacy : what differential privacy the training guarantees, as
        :func:`confide.training.accounting.account` says it; None where it claims none
    """

    models_at_once: int = 1
    keeps_traces: bool = False
    logits_shape: tuple[int, int] | None = None
    privacy: dict[str, Any] | None = None

    @abstractmethod
    def fit(self, members: NDArray[np.bool_], seeds: Sequence[int]) -> NDArray[np.float32]:
        """Train one model a row of `members`.

        Parameters
        ----------
        members : (n, n_records) bool, n <= models_at_once; the training records of each model
        seeds : n integers in [0, 2**63); a model depends on its row and its seed alone

        Returns
        -------
        (n, n_records + n_heldout, n_views, n_classes) float32 logits of every record that the
        trainer knows, members or not, followed by the held-out records; n_classes = 1 for a
        binary task
        """

    def fit_traced(
        self, members: NDArray[np.bool_], seeds: Sequence[int]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """The logits of `fit`, and how far the losses of the records moved in training.

        Returns
        -------
        logits : see `fit`
        trace : (n, n_records) inter-quartile range over the epochs of the loss of each record,
            members or not, NaN where no label is known; None where `keeps_traces` is false
        """
        return self.fit(members, seeds), None

    def fit_whole(self, members: NDArray[np.bool_], seeds: Sequence[int]) -> Fit:
        """All that is kept of a training; what an audit calls."""
        logits, trace = self.fit_traced(members, seeds)
        return Fit(logits=logits, trace=trace)

    def describe(self) -> dict[str, Any]:
        """JSON-able settings that change the answer; kept in the manifest, compared on resume."""
        return {"trainer": type(self).__name__}


class FunctionTrainer(Trainer):
    """A trainer made of one function of your own.

    Parameters
    ----------
    function : called as ``function(train, query, seed)``: fit a new model on the records `train`,
        return the logits of the records `query`, in that order.  Both are (n,) int64 row numbers
        of the cohort that was given to :func:`confide.run`; `query` holds all records, those that
        were trained on too, and `seed` is an integer in [0, 2**32).

        Logits are (n_query, n_classes) or (n_query, n_views, n_classes), an array or a torch
        tensor on any device; probabilities are refused where they look like it.  A binary task has
        one logit, that of the second class against the first; (n_query,) will do, and of two
        columns the difference is taken.

        The older form ``function(train, seed)``, with an integer seed in [0, 2**63), returns
        logits of all audited records followed by the held-out ones, in their order.
    name : what the manifest calls it; a resumed run refuses another name

    Raises
    ------
    ArgumentError : a function that takes neither three arguments nor two
    """

    def __init__(self, function: Callable[..., Any], name: str | None = None) -> None:
        self._function = function
        self._name = name or str(getattr(function, "__qualname__", type(function).__name__))
        self._takes_query = _takes_query(function, self._name)
        self._rows: NDArray[np.int64] | None = None
        self._n_logits: int | None = None

    def bound(self, rows: NDArray[np.int64], n_logits: int) -> Self:
        """The same trainer, told which records there are.

        Parameters
        ----------
        rows : (n_all,) row numbers by which the function knows the audited records, followed by
            the held-out ones
        n_logits : logits a record

        Raises
        ------
        ArgumentError : other rows than 0, 1, 2, ... and a function that takes no `query`
        """
        if not self._takes_query and not np.array_equal(rows, np.arange(len(rows))):
            raise ArgumentError(
                f"{self._name} takes (train, seed) and so cannot be told which records are held "
                f"out; {_EXPECTED}."
            )
        other = copy.copy(self)
        other._rows, other._n_logits = rows, n_logits
        return other

    def fit(self, members: NDArray[np.bool_], seeds: Sequence[int]) -> NDArray[np.float32]:
        """See :meth:`Trainer.fit`; models are trained one after the other."""
        one = self._asked if self._takes_query else self._unasked
        results = [one(row, int(seed)) for row, seed in zip(members, seeds, strict=True)]
        return np.stack(results)

    def _asked(self, row: NDArray[np.bool_], seed: int) -> NDArray[np.float32]:
        rows = np.arange(len(row)) if self._rows is None else self._rows
        # The function may do with its arguments what it likes.
        logits = self._called(rows[: len(row)][row], rows.copy(), seed % 2**32)
        got = logits.shape
        n = self._n_logits or (got[-1] if len(got) > 1 else 1)
        if logits.ndim == 1:
            logits = logits[:, None]
        if logits.ndim == 2:
            logits = logits[:, None, :]
        pair = n == 1 and got[-1:] == (2,) and len(got) > 1
        last = 2 if pair else n
        if logits.ndim != 3 or not logits.size or logits.shape[::2] != (len(rows), last):
            raise TrainingError(
                f"{self._name} returned an array of shape {got} for the {len(rows)} records of "
                f"query; expected ({len(rows)}, {n}) or ({len(rows)}, n_views, {n})."
            )
        if _like_probabilities(logits):
            raise TrainingError(
                f"{self._name} returned numbers between 0 and 1, as probabilities or classes are; "
                "return logits, such as those of decision_function or the output of a network "
                "without its last sigmoid or softmax, or logarithms of probabilities (of a binary "
                "task both columns), clipped so that none is 0."
            )
        return logits[..., 1:] - logits[..., :1] if pair else logits

    def _unasked(self, row: NDArray[np.bool_], seed: int) -> NDArray[np.float32]:
        logits = self._called(np.flatnonzero(row), seed)
        if logits.ndim == 2:
            logits = logits[:, None, :]
        if logits.ndim != 3:
            raise TrainingError(
                f"{self._name} returned an array of shape {logits.shape}; expected "
                "(n_all, n_classes) or (n_all, n_views, n_classes)."
            )
        return logits

    def _called(self, *arguments: Any) -> NDArray[np.float32]:
        try:
            returned = self._function(*arguments)
        except ConfideError:
            raise
        except Exception as error:
            raise TrainingError(
                f"{self._name} raised {type(error).__name__}: {str(error).rstrip('.')}."
            ) from error
        if returned is None:
            raise TrainingError(f"{self._name} returned nothing; {_EXPECTED}.")
        if hasattr(returned, "detach"):  # a torch tensor, which need not be known here
            returned = returned.detach().cpu().float()
        try:
            return np.asarray(returned, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise TrainingError(
                f"{self._name} returned {type(returned).__name__}, not an array of numbers: "
                f"{error}."
            ) from error

    def describe(self) -> dict[str, Any]:
        """See :meth:`Trainer.describe`."""
        return {"trainer": self._name}


def _takes_query(function: Callable[..., Any], name: str) -> bool:
    """Whether it takes (train, query, seed), and not (train, seed)."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"The arguments of {name} cannot be read; {_EXPECTED}.") from error
    needed = [p for p in parameters if p.default is p.empty]
    by_place = [p for p in needed if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    by_name = [p for p in needed if p.kind is p.KEYWORD_ONLY]
    if by_name or len(by_place) not in (2, 3):
        names = ", ".join(p.name for p in needed)
        raise ArgumentError(f"{name} takes ({names}); {_EXPECTED}.")
    return len(by_place) == 3


def _like_probabilities(logits: NDArray[np.float32]) -> bool:
    """Numbers from 0 to 1 that add up to 1, or that come near to both ends."""
    low, high = float(logits.min()), float(logits.max())
    if not 0 <= low <= high <= 1:  # nor where one is not a number
        return False
    adds_up = bool(np.allclose(logits.sum(axis=-1), 1, atol=1e-3))
    return (logits.shape[-1] > 1 and adds_up) or (low < 0.05 and high > 0.95)
