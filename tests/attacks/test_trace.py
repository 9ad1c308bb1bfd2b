"""What reads loss traces, and how attacks are given what they read."""

import numpy as np
import pandas as pd
import pytest

from attacks.contract import Sliced, study
from confide.attacks import (
    KNOWN,
    LossTraceIQR,
    QuantileRegression,
    named,
    require_inputs,
    scores_of_all,
    screen_precision,
)
from confide.errors import ArgumentError


def test_the_score_is_the_range():
    ranges, held = np.abs(study(0, n_models=5, n_records=20)[0]), study(0, 5, 20)[1]
    attack = LossTraceIQR()
    np.testing.assert_array_equal(attack.leave_one_out(Sliced(ranges), held), ranges)
    np.testing.assert_array_equal(attack.score(ranges[3], ranges[:3], held[:3]), ranges[3])


def test_each_attack_is_given_what_it_reads():
    signals, held = study(1, n_models=8, n_records=40)
    trace, z = np.abs(study(2, 8, 40)[0]), study(3, 8, 30)[0]
    features = tuple(pd.DataFrame({"a": np.arange(n) % 2}) for n in (40, 30))
    for attack in named(list(KNOWN)):
        found = scores_of_all(attack, signals, held, z, features=features, trace=trace)
        expected = attack.leave_one_out(signals, held, z)
        if attack.name == "lt_iqr":
            expected = trace
        if attack.name == "quantile":
            expected = attack.leave_one_out(signals, held, z, features=features)
        np.testing.assert_array_equal(found, expected)


def test_an_attack_without_its_input_is_refused():
    signals, held = study(4, n_models=4, n_records=30)
    with pytest.raises(ArgumentError, match=r"'lt_iqr' reads loss traces.*\{trace: true\}"):
        scores_of_all(LossTraceIQR(), signals, held)
    with pytest.raises(ArgumentError, match=r"'quantile' learns from records"):
        scores_of_all(QuantileRegression(), signals, held)
    require_inputs(["lira", "rmia", "loss", "calibrated_loss"], trace=False, population=False)
    require_inputs(["lt_iqr", "quantile"], trace=True, population=True)


def test_precision_of_a_screen_by_hand():
    held = np.array([[True] * 4 + [False] * 4] * 2)
    # Found: members above the highest but one of four non-members (a rate of 1/4 lets one pass).
    scores = np.array([[5, 1, 7, 2, 6, 3, 0, 0], [0, 0, 9, 0, 1, 2, 3, 4]], dtype=float)
    ranges = np.array([[9, 8, 1, 2, 50, 50, 50, 50], [1, 9, 2, 3, 50, 50, 50, 50]], dtype=float)
    picked, overall = screen_precision(ranges, scores, held, top=0.5, fpr=0.25)
    assert (picked, overall) == (0.25, 0.375)
    # Ranges and scores that are not known do not count; nor does a model without non-members.
    scores[0, 0], ranges[1, 1] = np.nan, np.nan
    picked, overall = screen_precision(ranges, scores, held, top=0.01, fpr=0.25)
    assert (picked, overall) == (0.0, (1 / 3 + 1 / 3) / 2)
    assert np.isnan(screen_precision(ranges, scores, np.ones_like(held))).all()
    with pytest.raises(ArgumentError, match=r"top=1\.5"):
        screen_precision(ranges, scores, held, top=1.5)


def test_a_screen_of_noise_is_as_precise_as_chance():
    rng = np.random.default_rng(5)
    scores, held = study(6, n_models=32, n_records=2_000, leak=1.0)
    noise = rng.standard_normal(scores.shape)
    picked, overall = screen_precision(noise, scores, held, top=0.1, fpr=0.05)
    assert picked == pytest.approx(overall, abs=4 * np.sqrt(overall * (1 - overall) / 3_200))
    perfect, _ = screen_precision(scores, scores, held, top=0.01, fpr=0.05)
    assert perfect == 1.0
