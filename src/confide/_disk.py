"""What disks do to audit folders: errors in one form, arrays that notice damage, what was lost."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from confide.errors import ConfideError, FolderError

REMEDY = "restore the folder from a copy, or audit again with another --out."
_MOST_CHUNKS = 10**6
"""Of a model; one of billions of records has fewer."""
Fault = Literal["missing", "damaged", "unreadable"]
"""A chunk is not there, its checksum differs, or the system refuses to read it."""


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full disk or a folder that cannot be used into one clear error."""
    try:
        yield
    except ConfideError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise FolderError(
                f"The disk that holds {path} is full. What was finished is safe: free some space "
                "and run the same command again."
            ) from error
        raise FolderError(
            f"{path} cannot be used ({error.strerror or error}); check that it is a folder, and "
            "its permissions."
        ) from error


class Checked:
    """A Zarr array whose damaged chunks and full disks are errors of this package.

    Parameters
    ----------
    array : one model a row
    path : the audit folder
    """

    def __init__(self, array: Any, path: Path) -> None:
        self._array = array
        self._path = path
        self.shape: tuple[int, ...] = array.shape
        self.dtype: np.dtype[Any] = array.dtype
        self.itemsize: int = array.dtype.itemsize
        self.records_per_chunk: int = math.prod(array.chunks[1:2])
        self.chunks_per_model: int = array.nchunks // array.shape[0]

    def file(self, model: int, number: int) -> Path:
        """Where a model's chunk of that number lies."""
        where = (model, number, *[0] * (len(self.shape) - 2))
        key: str = self._array.metadata.encode_chunk_key(where)
        return self._path / "signals.zarr" / self._array.path / key

    def __getitem__(self, key: Any) -> NDArray[Any]:
        try:
            return np.asarray(self._array[key])
        except (ValueError, RuntimeError) as error:
            _let_reads_end()
            raise FolderError(
                f"A stored chunk of {self._path / 'signals.zarr'}{self._array.name} is damaged "
                f"({' '.join(str(error).split()).rstrip('.')}); {REMEDY}"
            ) from error

    def __setitem__(self, key: Any, value: Any) -> None:
        with disk_errors(self._path):
            self._array[key] = value


@dataclass(frozen=True, kw_only=True)
class LostChunk:
    """A stored chunk that cannot be read back.

    Attributes
    ----------
    array, model : whose it is
    first, last : the records, or patients of membership, that it holds, both included
    what : why it cannot be read
    """

    array: str
    model: int
    first: int
    last: int
    what: Fault


def lost_chunks(folder: Any, name: str, *, read: bool = True) -> Iterator[LostChunk]:
    """The chunks of an array that cannot be read back, of all that should be there.

    Those are the chunks of finished models; of membership, which is written before the first
    model is trained, the chunks of all once one is finished.

    Parameters
    ----------
    folder : a :class:`confide.stores.AuditFolder`
    name : of the array
    read : read every chunk, one at a time, or else look only whether it is there

    Raises
    ------
    FolderError : the array is of another number of models, or cannot be opened
    """
    array, done = folder.array(name), folder.done
    if array.shape[0] != len(done):
        raise FolderError(
            f"{folder.path / 'signals.zarr' / name} holds {array.shape[0]} models, the manifest "
            f"{len(done)}; {REMEDY}"
        )
    if array.chunks_per_model > _MOST_CHUNKS:
        raise FolderError(
            f"{folder.path / 'signals.zarr' / name / 'zarr.json'} is damaged, it says that a model "
            f"has {array.chunks_per_model:,} chunks; {REMEDY}"
        )
    for model in range(len(done)):
        if not (done.any() if name == "membership" else done[model]):
            continue
        for number in range(array.chunks_per_model):
            what = _fault(array, model, number, read=read)
            if what:
                first = number * array.records_per_chunk
                last = min(first + array.records_per_chunk, array.shape[1]) - 1
                yield LostChunk(array=name, model=model, first=first, last=last, what=what)


def _fault(array: Any, model: int, number: int, *, read: bool) -> Fault | None:
    if not array.file(model, number).is_file():
        return "missing"
    if not read:
        return None
    first = number * array.records_per_chunk
    try:
        array[model, first : first + array.records_per_chunk]
    except FolderError:
        return "damaged"
    except OSError:
        return "unreadable"
    return None


def forget_lost(folder: Any) -> None:
    """Count models whose signals were lost as unfinished, so that they are trained again.

    Only in a folder of models that are trained here: what was read from others can be read into
    another one.  The manifest is changed, and not saved.

    Raises
    ------
    FolderError : the system refuses to read a chunk, which says nothing of what is in it
    """
    manifest = folder.manifest
    if "source" in manifest:
        return
    if cohort_is_as_written(folder) is False:
        (folder.path / "cohort.parquet").unlink(missing_ok=True)  # whoever trains writes it
    lost = set()
    for name in array_names(folder.path):
        # Membership is not drawn here; it is refused where it is read.
        for one in lost_chunks(folder, name) if name != "membership" else ():
            if one.what == "unreadable":
                raise FolderError(
                    f"The system refuses to read {folder.path / 'signals.zarr' / name}, model "
                    f"{one.model}; check its permissions and the disk."
                )
            lost.add(one.model)
    if not lost:
        return
    for model in lost:
        manifest["models"][model] = "pending"
    if isinstance(until := manifest.get("until"), dict):
        # It goes on, and stops where it did.
        manifest["until"] = until | {"stopped_at": None, "why": None}
    warnings.warn(
        f"Signals in {folder.path} are missing or damaged; unfinished again: model "
        f"{', '.join(map(str, sorted(lost)))}.",
        RuntimeWarning,
        stacklevel=2,
    )


def array_names(path: Path) -> list[str]:
    """Names of what signals.zarr of an audit folder holds."""
    return sorted(one.parent.name for one in (path / "signals.zarr").glob("*/zarr.json"))


def cohort_is_as_written(folder: Any) -> bool | None:
    """Whether cohort.parquet has the checksum in the manifest; None where none was kept."""
    kept = folder.manifest.get("cohort_sha256")
    if kept is None:
        return None
    try:
        with (folder.path / "cohort.parquet").open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == kept
    except OSError:
        return False


def _let_reads_end() -> None:
    """Wait for the chunks that Zarr still reads after one of them failed.

    It leaves them behind, and they would complain, in many lines, when the program ends.
    """
    from zarr.core.sync import sync

    async def others() -> None:
        left = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*left, return_exceptions=True)

    sync(others())
