"""The files of a log directory, read as what they are: files that strangers made.

Arrays are mapped, never unpickled, after their header was compared with their size; links are
refused, so that nothing outside of the directory is read.
"""

from __future__ import annotations

import hashlib
import json
import stat
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from tokenize import TokenError
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from confide.errors import MissingFileError, SignalError, TableError

REQUIRED = ("train_logits.npy", "train_labels.npy", "subset_mask.npy")
TEST = ("test_logits.npy", "test_labels.npy")

_BLOCK_BYTES = 16_000_000
_LARGEST_INFO = 16_000_000
_LARGEST_LOGIT = 1e100  # squares of larger numbers overflow
_NO_HEADER = (
    *(ValueError, KeyError, TypeError, SyntaxError, TokenError, OSError, EOFError, Warning),
)
"""How reading a header fails: it is a Python literal, from outside."""

_MAX_SIDE = 1000
"""Most classes, and most views, of a record."""


@dataclass(frozen=True, eq=False)
class LoggedRun:
    """One run of a log directory; its arrays are mapped, not read.

    Attributes
    ----------
    name : of its folder
    logits : (n_records, n_views, n_classes) floating
    labels : (n_records, n_classes) float64 of 1, 0, NaN
    mask : (n_patients,) bool
    test : (logits (n_test, n_views, n_classes), labels (n_test, n_classes)), or None
    info : what info.json says; empty without one
    """

    name: str
    logits: NDArray[Any]
    labels: NDArray[np.float64]
    mask: NDArray[np.bool_]
    test: tuple[NDArray[Any], NDArray[np.float64]] | None
    info: dict[str, Any]


