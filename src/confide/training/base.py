"""What a trainer is: fit models on some records, return logits for all of them.

The one contract between an audit and whatever trains.  A new trainer subclasses :class:`Trainer`;
a function of one's own becomes one through :class:`FunctionTrainer`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from confide.errors import TrainingError


class Trainer(ABC):
    """Trains models that differ in their members and their seed, and in nothing else.

    Attributes
    ----------
    models_at_once : how many models one call of `fit` takes at most
    keeps_traces : whether `fit_traced` returns ranges of loss traces
    """

    models_at_once: int = 1
    keeps_traces: bool = False

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

    def describe(self) -> dict[str, Any]:
        """JSON-able settings that change the answer; kept in the manifest, compared on resume."""
        return {"trainer": type(self).__name__}


class FunctionTrainer(Trainer):
    """A trainer made of one function of your own.

    Parameters
    ----------
    function : called as ``function(members, seed)`` with the row numbers of the training records
        (int64) and an integer seed; returns logits of shape (n_all, n_classes) or
        (n_all, n_views, n_classes), for the audited records in their order followed by the
        held-out ones
    name : what the manifest calls it; a resumed run refuses another name
    """

    def __init__(
        self, function: Callable[[NDArray[np.int64], int], Any], name: str | None = None
    ) -> None:
        self._function = function
        self._name = name or getattr(function, "__qualname__", type(function).__name__)

    def fit(self, members: NDArray[np.bool_], seeds: Sequence[int]) -> NDArray[np.float32]:
        """See :meth:`Trainer.fit`."""
        results = [
            self._one(np.flatnonzero(row), seed) for row, seed in zip(members, seeds, strict=True)
        ]
        return np.stack(results)

    def _one(self, rows: NDArray[np.int64], seed: int) -> NDArray[np.float32]:
        returned = self._function(rows, seed)
        try:
            logits = np.asarray(returned, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise TrainingError(
                f"{self._name} returned {type(returned).__name__}, not an array of numbers: "
                f"{error}."
            ) from error
        if logits.ndim == 2:
            logits = logits[:, None, :]
        if logits.ndim != 3:
            raise TrainingError(
                f"{self._name} returned an array of shape {logits.shape}; expected "
                "(n_all, n_classes) or (n_all, n_views, n_classes)."
            )
        return logits

    def describe(self) -> dict[str, Any]:
        """See :meth:`Trainer.describe`."""
        return {"trainer": self._name}
