"""Arrays in .npz and .npy files, opened without holding them in memory.

An array of an .npz file is unpacked into a temporary file without a name, which is gone with the
process; an .npy file is used as it is.  Both are mapped, so that only what is read takes memory.
"""

from __future__ import annotations

import hashlib
import math
import struct
import tempfile
import tokenize
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from confide.errors import ConfideError, ImageError, MissingFileError

MAX_ARRAY_BYTES = 8 * 2**30
"""A larger array is refused before it is read."""

_PIECE = 2**24  # bytes

# What zipfile, zlib and NumPy raise on damaged files.
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    MemoryError,  # a header that nests too deeply
    EOFError,
    IndexError,
    struct.error,
    zlib.error,
    NotImplementedError,  # an unknown compression
    RuntimeError,  # an encrypted file
    tokenize.TokenError,
    zipfile.BadZipFile,
)

Check = Callable[[str, tuple[int, ...], np.dtype[Any]], None]


@dataclass(frozen=True, eq=False)
class Stored:
    """An array on disk, and its name: that of the file, and in an .npz file that of the array."""

    array: NDArray[Any]
    name: tuple[str, ...]

    def mark(self) -> tuple[str, ...]:
        """Values that change with name, type, shape or content; reads the whole array."""
        rows_first = self.array.flags.c_contiguous
        flat = (self.array if rows_first else self.array.T).reshape(-1)
        form = (self.array.dtype.str, str(self.array.shape), "C" if rows_first else "F")
        return (*self.name, *form, hashlib.sha256(flat.view(np.uint8).data).hexdigest())


def open_array(
    path: Path,
    key: str | None,
    check: Check,
    *,
    error: type[ConfideError] = ImageError,
    max_bytes: int = MAX_ARRAY_BYTES,
) -> Stored:
    """Open an array of an .npz or .npy file, recognised by content, for reading.

    Parameters
    ----------
    path : the file
    key : name of the array in an .npz file; None for the first
    check : called with a name for messages, shape and dtype, before anything else is read; raises
        when they do not fit
    error : what is raised
    max_bytes : most bytes that the array may have

    Raises
    ------
    MissingFileError : there is no such file
    error : not such a file, no such array, damaged, or too large
    """
    if not path.is_file():
        raise MissingFileError(f"There is no array {path}; check the path.")
    try:
        with path.open("rb") as file:
            if file.read(6) == b"\x93NUMPY":
                return _from_npy(file, path, key, check, error, max_bytes)
        return _from_npz(path, key, check, error, max_bytes)
    except ConfideError:
        raise
    except _DAMAGED as cause:
        raise error(f"{path} is damaged or not an .npz file ({cause}).") from cause


def _from_npy(
    file: BinaryIO,
    path: Path,
    key: str | None,
    check: Check,
    error: type[ConfideError],
    max_bytes: int,
) -> Stored:
    if key is not None:
        raise error(f"{path} holds one array without a name; leave `array_key` out.")
    file.seek(0)
    header = _header(file, f"The array of {path}", check, error, max_bytes)
    start, size = file.tell(), path.stat().st_size
    if size < start + header.n_bytes:
        raise error(f"{path} is damaged: {size - start:,} of {header.n_bytes:,} bytes are there.")
    return Stored(header.mapped(file, start), (path.name,))


def _from_npz(
    path: Path, key: str | None, check: Check, error: type[ConfideError], max_bytes: int
) -> Stored:
    with zipfile.ZipFile(path) as archive:
        names = [name[:-4] for name in archive.namelist() if name.endswith(".npy")]
        wanted = key if key is not None else (names or [""])[0]
        if wanted not in names:
            known = ", ".join(names) or "none"
            raise error(f"{path} has no array {wanted!r}; its arrays are: {known}.")
        info = archive.getinfo(f"{wanted}.npy")
        with archive.open(info) as member, tempfile.TemporaryFile() as unpacked:
            what = f"Array {wanted!r} of {path}"
            header = _header(member, what, check, error, max_bytes)
            left = header.n_bytes
            while left:
                piece = member.read(min(left, _PIECE))
                if not piece:
                    raise error(f"{path} is damaged: {what} lacks {left:,} bytes.")
                _append(unpacked, piece, what, error)
                left -= len(piece)
            # Reading on checks the checksum too.
            if member.read(1):
                raise error(f"{path} is damaged: {what} is longer than it says.")
            unpacked.flush()
            return Stored(header.mapped(unpacked, 0), (path.name, wanted))


def _append(unpacked: Any, piece: bytes, what: str, error: type[ConfideError]) -> None:
    try:
        unpacked.write(piece)
    except OSError as cause:
        raise error(
            f"{what} cannot be unpacked into {tempfile.gettempdir()} ({cause.strerror}); free "
            "space there, or name another folder in the environment variable TMPDIR."
        ) from cause


@dataclass(frozen=True)
class _Header:
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]

    @property
    def n_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def mapped(self, file: Any, start: int) -> NDArray[Any]:
        order: Any = "F" if self.fortran else "C"
        return np.memmap(file, self.dtype, "r", offset=start, shape=self.shape, order=order)


def _header(
    file: Any, what: str, check: Check, error: type[ConfideError], max_bytes: int
) -> _Header:
    if np.lib.format.read_magic(file) == (1, 0):
        header = _Header(*np.lib.format.read_array_header_1_0(file))
    else:
        header = _Header(*np.lib.format.read_array_header_2_0(file))
    # NumPy lets booleans and negative numbers pass.
    if not all(type(n) is int and n >= 0 for n in header.shape):
        raise error(f"{what} is damaged: its shape is {header.shape}; expected whole numbers.")
    check(what, header.shape, header.dtype)
    if not 0 < header.n_bytes <= max_bytes:
        raise error(f"{what} takes {header.n_bytes:,} bytes; expected 1 to {max_bytes:,}.")
    return header
