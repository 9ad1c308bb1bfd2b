"""From noise to epsilon: against dp-accounting, closed forms and published figures."""

from __future__ import annotations

import builtins

import numpy as np
import pytest
from scipy.special import ndtr

from confide.errors import ArgumentError, MissingExtraError
from confide.training import accounting
from confide.training.accounting import (
    Mechanism,
    account,
    calibrated,
    curve_of,
    epsilon_of,
)
from confide.training.privacy import Privacy

pytest.importorskip("dp_accounting")
KNOWN = Mechanism(noise=1.0, rate=0.02, steps=1000)


def _gaussian_delta(epsilon, mu):
    """Balle and Wang, ICML 2018, theorem 8: one Gaussian mechanism."""
    return ndtr(mu / 2 - epsilon / mu) - np.exp(epsilon) * ndtr(-mu / 2 - epsilon / mu)


@pytest.mark.parametrize(
    ("k", "epsilon"),
    [(1, 3.899), (2, 8.745), (10, 71.5), pytest.param(5, 27.52, marks=pytest.mark.slow)],
)
def test_a_patient_with_several_records_is_promised_less(k, epsilon):
    """Figures of dp_accounting's own mixture of Gaussians at a gap of 1e-4, computed once.

    The last one is of another implementation and known to three digits.
    """
    assert epsilon_of(KNOWN, 1e-5, k) == pytest.approx(epsilon, rel=1e-3)


