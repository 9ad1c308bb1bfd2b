"""The difficulty-calibrated loss against a loop, and against what it should add to a threshold."""

import numpy as np
from scipy.special import log_expit
from scipy.stats import norm

from attacks.contract import mean_auc, study
from confide.attacks import CalibratedLoss, LossThreshold
from confide.masks import balanced


def test_is_the_loss_less_the_mean_loss_of_models_without_the_record():
    signals, held = study(0, n_models=9, n_records=30, leak=1.0)
    ours = CalibratedLoss().score(signals[0], signals[1:], held[1:])
    for x in range(30):
        losses = [-log_expit(s[x]) for s, h in zip(signals[1:], held[1:], strict=True) if not h[x]]
        assert np.isclose(ours[x], np.mean(losses) - -log_expit(signals[0, x]), rtol=1e-12)


def test_references_with_the_record_do_not_matter():
    signals, held = study(1, n_models=20, n_records=60)
    there = np.where(held[1:], signals[1:] + 100.0, signals[1:])
    attack = CalibratedLoss()
    np.testing.assert_array_equal(
        attack.score(signals[0], signals[1:], held[1:]), attack.score(signals[0], there, held[1:])
    )


def test_takes_the_difficulty_of_a_record_off():
    """Closed form: levels five times as wide as the noise hide a shift from a threshold.

    Far from zero the log probability is the signal itself, so that the area of the threshold is
    Phi(shift / sqrt(2 (1 + 25))), and calibrated by 31 models without the record
    Phi(shift / sqrt(2 (1 + 1 / 31))).
    """
    rng = np.random.default_rng(2)
    held = balanced(64, 2_000, seed=2)
    level = rng.normal(-40, 5, 2_000)
    signals = level + rng.standard_normal((64, 2_000)) + 0.8 * held
    plain = mean_auc(LossThreshold().leave_one_out(signals, held), held)
    calibrated = mean_auc(CalibratedLoss().leave_one_out(signals, held), held)
    assert abs(plain - norm.cdf(0.8 / np.sqrt(2 * 26))) < 0.01
    assert abs(calibrated - norm.cdf(0.8 / np.sqrt(2 * (1 + 1 / 31)))) < 0.005


def test_no_reference_without_the_record():
    signals, held = study(3, n_models=6, n_records=10)
    held[1:, 4] = True
    scores = CalibratedLoss().score(signals[0], signals[1:], held[1:])
    assert np.isnan(scores[4])
    assert np.isfinite(np.delete(scores, 4)).all()
