"""Which vertex of one weighted graph is which of another: the quadratic assignment problem.

Starts by annealed projection on the doubly stochastic matrices (Gold and Rangarajan 1996, "A
graduated assignment algorithm for graph matching"), exchanges of pairs, and from the best of them
the robust tabu search of Taillard (1991, "Robust taboo search for the quadratic assignment
problem").
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from confide.errors import ArgumentError
from confide.inversion.base import Integers, Work

Doubles = NDArray[np.float64]

COOLING = np.geomspace(1.0, 0.02, 25)
"""Temperatures, in standard deviations of the gain of a pair."""

STARTS = (0.3, 0.1, 1.0)
"""Weight of the likeness of the vertices in each start."""

WEIGHT = 0.3
"""Weight of the likeness in what is maximised in the end."""


class Problem:
    """Two sets of symmetric matrices over n vertices, and how alike the vertices are themselves.

    A matching p, vertex j of the left being p[j] of the right, is worth the mean product of left
    and right entries off the diagonal, each matrix standardised, summed over the matrices, and the
    mean likeness of matched vertices times its weight.

    Parameters
    ----------
    left, right : as many (n, n) symmetric matrices
    likeness : (n, n) of vertex j of the left with vertex k of the right, higher = more alike
    weight : of the likeness
    """

    def __init__(
        self,
        left: Sequence[Doubles],
        right: Sequence[Doubles],
        likeness: Doubles,
        weight: float = WEIGHT,
    ) -> None:
        if len(left) != len(right) or any(m.shape != likeness.shape for m in (*left, *right)):
            raise ArgumentError(
                "Expected as many matrices on the left as on the right, all of the shape of the "
                f"likeness {likeness.shape}."
            )
        n = len(likeness)
        self.n = n
        scale = 1 / np.sqrt(n * len(left))
        self.left = [_standardised(m) * scale for m in left]
        self.right = [_standardised(m) * scale for m in right]
        self.likeness = likeness
        self.weight = weight

    def worth(self, p: Integers) -> float:
        """What a matching is worth, as a mean over vertices."""
        pairs = zip(self.left, self.right, strict=True)
        quadratic = sum(float((a * b[np.ix_(p, p)]).sum()) for a, b in pairs)
        return (quadratic + self.weight * float(self.likeness[np.arange(self.n), p].sum())) / self.n

    def gain(self, x: Doubles) -> Doubles:
        """(n, n) what it is worth to match j with k while all others are matched as in x (n, n)."""
        out = self.weight * self.likeness
        for a, b in zip(self.left, self.right, strict=True):
            out = out + a @ x @ b
        return out


def match(problem: Problem, work: Work, *, patience: int = 1500) -> tuple[Integers, float]:
    """Search the matching that is worth most.

    Parameters
    ----------
    problem : see :class:`Problem`
    work : its seed decides the search, its deadline ends it
    patience : exchanges without anything better after which the search ends

    Returns
    -------
    p : (n,) int64; vertex j of the left is vertex p[j] of the right
    worth : of it; higher is better, 1 where the matrices are the same
    """
    found: list[Integers] = []
    for weight in STARTS:
        start = Problem(problem.left, problem.right, problem.likeness, weight)
        found.append(climb(problem, _annealed(start)))
        if (agreed := _agreed(found)) is not None:
            return agreed, problem.worth(agreed)
        if work.late():
            break
    searched: list[Integers] = []
    for i, p in enumerate(sorted(found, key=problem.worth, reverse=True)):
        searched.append(_tabu(problem, p, patience, work, i))
        if (agreed := _agreed(searched)) is not None:
            return agreed, problem.worth(agreed)
    best = max(searched, key=problem.worth)
    return best, problem.worth(best)


def _agreed(found: list[Integers]) -> Integers | None:
    """What two ways led to, if the last of them did: there is hardly anything better."""
    return found[-1] if any(np.array_equal(found[-1], p) for p in found[:-1]) else None


def climb(problem: Problem, p: Integers) -> Integers:
    """Exchange the pair that gains most, until none gains."""
    search = _Exchanges(problem, p)
    while True:
        gains = search.gains()
        r, s = np.unravel_index(gains.argmax(), gains.shape)
        if gains[r, s] <= 1e-9:
            return search.p
        search.exchange(int(r), int(s))


def _annealed(problem: Problem) -> Integers:
    x = _doubly_stochastic(problem.likeness / _spread(problem.likeness))
    for temperature in COOLING:
        for _ in range(3):
            gain = problem.gain(x)
            x = _doubly_stochastic(gain / (_spread(gain) * temperature))
    p = _assigned(x)
    worth = problem.worth(p)
    while True:
        new = _assigned(problem.gain(np.eye(problem.n)[p]))
        if (value := problem.worth(new)) <= worth + 1e-12:
            return p
        p, worth = new, value


def _tabu(problem: Problem, p: Integers, patience: int, work: Work, turn: int) -> Integers:
    """Always make the best exchange that is not forbidden, be it a loss; keep the best of all."""
    n = problem.n
    rng = np.random.default_rng([work.seed, 0x7AB, turn])
    search = _Exchanges(problem, p)
    best, worth, best_worth, since = p, 0.0, 0.0, 0
    forbidden = np.zeros((n, n), dtype=np.int64)  # until when vertex j may not go back to k
    step = 0
    while since < patience and not (step % 64 == 0 and work.late()):
        step, since = step + 1, since + 1
        gains = search.gains()
        back = forbidden[:, search.p] > step
        gains[(back & back.T) & (worth + gains <= best_worth + 1e-9)] = -np.inf
        r, s = (int(i) for i in np.unravel_index(gains.argmax(), gains.shape))
        if not np.isfinite(gains[r, s]):
            break
        worth += float(gains[r, s])
        forbidden[r, search.p[r]] = step + rng.integers(n // 5 + 1, n + n // 10 + 2)
        forbidden[s, search.p[s]] = step + rng.integers(n // 5 + 1, n + n // 10 + 2)
        search.exchange(r, s)
        if worth > best_worth + 1e-9:
            best, best_worth, since = search.p.copy(), worth, 0
    return best


class _Exchanges:
    """What each exchange of two vertices gains, kept up to date at a cost of n^2 an exchange."""

    def __init__(self, problem: Problem, p: Integers) -> None:
        self.problem = problem
        self.p = p.copy()
        self.right = [b[np.ix_(p, p)] for b in problem.right]
        pairs = zip(problem.left, self.right, strict=True)
        self.products = [a @ b for a, b in pairs]
        self._above = np.triu_indices(problem.n)

    def gains(self) -> Doubles:
        """(n, n) of exchanging the partners of r and s, below the diagonal; else minus infinity."""
        like = self.problem.weight * self.problem.likeness[:, self.p]
        out = like - like.diagonal()[:, None]
        for a, b, product in zip(self.problem.left, self.right, self.products, strict=True):
            # Sum over k of (a[r, k] - a[s, k]) (b[s, k] - b[r, k]), each pair counted from both
            # ends; a and b are 0 on the diagonal.
            out += 2 * (product + a * b - product.diagonal()[:, None])
        out = out + out.T
        out[self._above] = -np.inf
        return out

    def exchange(self, r: int, s: int) -> None:
        """Exchange the partners of r and s."""
        self.p[[r, s]] = self.p[[s, r]]
        for a, b, product in zip(self.problem.left, self.right, self.products, strict=True):
            product += np.outer(a[:, r] - a[:, s], b[s] - b[r])
            b[[r, s]] = b[[s, r]]
            b[:, [r, s]] = b[:, [s, r]]
            product[:, [r, s]] = a @ b[:, [r, s]]


def _standardised(matrix: Doubles) -> Doubles:
    """Mean 0 and deviation 1 off the diagonal, 0 on it."""
    n = len(matrix)
    out = np.array(matrix, dtype=np.float64)
    off = ~np.eye(n, dtype=bool)
    if n > 1:
        out -= out[off].mean()
        out /= max(float(out[off].std()), 1e-12)
    out[~off] = 0
    return out


def _spread(values: Doubles) -> float:
    return max(float(values.std()), 1e-12)


def _doubly_stochastic(scores: Doubles, rounds: int = 30) -> Doubles:
    """Sinkhorn: rows and columns of exp(scores) scaled to sum 1, approximately."""
    x = np.exp(scores - scores.max(axis=1, keepdims=True))
    for _ in range(rounds):
        x /= x.sum(axis=0) + 1e-300
        x /= x.sum(axis=1, keepdims=True) + 1e-300
    return x


def _assigned(scores: Doubles) -> Integers:
    return linear_sum_assignment(scores, maximize=True)[1].astype(np.int64)
