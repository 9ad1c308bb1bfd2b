"""What is said of several audits, and what is withheld."""

import dataclasses

import numpy as np
import pytest

from confide.audits.comparison import compare, strongest_common
from confide.errors import ArgumentError
from reports.comparisons import arm, three
from reports.conftest import make


def pairs_of(found):
    return {(p["first"], p["second"]): p for p in found.summary["pairs"]}


def test_what_is_told_apart_and_what_is_not():
    found = three(make)
    pairs = pairs_of(found)
    assert pairs["plain", "small"]["status"] == "less_at_no_detected_cost"
    assert pairs["plain", "small"]["less"] == "small"
    assert pairs["small", "early"]["status"] == "not_told_apart"
    assert pairs["small", "early"]["utility"] == "second"
    assert found.summary["verdict"] == {
        "status": "told_apart",
        "text": "“plain” gives away more than “small” and “early”, and its utility is lower. "
        "“small” and “early” are not told apart by what they give away; “early” has the higher "
        "utility.",
    }
    assert "does not show that they give away equally much" in pairs["small", "early"]["text"]
    assert [row["on_frontier"] for row in found.summary["arms"]] == [False, True, True]


def test_signs_are_as_seen_from_the_one_that_gives_away_less():
    pair = pairs_of(three(make))["plain", "small"]
    assert pair["attack_auc"]["value"] == pytest.approx(0.2)
    assert "(attack AUC -0.200, -" in pair["text"]
    assert "AUROC +0.030, +" in pair["text"]


def test_less_at_a_cost():
    found = compare(
        [arm(make, "a", auc=0.8, auroc=0.95), arm(make, "b", auc=0.6, auroc=0.9)], "lira"
    )
    pair = found.summary["pairs"][0]
    assert (pair["status"], pair["less"], pair["utility"]) == ("less_at_a_cost", "b", "first")
    assert "at a utility that is lower (AUROC -0.050" in pair["text"]
    assert "may be, higher" in found.summary["verdict"]["text"]
    assert [row["on_frontier"] for row in found.summary["arms"]] == [True, True]


def test_a_small_loss_that_holm_would_hide_is_still_told():
    # Many pairs make the correction hard; the uncorrected interval leaves out zero.
    found = compare(
        [arm(make, f"{i}", auc=0.8 - 0.05 * i, auroc=0.9 - 0.0035 * i) for i in range(5)], "lira"
    )
    hidden = [
        p for p in found.summary["pairs"] if p["utility"] == "neither" and p["auroc"]["low"] > 0
    ]
    assert hidden
    assert {p["status"] for p in hidden} == {"less_at_a_cost"}
    assert all("that may be lower" in p["text"] for p in hidden)


def test_equal_audits_are_on_the_frontier_together_and_not_told_apart():
    one = arm(make, "a")
    found = compare([one, dataclasses.replace(one, name="b")], "lira")
    assert found.summary["verdict"]["status"] == "not_told_apart"
    assert [row["on_frontier"] for row in found.summary["arms"]] == [True, True]


def test_copies_of_one_audit_are_named():
    one = arm(make, "a")
    copy = dataclasses.replace(one, name="b")
    found = compare([one, copy, arm(make, "c", auc=0.7)], "lira")
    said = [line for line in found.summary["warnings"] if "copies of one audit" in line]
    assert [line[:11] for line in said] == ["“a” and “b”"]
    other = dataclasses.replace(copy, recipe={**one.recipe, "dev.keep": "best"})
    said = " ".join(compare([one, other], "lira").summary["warnings"])
    assert "“a” and “b” have other settings, but all their models came out the same" in said
    other = dataclasses.replace(copy, measured=dataclasses.replace(one.measured, masks="other"))
    assert "copies" not in " ".join(compare([one, other], "lira").summary["warnings"])


