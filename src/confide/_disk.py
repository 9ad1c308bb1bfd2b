"""What disks do to audit folders: errors in one form, and what was lost."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from confide.errors import ConfideError, FolderError, StoreError

REMEDY = "restore the folder from a copy, or audit again with another --out."
_MOST_CHUNKS = 10**6
"""Of a model; one of billions of records has fewer."""
_AT_ONCE = 16
"""Chunks that are read together."""
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
    read : read every chunk, a few at a time, or else look only whether it is there

    Raises
    ------
    FolderError : the array is of another number of models, or cannot be opened
    StoreError : the object store that holds it does not answer
    """
    array, done = folder.array(name), folder.done
    if array.shape[0] != len(done):
        raise FolderError(
            f"{folder.signals}/{name} holds {array.shape[0]} models, the manifest "
            f"{len(done)}; {REMEDY}"
        )
    if array.chunks_per_model > _MOST_CHUNKS:
        raise FolderError(
            f"{folder.signals}/{name}/zarr.json is damaged, it says that a model "
            f"has {array.chunks_per_model:,} chunks; {REMEDY}"
        )
    there = folder.signals.there(name)
    for model in range(len(done)):
        if not (done.any() if name == "membership" else done[model]):
            continue
        for number, what in _faults(array, there, model, read=read):
            first = number * array.records_per_chunk
            last = min(first + array.records_per_chunk, array.shape[1]) - 1
            yield LostChunk(array=name, model=model, first=first, last=last, what=what)


def _faults(
    array: Any, there: Callable[[str], bool], model: int, *, read: bool
) -> Iterator[tuple[int, Fault]]:
    """The numbers of the chunks of a model that cannot be read back, and why."""
    for first in range(0, array.chunks_per_model, _AT_ONCE):
        numbers = range(first, min(first + _AT_ONCE, array.chunks_per_model))
        found: dict[int, Fault] = {
            number: "missing" for number in numbers if not there(array.key(model, number))
        }
        if read and _fault(array, model, numbers):
            for number in numbers:
                if number not in found and (
                    what := _fault(array, model, range(number, number + 1))
                ):
                    found[number] = what
        yield from sorted(found.items())


def _fault(array: Any, model: int, numbers: range) -> Fault | None:
    """What is wrong with some chunks that follow one another, if anything is."""
    rows = array.records_per_chunk
    try:
        array[model, numbers.start * rows : numbers.stop * rows]
    except StoreError:
        raise  # that nobody answers says nothing of a chunk
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
    for name in folder.signals.names():
        # Membership is not drawn here; it is refused where it is read.
        for one in lost_chunks(folder, name) if name != "membership" else ():
            if one.what == "unreadable":
                raise FolderError(
                    f"The system refuses to read {folder.signals}/{name}, model "
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