def test_one_step_agrees_with_the_mixture_of_the_library():
    from dp_accounting.pld import privacy_loss_distribution as pld

    mechanism, k = Mechanism(noise=1.0, rate=0.3, steps=1), 2
    gap = 0.02
    theirs = pld.from_mixture_gaussian_mechanism(
        1.0, [0, 1, 2], [0.49, 0.42, 0.09], value_discretization_interval=gap
    )
    grid = [0.1, 0.5, 1.0, 2.0, 4.0]
    for removes, one in ((True, theirs._pmf_remove), (False, theirs._pmf_add)):
        ours = accounting._mixture(mechanism, k, gap, removes)
        wanted = one.get_delta_for_epsilon(grid)
        np.testing.assert_allclose(ours.get_delta_for_epsilon(grid), wanted, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize(("k", "noise"), [(1, 2.0), (3, 6.0)])
def test_without_sampling_it_is_a_gaussian_mechanism(k, noise):
    mechanism = Mechanism(noise=noise, rate=1.0, steps=16)
    mu = 4 * k / noise
    curve = curve_of(mechanism, 1e-5, k)
    exact = _gaussian_delta(curve.epsilon, mu)
    assert (exact <= curve.delta * (1 + 1e-6)).all()  # from above
    np.testing.assert_allclose(
        _gaussian_delta(0.995 * curve.epsilon - 0.01, mu) > curve.delta, True
    )


def test_a_curve_falls_and_holds_the_wanted_delta():
    curve = curve_of(KNOWN, 3e-6)
    assert curve.epsilon[0] == 0
    assert (np.diff(curve.epsilon) > 0).all()
    assert (np.diff(curve.delta) < 0).all()
    at = list(curve.delta).index(3e-6)
    assert curve.epsilon[at] == pytest.approx(epsilon_of(KNOWN, 3e-6))


def test_more_noise_is_more_private():
    found = [epsilon_of(Mechanism(noise=s, rate=0.02, steps=200), 1e-5) for s in (1, 2, 5)]
    assert found == sorted(found, reverse=True)
    assert found[-1] > 0


@pytest.mark.parametrize("epsilon", [0.5, 8.0])
def test_calibrated_noise_keeps_the_promise_and_wastes_little(epsilon):
    mechanism = calibrated(0.05, 100, epsilon, 1e-5)
    assert epsilon * 0.99 < epsilon_of(mechanism, 1e-5) <= epsilon


def test_noise_grows_with_what_is_asked():
    noises = [calibrated(0.05, 100, epsilon, 1e-5).noise for epsilon in (8.0, 2.0)]
    assert noises == sorted(noises)
    assert calibrated(0.2, 100, 2.0, 1e-5).noise > noises[1]


def test_an_account_names_all_that_was_counted():
    asked = Privacy(unit="record", epsilon=2.0, delta=1e-4)
    found = account(asked, rate=0.05, steps=100, most_records=2, n_patients=500)
    assert found["asked"] == 2.0
    assert found["epsilon"] == found["by_unit"]["record"]["epsilon"] <= 2.0
    assert found["by_unit"]["patient"]["epsilon"] > 1.9 * found["epsilon"]
    assert (found["clip"], found["rate"], found["steps"]) == (1.0, 0.05, 100)
    assert found["adjacency"] == "add or remove one"
    assert found["warnings"] == []


def test_by_patient_there_is_no_promise_for_a_record():
    asked = Privacy(unit="patient", epsilon=2.0, delta=1e-4)
    found = account(asked, rate=0.05, steps=100, most_records=30, n_patients=500)
    assert list(found["by_unit"]) == ["patient"]
    assert found["by_unit"]["patient"]["epsilon"] <= 2.0


@pytest.mark.parametrize(
    ("delta", "n_patients", "away"), [(1e-2, 500, "5"), (1e-3, 100.1, "0.1"), (1e-3, 99.9, None)]
)
def test_a_delta_that_gives_a_tenth_of_a_patient_away_is_warned_of(delta, n_patients, away):
    asked = Privacy(unit="patient", epsilon=2.0, delta=delta)
    found = account(asked, rate=0.2, steps=4, most_records=1, n_patients=n_patients)["warnings"]
    if away is None:
        assert found == []
        return
    assert f"delta = {delta:g} is not well below one in the {n_patients:,.0f} pati" in found[0]
    assert f"giving away {away} patients entirely, on average" in found[0]
    assert f"Set a delta below {0.1 / n_patients:.3g}." in found[0]


def test_a_huge_epsilon_is_left_coarse_and_still_from_above():
    mechanism, k = Mechanism(noise=1.5, rate=0.25, steps=160), 10
    fine = accounting._composed_at(mechanism, k, accounting._gap(mechanism, k))
    exact = fine.get_epsilon_for_delta(1e-5)
    assert 100 < exact < epsilon_of(mechanism, 1e-5, k) < 1.005 * exact


def test_an_account_composes_once_a_unit(monkeypatch):
    composed, real = [], accounting._composed_at
    monkeypatch.setattr(
        accounting, "_composed_at", lambda m, k, gap: composed.append(k) or real(m, k, gap)
    )
    asked = Privacy(unit="record", epsilon=3.0, delta=1e-4)
    account(asked, rate=0.04, steps=50, most_records=40, n_patients=500)
    # Of a patient with 40 records a first look, and a finer one where that is worth it.
    assert 1 <= composed.count(40) <= 2
    composed.clear()
    account(asked, rate=0.04, steps=50, most_records=40, n_patients=500)
    assert composed == []


def test_an_epsilon_out_of_reach_is_refused():
    with pytest.raises(ArgumentError, match="No noise gives epsilon=1e-05 at delta=1e-09 in 9,"):
        calibrated(1.0, 9000, 1e-5, 1e-9)


@pytest.mark.parametrize(
    ("change", "words"),
    [({"rate": 0.0}, "rate=0.0"), ({"rate": 1.1}, "rate=1.1"), ({"steps": 0}, "steps=0")],
)
def test_mechanisms_that_are_none(change, words):
    with pytest.raises(ArgumentError, match=words):
        Mechanism(**{"noise": 1.0, "rate": 0.1, "steps": 1} | change)


def test_without_the_accountant_the_extra_is_named(monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **more):
        if name.startswith("dp_accounting"):
            raise ImportError(name)
        return real(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"install confide\[privacy\]"):
        accounting._library()
