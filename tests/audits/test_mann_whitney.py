"""Areas over models, their exact null and DeLong's error."""

import numpy as np
import pytest
from scipy import stats

import oracles
from confide.audits import mann_whitney
from confide.audits.mann_whitney import (
    binormal_auc,
    blocked_p_value,
    null_se,
    randomised_p_value,
    row_auc,
    survival,
)
from confide.masks import balanced


@pytest.mark.parametrize(("n_in", "n_out"), [(1, 1), (2, 2), (1, 6), (5, 3), (6, 6)])
def test_the_null_is_the_count_of_choices(n_in, n_out):
    plain = oracles.mann_whitney_tail(n_in, n_out)
    np.testing.assert_allclose(survival(n_in, n_out, np.arange(n_in * n_out + 1)), plain)
    np.testing.assert_allclose(survival(n_in, n_out, np.array([n_in * n_out + 1])), 0.0)


@pytest.mark.parametrize(("n_in", "n_out"), [(12, 12), (30, 22), (100, 100)])
def test_the_null_is_scipys(n_in, n_out):
    rng = np.random.default_rng(0)
    for shift in (0.0, 0.5, 3.0):
        x, y = rng.normal(shift, 1, n_in), rng.normal(0, 1, n_out)
        truth = stats.mannwhitneyu(x, y, alternative="greater", method="exact")
        ours = survival(n_in, n_out, np.array([round(truth.statistic)]))[0]
        # Far out scipy takes one minus the lower tail and keeps some 1e-16 only.
        assert ours == pytest.approx(truth.pvalue, rel=1e-8, abs=1e-14)


def test_perfect_separation_keeps_its_digits():
    from math import comb

    assert survival(100, 100, np.array([10_000]))[0] == pytest.approx(1 / comb(200, 100), rel=1e-9)
    assert survival(8, 8, np.array([64]))[0] == pytest.approx(1 / 12870)


