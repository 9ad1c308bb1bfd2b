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


def summary(auc=(0.5, 0.49, 0.51), n_at_risk=0, found=20, smallest=0.7, attacks=("lira", "rmia")):
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
        },
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
        assert "More models are needed" in text


def test_the_reason_fits_the_control():
    enough = verdict(summary(smallest=None))["text"]
    assert "hardly" not in enough
    assert "only where several leak" in enough
    assert "18 such patients" in enough
    assert "could hardly have found" in verdict(summary(found=3))["text"]