def test_unpaired_audits_are_named_beside_an_erased_one():
    arms = [arm(make, "a"), arm(make, "b", auc=0.7, masks="other"), arm(make, "c", auc=0.65)]
    arms[2] = dataclasses.replace(arms[2], erased=True, measured=None)
    (said,) = (
        line
        for line in compare(arms, "lira").summary["warnings"]
        if line.startswith("Not the same patients")
    )
    assert "“a” and “b”" in said
    assert "“c”" not in said


def test_only_bounds_of_shares_are_comparable_between_numbers_of_models():
    first, second = arm(make, "a"), arm(make, "b", auc=0.7)
    second.summary["n_models"] = 8
    said = " ".join(compare([first, second], "lira").summary["warnings"])
    assert "so are the bounds of corrected shares; the estimates of these lean" in said


def test_accepted_guards_are_told_from_failed_ones():
    first, second = arm(make, "a"), arm(make, "b", auc=0.7)
    for one, status in ((first, "failed"), (second, "accepted")):
        one.summary["guards"].append({"name": "order", "status": status, "message": "Sorted."})
    table = compare([first, second], "lira").arms
    assert table["guards_failed"].tolist() == ["order", ""]
    assert table["guards_accepted"].tolist() == ["", "order"]


def private(one, *, refuted=False):
    """An arm that was trained with differential privacy by record."""
    guard = {"name": "accounting", "status": "failed" if refuted else "passed", "message": "m"}
    by_unit = {"record": {"epsilon": 7.9945}, "patient": {"epsilon": 49.5561}}
    privacy = {"unit": "record", "delta": 1e-5, "most_records": 4, "by_unit": by_unit}
    guards = [*one.summary["guards"], guard]
    return dataclasses.replace(one, summary=one.summary | {"privacy": privacy, "guards": guards})


def test_what_a_guarantee_by_record_is_worth_for_a_patient_is_told():
    plain, other = arm(make, "a"), private(arm(make, "b", auc=0.7))
    told = [w for w in compare([plain, other], "lira").summary["warnings"] if "epsilon" in w]
    assert told == [
        "“b” was trained with differential privacy by record: epsilon is at most 8 for one "
        "record, and 49.6 for a patient with 4 records, the most that one has (delta 1e-05)."
    ]
    other.summary["privacy"]["by_unit"]["patient"]["epsilon"] = None
    told = " ".join(compare([plain, other], "lira").summary["warnings"])
    assert "for one record, and without bound for a patient with 4 records" in told
    refuted = compare([plain, private(other, refuted=True)], "lira").summary["warnings"]
    assert any("The guarantee of “b” was refuted by its own audit" in w for w in refuted)


def test_holm_is_over_all_differences():
    found = three(make)
    tested = [p[m] for p in found.summary["pairs"] for m in ("attack_auc", "mean_auc", "auroc")]
    least = min(tested, key=lambda d: d["p_value"])
    assert least["p_holm"] == pytest.approx(min(1.0, 9 * least["p_value"]))
    assert all(d["p_holm"] >= d["p_value"] for d in tested)


def test_guards_that_void_an_audit_take_the_comparison_away():
    guard = {"name": "blind", "status": "failed", "message": "Inputs differ."}
    bad = arm(make, "bad", auc=0.9)
    bad.summary["guards"].append(guard)
    found = compare([bad, arm(make, "good", auc=0.6)], "lira")
    pair = found.summary["pairs"][0]
    assert (pair["status"], pair["less"]) == ("not_compared", None)
    assert "Members and non-members differ without any model" in pair["text"]
    assert found.summary["verdict"]["status"] == "not_compared"
    assert found.summary["arms"][0]["guards"] == [guard]


def test_erased_audits_are_judged_by_intervals_of_the_attack_alone():
    found = compare([arm(make, "a", auc=0.8, measured=False), arm(make, "b", auc=0.6)], "lira")
    pair = found.summary["pairs"][0]
    assert (pair["less"], pair["attack_auc"]["paired"]) == ("b", False)
    assert (pair["mean_auc"]["p_value"], pair["mean_auc"]["covers"]) == (None, "patients")
    assert pair["mean_auc"]["p_holm"] is None


