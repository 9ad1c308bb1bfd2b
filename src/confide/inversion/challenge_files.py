"""Files of a challenge, which may come from anybody: arrays, JSON and the names in them.

Nothing is unpickled, no link is followed, and no size that a file states is believed.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import stat
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from confide.errors import FolderError, MissingFileError, ReleaseError, TableError
from confide.inversion.base import Floats
from confide.stores import disk_errors, write_bytes

_LARGEST_JSON = 256_000_000
_LARGEST_HEADER = 4096
_HEADER = re.compile(
    rb"\{\s*'descr'\s*:\s*'([!-&(-~]{1,40})'\s*,\s*'fortran_order'\s*:\s*(True|False)\s*,"
    rb"\s*'shape'\s*:\s*\((\s*(?:[0-9]{1,18}\s*,\s*)*(?:[0-9]{1,18}\s*)?)\)\s*,?\s*\}\s*"
)
_FLOATS = np.dtype("<f4")
MEANS_OF_ORIGINAL = "image_means.npy"
"""A pickle that the authors' code leaves among the codes, under the name of an array."""


def write_array(path: Path, values: Floats) -> None:
    """Write a .npy file whole or not at all."""
    buffer = BytesIO()
    np.save(buffer, np.ascontiguousarray(values, dtype=_FLOATS), allow_pickle=False)
    write_bytes(path, buffer.getvalue())


def read_array(path: Path, n_axes: tuple[int, ...]) -> Floats:
    """A .npy file of float32 numbers.

    Parameters
    ----------
    n_axes : numbers of axes that it may have

    Raises
    ------
    MissingFileError : it is not there
    ReleaseError : it is a link, no array of float32, of other axes, damaged, or not finite
    """
    raw = _bytes(path)
    descr, by_column, shape, start = _header(path, raw)
    if descr != _FLOATS.str:
        raise ReleaseError(f"{path} holds {descr!r:.40}, expected float32 ({_FLOATS.str}).")
    if len(shape) not in n_axes or min(shape, default=0) < 1:
        wanted = " or ".join("[P, C]" if n == 2 else "[C]" for n in n_axes)
        raise ReleaseError(f"{path} has shape {shape}, expected {wanted}.")
    size = _FLOATS.itemsize * math.prod(shape)
    if size != len(raw) - start:
        raise ReleaseError(
            f"{path} holds {len(raw) - start:,} bytes of numbers, its header states {size:,}; it "
            "is damaged, get it from a copy."
        )
    values = np.frombuffer(raw, dtype=_FLOATS, offset=start)
    values = values.reshape(shape, order="F" if by_column else "C")
    if not np.isfinite(values).all():
        raise ReleaseError(f"{path} holds numbers that are not finite.")
    return np.ascontiguousarray(values, dtype=np.float32)


def _header(path: Path, raw: bytes) -> tuple[str, bool, tuple[int, ...], int]:
    """Type, order by column, shape and first byte of the numbers of a .npy file.

    Read here because NumPy's reader evaluates the header as Python.
    """
    length = {b"\x01\x00": 2, b"\x02\x00": 4, b"\x03\x00": 4}.get(raw[6:8], 0)
    start = 8 + length
    stop = start + int.from_bytes(raw[8:start], "little")
    found = None
    if length and raw.startswith(b"\x93NUMPY") and stop <= min(len(raw), start + _LARGEST_HEADER):
        found = _HEADER.fullmatch(raw[start:stop])
    if found is None:
        raise ReleaseError(f"{path} is no .npy file of numbers; get it from a copy.")
    descr, order, sides = (part.decode("ascii") for part in found.groups())
    shape = tuple(int(side) for side in sides.split(",") if side.strip())
    return descr, order == "True", shape, stop


def mean_row(path: Path, width: int | None = None) -> Floats:
    """The mean row of a code [P, C], or a mean row [C] as it is."""
    values = read_array(path, n_axes=(1, 2))
    row = values if values.ndim == 1 else values.mean(axis=0, dtype=np.float64)
    if width is not None and len(row) != width:
        raise ReleaseError(f"{path} holds rows of {len(row)} numbers, expected {width}.")
    return np.asarray(row, dtype=np.float32)


def read_texts(path: Path) -> tuple[str, ...]:
    """A JSON list of strings, each of them once.

    Raises
    ------
    MissingFileError, ReleaseError, TableError : it is missing, unreadable, or holds other things
    """
    content = _json(path)
    if not isinstance(content, list):
        raise TableError(f"{path} holds a {_kind(content)}, expected a list of strings.")
    for i, one in enumerate(content):
        if not isinstance(one, str) or not one:
            raise TableError(f"{path}: entry {i} is {one!r:.80}, expected a string.")
    return _once(path, content)


