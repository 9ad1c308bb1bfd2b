from confide.reports import view


def test_a_rate_that_could_not_be_measured(make_result):
    rates = view.attacks(make_result().summary)[0].rates
    assert [rate.fpr for rate in rates] == ["10%", "1%", "0.1%", "0.01%"]
    assert [rate.measurable for rate in rates] == [True, True, True, False]
    assert rates[1].ppv["10%"] == "35.7%"


def test_the_strongest_attack(make_result):
    summary = make_result().summary
    assert view.strongest(summary).name == "RMIA"
    summary["attacks"]["rmia"]["auc"] = None
    assert view.strongest(summary).name == "LiRA"
    assert view.strongest({}) is None
    summary["attacks"]["lt_iqr"] = summary["attacks"]["lira"] | {"auc": 0.9}
    assert view.strongest(summary).name == "LiRA"


def test_guards_that_did_not_pass_come_first():
    guards = [
        {"name": name, "status": name, "message": ""} for name in ("passed", "accepted", "failed")
    ]
    guards.append({"name": "odd"})
    found = view.guards({"guards": guards})
    assert [guard["name"] for guard in found] == ["failed", "accepted", "odd", "passed"]


def test_missing_models_are_a_warning():
    (line,) = view.warnings({"models_missing": [3, 41], "warnings": None})
    assert line.startswith("Models that are missing and were left out: 3, 41.")
    assert view.warnings({"models_missing": []}) == []


def test_method_facts_are_flat():
    rows = view.method_rows(
        {"model": {"name": "mlp", "depth": 6}, "ema": None, "seeds": range(3), "p": {}, "on": True}
        | {"lr": 1e-7, "many": list(range(64))}
    )
    assert dict(rows) == {
        "model.name": "mlp",
        "model.depth": "6",
        "ema": "none",
        "seeds": "range(0, 3)",
        "p": "none",
        "on": "yes",
        "lr": "1e-07",
        "many": ", ".join(map(str, range(20))) + ", ... (64 in all)",
    }


def test_a_share_of_zero_takes_its_digits_from_the_upper_bound():
    tail = {"0.9": {"raw": 0.0, "null": 0.0, "corrected": None, "raw_low": 0.0, "raw_high": 0.0092}}
    (found,) = view.tails({"patients": {"tail": tail}})
    assert (found.raw, found.raw_interval) == ("0.0%", "0.00% to 0.92%")
    assert (found.corrected, found.corrected_interval) == ("n/a", "n/a")


def test_every_share_has_its_own_interval():
    one = {"raw": 0.2, "raw_low": 0.1, "raw_high": 0.3, "null": 0.05, "null_low": 0.04}
    one |= {"null_high": 0.06, "corrected": 0.15, "low": 0.0, "high": 0.4}
    (found,) = view.tails({"patients": {"tail": {"0.8": one}}})
    assert (found.raw, found.raw_interval) == ("20.0%", "10.0% to 30.0%")
    assert (found.null, found.null_interval) == ("5.0%", "4.0% to 6.0%")
    assert (found.corrected, found.corrected_interval) == ("15.0%", "0.0% to 40.0%")
