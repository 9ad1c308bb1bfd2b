"""Against slow sums, one pair at a time."""

import numpy as np
import pytest

from confide.errors import ArgumentError
from confide.inversion import similarity
from confide.inversion.base import ArrayCodes


def normal(*shape, seed=0, shift=0.0):
    return (np.random.default_rng(seed).standard_normal(shape) + shift).astype(np.float32)


def test_mean_rows_a_few_codes_at_a_time(monkeypatch):
    codes = normal(7, 4, 3)
    monkeypatch.setattr(similarity, "_NUMBERS_AT_ONCE", 24)
    np.testing.assert_allclose(
        similarity.mean_code_rows(ArrayCodes(codes)), codes.mean(axis=1), rtol=1e-6
    )


@pytest.mark.parametrize("at_once", [8, 2**24])
def test_distances(monkeypatch, at_once):
    monkeypatch.setattr(similarity, "_NUMBERS_AT_ONCE", at_once)
    a, b = normal(5, 3, shift=1000), normal(4, 3, seed=1, shift=1000)
    slow = [[-np.square(x.astype(float) - y).sum() for y in b] for x in a]
    np.testing.assert_allclose(similarity.nearness(a, b), slow, rtol=1e-9)


def test_distances_of_bytes():
    a = np.array([[0, 255]], dtype=np.uint8)
    b = np.array([[255, 0], [0, 255]], dtype=np.uint8)
    np.testing.assert_allclose(similarity.nearness(a, b), [[-2 * 255**2, 0]])


@pytest.mark.parametrize("at_once", [8, 2**24])
def test_correlations(monkeypatch, at_once):
    monkeypatch.setattr(similarity, "_NUMBERS_AT_ONCE", at_once)
    a, b = normal(6, 2, 4), normal(6, 2, 4, seed=1, shift=5)
    flat = [(x - x.mean(axis=0)).reshape(6, -1) for x in (a, b)]
    slow = [[np.corrcoef(x, y)[0, 1] for y in flat[1]] for x in flat[0]]
    np.testing.assert_allclose(similarity.correlations(a, b), slow, atol=1e-6)


def test_constants_correlate_with_nothing():
    assert (similarity.correlations(np.full((3, 4), 0.1), normal(3, 4)) == 0).all()
    with pytest.raises(ArgumentError, match="not finite"):
        similarity.correlations(np.full((3, 4), np.nan), normal(3, 4))


def test_ranks_have_the_mean_of_ties():
    found = similarity.ranks(np.array([[3.0, 1.0, 3.0, 2.0]]))
    np.testing.assert_array_equal(found, [[1.5, 4, 1.5, 3]])
    with pytest.raises(ArgumentError, match="NaN"):
        similarity.ranks(np.array([[np.nan, 1.0]]))


def test_first_ranked_shares_ties_and_joins_kinds():
    table = np.array([[2.0, 2.0, 0.0], [0.0, 1.0, 0.0], [5.0, 1.0, 0.0]])
    hits, expected = similarity.first_ranked(table, np.array([0, 1, 2]))
    np.testing.assert_array_equal(hits, [0.5, 1.0, 0.0])
    assert expected == pytest.approx(1)
    hits, expected = similarity.first_ranked(table, np.arange(3), np.array([4, 4, 7]))
    np.testing.assert_array_equal(hits, [1.0, 1.0, 0.0])
    assert expected == pytest.approx(2)


def test_mmd_is_the_double_sum_and_zero_for_equal_samples():
    a, b = normal(6, 3), normal(5, 3, seed=1, shift=0.5)

    def kernel(x, y):
        d = np.square(x.astype(float) - y).sum()
        return sum(np.exp(-d / (2 * w)) for w in similarity.MMD_WIDTHS)

    def mean(x, y):
        return np.mean([[kernel(i, j) for j in y] for i in x])

    slow = mean(a, a) + mean(b, b) - 2 * mean(a, b)
    assert similarity.mmd2(a, b) == pytest.approx(slow, rel=1e-6)
    assert similarity.mmd2(a, a) == 0
    assert similarity.mmd2(a, a.copy()) == pytest.approx(0, abs=1e-6)
    assert len(similarity.MMD_WIDTHS) == 19


