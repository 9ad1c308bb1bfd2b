"""Resampling of patients, against resampling that really copies records."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy import stats

from confide.audits import bootstrap
from confide.audits.bootstrap import patient_bootstrap
from confide.audits.clustered import MeanOverModels, auc_influence, ordered
from confide.errors import ArgumentError
from oracles import auc


def _study(rng, n_patients=60, mean_records=3, effect=1.0, n_scores=1):
    """Scores that share a part within a patient; labels that often agree within one."""
    patient = np.repeat(np.arange(n_patients), 1 + rng.poisson(mean_records - 1, n_patients))
    sick = rng.random(n_patients) < 0.5
    flip = rng.random(len(patient)) < 0.1
    positive = sick[patient] ^ flip
    own = rng.normal(size=(n_scores, n_patients))[:, patient]
    scores = own + rng.normal(size=(n_scores, len(patient))) + effect * positive
    return scores, positive, patient


def _slow(scores, positive, patient, sites, counts):
    """Areas of records that are really copied, (n_scores,) for all sites and for each."""
    rows = np.concatenate(
        [np.flatnonzero(patient == p) for p, k in enumerate(counts) for _ in range(k)]
    )
    parts = [rows, *(rows[np.isin(patient[rows], site)] for site in sites)]
    return np.array(
        [[auc(s[part][positive[part]], s[part][~positive[part]]) for s in scores] for part in parts]
    )


def test_areas_are_those_of_copied_records():
    rng = np.random.default_rng(0)
    scores, positive, patient = _study(rng, n_patients=20, n_scores=2)
    scores[1] = np.round(scores[1])  # ties
    stratum = np.arange(20) % 3
    sites = [np.flatnonzero(stratum == s) for s in range(3)]
    found = patient_bootstrap(scores, positive, patient, stratum=stratum, n_resamples=25, seed=4)
    drawn = [
        counts[:, i]
        for _, counts in bootstrap._counts(sites, 25, 7, 4)
        for i in range(counts.shape[1])
    ]
    assert len(drawn) == 25
    for i, counts in enumerate(drawn):
        for site in sites:
            assert counts[site].sum() == len(site)
        slow = _slow(scores, positive, patient, sites, counts)
        np.testing.assert_allclose(found.pooled.draws[i], slow[0], rtol=1e-13)
        for areas, wanted in zip(found.by_stratum, slow[1:], strict=True):
            np.testing.assert_allclose(areas.draws[i], wanted, rtol=1e-13)
    once = _slow(scores, positive, patient, sites, np.ones(20, dtype=int))
    np.testing.assert_allclose(found.pooled.value, once[0], rtol=1e-13)
    mean = found.mean_over_strata()
    np.testing.assert_allclose(mean.value, once[1:].mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(
        mean.draws, np.mean([areas.draws for areas in found.by_stratum], axis=0)
    )
    assert mean.n_patients == 20


def test_patients_are_drawn_uniformly_with_replacement():
    ((_, counts),) = bootstrap._counts([np.arange(10)], 20_000, 20_000, 0)
    observed = np.bincount(counts[3], minlength=11)
    expected = stats.binom(10, 0.1).pmf(np.arange(11)) * 20_000
    assert (
        stats.chisquare(observed[:5], expected[:5] * observed[:5].sum() / expected[:5].sum())[1]
        > 0.001
    )
    assert np.corrcoef(counts[0], counts[1])[0, 1] == pytest.approx(-1 / 9, abs=0.03)


def test_the_layout_does_not_change_the_draws(monkeypatch):
    scores, positive, patient = _study(np.random.default_rng(1))
    stratum = np.arange(60) // 30
    one = patient_bootstrap(scores, positive, patient, stratum=stratum, n_resamples=50, seed=0)
    monkeypatch.setattr(bootstrap, "_CHUNK_ELEMENTS", 7 * len(positive))
    two = patient_bootstrap(scores, positive, patient, stratum=stratum, n_resamples=50, seed=0)
    assert np.array_equal(one.pooled.draws, two.pooled.draws)
    other = patient_bootstrap(scores, positive, patient, stratum=stratum, n_resamples=50, seed=1)
    assert not np.array_equal(one.pooled.draws, other.pooled.draws)


def test_intervals_are_the_percentiles():
    scores, positive, patient = _study(np.random.default_rng(2), n_scores=2)
    pooled = patient_bootstrap(scores, positive, patient, n_resamples=400, seed=0).pooled
    one = pooled.interval(1)
    assert one.value == pooled.value[1]
    assert (one.low, one.high) == tuple(np.quantile(pooled.draws[:, 1], [0.025, 0.975]))
    two = pooled.difference(0, 1)
    gaps = pooled.draws[:, 0] - pooled.draws[:, 1]
    assert two.value == pooled.value[0] - pooled.value[1]
    assert (two.low, two.high) == pytest.approx(tuple(np.quantile(gaps, [0.025, 0.975])))
    back = pooled.difference(1, 0)
    assert (back.low, back.high) == pytest.approx((-two.high, -two.low))


def test_a_score_is_no_better_than_itself_and_pairing_helps():
    scores, positive, patient = _study(np.random.default_rng(3))
    scores = np.concatenate(
        [scores, scores, scores + 0.1 * np.random.default_rng(4).normal(size=scores.shape)]
    )
    pooled = patient_bootstrap(scores, positive, patient, n_resamples=300, seed=0).pooled
    same = pooled.difference(0, 1)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    near, alone = pooled.difference(0, 2), pooled.interval(0)
    assert near.high - near.low < 0.3 * (alone.high - alone.low)


def test_agrees_with_the_clustered_variance():
    rng = np.random.default_rng(5)
    for records in (1, 4):
        scores, positive, patient = _study(rng, n_patients=400, mean_records=records)
        pooled = patient_bootstrap(scores, positive, patient, n_resamples=2000, seed=0).pooled
        mean = MeanOverModels(400)
        mean.add(*auc_influence(ordered(scores[0], positive), patient, 400))
        assert pooled.value[0] == pytest.approx(mean.mean, rel=1e-12)
        assert pooled.draws.std() == pytest.approx(mean.se()[0], rel=0.08)
        theory, found = mean.interval(), pooled.interval(0)
        width = theory.high - theory.low
        assert found.low == pytest.approx(theory.low, abs=0.1 * width)
        assert found.high == pytest.approx(theory.high, abs=0.1 * width)


def test_coverage_with_records_of_patients():
    rng = np.random.default_rng(6)
    truth = stats.norm.cdf(1 / 2)  # records of two patients differ by N(1, 4)
    n, naive, covered, differences = 200, 0, 0, 0
    for i in range(n):
        scores, positive, patient = _study(rng, n_patients=80, n_scores=2)
        pooled = patient_bootstrap(scores, positive, patient, n_resamples=300, seed=i).pooled
        one, gap = pooled.interval(0), pooled.difference(0, 1)
        covered += one.low <= truth <= one.high
        differences += gap.low <= 0 <= gap.high
        each = np.arange(len(positive))
        alone = patient_bootstrap(scores[:1], positive, each, n_resamples=300, seed=i).pooled
        one = alone.interval(0)
        naive += one.low <= truth <= one.high
    assert covered >= 0.9 * n
    assert differences >= 0.9 * n
    assert naive < covered  # records as units promise too much


def test_coverage_of_the_mean_over_sites():
    rng = np.random.default_rng(7)
    truth = stats.norm.cdf(1 / 2)
    stratum = np.arange(80) % 2
    covered = 0
    for i in range(100):
        scores, positive, patient = _study(rng, n_patients=80)
        scores += 5 * stratum[patient]  # sites on different scales: within sites nothing changes
        found = patient_bootstrap(
            scores, positive, patient, stratum=stratum, n_resamples=300, seed=i
        )
        one = found.mean_over_strata().interval(0)
        covered += one.low <= truth <= one.high
    assert covered >= 90


def test_nothing_is_found_in_noise():
    rng = np.random.default_rng(8)
    wrong = 0
    for i in range(100):
        scores, positive, patient = _study(rng, effect=0.0)
        one = patient_bootstrap(scores, positive, patient, n_resamples=200, seed=i).pooled.interval(
            0
        )
        wrong += not one.low <= 0.5 <= one.high
    assert wrong <= 10


def test_resamples_without_both_classes_are_left_out_and_counted():
    scores = np.arange(6.0)[None]
    positive = np.array([False, True, False, True, False, False])
    areas = patient_bootstrap(scores, positive, np.arange(6), n_resamples=4000, seed=0).pooled
    share = (4 / 6) ** 6 + (2 / 6) ** 6  # no positive, no negative
    assert areas.n_dropped == np.isnan(areas.draws).sum()
    assert areas.n_dropped / 4000 == pytest.approx(share, abs=0.02)
    assert areas.interval(0) is not None


@pytest.mark.parametrize(
    ("positive", "patient", "value"),
    [
        ([True] * 4, [0, 1, 2, 3], np.nan),
        ([False] * 4, [0, 1, 2, 3], np.nan),
        ([True, False, False, False], [0, 1, 2, 3], 0.0),  # one patient has the positives
        ([True, True, False, True], [0, 1, 2, 1], 0.5 * 4 / 3),  # one patient has the negatives
        ([True, False, True, False], [0, 0, 0, 0], 0.25),
    ],
)
def test_no_interval_where_resampling_cannot_tell(positive, patient, value):
    scores = np.array([[0.0, 1.0, 0.5 if value == 0.25 else 0.6, 2.0]] * 2)
    areas = patient_bootstrap(
        scores, np.array(positive), np.array(patient), n_resamples=50, seed=0
    ).pooled
    assert areas.interval(0) is None
    assert areas.difference(0, 1) is None
    assert areas.n_dropped == 50
    assert np.isnan(areas.value[0]) == np.isnan(value)


def test_a_site_with_one_class_leaves_no_mean_but_the_rest():
    scores, positive, patient = _study(np.random.default_rng(9))
    stratum = np.arange(60) % 3
    positive[stratum[patient] == 1] = True
    found = patient_bootstrap(scores, positive, patient, stratum=stratum, n_resamples=50, seed=0)
    assert found.by_stratum[1].interval(0) is None
    assert found.mean_over_strata().interval(0) is None
    assert found.by_stratum[0].interval(0) is not None
    assert found.pooled.interval(0) is not None


def test_without_strata_the_mean_is_the_area():
    scores, positive, patient = _study(np.random.default_rng(10))
    found = patient_bootstrap(scores, positive, patient, n_resamples=50, seed=0)
    assert found.mean_over_strata().interval(0) == found.pooled.interval(0)


def test_a_perfect_score_is_not_certain():
    positive = np.arange(20) % 2 == 0
    for sign, edge in ((1, 1.0), (-1, 0.0)):
        one = patient_bootstrap(
            sign * positive[None].astype(float), positive, np.arange(20), n_resamples=100, seed=0
        ).pooled.interval(0)
        assert one.value == edge
        assert one.high - one.low == pytest.approx(1 - 0.025 ** (1 / 20))  # Clopper and Pearson


def test_memory_stays_bounded():
    rng = np.random.default_rng(11)
    scores, positive, patient = _study(rng, n_patients=33_000)
    assert len(positive) > 95_000
    tracemalloc.start()
    patient_bootstrap(scores, positive, patient, n_resamples=60, seed=0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200e6


GOOD = {
    "scores": np.arange(4.0)[None],
    "positive": np.array([True, False, True, False]),
    "patient": np.arange(4),
    "stratum": np.array([0, 0, 1, 1]),
    "n_resamples": 5,
    "seed": 0,
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": np.arange(4.0)}, r"scores of shape \(n_scores, n_records\).*got \(4,\)"),
        ({"scores": np.zeros((1, 3))}, r"Expected scores of shape \(any, 4\), got \(1, 3\)"),
        ({"scores": np.zeros((0, 4))}, "with a score and a record or more"),
        ({"scores": np.array([[0, 1, np.nan, 2]])}, r"scores holds nan at index \(0, 2\)"),
        ({"positive": np.arange(4)}, "Expected positive of type bool, got int64"),
        ({"positive": np.zeros((4, 1), dtype=bool)}, "Expected positive of shape"),
        ({"positive": np.zeros(0, dtype=bool)}, "and 0 records"),
        ({"patient": np.arange(3)}, r"Expected patient of shape \(4\)"),
        ({"patient": np.arange(4.0)}, "Expected patient as integers, got float64"),
        ({"patient": np.array([0, 1, 2, 4])}, "patient numbers 0 to 3, none left out, got 0 to 4"),
        ({"patient": np.array([0, 1, 2, -1])}, "none left out, got -1 to 2"),
        ({"stratum": np.zeros(3, dtype=int)}, r"Expected stratum of shape \(4\), got \(3,\)"),
        ({"stratum": np.array([0, 0, 2, 2])}, "stratum numbers 0 to 1, none left out, got 0 to 2"),
        ({"n_resamples": 0}, "Expected n_resamples=0 in"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    patient_bootstrap(**GOOD)
    with pytest.raises(ArgumentError, match=message):
        patient_bootstrap(**GOOD | change)
