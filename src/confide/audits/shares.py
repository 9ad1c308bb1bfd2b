"""A group's share of the most at-risk patients against its share of all, exactly."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import gammaln
from scipy.stats import hypergeom

from confide.audits.clustered import LEVEL

Floats = NDArray[np.float64]
_LEAST = 20
_N_MONTE_CARLO = 9_999
_WIDEST = 60.0  # log odds beyond which no finite interval ends


def in_tail(risk: Floats, top: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """The share `top` of patients with the largest risk.

    `risk` (n_patients,), all known, larger is more at risk -> (n_patients,) bool, true for at
    least 20 patients (or half of them all).  Ties at the edge are broken by chance, so that no
    group gains from them.
    """
    n = len(risk)
    wanted = math.ceil(top * n - 1e-9)  # .07 * 100 is a little more than 7
    order = np.lexsort((rng.random(n), -risk))
    result = np.zeros(n, dtype=bool)
    result[order[: min(max(wanted, _LEAST), max(n // 2, 1))]] = True
    return result


def two_sided_hypergeometric(hits: int, n: int, size: int, draws: int) -> float:
    """Exact two-sided p-value: twice the smaller tail, at most 1.

    `hits` of a group of `size` among `draws` of `n` patients, drawn by chance.
    """
    few, many = hypergeom.cdf(hits, n, size, draws), hypergeom.sf(hits - 1, n, size, draws)
    return float(min(1.0, 2.0 * min(few, many)))


def ratio_interval(hits: int, n: int, size: int, draws: int) -> tuple[float, float]:
    """Exact 95 % limits of the share of the tail over the share of the patients.

    Parameters
    ----------
    hits : patients of the group in the tail
    n, size, draws : patients in all, in the group, in the tail

    Returns
    -------
    limits of E[hits] / (draws size / n)

    Notes
    -----
    Each patient of the group has the same odds to be in the tail, each other patient the same,
    and the tail has `draws` patients: `hits` then has Fisher's noncentral hypergeometric
    distribution, which knows that patients are not drawn twice.  The limits of the odds ratio are
    those at which `hits` is just not surprising (2.5 % on each side; Fisher, J. R. Stat. Soc. 98
    (1935) 39-82), and each odds ratio has its expected ratio.  So the interval holds the true
    ratio at least 95 times in 100, and it leaves out 1 exactly if the two-sided p-value is below
    5 %.  It is SciPy's conditional interval of the odds ratio, fast enough for large cohorts.
    """
    lowest, highest = max(0, draws - (n - size)), min(size, draws)
    support = np.arange(lowest, highest + 1)
    weight = -(
        gammaln(support + 1)
        + gammaln(size - support + 1)
        + gammaln(draws - support + 1)
        + gammaln(n - size - draws + support + 1)
    )
    expected = draws * size / n
    alpha = (1 - LEVEL) / 2

    def law(log_odds: float) -> Floats:
        logs = weight + support * log_odds
        terms: Floats = np.exp(logs - logs.max())
        return terms / terms.sum()

    def limit(places: NDArray[np.bool_], open_end: int) -> float:
        def excess(log_odds: float) -> float:
            return float(law(log_odds)[places].sum()) - alpha

        if excess(-_WIDEST) * excess(_WIDEST) > 0:
            return open_end / expected  # no odds make the observed number surprising
        return float(support @ law(brentq(excess, -_WIDEST, _WIDEST, xtol=1e-9))) / expected

    return limit(support >= hits, lowest), limit(support <= hits, highest)


def chi_square(hits: NDArray[np.int64], size: NDArray[np.int64], rng: np.random.Generator) -> float:
    """Monte-Carlo p-value of the chi-square statistic of tail counts, sizes given."""
    expected = size * hits.sum() / size.sum()
    drawn = rng.multivariate_hypergeometric(
        size, int(hits.sum()), size=_N_MONTE_CARLO, method="marginals"
    )
    null = ((drawn - expected) ** 2 / expected).sum(axis=1)
    observed = ((hits - expected) ** 2 / expected).sum()
    return float((1 + (null >= observed - 1e-9).sum()) / (1 + _N_MONTE_CARLO))
