"""Columns -> features, against scikit-learn and pandas."""

import datetime
import decimal

import numpy as np
import pandas as pd
import pytest
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from confide.datasets.features import (
    default_features,
    feature_matrix,
    looks_like_identifier,
    may_identify,
)
from confide.errors import TableError

POOL = np.arange(10) < 8


def matrix(column, pool=POOL, name="x"):
    return feature_matrix(pd.DataFrame({name: column}), [name], pool)


def test_numbers_against_scikit_learn():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.lognormal(3, 2, (500, 4)), columns=list("abcd"))
    pool = rng.random(500) < 0.7
    found, names, notes = feature_matrix(frame, ["c", "a"], pool)
    expected = StandardScaler().fit(frame.loc[pool, ["c", "a"]]).transform(frame[["c", "a"]])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert found.dtype == np.float32
    assert (names, notes) == (("c", "a"), ())


def test_held_out_records_change_nothing_of_the_pool():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=50), "b": rng.choice(list("xyz"), 50)})
    pool = np.arange(50) < 30
    before, names, _ = feature_matrix(frame, ["a", "b"], pool)
    frame.loc[~pool, "a"] = 1e6
    frame.loc[~pool, "b"] = "new"
    after, same, _ = feature_matrix(frame, ["a", "b"], pool)
    assert names == same
    assert np.array_equal(before[pool], after[pool])


def test_missing_numbers_are_the_mean_and_flagged():
    values = np.array([1, 2, np.nan, 3, 4, np.nan, 5, 6, np.nan, 7.0])
    found, names, _ = matrix(values)
    assert names == ("x", "x is missing")
    pool = values[:8][~np.isnan(values[:8])]
    np.testing.assert_allclose(
        found[:, 0], np.nan_to_num((values - pool.mean()) / pool.std()), atol=1e-6
    )
    assert found[:, 1].tolist() == np.isnan(values).tolist()
    # Missing among held-out records only: nothing to learn a flag from.
    assert matrix([1, 2, 3, 4, 5, 6, 7, 8, None, 9])[1] == ("x",)


def test_one_hot_against_scikit_learn():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"s": rng.choice(list("abcdefgh"), 300)})
    found, names, _ = feature_matrix(frame, ["s"], np.ones(300, bool))
    encoder = OneHotEncoder(sparse_output=False).fit(frame)
    assert np.array_equal(found, encoder.transform(frame))
    assert names == tuple(f"s={c}" for c in "abcdefgh")


def test_missing_text_has_its_own_flag_and_new_text_is_no_category():
    found, names, _ = matrix(["a", "b", None, "a", "b", "a", "a", "a", "new", None])
    assert names == ("x=a", "x=b", "x is missing")
    assert found[[0, 2, 8, 9]].tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0], [0, 0, 1]]


def test_rare_categories_are_pooled():
    # Category i occurs i + 1 times, so that the kept ones are the last.
    words = [f"c{i:02d}" for i in range(40) for _ in range(i + 1)]
    column = [*words, "new", None]
    pool = np.arange(len(column)) < len(words)
    found, names, notes = matrix(column, pool)
    assert names == (*(f"x=c{i:02d}" for i in range(9, 40)), "x=(other)")
    assert len(names) == 32
    assert found[pool].sum(1).tolist() == [1.0] * pool.sum()
    assert found[pool, -1].sum() == sum(range(1, 10))
    assert found[-2].tolist() == [0] * 31 + [1]
    assert found[-1].sum() == 0
    assert notes == (
        "x is missing in 1 held-out record(s) and in none of the training pool, so that no feature "
        "flags it.",
        "x has 40 categories; all but the 31 most frequent are pooled into x=(other).",
    )
    # 32 categories fit as they are.
    fitting = words[-sum(range(9, 41)) :]
    assert matrix(fitting, np.ones(len(fitting), bool))[1][-1] == "x=c39"


