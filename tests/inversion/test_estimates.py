"""Intervals against simulated coverage, chance levels against simulated attackers."""

import math
from itertools import permutations

import numpy as np
import pytest

from confide.audits.clustered import clopper_pearson
from confide.inversion import estimates


def test_all_right_is_as_sure_as_there_are_patients():
    found = estimates.share(np.ones(60), np.arange(60))
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(0.025 ** (1 / 60))
    # Four images of each patient say no more.
    again = estimates.share(np.ones(240), np.repeat(np.arange(60), 4))
    assert again == found


def test_single_records_give_clopper_and_pearson_about():
    hits = np.r_[np.ones(30), np.zeros(70)]
    found = estimates.share(hits, np.arange(100))
    low, high = clopper_pearson(30, 100)
    assert found.low == pytest.approx(low, abs=0.005)
    assert found.high == pytest.approx(high, abs=0.005)


def test_one_patient_tells_nothing():
    found = estimates.share(np.array([1.0, 0.0, 1.0]), np.array([7, 7, 7]))
    assert (found.low, found.high) == (None, None)
    assert estimates.mean(np.ones(3), np.zeros(3, int), (0, 2)).low is None
    sure = estimates.share(np.ones(3), np.array([7, 7, 7]))
    assert sure.low == pytest.approx(0.025)


def coverage(n_patients, sizes, correlation, share, rounds, seed=0):
    """Share of 95 % intervals that hold the truth, hits of a patient being correlated."""
    rng = np.random.default_rng(seed)
    held = 0
    for _ in range(rounds):
        patient = np.repeat(np.arange(n_patients), sizes(rng, n_patients))
        own = np.full(n_patients, share)
        if correlation:
            strength = 1 / correlation - 1
            own = rng.beta(share * strength, (1 - share) * strength, n_patients)
        found = estimates.share((rng.random(len(patient)) < own[patient]).astype(float), patient)
        held += found.low is None or found.low <= share <= found.high
    return held / rounds


def single(rng, n):
    return np.ones(n, dtype=int)


def four(rng, n):
    return np.full(n, 4)


def uneven(rng, n):
    return rng.geometric(0.35, n)


@pytest.mark.parametrize(
    ("sizes", "correlation", "share"), [(single, 0, 0.5), (four, 0.3, 0.9), (uneven, 0.99, 0.95)]
)
def test_intervals_hold_the_truth(sizes, correlation, share):
    assert coverage(60, sizes, correlation, share, rounds=300) >= 0.92


@pytest.mark.slow
@pytest.mark.parametrize("n_patients", [10, 20, 60])
@pytest.mark.parametrize("sizes", [single, four, uneven])
@pytest.mark.parametrize("correlation", [0, 0.3, 0.99])
@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.95, 0.99])
def test_intervals_hold_the_truth_everywhere(n_patients, sizes, correlation, share):
    assert coverage(n_patients, sizes, correlation, share, rounds=2000) >= 0.94


