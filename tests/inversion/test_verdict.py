"""What a run of attacks may say, and what it may never say."""

import itertools
import math

import pytest

from confide.inversion.verdict import SINGLES_OUT, gate, outcome, reidentification


def scored(value, low=None, high=None, *, name="reid", chance=0.01, top=0.05):
    low, high = (value if one is None else one for one in (low, high))
    return {
        name: {
            "value": value,
            "low": low,
            "high": high,
            "chance": chance,
            "chance_low": 0.0,
            "chance_high": top,
        }
    }


BROKEN, FAILED, QUIET, LOUD = scored(1.0), scored(0.3), scored(0.01), scored(0.2)


def of(release, linear=BROKEN, noise=QUIET):
    return outcome("reid", 0.9, release, linear, noise)


def one(release, linear=BROKEN, noise=QUIET, headline="reid"):
    state, why = outcome(headline, 0.9, release, linear, noise)
    singles = [headline] if headline == "reid" else []
    return {"outcome": state, "why": why, "release": release, "singles_out": singles}


def test_outcomes():
    assert of(scored(0.8))[0] == "leaks"
    assert of(scored(0.02))[0] == "nothing found"
    assert of({})[0] == "not scored"
    assert of(scored(0.02), linear={})[0] == "not established"
    assert of(scored(0.02), noise={})[0] == "not established"


def test_a_failure_counts_only_if_the_positive_control_broke():
    state, why = of(scored(0.0), linear=FAILED)
    assert state == "not established"
    assert "0.3 on the linear encoder, expected at least 0.9" in why


def test_success_counts_whatever_the_positive_control_did():
    assert of(scored(0.8), linear=FAILED)[0] == "leaks"


def test_an_attack_that_finds_something_in_noise_counts_for_nothing():
    state, why = of(scored(0.8), noise=LOUD)
    assert state == "not established"
    assert "0.2 on codes of noise, expected 0 to 0.05" in why


def test_noise_below_what_chance_allows_is_no_control_either():
    low = {"reid": QUIET["reid"] | {"chance_low": 0.02}}
    assert of(scored(0.8), noise=low)[0] == "not established"


@pytest.mark.parametrize(
    ("release", "verdict"),
    [
        (scored(0.9, 0.8, 0.95), "bad"),
        (scored(0.21, 0.1, 0.4), "bad"),
        (scored(0.15, 0.1, 0.19), "moderate"),
        (scored(0.15, 0.1, 0.25), "not established"),
        (scored(0.01, 0.0, 0.04), "good"),
        (scored(0.01, 0.0, 0.05), "moderate"),
        (scored(0.15, 0.1, 0.20), "not established"),
        (scored(0.01, 0.0, 0.06), "moderate"),
        (scored(0.01, 0.0, 0.21), "not established"),
    ],
)
def test_bands_hold_for_the_upper_end(release, verdict):
    found = reidentification({"a": one(release)})
    assert found["verdict"] == verdict
    assert found["attack"] == "a"
    assert found["value"] == release["reid"]["value"]


def test_the_worst_attack_decides():
    attacks = {"weak": one(scored(0.01, 0, 0.02)), "strong": one(scored(0.9, 0.8, 1.0))}
    assert reidentification(attacks)["attack"] == "strong"
    assert reidentification(attacks)["verdict"] == "bad"


def test_one_failed_control_withholds_the_verdict_unless_another_attack_succeeded():
    fine, open_ = one(scored(0.01, 0, 0.02)), one(scored(0.01, 0, 0.02), linear=FAILED)
    found = reidentification({"fine": fine, "open": open_})
    assert found["verdict"] == "not established"
    assert "open: the controls failed" in found["text"]
    broken = one(scored(0.9, 0.8, 1.0))
    assert reidentification({"open": open_, "broken": broken})["verdict"] == "bad"


def test_never_good_without_a_broken_positive_control():
    values = (scored(0.0, 0.0, 0.01), scored(0.04, 0, 0.05), {})
    for release, linear, noise in itertools.product(values, (FAILED, {}), (QUIET, LOUD, {})):
        found = reidentification({"a": one(release, linear, noise)})
        assert found["verdict"] in ("not established", "not measured")


def test_controls_of_attacks_cannot_make_a_release_good():
    """They have to find nothing, and so say nothing."""
    quiet = one(scored(0.0, 0.0, 0.01)) | {"singles_out": []}
    found = reidentification({"wrongly-paired": quiet})
    assert found["verdict"] == "not measured"
    assert not gate(found, {"wrongly-paired": quiet}, 0.5)["met"]


