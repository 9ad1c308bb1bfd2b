"""The tail of risk: exact tests and intervals against SciPy's, and their coverage."""

import numpy as np
import pytest
from scipy import stats
from scipy.stats.contingency import odds_ratio

from confide.audits import shares as module
from confide.audits.shares import chi_square, in_tail, ratio_interval, two_sided_hypergeometric


def cases(n_cases):
    rng = np.random.default_rng(0)
    for _ in range(n_cases):
        n = int(rng.integers(5, 1000))
        size, draws = int(rng.integers(1, n)), int(rng.integers(1, n // 2 + 1))
        hits = int(rng.hypergeometric(size, n - size, draws))
        if rng.random() < 0.5:
            hits = int(rng.integers(max(0, draws - n + size), min(size, draws) + 1))
        yield hits, n, size, draws


def test_the_exact_test_is_fishers():
    for hits, n, size, draws in cases(50):
        table = [[hits, size - hits], [draws - hits, n - size - draws + hits]]
        upper = stats.fisher_exact(table, alternative="greater").pvalue
        lower = stats.fisher_exact(table, alternative="less").pvalue
        expected = min(1.0, 2 * min(upper, lower))
        assert two_sided_hypergeometric(hits, n, size, draws) == pytest.approx(expected)


def test_the_interval_is_that_of_the_conditional_odds_ratio():
    for hits, n, size, draws in cases(20):
        lowest, highest = max(0, draws - n + size), min(size, draws)
        low, high = ratio_interval(hits, n, size, draws)
        if lowest == highest:
            assert low == high == pytest.approx(hits * n / draws / size)
            continue
        table = [[hits, size - hits], [draws - hits, n - size - draws + hits]]
        odds = odds_ratio(table, kind="conditional").confidence_interval(0.95)
        for found, omega, edge in ((low, odds.low, lowest), (high, odds.high, highest)):
            finite = 0 < omega < np.inf
            mean = stats.nchypergeom_fisher.mean(n, size, draws, omega) if finite else edge
            assert found == pytest.approx(mean * n / draws / size, abs=1e-6)


def test_the_interval_agrees_with_the_test():
    for hits, n, size, draws in cases(200):
        low, high = ratio_interval(hits, n, size, draws)
        p = two_sided_hypergeometric(hits, n, size, draws)
        assert (p < 0.05) == (not low <= 1 <= high)


def coverage(n, size, draws, omega):
    """Exact: the chance of every number of hits, and whether its interval holds the truth."""
    law = stats.nchypergeom_fisher(n, size, draws, omega)
    truth = law.mean() * n / draws / size
    hits = np.arange(max(0, draws - n + size), min(size, draws) + 1)
    limits = np.array([ratio_interval(int(x), n, size, draws) for x in hits])
    inside = (limits[:, 0] <= truth * (1 + 1e-9)) & (limits[:, 1] >= truth * (1 - 1e-9))
    return float(law.pmf(hits)[inside].sum())


@pytest.mark.parametrize("omega", [0.2, 1.0, 3.0, 12.0])
@pytest.mark.parametrize("size", [10, 60, 150, 280])
def test_coverage_is_at_least_nominal(size, omega):
    assert coverage(300, size, 60, omega) >= 0.95 - 1e-9


def test_large_numbers():
    low, high = ratio_interval(327, 65_379, 30_000, 654)
    assert 0.9 < low < 327 * 65_379 / 654 / 30_000 < high < 1.2
    assert ratio_interval(0, 65_379, 10, 654)[0] == 0.0
    assert ratio_interval(10, 65_379, 10, 654)[1] == pytest.approx(65_379 / 654)


def test_the_tail_is_of_the_largest_and_ties_are_broken_by_chance():
    risk = np.arange(5000.0) % 2500
    found = in_tail(risk, 0.01, np.random.default_rng(0))
    assert found.sum() == 50
    assert risk[found].min() == 2475
    draws = [in_tail(np.full(200, 0.5), 0.01, np.random.default_rng(seed)) for seed in range(200)]
    share = np.mean(draws, axis=0)
    assert share[:100].mean() == pytest.approx(0.1, abs=4 * 0.3 / np.sqrt(200 * 100))


@pytest.mark.parametrize(
    ("n", "top", "n_tail"), [(4000, 0.01, 40), (100, 0.01, 20), (30, 0.01, 15), (1, 0.5, 1)]
)
def test_the_size_of_the_tail(n, top, n_tail):
    assert in_tail(np.arange(float(n)), top, np.random.default_rng(0)).sum() == n_tail


def test_share_of_patients_without_rounding():
    assert in_tail(np.arange(1000.0), 0.07, np.random.default_rng(0)).sum() == 70


def test_chi_square_of_two_groups_is_the_two_sided_exact_test():
    """The statistic orders outcomes by their distance from the expectation."""
    n, size, draws = 200, 80, 40
    law = stats.hypergeom(n, size, draws)
    rng = np.random.default_rng(0)
    for hits in (8, 12, 16, 21):
        far = np.abs(np.arange(41) - 16) >= abs(hits - 16)
        exact = law.pmf(np.arange(41))[far].sum()
        found = chi_square(np.array([hits, draws - hits]), np.array([size, n - size]), rng)
        error = np.sqrt(max(exact * (1 - exact), 0) / module._N_MONTE_CARLO)
        assert found == pytest.approx(exact, abs=4 * error + 2e-4)