def test_gaps_of_held_out_records_alone_are_told():
    """Their flag is constant over the pool, and nothing else would tell of them."""
    numbers, words = np.arange(10.0), np.array(list("ababababab"), dtype=object)
    both = np.where(np.isin(range(10), (0, 9)), np.nan, numbers)
    numbers[~POOL], words[np.flatnonzero(~POOL)[0]] = np.nan, None
    frame = pd.DataFrame({"n": numbers, "w": words, "both": both})
    _, names, notes = feature_matrix(frame, ["n", "w", "both"], POOL)
    assert names == ("n", "w=a", "w=b", "both", "both is missing")
    tail = "held-out record(s) and in none of the training pool, so that no feature flags it."
    assert notes == (
        f"n is missing in {(~POOL).sum()} {tail}",
        f"w is missing in 1 {tail}",
    )


def test_constant_columns_are_dropped_with_a_note():
    frame = pd.DataFrame({"a": [1.0] * 8 + [2, 3], "b": range(10), "c": ["k"] * 10, "d": 0.1})
    found, names, notes = feature_matrix(frame, list("abcd"), POOL)
    assert names == ("b",)
    assert found.shape == (10, 1)
    assert notes == ("Left out, because constant over the training pool: a, c, d.",)
    with pytest.raises(TableError, match="No feature is left"):
        feature_matrix(frame, ["a", "c"], POOL)


def test_other_types_of_numbers():
    for column in (
        [decimal.Decimal(i) for i in range(10)],
        pd.array(range(10), dtype="Int64"),
        pd.Series(range(10), dtype=object),
    ):
        np.testing.assert_allclose(matrix(column)[0], matrix(np.arange(10.0))[0])
    flags = [True, None, *[False] * 8]
    assert matrix(pd.Series(flags, dtype=object))[1] == ("x", "x is missing")
    assert matrix(pd.array(flags, dtype="boolean"))[1] == ("x", "x is missing")
    assert matrix([True, *[False] * 9])[1] == ("x",)
    assert matrix(pd.Categorical(list("ab") * 5))[1] == ("x=a", "x=b")


def test_words_among_numbers_are_told():
    column = [str(i) for i in range(40)]
    column[7] = "n/k"
    notes = matrix(column, np.ones(40, bool))[2]
    assert notes[0].startswith("x is taken as text")
    assert "n/k" not in notes[0]  # notes stand in reports
    assert not matrix(["1", "b"] * 5)[2]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, 2, np.inf, *range(7)], "Feature 'x' in row 2 is inf"),
        ([1, 2, 3, -1e200, *range(6)], "Feature 'x' in row 3 is -1e\\+200"),
        ([*np.arange(8) * 1e-25, 1e20, 0], "Feature 'x' in row 8 is 1e\\+20"),
        ([datetime.date(2020, 1, 1)] * 10, "'x' holds values of kind date"),
        (pd.date_range("2020", periods=10), "'x' holds values of kind datetime64"),
        ([[1]] * 10, "'x' holds values of kind mixed"),
    ],
)
def test_refusals(values, message):
    with pytest.raises(TableError, match=message):
        matrix(values)


def test_a_missing_feature_is_named():
    with pytest.raises(TableError, match=r"no column 'agee'\. Did you mean 'age'"):
        feature_matrix(pd.DataFrame({"age": range(10)}), ["agee"], POOL)


IDS = ["id", "encounter_id", "patient_nbr", "PatientID", "patientId", "subjectid", "MRN", "uuid"]
NO_IDS = ["age", "number_outpatient", "hidden", "video", "acid", "plaid", "Jitter(%)", "width"]


@pytest.mark.parametrize("name", IDS)
def test_names_of_identifiers(name):
    assert looks_like_identifier(pd.Series([1, 1, 2, 2]), name)


@pytest.mark.parametrize("name", NO_IDS)
def test_names_of_no_identifiers(name):
    assert not looks_like_identifier(pd.Series([1, 1, 2, 2]), name)


def test_values_of_identifiers():
    assert looks_like_identifier(pd.Series([f"a{i}" for i in range(100)]), "x")
    assert looks_like_identifier(pd.Series(range(100)), "x")
    assert looks_like_identifier(pd.Series([None, *range(95), 1, 2, 3]), "x")
    assert not looks_like_identifier(pd.Series([*range(90), *range(10)]), "x")
    assert not looks_like_identifier(pd.Series(np.linspace(0, 1, 100)), "x")


