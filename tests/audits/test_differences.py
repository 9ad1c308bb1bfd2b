"""Differences between audits: against slow sums, known cases and simulated coverage."""

import numpy as np
import pytest

from audits.studies import cohort_of, study
from confide.attacks import LiRA
from confide.audits.aggregate import evaluate
from confide.audits.clustered import Interval
from confide.audits.differences import (
    OverModels,
    PatientAreas,
    heldout_auroc,
    interval,
    over_patients,
    paired,
    patient_areas,
    record_auc,
    unpaired,
)
from confide.audits.mann_whitney import row_auc
from confide.audits.patients import joint_signal
from confide.audits.utility import utility
from confide.cohort import Cohort
from confide.errors import ArgumentError
from confide.masks import balanced


def two_arms(seed, leak, n_patients=120, n_models=16, between=0.3):
    """Two recipes on the same patients and masks; the leak of a patient is alike in both."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(n_patients), rng.integers(1, 4, n_patients))
    cohort, held = cohort_of(patient), balanced(n_models, n_patients, seed=seed)
    own = (rng.random(n_patients) < 0.5) * np.exp(0.3 * rng.standard_normal(n_patients))
    arms = []
    for strength in leak:
        noise = rng.standard_normal((n_models, n_patients))[:, patient]
        noise = np.sqrt(0.5) * (noise + rng.standard_normal((n_models, len(patient))))
        varies = strength * np.exp(between * rng.standard_normal(n_models))[:, None]
        offset = 0.5 * rng.standard_normal(n_models)[:, None]
        arms.append(noise + offset + (varies * own * held)[:, patient])
    return arms, held, cohort


def test_areas_are_those_of_the_audit_and_cells_add_up_to_delong():
    signal, held, cohort = study(1, n_patients=20, leak=1.0)
    signal = np.round(signal, 1)  # ties
    found = patient_areas(signal, held, cohort)
    expected = row_auc(joint_signal(signal, cohort), held)
    np.testing.assert_allclose(found.areas, expected.auc)
    np.testing.assert_allclose(
        (found.cells.astype(float) ** 2).sum(axis=0), expected.se**2, rtol=1e-5
    )


def test_cells_by_a_double_loop():
    signal, held, cohort = study(2, n_patients=6, n_models=8, most=1)
    found = patient_areas(signal, held, cohort)
    for p in range(6):
        inside, outside = np.flatnonzero(held[:, p]), np.flatnonzero(~held[:, p])
        for m in range(8):
            others = outside if held[m, p] else inside
            right = [
                signal[m, p] > signal[o, p] if held[m, p] else signal[o, p] > signal[m, p]
                for o in others
            ]
            n = len(inside) if held[m, p] else len(outside)
            wanted = (np.mean(right) - found.areas[p]) / np.sqrt(n * (n - 1))
            assert found.cells[m, p] == pytest.approx(wanted, abs=1e-6)


def test_a_patient_without_a_known_label_is_left_out():
    signal, held, cohort = study(3, n_patients=10, most=1)
    signal[:, 4] = np.nan
    found = patient_areas(signal, held, cohort)
    assert np.isnan(found.areas[4])
    assert np.isfinite(interval(found).value)


def test_the_attack_has_the_area_and_interval_of_the_audit():
    signal, held, cohort = study(4, leak=1.0)
    scores = LiRA().leave_one_out(signal, cohort.expand(held))
    found = record_auc(scores, held, cohort)
    measured, _ = evaluate(scores, held, cohort)
    assert found.mean() == pytest.approx(measured["auc"], abs=1e-12)
    error, dof = found.error()
    assert interval(found).high - interval(found).low == pytest.approx(
        measured["auc_high"] - measured["auc_low"], rel=0.05
    )
    assert error > 0
    assert dof == len(held) - 1


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
def test_auroc_is_that_of_the_utility(task):
    rng = np.random.default_rng(5)
    n, n_out = 90, {"binary": 1, "multiclass": 3, "multilabel": 2}[task]
    label = rng.integers(0, max(n_out, 2), n)
    if task == "multilabel":
        label = rng.integers(0, 2, (n, 2)).astype(float)
        label[:7, 0] = np.nan
    cohort = Cohort(
        record=np.arange(n),
        patient=np.arange(n) // 2,
        label=label,
        task=task,
        classes=("a", "b", "c")[: max(n_out, 2)],
    )
    logits = rng.normal(size=(5, n, 2, n_out))
    found = heldout_auroc(logits, cohort)
    assert found.mean() == pytest.approx(utility(logits, cohort)["overall"]["auroc"], abs=1e-12)
    np.testing.assert_allclose(found.influence.sum(axis=1), 0, atol=1e-6)


def test_pairs_need_the_same_models_and_patients():
    one = OverModels(values=np.zeros(4), influence=np.zeros((4, 3), np.float32), shared=False)
    other = OverModels(values=np.zeros(5), influence=np.zeros((5, 3), np.float32), shared=False)
    with pytest.raises(ArgumentError, match="cannot be paired"):
        one.minus(other)
    areas = PatientAreas(areas=np.zeros(3), cells=np.zeros((4, 3), np.float32))
    wider = PatientAreas(areas=np.zeros(4), cells=np.zeros((4, 4), np.float32))
    with pytest.raises(ArgumentError, match="cannot be paired"):
        areas.minus(wider)


def test_an_audit_does_not_differ_from_itself():
    signal, held, cohort = study(6, leak=1.0)
    areas = patient_areas(signal, held, cohort)
    found = paired(areas.minus(areas))
    assert (found.value, found.low, found.high, found.p_value) == (0, 0, 0, 1.0)
    assert not found.detected


def test_independent_intervals_add_up_by_squares():
    found = unpaired(
        Interval(value=0.7, low=0.66, high=0.75), Interval(value=0.6, low=0.57, high=0.64)
    )
    assert found.value == pytest.approx(0.1)
    assert found.low == pytest.approx(0.1 - np.hypot(0.04, 0.04))
    assert found.high == pytest.approx(0.1 + np.hypot(0.05, 0.03))
    assert found.p_value == pytest.approx(
        2 * 0.5 * _erfc(1.959964 * 0.1 / np.hypot(0.04, 0.04)), rel=1e-4
    )
    assert not found.paired


def _erfc(z):
    from math import erfc, sqrt

    return erfc(z / sqrt(2))


def test_over_patients_is_the_paired_t_interval():
    from scipy.stats import ttest_rel

    rng = np.random.default_rng(7)
    one, other = rng.normal(0.6, 0.1, (2, 40))
    one[3] = np.nan
    found = over_patients(one, other)
    known = ~np.isnan(one)
    wanted = ttest_rel(one[known], other[known]).confidence_interval()
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))
    assert found.p_value is None
    assert found.covers == "patients"


def _coverage(leak, truth, n_models, n=60):
    """Shares of 95 % intervals that hold the truth: mean areas paired, unpaired, attack paired."""
    held_truth = np.zeros((3, n), dtype=bool)
    for seed in range(n):
        arms, held, cohort = two_arms(seed, leak, n_models=n_models)
        areas = [patient_areas(signal, held, cohort) for signal in arms]
        attack = [
            record_auc(LiRA().leave_one_out(signal, cohort.expand(held)), held, cohort)
            for signal in arms
        ]
        for i, found in enumerate(
            [
                paired(areas[0].minus(areas[1])),
                unpaired(interval(areas[0]), interval(areas[1])),
                paired(attack[0].minus(attack[1])),
            ]
        ):
            held_truth[i, seed] = found.low <= truth[i] <= found.high
    return held_truth.mean(axis=1)


def test_equal_recipes_are_not_told_apart():
    assert (_coverage((1.0, 1.0), (0.0, 0.0, 0.0), 12) >= 0.9).all()


def test_different_recipes_are_told_apart():
    arms, held, cohort = two_arms(8, (0.3, 1.5), n_models=16)
    first, second = (patient_areas(signal, held, cohort) for signal in arms)
    found = paired(first.minus(second))
    assert found.detected
    assert found.high < 0
    assert found.p_value < 0.001
    loose = unpaired(interval(first), interval(second))
    assert loose.high - loose.low > found.high - found.low


@pytest.mark.slow
@pytest.mark.parametrize("n_models", [8, 16, 32])
@pytest.mark.parametrize("leak", [(0.0, 0.0), (1.0, 1.0)])
def test_coverage_of_equal_recipes(n_models, leak):
    # 300 studies: the standard error of .95 is .0126.
    assert (_coverage(leak, (0.0, 0.0, 0.0), n_models, n=300) >= 0.925).all()


@pytest.mark.slow
def test_coverage_of_different_recipes():
    leak, n = (0.5, 1.2), 300
    gaps = []
    for seed in range(1000, 1000 + n):
        arms, held, cohort = two_arms(seed, leak, n_models=16)
        one, other = (patient_areas(signal, held, cohort).mean() for signal in arms)
        scores = [LiRA().leave_one_out(s, cohort.expand(held)) for s in arms]
        attack = [record_auc(x, held, cohort).mean() for x in scores]
        gaps.append((one - other, one - other, attack[0] - attack[1]))
    assert (_coverage(leak, np.mean(gaps, axis=0), 16, n=n) >= 0.925).all()