def one_with_many(rng, n):
    """As in a real collection: most patients have one image, one has 66."""
    return np.r_[np.ones(n // 2, dtype=int), rng.geometric(0.3, n - n // 2 - 4), 26, 41, 47, 66]


@pytest.mark.parametrize(("correlation", "share"), [(0.9, 0.1), (0.9, 0.06), (0.5, 0.08)])
def test_the_upper_end_holds_where_a_patient_has_many(correlation, share):
    """It decides whether a release may go."""
    rng = np.random.default_rng(3)
    above, rounds = 0, 600
    for _ in range(rounds):
        patient = np.repeat(np.arange(219), one_with_many(rng, 219))
        strength = 1 / correlation - 1
        own = rng.beta(share * strength, (1 - share) * strength, 219)
        found = estimates.share((rng.random(len(patient)) < own[patient]).astype(float), patient)
        above += found.high < share
    assert above / rounds <= 0.05


def test_interval_of_a_mean_holds_the_truth():
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(400):
        patient = np.repeat(np.arange(30), 3)
        values = rng.normal(size=30)[patient] + rng.normal(size=90)
        found = estimates.mean(values, patient, (-9, 9))
        held += found.low <= 0 <= found.high
    assert 0.92 <= held / 400 <= 0.98


def test_interval_of_a_median_holds_the_truth():
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(400):
        patient = np.repeat(np.arange(30), 3)
        values = np.exp(rng.normal(size=30)[patient] + 0.5 * rng.normal(size=90))
        found = estimates.median(values, patient)
        held += found.low <= 1 <= found.high
    assert held / 400 >= 0.93


def assert_rarely_left(chance, drawn):
    """Of many runs of chance at most one in a thousand, and a little for luck, is outside."""
    outside = ((drawn < chance.low - 1e-12) | (drawn > chance.high + 1e-12)).mean()
    assert outside <= 0.001 + 3 * math.sqrt(0.001 / len(drawn))


@pytest.mark.parametrize(("n", "m"), [(1, 1), (2, 2), (5, 5), (60, 60), (60, 200), (400, 425)])
def test_random_pairs_of_records_stay_within_chance(n, m):
    rng = np.random.default_rng(0)
    truth = rng.permuted(np.tile(np.arange(m), (20_000, 1)), axis=1)[:, :n]
    hits = (truth == np.arange(n)).mean(axis=1)
    chance = estimates.random_hits(n / m, n)
    assert chance.value == pytest.approx(1 / m)
    assert hits.mean() == pytest.approx(1 / m, abs=5 * hits.std() / math.sqrt(20_000) + 1e-9)
    assert_rarely_left(chance, hits)


@pytest.mark.parametrize("sizes", [[2] * 30, [10] * 6, [30, 5, 5, 1, 1], [1] * 20 + [20]])
def test_random_pairs_of_patients_stay_within_chance(sizes):
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(len(sizes)), sizes)
    n = len(patient)
    truth = rng.permuted(np.tile(patient, (20_000, 1)), axis=1)
    expected = float((np.array(sizes) ** 2).sum()) / n
    chance = estimates.random_hits(expected, n, clump=estimates.clumping(patient))
    assert (truth == patient).mean() == pytest.approx(chance.value, rel=0.02)
    assert_rarely_left(chance, (truth == patient).mean(axis=1))


@pytest.mark.parametrize(("n", "m"), [(3, 3), (3, 5), (1, 4), (5, 5)])
def test_variance_over_all_pairings(n, m):
    values = np.random.default_rng(4).normal(size=(n, m))
    means = [values[np.arange(n), list(p)].mean() for p in permutations(range(m), n)]
    chance = estimates.random_pairs(values, np.arange(n))
    assert chance.value == pytest.approx(np.mean(means))
    assert (chance.high - chance.value) / 3.2905 == pytest.approx(np.std(means))


def test_random_medians_stay_within_chance():
    rng = np.random.default_rng(3)
    values = rng.normal(size=(80, 80))
    truth = rng.permuted(np.tile(np.arange(80), (5000, 1)), axis=1)
    drawn = np.median(values[np.arange(80), truth], axis=1)
    assert_rarely_left(estimates.random_median(values, np.arange(80)), drawn)


@pytest.mark.parametrize("sizes", [[1] * 40, [3] * 40, [1, 2, 3, 6] * 10])
@pytest.mark.parametrize("varies", [False, True])
def test_areas_of_scores_that_tell_nothing_stay_within_chance(sizes, varies):
    rng = np.random.default_rng(5)
    patient = np.repeat(np.arange(40), sizes)
    n, drawn, first = len(patient), [], None
    for _ in range(1500):
        score = rng.normal(size=40)[patient] + 0.3 * rng.normal(size=n)
        positive = rng.permutation(np.arange(40) < 15)[patient]
        if varies:
            positive ^= rng.random(n) < 0.1
        first = first or estimates.random_area(score, positive, patient, seed=0)
        drawn.append((score[positive][:, None] > score[~positive]).mean())
    assert first.value == pytest.approx(0.5, abs=0.03)
    # The range is that of one draw of scores, others have one of their own.
    outside = [not first.low - 0.03 <= one <= first.high + 0.03 for one in drawn]
    assert np.mean(outside) <= 0.005


def test_areas_of_one_class_are_left_out():
    found = estimates.random_area(np.arange(3.0), np.array([True, False, False]), np.arange(3), 0)
    assert (found.low, found.high) == (0, 1)


def test_random_owners_are_dealt():
    rng = np.random.default_rng(6)
    patient = np.repeat(np.arange(20), 3)
    patient[-2:] = [50, 51]  # these and patient 19 have one code
    nearest = (np.arange(60) + 1) % 60
    chance = estimates.random_owners(nearest, patient, seed=0)
    truth = rng.permuted(np.tile(patient, (20_000, 1)), axis=1)
    hits = (truth == truth[:, nearest]).sum(axis=1) / 57
    assert chance.value == pytest.approx(2 / 59, rel=0.02)
    assert_rarely_left(chance, hits)


def test_random_links():
    rng = np.random.default_rng(7)
    patient = np.repeat(np.arange(25), 2)
    left, right = np.triu_indices(50, 1)
    own = np.flatnonzero(patient[left] == patient[right])
    rank = np.zeros((50, 50))
    # Some codes are similar to all.
    values = rng.normal(size=50)[left] + rng.normal(size=50)[right]
    rank[left, right] = rank[right, left] = values.argsort().argsort() + 1
    chance = estimates.random_links(rank, left[own], right[own], seed=0)
    drawn = []
    for _ in range(3000):
        dealt = rng.permutation(patient)
        same = dealt[left] == dealt[right]
        drawn.append((values[same][:, None] > values[~same]).mean())
    assert chance.value == pytest.approx(np.mean(drawn), abs=0.01)
    assert_rarely_left(chance, np.array(drawn))


def test_random_identities():
    rng = np.random.default_rng(8)
    first, second = np.repeat(np.arange(30), 2), np.repeat(np.arange(30), 3)
    # Codes of a patient are alike in each release, and nothing is shared by the two.
    table = rng.normal(size=(30, 30))[first][:, second] + 0.1 * rng.normal(size=(60, 90))
    rank = (table.ravel().argsort().argsort() + 1.0).reshape(table.shape)
    nearest = table.argmax(axis=1)
    ranks, hits = np.zeros((30, 30)), np.zeros((30, 30), dtype=int)
    np.add.at(ranks, (first[:, None], second), rank)
    np.add.at(hits, (first, second[nearest]), 1)
    area, share = estimates.random_identities(
        ranks, hits, np.bincount(first), np.bincount(second), seed=0
    )
    areas, shares = [], []
    for _ in range(2000):
        dealt = rng.permutation(30)[second]
        same = first[:, None] == dealt
        areas.append((rank[same].sum() / 180 - 181 / 2) / (60 * 90 - 180))
        shares.append((dealt[nearest] == first).mean())
    assert area.value == pytest.approx(0.5, abs=0.01)
    assert share.value == pytest.approx(1 / 30, rel=0.05)
    assert_rarely_left(area, np.array(areas))
    assert_rarely_left(share, np.array(shares))


def test_clumping():
    assert estimates.clumping(np.arange(5)) == 1
    assert estimates.clumping(np.array([3, 3, 3, 9])) == pytest.approx(10 / 4)
