"""The whole audit: refusals, the form of its result, and a plain version of it."""

import json

import numpy as np
import pandas as pd
import pytest

import confide
import oracles
from audits.studies import cohort_of, study
from confide.attacks import Global, LiRA
from confide.audits import audit as audit_module
from confide.audits.audit import AuditSettings, annotated, audit
from confide.cohort import Cohort
from confide.errors import ArgumentError, SignalError
from confide.masks import balanced

QUICK = AuditSettings(n_permutations=50)
PATIENTS = ["auc_joint", "auc_max", "auc_se", "p_joint", "p_max", "p_value", "q_value", "at_risk"]
PATIENTS += ["risk", "risk_low", "risk_high", "local_fdr"]
GROUPS = [
    "group",
    "value",
    "n_patients",
    "share_of_tail",
    "ratio",
    "ratio_low",
    "ratio_high",
    "p_value",
    "q_value",
    "mean_auc",
]


def with_groups(cohort):
    groups = pd.DataFrame({"sex": np.array(["f", "m", None], object)[cohort.patient_index % 3]})
    return cohort_of(cohort.patient, groups)


def test_everything_is_the_plain_version(monkeypatch):
    monkeypatch.setattr(audit_module, "_KEPT_BYTES", 0)  # as with many signals, read again
    signal, held, cohort = study(0, n_patients=12, n_models=8, most=3, leak=1.0)
    result = audit(
        signal, held, cohort, settings=AuditSettings(attacks=[LiRA(Global())], n_permutations=20)
    )
    plain = oracles.audit(signal, held, cohort.patient_index)
    np.testing.assert_allclose(result.records["auc"], plain["record_auc"])
    for name in ("auc_joint", "auc_max", "p_joint", "p_max", "p_value"):
        expected = [row[name] for row in plain["patients"]]
        np.testing.assert_allclose(result.patients[name], expected, err_msg=name)
    np.testing.assert_allclose(result.patients["q_value"], plain["q_value"])
    assert result.patients["at_risk"].tolist() == plain["at_risk"].tolist()
    assert result.summary["patients"]["n_at_risk"] == plain["at_risk"].sum()
    assert result.summary["attacks"]["lira"]["auc"] == pytest.approx(plain["lira_global"])


def test_the_form_of_the_result():
    signal, held, cohort = study(1, leak=0.5)
    order = np.random.default_rng(0).permutation(cohort.n_records)
    cohort, signal = with_groups(cohort).select(order), signal[:, order]
    held = balanced(16, cohort.n_patients, seed=1)
    logits = np.random.default_rng(1).standard_normal((16, 40, 1, 1))
    result = confide.audit(
        signal,
        held,
        cohort,
        population=signal[:, :30],
        heldout=(logits, cohort_of(1000 + np.arange(40))),
        settings=QUICK,
    )
    assert list(result.records) == ["record", "patient", "label", "group_sex", "auc", "auc_se"]
    assert result.records["record"].tolist() == order.tolist()
    assert list(result.patients) == ["patient", "n_records", "group_sex", *PATIENTS]
    assert result.patients["patient"].tolist() == cohort.patients.tolist()
    assert list(result.groups)[: len(GROUPS)] == GROUPS
    assert list(result.curves) == ["curve", "series", "x", "y", "low", "high"]
    series = set(map(tuple, result.curves[["curve", "series"]].drop_duplicates().to_numpy()))
    kinds = ("joint", "max", "joint_null", "max_null", "joint_corrected")
    survival = {("survival", s) for s in kinds}
    assert series == survival | {("roc", "lira"), ("roc", "rmia")}
    s = result.summary
    assert json.loads(json.dumps(s, allow_nan=False)) == s
    assert (s["n_models"], s["n_patients"], s["n_records"]) == (16, 60, cohort.n_records)
    tail = s["patients"]["tail"]["0.8"]
    kinds = {"raw", "null", "corrected"}
    limits = {f"{name}_{side}" for name in ("raw", "null") for side in ("low", "high")}
    assert set(tail) == kinds | limits | {"low", "high"}
    assert tail["low"] <= tail["corrected"] <= tail["high"]
    assert 0 <= s["groups"]["sex"]["p_value"] <= 1
    assert s["utility"]["overall"]["n_patients"] == 40
    assert {bound["whose"] for bound in s["epsilon"]} == {"patients"}
    assert (s["guards"], s["models_missing"]) == ([], [])
    more = annotated(result, models_missing=[3], guards=[{"name": "x"}], warnings=["w"])
    assert more.summary["models_missing"] == [3]
    assert more.summary["warnings"][-1] == "w"
    assert s["models_missing"] == []


