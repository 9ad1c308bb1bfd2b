"""What was recovered of a few records, beside the truth, small enough for a report."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from confide.inversion.base import Finding, Maps, Reconstruction
from confide.inversion.scores import Truth

MOST = 6
SIDE = 64
"""Pixels of a side, at most."""


def pictures(finding: Finding, truth: Truth) -> list[dict[str, Any]]:
    """The first records, each {"truth", "recovered"} as rows of numbers from 0 to 1; often none.

    Parameters
    ----------
    finding : of an attack
    truth : of the same codes, in the same order
    """
    n = min(MOST, len(truth.records))
    if isinstance(finding, Maps):
        shape = _grid(truth.records.shape[2:], finding.maps.shape[1])
        if shape is None:
            return []
        true = finding.expected(truth.records[:n]).reshape(n, *shape)
        found = finding.maps[:n].reshape(n, *shape)
    elif isinstance(finding, Reconstruction) and truth.records.ndim == 4:
        true = truth.records[:n, 0].astype(np.float64)
        found = finding.records[:n, 0].astype(np.float64)
    else:
        return []
    return [{"truth": _shown(a), "recovered": _shown(b)} for a, b in zip(true, found, strict=True)]


def _grid(sides: tuple[int, ...], n_patches: int) -> tuple[int, int] | None:
    """Rows and columns of patches; None for signals."""
    if len(sides) != 2:
        return None
    patch = round((sides[0] * sides[1] / n_patches) ** 0.5)
    return sides[0] // patch, sides[1] // patch


def _shown(values: NDArray[Any]) -> list[list[float]]:
    step = -(-max(values.shape) // SIDE)
    values = values[::step, ::step]
    low, high = float(values.min()), float(values.max())
    scaled = (values - low) / ((high - low) or 1.0)
    return np.round(scaled, 3).tolist()
