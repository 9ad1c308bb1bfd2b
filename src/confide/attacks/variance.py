"""How LiRA estimates the variance of a record's reference signals.

Each rule sums what it needs over records (so that records can be streamed), turns the sums into a
prior, and applies the prior.  Arrays are (n_targets, n_records); a prior has one row a target.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma, polygamma

Floats = NDArray[np.float64]


class Variance(ABC):
    """A rule for the variance of the reference signals of a record."""

    @abstractmethod
    def sums(self, variance: Floats, dof: Floats) -> Floats:
        """Sums over the records of a chunk: (n_targets, k).

        `variance` (n_targets, n_records) unbiased, NaN where dof < 1; `dof` (n_records,).
        """

    @abstractmethod
    def apply(self, variance: Floats, dof: Floats, sums: Floats) -> Floats:
        """Variance to use, given the sums over all chunks: (n_targets, n_records)."""


@dataclass(frozen=True)
class PerRecord(Variance):
    """Each record's own variance; needs many references (64 or more)."""

    def sums(self, variance: Floats, dof: Floats) -> Floats:
        """Nothing to sum."""
        return np.zeros((len(variance), 0))

    def apply(self, variance: Floats, dof: Floats, sums: Floats) -> Floats:
        """The variance as it is."""
        return variance


@dataclass(frozen=True)
class Global(Variance):
    """One variance for all records: the mean weighted by degrees of freedom."""

    def sums(self, variance: Floats, dof: Floats) -> Floats:
        """Sum of squares and of degrees of freedom."""
        usable = np.isfinite(variance)
        squares = np.where(usable, variance * dof, 0.0).sum(axis=1)
        return np.stack([squares, np.where(usable, dof, 0.0).sum(axis=1)], axis=1)

    def apply(self, variance: Floats, dof: Floats, sums: Floats) -> Floats:
        """The pooled variance, for every record."""
        pooled = np.divide(
            sums[:, 0], sums[:, 1], out=np.full(len(sums), np.nan), where=sums[:, 1] > 0
        )
        return np.broadcast_to(pooled[:, None], variance.shape)


@dataclass(frozen=True)
class Moderated(Variance):
    """Empirical-Bayes shrinkage of each record's variance to a prior fitted over records.

    The prior is a scaled inverse chi-square with d0 degrees of freedom and scale s0^2, fitted by
    the moments of log variances; the posterior mean is (d0 s0^2 + d s^2) / (d0 + d).  It is close
    to Global with few references and to PerRecord with many.  Smyth, "Linear models and empirical
    Bayes methods for assessing differential expression", Stat. Appl. Genet. Mol. Biol. 3 (2004),
    section 6.2.
    """

    def sums(self, variance: Floats, dof: Floats) -> Floats:
        """Count, sum and sum of squares of the centred log variances, sum of trigammas."""
        usable = np.isfinite(variance) & (variance > 0)
        half = np.maximum(dof, 1.0) / 2.0
        log_variance = np.log(np.where(usable, variance, 1.0)) - digamma(half) + np.log(half)
        e = np.where(usable, log_variance, 0.0)
        noise = np.where(usable, polygamma(1, half), 0.0)
        return np.stack(
            [usable.sum(axis=1), e.sum(axis=1), (e * e).sum(axis=1), noise.sum(axis=1)], axis=1
        )

    def apply(self, variance: Floats, dof: Floats, sums: Floats) -> Floats:
        """The posterior mean."""
        prior_dof, scale = (prior[:, None] for prior in self.prior(sums))
        d = np.where(np.isfinite(variance), dof, 0.0)
        own = np.where(np.isfinite(variance), variance, 0.0)
        with np.errstate(invalid="ignore"):
            posterior = (prior_dof * scale + d * own) / (prior_dof + d)
        return np.where(np.isinf(prior_dof), scale, posterior)

    @staticmethod
    def prior(sums: Floats) -> tuple[Floats, Floats]:
        """(degrees of freedom, scale) of the prior of each target, from its sums."""
        count = np.where(sums[:, 0] > 0, sums[:, 0], np.nan)
        mean = sums[:, 1] / count
        spread = np.maximum(sums[:, 2] - count * mean * mean, 0.0) / np.maximum(count - 1.0, 1.0)
        excess = spread - sums[:, 3] / count
        dof = np.full(len(sums), np.inf)
        fits = excess > 0  # no more spread than noise alone: one variance for all
        dof[fits] = 2.0 * inverse_trigamma(excess[fits])
        half = np.where(np.isinf(dof), 1.0, dof / 2.0)
        shift = np.where(np.isinf(dof), 0.0, digamma(half) - np.log(half))
        return dof, np.exp(mean + shift)


def inverse_trigamma(y: Floats) -> Floats:
    """Solve trigamma(x) = y for x > 0 by Newton's method on 1 / trigamma.

    Smyth (2004), appendix; converges from below in a few steps.

    >>> float(np.round(inverse_trigamma(polygamma(1, np.array([2.5])))[0], 9))
    2.5
    """
    x = 0.5 + 1.0 / np.maximum(y, 1e-12)
    for _ in range(50):
        trigamma = polygamma(1, x)
        step = trigamma * (1.0 - trigamma / y) / polygamma(2, x)
        x = x + step
        if np.all(-step / x < 1e-10):
            break
    return x
