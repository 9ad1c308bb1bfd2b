"""Any table."""

import numpy as np
import pandas as pd
import pytest

from confide.datasets import ByColumn, ByFraction, Table
from confide.errors import MissingFileError, TableError

RNG = np.random.default_rng(0)
N = 200
FRAME = pd.DataFrame(
    {
        "visit_id": range(N),
        "patient": [f"p{i // 2:03d}" for i in range(N)],
        "age": RNG.normal(60, 10, N).round(1),
        "sex": RNG.choice(["f", "m"], N),
        "smoker": RNG.choice(["yes", "no", None], N),
        "outcome": RNG.choice(["dead", "alive"], N),
        "split": ["test" if i // 2 % 5 == 0 else "train" for i in range(N)],
    }
)


@pytest.fixture
def folder(tmp_path):
    FRAME.to_csv(tmp_path / "t.csv", index=False)
    FRAME.to_parquet(tmp_path / "t.parquet")
    return tmp_path


def table(**changed):
    given = {"path": "t.csv", "patient": "patient", "label": "outcome"}
    return Table(**(given | changed))


def test_defaults(folder):
    data = table().load(folder)
    assert data.cohort.n_records == N
    assert data.cohort.n_patients == N // 2
    assert data.test.sum() == 0.2 * N
    assert data.cohort.record.tolist() == list(range(N))
    assert data.feature_names == (
        "age",
        "sex=f",
        "sex=m",
        "smoker=no",
        "smoker=yes",
        "smoker is missing",
        "split=test",
        "split=train",
    )
    assert any("visit_id" in note for note in data.notes)


def test_csv_and_parquet_are_the_same(folder):
    data = [table(path=name).load(folder) for name in ("t.csv", "t.parquet")]
    assert data[0].fingerprint() == data[1].fingerprint()
    absolute = table(path=folder / "t.csv").load()
    assert absolute.fingerprint() == data[0].fingerprint()


def test_columns_with_another_use_are_no_features(folder):
    data = table(
        record="visit_id", groups=("sex",), test=ByColumn(column="split", value="test")
    ).load(folder)
    assert {name.split("=")[0].split(" ")[0] for name in data.feature_names} == {"age", "smoker"}
    assert np.array_equal(data.test, FRAME["split"] == "test")
    assert data.cohort.groups["sex"].tolist() == FRAME["sex"].tolist()
    assert data.notes == ()


def test_named_features_may_be_anything(folder):
    data = table(groups=["sex"], features=["sex", "visit_id"]).load(folder)
    assert data.feature_names == ("sex=f", "sex=m", "visit_id")


def test_giveaways_are_told(folder):
    frame = FRAME.assign(
        died=(FRAME["outcome"] == "dead").astype(int), person=FRAME["patient"].str[1:].astype(int)
    )
    frame.to_csv(folder / "g.csv", index=False)
    data = table(path="g.csv").load(folder)
    told = [note for note in data.notes if "exactly" in note]
    assert [note.split(";")[0] for note in told] == [
        "Feature died tells the label exactly",
        "Feature person tells the patient exactly",
    ]
    assert all("it was left out; name it under `features`" in note for note in told)
    assert not {"died", "person"} & set(data.feature_names)
    named = table(path="g.csv", features=["died", "age"]).load(folder)
    assert "died" in named.feature_names
    assert "Feature died tells the label exactly; leave it out unless that is meant." in named.notes


def test_multilabel(folder):
    frame = FRAME.assign(a=RNG.integers(0, 2, N), b=RNG.choice([0, 1, None], N))
    frame.to_csv(folder / "m.csv", index=False)
    data = table(path="m.csv", label=["a", "b"]).load(folder)
    assert (data.cohort.task, data.cohort.classes) == ("multilabel", ("a", "b"))
    assert np.isnan(data.cohort.label[:, 1]).sum() == frame["b"].isna().sum() > 0
    assert not {"a", "b"} & set(data.feature_names)


def test_a_number_is_cut_into_classes(folder):
    """At an edge begins the upper class; the number itself is no feature."""
    edge = float(np.median(FRAME["age"]))
    data = table(label={"age": [edge]}).load(folder)
    assert data.cohort.task == "binary"
    assert data.cohort.classes == (f"<{edge}", f">={edge}")
    assert data.cohort.label.tolist() == (FRAME["age"] >= edge).astype(int).tolist()
    assert "age" not in data.feature_names
    assert "outcome=dead" in data.feature_names
    bands = table(label={"age": [50.0, 70.0]}).load(folder).cohort
    assert bands.task == "multiclass"
    expected = np.digitize(FRAME["age"], [50.0, 70.0])
    assert [bands.classes[i][:2] for i in bands.label] == [("<5", "50", ">=")[i] for i in expected]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"patient": "patiant"}, r"t\.csv: The table has no column 'patiant'. Did you mean 'pat"),
        ({"label": "smoker"}, r"t\.csv: Label 'smoker' is missing in row \d+"),
        ({"label": "age"}, "measurement"),
        ({"label": {"sex": [1.0]}}, "'sex' is not a number"),
        ({"label": {"age": [500.0]}}, "Label 'age' has 1 different value"),
        ({"features": ["agee"]}, r"t\.csv: .*'agee'. Did you mean 'age'"),
        ({"groups": ["visit_id"]}, "Group 'visit_id' has 200"),
        ({"record": "patient"}, r"Record 'p000' \(row 1\) is given twice"),
        ({"test": ByColumn(column="sex", value="f")}, r"t\.csv: Patient .* both sides"),
        ({"test": ByColumn(column="sex", value="x")}, "No record has the value 'x'"),
    ],
)
def test_refusals_name_the_file(folder, changed, message):
    with pytest.raises(TableError, match=message):
        table(**changed).load(folder)


def test_a_missing_patient_names_the_row(folder):
    frame = FRAME.copy()
    frame.loc[17, "patient"] = None
    frame.to_csv(folder / "t.csv", index=False)
    with pytest.raises(TableError, match="Row 17 has no patient id"):
        table().load(folder)
    with pytest.raises(MissingFileError, match=r"absent\.csv"):
        table(path="absent.csv").load(folder)


def test_the_split_depends_on_its_seed_alone(folder):
    test = table().load(folder).test
    assert np.array_equal(table(features=["age"]).load(folder).test, test)
    other = table(test=ByFraction(seed=1)).load(folder).test
    assert other.sum() == test.sum()
    assert not np.array_equal(other, test)
