"""Guards: recipes that differ, acceptance by name, patients on both sides."""

import numpy as np
import pytest

from audits.studies import cohort_of
from confide.audits.guards import (
    BLIND_BY_DESIGN,
    RECIPE_BY_DESIGN,
    RECIPE_FIELDS,
    blind_guard,
    check_accepted,
    recipe_guard,
    refusal,
    refuse_both_sides,
    refuse_shared_patients,
    settle,
    voided,
)
from confide.errors import ArgumentError, TableError

FULL = {
    "source": "hospital A",
    "task": "binary",
    "architecture": {"name": "wrn", "width": 2},
    "optimizer": {"name": "sgd", "lr": 0.1},
    "epochs": 30,
    "augmentation": ["flip", "shift"],
}


def changed(**fields):
    return {**FULL, **fields}


def guard(name, status):
    return {"name": name, "status": status, "message": "Because."}


def test_equal_recipes_pass():
    same = changed(epochs=30.0, augmentation=("flip", "shift"))
    found = recipe_guard({"target": FULL, "r1": same, "r2": FULL})
    assert found["status"] == "passed"
    assert found["message"] == "target, r1, r2 state the same recipe."


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"epochs": 60}, "epochs is 30 in target, 60 in r2"),
        ({"optimizer": {"name": "sgd", "lr": 0.2}}, "optimizer.lr is 0.1 in target, 0.2 in r2"),
        ({"source": "hospital B"}, "source is 'hospital A' in target, 'hospital B' in r2"),
        ({"augmentation": ["flip"]}, "augmentation is ['flip', 'shift'] in target"),
    ],
)
def test_a_field_that_differs_is_named(fields, words):
    found = recipe_guard({"target": FULL, "r1": FULL, "r2": changed(**fields)})
    assert (found["name"], found["status"]) == ("recipe", "failed")
    assert words in found["message"]


def test_other_fields_count_where_both_state_them():
    ema = [changed(ema=0.9), changed(ema=0.99), FULL]
    assert recipe_guard({"a": ema[0], "b": ema[1]})["status"] == "failed"
    assert recipe_guard({"a": ema[0], "b": ema[2]})["status"] == "passed"
    # References that differ from each other count, even where the target states nothing.
    assert recipe_guard({"t": FULL, "a": ema[0], "b": ema[1]})["status"] == "failed"


@pytest.mark.parametrize("field", RECIPE_FIELDS)
def test_what_is_not_stated_is_unknown(field):
    silent = {key: value for key, value in FULL.items() if key != field}
    for recipe in (silent, changed(**{field: None})):
        found = recipe_guard({"target": recipe, "r": FULL})
        assert found["status"] == "unknown"
        assert f"{field} (not stated by target)" in found["message"]


def test_a_known_difference_weighs_more_than_silence():
    assert recipe_guard({"t": {"epochs": 1}, "r": {"epochs": 2}})["status"] == "failed"


def test_nothing_to_compare_is_unknown():
    for recipes in ({}, {"target": FULL}):
        assert recipe_guard(recipes)["status"] == "unknown"
    assert recipe_guard({"target": {}, "r": {}})["status"] == "unknown"


def test_many_differences_are_cut_short():
    other = dict.fromkeys(FULL, "other")
    assert "; and " in recipe_guard({"t": FULL, "r": other})["message"]


def test_settle_accepts_by_name_only():
    guards = [guard("blind", "failed"), guard("recipe", "failed"), guard("duplicates", "failed")]
    settled = settle(guards, ["blind"])
    assert [g["status"] for g in settled] == ["accepted", "failed", "failed"]
    assert settled[0]["message"] == "Because. Accepted by name."
    assert guards[0]["status"] == "failed"  # the argument is left alone
    assert settle(guards) == guards
    # Nothing to accept where nothing failed.
    assert settle([guard("blind", "passed")], ["blind"]) == [guard("blind", "passed")]


def test_only_what_refuses_can_be_accepted():
    check_accepted(["blind", "recipe"])
    for name in ("blnd", "duplicates", "membership", ""):
        with pytest.raises(ArgumentError, match="Unknown accept="):
            settle([], [name])


def test_refusal_names_guards_and_remedy():
    failed = [guard("blind", "failed"), guard("duplicates", "failed"), guard("recipe", "failed")]
    why = refusal(failed)
    assert "blind and recipe guard" in why
    assert "--accept blind --accept recipe" in why
    assert refusal(settle(failed, ["blind", "recipe"])) is None
    assert "--accept recipe" in refusal(settle(failed, ["blind"]))
    for calm in ([], [guard("blind", "unknown")], [BLIND_BY_DESIGN, RECIPE_BY_DESIGN], [{}]):
        assert refusal(calm) is None


def test_failed_guards_void_the_verdict():
    assert voided([guard("duplicates", "failed"), guard("blind", "accepted"), {}]) is None
    text = voided([guard("membership", "failed"), guard("recipe", "failed")])
    assert text.startswith("The p-values need membership drawn at random")
    assert "trained alike" in text
    assert text.endswith("No claim is made.")


def test_blind_guard_in_words():
    rng = np.random.default_rng(0)
    member = np.arange(80) < 40
    noise = rng.standard_normal((80, 3))
    fine = blind_guard(noise, member, np.arange(80))
    assert (fine["name"], fine["status"]) == ("blind", "passed")
    assert fine["message"].count("AUC 0.") == 2
    shifted = blind_guard(noise + 2.0 * member[:, None], member, np.arange(80))
    assert shifted["status"] == "failed"
    assert "held-out part of the members' own source" in shifted["message"]
    few = blind_guard(noise[:30], np.arange(30) < 5, np.arange(30))
    assert few["status"] == "unknown"


def test_a_patient_on_both_sides_is_refused_with_the_name():
    cohort = cohort_of(np.array(["a", "a", "b", "c", "c"], dtype=object))
    refuse_both_sides(cohort, np.array([True, True, False, False, False]))
    member = np.array([True, True, False, True, False])
    with pytest.raises(TableError) as error:
        refuse_both_sides(cohort, member)
    assert "Patient 'c' is both a member and a non-member: record 3 (row 3)" in str(error.value)
    assert "record 4 (row 4) is not (1 such patients" in str(error.value)


def test_a_patient_audited_and_held_out_is_refused_with_the_name():
    audited, heldout = cohort_of([1, 1, 2]), cohort_of([3, 4])
    refuse_shared_patients(audited, heldout)
    with pytest.raises(TableError, match=r"Patient 2 is both audited and held out.*\(row 2\)"):
        refuse_shared_patients(audited, cohort_of([3, 2]))
