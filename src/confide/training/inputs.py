"""Records as a classifier of codes reads them: batch by batch, in memory or from a release."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from confide.errors import ArgumentError

Rows = NDArray[np.intp]

_TYPES = (np.float32, np.float16, np.uint8)
_BUDGET = 8 * 2**30  # bytes


class Inputs(ABC):
    """Codes, images or signals of some records.

    Attributes
    ----------
    shape : of one record
    device : where batches are put
    """

    shape: tuple[int, ...]
    device: torch.device

    @abstractmethod
    def __len__(self) -> int:
        """Number of records."""

    @abstractmethod
    def batch(self, rows: Rows) -> Tensor:
        """(len(rows), *shape) float32 on the device; rows in any order, repeated or not."""

    def batches(self, parts: Iterable[Rows]) -> Iterator[Tensor]:
        """One batch for each of `parts`."""
        for rows in parts:
            yield self.batch(rows)


class ArrayInputs(Inputs):
    """Records in memory.

    Parameters
    ----------
    array : (n, ...) float32 or float16 of codes and signals, or uint8 of images; not copied on the
        CPU where torch can share its memory
    device : where batches are put
    mean, scale : (channels,) of images or signals; batches are (x - mean) / scale
    budget : bytes that may lie on a device other than the CPU; a larger array stays in the memory
        of the host, and each batch is moved

    Raises
    ------
    ArgumentError : another type, no records, or mean and scale that do not fit
    """

    def __init__(
        self,
        array: NDArray[Any],
        device: torch.device,
        *,
        mean: NDArray[Any] | None = None,
        scale: NDArray[Any] | None = None,
        budget: int = _BUDGET,
    ) -> None:
        if array.dtype not in _TYPES or array.ndim < 2 or 0 in array.shape:
            raise ArgumentError(
                "Expected records as an array (n, ...) of float32, float16 or uint8, none of them "
                f"empty, got {array.dtype} {array.shape}."
            )
        shareable = array.flags.writeable and array.flags.c_contiguous
        data = torch.from_numpy(array if shareable else array.copy(order="C"))
        self._data = data.to(device) if array.nbytes <= budget else data
        self.shape = tuple(array.shape[1:])
        self.device = device
        self._mean = self._per_channel("mean", mean)
        self._scale = self._per_channel("scale", scale)

    def _per_channel(self, name: str, values: NDArray[Any] | None) -> Tensor | None:
        if values is None:
            return None
        values = np.asarray(values, dtype=np.float32)
        positive = name == "mean" or (values > 0).all()
        if values.shape != self.shape[:1] or not np.isfinite(values).all() or not positive:
            raise ArgumentError(
                f"Expected {name} as {self.shape[0]} finite numbers, one a channel"
                f"{'' if name == 'mean' else ', above 0'}, got {values.tolist()}."
            )
        return torch.from_numpy(values).to(self.device).view(-1, *[1] * (len(self.shape) - 1))

    def __len__(self) -> int:
        """Number of records."""
        return len(self._data)

    def batch(self, rows: Rows) -> Tensor:
        """See :meth:`Inputs.batch`."""
        index = torch.from_numpy(np.ascontiguousarray(rows, dtype=np.int64)).to(self._data.device)
        x = self._data.index_select(0, index).to(self.device).float()
        if self._mean is not None:
            x = x.sub_(self._mean)
        if self._scale is not None:
            x = x.div_(self._scale)
        return x


class StreamInputs(Inputs):
    """Records that are read when they are needed, the next batch while one is computed with.

    Parameters
    ----------
    read : row numbers (k,) int -> (k, *shape) float32; called from another thread, one at a time
    n : number of records
    shape : of one record
    device : where batches are put
    """

    def __init__(
        self,
        read: Callable[[Rows], NDArray[np.float32]],
        n: int,
        shape: tuple[int, ...],
        device: torch.device,
    ) -> None:
        self._read, self._n = read, n
        self.shape, self.device = tuple(shape), device

    def __len__(self) -> int:
        """Number of records."""
        return self._n

    def batch(self, rows: Rows) -> Tensor:
        """See :meth:`Inputs.batch`.

        Raises
        ------
        ArgumentError : what was read has another shape or type
        """
        return self._moved(self._checked(rows))

    def batches(self, parts: Iterable[Rows]) -> Iterator[Tensor]:
        """See :meth:`Inputs.batches`; an error of `read` comes up at its batch."""
        with ThreadPoolExecutor(max_workers=1) as reader:
            ahead: Future[NDArray[np.float32]] | None = None
            for rows in parts:
                following = reader.submit(self._checked, rows)
                if ahead is not None:
                    yield self._moved(ahead.result())
                ahead = following
            if ahead is not None:
                yield self._moved(ahead.result())

    def _checked(self, rows: Rows) -> NDArray[np.float32]:
        values = self._read(rows)
        wanted = (len(rows), *self.shape)
        if values.shape != wanted or values.dtype != np.float32:
            raise ArgumentError(
                f"Expected records read as float32 {wanted}, got {values.dtype} {values.shape}."
            )
        return values

    def _moved(self, values: NDArray[np.float32]) -> Tensor:
        shareable = values.flags.writeable and values.flags.c_contiguous
        return torch.from_numpy(values if shareable else values.copy(order="C")).to(self.device)


class MappedInputs(Inputs):
    """Records that are made of others, batch by batch.

    Parameters
    ----------
    inner : the others
    change : (row numbers, their batch) -> (len(rows), *shape) float32 on the same device
    shape : of one record after it
    """

    def __init__(
        self, inner: Inputs, change: Callable[[Rows, Tensor], Tensor], shape: tuple[int, ...]
    ) -> None:
        self._inner, self._change = inner, change
        self.shape, self.device = tuple(shape), inner.device

    def __len__(self) -> int:
        """Number of records."""
        return len(self._inner)

    @torch.no_grad()
    def batch(self, rows: Rows) -> Tensor:
        """See :meth:`Inputs.batch`."""
        return self._change(rows, self._inner.batch(rows))
