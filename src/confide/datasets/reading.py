"""How images are read: what is decided once, so that later images are read in the same way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np

from confide.errors import ArgumentError, MismatchError

Channels = Literal["auto", 1, 3]


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