def test_the_second_positive_control_has_to_break_too():
    shown = {"release": scored(0.02), "linear": BROKEN, "noise": QUIET}
    assert outcome("reid", 0.9, **shown, shallow=BROKEN)[0] == "nothing found"
    state, why = outcome("reid", 0.9, **shown, shallow=FAILED)
    assert state == "not established"
    assert "0.3 without hidden layers" in why
    assert outcome("reid", 0.9, **shown, shallow={})[0] == "not established"


def test_too_few_codes_to_tell():
    few = scored(1.0, 0.5, 1.0, chance=0.2, top=1.0)
    state, why = of(few, noise=few)
    assert state == "not established"
    assert "too few codes" in why


def test_who_finds_the_patient_needs_not_the_very_record():
    """As with many pictures of each patient."""
    release = scored(0.03, 0.01, 0.08) | scored(1.0, 0.96, 1.0, name="patient", chance=0.01)
    linear, noise = BROKEN | scored(1.0, name="patient"), QUIET | scored(0.01, name="patient")
    names = ("reid", "patient")
    state, why = outcome("reid", 0.9, release, linear, noise, also=names)
    assert state == "leaks"
    assert why.startswith("patient 1,")
    attacks = {"a": {"outcome": state, "release": release, "singles_out": list(names)}}
    found = reidentification(attacks)
    assert found["verdict"] == "bad"
    assert found["value"] == 1.0
    assert not gate(found, attacks, 0.2)["met"]


def test_a_gate_is_missed_while_another_attack_is_open():
    attacks = {"a": one(scored(0.3, 0.22, 0.38)), "b": one(scored(0.01), linear=FAILED)}
    found = reidentification(attacks)
    assert found["verdict"] == "bad"
    assert not gate(found, attacks, 0.5)["met"]


def test_other_headlines_do_not_count():
    probe = one(scored(0.9, name="auc"), headline="auc", linear=scored(1, name="auc"))
    assert reidentification({"probe": probe})["verdict"] == "not measured"
    assert reidentification({})["verdict"] == "not measured"


@pytest.mark.parametrize("high", [0.03, 0.05, 0.06])
def test_gate(high):
    attacks = {"a": one(scored(0.01, 0.0, high))}
    found = gate(reidentification(attacks), attacks, 0.05)
    assert found["met"] == (high <= 0.05)
    assert f"{high:.1%}" in found["why"]


def test_nothing_that_is_not_established_passes_a_gate():
    for attacks in ({}, {"a": one(scored(0.0, 0, 0.01), linear=FAILED)}):
        found = gate(reidentification(attacks), attacks, 1.0)
        assert not found["met"]


def test_attacks_that_did_not_run_are_not_forgotten():
    fine = one(scored(0.01, 0, 0.02))
    for state in ("not run", "not scored"):
        gone = fine | {"outcome": state, "release": {}}
        found = reidentification({"fine": fine, "gone": gone})
        assert found["verdict"] == "not established"
        assert "gone" in found["text"]


def test_without_an_interval_nothing_is_bounded():
    """As of a single patient."""
    alone = scored(0.01)
    alone["reid"] |= {"low": None, "high": None}
    attacks = {"a": one(alone)}
    assert reidentification(attacks)["verdict"] == "not established"
    assert not gate({"verdict": "good"}, attacks, 0.5)["met"]


def test_an_attack_that_is_a_control_should_find_nothing():
    control = {"headline": "reid", "breaks_at": math.inf}
    quiet = outcome(**control, release=scored(0.01), linear=FAILED, noise=QUIET)
    assert quiet[0] == "nothing found"
    assert outcome(**control, release=scored(0.2), linear=FAILED, noise=QUIET)[0] == "leaks"


def test_a_picture_that_is_recognised_counts():
    """Though the attack is judged by how much it is like the truth."""
    release = scored(0.9, name="correlation") | scored(0.97, 0.9, 1.0, name="first_rank")
    attack = {"outcome": "leaks", "release": release, "singles_out": ["first_rank"]}
    assert reidentification({"reconstruction": attack})["verdict"] == "bad"


def test_every_answer_that_can_single_out_says_by_which_score():
    from confide.inversion.suite import KNOWN

    without = {a.name for a in KNOWN.values() if a.finding not in SINGLES_OUT}
    assert without == {
        "linkage",
        "one-key-linkage",
        "two-keys-linkage",
        "attribute-probe",
        "transfer",
    }
