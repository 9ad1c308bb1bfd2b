"""Reading tables; labels and groups from their columns."""

import contextlib
import gzip
import re

import numpy as np
import pandas as pd
import pytest

from confide._tables import (
    coded,
    group_columns,
    label_columns,
    read_table,
    refuse_values,
    require_columns,
    text,
)
from confide.errors import ArgumentError, MissingFileError, TableError

CSV = 'id,age,note\n007,61,\n008,,None\n009,70,"a, b"\n'


def saved(tmp_path, content, name="t.csv"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# --- reading


@pytest.mark.parametrize("packed", [False, True])
def test_csv_keeps_zeros_and_the_word_none(tmp_path, packed):
    content = CSV.encode()
    path = saved(tmp_path, gzip.compress(content) if packed else content)
    frame = read_table(path)
    assert frame["id"].tolist() == ["007", "008", "009"]
    assert frame["age"].dtype == np.float64
    assert np.array_equal(frame["age"], [61, np.nan, 70], equal_nan=True)
    assert frame["note"].isna().tolist() == [True, False, False]
    assert frame["note"].tolist()[1:] == ["None", "a, b"]


def test_types_of_csv_columns(tmp_path):
    frame = read_table(
        saved(tmp_path, "a,b,c,d,e,f\n1,1.5,x,,-0,12345678901234567890\n-2,1e3,2,NA,5,1\n")
    )
    assert [frame[c].dtype.kind for c in "abde"] == ["i", "f", "f", "i"]
    assert frame["c"].tolist() == ["x", "2"]
    assert frame["f"].tolist()[0] in (1.2345678901234567e19, "12345678901234567890")
    assert frame["b"].tolist() == [1.5, 1000.0]


def test_byte_order_mark_crlf_and_quoted_newlines(tmp_path):
    frame = read_table(saved(tmp_path, b'\xef\xbb\xbfa,b\r\n1,"x\r\ny"\r\n2,z\r\n'))
    assert list(frame.columns) == ["a", "b"]
    assert frame["b"].tolist() == ["x\r\ny", "z"]


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "whatever"])
def test_parquet_is_recognised_by_content(tmp_path, name):
    frame = pd.DataFrame({"id": [1, 2, 3], "s": ["a", None, "c"]}, index=[5, 6, 7])
    frame.to_parquet(tmp_path / name)
    read = read_table(tmp_path / name)
    assert read["id"].tolist() == [1, 2, 3]
    assert read["s"].isna().tolist() == [False, True, False]
    assert read.index.tolist() == [0, 1, 2]
    assert read.columns.tolist() == ["id", "s"]
    frame.assign(id=list("xyz")).set_index("id").to_parquet(tmp_path / name)
    assert set(read_table(tmp_path / name)) == {"id", "s"}


