"""What chance alone shows, against simulation."""

import numpy as np
import pytest
from scipy.stats import rankdata

import oracles
from audits.studies import cohort_of, study
from confide.audits import null
from confide.audits.mann_whitney import row_auc
from confide.audits.null import joint_survival, max_survival
from confide.audits.patients import patient_risk
from confide.masks import balanced

GRID = np.array([0.5, 0.55, 0.6, 0.7, 0.8, 0.9, 1.0])


def test_joint_is_the_exact_law():
    held = np.random.default_rng(0).random((14, 3000)) < 0.4
    held[0], held[1] = True, False
    n_in = held.sum(axis=0)
    area = np.zeros(len(GRID))
    for seed in range(20):
        rng = np.random.default_rng(seed)
        a = row_auc(rng.standard_normal((14, 3000)), held).auc
        area += (a[None] >= GRID[:, None] - 1e-12).mean(axis=1) / 20
    found = joint_survival(n_in, 14 - n_in, GRID)
    assert (np.abs(found - area) < 4 * np.sqrt(0.25 / 60_000)).all()


def test_max_is_the_slow_permutation():
    signal, held, cohort = study(0, n_patients=12, n_models=12, leak=2.0)
    signal[:, 0] = np.round(signal[:, 0])  # ties
    found = max_survival(signal, held, cohort, GRID, n_permutations=4000)
    rng = np.random.default_rng(1)
    slow = np.zeros(len(GRID))
    for _ in range(150):
        for p in range(12):
            column = rng.permutation(held[:, p])
            own = signal[:, cohort.patient_index == p]
            best = max(oracles.auc(o[column], o[~column]) for o in own.T)
            slow += (best >= GRID - 1e-9) / (150 * 12)
    assert (np.abs(found - slow) < 4 * np.sqrt(0.25 / 1800) + 1e-3).all()


def test_measured_meets_expected_without_a_leak():
    signal, held, cohort = study(2, n_patients=3000, n_models=30, most=8)
    _, risk = patient_risk(signal, held, cohort)
    found = max_survival(signal, held, cohort, GRID, n_permutations=200)
    measured = (risk.maximum[None] >= GRID[:, None] - 1e-9).mean(axis=1)
    assert (np.abs(found - measured) < 4 * np.sqrt(0.25 / 3000)).all()


def test_unknown_patients_are_left_out():
    rng = np.random.default_rng(3)
    signal = rng.standard_normal((10, 40))
    signal[:, :20] = np.nan
    held, cohort = balanced(10, 40, seed=3), cohort_of(np.arange(40))
    whole = max_survival(signal, held, cohort, GRID[:1], n_permutations=500)
    assert 0.4 < whole[0] < 0.65


def test_blocks_keep_their_numbers():
    """Redrawn within blocks, against a slow redraw; the blocks differ in their signals."""
    signal, _, cohort = study(3, n_patients=12, n_models=12)
    held = np.concatenate([balanced(6, 12, seed=s) for s in (0, 1)])
    block = np.repeat([0, 1], 6)
    signal = signal + 2.0 * block[:, None]
    found = max_survival(signal, held, cohort, GRID, n_permutations=4000, block=block)
    rng = np.random.default_rng(1)
    slow = np.zeros(len(GRID))
    for _ in range(150):
        for p in range(12):
            column = np.concatenate([rng.permutation(held[block == b, p]) for b in (0, 1)])
            own = signal[:, cohort.patient_index == p]
            best = max(oracles.auc(o[column], o[~column]) for o in own.T)
            slow += (best >= GRID - 1e-9) / (150 * 12)
    assert (np.abs(found - slow) < 4 * np.sqrt(0.25 / 1800) + 1e-3).all()


@pytest.mark.parametrize("elements", [20, 300, 10_000_000])
def test_the_same_masks_give_the_same_counts(elements, monkeypatch):
    """Patients of one to eight records, in groups of any size, against a loop over patients."""
    signal, held, cohort = study(4, n_patients=30, n_models=12, most=8)
    signal[:, 20] = np.round(signal[:, 20])
    signal[:, 30], signal[:, cohort.patient_index == 2] = np.nan, np.nan
    held[0, :9] = True  # some patients are in more models than others
    monkeypatch.setattr(null, "_CHUNK_ELEMENTS", elements)
    found = max_survival(signal, held, cohort, GRID, n_permutations=20, seed=5)
    rng, one_block = np.random.default_rng(5), np.zeros(12, dtype=int)
    n_in, best = held.sum(axis=0), []
    for n in np.unique(n_in):
        masks = null._random_masks(rng, 20, one_block, np.array([n]))
        for patient in np.flatnonzero(n_in == n):
            own = signal[:, cohort.patient_index == patient]
            own = own[:, ~np.isnan(own).any(axis=0)]
            if own.shape[1]:
                area = (masks @ rankdata(own, axis=0) - n * (n + 1) / 2) / (n * (12 - n))
                best.append(area.max(axis=1))
    assert len(best) == 29
    plain = (np.concatenate(best)[None] >= GRID[:, None] - 1e-6).mean(axis=1)
    np.testing.assert_allclose(found, plain, rtol=1e-12)
