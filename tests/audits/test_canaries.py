import json

import numpy as np
import pytest

from audits.studies import cohort_of, study
from confide.attacks import RMIA
from confide.attacks.base import Attack
from confide.audits import canaries
from confide.audits.canaries import EpsilonSettings, canaries_found, epsilon_bounds
from confide.audits.epsilon import guessing_epsilon
from confide.audits.multiple import benjamini_hochberg
from confide.errors import ArgumentError
from confide.masks import balanced


def by_method(found, unit="patient"):
    return {b["method"]: b for b in found if b["unit"] == unit}


def laplace_study(seed, epsilon, n_patients=40, n_models=32, fraction=0.5, n_records=1):
    """Each record answers with epsilon-private noise; a patient has `n_records` of them."""
    rng = np.random.default_rng([seed, 1])
    cohort = cohort_of(np.repeat(np.arange(n_patients), n_records))
    held = balanced(n_models, n_patients, fraction=fraction, seed=seed)
    signal = cohort.expand(held) + rng.laplace(size=(n_models, cohort.n_records)) / epsilon
    return signal, held, cohort


class Spy(Attack):
    """Knows the masks of the references, and nothing of the target."""

    name = "spy"

    def score(self, target, references, membership, population=None, **more):
        return -membership.sum(axis=0).astype(float)

    def leave_one_out(self, signals, membership, population=None, **more):
        raise NotImplementedError


def audits(studies, **given):
    return [epsilon_bounds(*s, **given) for s in studies]


def epsilons(found, method="one_run", unit="patient"):
    return np.array([by_method(f, unit)[method]["epsilon"] for f in found])


def wrong(found, epsilon, method="one_run", unit="patient"):
    return float((epsilons(found, method, unit) > epsilon).mean())


@pytest.mark.parametrize("n_models", [8, 15, 32])
def test_nothing_is_refuted_where_nothing_leaks(n_models):
    studies = [study(seed, n_patients=30, n_models=n_models, most=3) for seed in range(60)]
    found = audits(studies, settings=EpsilonSettings(most=15))
    for method in ("one_run", "clopper_pearson", "gdp"):
        for unit in ("patient", "record"):
            assert wrong(found, 0.0, method, unit) <= 0.05


@pytest.mark.parametrize(("epsilon", "fraction"), [(1.0, 0.5), (3.0, 0.5), (2.0, 0.25)])
def test_true_claims_are_not_refuted(epsilon, fraction):
    found = audits([laplace_study(seed, epsilon, fraction=fraction) for seed in range(60)])
    assert wrong(found, epsilon) <= 0.05
    assert wrong(found, epsilon, "clopper_pearson") <= 0.05
    assert np.median(epsilons(found)) > 0.2 * epsilon


def test_a_gaussian_curve_is_an_assumption():
    """Laplace noise of epsilon 6 is no Gaussian mechanism, and gdp claims more than is true."""
    found = audits([laplace_study(seed, 6.0, n_patients=5, n_models=128) for seed in range(15)])
    assert wrong(found, 6.0, "gdp") > 0.5
    assert wrong(found, 6.0, "clopper_pearson") == 0


def test_the_masks_of_the_references_tell_nothing():
    studies = [study(seed, n_patients=40, n_models=16, most=1) for seed in range(60)]
    assert wrong(audits(studies, attack=Spy()), 0.0) <= 0.05


def test_with_all_other_models_as_references_the_masks_tell_all():
    """The mistake that the pairs prevent."""
    held = balanced(16, 300, seed=0)
    scores = -held[1:].sum(axis=0).astype(float)  # the references of model 0, nothing of itself
    assert guessing_epsilon(scores, held[0]).epsilon > 3


def test_a_patient_with_many_records_gives_away_more_than_one_record():
    studies = []
    for seed in range(20):
        signal, held, cohort = laplace_study(seed, 1.0, n_patients=80, n_records=12)
        keep = (cohort.patient_index % 2 == 0) | (np.arange(cohort.n_records) % 12 == 0)
        studies.append((signal[:, keep], held, cohort.select(keep)))
    # The noise is 1-private for a record; a patient's twelve together are 12-private.
    found = audits(studies)
    assert wrong(found, 1.0, unit="record") <= 0.05
    assert wrong(found, 1.0, unit="patient") > 0.5
    assert wrong(found, 12.0, unit="patient") == 0


def test_units():
    signal, held, cohort = laplace_study(0, 3.0, n_records=1)
    single = epsilon_bounds(signal, held, cohort)
    assert [b["unit"] for b in single] == ["patient"] * 3 + ["record"] * 3
    for a, b in zip(single[:3], single[3:], strict=True):
        assert a | {"unit": "record"} == b
    signal, held, cohort = laplace_study(0, 3.0, n_records=2)
    assert {b["unit"] for b in epsilon_bounds(signal, held, cohort)} == {"patient"}


