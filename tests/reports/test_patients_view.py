import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from confide.reports import patients_view as view


def test_patients_come_in_order_of_risk_and_without_their_ids(make_result, make_records):
    result = make_records(make_result(n_at_risk=12))
    listed = view.patients_at_risk(result, limit=5)
    assert [patient.name for patient in listed] == ["P1", "P2", "P3", "P4", "P5"]
    assert listed[0].auc_joint == "0.990"
    by_id = view.patients_at_risk(result, limit=5, show_ids=True)
    ids = result.patients.sort_values("p_value")["patient"].tolist()
    assert [patient.name for patient in by_id] == ids[:5]
    assert by_id[0].records[0].name.startswith("rec-")
    hidden = [dataclasses.replace(patient, name="", records=()) for patient in listed]
    assert hidden == [dataclasses.replace(patient, name="", records=()) for patient in by_id]


def test_no_patients_and_missing_flags(make_result):
    result = make_result(n_at_risk=0)
    assert view.patients_at_risk(result, show_ids=True) == []
    none = dataclasses.replace(result, patients=pd.DataFrame())
    assert view.patients_at_risk(none, show_ids=True) == []


def test_records_are_those_of_the_patient_the_riskiest_first(make_result):
    result = make_result(60, n_at_risk=3, groups={})
    rng = np.random.default_rng(0)
    owner = rng.choice(result.patients["patient"], 600)
    auc = rng.uniform(0.4, 1, 600)
    auc[::7] = np.nan
    records = pd.DataFrame({"record": np.arange(600), "patient": owner, "auc": auc})
    result = dataclasses.replace(result, records=records)
    owned = view.records_of(result, result.patients["patient"].head(5))
    assert set(owned) <= set(result.patients["patient"].head(5))
    for patient, found in owned.items():
        own = records[records["patient"] == patient]
        slow = [*own.dropna().sort_values("auc", ascending=False).index]
        assert found == [*slow, *own[own["auc"].isna()].index]


def test_ten_records_are_told_and_the_others_counted(make_result):
    result = make_result(40, n_at_risk=1, groups={})
    result.patients["n_records"] = 13
    patient = result.patients.loc[result.patients["at_risk"], "patient"].item()
    records = pd.DataFrame({"record": range(13), "patient": patient, "auc": 0.9, "auc_se": None})
    (one,) = view.patients_at_risk(dataclasses.replace(result, records=records))
    assert [record.name for record in one.records] == [f"R{i}" for i in range(1, 11)]
    assert one.records[0].text == "AUC 0.900"
    assert one.note.startswith("3 more, less at risk")


def _labelled(make_result, show_ids, **columns):
    result = make_result(100, n_at_risk=100, groups={})
    frame = {"record": range(100), "patient": result.patients["patient"], "auc": 0.9} | columns
    result = dataclasses.replace(result, records=pd.DataFrame(frame))
    listed = view.patients_at_risk(result, show_ids=show_ids)
    return sorted(record.text.partition("label ")[2] for one in listed for record in one.records)


def test_labels_of_records_are_told_with_ids_alone(make_result):
    labels = ["common"] * 70 + ["other"] * 30
    assert _labelled(make_result, True, label=labels) == labels
    assert set(_labelled(make_result, False, label=labels)) == {""}


def test_several_labels_are_one_name(make_result):
    told = _labelled(
        make_result,
        True,
        label_x=[1] * 60 + [0] * 36 + [1] * 4,
        label_y=[0] * 60 + [0] * 20 + [1] * 20,
    )
    assert told == ["none"] * 20 + ["x"] * 60 + ["x, y"] * 4 + ["y"] * 16


def _numbers(make_result, n_records, show_ids=False):
    result = make_result(len(n_records), n_at_risk=len(n_records), groups={})
    result.patients["n_records"] = n_records
    owner = result.patients["patient"].repeat(n_records).to_numpy()
    records = pd.DataFrame({"record": range(len(owner)), "patient": owner, "auc": 0.9})
    result = dataclasses.replace(result, records=records)
    return view.patients_at_risk(result, show_ids=show_ids)


def test_numbers_of_records_that_few_patients_have_are_not_told(make_result):
    n_records = [1] * 40 + [2] * 20 + [3] * 8 + [4] * 12 + [30]
    listed = _numbers(make_result, n_records)
    told = sorted((one.n_records, len(one.records), one.note != "") for one in listed)
    assert told == sorted(
        [("1", 1, False)] * 40 + [("2", 2, False)] * 20 + [("3 or more", 3, True)] * 21
    )
    assert not any("27" in one.note or "20" in one.note for one in listed)
    # One patient alone would be told by "30 or more".
    last = _numbers(make_result, [1] * 40 + [2] * 20 + [30])
    assert sum(one.n_records == "2 or more" for one in last) == 21
    named = _numbers(make_result, n_records, show_ids=True)
    assert sorted({one.n_records for one in named}) == ["1", "2", "3", "30", "4"]


def test_pseudonyms_do_not_follow_the_table_where_patients_are_alike(make_result):
    result = make_result(200, n_at_risk=200, groups={})
    result.patients[["p_value", "auc_joint"]] = [1e-6, 0.99]
    result.patients["auc_max"] = np.linspace(0.5, 1, 200)  # tells the row
    rows = [float(one.auc_max) for one in view.patients_at_risk(result)]
    assert abs(np.corrcoef(rows, np.arange(200))[0, 1]) < 0.3
    assert rows == [float(one.auc_max) for one in view.patients_at_risk(result)]


def test_rows_are_data_whatever_the_names_are(make_result, make_records, hostile):
    result = make_records(make_result())
    result.patients["patient"] = [hostile[i % 8] + str(i) for i in range(len(result.patients))]
    result = make_records(result)
    result.records["record"] = [hostile[i % 8] + str(i) for i in range(len(result.records))]
    listed = view.patients_at_risk(result, show_ids=True)
    text = view.to_rows(listed)
    assert not set("<>&\u2028") & set(text)
    for (cells, records, note), patient in zip(json.loads(text), listed, strict=True):
        assert cells[0] == patient.name
        assert cells[2] == [patient.auc_joint, patient.auc_joint.value]
        assert cells[4][:3] == [patient.risk, patient.risk.value, patient.risk_interval]
        assert [name for name, _ in records] == [record.name for record in patient.records]
        assert note == ""


@pytest.mark.parametrize("limit", [1, 7])
def test_at_most_so_many(make_result, limit):
    assert len(view.patients_at_risk(make_result(), limit=limit)) == limit