def run_folders(logdir: Path) -> list[Path]:
    """The folders of the runs, by name.

    Raises
    ------
    MissingFileError : no such folder, or none of runs in it
    TableError : a run is a link
    """
    if not logdir.is_dir():
        raise MissingFileError(f"There is no log directory {logdir}; check the path.")
    if (logdir / REQUIRED[0]).exists():
        raise TableError(f"{logdir} is a single run; give the folder of all runs, {logdir.parent}.")
    found = []
    for path in sorted(logdir.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_symlink():
            if path.is_dir():
                raise TableError(f"Run {path} is a link; put the folder itself there.")
        elif path.is_dir():
            found.append(path)
    if not found:
        raise MissingFileError(f"{logdir} holds no folders of runs; check the path.")
    return found


def read_run(folder: Path, n_records: int, n_patients: int) -> LoggedRun:
    """Open one run and check its arrays against the table of records.

    Raises
    ------
    MissingFileError : a required file is not there, or its end is missing
    TableError : a file is no array, or an array of another shape, type or content
    """
    logits = _logits(folder / REQUIRED[0])
    if len(logits) != n_records:
        raise TableError(
            f"{folder / REQUIRED[0]} holds {len(logits):,} records and the table {n_records:,}; "
            "give the table of exactly the records that the runs were trained on, in their order."
        )
    labels = _labels(folder / REQUIRED[1], n_records, logits.shape[-1])
    mask = mapped(folder / REQUIRED[2])
    if mask.dtype != np.bool_ or mask.shape != (n_patients,):
        raise TableError(
            f"{folder / REQUIRED[2]} holds {mask.dtype} of shape {mask.shape}; the table has "
            f"{n_patients:,} patients, so bool of shape ({n_patients},) was expected. Check the "
            "patient column."
        )
    mask = np.array(mask)
    if mask.all() or not mask.any():
        raise TableError(
            f"{folder / REQUIRED[2]} holds {'every' if mask.all() else 'no'} patient; a run is "
            "trained on a part of the patients."
        )
    test = _test(folder, logits.shape[-1])
    return LoggedRun(folder.name, logits, labels, mask, test, _info(folder))


def logits_of(folder: Path, *, test: bool) -> NDArray[Any]:
    """(n_records, n_views, n_classes) logits of a run that was read before, mapped."""
    return _logits(folder / (TEST[0] if test else REQUIRED[0]))


def scan(run: LoggedRun, folder: Path) -> bytes:
    """Read all logits of a run once: refuse those that are not finite, and return a digest.

    The digest covers values, shapes and types of the logits and the mask, not the order in which a
    file stores its axes.

    Raises
    ------
    SignalError : a logit that is not finite; names run, file and record
    """
    digest = hashlib.sha256()
    parts: list[tuple[str, NDArray[Any]]] = [(REQUIRED[0], run.logits)]
    if run.test is not None:
        parts.append((TEST[0], run.test[0]))
    for name, logits in parts:
        digest.update(f"{name} {logits.dtype} {logits.shape}\n".encode())
        for start, block in _blocks(logits):
            bad = ~np.isfinite(block)
            if block.dtype == np.float64:
                bad |= np.abs(block) > _LARGEST_LOGIT
            if bad.any():
                record, view, column = (int(i) for i in np.argwhere(bad)[0])
                raise SignalError(
                    f"{folder / name}: the logit of record {start + record} (view {view}, class "
                    f"{column}) is {block[record, view, column]}; every logit must be finite. Did "
                    "the training diverge?"
                )
            digest.update(block.data)
    digest.update(np.packbits(run.mask).data)
    return digest.digest()


def _blocks(values: NDArray[Any]) -> Iterator[tuple[int, NDArray[Any]]]:
    """Contiguous parts of a mapped array, by records."""
    width = prod(values.shape[1:]) * values.dtype.itemsize
    step = max(1, _BLOCK_BYTES // max(width, 1))
    for start in range(0, len(values), step):
        yield start, np.ascontiguousarray(values[start : start + step])


def _logits(path: Path) -> NDArray[Any]:
    """(n_records, n_views, n_classes), mapped."""
    logits = mapped(path)
    fits = logits.ndim in (2, 3) and logits.dtype.kind == "f"
    if not fits or max(logits.shape[1:]) > _MAX_SIDE:
        raise TableError(
            f"{path} holds {logits.dtype} of shape {logits.shape}; expected floating numbers of "
            "shape (n_records, n_classes) or (n_records, n_views, n_classes), at most "
            f"{_MAX_SIDE} views and classes."
        )
    return logits[:, None, :] if logits.ndim == 2 else logits


def _labels(path: Path, n_records: int, n_classes: int) -> NDArray[np.float64]:
    stored = mapped(path)
    if stored.shape != (n_records, n_classes) or stored.dtype.kind not in "fiub":
        raise TableError(
            f"{path} holds {stored.dtype} of shape {stored.shape}; the logits beside it need "
            f"numbers of shape ({n_records}, {n_classes})."
        )
    labels = np.ascontiguousarray(stored, dtype=np.float64)
    bad = ~(np.isnan(labels) | (labels == 0) | (labels == 1))
    if bad.any():
        record, column = (int(i) for i in np.argwhere(bad)[0])
        raise TableError(
            f"{path}: label {column} of record {record} is {labels[record, column]:g}; expected "
            "1, 0 or NaN for unknown."
        )
    return labels


def _test(folder: Path, n_classes: int) -> tuple[NDArray[Any], NDArray[np.float64]] | None:
    there = [name for name in TEST if (folder / name).exists() or (folder / name).is_symlink()]
    if not there:
        return None
    logits = _logits(folder / TEST[0])
    if logits.shape[-1] != n_classes:
        raise TableError(
            f"{folder / TEST[0]} holds logits of {logits.shape[-1]} classes; those of the training "
            f"records beside it have {n_classes}."
        )
    return logits, _labels(folder / TEST[1], len(logits), n_classes)


def _info(folder: Path) -> dict[str, Any]:
    path = folder / "info.json"
    if not path.exists() and not path.is_symlink():
        return {}
    if _size(path) > _LARGEST_INFO:
        raise TableError(f"{path} is larger than {_LARGEST_INFO:,} bytes; it was not read.")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise MissingFileError(
            f"{path} is not whole JSON ({error}); remove it, it is optional."
        ) from error
    return found if isinstance(found, dict) else {}


def mapped(path: Path) -> NDArray[Any]:
    """Map a .npy array, after comparing its header with the size of the file.

    Raises
    ------
    MissingFileError : it is not there, or its end is missing
    TableError : it is a link, no array, a pickle, or larger than any array of its shape
    """
    size = _size(path)
    with path.open("rb") as file:
        shape, fortran, dtype = _header(path, file)
        if min(shape, default=0) < 1:
            raise TableError(f"{path} holds an array of shape {shape}; it is empty.")
        wanted = file.tell() + prod(shape) * dtype.itemsize
        if size < wanted:
            raise MissingFileError(
                f"{path} is cut short: an array of shape {shape} needs {wanted:,} bytes and it has "
                f"{size:,}. Was the run killed while it saved?"
            )
        if size > wanted:
            raise TableError(
                f"{path} has {size:,} bytes and an array of shape {shape} needs {wanted:,}; it is "
                "not what its header says."
            )
        return np.memmap(
            file,
            mode="r",
            dtype=dtype,
            shape=shape,
            offset=file.tell(),
            order="F" if fortran else "C",
        ).view(np.ndarray)


def _header(path: Path, file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    start = file.read(2)
    if start[:1] == b"\x80" or start == b"PK":
        kind = "a pickle" if start[:1] == b"\x80" else "an .npz archive"
        raise TableError(f"{path} is {kind} in place of an array; it was not read.")
    file.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a header that needs repair is not trusted
            version = np.lib.format.read_magic(file)
            read = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, fortran, dtype = read(file)
    except _NO_HEADER as error:
        raise TableError(f"{path} is no .npy array ({_first(error)}).") from error
    except (MemoryError, RecursionError) as error:
        raise TableError(f"{path} is no .npy array (its header is too deep).") from error
    if dtype.hasobject:
        raise TableError(
            f"{path} holds Python objects, a pickle in place of an array; it was not read."
        )
    if dtype.kind not in "fiub" or dtype.itemsize > 8:
        raise TableError(f"{path} holds {dtype}; expected numbers of at most 64 bits, or bool.")
    return shape, fortran, dtype


def _size(path: Path) -> int:
    """Bytes of a plain file; anything else is refused before it is opened."""
    try:
        found = path.lstat()
    except OSError as error:
        raise MissingFileError(f"{path} is missing; the run is not complete.") from error
    if not stat.S_ISREG(found.st_mode):
        raise TableError(f"{path} is a link, or no plain file; put the file itself there.")
    return found.st_size


def _first(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")[:120]
