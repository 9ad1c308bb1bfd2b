"""Where the arrays of an audit lie: in its folder, or elsewhere; arrays that notice damage."""

from __future__ import annotations

import asyncio
import contextlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from confide._disk import REMEDY, disk_errors
from confide.errors import FolderError

GROUP = "signals.zarr"


class Place(ABC):
    """Where signals.zarr lies; ``str(place)`` is what messages call it."""

    @property
    @abstractmethod
    def store(self) -> Any:
        """What Zarr opens."""

    @abstractmethod
    def require_free(self) -> None:
        """Refuse a place that holds anything, before an audit begins.

        Raises
        ------
        StoreError : it does, or cannot be used
        """

    @abstractmethod
    def claim(self, *, begun: bool) -> None:
        """Take the place for this audit, or find that it was; `begun`: it must have been.

        Raises
        ------
        StoreError : it holds something else
        """

    @abstractmethod
    def has(self, name: str) -> bool:
        """Whether there is an array of that name."""

    @abstractmethod
    def names(self) -> list[str]:
        """Of all arrays, sorted."""

    @abstractmethod
    def there(self, name: str) -> Callable[[str], bool]:
        """Tells whether a chunk of an array is there, by its key; see :meth:`Checked.key`."""

    @abstractmethod
    def reading(self) -> contextlib.AbstractContextManager[None]:
        """Within it, what is not there to be read from is an error of this package."""

    @abstractmethod
    def writing(self) -> contextlib.AbstractContextManager[None]:
        """Within it, what cannot be written to is an error of this package."""


class InFolder(Place):
    """The audit folder itself.

    Parameters
    ----------
    path : the folder
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        return str(self._path / GROUP)

    @property
    def store(self) -> Path:
        return self._path / GROUP

    def require_free(self) -> None:
        """Whoever begins the folder looks."""

    def claim(self, *, begun: bool) -> None:
        """The folder is the audit's own."""

    def has(self, name: str) -> bool:
        return (self.store / name / "zarr.json").is_file()

    def names(self) -> list[str]:
        return sorted(one.parent.name for one in self.store.glob("*/zarr.json"))

    def there(self, name: str) -> Callable[[str], bool]:
        return lambda key: (self.store / name / key).is_file()

    def reading(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()  # an error of the system says more

    def writing(self) -> contextlib.AbstractContextManager[None]:
        return disk_errors(self._path)


class Checked:
    """A Zarr array whose damaged chunks and full disks are errors of this package.

    Parameters
    ----------
    array : one model a row
    place : where it lies
    """

    def __init__(self, array: Any, place: Place) -> None:
        self._array = array
        self._place = place
        self.shape: tuple[int, ...] = array.shape
        self.dtype: np.dtype[Any] = array.dtype
        self.itemsize: int = array.dtype.itemsize
        self.records_per_chunk: int = math.prod(array.chunks[1:2])
        self.chunks_per_model: int = array.nchunks // array.shape[0]

    def key(self, model: int, number: int) -> str:
        """The name of a model's chunk of that number."""
        where = (model, number, *[0] * (len(self.shape) - 2))
        key: str = self._array.metadata.encode_chunk_key(where)
        return key

    def __getitem__(self, key: Any) -> NDArray[Any]:
        try:
            with self._place.reading(), _nothing_left_behind():
                return np.asarray(self._array[key])
        except (ValueError, RuntimeError) as error:
            raise FolderError(
                f"A stored chunk of {self._place}{self._array.name} is damaged "
                f"({' '.join(str(error).split()).rstrip('.')}); {REMEDY}"
            ) from error

    def __setitem__(self, key: Any, value: Any) -> None:
        with self._place.writing(), _nothing_left_behind():
            self._array[key] = value


@contextlib.contextmanager
def _nothing_left_behind() -> Iterator[None]:
    """Wait for the chunks that Zarr still reads or writes after one of them failed.

    It leaves them behind, and they would complain, in many lines, when the program ends.
    """
    try:
        yield
    except Exception:
        from zarr.core.sync import sync

        async def others() -> None:
            left = asyncio.all_tasks() - {asyncio.current_task()}
            await asyncio.gather(*left, return_exceptions=True)

        sync(others())
        raise
