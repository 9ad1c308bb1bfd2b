"""The test that sees no model: level under no shift, power under a shift, patients as units."""

import numpy as np
import pytest

from confide.audits import blind
from confide.audits.blind import blind_test
from confide.errors import ArgumentError


def study(seed, n_patients=100, most=5, shift=0.0, sizes=None):
    """Features that records of a patient share in part, and a random half as members."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, most + 1, n_patients) if sizes is None else sizes
    owner = np.repeat(np.arange(n_patients), sizes)
    member = (rng.permutation(n_patients) < n_patients // 2)[owner]
    features = rng.standard_normal((n_patients, 8))[owner]
    features = features + 0.5 * rng.standard_normal(features.shape)
    features[:, 0] += shift * member
    return features, member, owner


def failed(found):
    return any(one.auc.low > 0.5 for one in found)


def test_a_shift_is_found_by_both_classifiers():
    found = blind_test(*study(0, shift=3.0))
    assert [one.classifier for one in found] == ["logistic", "boosting"]
    assert all(one.auc.low > 0.7 for one in found)
    assert all(one.auc.low < one.auc.value < one.auc.high for one in found)


def test_a_shift_that_is_not_linear_is_found():
    x, member, owner = study(1, n_patients=200)
    x[:, 0] = np.where(member, 2.0, 0.2) * x[:, 0]
    logistic, boosting = blind_test(x, member, owner)
    assert logistic.auc.low < 0.5 < boosting.auc.low


def test_no_shift_passes():
    assert not failed(blind_test(*study(2)))


def test_missing_values_can_tell():
    x, member, owner = study(3)
    x[:, 5] = np.where(member & (np.arange(len(x)) % 3 > 0), np.nan, x[:, 5])
    x[:, 6] = np.nan  # never known: no trouble, no information
    assert failed(blind_test(x, member, owner))


def test_one_seed_one_answer():
    given = study(4, n_patients=40)
    assert blind_test(*given, seed=5) == blind_test(*given, seed=5)
    assert blind_test(*given, seed=5) != blind_test(*given, seed=6)


def test_patients_are_the_units():
    # Records that repeat their patient 5 times say no more than one record each.
    x, member, owner = study(5, most=1, shift=0.8)
    once = blind_test(x, member, owner)[0].auc
    x, member, owner = (np.repeat(values, 5, axis=0) for values in (x, member, owner))
    many = blind_test(x, member, owner)[0].auc
    assert many.high - many.low == pytest.approx(once.high - once.low, rel=0.25)


def test_a_patient_is_never_in_training_and_test():
    # One feature names the patient: useless for others, perfect if records of one were split.
    rng = np.random.default_rng(6)
    owner = np.repeat(np.arange(60), 5)
    member = (rng.permutation(60) < 30)[owner]
    x = rng.standard_normal((60, 3))[owner]
    assert not failed(blind_test(x, member, owner))


def test_constant_features_say_nothing():
    _, member, owner = study(7)
    for one in blind_test(np.ones((len(owner), 2)), member, owner):
        assert (one.auc.value, one.auc.low, one.auc.high) == (0.5, 0.0, 1.0)


def test_perfect_separation_has_an_interval():
    _, member, owner = study(8)
    for one in blind_test(member[:, None] * 1.0, member, owner):
        assert one.auc.value == one.auc.high == 1.0
        assert 0.9 < one.auc.low < 1.0


def test_few_patients_are_no_test():
    x, _, owner = study(9, n_patients=60)
    assert blind_test(x, owner < 9, owner) is None
    assert blind_test(x, owner >= 9, owner) is None
    assert blind_test(x, owner < 10, owner) is not None


def test_records_are_capped_by_patient_and_in_all(monkeypatch):
    x, member, owner = study(10, sizes=np.array([200] + [2] * 99), shift=1.0)
    seen = []
    scores = blind._scores
    monkeypatch.setattr(
        blind, "_scores", lambda name, x, *rest: seen.append(len(x)) or scores(name, x, *rest)
    )
    blind_test(x, member, owner)
    assert seen == [203, 203]
    monkeypatch.setattr(blind, "MAX_RECORDS", 120)
    blind_test(x, member, owner)
    assert 110 < seen[-1] <= 120


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x, m, o: (x[:, 0], m, o), "Expected features"),
        (lambda x, m, o: (x[:-1], m, o), "Expected features"),
        (lambda x, m, o: (x[:, :0], m, o), "Expected features"),
        (lambda x, m, o: (x, m.astype(int), o), "Expected bool member"),
        (lambda x, m, o: (np.where(np.arange(len(x))[:, None] == 3, np.inf, x), m, o), "record 3"),
        (lambda x, m, o: (x, m, o * 0), "on both sides|no patient may"),
    ],
)
def test_wrong_input_is_refused(change, words):
    with pytest.raises(ArgumentError, match=words):
        blind_test(*change(*study(11)))


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [None, np.array([60, 40] + [2] * 98)], ids=["even", "heavy"])
def test_false_alarms_are_rare_without_a_shift(sizes):
    # Level of the two one-sided tests together: 2.5 %.  At most 4 standard errors above.
    n = 200
    found = [blind_test(*study(seed, sizes=sizes), seed=seed) for seed in range(n)]
    assert sum(map(failed, found)) <= n * 0.025 + 4 * np.sqrt(n * 0.025 * 0.975)
    # The spread of the areas is what their intervals say: 2.24 standard errors to each side.
    for one in zip(*found, strict=True):
        areas = [c.auc.value for c in one]
        widths = [(c.auc.high - c.auc.low) / (2 * 2.28) for c in one]
        assert np.mean(areas) == pytest.approx(0.5, abs=4 * np.std(areas) / np.sqrt(n))
        assert np.std(areas) == pytest.approx(np.mean(widths), rel=0.25)
