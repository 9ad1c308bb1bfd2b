import pytest

from confide.reports import wording


def _summary(status, **patients):
    return {
        "n_patients": 455,
        "verdict": {"status": status, "text": "As the audit says."},
        "patients": {"n_at_risk": 12, "fdr": 0.05, "smallest_detectable_auc": 0.742} | patients,
    }


def test_at_risk():
    verdict = wording.verdict(_summary("at_risk"))
    assert verdict.label == "Patients at risk"
    assert verdict.headline.startswith("12 of 455 patients are at risk")
    assert "On average at most 5% of those on such a list are false alarms" in " ".join(
        verdict.means
    )
    assert verdict.means_not[0] == (
        "That the other patients are safe. "
        "A patient who is alone at risk is listed only from a measured AUC of 0.742 upwards, with "
        "several records from slightly more. "
        "Smaller risks can stay unseen."
    )
    one = wording.verdict(_summary("at_risk", n_at_risk=1))
    assert one.headline.startswith("1 of 455 patients is at risk")


def test_looks_are_paid_for_and_said():
    (line,) = wording.looks({"fdr": 0.05, "looks": 3})
    assert line.startswith("The list was made at a false discovery rate of 1.67%: 5% divided by ")
    for patients in ({}, {"fdr": 0.05, "looks": 1}, {"looks": 3}, {"fdr": 0.05, "looks": None}):
        assert wording.looks(patients) == ()


def test_what_power_and_canaries_say():
    more = {"detectable_auc_80": 0.781, "canaries": {"planted": 12, "found": 5}}
    for status in ("at_risk", "detectable", "none_found", "not_established"):
        verdict = wording.verdict(_summary(status, **more))
        said = " ".join([*verdict.means, *verdict.means_not])
        assert said.count("A true AUC of 0.781 is found in four audits of five.") == 1
        assert said.count("of 12 held-out patients that were trained on with wrong labels") == 1


def test_a_failed_guard_is_the_reason():
    guard = {"name": "membership", "status": "failed", "message": "Shared columns."}
    verdict = wording.verdict(_summary("not_established") | {"guards": [guard]})
    assert "A check failed" in verdict.means[0]
    assert "no evidence" in verdict.means[0]


def test_detectable_is_neither_a_list_nor_an_all_clear():
    verdict = wording.verdict(_summary("detectable", n_at_risk=0))
    assert verdict.status == "detectable"
    assert verdict.headline == "Membership leaks, though no single patient could be named."
    assert verdict.means_not[0].startswith("That each patient is safe. A patient who is alone")


def test_none_found_is_not_safe():
    control = {"planted": 20, "found": 19, "auc": 0.953}
    verdict = wording.verdict(_summary("none_found", n_at_risk=0, control=control))
    assert verdict.label == "None found"
    assert "within what this audit could detect" in verdict.headline
    assert (
        "of 20 planted patients, each of whose records has an AUC of 0.953, 19 were found"
        in verdict.means[1]
    )
    assert verdict.means_not[0].startswith("That the model is safe or the data anonymous.")


@pytest.mark.parametrize("status", ["not_established", None, "something new"])
def test_not_established_is_never_safe(status):
    verdict = wording.verdict(
        _summary(status, n_at_risk=0, smallest_detectable_auc=None, control=None)
    )
    assert verdict.status == "not_established"
    assert verdict.headline == "This audit cannot say whether patients are at risk."
    assert "No positive control was run" in verdict.means[1]
    assert "no patient alone could have been listed" in verdict.means[2]
    assert "Not established is never safe." in verdict.means_not[0]


@pytest.mark.parametrize("summary", [{}, {"verdict": None, "patients": None}])
def test_a_summary_without_a_verdict_is_not_established(summary):
    assert wording.verdict(summary).status == "not_established"
    assert wording.verdict(summary).text == ""


@pytest.mark.parametrize("status", ["at_risk", "detectable", "none_found", "not_established"])
def test_safe_is_only_ever_denied(status):
    verdict = wording.verdict(_summary(status))
    claims = " ".join([verdict.label, verdict.headline, *verdict.means])
    assert "safe" not in claims
    assert "anonymous" not in claims


@pytest.mark.parametrize("status", ["at_risk", "detectable", "none_found", "not_established"])
def test_every_verdict_says_what_to_do_next(status):
    steps = wording.verdict(_summary(status)).next_steps
    assert 2 <= len(steps) <= 3
    assert all(step.endswith(".") for step in steps)


def test_what_to_do_next_names_the_guard_that_failed():
    guard = {"name": "blind", "status": "failed", "message": "Blind."}
    steps = wording.verdict(_summary("not_established") | {"guards": [guard]}).next_steps
    assert steps[0] == "Mend what the failed guard names, and audit again."


def test_references_are_those_of_the_parts_used():
    summary = _summary("at_risk", tail={"0.8": {"corrected": 0.1}})
    summary |= {"attacks": {"lira_offline": {}, "mine": {}}, "epsilon": [{"method": "gdp"}]}
    found = " ".join(wording.references(summary))
    for name in ("Carlini", "Gaussian differential privacy", "Ignatiadis", "Benjamini", "DeLong"):
        assert name in found
    for name in ("Zarifzadeh", "Steinke", "Holm"):
        assert name not in found
    assert wording.references({}) == ()
    assert "Ignatiadis" not in " ".join(wording.references(_summary("at_risk")))
