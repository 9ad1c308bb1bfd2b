"""Assignments cost as little as those of SciPy."""

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from confide.errors import ArgumentError
from confide.inversion.assign import assign

RNG = np.random.default_rng(4)


def unit(n, d=8):
    x = RNG.standard_normal((n, d))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def near(n, noise=0.5):
    rows = unit(n)
    return -(rows @ (rows + noise * RNG.standard_normal(rows.shape)).T)


PROBLEMS = {
    "uniform": RNG.random((60, 60)),
    "of vectors": -(unit(80) @ unit(80).T),
    "of near vectors": near(80),
    "float32": near(64).astype(np.float32),
    "many ties": RNG.integers(0, 3, (50, 50)),
    "two rows alike": np.repeat(RNG.random((20, 40)), 2, axis=0),
    "all alike": np.full((9, 9), 2.5),
    "large": RNG.random((40, 40)) * 1e30,
    "small": RNG.random((40, 40)) * 1e-30,
    "far from zero": RNG.random((40, 40)) + 1e6,
    "heavy tails": np.exp(20 * RNG.standard_normal((40, 40))),
    "one large": np.where(np.eye(30) > 0, 1e12, RNG.random((30, 30))),
    "as a rectangle": RNG.random((20, 50)),
    "one": np.array([[3.0]]),
    "one row": RNG.random((1, 7)),
}


def cost(costs, columns):
    rows = np.flatnonzero(columns >= 0)
    return np.asarray(costs, dtype=np.float64)[rows, columns[rows]].sum()


@pytest.mark.parametrize("name", PROBLEMS)
def test_least_cost(name):
    costs = PROBLEMS[name]
    found = assign(costs)
    assert found.dtype == np.int64
    assert len(np.unique(found)) == len(found)
    rows, columns = linear_sum_assignment(costs)
    best = np.asarray(costs, dtype=np.float64)[rows, columns].sum()
    size = np.abs(np.asarray(costs, dtype=np.float64)[rows, columns]).sum()
    assert cost(costs, found) == pytest.approx(best, abs=1e-11 * size)


@pytest.mark.parametrize("seed", range(40))
def test_least_cost_of_random_problems(seed):
    rng = np.random.default_rng(seed)
    n, m = rng.integers(1, 30, 2) if seed % 2 else np.repeat(rng.integers(1, 30), 2)
    costs = rng.standard_normal((n, m)) ** rng.integers(1, 6) * 10.0 ** rng.integers(-6, 6)
    best = costs[linear_sum_assignment(costs)].sum()
    assert cost(costs, assign(costs)) == pytest.approx(best, rel=1e-9)


def test_many_are_solved_one_by_one():
    problems = np.stack([near(30, noise) for noise in (0.1, 0.5, 1.0, 2.0)])
    together = assign(problems)
    assert together.shape == (4, 30)
    assert np.array_equal(together, np.stack([assign(problem) for problem in problems]))


def test_the_pairing_of_a_hidden_permutation():
    order = RNG.permutation(200)
    rows = unit(200, 16)
    assert np.array_equal(assign(-(rows @ rows[order].T)), np.argsort(order))


def test_rows_that_are_left_over():
    costs = np.array([[1.0, 9.0], [0.0, 8.0], [9.0, 0.0]])
    assert assign(costs).tolist() == [-1, 0, 1]


def test_nothing_to_assign():
    assert assign(np.empty((0, 5, 5))).shape == (0, 5)
    assert assign(np.empty((0, 5))).shape == (0,)


def test_costs_are_left_as_they_are():
    costs = near(20).astype(np.float32)
    before = costs.copy()
    costs.setflags(write=False)
    assign(costs)
    assert np.array_equal(costs, before)


def test_refused():
    with pytest.raises(ArgumentError, match="of shape"):
        assign(np.zeros(3))
    with pytest.raises(ArgumentError, match="costs holds nan"):
        assign(np.array([[1.0, np.nan], [0.0, 1.0]]))


@pytest.mark.slow
def test_thousands_of_rows():
    costs = near(3000, 1.0).astype(np.float32)
    best = costs.astype(np.float64)[linear_sum_assignment(costs)].sum()
    assert cost(costs, assign(costs)) == pytest.approx(best, rel=1e-9)
