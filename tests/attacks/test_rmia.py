"""RMIA against the double loop over records and population."""

import numpy as np
import pytest

import oracles
from attacks.contract import mean_auc, study
from confide.attacks import RMIA, OfflineRMIA


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("a", [None, 0.0, 0.6, 1.0])
def test_the_share_of_the_population_is_exact(gamma, a):
    signals, held = study(0, n_models=9, n_records=40, leak=1.0)
    z, _ = study(1, n_models=9, n_records=31)
    attack = RMIA(gamma) if a is None else OfflineRMIA(a, gamma)
    scores = attack.score(signals[0], signals[1:], held[1:], (z[0], z[1:]))
    share = np.floor(scores * 32) / 31  # what remains orders equal shares
    plain = oracles.rmia_fraction(signals[0], signals[1:], held[1:], z[0], z[1:], gamma, a)
    np.testing.assert_allclose(share, plain, atol=1e-12)


def test_the_population_never_reorders_records():
    signals, held = study(2, leak=1.0)
    z, _ = study(3, n_records=11)
    for attack in (RMIA(), OfflineRMIA(a=0.3)):
        with_z = attack.leave_one_out(signals, held, z)
        without = attack.leave_one_out(signals, held)
        for row, plain in zip(with_z, without, strict=True):
            assert (row.argsort() == plain.argsort()).all()


def test_a_is_tuned_without_the_target():
    """Flipping the target's membership, or its signals, leaves its `a` as it was."""
    signals, held = study(4, leak=1.5)
    attack = OfflineRMIA()
    before = attack._tuned_for_all(signals, held)
    for target in (0, 7, 15):
        flipped, changed = held.copy(), signals.copy()
        flipped[target] = ~held[target]
        changed[target] = -3.0
        assert attack._tuned_for_all(signals, flipped)[target] == before[target]
        assert attack._tuned_for_all(changed, held)[target] == before[target]


def test_a_is_the_best_on_the_paired_reference():
    signals, held = study(5, leak=1.5)
    attack = OfflineRMIA()
    tuned = attack._tuned_for_all(signals, held)[0]
    areas = {
        a: mean_auc(OfflineRMIA(a).score(signals[1], signals[2:], held[2:])[None], held[1:2])
        for a in np.linspace(0, 1, 11)
    }
    assert areas[min(areas, key=lambda a: abs(a - tuned))] == pytest.approx(max(areas.values()))


def test_nothing_to_tune_on():
    signals, held = study(6, n_models=4, n_records=5)
    held[1] = True
    assert np.isfinite(OfflineRMIA().score(signals[0], signals[1:], held[1:])).any()
