"""What differential privacy allows an attack at most, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtr, ndtri

from confide.audits.guards import check_accepted, refusal
from confide.audits.promise import accounting_guard, auc_bound, epsilon_at, promised, tpr_bound
from confide.errors import ArgumentError

FPR = np.linspace(0.0, 1.0, 2001)
CURVE = {"epsilon": [0.0, 1.0, 3.0], "delta": [0.5, 0.1, 1e-5]}
PRIVACY = {
    "unit": "record",
    "epsilon": 3.0,
    "delta": 1e-5,
    "by_unit": {
        "record": {"epsilon": 3.0, "curve": CURVE},
        "patient": {"epsilon": 9.0, "curve": {"epsilon": [0.0, 9.0], "delta": [0.9, 1e-5]}},
    },
    "warnings": ["Loud."],
}


def _bound(epsilon, unit="record", method="one_run", delta=1e-5):
    return {
        "method": method,
        "unit": unit,
        "epsilon": epsilon,
        "delta": delta,
        "confidence": 0.95,
    }


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 2.0, 8.0])
@pytest.mark.parametrize("delta", [0.0, 1e-5, 0.1])
def test_the_bound_is_the_smaller_of_two_lines(epsilon, delta):
    first = np.exp(epsilon) * FPR + delta
    second = 1 - np.exp(-epsilon) * (1 - delta - FPR)
    wanted = np.clip(np.minimum(first, second), 0, 1)
    found = tpr_bound(FPR, epsilon, delta)
    np.testing.assert_allclose(found, wanted, atol=1e-12)
    assert (found >= FPR).all()
    area = auc_bound(epsilon, delta)
    assert area == pytest.approx(np.trapezoid(wanted, FPR), abs=2e-3)
    if delta == 0:
        assert area == pytest.approx(np.exp(epsilon) / (1 + np.exp(epsilon)))


def test_a_whole_curve_is_tighter_and_stays_above_the_truth():
    """Of a Gaussian mechanism, whose best attack is known: Phi(Phi^-1(FPR) + mu)."""
    mu = 1.5
    epsilon = np.linspace(0.0, 10.0, 60)
    delta = ndtr(mu / 2 - epsilon / mu) - np.exp(epsilon) * ndtr(-mu / 2 - epsilon / mu)
    truth = ndtr(ndtri(FPR[1:-1]) + mu)
    found = tpr_bound(FPR[1:-1], epsilon, delta)
    assert (found >= truth - 1e-12).all()
    assert (found - truth).max() < 0.01
    area = auc_bound(epsilon, delta)
    exact = ndtr(mu / np.sqrt(2))
    assert exact <= area < exact + 0.002
    assert all(area <= auc_bound(e, d) for e, d in zip(epsilon, delta, strict=True))


def test_randomised_response_reaches_the_bound():
    """An answer that is true with chance e^2 / (1 + e^2) is (2, 0)-private, and no more."""
    p = np.exp(2) / (1 + np.exp(2))
    assert tpr_bound(1 - p, 2.0, 0.0)[0] == pytest.approx(p)


def test_huge_epsilons_promise_nothing():
    assert auc_bound(1e9, 0.0) == 1.0
    assert tpr_bound(0.5, 1e9, 0.0)[0] == 1.0
    assert tpr_bound(0.0, 1e9, 0.0)[0] == 0.0


@pytest.mark.parametrize(
    ("fpr", "epsilon", "delta"), [(1.1, 1, 0), (-0.1, 1, 0), (0.1, -1, 0), (0.1, 1, 2)]
)
def test_numbers_out_of_their_domain(fpr, epsilon, delta):
    with pytest.raises(ArgumentError, match=r"Expected (fpr|epsilon)"):
        tpr_bound(fpr, epsilon, delta)


def test_epsilon_at_another_delta_errs_upwards():
    assert epsilon_at(1e-5, CURVE) == 3.0
    assert epsilon_at(0.05, CURVE) == 3.0
    assert epsilon_at(0.2, CURVE) == 1.0
    assert epsilon_at(1e-9, CURVE) is None


def test_the_summary_has_bounds_and_no_curves():
    found = promised(PRIVACY)
    assert "warnings" not in found
    record, patient = found["by_unit"]["record"], found["by_unit"]["patient"]
    assert record["auc"] == pytest.approx(auc_bound(CURVE["epsilon"], CURVE["delta"]))
    assert record["auc"] < patient["auc"] <= 1
    assert list(record["tpr_at_fpr"]) == ["0.1", "0.01", "0.001", "0.0001"]
    assert record["epsilon"] == 3.0
    assert "curve" not in record


@pytest.mark.parametrize(
    ("bounds", "status"),
    [
        ([], "unknown"),
        ([_bound(2.9)], "passed"),
        ([_bound(3.1)], "failed"),
        ([_bound(3.1, unit="patient")], "passed"),
        ([_bound(9.5, unit="patient"), _bound(0.0)], "failed"),
        ([_bound(99.0, method="gdp")], "unknown"),
        ([_bound(99.0, delta=1e-9)], "unknown"),
        ([_bound(1.5, delta=0.1)], "failed"),
    ],
)
def test_a_lower_bound_above_its_upper_bound_fails(bounds, status):
    guard = accounting_guard(bounds, PRIVACY)
    assert (guard["name"], guard["status"]) == ("accounting", status)


def test_by_patient_a_patient_with_one_record_counts_too():
    privacy = PRIVACY | {"by_unit": {"patient": PRIVACY["by_unit"]["record"]}}
    assert accounting_guard([_bound(3.1)], privacy)["status"] == "failed"


@pytest.mark.parametrize(("n", "share"), [(2, "10%"), (8, "40%"), (30, "100%")])
def test_the_chance_of_a_false_alarm_is_that_of_all_bounds_together(n, share):
    left_out = [_bound(0.0, method="gdp"), _bound(0.0, delta=1e-9)]
    for epsilon in (0.0, 3.1):
        bounds = [_bound(epsilon), *[_bound(0.0)] * (n - 1), *left_out]
        message = accounting_guard(bounds, PRIVACY)["message"]
        assert f"at most {share} of audits (lower bounds compared: {n})" in message


def test_a_failure_says_what_to_check_and_cannot_be_accepted():
    guard = accounting_guard([_bound(3.1)], PRIVACY)
    why = refusal([guard])
    for words in (
        "cannot be accepted",
        "at least 3.10",
        "at most 3.00",
        "two ids",
        "clipping norm",
        "fails here by chance in at most 5% of audits (lower bounds compared: 1)",
    ):
        assert words in why
    assert "--accept" not in why
    with pytest.raises(ArgumentError, match="accounting"):
        check_accepted(["accounting"])
    assert refusal([guard | {"status": "passed"}]) is None
