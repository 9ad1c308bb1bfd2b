from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from confide.encoders.published import parse_records, render_records
from confide.errors import ReleaseError, TableError

FILE = Path("r/records.parquet")
COLUMNS = ("code", "label", "split")


def table(n=3, **more):
    return pd.DataFrame(
        {"code": np.arange(n), "label": np.zeros(n, int), "split": ["train"] * n, **more}
    )


def parse(raw, columns=COLUMNS, n=3):
    return parse_records(FILE, raw, columns, n)


def written(frame, **options):
    buffer = BytesIO()
    arrow = pa.Table.from_pandas(frame, preserve_index=False)
    pq.write_table(arrow, buffer, store_schema=False, **options)
    return buffer.getvalue()


def test_every_kind_of_column_comes_back():
    frame = table(
        text=["a", None, "ü"],
        category=pd.Categorical(["x", "y", "x"]),
        number=[0.5, np.nan, -1],
        small=np.array([1, 2, 3], np.int8),
        flag=[True, False, True],
        nullable=pd.array([1, None, 3], "Int64"),
        nothing=[None, None, None],
    )
    names = tuple(frame.columns)[::-1]
    found = parse(render_records(frame, names), names)
    assert tuple(found.columns) == names
    for name in ("text", "category", "number", "small", "flag", "code"):
        one, other = (list(f[name].astype(object).where(f[name].notna())) for f in (frame, found))
        pd.testing.assert_series_equal(pd.Series(one), pd.Series(other), check_dtype=False)
    np.testing.assert_array_equal(
        found["nullable"].to_numpy(float, na_value=np.nan), [1, np.nan, 3]
    )
    assert found["nothing"].isna().all()


def test_the_index_and_pandas_leave_no_trace():
    raw = render_records(table().set_axis(["Ann", "Bea", "Cho"]), COLUMNS)
    for word in (b"Ann", b"pandas", b"index", b"ARROW:schema"):
        assert word not in raw


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"x": [1, "a", 2]}, "Column 'x' mixes text with other values"),
        ({"x": pd.to_datetime(["2020-01-01"] * 3)}, "Column 'x' holds timestamp.*dates tell who"),
        ({"x": [[1], [2], [3]]}, "Column 'x' holds list"),
        ({"x": [b"1", b"2", b"3"]}, "Column 'x' holds binary"),
        ({"split": ["train", "valid", "dev"]}, "Row 1 has split 'valid'; expected one of train"),
        ({"split": ["train", "dev", None]}, "Row 2 has split"),
        ({"code": [0, 2, 1]}, "Expected the column 'code' to count from 0 to 2"),
        ({"code": [0.0, 1.0, 2.0]}, "Expected the column 'code' to count"),
        ({"patient": ["a", None, "b"]}, "Row 1 has no pseudonym"),
    ],
)
def test_tables_that_cannot_be_published(more, message):
    frame = table(**more)
    with pytest.raises(TableError, match=message):
        render_records(frame, tuple(frame.columns))


def test_other_columns_are_refused():
    with pytest.raises(TableError, match=r"Expected the columns code, label, split .* got"):
        render_records(table(secret=1), COLUMNS)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "is no Parquet file"),
        (b"PAR1 and then some PAR1", "is no Parquet file"),
        (written(table(4)), "is not a plain table of 3 rows"),
        (written(table(x=1)), "is not a plain table"),
        (written(table()[["label", "code", "split"]]), "is not a plain table"),
        (written(table(label=[[1], [2], [3]])), "is not a plain table"),
        (written(table(label=pd.to_datetime(["2020-01-01"] * 3))), "is not a plain table"),
        (written(table(code=[2, 1, 0])), "records.parquet: Expected the column 'code' to count"),
        (written(table(split="all")), "records.parquet: Row 0 has split 'all'"),
        (written(table(split="trxin")).replace(b"trxin", b"tr\xffin"), "is no Parquet file"),
    ],
)
def test_hostile_tables(raw, message):
    with pytest.raises(ReleaseError, match=message):
        parse(raw)


def test_a_name_that_speaks_to_the_terminal_is_shown_as_text():
    with pytest.raises(ReleaseError) as caught:
        parse(written(table()), ("code", "\x1b[2Jx", "split"))
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "ZSTD"},
        {"use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY"}},
    ],
)
def test_a_small_file_that_unfolds_without_end(options):
    raw = written(table(1000, text=["x" * 50_000] * 1000), **options)
    assert len(raw) < 200_000
    with pytest.raises(ReleaseError, match=r"unfolds to more than 4,004,000 bytes"):
        parse(raw, (*COLUMNS, "text"), 1000)


def test_altered_bytes_are_refused_or_harmless():
    raw = bytearray(render_records(table(text=["a", "b", "c"]), (*COLUMNS, "text")))
    names = (*COLUMNS, "text")
    rng = np.random.default_rng(0)
    n_refused = 0
    for _ in range(500):
        at, bit = rng.integers(len(raw)), 1 << rng.integers(8)
        raw[at] ^= bit
        try:
            assert len(parse(bytes(raw), names)) == 3
        except ReleaseError:
            n_refused += 1
        raw[at] ^= bit
    assert n_refused > 100