def read_pairs(path: Path) -> dict[str, str]:
    """A JSON object of strings by string, each key once; raises as :func:`read_texts`."""
    content = _json(path)
    if not isinstance(content, dict):
        raise TableError(f"{path} holds a {_kind(content)}, expected an object of strings.")
    for key, value in content.items():
        if not key or not isinstance(value, str) or not value:
            raise TableError(f"{path}: {key!r:.80} is {value!r:.80}, expected a string.")
    return content


def named(name: str) -> bool:
    """Whether it can be the name of a file: not too long, and nothing in it that is not shown."""
    return len(name) <= 255 and name.isprintable()


def bare(reference: str, path: Path) -> str:
    """The name of the code file that a reference means, whatever the folders before it.

    >>> bare("/data/of/others/private_encoded_dataset/12.npy", Path("predictions.json"))
    '12.npy'

    Raises
    ------
    TableError : it leaves its folder, or is no name of a .npy file; names `path`
    """
    *folders, name = reference.replace("\\", "/").split("/")
    if ".." in folders or not name.endswith(".npy") or name == ".npy" or not named(name):
        raise TableError(
            f"{path}: {reference!r:.120} is not the name of a code file, such as 12.npy, in its "
            "folder."
        )
    return name


def array_names(folder: Path) -> tuple[str, ...]:
    """Names of the .npy files of a folder, those that are numbers in their order.

    Raises
    ------
    MissingFileError : there is no such folder
    ReleaseError : it, or one of the files, is a link, or no file
    """
    if not folder.is_dir():
        raise MissingFileError(
            f"{folder} is missing; is {folder.parent} the folder of a challenge?"
        )
    if folder.is_symlink():
        raise ReleaseError(f"{folder} is a symbolic link; replace it by the folder itself.")
    names = []
    with disk_errors(folder), os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.endswith(".npy") or entry.name == MEANS_OF_ORIGINAL:
                continue
            if not entry.is_file(follow_symlinks=False):
                raise ReleaseError(
                    f"{folder / entry.name} is a link or no file; replace it by one."
                )
            names.append(entry.name)
    return tuple(sorted(names, key=_place))


def fresh_folder(path: Path, mode: int = 0o777) -> None:
    """Make a folder, or take one that is empty."""
    with disk_errors(path):
        path.mkdir(mode=mode, parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise FolderError(f"{path} is not empty; choose another --out.")
        if mode == 0o700:
            path.chmod(mode)


def new_folder(path: Path) -> None:
    with disk_errors(path):
        path.mkdir()


class Names:
    """Images by name: a listed one, with any folders before it, or the end of a listed one."""

    def __init__(self, listed: Iterable[str]) -> None:
        self._listed = {name: name for name in listed}
        self._ends: dict[str, str | None] = {}
        for name in self._listed:
            for end in _ends(name):
                # Of several that end alike none is meant.
                self._ends[end] = None if end in self._ends else name

    def find(self, given: str) -> str | None:
        """The listed name that is meant, None if there is none or more than one."""
        if given in self._listed:
            return given
        if self._ends.get(given):
            return self._ends[given]
        for end in _ends(given):
            if end in self._listed:
                return end
        return None


def _ends(name: str) -> list[str]:
    """'a/b/c' -> ['b/c', 'c']."""
    parts = name.split("/")
    return [end for i in range(1, len(parts)) if (end := "/".join(parts[i:]))]


def _place(name: str) -> tuple[int, int, str]:
    stem = name.removesuffix(".npy")
    is_number = stem.isascii() and stem.isdigit() and len(stem) <= 18
    return (0, int(stem), name) if is_number else (1, 0, name)


def _bytes(path: Path, most: int | None = None) -> bytes:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise MissingFileError(f"{path} is missing.") from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ReleaseError(f"{path} is a symbolic link; replace it by the file.") from None
        raise ReleaseError(f"{path} cannot be read ({error.strerror}).") from None
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        os.close(handle)
        raise ReleaseError(f"{path} is no file.")
    with os.fdopen(handle, "rb") as file:
        if most is not None and status.st_size > most:
            raise ReleaseError(
                f"{path} has {status.st_size:,} bytes, more than the {most:,} that are read."
            )
        return file.read()


def _json(path: Path) -> Any:
    raw = _bytes(path, _LARGEST_JSON)

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        _once(path, [key for key, _ in pairs])
        return dict(pairs)

    try:
        return json.loads(raw.decode("utf-8"), object_pairs_hook=once)
    except TableError:
        raise
    except (ValueError, RecursionError) as error:
        raise ReleaseError(
            f"{path} is not valid JSON ({error!s:.100}); get it from a copy."
        ) from None


def _once(path: Path, values: list[str]) -> tuple[str, ...]:
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise TableError(f"{path} names {value!r:.120} more than once.")
        seen.add(value)
    return tuple(values)


def _kind(content: Any) -> str:
    kinds = {dict: "object", list: "list", str: "string", bool: "truth value", type(None): "null"}
    return kinds.get(type(content), "number")
