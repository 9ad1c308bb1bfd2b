"""MIMIC-IV-ED as the table of its benchmark, written by the test."""

import gzip

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

import confide
from confide import config
from confide.datasets import ByFraction, MimicIvEd, describe
from confide.datasets.mimic_iv_ed import FEATURES, VITALS
from confide.errors import MissingFileError, TableError

# The columns of master_dataset.csv, as the benchmark's script writes them.
HEADER = (
    "index,subject_id,hadm_id,stay_id,intime,outtime,gender,race,arrival_transport,disposition,"
    "anchor_age,anchor_year,dod,admittime,dischtime,deathtime,ethnicity,edregtime,edouttime,"
    "insurance,in_year,age,outcome_inhospital_mortality,ed_death,before_ed_mortality,ed_los,"
    "intime_icu,time_to_icu_transfer,outcome_icu_transfer_12h,outcome_hospitalization,"
    "outcome_critical,n_ed_30d,n_ed_90d,n_ed_365d,next_ed_visit_time,next_ed_visit_time_diff,"
    "outcome_ed_revisit_3d,n_hosp_30d,n_hosp_90d,n_hosp_365d,n_icu_30d,n_icu_90d,n_icu_365d,"
    "ed_los_hours,time_to_icu_transfer_hours,next_ed_visit_time_diff_days,triage_temperature,"
    "triage_heartrate,triage_resprate,triage_o2sat,triage_sbp,triage_dbp,triage_pain,"
    "triage_acuity,chiefcomplaint,chiefcom_chest_pain,chiefcom_abdominal_pain,chiefcom_headache,"
    "chiefcom_shortness_of_breath,chiefcom_back_pain,chiefcom_cough,chiefcom_nausea_vomiting,"
    "chiefcom_fever_chills,chiefcom_syncope,chiefcom_dizziness,cci_MI,cci_CHF,cci_PVD,cci_Stroke,"
    "cci_Dementia,cci_Pulmonary,cci_Rheumatic,cci_PUD,cci_Liver1,cci_DM1,cci_DM2,cci_Paralysis,"
    "cci_Renal,cci_Cancer1,cci_Liver2,cci_Cancer2,cci_HIV,eci_CHF,eci_Arrhythmia,eci_Valvular,"
    "eci_PHTN,eci_PVD,eci_HTN1,eci_HTN2,eci_Paralysis,eci_NeuroOther,eci_Pulmonary,eci_DM1,"
    "eci_DM2,eci_Hypothyroid,eci_Renal,eci_Liver,eci_PUD,eci_HIV,eci_Lymphoma,eci_Tumor2,"
    "eci_Tumor1,eci_Rheumatic,eci_Coagulopathy,eci_Obesity,eci_WeightLoss,eci_FluidsLytes,"
    "eci_BloodLoss,eci_Anemia,eci_Alcohol,eci_Drugs,eci_Psychoses,eci_Depression,"
    "ed_temperature_last,ed_heartrate_last,ed_resprate_last,ed_o2sat_last,ed_sbp_last,"
    "ed_dbp_last,ed_pain_last,n_med,n_medrecon"
)
COLUMNS = HEADER.split(",")
RACES = (
    *("WHITE", "BLACK/AFRICAN AMERICAN", "ASIAN - CHINESE", "HISPANIC/LATINO - DOMINICAN"),
    *("UNKNOWN", "PORTUGUESE"),
)
N = 24


