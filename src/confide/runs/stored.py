"""Signals of an audit folder, read block by block as they are sliced."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from confide.cohort import Task
from confide.errors import SignalError
from confide.signals import signals as to_signals

Floats = NDArray[np.float64]
_BLOCK_BYTES = 256_000_000
"""Signals of all models that are kept in memory, at most (one record, if that is more)."""
_READ_BYTES = 8_000_000
"""Stored values that are turned into signals at a time, at most (one model, if that is more)."""


class _InBlocks(ABC):
    """An array that is read from disk in blocks: some records of all finished models.

    The last block is kept, so that slices that follow one another read and convert each stored
    chunk once.  A slice within a block is a read-only view of it.
    """

    def __init__(self, stored: Any, models: NDArray[np.bool_], shape: tuple[int, ...]) -> None:
        self._stored, self._models = stored, models
        self.shape: tuple[int, ...] = (int(models.sum()), stored.shape[1], *shape)
        width = 8 * self.shape[0] * int(np.prod(shape, dtype=np.int64))
        self._rows = max(1, min(stored.records_per_chunk, _BLOCK_BYTES // max(width, 1)))
        self._kept: tuple[int, Floats] | None = None

    @abstractmethod
    def _convert(self, values: NDArray[Any], records: slice, models: NDArray[np.intp]) -> Floats:
        """Signals of some stored values: of these records of these models."""

    def __getitem__(self, key: Any) -> Floats:
        """``signals[:, a:b]``: all finished models, some records; a step goes forwards."""
        models, records = key
        start, stop, step = records.indices(self.shape[1])
        pieces = []
        for number in range(start // self._rows, max(stop - 1, start) // self._rows + 1):
            low = number * self._rows
            first = start + step * max(0, -((start - low) // step))
            pieces.append(self._block(number)[:, first - low : max(stop - low, 0) : step])
        # Blocks before the last are gone by now, except for these pieces of them.
        result: Floats = pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=1)
        return result[models]

    def _block(self, number: int) -> Floats:
        if self._kept is None or self._kept[0] != number:
            self._kept = None  # two blocks at a time would be twice the memory
            low = number * self._rows
            block = self._read(slice(low, min(low + self._rows, self.shape[1])))
            block.flags.writeable = False
            self._kept = number, block
        return self._kept[1]

    def _read(self, records: slice) -> Floats:
        n_records = max(records.stop - records.start, 0)
        block = np.empty((self.shape[0], n_records, *self.shape[2:]))
        one = n_records * int(np.prod(self._stored.shape[2:], dtype=np.int64))
        at_once = max(1, _READ_BYTES // max(one * self._stored.itemsize, 1))
        done = 0
        for first in range(0, len(self._models), at_once):
            part = slice(first, first + at_once)
            numbers = first + np.flatnonzero(self._models[part])
            if len(numbers):
                values = self._stored[part, records][numbers - first]
                block[done : done + len(numbers)] = self._convert(values, records, numbers)
                done += len(numbers)
        return block


class StoredSignals(_InBlocks):
    """Signals of the finished models, made from stored logits as they are sliced.

    Has the shape of an array (n_models, n_records, n_views[, n_labels]) and holds one block of
    records.

    Parameters
    ----------
    logits : stored (n_all_models, n_records, n_views, n_classes)
    models : (n_all_models,) bool, which are finished
    label, task : of the records, see :class:`confide.Cohort`
    """

    def __init__(
        self, logits: Any, models: NDArray[np.bool_], label: NDArray[Any], task: Task
    ) -> None:
        self._label, self._task = label, task
        labels = logits.shape[3:] if task == "multilabel" else ()
        super().__init__(logits, models, (logits.shape[2], *labels))

    def _convert(self, values: NDArray[Any], records: slice, models: NDArray[np.intp]) -> Floats:
        finite = np.isfinite(values)
        if not finite.all():
            model, record, view, column = (int(i) for i in np.argwhere(~finite)[0])
            raise SignalError(
                f"The stored logit of model {models[model]}, record {records.start + record} "
                f"(view {view}, class {column}) is {values[model, record, view, column]}; every "
                "logit must be finite. Did the training diverge?"
            )
        return to_signals(values, self._label[records], self._task)


class StoredScalars(_InBlocks):
    """Signals that were given ready-made, (n_models, n_records, n_views), or ranges of traces.

    Parameters
    ----------
    values : stored, one row a model
    models : (n_all_models,) bool, which are finished
    """

    def __init__(self, values: Any, models: NDArray[np.bool_]) -> None:
        super().__init__(values, models, values.shape[2:])

    def _convert(self, values: NDArray[Any], records: slice, models: NDArray[np.intp]) -> Floats:
        return values.astype(np.float64, copy=False)


class StoredLogits:
    """Logits of the finished models, read one model at a time: ``logits[i]``.

    Parameters
    ----------
    logits : stored (n_all_models, n_records, n_views, n_classes)
    models : (n_all_models,) bool, which are finished
    """

    def __init__(self, logits: Any, models: NDArray[np.bool_]) -> None:
        self._logits, self._rows = logits, np.flatnonzero(models)
        self.shape: tuple[int, ...] = (len(self._rows), *logits.shape[1:])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, model: int) -> NDArray[Any]:
        """(n_records, n_views, n_classes) of one finished model."""
        return np.asarray(self._logits[int(self._rows[model])])
