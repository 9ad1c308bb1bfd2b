"""Risk of patients: exact under the null, and finding what is planted."""

import numpy as np
import pytest
from scipy.stats import binom

import oracles
from audits.studies import cohort_of, study
from confide.audits import patients
from confide.audits.mann_whitney import row_auc
from confide.audits.patients import joint_signal, patient_risk, smallest_detectable_auc
from confide.errors import ArgumentError
from confide.masks import balanced


def super_uniform(p, exact=False):
    for level in (0.005, 0.02, 0.05, 0.1, 0.3):
        share, error = (p <= level).mean(), np.sqrt(level * (1 - level) / len(p))
        assert share <= level + 4 * error, (level, share)
        if exact:
            assert share >= 0.8 * level - 4 * error


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("most", [1, 20])
def test_p_values_are_valid_under_the_null(ties, most):
    signal, held, cohort = study(0, n_patients=4000, n_models=20, most=most)
    if ties:
        signal = np.round(2 * signal)
    _, risk = patient_risk(signal, held, cohort)
    super_uniform(risk.p_joint, exact=not ties)
    super_uniform(risk.p_max)
    super_uniform(risk.p_value)
    assert ((risk.p_value > 0) & (risk.p_value <= 1)).all()


def test_p_values_are_valid_with_coins_for_masks():
    signal, _, cohort = study(1, n_patients=3000, n_models=20)
    held = np.random.default_rng(1).random((20, 3000)) < 0.3
    held[0], held[1] = True, False
    # The first two models are not exchangeable with the rest; leave them out.
    keep = held[2:].any(0) & ~held[2:].all(0)
    rows = keep[cohort.patient_index]
    _, risk = patient_risk(signal[2:, rows], held[2:, keep], cohort.select(rows))
    super_uniform(risk.p_value)


def test_the_plain_one():
    signal, held, cohort = study(2, n_patients=25, n_models=10, leak=1.0)
    records, risk = patient_risk(signal, held, cohort)
    plain = oracles.patient_tests(signal, held, cohort.patient_index)
    for i, row in enumerate(plain):
        assert risk.joint[i] == pytest.approx(row["auc_joint"])
        assert risk.maximum[i] == pytest.approx(row["auc_max"])
        for name in ("p_joint", "p_max", "p_value"):
            assert getattr(risk, name)[i] == pytest.approx(row[name]), (i, name)
    assert len(records.auc) == cohort.n_records


def test_joint_signal_ignores_membership_and_scale():
    signal, held, cohort = study(3)
    scale = np.exp(np.random.default_rng(0).standard_normal(cohort.n_records))
    there = joint_signal(signal * scale + 7.0, cohort)
    np.testing.assert_allclose(there, joint_signal(signal, cohort), atol=1e-9)
    one = cohort_of(np.arange(cohort.n_records))
    _, risk = patient_risk(signal, held[:, cohort.patient_index], one)
    np.testing.assert_allclose(risk.joint, row_auc(signal, held[:, cohort.patient_index]).auc)
    np.testing.assert_array_equal(risk.p_value, risk.p_joint)


def test_unknown_and_constant_records():
    signal, held, cohort = study(4, n_patients=6, most=3)
    index = cohort.patient_index
    signal[:, index == 0] = np.nan
    signal[:, index == 1] = 2.0
    _, risk = patient_risk(signal, held, cohort)
    assert np.isnan([risk.joint[0], risk.maximum[0], risk.se[0]]).all()
    assert risk.p_value[0] == risk.p_value[1] == 1.0
    assert risk.joint[1] == risk.maximum[1] == 0.5
    assert np.isfinite(risk.q_value).all()
    first = np.flatnonzero(index == 2)
    if len(first) > 1:  # an unknown record is no record: it costs no correction
        signal[:, first[1:]] = np.nan
        _, less = patient_risk(signal, held, cohort)
        assert less.p_value[2] == less.p_joint[2]


