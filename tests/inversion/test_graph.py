from itertools import permutations

import numpy as np
import pytest

from confide.errors import ArgumentError
from confide.inversion import graph
from confide.inversion.base import Work


def symmetric(rng, n):
    x = rng.standard_normal((n, n))
    return x + x.T


def hidden_copy(n, noise, seed):
    """A smooth random field's correlations, and those of a permuted and noisy copy."""
    rng = np.random.default_rng(seed)
    points = rng.random((n, 2))
    near = np.exp(-((points[:, None] - points[None]) ** 2).sum(axis=2) / 0.1)
    right = near + noise * symmetric(rng, n)
    true = rng.permutation(n)
    left = (near + noise * symmetric(rng, n))[np.ix_(true, true)]
    return left, right, true


def naive_worth(left, right, likeness, weight, p):
    n = len(p)
    off = ~np.eye(n, dtype=bool)
    total = 0.0
    for a, b in zip(left, right, strict=True):
        a, b = (a - a[off].mean()) / a[off].std(), (b - b[off].mean()) / b[off].std()
        for i in range(n):
            for j in range(n):
                if i != j:
                    total += a[i, j] * b[p[i], p[j]] / n / len(left)
    return (total + weight * sum(likeness[i, p[i]] for i in range(n))) / n


def random_problem(n, seed):
    rng = np.random.default_rng(seed)
    left, right = ([symmetric(rng, n) for _ in range(2)] for _ in range(2))
    return left, right, rng.standard_normal((n, n)), rng.permutation(n)


def test_worth_is_the_sum_that_it_says():
    left, right, likeness, p = random_problem(7, 0)
    problem = graph.Problem(left, right, likeness, 0.4)
    assert problem.worth(p) == pytest.approx(naive_worth(left, right, likeness, 0.4, p))


def test_the_same_graph_is_worth_one():
    left, _, _, _ = random_problem(8, 1)
    problem = graph.Problem(left, left, np.zeros((8, 8)))
    # All but the share of the diagonal.
    assert problem.worth(np.arange(8)) == pytest.approx(7 / 8)


def test_gains_of_exchanges_follow_the_worth():
    left, right, likeness, p = random_problem(9, 2)
    problem = graph.Problem(left, right, likeness)
    search = graph._Exchanges(problem, p)
    for r, s in ((5, 2), (7, 1), (8, 7)):
        search.exchange(r, s)
    gains, before = search.gains(), problem.worth(search.p)
    for r in range(9):
        for s in range(r):
            other = search.p.copy()
            other[[r, s]] = other[[s, r]]
            assert gains[r, s] == pytest.approx(9 * (problem.worth(other) - before))
    assert np.isinf(gains[np.triu_indices(9)]).all()


@pytest.mark.parametrize("seed", range(3))
def test_small_problems_are_solved_exactly(seed):
    left, right, likeness, _ = random_problem(6, seed)
    problem = graph.Problem(left, right, likeness)
    best = max(problem.worth(np.array(p)) for p in permutations(range(6)))
    p, worth = graph.match(problem, Work(), patience=200)
    assert worth == pytest.approx(problem.worth(p))
    assert worth == pytest.approx(best)


@pytest.mark.parametrize("seed", range(3))
def test_a_noisy_copy_is_recognised(seed):
    left, right, true = hidden_copy(40, 0.02, seed)
    p, _ = graph.match(graph.Problem([left], [right], np.zeros((40, 40))), Work(), patience=300)
    assert (p == true).mean() > 0.9


def test_climbing_never_loses():
    left, right, likeness, p = random_problem(20, 3)
    problem = graph.Problem(left, right, likeness)
    top = graph.climb(problem, p)
    assert problem.worth(top) > problem.worth(p)
    assert graph._Exchanges(problem, top).gains().max() <= 1e-9
    assert sorted(top) == list(range(20))


def test_the_search_goes_beyond_the_climb():
    better = 0
    for seed in range(5):
        left, right, likeness, p = random_problem(16, 10 + seed)
        problem = graph.Problem(left, right, likeness)
        top = graph.climb(problem, p)
        searched = graph._tabu(problem, top, 300, Work(), 0)
        assert problem.worth(searched) >= problem.worth(top) - 1e-9
        better += problem.worth(searched) > problem.worth(top) + 1e-9
    assert better >= 4


def test_graphs_without_structure():
    flat = np.ones((6, 6))
    p, worth = graph.match(graph.Problem([flat], [flat], np.zeros((6, 6))), Work(), patience=10)
    assert sorted(p) == list(range(6))
    assert worth == 0
    p, _ = graph.match(
        graph.Problem([np.ones((1, 1))], [np.ones((1, 1))], np.zeros((1, 1))), Work()
    )
    assert p.tolist() == [0]


def test_a_deadline_ends_the_search():
    left, right, likeness, _ = random_problem(30, 4)
    p, _ = graph.match(graph.Problem(left, right, likeness), Work(seconds=0.0), patience=10**9)
    assert sorted(p) == list(range(30))


def test_matrices_of_other_shapes():
    with pytest.raises(ArgumentError, match="as many matrices"):
        graph.Problem([np.ones((3, 3))], [], np.zeros((3, 3)))
    with pytest.raises(ArgumentError, match="likeness"):
        graph.Problem([np.ones((3, 3))], [np.ones((4, 4))], np.zeros((3, 3)))
