"""Evidence of membership, several numbers for each target and record, from one set of references.

Records are streamed three times: :meth:`Evidence.measure` means and variances,
:meth:`Evidence.relate` targets to references, :meth:`Evidence.of` the evidence itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from confide.attacks.cosignals import CoSignals
from confide.attacks.difficulty import shrunken_shift, shrunken_variance, smooth
from confide.attacks.lira import LiRA
from confide.attacks.references import Moments
from confide.signals import channels, log_probability, scalar

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
NAMES = ("shrunken", "rmia", "lira", "cosignal", "distance", "shift", "middle", "signal")
"""The evidence, in the order of the last axis of :meth:`Evidence.of`."""


class Part:
    """Signals of all models about some records, in the forms that evidence needs.

    Parameters
    ----------
    signals : (n_models, n_records[, n_views[, n_labels]])
    membership : (n_models, n_records) bool
    """

    def __init__(self, signals: Floats, membership: Bools) -> None:
        self.values = channels(signals)
        self.membership = membership

    @cached_property
    def signal(self) -> Floats:
        """(n_models, n_records) one number a record: the mean over known labels and views."""
        return scalar(self.values)

    @cached_property
    def log_p(self) -> Floats:
        """(n_models, n_records) log probability of the true label."""
        return log_probability(self.values)


class Evidence:
    """Compares targets with references that are not among them.

    Parameters
    ----------
    targets, references : indices of models
    n_records : of the cohort
    equal : None, or the numbers of references with, and as many without, each record (n_records,)
        that are used: the first ones.  With balanced masks unequal numbers would tell membership.
    """

    def __init__(
        self,
        targets: NDArray[np.intp],
        references: NDArray[np.intp],
        n_records: int,
        equal: NDArray[np.intp] | None = None,
    ) -> None:
        self.targets = targets
        self._references, self._equal = references, equal
        self._cosignals = CoSignals(len(targets), len(references))
        self._lira = LiRA()
        self._lira_sums: Floats | float = 0.0
        # Rows: mean, sum of squared deviations and number, in; the same, out.
        self._sides = np.full((2, 3, n_records), np.nan)
        self._record: _Records | None = None

    def measure(self, part: Part, at: slice) -> None:
        """First pass: means and variances of the references."""
        inside, outside = self._used(part, at)
        signal = part.signal[self._references]
        for side, used in enumerate((inside, outside)):
            mean, square, n = _side(signal, used)
            self._sides[side, :, at] = mean, square, n
        moments_of = self._moments(part, inside, outside)
        self._lira_sums = self._lira_sums + self._lira._sums(moments_of, *part.values.shape[2:])

    def relate(self, part: Part, at: slice) -> None:
        """Second pass: products of residuals of targets and references."""
        record = self._records().part(at)
        self._cosignals.add(*self._residuals(part, record, *self._used(part, at)))

    def of(self, part: Part, at: slice) -> Floats:
        """Third pass: the evidence.

        Returns
        -------
        (n_targets, n_records, len(NAMES)); NaN where no reference with, or none without, the
        record is used, or no label is known
        """
        record = self._records().part(at)
        inside, outside = self._used(part, at)
        target = part.signal[self.targets]
        sd = np.sqrt(record.variance)
        residual, own = self._residuals(part, record, inside, outside)
        predicted = self._cosignals.predict(residual, own) / record.weight
        lira = self._lira._scores(
            self._moments(part, inside, outside),
            part.values.shape[2],
            part.values.shape[3],
            np.asarray(self._lira_sums),
        )
        columns = {
            "shrunken": record.log_ratio(target),
            "rmia": self._rmia(part, inside, outside),
            "lira": lira,
            "cosignal": predicted * record.shift / record.variance,
            "distance": (target - record.middle) / sd,
            "shift": record.shift / sd,
            "middle": record.middle,
            "signal": target,
        }
        stacked = np.stack(np.broadcast_arrays(*(columns[name] for name in NAMES)), axis=-1)
        return np.where(record.usable[:, None], _tamed(stacked), np.nan)

    def _records(self) -> _Records:
        if self._record is None:
            self._record = _Records.fitted(self._sides)
        return self._record

    def _used(self, part: Part, at: slice) -> tuple[Bools, Bools]:
        """(n_references, n_records) which references with, and without, the record are used."""
        inside = part.membership[self._references]
        outside = ~inside
        if self._equal is None:
            return inside, outside
        first = self._equal[at]
        return (
            inside & (np.cumsum(inside, axis=0, dtype=np.int32) <= first),
            outside & (np.cumsum(outside, axis=0, dtype=np.int32) <= first),
        )

    def _residuals(
        self, part: Part, record: _Records, inside: Bools, outside: Bools
    ) -> tuple[Floats, Floats]:
        """Standardised residuals of references, and of targets about their expected mean."""
        signal, target = part.signal[self._references], part.signal[self.targets]
        scale = np.where(record.usable, record.weight, 0.0)
        with np.errstate(invalid="ignore"):
            own = target - record.middle - record.shift * (expit(record.log_ratio(target)) - 0.5)
            mean = np.where(inside, record.mean_in, record.mean_out)
            residual = np.where(inside | outside, signal - mean, 0.0)
        known = record.usable
        return np.where(known, residual * scale, 0.0), np.where(known, own * scale, 0.0)

    def _rmia(self, part: Part, inside: Bools, outside: Bools) -> Floats:
        """log p(x | target) - log p(x), as online RMIA's ratio."""
        p = np.exp(part.log_p[self._references])
        with np.errstate(invalid="ignore", divide="ignore"):
            mean_in = (p * inside).sum(axis=0) / inside.sum(axis=0)
            mean_out = (p * outside).sum(axis=0) / outside.sum(axis=0)
            mean = np.maximum(0.5 * (mean_in + mean_out), np.finfo(np.float64).tiny)
            ratio: Floats = part.log_p[self.targets] - np.log(mean)
        return ratio

    def _moments(
        self, part: Part, inside: Bools, outside: Bools
    ) -> Callable[[int, int], tuple[Floats, Moments]]:
        def moments_of(view: int, label: int) -> tuple[Floats, Moments]:
            channel = part.values[:, :, view, label]
            (mean_in, square_in, n_in), (mean_out, square_out, n_out) = (
                _side(channel[self._references], used) for used in (inside, outside)
            )
            with np.errstate(invalid="ignore", divide="ignore"):
                var_in, var_out = square_in / (n_in - 1.0), square_out / (n_out - 1.0)
            m = Moments(
                mean_in=mean_in[None],
                var_in=np.where(n_in >= 2, var_in, np.nan)[None],
                n_in=n_in,
                mean_out=mean_out[None],
                var_out=np.where(n_out >= 2, var_out, np.nan)[None],
                n_out=n_out,
            )
            return channel[self.targets], m

        return moments_of


