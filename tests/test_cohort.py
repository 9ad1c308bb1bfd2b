"""Cohorts: patients, masks, splits, groups."""

import numpy as np
import pandas as pd
import pytest

from confide.cohort import Cohort
from confide.errors import ArgumentError, TableError


def cohort(patient, /, **changed):
    n = len(patient)
    given = {
        "record": np.arange(n),
        "patient": np.asarray(patient),
        "label": np.arange(n) % 2,
        "task": "binary",
        "classes": ("no", "yes"),
    }
    return Cohort(**(given | changed))


def random_cohort(seed, n=200):
    rng = np.random.default_rng(seed)
    patient = rng.integers(0, 40, n)
    groups = pd.DataFrame(
        {
            "sex": np.array(["f", "m", None], dtype=object)[patient % 3],
            "site": rng.choice(["a", "b"], n),
        }
    )
    return cohort(patient, groups=groups)


def test_patients_are_in_order_of_first_appearance():
    c = cohort(["b", "a", "b", "c", "a"])
    assert c.patients.tolist() == ["b", "a", "c"]
    assert c.patient_index.tolist() == [0, 1, 0, 2, 1]
    assert c.records_per_patient.tolist() == [2, 2, 1]
    assert (c.n_records, c.n_patients) == (5, 3)


@pytest.mark.parametrize("kind", [list, pd.Series, np.array, lambda x: np.array(x, dtype=object)])
@pytest.mark.parametrize("ids", [[3, 1, 3], ["007", "7", "007"]])
def test_ids_are_kept_as_given(ids, kind):
    c = cohort(kind(ids))
    assert c.patient.tolist() == ids
    assert c.patients.tolist() == ids[:2]
    assert type(c.patients.tolist()[0]) is type(ids[0])


def test_string_columns_of_pandas():
    frame = pd.DataFrame({"p": pd.array(["x", "y", "x"], dtype="string"), "y": [0, 1, 1]})
    assert Cohort.from_frame(frame, patient="p", label="y").patients.tolist() == ["x", "y"]
    frame["p"] = pd.array([5, 6, 5], dtype="Int64")
    assert Cohort.from_frame(frame, patient="p", label="y").patients.tolist() == [5, 6]
    frame["p"] = pd.Categorical(["x", "y", "x"], categories=["z", "y", "x"])
    assert Cohort.from_frame(frame, patient="p", label="y").patients.tolist() == ["x", "y"]


@pytest.mark.parametrize("seed", range(3))
def test_expand_against_a_loop(seed):
    c = random_cohort(seed)
    membership = np.random.default_rng(seed).random((5, c.n_patients)) < 0.5
    expected = np.zeros((5, c.n_records), dtype=bool)
    for m in range(5):
        inside = {p for p, is_in in zip(c.patients, membership[m], strict=True) if is_in}
        expected[m] = [p in inside for p in c.patient]
    assert np.array_equal(c.expand(membership), expected)
    assert np.array_equal(c.expand(membership[2]), expected[2])
    with pytest.raises(ArgumentError, match=f"membership of {c.n_patients} patients, got 3"):
        c.expand(membership[:, :3])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.5, 0.99])
def test_no_patient_is_on_both_sides_of_a_split(seed, fraction):
    c = random_cohort(seed)
    train, test = c.split(fraction, seed)
    assert np.array_equal(train, ~test)
    assert not set(c.patient[train]) & set(c.patient[test])
    n_test = len(set(c.patient[test]))
    assert n_test == min(max(round(fraction * c.n_patients), 1), c.n_patients - 1)
    assert np.array_equal(c.split(fraction, seed)[1], test)


def test_splits_differ_by_seed_and_refuse_what_cannot_be():
    c = random_cohort(0)
    assert not np.array_equal(c.split(0.5, 0)[1], c.split(0.5, 1)[1])
    for fraction in (0, 1, -0.1, float("nan")):
        with pytest.raises(ArgumentError, match="strictly between"):
            c.split(fraction, 0)
    with pytest.raises(TableError, match="single patient"):
        cohort(["a", "a"]).split(0.5, 0)


def test_select():
    c = random_cohort(0)
    rows = np.array([5, 3, 100])
    some = c.select(rows)
    assert some.record.tolist() == [5, 3, 100]
    assert some.groups.index.tolist() == [0, 1, 2]
    assert some.groups["site"].tolist() == [c.groups["site"][i] for i in rows]
    mask = np.zeros(c.n_records, dtype=bool)
    mask[[3, 5, 100]] = True
    assert c.select(mask).label.tolist() == c.label[mask].tolist()
    bare = cohort(["a", "b", "c"]).select(np.array([2, 0]))
    assert bare.patients.tolist() == ["c", "a"]
    assert bare.groups.shape == (2, 0)
    with pytest.raises(TableError, match="empty"):
        c.select(np.array([], dtype=int))