def slow_area(values, same):
    above = values[same][:, None] - values[~same]
    return ((above > 0) + 0.5 * (above == 0)).mean()


def test_area_of_pairs_within_and_across():
    patient = np.array([0, 0, 1, 1, 1, 2])
    table = np.round(normal(6, 6), 1).astype(float)
    table = table + table.T
    np.fill_diagonal(table, np.nan)
    left, right = np.triu_indices(6, 1)
    links = similarity.Links.of(table, patient, None)
    found, same = links.area(), patient[left] == patient[right]
    assert found.value == pytest.approx(slow_area(table[left, right], same))
    assert links.same.sum() == 4
    assert 0 <= found.low <= found.value <= found.high <= 1
    other = np.array([5, 1, 0, 0])
    table = normal(6, 4, seed=2)
    links = similarity.Links.of(table, patient, other)
    found, same = links.area(), (patient[:, None] == other).ravel()
    assert found.value == pytest.approx(slow_area(table.ravel(), same))
    assert (links.same.sum(), links.n_patients) == (7, 4)
    assert links.ranks().ravel()[table.argmax()] == 24


def test_interval_of_pairs_is_near_that_of_resampled_patients():
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(40), rng.integers(1, 4, 40))
    vectors = rng.normal(size=(40, 6))[patient] + 1.5 * rng.normal(size=(len(patient), 6))
    table = vectors @ vectors.T
    found = similarity.Links.of(table, patient, None).area()
    left, right = np.triu_indices(len(patient), 1)
    values, same = table[left, right], patient[left] == patient[right]
    order = np.argsort(values)
    drawn = []
    for _ in range(400):
        times = np.bincount(rng.integers(40, size=40), minlength=40)
        weight = np.where(
            same, times[patient[left]], times[patient[left]] * times[patient[right]]
        ).astype(float)[order]
        is_same = same[order]
        below = np.cumsum(np.where(is_same, 0, weight))
        drawn.append((weight * below)[is_same].sum() / (weight[is_same].sum() * below[-1]))
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert found.high - found.low == pytest.approx(high - low, rel=0.3)
    assert found.low == pytest.approx(low, abs=0.03)


def test_coverage_of_the_interval_of_pairs():
    rng = np.random.default_rng(1)

    def area(n):
        patient = np.repeat(np.arange(n), 2)
        # Some patients are alike in all their codes, and all codes differ in how near they are.
        vectors = rng.normal(size=(n, 4))[patient] + rng.normal(size=(2 * n, 4))
        return similarity.Links.of(vectors @ vectors.T, patient, None).area()

    truth = np.mean([area(300).value for _ in range(5)])
    found = [area(40) for _ in range(200)]
    assert np.mean([f.low <= truth <= f.high for f in found]) >= 0.92


def test_nothing_to_link():
    with pytest.raises(ArgumentError, match="got 0 and 3"):
        similarity.Links.of(np.ones((3, 3)), np.arange(3), None)
    with pytest.raises(ArgumentError, match="got 3 and 0"):
        similarity.Links.of(np.ones((3, 3)), np.zeros(3, int), None)
    with pytest.raises(ArgumentError, match="NaN"):
        similarity.Links.of(np.full((3, 3), np.nan), np.array([0, 0, 1]), None)


def test_one_linked_patient_tells_no_interval():
    found = similarity.Links.of(normal(4, 4), np.array([0, 0, 1, 2]), None).area()
    assert (found.low, found.high) == (None, None)


def test_where_all_are_alike_the_diagonal_is_not_favoured():
    hits = [
        (similarity.assigned_columns(np.zeros((n, n))) == np.arange(n)).sum() for n in range(20, 60)
    ]
    assert np.mean(hits) < 3  # 1 by chance, n if ties went to the diagonal
    order = np.random.default_rng(0).permutation(30)
    np.testing.assert_array_equal(similarity.assigned_columns(np.eye(30)[order]), order)
