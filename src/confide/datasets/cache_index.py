"""The index of a cache of images: how they were read, and of which files; lines of JSON."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from confide.datasets.image_files import DECODING
from confide.datasets.reading import Reading

_FORMAT = 1
_PIECE_BYTES = 2**24
_PIECE_ROWS = 1024
_SETTLED = 2_000_000_000
"""Nanoseconds after which a time tells changes apart: clocks of files tick coarsely."""

_CHECK = b',"check":"%b"}\n'  # the end of a line

_DECODERS = ("confide", "pillow", "pydicom", "pylibjpeg-openjpeg", "pylibjpeg-rle")

Stats = NDArray[np.int64]  # (n, 3): size, time of content, time of inode; in bytes, nanoseconds
File = tuple[int, int, int, str]  # the same, and SHA-256


class Survey(Protocol):
    """What was decided of the images; see :class:`confide.datasets.pixels.Pictures`."""

    @property
    def shape(self) -> tuple[int, int, int]: ...
    @property
    def reading(self) -> Reading: ...
    @property
    def notes(self) -> tuple[str, ...]: ...


class OtherVersionError(Exception):
    """The array was made by other versions; never leaves the cache."""


@dataclass(kw_only=True)
class Index:
    """What the index says, as far as its lines are whole.

    Parameters
    ----------
    shape : of the array
    rows : records in a piece, but the last
    reading, notes : what was decided
    stats : digest of the sizes and times of all files when that was decided; "" if too fresh
    sums : checksum of each piece
    files : by piece, of each file its size, times and SHA-256
    end : bytes of whole lines
    """

    shape: tuple[int, int, int, int]
    rows: int
    reading: Reading
    notes: tuple[str, ...]
    stats: str
    sums: list[str]
    files: list[list[File]]
    end: int = 0

    @classmethod
    def of(cls, decided: Survey, stats: Stats) -> Self:
        rows = _PIECE_BYTES // math.prod(decided.shape)
        return cls(
            shape=(len(stats), *decided.shape),
            rows=max(1, min(rows, _PIECE_ROWS)),
            reading=decided.reading,
            notes=decided.notes,
            stats=digest_of(stats),
            sums=[],
            files=[],
        )

    @property
    def digests(self) -> tuple[str, ...]:
        """(n,) SHA-256 (hex) of the files whose pieces are written."""
        return tuple(file[3] for piece in self.files for file in piece)

    @property
    def noted(self) -> Stats:
        """Sizes and times of the files whose pieces are written."""
        noted = [file[:3] for piece in self.files for file in piece]
        return np.array(noted, dtype=np.int64).reshape(-1, 3)

    @property
    def is_whole(self) -> bool:
        return len(self.sums) == -(-self.shape[0] // self.rows)

    @property
    def header(self) -> bytes:
        """What the array begins with."""
        buffer = io.BytesIO()
        form = {"descr": "|u1", "fortran_order": False, "shape": self.shape}
        np.lib.format.write_array_header_1_0(buffer, form)
        return buffer.getvalue()

    def place(self, piece: int) -> tuple[range, int, int]:
        """Rows of a piece, where it begins in the array, and how long it is, in bytes."""
        row = math.prod(self.shape[1:])
        rows = range(piece * self.rows, min((piece + 1) * self.rows, self.shape[0]))
        return rows, len(self.header) + rows.start * row, len(rows) * row

    def line(self, piece: int) -> bytes:
        """The line of a piece."""
        return _line({"piece": piece, "blake2b": self.sums[piece], "files": self.files[piece]})

    def first_line(self) -> bytes:
        return _line(
            {
                "format": _FORMAT,
                "versions": _versions(),
                "shape": self.shape,
                "rows": self.rows,
                "reading": self.reading.to_json(),
                "notes": self.notes,
                "stats": self.stats,
            }
        )

    @classmethod
    def parse(cls, content: bytes, n: int) -> Self:
        """Raises what damaged lines raise, and :class:`OtherVersionError`."""
        first, *lines = content.splitlines(keepends=True)
        how = _said(first)
        if how["format"] != _FORMAT or how["versions"] != _versions():
            raise OtherVersionError
        index = cls(
            shape=tuple(how["shape"]),
            rows=how["rows"],
            reading=Reading.from_json(how["reading"], "auto"),
            notes=tuple(how["notes"]),
            stats=how["stats"],
            sums=[],
            files=[],
            end=len(first),
        )
        if index.shape[0] != n or not 1 <= index.rows <= _PIECE_ROWS:
            raise ValueError("another shape")
        for line in lines:
            if not line.endswith(b"\n"):  # written when the process was killed
                break
            said = _said(line)
            piece, files = said["piece"], [_file(file) for file in said["files"]]
            if len(files) != len(index.place(piece)[0]):
                raise ValueError("another number of files")
            # A piece that was checked again has a second line.
            index.sums[piece : piece + 1] = [said["blake2b"]]
            index.files[piece : piece + 1] = [files]
            index.end += len(line)
        return index


def files_of(stats: Stats, digests: Sequence[str]) -> list[File]:
    """What is noted of files; times that are too fresh become -1, so that they are hashed again."""
    noted = _settled(stats).tolist()
    return [_file([*times, digest]) for times, digest in zip(noted, digests, strict=True)]


def _file(raw: Sequence[Any]) -> File:
    size, content, inode, digest = raw
    return int(size), int(content), int(inode), str(digest)


def _settled(stats: Stats) -> Stats:
    """Times that are too fresh become -1, which no file has, so that it is hashed again."""
    fresh = stats[:, 1:].max(axis=1) > time.time_ns() - _SETTLED
    result = stats.copy()
    result[fresh, 2] = -1
    return result


def digest_of(stats: Stats) -> str:
    """Of sizes and times of all files; "" when some are too fresh to tell changes apart."""
    fresh = (_settled(stats)[:, 2] == -1).any()
    return "" if fresh else hashlib.sha256(stats.astype("<i8").tobytes()).hexdigest()


def checksum(content: bytes | memoryview) -> str:
    """Of the bytes of a piece, to find damage."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _line(said: dict[str, Any]) -> bytes:
    content = json.dumps(said, separators=(",", ":")).encode()
    return content[:-1] + _CHECK % checksum(content).encode()


def _said(line: bytes) -> dict[str, Any]:
    """The inverse of :func:`_line`; raises ValueError."""
    content = line[: -len(_CHECK % bytes(32))] + b"}"
    said = json.loads(content)
    if not isinstance(said, dict) or line != _line(said):
        raise ValueError("another checksum")
    return said


@functools.cache
def _versions() -> dict[str, str]:
    """Of what decodes: another decoder may give other pixels."""
    from PIL import features

    libjpeg = str(features.version("libjpeg_turbo") or features.version("jpg"))
    found = {"decoding": DECODING, "libjpeg": libjpeg}
    for name in _DECODERS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
