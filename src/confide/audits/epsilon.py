"""Lower bounds of epsilon: what an attack proves about a claim of differential privacy.

A training is (epsilon, delta)-private for a unit (a record, or a patient with all records) when
adding or removing one unit changes the probability of any event by a factor of at most e^epsilon
and an addend of delta.  An attack that succeeds more often than that refutes the claim.  Each
bound here is the largest epsilon that is refuted at a confidence level; 0 says that nothing is.

Three kinds of evidence, which are not interchangeable:

- :func:`clopper_pearson_epsilon`: independent trainings with and without **one** unit.  Scores of
  many units in one model are no independent trials, and this bound does not hold for them.
- :func:`gdp_epsilon`: the same counts, under the stronger assumption that the training's privacy
  follows the curve of a Gaussian mechanism.
- :func:`one_run_epsilon`: many units, each in or out by an independent fair coin, guessed from the
  output of one or more trainings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import betainc, betaincinv, expit, log_ndtr, ndtri

from confide import _check
from confide.errors import ArgumentError

Floats = NDArray[np.float64]
DELTA = 1e-5
CONFIDENCE = 0.95
_LARGEST = 200.0
"""No bound is reported above this epsilon; counts that large do not occur."""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How often a rule said "in", over independent trainings with and without one unit.

    Parameters
    ----------
    hits_in, n_in : of the trainings with the unit
    hits_out, n_out : of those without
    """

    hits_in: int
    n_in: int
    hits_out: int
    n_out: int

    def __post_init__(self) -> None:
        _check.at_least(1, n_in=self.n_in)
        _check.at_least(1, n_out=self.n_out)
        _check.in_range(0, self.n_in, hits_in=self.hits_in)
        _check.in_range(0, self.n_out, hits_out=self.hits_out)


def clopper_pearson_epsilon(
    counts: Counts, *, delta: float = 0.0, confidence: float = CONFIDENCE
) -> float:
    """Largest epsilon that counts at a threshold fixed beforehand refute.

    log((TPR - delta) / FPR) with Clopper and Pearson's limits, and the same with "out" for "in";
    the two limits, each at half of the error, serve both.

    Jagielski, Ullman and Oprea, "Auditing differentially private machine learning", NeurIPS 2020,
    section 3; Nasr et al., S&P 2021 (arXiv 2101.04535).

    Parameters
    ----------
    counts : at a threshold that was chosen without these trainings
    delta, confidence : of the claim, and of its refutation
    """
    _check_claim(delta, confidence)
    tpr, fpr = _of(counts, confidence)
    return max(0.0, float(_refuted(tpr, fpr, delta)[0]))