def test_the_seed_moves_no_number_of_the_list():
    signal, held, cohort = study(2, leak=0.5)
    one, other = (
        audit(signal, held, cohort, settings=AuditSettings(n_permutations=20, seed=seed))
        for seed in (0, 1)
    )
    pd.testing.assert_frame_equal(one.patients, other.patients)
    pd.testing.assert_frame_equal(one.records, other.records)


def test_multilabel_views_and_unknown_labels():
    rng = np.random.default_rng(3)
    label = (rng.random((40, 3)) < 0.5).astype(float)
    label[rng.random((40, 3)) < 0.3] = np.nan
    label[5] = np.nan
    cohort = Cohort(
        record=np.arange(40),
        patient=np.arange(40),
        label=label,
        task="multilabel",
        classes=("a", "b", "c"),
    )
    signals = rng.standard_normal((16, 40, 2, 3)) + 0 * label[:, None]
    result = audit(signals, balanced(16, 40), cohort, settings=QUICK)
    assert [c for c in result.records if c.startswith("label")] == ["label_a", "label_b", "label_c"]
    assert np.isnan(result.records["auc"][5])
    assert result.patients["p_value"][5] == 1.0
    assert any(
        "Fewer than 10 patients are without a known label" in w for w in result.summary["warnings"]
    )


def test_four_models_have_an_answer_that_claims_nothing():
    signal, held, cohort = study(4, n_models=4)
    s = audit(signal, held, cohort, settings=QUICK).summary
    assert s["patients"]["n_at_risk"] == 0
    assert s["patients"]["smallest_detectable_auc"] is None
    assert s["verdict"]["status"] in ("not_established", "detectable")
    assert any("4 models are few" in w for w in s["warnings"])


def test_a_planted_leak_and_none():
    signal, held, cohort = study(5, n_models=32, leak=1.5, share=0.2)
    assert audit(signal, held, cohort, settings=QUICK).summary["verdict"]["status"] == "at_risk"
    signal, held, cohort = study(6, n_models=32)
    assert audit(signal, held, cohort, settings=QUICK).summary["verdict"]["status"] == "none_found"


def test_conflicting_groups_warn():
    signal, held, cohort = study(7)
    groups = pd.DataFrame({"site": np.arange(cohort.n_records) % 2})
    result = audit(signal, held, cohort_of(cohort.patient, groups), settings=QUICK)
    assert result.summary["groups"]["site"]["n_conflicts"] > 0
    assert any("'site' differs" in w for w in result.summary["warnings"])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda s, m: (s[:, 1:], m), ArgumentError, "Expected signals of"),
        (lambda s, m: (s, m.astype(int)), ArgumentError, "bool membership"),
        (lambda s, m: (s, m[:, 1:]), ArgumentError, "bool membership"),
        (lambda s, m: (s[:3], m[:3]), ArgumentError, "at least 4 models, got 3"),
        (lambda s, m: (s, np.where(np.arange(60) == 4, True, m)), ArgumentError, "never out of"),
        (lambda s, m: (s, np.where(np.arange(60) == 4, False, m)), ArgumentError, "never in"),
        (lambda s, m: (np.where(s == s[2, 7], np.inf, s), m), SignalError, "model 2, record 7"),
        (lambda s, m: (np.where(s == s[2, 7], np.nan, s), m), SignalError, "record 7 is missing"),
    ],
)
def test_refusals(change, error, message):
    signal, held, cohort = study(8)
    signal, held = change(signal, held)
    with pytest.raises(error, match=message):
        audit(signal, held, cohort, settings=QUICK)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"fdr": 0.0}, "fdr=0"),
        ({"top": -1}, "top=-1"),
        ({"n_permutations": 0}, "n_permutations=0"),
        ({"attacks": ["lirra"]}, "Did you mean 'lira'"),
    ],
)
def test_settings_are_checked(given, message):
    with pytest.raises(ArgumentError, match=message):
        AuditSettings(**given)
