import dataclasses

import numpy as np
import pandas as pd

from confide.reports import view


def test_small_cells_hold_no_figure(make_result):
    result = make_result(groups={"race": {"White": 400, "Ten": 10, "Nine": 9, "Unknown": 5}})
    result.groups.loc[3, "n_patients"] = np.nan
    cells = {cell.value: cell for cell in view.groups(result)[0].cells}
    assert [name for name, cell in cells.items() if cell.withheld] == ["Nine", "Unknown"]
    empty = view.Cell(group="race", value="Nine", withheld=True)
    assert cells["Nine"] == empty
    assert empty.n_patients == "< 10"
    assert {cell.value for cell in view.top_cells(result, 9)} == {"White", "Ten"}


def test_small_cells_of_utility_hold_no_figure(make_result):
    result = make_result()
    result.summary["utility"]["by_group"] = {
        "race": {"Nine": {"auroc": 0.987, "n_patients": 9}, "Ten": {"auroc": 0.9, "n_patients": 10}}
    }
    nine, ten = view.utility_by_group(result)["race"]
    assert nine == view.Utility(value="Nine", withheld=True)
    assert (ten.auroc, ten.accuracy, ten.beside) == ("0.900", "n/a", None)


def test_utility_stands_beside_the_privacy_of_the_same_value(make_result):
    result = make_result()
    by_group = view.utility_by_group(result)
    for group in view.groups(result):
        for one, cell in zip(by_group[group.name], group.cells, strict=True):
            assert one.beside == cell


def test_patients_come_in_order_of_risk_and_without_their_ids(make_result):
    result = make_result(n_at_risk=12)
    listed = view.patients_at_risk(result, limit=5, show_ids=False)
    assert [patient.name for patient in listed] == ["P1", "P2", "P3", "P4", "P5"]
    assert listed[0].auc_joint == "0.990"
    by_id = view.patients_at_risk(result, limit=5, show_ids=True)
    ids = result.patients.sort_values("p_value")["patient"].tolist()
    assert [patient.name for patient in by_id] == ids[:5]
    hidden = [dataclasses.replace(patient, name="") for patient in listed]
    assert hidden == [dataclasses.replace(patient, name="") for patient in by_id]


def test_no_patients_and_missing_flags(make_result):
    result = make_result(n_at_risk=0)
    assert view.patients_at_risk(result, limit=5, show_ids=True) == []
    none = dataclasses.replace(result, patients=pd.DataFrame())
    assert view.patients_at_risk(none, limit=5, show_ids=True) == []


def test_few_conflicts_are_a_small_cell_too(make_result):
    sex, race, _ = view.groups(make_result())
    assert sex.n_conflicts == "fewer than 10"
    assert race.n_conflicts == "95"


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


def test_guards_that_did_not_pass_come_first():
    guards = [{"name": name, "status": name, "message": ""} for name in ("passed", "failed")]
    guards.append({"name": "odd"})
    found = view.guards({"guards": guards})
    assert [guard["name"] for guard in found] == ["failed", "odd", "passed"]


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
    tail = {"0.9": {"raw": 0.0, "null": 0.0, "corrected": None, "low": 0.0, "high": 0.0092}}
    (found,) = view.tails({"patients": {"tail": tail}})
    assert (found.raw, found.interval) == ("0.0%", "0.00% to 0.92%")
