"""Several labels a record, some of them unknown: what is summed, and what is never counted."""

import numpy as np
import pytest
from scipy.special import log_expit, logsumexp
from scipy.stats import norm

import oracles
from attacks.contract import mean_auc, study
from confide.attacks import (
    RMIA,
    CalibratedLoss,
    LiRA,
    LossThreshold,
    LossTraceIQR,
    OfflineLiRA,
    OfflineRMIA,
    PerRecord,
    QuantileRegression,
)
from confide.signals import signals as to_signals

ATTACKS = [
    LiRA(),
    LiRA(PerRecord()),
    OfflineLiRA(),
    RMIA(),
    OfflineRMIA(a=0.3),
    OfflineRMIA(),
    LossThreshold(),
    CalibratedLoss(),
    QuantileRegression(),
    LossTraceIQR(),
]


def findings(seed, n_models=12, n_records=60, n_views=2, n_labels=3, leak=0.7):
    """Signals with each label unknown for a quarter of the records, and labels of 1, 0, NaN."""
    rng = np.random.default_rng(seed)
    signals, held = study(seed, n_models, n_records, leak=leak, shape=(n_views, n_labels))
    label = rng.integers(0, 2, (n_records, n_labels)).astype(float)
    label[rng.random(label.shape) < 0.25] = np.nan
    label[np.isnan(label).all(axis=1), 0] = 1.0
    label[0], label[1, 1:] = np.nan, np.nan
    label[1, 0] = 0.0
    logits = (2 * np.nan_to_num(label, nan=1.0) - 1)[:, None] * signals
    return logits, label, held


@pytest.mark.parametrize(
    ("attack", "plain"),
    [
        (LiRA(PerRecord()), lambda s, r, h: oracles.lira(s, r, h, "own")),
        (LiRA(), oracles.lira),
        (OfflineLiRA(), oracles.lira_offline),
    ],
    ids=["lira_per_record", "lira", "lira_offline"],
)
def test_lira_sums_known_labels_and_averages_views(attack, plain):
    logits, label, held = findings(0)
    signals = to_signals(logits, label, "multilabel")
    ours = attack.score(signals[0], signals[1:], held[1:])
    expected = np.zeros(60)
    for c in range(3):
        known = ~np.isnan(label[:, c])
        for v in range(2):
            # Unknown labels are left away altogether, from the prior of variances too.
            part = signals[:, known, v, c]
            expected[known] += plain(part[0], part[1:], held[1:][:, known]) / 2
    assert np.isnan(ours[0])
    np.testing.assert_allclose(ours[1:], expected[1:], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: a.name)
def test_what_a_model_says_of_an_unknown_label_never_counts(attack):
    logits, label, held = findings(1)
    z_logits, z_label, _ = findings(2)

    def scores(noise):
        rng = np.random.default_rng(3)
        for values, known in ((logits, label), (z_logits, z_label)):
            there = np.broadcast_to(np.isnan(known)[:, None], values.shape)
            values[there] = noise * rng.standard_normal(int(there.sum()))
        signals = to_signals(logits, label, "multilabel")
        z = to_signals(z_logits, z_label, "multilabel")
        one = attack.score(signals[0], signals[1:], held[1:], (z[0], z[1:]))
        return attack.leave_one_out(signals, held, z), one

    quiet, loud = scores(0.0), scores(50.0)
    for before, after in zip(quiet, loud, strict=True):
        np.testing.assert_array_equal(before, after)
        assert np.isnan(before[..., 0]).all()
        assert np.isfinite(before[..., 1:]).all()


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: a.name)
def test_one_label_is_a_binary_task(attack):
    rng = np.random.default_rng(4)
    (logits, held), (z_logits, _) = (
        study(4, 12, 60, leak=0.7, shape=(2,)),
        study(5, 12, 40, shape=(2,)),
    )
    label, z_label = rng.integers(0, 2, 60), rng.integers(0, 2, 40)
    binary = to_signals(logits[..., None], label, "binary")
    z_binary = to_signals(z_logits[..., None], z_label, "binary")
    multi = to_signals(logits[..., None], label[:, None].astype(float), "multilabel")
    z_multi = to_signals(z_logits[..., None], z_label[:, None].astype(float), "multilabel")
    assert multi.shape == (*binary.shape, 1)
    np.testing.assert_allclose(
        attack.leave_one_out(multi, held, z_multi),
        attack.leave_one_out(binary, held, z_binary),
        rtol=1e-12,
    )


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: a.name)
def test_a_label_that_nobody_knows_changes_nothing(attack):
    logits, label, held = findings(6, n_labels=2)
    signals = to_signals(logits, label, "multilabel")
    z = to_signals(*findings(7, n_labels=2)[:2], "multilabel")
    more = [np.concatenate([s, np.full((*s.shape[:3], 1), np.nan)], axis=3) for s in (signals, z)]
    np.testing.assert_allclose(
        attack.leave_one_out(more[0], held, more[1]),
        attack.leave_one_out(signals, held, z),
        rtol=1e-12,
    )


def test_probabilities_are_geometric_means_over_known_labels():
    logits, label, held = findings(8)
    signals = to_signals(logits, label, "multilabel")
    calibrated = CalibratedLoss().score(signals[0], signals[1:], held[1:])
    for x in range(1, 60):
        known = ~np.isnan(label[x])
        log_p = logsumexp(log_expit(signals[:, x][:, :, known]).mean(axis=2), axis=1) - np.log(2)
        expected = log_p[0] - log_p[1:][~held[1:, x]].mean()
        assert calibrated[x] == pytest.approx(expected, rel=1e-10)


def test_more_known_labels_tell_more():
    """Closed form of the sum of independent likelihood ratios: Phi(leak sqrt(k / 2))."""
    signals, held = study(9, n_models=400, n_records=250, leak=0.5, shape=(1, 4))
    areas = []
    for k in (1, 2, 4):
        some = signals.copy()
        some[..., k:] = np.nan
        areas.append(mean_auc(LiRA().leave_one_out(some, held), held))
    # Estimated moments cost up to a hundredth.
    expected = norm.cdf(0.5 * np.sqrt(np.array([1, 2, 4]) / 2))
    np.testing.assert_allclose(areas, expected - 0.005, atol=0.01)