def gdp_epsilon(
    counts: Counts, *, delta: float = DELTA, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """(mu, epsilon at `delta`) of the smallest Gaussian privacy that the counts do not refute.

    mu is a lower bound without further assumptions in this sense: the training is not mu'-GDP for
    any mu' below.  The epsilon is a lower bound only **if** the training's privacy follows a
    Gaussian curve, which many noisy steps make plausible and nothing here checks.

    Dong, Roth and Su, "Gaussian differential privacy", JRSS B 84 (2022), equation 6 and
    corollary 1; used for audits by Nasr et al., USENIX Security 2023 (arXiv 2302.07956).
    """
    _check_claim(delta, confidence)
    tpr, fpr = _of(counts, confidence)
    mu = float((ndtri(tpr) - ndtri(fpr))[0])
    if mu <= 0.0:
        return 0.0, 0.0
    return mu, epsilon_of_mu(mu, delta)


def epsilon_of_mu(mu: float, delta: float) -> float:
    """Epsilon at `delta` of a mu-GDP mechanism: the inverse of its privacy profile.

    delta(epsilon) = Phi(-epsilon / mu + mu / 2) - e^epsilon Phi(-epsilon / mu - mu / 2)
    (Dong, Roth and Su, corollary 1).

    >>> round(epsilon_of_mu(1.0, 1e-5), 3)
    4.377
    """
    if not 0.0 < delta < 1.0:
        raise ArgumentError(f"Expected delta={delta!r} strictly between 0 and 1.")
    if mu <= 0.0:
        return 0.0

    def excess(epsilon: float) -> float:
        first = log_ndtr(-epsilon / mu + mu / 2.0)
        second = epsilon + log_ndtr(-epsilon / mu - mu / 2.0)
        return float(np.exp(first) * -np.expm1(min(second - first, 0.0)) - delta)

    if excess(0.0) <= 0.0:
        return 0.0
    # There the first term alone is delta.
    high = mu * mu / 2.0 + mu * float(ndtri(1.0 - delta)) + 1e-9
    return float(brentq(excess, 0.0, max(high, 1e-9), xtol=1e-9))


def one_run_p_value(
    n_coins: int, n_guesses: int, n_correct: int, epsilon: float, delta: float
) -> float:
    """Chance of so many correct guesses if the training were (epsilon, delta)-private.

    Steinke, Nasr and Jagielski, "Privacy auditing with one (1) training run", NeurIPS 2023
    (arXiv 2305.08846), theorem 5.2: correct guesses are stochastically at most
    Binomial(n_guesses, e^epsilon / (1 + e^epsilon)), up to 2 n_coins delta max_i P(n_correct >
    Binomial >= n_correct - i) / i.

    Parameters
    ----------
    n_coins : units whose membership was an independent fair coin, guessed or not
    n_guesses, n_correct : guesses made (which, may depend on the output), and right ones
    """
    if not 0 <= n_correct <= n_guesses <= n_coins:
        raise ArgumentError(
            f"Expected 0 <= n_correct={n_correct} <= n_guesses={n_guesses} <= n_coins={n_coins}."
        )
    chance = float(expit(epsilon))
    # P(Binomial(n, q) >= k) is the incomplete beta function I_q(k, n - k + 1).
    reached = float(betainc(n_correct, n_guesses - n_correct + 1, chance)) if n_correct else 1.0
    if delta == 0.0 or n_correct == 0:
        return min(reached, 1.0)
    i = np.arange(1, n_correct + 1)
    k = n_correct - i
    below = np.where(k > 0, betainc(np.maximum(k, 1), n_guesses - k + 1, chance), 1.0) - reached
    return min(reached + 2.0 * n_coins * delta * float((below / i).max()), 1.0)


def one_run_epsilon(
    n_coins: int,
    n_guesses: int,
    n_correct: int,
    *,
    delta: float = DELTA,
    confidence: float = CONFIDENCE,
) -> float:
    """Largest epsilon that the guesses refute; see :func:`one_run_p_value`.

    How many guesses are made must not depend on which were right; several numbers can be tried at
    a higher confidence each, see :func:`guessing_epsilon`.
    """
    _check_claim(delta, confidence)
    allowed = 1.0 - confidence

    def excess(epsilon: float) -> float:
        return one_run_p_value(n_coins, n_guesses, n_correct, epsilon, delta) - allowed

    if n_guesses == 0 or 2 * n_correct <= n_guesses:
        return 0.0
    return _first_root(excess)


@dataclass(frozen=True, kw_only=True)
class Guesses:
    """The best of several numbers of guesses: the bound, and the counts behind it."""

    epsilon: float
    n_coins: int
    n_guesses: int
    n_correct: int


def guessing_epsilon(
    scores: Floats,
    coins: NDArray[np.bool_],
    *,
    delta: float = DELTA,
    confidence: float = CONFIDENCE,
) -> Guesses:
    """One-run bound from scores: high ones are guessed "in", low ones "out".

    The side of a score is that of the middle between the quartiles of all scores, and guesses are
    made from the far ends inwards.  Up to eight numbers of guesses are tried, from all coins down
    to a 128th, on both sides and on the high side alone; the error is divided by their number, so
    that the best may be reported.

    Parameters
    ----------
    scores : (n_coins,) higher = more likely in; computed without the coins
    coins : (n_coins,) bool, in or out: independent and fair
    """
    n = len(scores)
    _check.at_least(1, n_coins=n)
    _check.shape((n,), coins=coins)
    _check.finite(scores=scores)
    # The middle of the quartiles lies in the gap where in and out are apart, and near the median
    # where they are not; half of the coins on each side would be wrong by luck of the toss.
    margin = scores - 0.5 * (np.quantile(scores, 0.25) + np.quantile(scores, 0.75))
    right = (margin >= 0) == coins
    both = np.cumsum(right[np.argsort(-np.abs(margin), kind="stable")])
    high = np.cumsum(coins[np.argsort(-margin, kind="stable")])
    shares = [(both, 4), (both, 16), (both, 64), (high, 2), (high, 8), (high, 32), (high, 128)]
    fewer = [(count, n // share) for count, share in shares if n // share >= _FEWEST_GUESSES]
    tries = [(both, n), *fewer]
    level = 1.0 - (1.0 - confidence) / len(tries)
    best = Guesses(epsilon=0.0, n_coins=n, n_guesses=n, n_correct=int(both[-1]))
    for count, k in tries:
        v = int(count[k - 1])
        if one_run_p_value(n, k, v, best.epsilon, delta) > 1.0 - level:
            continue  # no better; the bounds rise together with the p-value
        found = one_run_epsilon(n, k, v, delta=delta, confidence=level)
        if found > best.epsilon:
            best = Guesses(epsilon=found, n_coins=n, n_guesses=k, n_correct=v)
    return best


_FEWEST_GUESSES = 12
"""Fewer guesses refute little: twelve right ones of twelve give an epsilon of 1.3."""


def split_epsilon(
    inside: Floats,
    outside: Floats,
    *,
    delta: float = 0.0,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> float:
    """Clopper-Pearson bound with the threshold chosen on a random half of the trainings.

    Parameters
    ----------
    inside, outside : (n,) scores of independent trainings with and without one unit, higher =
        more likely in; at least two of each
    seed : of the halves
    """
    _check_scores(inside, outside)
    rng = np.random.default_rng(seed)
    first_in, second_in = _halves(inside, rng)
    first_out, second_out = _halves(outside, rng)
    at = np.unique(np.concatenate([first_in, first_out]))
    # Limits that hold for all thresholds: thresholds with few scores beyond them, of which the
    # luckiest would be chosen otherwise, lose by them.
    error = (1.0 - confidence) / (2.0 * len(at))
    hits = (len(x) - np.searchsorted(np.sort(x), at, side="left") for x in (first_in, first_out))
    tpr, fpr = _limits(next(hits), len(first_in), next(hits), len(first_out), error)
    threshold = float(at[int(np.argmax(_refuted(tpr, fpr, delta)))])
    counts = Counts(
        hits_in=int((second_in >= threshold).sum()),
        n_in=len(second_in),
        hits_out=int((second_out >= threshold).sum()),
        n_out=len(second_out),
    )
    return clopper_pearson_epsilon(counts, delta=delta, confidence=confidence)


def bonferroni_epsilon(
    inside: Floats, outside: Floats, *, delta: float = 0.0, confidence: float = CONFIDENCE
) -> float:
    """Clopper-Pearson bound for the best of all thresholds, corrected for the choice.

    At the k-th highest of n scores the chance of scoring as high has the law of the k-th smallest
    of n uniforms, so Clopper and Pearson's limits hold at order statistics.  They are taken at
    ranks 1, 2, 3, 4, 6, 8, 12, ... from both ends, with the error divided by their number; a
    threshold in between takes the limit of the next rank on the safe side.  The bound then holds
    for every threshold at once.

    Parameters as in :func:`split_epsilon`.
    """
    _check_scores(inside, outside)
    _check_claim(delta, confidence)
    half = (1.0 - confidence) / 2.0
    ranks_in, ranks_out = _ranks(len(inside)), _ranks(len(outside))
    at = np.sort(inside)[::-1][ranks_in - 1]
    error_in, error_out = half / len(ranks_in), half / len(ranks_out)
    tpr: Floats = betaincinv(ranks_in, len(inside) - ranks_in + 1, error_in).astype(np.float64)
    above = len(outside) - np.searchsorted(np.sort(outside), at, side="left")
    # The threshold lies above the (above + 1)-th highest score; take the next rank that has one.
    place = np.searchsorted(ranks_out, above + 1)
    limits = np.append(betaincinv(ranks_out, len(outside) - ranks_out + 1, 1.0 - error_out), 1.0)
    return max(0.0, float(_refuted(tpr, limits[place], delta).max()))


def _ranks(n: int) -> NDArray[np.int64]:
    steps = np.unique(np.concatenate([2 ** np.arange(0, 40), 3 * 2 ** np.arange(0, 39)]))
    steps = steps[steps <= n]
    return np.unique(np.concatenate([steps, n + 1 - steps]))


def _of(counts: Counts, confidence: float) -> tuple[Floats, Floats]:
    error = (1.0 - confidence) / 2.0
    return _limits(counts.hits_in, counts.n_in, counts.hits_out, counts.n_out, error)


def _limits(
    hits_in: Any, n_in: int, hits_out: Any, n_out: int, error: float
) -> tuple[Floats, Floats]:
    """One-sided limits, each wrong with chance `error`: of TPR from below, of FPR from above."""
    hits_in, hits_out = np.atleast_1d(hits_in), np.atleast_1d(hits_out)
    some, most = np.maximum(hits_in, 1), np.minimum(hits_out, n_out - 1)
    tpr = np.where(hits_in > 0, betaincinv(some, n_in - some + 1, error), 0.0)
    fpr = np.where(hits_out < n_out, betaincinv(most + 1, n_out - most, 1.0 - error), 1.0)
    return tpr.astype(np.float64), fpr.astype(np.float64)


def _refuted(tpr: Floats, fpr: Floats, delta: float) -> Floats:
    """Largest epsilon refuted at each threshold, by "in" or by "out"; not cut at 0."""
    with np.errstate(divide="ignore"):
        forward = np.log(np.maximum(tpr - delta, 0.0)) - np.log(fpr)
        backward = np.log(np.maximum(1.0 - fpr - delta, 0.0)) - np.log(1.0 - tpr)
    return np.maximum(forward, backward)


def _halves(scores: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    mixed = rng.permutation(scores)
    return mixed[: len(mixed) // 2], mixed[len(mixed) // 2 :]


def _first_root(excess: Callable[[float], float]) -> float:
    """Where a rising function becomes positive; 0 where it is so from the start."""
    if excess(0.0) > 0.0:
        return 0.0
    low, high = 0.0, 1.0
    while excess(high) <= 0.0:
        if high >= _LARGEST:
            return _LARGEST
        low, high = high, 2.0 * high
    return float(brentq(excess, low, high, xtol=1e-8))


def _check_scores(inside: Floats, outside: Floats) -> None:
    for name, scores in (("inside", inside), ("outside", outside)):
        if scores.ndim != 1 or len(scores) < 2:
            raise ArgumentError(
                f"Expected {name} to hold at least two scores in one row, got shape {scores.shape}."
            )
        if not np.isfinite(scores).all():
            at = int(np.argmin(np.isfinite(scores)))
            raise ArgumentError(f"{name} holds {scores[at]} at index {at}; expected numbers.")


def _check_claim(delta: float, confidence: float) -> None:
    if not 0.0 <= delta < 1.0:
        raise ArgumentError(f"Expected delta={delta!r} in [0, 1).")
    if not 0.5 < confidence < 1.0:
        raise ArgumentError(f"Expected confidence={confidence!r} strictly between .5 and 1.")