def test_what_is_withheld_in_one_is_withheld_in_all():
    first, second = arm(make, "a"), arm(make, "b")
    second.groups.loc[second.groups["value"] == "Black", "withheld"] = True
    second.summary["utility"]["by_group"]["sex"]["Male"]["withheld"] = True
    table = compare([first, second], "lira").groups
    black = table[table["value"] == "Black"]
    assert black["withheld"].all()
    assert black[["n_patients", "mean_auc", "mean_auc_low"]].isna().all(axis=None)
    male = table[table["value"] == "Male"]
    assert not male["withheld"].any()
    assert male["utility_withheld"].all()
    assert male[["n_heldout_patients", "auroc"]].isna().all(axis=None)
    assert male["mean_auc"].notna().all()


def test_small_cells_are_withheld_without_any_flag():
    first = arm(make, "a")
    first.patients.loc[first.patients.index[-290:], "group_race"] = "White"
    first.patients.loc[first.patients.index[:4], "group_race"] = "Black"
    second = dataclasses.replace(first, name="b")
    table = compare([first, second], "lira").groups
    assert table.loc[table["group"] == "race", "withheld"].all()


def test_what_no_audit_measured_is_missing_and_not_withheld():
    first, second = arm(make, "a"), arm(make, "b", auc=0.7)
    for one in (first, second):
        one.summary["utility"] = None
    table = compare([first, second], "lira").groups
    assert len(table) == 8
    assert not table["utility_withheld"].any()
    assert table[["n_heldout_patients", "auroc", "auroc_low", "auroc_high"]].isna().all(axis=None)
    assert table["mean_auc"].notna().all()


def test_means_of_groups_are_those_of_the_patients():
    one = arm(make, "a")
    table = compare([one, arm(make, "b", auc=0.7)], "lira").groups
    row = table[(table["arm"] == "a") & (table["value"] == "Male")].iloc[0]
    areas = one.patients.loc[one.patients["group_sex"] == "Male", "auc_joint"]
    assert row["mean_auc"] == pytest.approx(areas.mean())
    half = 1.984217 * areas.std(ddof=1) / 10
    assert (row["mean_auc_low"], row["n_patients"]) == (pytest.approx(areas.mean() - half), 100)


def test_groups_that_differ_are_left_out():
    first, second = arm(make, "a"), arm(make, "b")
    second.patients.loc[0, "group_race"] = "Black"
    second.patients["group_site"] = "x"
    found = compare([first, second], "lira")
    assert set(found.groups["group"]) == {"sex"}
    assert sum("is left out" in line for line in found.summary["warnings"]) == 2


def test_the_strongest_common_attack():
    one, other = ({"attacks": {"lira": {"auc": 0.6}, "rmia": {"auc": 0.7}}} for _ in range(2))
    assert strongest_common([one, other]) == "rmia"
    other["attacks"]["rmia"]["auc"] = None
    assert strongest_common([one, other]) == "lira"
    one["attacks"]["lt_iqr"] = other["attacks"]["lt_iqr"] = {"auc": 0.99}
    assert strongest_common([one, other]) == "lira"
    with pytest.raises(ArgumentError, match="no attack in common"):
        strongest_common([one, {"attacks": {"lt_iqr": {"auc": 0.99}}}])


def test_two_audits_with_different_names_are_needed():
    for arms in ([arm(make, "a")], [arm(make, "a"), arm(make, "a")]):
        with pytest.raises(ArgumentError, match="two audits or more"):
            compare(arms, "lira")


def test_the_table_of_audits_is_flat():
    table = three(make).arms
    assert table["name"].tolist() == ["plain", "small", "early"]
    assert table["recipe_train.epochs"].tolist() == ["14", "3", "1"]
    assert np.isfinite(table["tail_0.6_corrected"]).all()
    assert table.map(np.isscalar).all(axis=None)