def test_above_the_exact_limit_p_is_not_too_small():
    """The normal tail beyond 200 a side, against the exact tail just below."""
    n = 200
    u = np.arange(n * n // 2, n * n + 1, 7)
    exact = survival(n, n, u)
    sd = np.sqrt(n * n * (2 * n + 1) / 12)
    normal = stats.norm.sf((u - 0.5 - n * n / 2) / sd)
    far = exact < 1e-4
    assert (normal[far] >= exact[far] * 0.999).all()
    np.testing.assert_allclose(normal[~far], exact[~far], rtol=0.08)
    np.testing.assert_allclose(survival(201, 201, np.array([201 * 201 // 2])), 0.5, atol=1e-3)


@pytest.mark.parametrize("ties", [False, True])
def test_areas_and_errors_are_the_double_loops(ties):
    rng = np.random.default_rng(1)
    values = rng.normal(0, 1, (14, 40))
    if ties:
        values = np.round(values)
    held = rng.random((14, 40)) < 0.4
    held[:2], held[2:4] = True, False
    ours = row_auc(values, held)
    for x in range(40):
        inside, outside = values[held[:, x], x], values[~held[:, x], x]
        assert ours.auc[x] == pytest.approx(oracles.auc(inside, outside))
        assert ours.se[x] == pytest.approx(oracles.delong_se(inside, outside))
        assert ours.strict[x] == oracles.strict_pairs(values[:, x], held[:, x])
        assert (ours.n_in[x], ours.n_out[x]) == (len(inside), len(outside))


def test_edges():
    values = np.array([[1.0, np.nan, 1.0], [2.0, np.nan, 2.0], [3.0, np.nan, 3.0]])
    held = np.array([[1, 1, 0], [0, 0, 0], [0, 0, 0]], dtype=bool)
    ours = row_auc(values, held)
    assert ours.auc[0] == 0.0
    assert np.isnan(ours.se[0])
    assert np.isnan(ours.auc[1:]).all()
    assert ours.p_value().tolist() == [1.0, 1.0, 1.0]


def test_binormal():
    rng = np.random.default_rng(2)
    held = np.arange(4000)[:, None] % 2 == 0
    values = rng.normal(0, 1, (4000, 1)) * np.where(held, 2.0, 1.0) + held
    truth = stats.norm.cdf(1 / np.sqrt(5))
    assert binormal_auc(values, held)[0] == pytest.approx(truth, abs=0.02)
    x = rng.normal(0, 1, (6, 1))
    a, b = x[:3, 0], x[3:, 0]
    expected = stats.norm.cdf((a.mean() - b.mean()) / np.sqrt(a.var(ddof=1) + b.var(ddof=1)))
    assert binormal_auc(x, np.arange(6)[:, None] < 3)[0] == pytest.approx(expected)
    assert np.isnan(binormal_auc(x, np.arange(6)[:, None] < 1)[0])


@pytest.mark.parametrize("round_to", [None, 0])
def test_p_values_are_exact_and_with_ties_never_too_small(round_to):
    rng = np.random.default_rng(3)
    n = 40_000
    values = rng.normal(0, 1, (10, n))
    if round_to is not None:
        values = np.round(values, round_to)
    p = row_auc(values, balanced(10, n, seed=3)).p_value()
    for level in np.unique(oracles.mann_whitney_tail(5, 5)):
        share, error = (p <= level + 1e-12).mean(), np.sqrt(level * (1 - level) / n)
        assert share <= level + 4 * error
        if round_to is None:
            assert share >= level - 4 * error


def test_null_se():
    rng = np.random.default_rng(4)
    area = row_auc(rng.normal(0, 1, (24, 20_000)), balanced(24, 20_000, fraction=0.25, seed=4)).auc
    assert area.std() == pytest.approx(null_se(6, 18), rel=0.03)
    assert area.mean() == pytest.approx(0.5, abs=0.004)


def drawn_in_blocks(rng, sizes, n_rows):
    """(n_models, n_rows) half of each block in, and the block of each model."""
    parts = [balanced(n, n_rows, seed=int(rng.integers(2**31))) for n in sizes]
    return np.concatenate(parts), np.repeat(np.arange(len(sizes)), sizes)


def test_blocked_p_is_the_count_of_choices():
    """Against all choices of two models of four in each of two blocks."""
    from itertools import combinations, product

    values = np.random.default_rng(0).standard_normal(8)
    choices = [np.isin(np.arange(4), c) for c in combinations(range(4), 2)]

    def u(held):
        return sum(
            (values[b][held[b]][:, None] > values[b][~held[b]]).sum()
            for b in (slice(0, 4), slice(4, 8))
        )

    columns = [np.concatenate(pair) for pair in product(choices, choices)]
    counts = np.array([u(c) for c in columns])
    held = np.stack(columns, axis=1)
    block = np.repeat([0, 1], 4)
    ours = blocked_p_value(np.repeat(values[:, None], held.shape[1], axis=1), held, block)
    np.testing.assert_allclose(ours, [(counts >= c).mean() for c in counts])


def test_one_block_is_the_plain_test():
    rng = np.random.default_rng(1)
    values, held = rng.standard_normal((20, 50)), balanced(20, 50, seed=1)
    plain = row_auc(values, held).p_value()
    np.testing.assert_allclose(blocked_p_value(values, held, np.zeros(20, int)), plain)


@pytest.mark.parametrize("missing", [0, 3])
def test_blocked_p_is_uniform_and_powerful(missing):
    rng = np.random.default_rng(2)
    held, block = drawn_in_blocks(rng, (16, 16, 16, 16), 4000)
    held, block = held[missing:], block[missing:]
    # Models that came later say other things: the blocks differ, the test must not mind.
    noise = rng.standard_normal((64 - missing, 4000)) + block[:, None]
    p = blocked_p_value(noise, held, block)
    for level in (0.01, 0.05, 0.2, 0.5):
        share = (p <= level).mean()
        assert share <= level + 4 * np.sqrt(level * (1 - level) / 4000)
    assert (p <= 0.2).mean() > 0.18
    even = rng.standard_normal(noise.shape) + 0.7 * held
    blocked, whole = blocked_p_value(even, held, block), row_auc(even, held).p_value()
    assert (blocked <= 0.01).mean() > 0.9 * (whole <= 0.01).mean()


def test_unknown_rows_have_no_blocked_p():
    values, held = np.full((8, 2), np.nan), balanced(8, 2, seed=0)
    values[:, 1] = np.arange(8)
    p = blocked_p_value(values, held, np.repeat([0, 1], 4))
    assert p[0] == 1.0
    assert 0 < p[1] <= 1.0


@pytest.mark.parametrize("levels", [None, 2, 5])
def test_randomised_p_is_uniform_whatever_the_ties(levels):
    rng = np.random.default_rng(3)
    values = rng.standard_normal((12, 20_000))
    if levels:
        values = np.clip(np.round(values), 0, levels)
    held = balanced(12, 20_000, fraction=0.25, seed=3)
    p = randomised_p_value(values, held, 0)
    for level in (0.001, 0.01, 0.1, 0.5, 0.9):
        assert abs((p <= level).mean() - level) < 4 * np.sqrt(level * (1 - level) / 20_000)
    assert len(np.unique(p)) == len(p)
    plain = row_auc(values, held).p_value()
    if levels is None:
        assert (p <= plain).all()


def test_rows_stand_alone(monkeypatch):
    """In parts of any size the areas are the same."""
    rng = np.random.default_rng(9)
    values, held = rng.standard_normal((12, 50)).round(1), rng.random((12, 50)) < 0.5
    values[:, 7] = np.nan
    whole = mann_whitney.row_auc(values, held)
    monkeypatch.setattr(mann_whitney, "_CACHED_ELEMENTS", 12 * 7)
    parts = mann_whitney.row_auc(values, held)
    for name in vars(whole):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name), err_msg=name)
