"""The control finds what can be found, and the verdict claims no more than the numbers."""

import math

import pytest

from audits.studies import study
from confide.audits.control import planted_control
from confide.audits.patients import patient_risk
from confide.audits.verdict import verdict


def control(n_models, n_patients=300):
    signal, held, cohort = study(0, n_patients=n_patients, n_models=n_models)
    _, risk = patient_risk(signal, held, cohort)
    return planted_control(signal, held, cohort, risk.p_value, fdr=0.05, seed=0)


def test_control_is_found_with_many_models_and_not_with_few():
    many, few = control(64), control(6)
    assert many["planted"] == few["planted"] == 20
    assert many["auc"] == 0.95
    assert many["found"] >= 19
    assert few["found"] == 0
    assert control(64, n_patients=7)["planted"] == 7


TAIL = {"0.8": {"corrected": 0.0263, "low": 0.00031, "high": 0.152}}


def summary(
    auc=(0.5, 0.49, 0.51),
    n_at_risk=0,
    found=20,
    smallest=0.7,
    attacks=("lira", "rmia"),
    **patients,
):
    return {
        "n_patients": 1000,
        "attacks": {
            name: dict(zip(("auc", "auc_low", "auc_high"), auc, strict=True)) for name in attacks
        },
        "patients": {
            "n_at_risk": n_at_risk,
            "fdr": 0.05,
            "smallest_detectable_auc": smallest,
            "n_perfect_needed": 18,
            "control": {"planted": 20, "found": found, "auc": 0.95},
        }
        | patients,
    }


NAN = (math.nan, math.nan, math.nan)


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({}, "none_found"),
        ({"found": 15}, "not_established"),
        ({"smallest": None}, "not_established"),
        ({"auc": NAN}, "not_established"),
        ({"attacks": ()}, "not_established"),
        ({"auc": (0.55, 0.51, 0.59)}, "detectable"),
        ({"auc": (0.55, 0.51, 0.59), "found": 0}, "detectable"),
        ({"auc": (0.55, 0.499, 0.6)}, "none_found"),
        ({"n_at_risk": 3}, "at_risk"),
        ({"canaries": {"planted": 12, "found": 10}}, "none_found"),
        ({"canaries": {"planted": 12, "found": 9}}, "not_established"),
        ({"canaries": {"planted": 12, "found": 0}, "auc": (0.55, 0.51, 0.59)}, "detectable"),
        ({"canaries": {"planted": 12, "found": 0}, "n_at_risk": 3}, "at_risk"),
        ({"attacks": ("lt_iqr",)}, "not_established"),
        ({"attacks": ("lt_iqr", "lira")}, "none_found"),
        ({"attacks": ("lt_iqr",), "auc": (0.55, 0.51, 0.59)}, "detectable"),
        ({"attacks": ("lt_iqr",), "auc": (0.42, 0.40, 0.44)}, "not_established"),
        ({"n_at_risk": 3, "auc": NAN, "smallest": None, "found": 0}, "at_risk"),
    ],
)
def test_status_and_words(given, status):
    found = verdict(summary(**given))
    assert found["status"] == status
    text = found["text"]
    for word in ("safe", "anonymous", "no risk", "proves", "proven", "guarantee"):
        assert word not in text.lower()
    assert "nan" not in text.lower()
    if "%" in text and given.get("n_at_risk"):
        assert "On average over audits at most about 5%" in text
    if status in ("none_found", "detectable"):
        assert "stay unseen" in text
    if given.get("auc") is NAN:
        assert "No attack could be measured" in text or status == "not_established"
        assert "no attack that was run" not in text
    if status == "not_established":
        missed = "canaries" in given
        assert ("it cannot tell which" if missed else "before anything can be said") in text


def test_the_reason_fits_the_control():
    enough = verdict(summary(smallest=None))["text"]
    assert "hardly" not in enough
    assert "only where several leak" in enough
    assert "18 such patients" in enough
    assert "could hardly have found" in verdict(summary(found=3))["text"]
    assert "no attack could be measured" in verdict(summary(auc=NAN))["text"]


def test_canaries_that_were_missed_are_said():
    few, many = ({"planted": 12, "found": n} for n in (5, 11))
    for given in ({"n_at_risk": 3}, {"auc": (0.55, 0.51, 0.59)}):
        text = verdict(summary(canaries=few, **given))["text"]
        assert "Of 12 canaries" in text
        assert "the audit lists 5: others who are at risk can be missing" in text
        assert "canaries" not in verdict(summary(canaries=many, **given))["text"]
    assert "of 12 canaries" in verdict(summary(canaries=few))["text"]
    both = verdict(summary(canaries=few, found=3))["text"]
    assert "could hardly have found" in both
    assert "More models are needed" in both


def test_the_corrected_tail_and_the_power_are_said():
    said = "After correcting for noise about 2.6% (0.031% to 15%) of patients have a true AUC of"
    for given in ({}, {"n_at_risk": 3}, {"auc": (0.55, 0.51, 0.59)}):
        assert said in verdict(summary(tail=TAIL, **given))["text"]
    for tail in ({}, {"0.8": {"corrected": math.nan, "low": 0.0, "high": 1.0}}, {"0.8": {}}):
        assert "correcting" not in verdict(summary(tail=tail))["text"]
    assert "a true AUC of 0.781 is in four of" not in verdict(summary())["text"]
    assert (
        "a true AUC of 0.781 is in four audits" in verdict(summary(detectable_auc_80=0.781))["text"]
    )


def test_one_patient_is_one():
    assert verdict(summary(n_at_risk=1))["text"].startswith("1 of 1,000 patients is listed")