def test_default_features():
    frame = pd.DataFrame(
        {
            "p": [1, 1, 2, 2],
            "visit_id": [1, 2, 3, 4],
            "age": [50.5, 51.5, 60.5, 61.5],
            "sex": ["f", "f", "m", "m"],
            "seen": pd.date_range("2020", periods=4),
            "many": [[1], [2], [3], [4]],
        }
    )
    features, notes = default_features(frame, ["p", None])
    assert features == ["age", "sex"]
    assert len(notes) == 2
    assert "identifiers: visit_id;" in notes[0]
    assert "neither numbers nor text: seen, many." in notes[1]


N = 60
DAYS = pd.date_range("2019-11-03", periods=N, freq="37h")


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        ("patient_id", [1, 1, 2, 2] * 15, "an identifier"),
        ("x", [f"k{i}" for i in range(N)], "nearly all of its values differ"),
        ("x", range(1000, 1000 + N), "nearly all of its values differ"),
        ("PatientName", ["a", "b"] * 30, "a person's name"),
        ("surname", ["a", "b"] * 30, "a person's name"),
        ("initials", ["ab", "cd"] * 30, "a person's name"),
        ("zip", [12345, 54321] * 30, "an address"),
        ("Home Phone", ["1", "2"] * 30, "an address"),
        ("e_mail", ["a@b", "c@d"] * 30, "an address"),
        ("DOB", [1950, 1960] * 30, "a birth"),
        ("birth_year", [1950, 1960] * 30, "a birth"),
        ("StudyDate", [20200101, 20200102] * 30, "a date"),
        ("admittime", ["a", "b"] * 30, "a date"),
        ("time", ["morning", "evening"] * 30, "a date"),
        ("time", [143000, 90000] * 30, "a date"),
        ("x", DAYS, "dates or times"),
        ("x", DAYS.date, "dates or times"),
        ("x", DAYS.strftime("%Y-%m-%d"), "dates or times"),
        ("x", DAYS.strftime("%d.%m.%Y"), "dates or times"),
        ("x", DAYS.strftime("%m/%d/%y"), "dates or times"),
        ("x", DAYS.strftime("%d-%b-%Y"), "dates or times"),
        ("x", DAYS.strftime("%B %d, %Y"), "dates or times"),
        ("x", DAYS.strftime("%Y%m%d").astype(int), "dates or times"),
        ("x", DAYS.strftime("%Y-%m-%dT%H:%M:%S"), "dates or times"),
        ("x", [*DAYS.strftime("%Y-%m-%d")[:58], "unknown", None], "dates or times"),
        ("file", ["a", "b"] * 30, "a path"),
        ("source_url", ["a", "b"] * 30, "a path"),
        ("x", ["a.png", "b.dcm"] * 30, "paths or names of files"),
        ("x", ["C:\\a", "D:\\b"] * 30, "paths or names of files"),
        ("x", ["p001/s1", "p002/s1"] * 30, "paths or names of files"),
        ("accession", [1, 2] * 30, "an accession"),
        ("x", [f"{i} opacities in the lower lobe of the left lung" for i in range(N)], "free text"),
        ("x", [[1]] * N, "neither numbers nor text"),
    ],
)
def test_columns_that_may_identify(name, values, reason):
    assert reason in (may_identify(pd.Series(values), name) or "")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("sex", ["F", "M"] * 30),
        ("sex", pd.Categorical(["F", "M"] * 30)),
        ("view", ["AP/PA", "lateral"] * 30),
        ("age", range(30, 30 + N)),
        ("age", ["40-49", "50-59"] * 30),
        ("label", [0, 1] * 30),
        ("site", ["north", "south"] * 30),
        ("dose", np.linspace(0, 1, N)),
        ("blood_pressure", ["120/80", "130/90"] * 30),
        ("offset_days", range(-20, N - 20)),
        ("time_in_hospital", [1.0, 14.0] * 30),
        ("birth_defect", [0, 1] * 30),
        ("has_phone", [True, False] * 30),
        ("birth_weight", range(2000, 2000 + N)),
        ("stage", ["T1/N0", "T2/N1"] * 30),
        ("version", ["1.2", "1.3"] * 30),
        ("month", ["may", "march"] * 30),
        ("empty", [None] * N),
        ("pathology", ["benign", "malignant"] * 30),
        ("note", ["no finding, compared with the earlier one", "unchanged"] * 30),
    ],
)
def test_columns_that_do_not_identify(name, values):
    assert may_identify(pd.Series(values), name) is None
