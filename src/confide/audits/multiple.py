"""Corrections for many tests."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def benjamini_hochberg(p: Floats) -> Floats:
    """q-values: the smallest false discovery rate at which each test is rejected.

    `p` (n,) p-values -> (n,) q-values.  Benjamini and Hochberg, J. R. Stat. Soc. B 57 (1995)
    289-300.  Exact control needs independence or positive dependence between tests.

    >>> benjamini_hochberg(np.array([0.01, 0.04, 0.03])).round(4).tolist()
    [0.03, 0.04, 0.04]
    """
    n = len(p)
    order = np.argsort(p)[::-1]
    scaled = p[order] * n / np.arange(n, 0, -1)
    q = np.empty(n)
    q[order] = np.minimum(np.minimum.accumulate(scaled), 1.0)
    return q


def holm(p: Floats) -> Floats:
    """Adjusted p-values that control the chance of any false rejection.

    `p` (n,) -> (n,).  Holm, Scand. J. Stat. 6 (1979) 65-70; valid under any dependence.

    >>> holm(np.array([0.01, 0.04, 0.03])).round(4).tolist()
    [0.03, 0.06, 0.06]
    """
    n = len(p)
    order = np.argsort(p)
    scaled = p[order] * np.arange(n, 0, -1)
    adjusted = np.empty(n)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted
