"""Measures of an attack over all targets: plain versions, chance and coverage."""

import numpy as np
import pytest

import oracles
from audits.studies import cohort_of, study
from confide.attacks import LossThreshold
from confide.audits.aggregate import (
    FPRS,
    _Bootstrap,
    _patient_weights,
    evaluate,
    true_positive_rate,
)
from confide.audits.clustered import ordered, owners
from confide.masks import balanced


def plain_rate(scores, held, fpr):
    """Share of positives at or above the k-th highest negative."""
    negatives = np.sort(scores[~held])[::-1]
    k = max(int(np.floor(fpr * len(negatives) + 1e-9)), 1)
    return (scores[held] > negatives[k - 1]).mean(), k


def test_rates_are_the_plain_ones():
    rng = np.random.default_rng(0)
    scores, held = rng.standard_normal(500), rng.random(500) < 0.5
    fprs = np.array([0.001, 0.01, 0.1, 0.5])
    rates, false = true_positive_rate(ordered(scores, held), fprs)
    plain = [plain_rate(scores, held, f) for f in fprs]
    np.testing.assert_allclose(rates, [p[0] for p in plain])
    assert false.tolist() == [p[1] for p in plain]
    assert true_positive_rate(ordered(scores, held), np.array([1.0]))[0] == [1.0]


def test_equal_scores_fall_together():
    scores = np.array([3.0, 2, 2, 2, 1, 0])
    held = np.array([1, 1, 0, 0, 1, 0], dtype=bool)
    rates, false = true_positive_rate(ordered(scores, held), np.array([0.34, 0.67]))
    np.testing.assert_allclose(rates, [1 / 3, 2 / 3])
    assert false.tolist() == [0, 2]


def test_a_guess_has_the_rate_of_its_false_positives():
    """Also at a single false positive, where counting on to the next would double the rate."""
    rng = np.random.default_rng(1)
    fprs = np.array([0.01, 0.05, 0.1])
    rates = []
    for _ in range(4000):
        held = np.arange(200) < 100
        rates.append(true_positive_rate(ordered(rng.random(200), held), fprs)[0])
    error = np.std(rates, axis=0) / np.sqrt(4000)
    assert (np.abs(np.mean(rates, axis=0) - fprs * 100 / 101) < 4 * error).all()


def test_bootstrap_is_the_slow_one():
    """The variance of rates by weights on one order, against drawing and sorting again."""
    signal, held, cohort = study(2, n_patients=300, leak=1.0)
    scores, truth = signal[0], cohort.expand(held)[0]
    fprs = np.array([0.01, 0.05, 0.1])
    quick = _Bootstrap(_patient_weights(300, 0), fprs)
    o = ordered(scores, truth)
    quick.add([(o, owners(o, cohort.patient_index, 300))])
    rng = np.random.default_rng(0)
    rows = [np.flatnonzero(cohort.patient_index == p) for p in range(300)]
    slow = []
    for _ in range(300):
        drawn = np.concatenate([rows[p] for p in rng.integers(0, 300, 300)])
        slow.append([plain_rate(scores[drawn], truth[drawn], f)[0] for f in fprs])
    np.testing.assert_allclose(np.sqrt(quick.within), np.std(slow, axis=0), rtol=0.25)
    np.testing.assert_allclose(quick.total.mean(axis=0), np.mean(slow, axis=0), atol=0.02)


def test_measures():
    signal, held, cohort = study(3, leak=1.0)
    measures, roc = evaluate(signal, held, cohort)
    by_record = cohort.expand(held)
    areas = [oracles.auc(s[h], s[~h]) for s, h in zip(signal, by_record, strict=True)]
    assert measures["auc"] == pytest.approx(np.mean(areas))
    assert measures["auc_low"] < measures["auc"] < measures["auc_high"]
    assert list(measures["tpr_at_fpr"]) == [f"{f:g}" for f in FPRS]
    assert measures["tpr_at_fpr"]["0.0001"] is None  # below one false positive
    point = measures["tpr_at_fpr"]["0.1"]
    plain = [plain_rate(s, h, 0.1) for s, h in zip(signal, by_record, strict=True)]
    assert point["tpr"] == pytest.approx(np.mean([p[0] for p in plain]))
    assert point["n_false_positives"] == sum(p[1] for p in plain)
    ppv = point["tpr"] * 0.01 / (point["tpr"] * 0.01 + 0.1 * 0.99)
    assert point["ppv"]["0.01"] == pytest.approx(ppv)
    assert (np.diff(roc["y"]) >= -1e-12).all()
    assert roc["y"].iloc[-1] == 1.0


def test_unmeasurable():
    cohort = cohort_of(np.arange(5))
    scores = np.full((4, 5), np.nan)
    measures, roc = evaluate(scores, balanced(4, 5), cohort)
    assert np.isnan([measures["auc"], measures["auc_low"]]).all()
    assert measures["balanced_accuracy"] is None
    assert set(measures["tpr_at_fpr"].values()) == {None}
    assert roc.empty


@pytest.mark.parametrize(("n_models", "between", "least"), [(16, 0.0, 0.95), (8, 0.3, 0.95)])
def test_intervals_cover_fresh_patients_and_models(n_models, between, least):
    found = []
    for seed in range(120):
        signal, held, cohort = study(
            seed, n_patients=80, n_models=n_models, leak=0.7, between=between
        )
        scores = LossThreshold().leave_one_out(signal, cohort.expand(held))
        measures, _ = evaluate(scores, held, cohort, seed=seed)
        rate = measures["tpr_at_fpr"]["0.1"]
        found.append(
            [
                [measures["auc"], measures["auc_low"], measures["auc_high"]],
                [rate["tpr"], rate["low"], rate["high"]],
            ]
        )
    value, low, high = np.asarray(found).transpose(2, 1, 0)
    truth = value.mean(axis=1, keepdims=True)
    inside = ((low <= truth) & (truth <= high)).mean(axis=1)
    assert (inside >= least - 3.5 * np.sqrt(0.95 * 0.05 / 120)).all(), inside


def test_weights_down_the_order_are_the_plain_sums():
    """Ties across the edges, unknown scores, and several models at a time."""
    signal, held, cohort = study(4, n_patients=40, n_models=3, leak=1.0)
    signal[:, 5:8] = np.nan
    weights, models = _patient_weights(40, 0), []
    for t, scores in enumerate(np.round(signal, 1)):
        o = ordered(scores, cohort.expand(held[t]))
        models.append((o, owners(o, cohort.patient_index, 40)))
        bootstrap, edges = _Bootstrap(weights, np.array([0.1])), np.array([0, 1, 2, 5, 11])
        down = bootstrap._down_the_order(o.false, o.true, o.positive, models[-1][1].owner, edges)
        for i, edge in enumerate(edges):
            n_steps = int((o.false <= edge).sum())
            last = o.ends[n_steps - 1] + 1 if n_steps else 0
            rows = o.rows[:last][o.positive[:last]]
            np.testing.assert_array_equal(
                down[:, i], weights[cohort.patient_index[rows]].sum(axis=0)
            )
    together, one_by_one = (_Bootstrap(weights, np.array([0.05, 0.1])) for _ in range(2))
    together.add(models)
    for one in models:
        one_by_one.add([one])
    np.testing.assert_array_equal(together.total, one_by_one.total)
    np.testing.assert_array_equal(together.within, one_by_one.within)


def test_weights_are_one_draw():
    """Drawn some resamples at a time, for memory's sake."""
    drawn = np.random.default_rng(3).multinomial(50, np.full(50, 0.02), size=200)
    np.testing.assert_array_equal(_patient_weights(50, 3), drawn.T)
