"""What a noisy training guarantees: from noise, sampling and steps to epsilon.  Without torch.

One step of the training adds Gaussian noise of standard deviation `noise` x clip to a sum in which
each sampled unit has a norm of at most clip; units are sampled independently with the chance
`rate` (Poisson sampling); there are `steps` steps.  Two data sets are neighbours when one has one
unit more than the other (add or remove one).  Privacy loss distributions are composed by
dp_accounting with estimates that err towards a larger epsilon (Doroshenko et al., "Connect the
dots", PoPETs 2022).

A patient with k records in a training whose unit is the record is sampled several times a step: the
shift is the number of records that were sampled, Binomial(k, rate), a mixture of Gaussians
(Choquette-Choo, Ganesh, Steinke and Thakurta, ICLR 2024, and Ganesh 2024, arXiv 2401.10294).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import log_ndtr, logsumexp, ndtr
from scipy.stats import binom

from confide import _check
from confide.errors import ArgumentError, MissingExtraError

if TYPE_CHECKING:
    from confide.training.privacy import Privacy

Floats = NDArray[np.float64]

_LEAST_NOISE, _MOST_NOISE = 0.2, 1e4
_MOST_POINTS = 200_000  # of a distribution of one step
_TAIL = 1e-18  # mass beyond what is drawn, counted as lost
_MOST_GIVEN_AWAY = 0.1  # patients a training, on average, that delta may give away unwarned
_LEAST_PROBABILITY = 1e-30
_COARSER = 16  # gap of a first look at patients with several records
_PLENTY = 100.0  # an epsilon from which nothing depends on its last digits
_DELTAS = (0.5, 0.3, 0.2, 0.1, 0.05, 0.03, 0.02, 0.01, *(10 ** -(n / 2) for n in range(5, 21)))


@dataclass(frozen=True, kw_only=True)
class Mechanism:
    """A noisy training, as an accountant sees it.

    Parameters
    ----------
    noise : standard deviation of the noise over the clipping norm
    rate : chance of a unit to be in the batch of a step, in (0, 1]
    steps : how many
    """

    noise: float
    rate: float
    steps: int

    def __post_init__(self) -> None:
        _check.in_range(1e-3, _MOST_NOISE, noise=self.noise)
        _check.at_least(1, steps=self.steps)
        if not 0 < self.rate <= 1:
            raise ArgumentError(f"Expected rate={self.rate!r} in (0, 1].")


@dataclass(frozen=True, kw_only=True, eq=False)
class Curve:
    """Points (epsilon, delta), at each of which the training is private; both (n,) float64."""

    epsilon: Floats
    delta: Floats


@lru_cache(maxsize=64)
def epsilon_of(mechanism: Mechanism, delta: float, k: int = 1) -> float:
    """Epsilon at `delta` of somebody with k units, from above; inf where there is none."""
    return float(_composed(mechanism, k).get_epsilon_for_delta(delta))


@lru_cache(maxsize=64)
def curve_of(mechanism: Mechanism, delta: float, k: int = 1) -> Curve:
    """The privacy curve of somebody with k units, with a point at `delta` and one at epsilon 0."""
    composed = _composed(mechanism, k)
    at_zero = float(composed.get_delta_for_epsilon(0.0))
    deltas = np.array(sorted({d for d in (*_DELTAS, delta) if d < at_zero}, reverse=True))
    epsilons = np.array([composed.get_epsilon_for_delta(d) for d in deltas])
    known = np.isfinite(epsilons)
    return Curve(epsilon=np.append(0.0, epsilons[known]), delta=np.append(at_zero, deltas[known]))


@lru_cache(maxsize=64)
def calibrated(rate: float, steps: int, epsilon: float, delta: float) -> Mechanism:
    """The training with the least noise whose epsilon at `delta` is at most the wanted one.

    The noise is found to about one part in a thousand, on the safe side; it is never below 0.2.

    Raises
    ------
    ArgumentError : no noise of up to 10,000 times the clipping norm is enough
    MissingExtraError : dp-accounting is not installed
    """

    def excess(log_noise: float) -> float:
        mechanism = Mechanism(noise=float(np.exp(log_noise)), rate=rate, steps=steps)
        found = epsilon_of(mechanism, delta)
        return float(np.log(max(found, 1e-9) / epsilon)) if np.isfinite(found) else 50.0

    high = 0.0  # most trainings lie near a noise of one; small noise takes long to account for
    while excess(high) > 0:
        high += np.log(2.0)
        if high > np.log(_MOST_NOISE):
            raise ArgumentError(
                f"No noise gives epsilon={epsilon:g} at delta={delta:g} in {steps:,} steps at a "
                f"sampling rate of {rate:g}; use fewer epochs or a larger epsilon."
            )
    low = high
    while low > np.log(_LEAST_NOISE) and excess(low) <= 0:
        high, low = low, max(low - np.log(2.0), np.log(_LEAST_NOISE))
    root = low if excess(low) <= 0 else brentq(excess, low, high, xtol=5e-4)
    noise = _up(float(np.exp(root)))
    while epsilon_of(Mechanism(noise=noise, rate=rate, steps=steps), delta) > epsilon:
        noise = _up(noise * 1.0005)
    return Mechanism(noise=noise, rate=rate, steps=steps)


def account(
    privacy: Privacy, *, rate: float, steps: int, most_records: int, n_patients: float
) -> dict[str, Any]:
    """Calibrate the noise and say what the training guarantees, as plain JSON.

    Parameters
    ----------
    privacy : what is asked for
    rate, steps : see :class:`Mechanism`
    most_records : of any patient who may be trained on
    n_patients : in a training, on average

    Returns
    -------
    unit, epsilon and delta of that unit, asked (the epsilon of the settings), clip, noise, rate,
    steps, most_records, adjacency, accountant; by_unit: epsilon at delta and the curve of a
    "patient" and, where the unit is the record, of a "record"; warnings
    """
    mechanism = calibrated(rate, steps, privacy.epsilon, privacy.delta)
    units = {"record": 1, "patient": most_records} if privacy.unit == "record" else {"patient": 1}
    by_unit = {}
    for unit, k in units.items():
        curve = curve_of(mechanism, privacy.delta, k)
        epsilon = epsilon_of(mechanism, privacy.delta, k)
        points = {"epsilon": curve.epsilon.tolist(), "delta": curve.delta.tolist()}
        by_unit[unit] = {"epsilon": epsilon if np.isfinite(epsilon) else None, "curve": points}
    return {
        "unit": privacy.unit,
        "epsilon": by_unit[privacy.unit]["epsilon"],
        "delta": privacy.delta,
        "asked": privacy.epsilon,
        "clip": privacy.clip,
        "noise": mechanism.noise,
        "rate": rate,
        "steps": steps,
        "most_records": most_records,
        "adjacency": "add or remove one",
        "accountant": f"dp-accounting {version('dp-accounting')}, privacy loss distributions",
        "by_unit": by_unit,
        "warnings": _warnings(privacy, n_patients),
    }


def _warnings(privacy: Privacy, n_patients: float) -> list[str]:
    given_away = privacy.delta * n_patients
    if given_away < _MOST_GIVEN_AWAY:
        return []
    return [
        f"train.privacy.delta = {privacy.delta:g} is not well below one in the {n_patients:,.0f} "
        f"patients of a training: giving away {given_away:.2g} patients entirely, on average, "
        f"would be within the guarantee. Set a delta below {_MOST_GIVEN_AWAY / n_patients:.3g}."
    ]


def _up(noise: float) -> float:
    """Rounded up to four digits.

    >>> _up(1.23451), _up(0.5)
    (1.235, 0.5)
    """
    scale = 10.0 ** (3 - int(np.floor(np.log10(noise))))
    return float(np.ceil(noise * scale - 1e-9) / scale)


@lru_cache(maxsize=4)
def _composed(mechanism: Mechanism, k: int) -> Any:
    """Privacy loss distribution of all steps.

    Where no delta worth naming has an epsilon below 100 it is left coarse, which errs upwards too.
    """
    _check.at_least(1, k=k)
    gap = _gap(mechanism, k)
    if k > 1:
        coarse = _composed_at(mechanism, k, _COARSER * gap)
        if coarse.get_epsilon_for_delta(max(_DELTAS)) > _PLENTY:
            return coarse
    return _composed_at(mechanism, k, gap)


def _composed_at(mechanism: Mechanism, k: int, gap: float) -> Any:
    pld = _library().privacy_loss_distribution
    if k == 1:
        step = pld.from_gaussian_mechanism(
            mechanism.noise,
            sampling_prob=mechanism.rate,
            value_discretization_interval=gap,
            use_connect_dots=True,
        )
    else:
        step = pld.PrivacyLossDistribution(*(_mixture(mechanism, k, gap, r) for r in (True, False)))
    return step.self_compose(mechanism.steps)


def _gap(mechanism: Mechanism, k: int) -> float:
    """Between the values of the distribution of one step: small against their spread."""
    number, probability = _counts(mechanism, k)
    most = _losses(
        _reach(mechanism.noise, number, probability), mechanism.noise, number, probability
    )
    fine = 0.06 * k * mechanism.rate / mechanism.noise
    least = float(np.log(max(probability[0], 1e-12))) if number[0] == 0 else -float(most[0])
    return float(max(min(fine, 0.01), (float(most[0]) - least) / _MOST_POINTS, 1e-6))


def _counts(mechanism: Mechanism, k: int) -> tuple[Floats, Floats]:
    """How many of k units a step samples, and with which chance; impossible numbers left out."""
    number = np.arange(k + 1, dtype=np.float64)
    probability = np.asarray(binom.pmf(number, k, mechanism.rate), dtype=np.float64)
    kept = probability > _LEAST_PROBABILITY
    return number[kept], probability[kept]


def _losses(x: Floats, noise: float, number: Floats, probability: Floats) -> Floats:
    """(n,) log of the density of the mixture over that of the noise alone, at each x; rising."""
    exponent = (2.0 * number * x[:, None] - number**2) / (2.0 * noise**2)
    return np.asarray(logsumexp(exponent, b=probability, axis=1))


def _reach(noise: float, number: Floats, probability: Floats) -> Floats:
    """(1,) an x beyond which the mixture has next to no mass."""

    def beyond(x: float) -> float:
        return float(probability @ ndtr((number - x) / noise)) - _TAIL

    top = float(number[-1]) + 12.0 * noise
    return np.array([brentq(beyond, 0.0, top, xtol=1e-6)])


def _mixture(mechanism: Mechanism, k: int, gap: float, removes: bool) -> Any:
    """Distribution of one step for somebody with k units who is removed, or added.

    delta(e) is P(x > t) - e^e Q(x > t) where the loss at t is e, and for adding, with P and Q
    exchanged, Q(x < t) - e^e P(x < t) where it is -e; P is the mixture, Q the noise alone.
    """
    noise = mechanism.noise
    number, probability = _counts(mechanism, k)
    top = _reach(noise, number, probability)
    bottom = np.array([-9.0 * noise])
    ends = [_losses(x, noise, number, probability)[0] for x in (bottom, top)]
    low, high = (int(np.floor(ends[0] / gap)), int(np.ceil(ends[1] / gap)))
    if not removes:
        low, high = -high, -low
    epsilon = np.arange(low, high + 1, dtype=np.float64) * gap
    loss = epsilon if removes else -epsilon
    smallest = np.log(probability[0]) if number[0] == 0 else -np.inf
    reached = loss > smallest  # smaller losses do not occur
    x = _inverse(loss[reached], float(bottom[0]), float(top[0]), noise, number, probability)
    delta = -np.expm1(np.minimum(epsilon, 0.0)) if removes else np.zeros_like(epsilon)
    away = x / noise
    if removes:
        mass = ndtr((number - x[:, None]) / noise) @ probability
        delta[reached] = mass - np.exp(epsilon[reached] + log_ndtr(-away))
    else:
        under = log_ndtr((x[:, None] - number) / noise)
        log_mass = logsumexp(under, b=probability, axis=1)
        delta[reached] = ndtr(away) - np.exp(epsilon[reached] + log_mass)
    delta = np.maximum.accumulate(np.clip(delta, 0.0, 1.0)[::-1])[::-1]  # rounding
    return _library().pld_pmf.create_pmf_pessimistic_connect_dots_fixed_gap(gap, low, high, delta)


def _inverse(
    loss: Floats, low: float, high: float, noise: float, number: Floats, probability: Floats
) -> Floats:
    """(n,) x of each loss, by bisection; the first table makes the brackets short."""
    table = np.linspace(low - noise, high + noise, 4096)
    at = np.searchsorted(_losses(table, noise, number, probability), loss).clip(1, len(table) - 1)
    left, right = table[at - 1], table[at]
    for _ in range(25):
        middle = 0.5 * (left + right)
        above = _losses(middle, noise, number, probability) > loss
        left, right = np.where(above, left, middle), np.where(above, middle, right)
    return np.asarray(0.5 * (left + right))


def _library() -> Any:
    try:
        from dp_accounting import pld
    except ImportError as error:
        raise MissingExtraError(
            "Training with differential privacy needs an accountant; install "
            "confide[privacy], which brings dp-accounting."
        ) from error
    return pld