BAD = {
    "empty": (b"", "is empty"),
    "blank": (b"\n\n", "is empty"),
    "header only": (b"a,b\n", "has no rows"),
    "semicolons": (b"a;b\n1;2\n", "not separated by commas"),
    "twice": (b"a,b,a\n1,2,3\n", "2 columns named 'a'"),
    "ragged": (b"a,b\n1,2\n3\n", "Row #3"),
    "undecodable": (b"a,b\n1,x\n2,\xff\n", "line 3, is not UTF-8"),
    "undecodable header": (b"a,\xe9\n1,x\n", "line 1, is not UTF-8"),
    "utf-16": ("a,b\n1,2\n".encode("utf-16"), "is not text"),
    "binary": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "is not text"),
    "unclosed quote": (b'a,b\n1,"2\n3,4\n', "quote that is never closed"),
    "zip": (b"PK\x03\x04....", "neither CSV nor Parquet"),
    "damaged parquet": (b"PAR1....PAR1", "damaged Parquet"),
    "cut gzip": (gzip.compress(CSV.encode() * 1000)[:-20], "damaged gzip"),
    "false gzip": (b"\x1f\x8b garbage here", "damaged gzip"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_table_is_refused_by_name(tmp_path, kind):
    content, message = BAD[kind]
    path = saved(tmp_path, content)
    with pytest.raises(TableError, match=re.escape(message)) as caught:
        read_table(path)
    assert str(path) in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(MissingFileError, match=r"no table .*absent\.csv"):
        read_table(tmp_path / "absent.csv")
    with pytest.raises(MissingFileError):
        read_table(tmp_path)


def test_a_text_file_called_parquet_is_refused(tmp_path):
    with pytest.raises(TableError, match="neither CSV nor Parquet"):
        read_table(saved(tmp_path, CSV, "t.parquet"))


def test_compressed_tables_may_not_grow_beyond_the_limit(tmp_path):
    content = b"a,b\n" + b"1,2\n" * 250_000
    path = saved(tmp_path, gzip.compress(content), "t.csv.gz")
    assert len(read_table(path, max_bytes=len(content))) == 250_000
    with pytest.raises(TableError, match="more than 999,999 bytes"):
        read_table(path, max_bytes=999_999)

    flat = tmp_path / "t.parquet"
    pd.DataFrame({"a": np.zeros(250_000)}).to_parquet(flat)
    assert flat.stat().st_size < 100_000
    with pytest.raises(TableError, match="more than 1,000,000 bytes"):
        read_table(flat, max_bytes=1_000_000)


def test_random_damage_gives_a_table_or_a_table_error(tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": range(50), "b": list("xyzzy") * 10})
    frame.to_parquet(tmp_path / "whole.parquet")
    whole = [
        (tmp_path / "whole.parquet").read_bytes(),
        gzip.compress(frame.to_csv(index=False).encode()),
        frame.to_csv(index=False).encode(),
    ]
    for i in range(150):
        content = bytearray(whole[i % 3])
        content[rng.integers(len(content))] = rng.integers(256)
        with contextlib.suppress(TableError):
            assert read_table(saved(tmp_path, bytes(content), "damaged")).shape[1] >= 1


def test_a_missing_column_names_the_nearest():
    frame = pd.DataFrame({"patient_id": [1], "sex": ["f"]})
    require_columns(frame, ["sex", "patient_id"])
    with pytest.raises(TableError, match=r"no column 'patient_di'\. Did you mean 'patient_id'\?"):
        require_columns(frame, ["sex", "patient_di"])
    with pytest.raises(TableError, match="2 columns 'sex'"):
        require_columns(frame[["sex", "sex"]], ["sex"])


def test_a_bad_value_is_named_with_its_row():
    column = pd.Series([1.0, 2.0, -3.0, -4.0], name="age")
    refuse_values(column, np.zeros(4, dtype=bool), "a number above 0")
    with pytest.raises(
        TableError, match=r"^Column 'age' in row 2 is -3\.0; expected a number above 0\.$"
    ):
        refuse_values(column, (column < 0).to_numpy(), "a number above 0")
    words = pd.Series(["x" * 500], name="word")
    with pytest.raises(TableError) as error:
        refuse_values(words, np.ones(1, dtype=bool), "a short word")
    assert len(str(error.value)) < 150


# --- labels


@pytest.mark.parametrize(
    ("values", "task", "classes", "expected"),
    [
        (["no", "yes", "no"], "binary", ("no", "yes"), [0, 1, 0]),
        ([10, 9, 10], "binary", ("9", "10"), [1, 0, 1]),
        ([1.0, 0.0, 1.0], "binary", ("0", "1"), [1, 0, 1]),
        ([True, False, True], "binary", ("False", "True"), [1, 0, 1]),
        (["NO", ">30", "<30"], "multiclass", ("<30", ">30", "NO"), [2, 1, 0]),
        ([0.5, 1.5, 2.5], "multiclass", ("0.5", "1.5", "2.5"), [0, 1, 2]),
    ],
)
def test_one_label(values, task, classes, expected):
    found, found_task, found_classes = label_columns(pd.DataFrame({"y": values}), "y")
    assert (found_task, found_classes) == (task, classes)
    assert found.dtype == np.int64
    assert found.tolist() == expected


def test_a_categorical_label():
    column = pd.Categorical(["b", "a", "b"], categories=["c", "b", "a"])
    found, task, classes = label_columns(pd.DataFrame({"y": column}), "y")
    assert (found.tolist(), task, classes) == ([1, 0, 1], "binary", ("a", "b"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["a", None, "b", None], r"Label 'y' is missing in row 1 \(and in 1 more\)"),
        ([1, 1, 1, 1], r"Label 'y' has 1 different value"),
        (list(range(1001)), r"1001 different value\(s\); expected 2 to 1000"),
        (np.linspace(0, 1, 300), r"300 different values such as .* measurement"),
        ([[1], [2]], r"'y' holds lists"),
    ],
)
def test_labels_that_are_no_classes(values, message):
    with pytest.raises(TableError, match=message):
        label_columns(pd.DataFrame({"y": values}), "y")


def test_several_labels():
    frame = pd.DataFrame({"a": [1, 0, 1], "b": [np.nan, 1.0, 0.0], "c": [True, False, True]})
    values, task, names = label_columns(frame, ["b", "a", "c"])
    assert (task, names) == ("multilabel", ("b", "a", "c"))
    assert np.array_equal(values, [[np.nan, 1, 1], [1, 0, 0], [0, 1, 1]], equal_nan=True)
    assert label_columns(frame, ["a"])[0].shape == (3, 1)


@pytest.mark.parametrize("value", [-1, 2, 0.5, np.inf])
def test_several_labels_refuse_other_numbers(value):
    frame = pd.DataFrame({"a": [1, 0, 1], "b": [0, 1, value]})
    with pytest.raises(TableError, match=r"Label 'b' in row 2 is .*expected 1, 0 or a missing"):
        label_columns(frame, ["a", "b"])


def test_several_labels_refuse_text_and_repetition():
    frame = pd.DataFrame({"a": ["1", None, "yes"]})
    with pytest.raises(TableError, match="Label 'a' in row 2 is 'yes'"):
        label_columns(frame, ["a"])
    with pytest.raises(ArgumentError, match="different label columns"):
        label_columns(frame, ["a", "a"])
    with pytest.raises(ArgumentError, match="one or more"):
        label_columns(frame, [])


# --- groups


def test_groups_are_text_and_missing_stays_missing():
    frame = pd.DataFrame(
        {"sex": ["f", None, "m"], "site": [1.0, np.nan, 2.0], "late": [True, False, True]},
        index=[7, 7, 7],
    )
    groups = group_columns(frame, ["sex", "site", "late"])
    assert groups.index.tolist() == [0, 1, 2]
    assert groups.isna().to_numpy().tolist() == [[False] * 3, [True, True, False], [False] * 3]
    assert groups["site"].dropna().tolist() == ["1", "2"]
    assert groups["late"].tolist() == ["True", "False", "True"]
    assert group_columns(frame, []).shape == (3, 0)


def test_bands():
    frame = pd.DataFrame({"age": [10, 40, 59, 60, 61, 90, np.nan], "w": [1, 2, 3, 4, 5, 6, 7.5]})
    groups = group_columns(frame, {"age": [40, 60, 61], "w": [2.5, 4]})
    assert groups["age"].tolist()[:-1] == ["<40", "40-59", "40-59", "60", ">=61", ">=61"]
    assert groups["age"].isna().tolist() == [False] * 6 + [True]
    assert groups["w"].tolist() == ["<2.5"] * 2 + ["2.5-<4"] + [">=4"] * 4
    # Fractions show that 59.5 is in a band that "40-59" would not name.
    assert group_columns(pd.DataFrame({"a": [59.5]}), {"a": [40, 60]})["a"].tolist() == ["40-<60"]
    mixed = group_columns(frame.assign(sex="f"), {"sex": [], "age": [50]})
    assert mixed.columns.tolist() == ["sex", "age"]


def test_groups_with_too_many_values_are_refused_with_the_remedy():
    frame = pd.DataFrame({"age": range(51), "name": [f"n{i}" for i in range(51)]})
    assert group_columns(frame[:50], ["age", "name"]).shape == (50, 2)
    with pytest.raises(TableError, match=r"Group 'age' has 51 .* cut it into bands"):
        group_columns(frame, ["age"])
    with pytest.raises(TableError, match=r"Group 'name' has 51 different values.*merge"):
        group_columns(frame, ["name"])
    with pytest.raises(TableError, match="'name' is not a number"):
        group_columns(frame, {"name": [1, 2]})
    with pytest.raises(TableError, match="growing edges for group 'age'"):
        group_columns(frame, {"age": [40, 40]})
    with pytest.raises(TableError, match="no column 'aeg'"):
        group_columns(frame, ["aeg"])


def test_coded_sorts_numbers_by_size_and_joins_equal_texts():
    codes, values = coded(pd.Series([10, 9, 10]), "a")
    assert (codes.tolist(), values) == ([1, 0, 1], [9, 10])
    codes, values = coded(pd.Series([1, "1", None, "b"], dtype=object), "a")
    assert (codes.tolist(), values) == ([0, 0, -1, 1], ["1", "b"])
    assert text(np.float64(3)) == "3"