def test_patient_groups_take_the_first_record_and_count_conflicts():
    c = cohort(
        ["a", "b", "a", "b", "c"],
        groups=pd.DataFrame(
            {
                "sex": ["f", "m", "f", "f", "m"],
                "race": ["x", None, None, "y", None],
                "site": ["s", "s", "s", "s", "s"],
            },
            index=[9, 9, 9, 9, 9],
        ),
    )
    table, conflicts = c.patient_groups()
    assert table["sex"].tolist() == ["f", "m", "m"]
    assert table["race"].isna().tolist() == [False, True, True]
    assert conflicts == {"sex": 1, "race": 0, "site": 0}
    assert cohort(["a", "b"]).patient_groups()[0].shape == (2, 0)


@pytest.mark.parametrize("seed", range(3))
def test_conflicts_against_pandas(seed):
    c = random_cohort(seed)
    table, conflicts = c.patient_groups()
    for name in c.groups:
        by_patient = c.groups[name].groupby(c.patient, sort=False)
        assert conflicts[name] == sum(len(set(values.dropna())) > 1 for _, values in by_patient)
        first = [c.groups[name][np.flatnonzero(c.patient == p)[0]] for p in c.patients]
        assert table[name].fillna("?").tolist() == pd.Series(first).fillna("?").tolist()


REFUSED = [
    ({"record": np.array([0, 1, 1])}, TableError, r"Record 1 \(row 2\) is given twice"),
    ({"record": np.array(["a", None, "c"], dtype=object)}, TableError, "Row 1 has no record id"),
    ({"patient": np.array(["a", "", "c"])}, TableError, "Row 1 has no patient id"),
    ({"patient": np.array([1, 2, np.nan])}, TableError, "Row 2 has no patient id"),
    ({"patient": np.array([1, 2.5, 3])}, TableError, r"patient id in row 1 is 2\.5"),
    ({"patient": np.array([1, "1", 2], dtype=object)}, TableError, "partly int and str"),
    ({"patient": np.array(["a", "b"])}, ArgumentError, "one length, got 3, 2 and 3"),
    ({"label": np.array([0, 1])}, ArgumentError, "one length"),
    ({"label": np.array([0, 1, 2])}, ArgumentError, r"class indices in \[0, 1\], got 0 to 2"),
    ({"label": np.array([0.0, 1, 1])}, ArgumentError, "an integer"),
    ({"classes": ("a", "b", "c")}, ArgumentError, "two classes, got 3"),
    ({"groups": pd.DataFrame({"g": [1, 2]})}, ArgumentError, "3 rows of groups, got 2"),
    ({"task": "multilabel"}, ArgumentError, r"shape \(3, 2\), got \(3,\)"),
    (
        {"task": "multilabel", "label": np.array([[0, 1], [np.nan, 1], [1, 0.5]])},
        TableError,
        r"Label 'yes' of record 2 is 0\.5",
    ),
]


@pytest.mark.parametrize(("changed", "error", "message"), REFUSED)
def test_refusals(changed, error, message):
    cohort(["a", "b", "a"])
    with pytest.raises(error, match=message):
        cohort(["a", "b", "a"], **changed)


def test_an_empty_cohort_is_refused():
    with pytest.raises(TableError, match="empty"):
        cohort([])


FRAME = pd.DataFrame(
    {"id": ["r1", "r2", "r3"], "p": [4, 4, 5], "y": ["n", "p", "p"], "age": [30, 31, 70]},
    index=[2, 2, 9],
)


def test_from_frame():
    c = Cohort.from_frame(FRAME, patient="p", label="y", record="id", groups={"age": [50]})
    assert c.record.tolist() == ["r1", "r2", "r3"]
    assert c.patient.tolist() == [4, 4, 5]
    assert (c.label.tolist(), c.classes) == ([0, 1, 1], ("n", "p"))
    assert c.groups["age"].tolist() == ["<50", "<50", ">=50"]
    assert Cohort.from_frame(FRAME, patient="p", label="y").record.tolist() == [0, 1, 2]
    assert Cohort.from_frame(FRAME, patient="p", label="y", groups="y").groups.shape == (3, 1)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"patient": "pp"}, "no column 'pp'"),
        ({"record": "ids"}, "no column 'ids'. Did you mean 'id'"),
        ({"label": ["yy"]}, "no column 'yy'"),
        ({"groups": ["agee"]}, "no column 'agee'. Did you mean 'age'"),
        ({"record": "p"}, r"Record 4 \(row 1\) is given twice"),
    ],
)
def test_from_frame_names_what_is_wrong(changed, message):
    with pytest.raises(TableError, match=message):
        Cohort.from_frame(FRAME, **({"patient": "p", "label": "y"} | changed))
