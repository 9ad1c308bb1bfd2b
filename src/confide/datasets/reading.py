"""How images are read: what is decided once, so that later images are read alike; on all cores."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeVar

import numpy as np

from confide.errors import ArgumentError, MismatchError

Channels = Literal["auto", 1, 3]

Progress = Callable[[int, int], None]
"""Called with (images finished, images in all)."""

_Result = TypeVar("_Result")

_AT_ONCE = 32  # rows that a thread takes together, at most
_TRIED = 4  # rows that show how long one takes
_SHORT = 1e-4  # seconds: rows that take less wait for the lock for longer than they work

# Filters of warnings belong to the process: two threads that set them at once would not restore
# them.
_FILTERS = threading.Lock()


def silent(done: int, total: int) -> None:
    """Progress that nobody looks at."""


@dataclass(frozen=True)
class Reading:
    """What images of a set have in common.

    Parameters
    ----------
    scale : factor that brings 16-bit images to 0-255 (exact in float32)
    channels : 1 (grey) or 3 (RGB)
    """

    scale: float
    channels: Literal[1, 3]

    @classmethod
    def of(cls, largest: float | None, coloured: bool) -> Self:
        """Decide from the largest 16-bit value, None without 16-bit images, and whether in colour.

        The scale is that of the bits in use: many have 10 or 12, and would be black if halved.
        """
        top = 2 ** max(8, int(np.ceil(largest or 0)).bit_length()) - 1
        return cls(float(np.float32(255 / top)), 3 if coloured else 1)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any], channels: Channels) -> Self:
        """The inverse of :meth:`to_json`, of values that are not trusted.

        Parameters
        ----------
        raw : the values
        channels : what the settings ask for

        Raises
        ------
        ArgumentError : not what :meth:`to_json` gives
        MismatchError : the settings ask for other channels
        """
        if not isinstance(raw, Mapping) or set(raw) != {"scale", "channels"}:
            raise ArgumentError(
                f"Expected `scale` and `channels` of the images that the key was calibrated with, "
                f"got {raw!r:.80}; use a key that was calibrated with images."
            )
        scale, stored = raw["scale"], raw["channels"]
        # NaN compares false.
        if type(scale) not in (int, float) or not _LEAST <= scale <= 1:
            raise ArgumentError(
                f"Expected a scale of images from {_LEAST:.6f} to 1, got {scale!r:.80}; the "
                "calibration of the key is damaged."
            )
        if type(stored) is not int or stored not in (1, 3):
            raise ArgumentError(
                f"Expected 1 or 3 channels of images, got {stored!r:.80}; the calibration of the "
                "key is damaged."
            )
        if channels not in ("auto", stored):
            raise MismatchError(
                f"The settings ask for channels: {channels}, the key was calibrated with "
                f"channels: {stored}; write channels: {stored}, or auto."
            )
        return cls(float(np.float32(scale)), 1 if stored == 1 else 3)

    @property
    def top(self) -> int:
        """The 16-bit value that becomes 255."""
        return round(255 / self.scale)

    def to_json(self) -> dict[str, Any]:
        """{"scale": float, "channels": 1 or 3}."""
        return {"scale": self.scale, "channels": self.channels}


_LEAST = Reading.of(2**16 - 1, coloured=False).scale


def each(
    function: Callable[[int], _Result], rows: Sequence[int], *, per_core: int = 128
) -> Iterator[_Result]:
    """The results in the order of the rows, computed on all cores, a few at a time.

    Threads serve: Pillow, hashing and the system give up the interpreter's lock while they work.
    Rows that take too little time for that are computed one after the other.

    Parameters
    ----------
    function : row -> result, which should be small
    rows : row numbers
    per_core : rows that are begun before the first result is given, by core

    Raises
    ------
    what `function` raises, for the first row that fails
    """

    def computed(part: Sequence[int]) -> list[_Result]:
        return [function(row) for row in part]

    n_cores = os.cpu_count() or 1
    with _quiet():
        found, short = _tried(function, rows[:_TRIED])
    yield from found
    with ThreadPoolExecutor(n_cores) as pool:
        for start in range(_TRIED, len(rows), per_core * n_cores):
            some = rows[start : start + per_core * n_cores]
            begun = time.perf_counter()
            with _quiet():
                if short:
                    found = computed(some)
                else:
                    step = min(_AT_ONCE, -(-len(some) // (4 * n_cores)))
                    parts = [some[i : i + step] for i in range(0, len(some), step)]
                    found = [one for part in pool.map(computed, parts) for one in part]
            short = short and time.perf_counter() - begun < _SHORT * len(some)
            yield from found


def _tried(function: Callable[[int], _Result], rows: Sequence[int]) -> tuple[list[_Result], bool]:
    """The results, and whether a row takes a short time: the quickest, as the disk may wake up."""
    found, least = [], np.inf
    for row in rows:
        begun = time.perf_counter()
        found.append(function(row))
        least = min(least, time.perf_counter() - begun)
    return found, least < _SHORT


@contextmanager
def _quiet() -> Iterator[None]:
    from PIL import Image

    with _FILTERS, warnings.catch_warnings():
        # Pillow only warns of an image between one and two times its limit of pixels.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        # Metadata that Pillow and pydicom cannot read have no bearing on the pixels.
        warnings.simplefilter("ignore", UserWarning)
        yield