def test_the_one_patient_who_leaks_is_chosen():
    rng = np.random.default_rng(0)
    cohort = cohort_of(np.repeat(np.arange(50), 2))
    held = balanced(64, 50, seed=1)
    signal = rng.standard_normal((64, 100))
    signal[:, 34:36] += 8.0 * held[:, [17]]
    found = by_method(epsilon_bounds(signal, held, cohort))
    assert found["clopper_pearson"]["epsilon"] > 1
    assert found["clopper_pearson"]["n_patients"] == 1
    assert found["clopper_pearson"]["n_in"] + found["clopper_pearson"]["n_out"] == 32
    assert found["gdp"]["mu"] > 1.3
    # Others dilute it, unless few are guessed.
    few = by_method(epsilon_bounds(signal, held, cohort, settings=EpsilonSettings(most=1)))
    assert few["one_run"]["n_patients"] == 1


def test_the_form_of_a_bound():
    signal, held, cohort = laplace_study(3, 4.0)
    found = epsilon_bounds(signal, held, cohort, whose="canaries")
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    for b in found:
        assert {"method", "unit", "epsilon", "delta", "confidence", "attack", "whose"} <= set(b)
        assert {"n_in", "n_out", "n_patients", "assumes"} <= set(b)
        assert b["whose"] == "canaries"
    run = by_method(found)["one_run"]
    assert run["n_in"] + run["n_out"] >= run["n_guesses"] >= run["n_correct"]
    # 32 models: 8 pairs, and in each pair about half of the 40 patients are in exactly one model.
    assert 120 < run["n_in"] + run["n_out"] < 210
    assert run["attack"] == "lira"


def test_rmia_and_its_population():
    signal, held, cohort = laplace_study(3, 8.0)
    population = np.random.default_rng(0).laplace(size=(32, 30)) / 8.0
    found = by_method(epsilon_bounds(signal, held, cohort, population=population, attack=RMIA()))
    assert found["one_run"]["attack"] == "rmia"
    assert found["one_run"]["epsilon"] > 1


def test_unknown_records_and_few_models():
    signal, held, cohort = laplace_study(4, 4.0)
    signal[:, ::2] = np.nan
    assert by_method(epsilon_bounds(signal, held, cohort))["one_run"]["n_patients"] == 20
    signal[:] = np.nan
    assert epsilon_bounds(signal, held, cohort) == []
    assert epsilon_bounds(*laplace_study(0, 4.0, n_models=6)) == []


def test_constant_signals():
    signal, held, cohort = laplace_study(5, 4.0)
    found = epsilon_bounds(np.zeros_like(signal), held, cohort)
    assert all(b["epsilon"] == 0 for b in found)


def test_even_draws_are_no_worse_than_independent_trials():
    """Counts of hits of one patient, where models differ widely in how readily they say "in"."""
    from confide.audits.epsilon import Counts, clopper_pearson_epsilon

    rng = np.random.default_rng(6)
    missed = 0
    for seed in range(400):
        held = balanced(32, 1, seed=seed)[:, 0]
        chance = rng.choice([0.02, 0.35], 32)  # without the patient; e times as likely with it
        hit = rng.random(32) < np.where(held, chance * np.e, chance)
        counts = Counts(
            hits_in=int(hit[held].sum()),
            n_in=16,
            hits_out=int(hit[~held].sum()),
            n_out=16,
        )
        missed += clopper_pearson_epsilon(counts, confidence=0.7) > 1.0
    assert missed / 400 <= 0.3


def test_canaries_found_one_at_a_time():
    p = np.array([0.5, 0.9, 0.02, 1.0])
    canaries = np.array([1e-6, 0.04, 0.005])
    wanted = sum(benjamini_hochberg(np.append(p, c))[-1] <= 0.05 for c in canaries)
    assert canaries_found(p, canaries, fdr=0.05) == {"planted": 3, "found": wanted}
    assert wanted == 2
    assert canaries_found(p, np.zeros(0), fdr=0.05) == {"planted": 0, "found": 0}


def test_settings():
    with pytest.raises(ArgumentError, match="delta=0"):
        EpsilonSettings(delta=0)
    with pytest.raises(ArgumentError, match="confidence"):
        EpsilonSettings(confidence=1.0)
    with pytest.raises(ArgumentError, match="most=0"):
        EpsilonSettings(most=0)


@pytest.mark.slow
def test_a_thousand_null_audits():
    found = audits(study(seed, n_patients=40, n_models=24, most=3) for seed in range(1000))
    for unit in ("patient", "record"):
        for method in ("one_run", "clopper_pearson", "gdp"):
            assert wrong(found, 0.0, method, unit) <= 0.05


def test_the_leak_of_patients_does_not_depend_on_parts(monkeypatch):
    signal, held, cohort = study(5, n_patients=30)
    whole = canaries._leak(signal, held, cohort)
    monkeypatch.setattr(canaries, "_PATIENTS", 7)
    np.testing.assert_array_equal(canaries._leak(signal, held, cohort), whole)
    assert np.isfinite(whole).all()
