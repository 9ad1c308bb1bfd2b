"""Drawings of chest radiographs.

Only sums, products, quotients and roots are used, which IEEE 754 rounds in one way: the same
numbers give the same pixels on every machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]  # float32 throughout
Numbers = Mapping[str, Array]

TEXTURE = 12
"""Nodes a side of the grid of random numbers that makes the texture of a lung."""


def draw(body: Numbers, view: Numbers, texture: Array, noise: Array) -> NDArray[np.uint8]:
    """Draw one image a row of the arguments; bright is dense, as in a radiograph.

    Lengths are in halves of the image, from -1 (top, left) to 1; densities in shares of white.

    Parameters
    ----------
    body : anatomy of the patient, arrays of shape (n,); see :func:`anatomy`
    view : position and exposure of the image, arrays of shape (n,); see :func:`positions`
    texture : (n, TEXTURE, TEXTURE) in [0, 1]
    noise : (n, height, width), mean 0 and standard deviation 1

    Returns
    -------
    (n, height, width) uint8
    """
    b = {name: values[:, None, None] for name, values in body.items()}
    v = {name: values[:, None, None] for name, values in view.items()}
    x, y = _coordinates(v, noise.shape[1], noise.shape[2])
    x = x / b["width"] - b["curve"] * y * (1 - y * y)
    out = np.abs(x)  # distance from the spine

    torso = _inside(0.34 + 0.66 * _inside(y + 0.86, 0.12) - out, 0.03)
    lung = _lungs(b, x, y, out)
    density = b["tissue"] * torso - 0.36 * lung
    density += 0.1 * lung * (_bilinear(texture, x, y) - 0.5)
    density += b["opaque"] * _blob(x - b["opacity_x"], y - b["opacity_y"], b["opacity_r"])
    density += _bones(b, x, y, out) * torso
    density += _heart(b, x, y, lung)
    density += b["female"] * 0.09 * _blob(out - 0.46, (y - 0.36) * 0.9, np.float32(0.42))
    device = b["pacemaker"] * _pacemaker(x * b["heart_side"], y)
    density = density * (1 - device) + device * 0.98
    value = v["gain"] * density + v["offset"] + v["noise"] * noise
    return np.clip(np.floor(255 * value + np.float32(0.5)), 0, 255).astype(np.uint8)


def anatomy(rng: np.random.Generator, n: int, hard: NDArray[np.bool_]) -> dict[str, Array]:
    """Draw the bodies of n patients; the hard ones have a heart on the right and a bent spine."""

    def between(low: float, high: float) -> NDArray[np.float64]:
        return low + (high - low) * rng.random(n)

    bend = np.where(rng.random(n) < 0.5, -1.0, 1.0)
    body = {
        "width": np.where(hard, between(0.74, 0.82), between(0.88, 1.04)),
        "curve": bend * np.where(hard, between(0.18, 0.3), between(0.0, 0.05)),
        "heart_side": np.where(hard, -1.0, 1.0),
        "heart": between(0.85, 1.25),
        "tissue": between(0.54, 0.66),
        "lung_top": between(-0.84, -0.72),
        "diaphragm_right": between(0.36, 0.52),
        "diaphragm_left": between(0.42, 0.6),
        "rib_spacing": between(0.19, 0.27),
        "rib_phase": between(0.0, 1.0),
        "rib_bend": between(0.35, 0.7),
        "rib_density": between(0.06, 0.12),
        "opacity_x": np.where(rng.random(n) < 0.5, -1.0, 1.0) * between(0.34, 0.62),
        "opacity_y": between(-0.4, 0.2),
        "opacity_r": between(0.2, 0.36),
    }
    return {name: values.astype(np.float32) for name, values in body.items()}


def positions(rng: np.random.Generator, n: int) -> dict[str, Array]:
    """Draw position, exposure and noise of n images."""
    ranges = {
        "shift_x": (-0.05, 0.05),
        "shift_y": (-0.05, 0.05),
        "zoom": (0.95, 1.05),
        "turn": (-0.03, 0.03),  # tangent of half the angle: up to 3.4 degrees
        "gain": (0.88, 1.12),
        "offset": (-0.03, 0.04),
        "noise": (0.015, 0.035),
    }
    return {
        name: (low + (high - low) * rng.random(n)).astype(np.float32)
        for name, (low, high) in ranges.items()
    }


def _coordinates(v: Numbers, height: int, width: int) -> tuple[Array, Array]:
    x = ((2 * np.arange(width, dtype=np.float32) + 1) / width - 1)[None, None, :]
    y = ((2 * np.arange(height, dtype=np.float32) + 1) / height - 1)[None, :, None]
    square = v["turn"] * v["turn"]
    cosine, sine = (1 - square) / (1 + square), 2 * v["turn"] / (1 + square)
    return (
        (cosine * x - sine * y) / v["zoom"] - v["shift_x"],
        (sine * x + cosine * y) / v["zoom"] - v["shift_y"],
    )


def _lungs(b: Numbers, x: Array, y: Array, out: Array) -> Array:
    fall = 1 - np.clip((y - b["lung_top"]) / 1.15, 0, 1)
    half_width = 0.38 * np.sqrt(1 - fall * fall)
    base = np.where(x < 0, b["diaphragm_right"], b["diaphragm_left"])
    dome = base + 1.1 * (out - 0.34) * (out - 0.34)
    field = _inside(half_width - np.abs(out - 0.5), 0.03) * _inside(dome - y, 0.03)
    return field * _inside(y - b["lung_top"], 0.03)


def _bones(b: Numbers, x: Array, y: Array, out: Array) -> Array:
    bend = b["rib_bend"] * out * out
    cage = _inside(0.93 - out, 0.04) * _inside(out - 0.06, 0.03) * _inside(0.62 + bend - y, 0.05)
    back = _wave((y - bend) / b["rib_spacing"] + b["rib_phase"])
    front = _wave((y + 0.7 * out) / (1.4 * b["rib_spacing"]) + b["rib_phase"])
    spine = _inside(0.1 - out, 0.02) * (0.08 + 0.05 * _wave(6 * y))
    collar = _inside(0.045 - np.abs(y + 0.5 + 0.26 * out), 0.02) * _inside(0.85 - out, 0.03)
    collar *= _inside(out - 0.1, 0.02)
    return b["rib_density"] * cage * (back + 0.45 * front) + spine + 0.14 * collar


def _heart(b: Numbers, x: Array, y: Array, lung: Array) -> Array:
    side = b["heart_side"] * x
    across = side - 0.12 - 0.25 * (y - 0.2)
    heart = _inside(b["heart"] * 0.31 - _length(across, 0.95 * (y - 0.2)), 0.03)
    arch = _inside(0.13 - _length(side - 0.08, y + 0.32), 0.03)
    vessels = _blob(np.abs(x) - 0.2, y + 0.05, np.float32(0.26))
    stomach = _blob(side - 0.42, (y - b["diaphragm_left"] - 0.22) * 1.8, np.float32(0.2))
    shadow = np.maximum(np.maximum(heart, arch), 0.45 * vessels)
    return 0.38 * shadow * lung + 0.05 * heart - 0.2 * stomach * (1 - lung)


def _pacemaker(side: Array, y: Array) -> Array:
    can = _inside(0.1 - np.maximum(np.abs(side - 0.52), np.abs(y + 0.42)), 0.02)
    along = np.clip((y + 0.42) / 0.75, 0, 1)
    lead = 0.2 + 0.32 * (1 - along) * (1 - along) - 0.12 * along * (1 - along)
    wire = _inside(0.02 - np.abs(side - lead), 0.015) * (along > 0) * (along < 1)
    return np.maximum(can, wire)


def _inside(distance: Array, blur: float) -> Array:
    """1 where the distance is positive, 0 where negative, smooth between."""
    t = np.clip(distance / np.float32(2 * blur) + np.float32(0.5), 0, 1)
    return t * t * (3 - 2 * t)


def _blob(dx: Array, dy: Array, radius: Array | np.float32) -> Array:
    near = np.clip(1 - (dx * dx + dy * dy) / (radius * radius), 0, 1)
    return near * near


def _wave(phase: Array) -> Array:
    """A smooth bump in each period of 1."""
    return _inside(np.float32(0.2) - np.abs(phase - np.floor(phase) - np.float32(0.5)), 0.12)


def _length(dx: Array, dy: Array) -> Array:
    length: Array = np.sqrt(dx * dx + dy * dy)
    return length


def _bilinear(grid: Array, x: Array, y: Array) -> Array:
    n, last = np.arange(len(grid))[:, None, None], grid.shape[1] - 1
    column = np.clip((x + 1) * np.float32(last / 2), 0, last - np.float32(1e-3))
    row = np.clip((y + 1) * np.float32(last / 2), 0, last - np.float32(1e-3))
    j, i = column.astype(np.intp), row.astype(np.intp)
    s, t = column - j.astype(np.float32), row - i.astype(np.float32)
    top = grid[n, i, j] * (1 - s) + grid[n, i, j + 1] * s
    low = grid[n, i + 1, j] * (1 - s) + grid[n, i + 1, j + 1] * s
    result: Array = top * (1 - t) + low * t
    return result