def master(n=N, seed=0):
    """A table of n stays, two of each patient, as text; the comorbidities are all 0."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame("", index=range(n), columns=COLUMNS, dtype=object)
    rows = np.arange(n)
    table["subject_id"], table["stay_id"] = 10000032 + rows // 2, 30000000 + 7 * rows
    table["gender"] = np.where(rows // 2 % 3, "F", "M")
    table["race"] = [RACES[row // 2 % len(RACES)] for row in rows]
    table["age"] = 20 + 3 * (rows // 2)
    admitted = rows % 3 == 0
    table["outcome_hospitalization"] = np.where(admitted, "True", "False")
    table["outcome_critical"] = np.where(rows % 12 == 0, "True", "False")
    table["outcome_ed_revisit_3d"] = "False"
    table["insurance"] = np.where(admitted, np.where(rows % 2, "Medicaid", "Medicare"), "")
    means = {"temperature": 98.1, "heartrate": 84, "resprate": 18, "o2sat": 98}
    for sign, mean in {**means, "sbp": 134, "dbp": 77, "pain": 4, "acuity": 3}.items():
        table[f"triage_{sign}"] = (mean + rng.integers(-1, 2, n)).astype(float)
    for name in COLUMNS:
        if name.startswith("n_"):
            table[name] = rng.integers(0, 3, n)
        elif name.startswith("chiefcom_"):
            table[name] = np.where(rng.random(n) < 0.5, "True", "False")
        elif name.startswith(("cci_", "eci_")):
            table[name] = 0
    return table.astype(object)


@pytest.fixture
def table():
    return master()


@pytest.fixture
def source(tmp_path):
    """Write a table and name it."""

    def made(table, **changed):
        table.to_csv(tmp_path / "master_dataset.csv", index=False)
        return MimicIvEd(**({"path": tmp_path} | changed))

    return made


def column(data, name):
    return data.inputs[:, data.feature_names.index(name)].astype(float)


def groups(cohort, name):
    return [None if pd.isna(v) else v for v in cohort.groups[name]]


def test_the_features_are_those_of_the_benchmark():
    assert len(FEATURES) == len(set(FEATURES)) == 64
    assert set(FEATURES) <= set(COLUMNS)
    # By kind: visits, vital signs, complaints, Charlson and Elixhauser.
    kinds = ("n_", "triage_", "chiefcom_", "cci_", "eci_")
    assert [sum(f.startswith(kind) for f in FEATURES) for kind in kinds] == [9, 8, 10, 17, 18]
    assert (FEATURES[0], FEATURES[1], FEATURES[2], FEATURES[-1]) == (
        *("age", "gender", "n_ed_30d", "eci_Depression"),
    )


def test_records_patients_labels_groups(source, table):
    table.loc[[2, 4], ["eci_Obesity", "cci_Cancer1"]] = [[1, 0], [0, 1]]
    table.loc[6, "eci_Tumor2"] = 1
    table.loc[8, "eci_Lymphoma"] = 1
    data = source(table).load()
    cohort = data.cohort
    assert cohort.record.tolist() == table["stay_id"].tolist()
    assert cohort.patient.tolist() == table["subject_id"].tolist()
    assert (cohort.task, cohort.classes) == ("binary", ("0", "1"))
    assert cohort.label.tolist() == [1, 0, 0] * 8
    assert list(cohort.groups) == ["sex", "age", "race", "insurance", "obesity", "cancer"]
    assert groups(cohort, "sex")[:8] == ["M", "M", "F", "F", "F", "F", "M", "M"]
    assert groups(cohort, "age")[10:16] == ["20-39"] * 4 + ["40-59"] * 2
    assert groups(cohort, "race")[:12:2] == [
        *("White", "Black", "Asian", "Hispanic", "Other/Unknown", "Other/Unknown"),
    ]
    assert groups(cohort, "insurance")[:4] == ["Medicare", None, None, "Medicaid"]
    assert [row for row, said in enumerate(groups(cohort, "obesity")) if said == "yes"] == [2]
    assert [row for row, said in enumerate(groups(cohort, "cancer")) if said == "yes"] == [4, 6, 8]
    assert data.test.sum() == 4  # two of twelve patients
    assert data.notes == (
        "Left out, because constant over the training pool: "
        + ", ".join(f for f in FEATURES if f.startswith(("cci", "eci")) and not vary(data, f))
        + ".",
    )


def vary(data, name):
    return name in data.feature_names


def test_features_are_standardised_numbers(source, table):
    data = source(table).load()
    pool = ~data.test
    for name in ("age in years", "n_ed_30d", "triage_sbp", "chiefcom_cough", "gender"):
        raw = table[name.replace("age in years", "age")]
        raw = raw.replace({"True": 1, "False": 0, "F": 1, "M": 0}).astype(float).to_numpy()
        expected = (raw - raw[pool].mean()) / raw[pool].std()
        assert np.allclose(column(data, name), expected, atol=1e-5), name
    assert not any(name.endswith("is missing") for name in data.feature_names)


def test_degrees_do_not_matter(source, table):
    fahrenheit = column(source(table).load(), "triage_temperature")
    table["triage_temperature"] = (table["triage_temperature"] - 32) * 5 / 9
    celsius = column(source(table).load(), "triage_temperature")
    assert np.allclose(fahrenheit, celsius, atol=1e-5)


def test_impossible_vital_signs_are_unknown(source, table):
    table.loc[1, "triage_temperature"] = 986.0  # beyond 47 degrees Celsius
    table.loc[2, "triage_o2sat"] = 101.0  # becomes 100
    table.loc[3, "triage_o2sat"] = 9322.0
    table.loc[4, "triage_pain"] = "critical"
    table.loc[7, "triage_pain"] = 13
    table.loc[6, "triage_acuity"] = ""
    data = source(table).load()
    unknown = {
        sign: np.flatnonzero(column(data, f"{sign} is missing")).tolist()
        for sign in VITALS
        if f"{sign} is missing" in data.feature_names
    }
    assert unknown == {
        "triage_temperature": [1],
        "triage_o2sat": [3],
        "triage_pain": [4, 7],
        "triage_acuity": [6],
    }
    assert data.notes[:2] == (
        "1 vital sign is a word, and taken as unknown.",
        "3 vital signs are impossible, and taken as unknown.",
    )
    pool = ~data.test
    o2 = table["triage_o2sat"].to_numpy(float)
    o2[2], o2[3] = 100, np.nan
    expected = (o2 - np.nanmean(o2[pool])) / np.nanstd(o2[pool])
    assert np.allclose(column(data, "triage_o2sat"), np.nan_to_num(expected), atol=1e-5)


def test_children_are_left_out(source, table):
    table.loc[:1, "age"] = [16, 17]
    data = source(table).load()
    assert data.cohort.record.tolist() == table["stay_id"].tolist()[2:]
    assert data.notes[0] == "2 stays are left out: the person is under 18."


@pytest.mark.parametrize("name", ["master_dataset.csv", "x.csv.gz", "x.parquet", "x.csv"])
def test_the_table_can_be_named(source, table, tmp_path, name):
    expected = source(table).load()
    path = tmp_path / "there" / name
    path.parent.mkdir()
    if name.endswith("parquet"):
        typed = table.replace({"True": True, "False": False, "": None}).infer_objects()
        typed.to_parquet(path)
    elif name.endswith("gz"):
        path.write_bytes(gzip.compress(table.to_csv(index=False).encode()))
    else:
        table.to_csv(path, index=False)
    data = MimicIvEd(path=path.relative_to(tmp_path)).load(tmp_path)
    assert data.feature_names == expected.feature_names
    assert data.fingerprint() == expected.fingerprint()


def test_several_outcomes(source, table):
    cohort = source(table, label=["outcome_hospitalization", "outcome_critical"]).load().cohort
    assert cohort.task == "multilabel"
    assert cohort.label[:, 1].tolist() == [1.0, *[0.0] * 11] * 2
    assert source(table, label="outcome_critical").load().cohort.label.sum() == 2


def test_records_that_are_only_looked_at_need_no_outcome(source, table):
    data = source(table.drop(columns="outcome_hospitalization")).unlabelled().load()
    assert data.cohort.n_records == N
    assert not data.test.any()


def test_version_1_calls_race_ethnicity(source, table):
    table["ethnicity"] = table.pop("race")
    assert groups(source(table).load().cohort, "race")[:4:2] == ["White", "Black"]


def test_groups_without_their_columns(source, table):
    gone = table.drop(columns=["race", "ethnicity", "insurance", "eci_Tumor1"])
    data = source(gone).load()
    assert list(data.cohort.groups) == ["sex", "age", "obesity"]
    assert data.notes[:3] == (
        "The group race is left out: the table has no column 'race' or 'ethnicity'.",
        "The group insurance is left out: the table has no column 'insurance'.",
        "The group cancer is left out: the table has no column 'eci_Tumor1'.",
    )
    with pytest.raises(TableError, match="'cancer' cannot be made: the table has no column 'eci_T"):
        source(gone, groups=["sex", "cancer"]).load()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("gender", "X", "Column 'gender' in row 5 is 'X'; expected F or M"),
        ("age", 200, "Column 'age' in row 5 is 200; expected an age"),
        ("n_ed_30d", "many", "Column 'n_ed_30d' in row 5 is 'many'; expected a number"),
        ("chiefcom_cough", "maybe", "'chiefcom_cough' in row 5 is 'maybe'; expected True or False"),
        ("outcome_hospitalization", "2", "in row 5 is '2'; expected True or False"),
        ("outcome_hospitalization", "", "Label 'outcome_hospitalization' is missing in row 5"),
        ("stay_id", 30000000, "Record 30000000 .row 5. is given twice"),
        ("eci_Obesity", "no", "Column 'eci_Obesity' in row 5 is 'no'; expected a number"),
    ],
)
def test_other_values_are_refused(source, table, name, value, message):
    table.loc[5, name] = value
    with pytest.raises(TableError, match=message):
        source(table).load()


@pytest.mark.parametrize("name", ["subject_id", "stay_id", "outcome_hospitalization", "cci_HIV"])
def test_a_missing_column_is_named(source, table, name):
    with pytest.raises(TableError, match=rf"no column '{name}'.* Is it the file of mimic-iv-ed"):
        source(table.drop(columns=name)).load()


def test_a_missing_table_is_named_with_where_to_get_it(tmp_path):
    with pytest.raises(MissingFileError, match=r"no master_dataset\.csv or .*nliulab/mimic4ed-b"):
        MimicIvEd(path=tmp_path).load()
    with pytest.raises(MissingFileError, match=r"no .*gone\.csv; .*physionet\.org/.*nliulab"):
        MimicIvEd(path="gone.csv").load(tmp_path)


def test_settings_are_checked(tmp_path):
    with pytest.raises(ValidationError, match="no 'outcome_death' for `label`, only outcome_hosp"):
        MimicIvEd(path=tmp_path, label="outcome_death")


def test_a_description(source, table):
    table.loc[0, "triage_sbp"] = ""
    found = describe(source(table, test=ByFraction(fraction=0.25)).load())
    assert found["labels"] == {"0": 16, "1": 8}
    assert found["missing"] == {"triage_sbp": 1}
    assert found["groups"]["insurance"]["missing"] == {"patients": 8, "records": 16}


def test_an_audit_from_a_configuration(source, table, tmp_path):
    source(table)
    (tmp_path / "c.yaml").write_text(
        "data: {name: mimic-iv-ed, path: master_dataset.csv}\n"
        "train: {model: {name: tabular_resnet, width: 10, depth: 1}, epochs: 1, batch_size: 8}\n"
        "audit: {n_models: 4}\n"
    )
    settings, folder = config.load(tmp_path / "c.yaml")
    result = confide.run_config(settings, folder, tmp_path / "out")
    assert result.summary["n_records"] == 20
    assert result.patients["n_records"].tolist() == [2] * 10
    assert "group_insurance" in result.records
