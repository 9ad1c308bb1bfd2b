"""Quantile regression against closed forms: known distributions in known kinds of records."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from attacks.contract import mean_auc, study
from confide.attacks import LossThreshold, QuantileRegression, public_features
from confide.attacks.quantile import _Table
from confide.cohort import Cohort
from confide.errors import ArgumentError
from confide.masks import balanced

CENTRE = np.array([-3.0, 0.0, 2.0, 6.0])
WIDTH = np.array([0.5, 1.0, 2.0, 1.0])
UPPER = norm.ppf(0.9)


def kinds(seed, n_models=8, n_records=800, n_population=1600, leak=0.0):
    """Signals of four kinds of records, of other place and width; the kind is a feature."""
    rng = np.random.default_rng(seed)
    held = balanced(n_models, n_records, seed=seed)

    def draw(n, shift):
        kind = rng.integers(0, 4, n)
        z = rng.standard_normal((n_models, n)) + shift
        return CENTRE[kind] + WIDTH[kind] * z, pd.DataFrame({"kind": kind.astype(str)})

    signals, records = draw(n_records, leak * held)
    population, others = draw(n_population, 0.0)
    return signals, held, population, (records, others)


def test_without_features_it_is_one_threshold():
    signals, held = study(0, n_models=6, n_records=50)
    z, _ = study(1, n_models=6, n_records=41)
    scores = QuantileRegression().leave_one_out(signals, held, z)
    middle, upper = np.median(z, axis=1), np.quantile(z, 0.9, axis=1)
    expected = (signals - middle[:, None]) / (upper - middle)[:, None]
    np.testing.assert_allclose(scores, expected, rtol=1e-12)
    one = QuantileRegression().score(signals[2], signals[:2], held[:2], (z[2], z[:2]))
    np.testing.assert_allclose(one, expected[2], rtol=1e-12)


def test_quantiles_are_those_of_each_kind():
    signals, held, z, features = kinds(0, n_models=4, n_population=8_000)
    scores = QuantileRegression().leave_one_out(signals, held, z, features=features)
    kind = features[0]["kind"].astype(int).to_numpy()
    # The score is linear in the signal for each kind: its line gives both quantiles back.
    for t in range(4):
        for k in range(4):
            slope, offset = np.polyfit(signals[t, kind == k], scores[t, kind == k], 1)
            own = z[t, features[1]["kind"].astype(int) == k]
            middle, upper = np.quantile(own, [0.5, 0.9])
            # What boosting has not reached yet is left of the start, the quantile of all kinds.
            assert -offset / slope == pytest.approx(middle, abs=0.15 * WIDTH[k])
            assert 1 / slope == pytest.approx(upper - middle, rel=0.2)


def test_a_threshold_has_one_rate_of_false_alarms_for_every_kind():
    """Coverage: 10 % of non-members of each kind score above 1, the 90 % quantile."""
    signals, held, z, features = kinds(1, n_models=8, n_records=4_000, n_population=4_000)
    scores = QuantileRegression().leave_one_out(signals, held, z, features=features)
    kind = features[0]["kind"].astype(int).to_numpy()
    for k in range(4):
        rate = np.mean(scores[:, kind == k] > 1)
        # 8,000 new records, and 1,000 of the population that the quantile is learnt from, a model.
        assert rate == pytest.approx(0.1, abs=4 * np.sqrt(0.09 * (1 / 8_000 + 1 / 8_000)) + 0.005)


def test_members_are_found_as_if_all_records_were_of_one_kind():
    """Closed form: the area is Phi(leak / sqrt(2)), and that of one threshold is smaller."""
    signals, held, z, features = kinds(2, leak=1.0, n_population=4_000)
    known = mean_auc(QuantileRegression().leave_one_out(signals, held, z, features=features), held)
    unknown = mean_auc(QuantileRegression().leave_one_out(signals, held, z), held)
    threshold = mean_auc(LossThreshold().leave_one_out(signals, held), held)
    assert known == pytest.approx(norm.cdf(1 / np.sqrt(2)), abs=0.015)
    assert unknown == pytest.approx(threshold, abs=1e-12)
    assert known > unknown + 0.1


@pytest.mark.parametrize("seed", range(3))
def test_chance_without_a_leak(seed):
    signals, held, z, features = kinds(10 + seed, n_models=8, n_records=1_000)
    features[0]["noise"], features[1]["noise"] = np.arange(1_000.0), np.arange(1_600.0)
    scores = QuantileRegression().leave_one_out(signals, held, z, features=features)
    se = np.sqrt(1_001 / (12 * 500 * 500) / 8)
    assert abs(mean_auc(scores, held) - 0.5) < 4 * se


def test_features_that_say_nothing_cost_little():
    signals, held = study(3, n_models=4, n_records=1_000, leak=1.0)
    z, _ = study(4, n_models=4, n_records=1_000)
    rng = np.random.default_rng(5)
    features = tuple(pd.DataFrame({"noise": rng.integers(0, 5, 1_000).astype(str)}) for _ in "ab")
    plain = mean_auc(QuantileRegression().leave_one_out(signals, held, z), held)
    noisy = mean_auc(QuantileRegression().leave_one_out(signals, held, z, features=features), held)
    assert abs(plain - noisy) < 0.02


def test_members_and_references_are_not_read():
    signals, held, z, features = kinds(4, n_models=4, n_records=100, n_population=200)
    attack = QuantileRegression()
    scores = attack.leave_one_out(signals, held, z, features=features)
    np.testing.assert_array_equal(
        scores, attack.leave_one_out(signals, ~held, z, features=features)
    )
    for t in range(4):
        one = attack.score(signals[t], signals, held, (z[t], z), features=features)
        np.testing.assert_array_equal(one, scores[t])


def test_unknown_labels_views_and_new_categories():
    signals, held, z, features = kinds(5, n_models=4, n_records=100, n_population=200)
    signals = np.repeat(signals[:, :, None, None], 3, axis=3) + np.array([0.0, 1.0, -1.0])
    z = np.repeat(z[:, :, None, None], 3, axis=3) + np.array([0.0, 1.0, -1.0])
    whole = QuantileRegression().leave_one_out(signals, held, z, features=features)
    signals[:, 3] = np.nan
    z[:, 7] = np.nan
    signals[:, 5, :, 1:] = np.nan  # the mean over known labels is the same
    features[0].loc[9, "kind"] = "never seen"
    features[1].loc[4, "kind"] = None
    scores = QuantileRegression().leave_one_out(signals, held, z, features=features)
    assert np.isnan(scores[:, 3]).all()
    assert np.isfinite(np.delete(scores, 3, axis=1)).all()
    assert np.corrcoef(scores[:, 5], whole[:, 5])[0, 1] > 0.99


def test_a_constant_population_has_no_width():
    signals, held = study(6, n_models=4, n_records=30)
    scores = QuantileRegression().leave_one_out(signals, held, np.full((4, 40), 2.0))
    np.testing.assert_allclose(scores, signals - 2.0)


def test_public_features_are_labels_and_groups():
    cohort = Cohort(
        record=np.array(["a", "b", "c"], dtype=object),
        patient=np.array([1, 2, 2]),
        label=np.array([[1.0, np.nan], [0.0, 1.0], [np.nan, np.nan]]),
        task="multilabel",
        classes=("x", "y"),
        groups=pd.DataFrame({"age": [30, 40, 50], "sex": ["f", None, "m"]}),
    )
    found = public_features(cohort)
    assert list(found.columns) == ["label_0", "label_1", "group_age", "group_sex"]
    table = _Table.of((found, found), 3, 3)
    assert table.is_category.tolist() == [True, True, False, True]
    codes = table.population
    assert (codes[[0, 1], 0] >= 0).all()
    assert codes[0, 0] != codes[1, 0]
    assert codes[2, 0] == codes[0, 1] == codes[1, 3] == -1
    assert codes[:, 2].tolist() == [30, 40, 50]


def test_rare_categories_are_like_missing_ones():
    n = np.repeat(np.arange(400), np.where(np.arange(400) < 250, 2, 1))
    frame = pd.DataFrame({"site": n.astype(str)})
    table = _Table.of((frame, frame), len(n), len(n))
    assert table.population.max() == 249
    assert set(n[table.population[:, 0] < 0]) == set(range(250, 400))


def test_refusals():
    signals, held, z, (records, others) = kinds(7, n_models=4, n_records=60, n_population=80)
    attack = QuantileRegression()
    with pytest.raises(ArgumentError, match="hold some patients out"):
        attack.leave_one_out(signals, held)
    with pytest.raises(ArgumentError, match="hold some patients out"):
        attack.score(signals[0], signals[1:], held[1:])
    with pytest.raises(ArgumentError, match="at least 20 population records"):
        attack.leave_one_out(signals, held, z[:, :19])
    with pytest.raises(ArgumentError, match="of 4 models, got those of 3"):
        attack.leave_one_out(signals, held, z[:3])
    with pytest.raises(ArgumentError, match="60 records and 80 population"):
        attack.leave_one_out(signals, held, z, features=(others, records))
    with pytest.raises(ArgumentError, match="different columns"):
        attack.leave_one_out(
            signals, held, z, features=(records, others.rename(columns={"kind": "sort"}))
        )
    infinite = (records.assign(kind=np.inf), others.assign(kind=0.0))
    with pytest.raises(ArgumentError, match="'kind' is infinite"):
        attack.leave_one_out(signals, held, z, features=infinite)
