"""Shifts and variances of records, shrunken to smooth curves of difficulty.

With few references the shift (mean in minus mean out) and the variance of one record are noisy, but
over records both follow smooth curves of its middle, the mean of the two means: how well models do
on the record.  Each record's value is shrunken to the curve by empirical Bayes, as far as its noise
asks for it.  Normal means with a regression: Efron and Morris, J. Am. Stat. Assoc. 70 (1975);
log-variances: Smyth, Stat. Appl. Genet. Mol. Biol. 3 (2004), section 6.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma, polygamma

Floats = NDArray[np.float64]


def smooth(x: Floats, y: Floats, weight: Floats, n_bins: int = 20) -> Floats:
    """A smooth curve of y over x, at each x: weighted means of quantile bins, joined by lines.

    All arrays (n,), finite.  Values of no weight do not count.  Bins hold about equally many
    values; their means are averaged with their neighbours' (1/4, 1/2, 1/4).  Zero where nothing
    has weight.
    """
    edges = np.unique(np.quantile(x, np.linspace(0.0, 1.0, n_bins + 1)[1:-1]))
    bins = np.searchsorted(edges, x, side="right")
    total = np.bincount(bins, weight, len(edges) + 1)
    filled = total > 0
    if not filled.any():
        return np.zeros_like(x)
    at = np.bincount(bins, weight * x, len(edges) + 1)[filled] / total[filled]
    level = np.bincount(bins, weight * y, len(edges) + 1)[filled] / total[filled]
    if len(level) > 2:
        level[1:-1] = 0.25 * level[:-2] + 0.5 * level[1:-1] + 0.25 * level[2:]
    return np.interp(x, at, level)


def shrunken_variance(variance: Floats, dof: Floats, difficulty: Floats) -> Floats:
    """Variances shrunken on the log scale to their curve over difficulty.

    Parameters
    ----------
    variance : (n,) unbiased; of no account where dof is 0
    dof : (n,) degrees of freedom
    difficulty : (n,)

    Returns
    -------
    (n,) positive; 1 everywhere if no variance is known
    """
    known = (dof > 0) & (variance > 0)
    if not known.any():
        return np.ones_like(variance)
    few, which = np.unique(np.maximum(dof, 1.0), return_inverse=True)
    offset, noise = (np.log(few / 2.0) - digamma(few / 2.0))[which], polygamma(1, few / 2.0)[which]
    log = np.log(np.where(known, variance, 1.0)) + offset
    curve = smooth(difficulty, log, known / noise)
    deviation = np.where(known, log - curve, 0.0)
    spread = max(float((deviation**2 - noise)[known].mean()), 1e-3)
    keep = np.where(known, spread / (spread + noise), 0.0)
    # The mean of a log-normal posterior.
    return np.exp(curve + keep * deviation + 0.5 * (1.0 - keep) * spread)


def shrunken_shift(shift: Floats, noise: Floats, difficulty: Floats) -> tuple[Floats, Floats]:
    """Shifts shrunken to their curve over difficulty, and the variance that remains.

    Parameters
    ----------
    shift : (n,)
    noise : (n,) its variance, positive
    difficulty : (n,)
    """
    weight = 1.0 / (noise + float(np.median(shift * shift)))
    curve = smooth(difficulty, shift, weight)
    excess = (shift - curve) ** 2 - noise
    overall = max(float((weight * excess).sum() / weight.sum()), 0.0)
    # The spread of true shifts about their curve differs with difficulty too.
    spread = np.maximum(smooth(difficulty, excess, weight, 8), 0.1 * overall)
    keep = spread / (spread + noise)
    return curve + keep * (shift - curve), keep * noise