@pytest.mark.parametrize("fdr", [0.0, 1.0, -0.1, float("nan")])
def test_refuses_a_false_discovery_rate(fdr):
    signal, held, cohort = study(5)
    with pytest.raises(ArgumentError, match="fdr="):
        patient_risk(signal, held, cohort, fdr=fdr)


def planted(seed, n_patients, leak, how):
    """Each patient has 5 records; 10 % leak in all of them ("spread") or in one ("one")."""
    rng = np.random.default_rng(seed)
    index = np.repeat(np.arange(n_patients), 5)
    held = balanced(60, n_patients, seed=seed)
    signal = rng.standard_normal((60, len(index)))
    leaking = np.arange(n_patients) < n_patients // 10
    which = np.ones(len(index), bool) if how == "spread" else np.arange(len(index)) % 5 == 0
    signal += leak * (held & leaking)[:, index] * which
    return signal, held, cohort_of(index), leaking


def test_joint_finds_spread_leaks_and_max_single_ones_and_the_list_both():
    for how, leak, better, worse in (
        ("spread", 0.7, "p_joint", "p_max"),
        ("one", 2.0, "p_max", "p_joint"),
    ):
        signal, held, cohort, leaking = planted(0, 400, leak, how)
        _, risk = patient_risk(signal, held, cohort)
        found = {n: (getattr(risk, n)[leaking] < 1e-4).mean() for n in ("p_joint", "p_max")}
        assert found[better] > found[worse] + 0.3
        listed = risk.at_risk[leaking].mean()
        assert listed >= 0.9 * found[better]


def test_power():
    """2 % of the patients leak two standard deviations: found, and little else."""
    recall, false = [], []
    for seed in range(3):
        signal, held, cohort = study(seed, n_patients=1000, n_models=100, most=20)
        leaking = np.arange(1000) < 20
        spread = signal.std(axis=0)
        signal += 2 * spread * (held & leaking)[:, cohort.patient_index]
        listed = patient_risk(signal, held, cohort)[1].at_risk
        recall.append(listed[leaking].mean())
        false.append(listed[~leaking].sum() / max(listed.sum(), 1))
    assert np.mean(recall) >= 0.9
    assert np.mean(false) <= 0.1


def test_the_list_is_empty_without_a_leak():
    """At a rate of 5 % of false lists, 8 or more of 30 happen once in 30,000 times."""
    lists = 0
    for seed in range(30):
        signal, held, cohort = study(seed + 50, n_patients=500, n_models=60, most=20)
        lists += patient_risk(signal, held, cohort)[1].at_risk.any()
    assert binom.sf(7, 30, 0.05) < 1e-4
    assert lists < 8


def test_smallest_detectable_area_is_where_a_lone_patient_is_listed():
    n, sides = 200, (np.full(200, 10), np.full(200, 10))
    for records, tests in ((np.ones(n, int), 1), (np.full(n, 3), 2)):
        smallest, needed = smallest_detectable_auc(*sides, records)
        tail = oracles.mann_whitney_tail(10, 10)
        assert needed == 1
        u = round(smallest * 100)
        assert tests * tail[u] <= 0.05 / n < tests * tail[u - 1]


def test_smallest_detectable_area_with_few_models():
    n = 11_000
    smallest, needed = smallest_detectable_auc(
        np.full(n, 8), np.full(n, 8), np.ones(n, int), fdr=0.05
    )
    assert smallest is None
    assert needed == 18


def test_joint_signal_in_parts_is_the_plain_sum(monkeypatch):
    signal, _, cohort = study(9, n_patients=20)
    signal[:, 4], signal[:, 8] = 2.0, np.nan
    monkeypatch.setattr(patients, "_RECORDS", 7)
    spread = signal.std(axis=0)
    standard = (signal - signal.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    standard[:, 8] = 0.0
    plain = np.stack([standard[:, cohort.patient_index == p].sum(axis=1) for p in range(20)], 1)
    np.testing.assert_allclose(joint_signal(signal, cohort), plain, rtol=1e-12, atol=1e-12)