@dataclass(frozen=True, kw_only=True, eq=False)
class _Records:
    """What the references say about each record, shrunken: arrays (n_records,).

    `usable`: there are references of both kinds.  `variance` is that of a signal about the mean of
    its kind; `var_in` and `var_out` add the noise of that mean.  `weight` is one over the standard
    deviation that residuals are divided by.
    """

    usable: Bools
    mean_in: Floats
    mean_out: Floats
    middle: Floats
    shift: Floats
    variance: Floats
    var_in: Floats
    var_out: Floats
    weight: Floats

    def part(self, at: slice) -> _Records:
        """Some of the records."""
        return _Records(**{f.name: getattr(self, f.name)[at] for f in fields(self)})

    def log_ratio(self, signal: Floats) -> Floats:
        """Log-likelihood ratio of in against out, two normal laws: (n_targets, n_records)."""
        inside = signal - self.middle - 0.5 * self.shift
        outside = signal - self.middle + 0.5 * self.shift
        ratio = inside**2 / self.var_in - outside**2 / self.var_out
        return 0.5 * (np.log(self.var_out / self.var_in) - ratio)

    @staticmethod
    def fitted(sides: Floats) -> _Records:
        """From means, sums of squares and numbers, in and out: (2, 3, n_records)."""
        usable = np.asarray(np.isfinite(sides[:, 0]).all(axis=0), dtype=np.bool_)
        (mean_in, square_in, n_in), (mean_out, square_out, n_out) = sides[:, :, usable]
        middle = 0.5 * (mean_in + mean_out)
        dof = n_in + n_out - 2.0
        pooled = (square_in + square_out) / np.maximum(dof, 1.0)
        variance = shrunken_variance(pooled, dof, middle)
        noise = variance * (1.0 / n_in + 1.0 / n_out)
        shift, left = shrunken_shift(mean_in - mean_out, noise, middle)
        of_means = 0.25 * (noise + left)
        compact = {
            "mean_in": mean_in,
            "mean_out": mean_out,
            "middle": middle,
            "shift": shift,
            "variance": variance + of_means,
            "var_in": variance * _ratio(square_in, n_in, variance, middle) + of_means,
            "var_out": variance * _ratio(square_out, n_out, variance, middle) + of_means,
            "weight": 1.0 / np.sqrt(np.where(dof > 0, pooled, variance) + 0.1 * variance),
        }
        full = {}
        for name, values in compact.items():
            full[name] = np.full(len(usable), np.nan)
            full[name][usable] = values
        return _Records(usable=usable, **full)


def _ratio(square: Floats, n: Floats, variance: Floats, middle: Floats) -> Floats:
    """Variance of one side over that of both, a curve over the middle."""
    dof = np.maximum(n - 1.0, 0.0)
    if not dof.any():
        return np.ones_like(middle)
    own = square / np.maximum(dof, 1.0) / variance
    return np.maximum(smooth(middle, own, dof), 0.05)


def _side(values: Floats, used: Bools) -> tuple[Floats, Floats, Floats]:
    """Mean, sum of squared deviations and number of the used models: (n_records,) each."""
    n = used.sum(axis=0).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = (values * used).sum(axis=0) / n
        deviation = (values - mean) * used
    return mean, np.einsum("mn,mn->n", deviation, deviation), n


def _tamed(values: Floats) -> Floats:
    """Beyond +-100 only the logarithm grows: the order stays, the leverage of outliers goes."""
    size = np.abs(values)
    with np.errstate(invalid="ignore"):
        return np.where(size > 100.0, np.sign(values) * (100.0 + np.log1p(size - 100.0)), values)
