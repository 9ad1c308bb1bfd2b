"""Reading tables and taking labels and groups from their columns.

Rows are counted from 0 below the header, as in the tables that an audit writes; lines of a text
file are counted from 1.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confide._check import did_you_mean
from confide.errors import ArgumentError, MissingFileError, TableError

if TYPE_CHECKING:
    import pyarrow as pa

Task = Literal["binary", "multiclass", "multilabel"]

MAX_BYTES = 8 * 2**30
"""A compressed table that grows beyond this is refused."""

MAX_CLASSES = 1000
MAX_GROUP_VALUES = 50
_MAX_FRACTIONS = 20  # a label with more different fractions than this is a measurement

# "None" is no gap: tables of laboratory values use it for "not measured".
MISSING_WORDS = ("", "NA", "N/A", "#N/A", "<NA>", "NaN", "nan", "null", "NULL")

_INTEGER = r"^-?(0|[1-9][0-9]{0,17})$"
_LEADING_ZERO = r"^[+-]?0[0-9]"


def read_table(path: str | Path, *, max_bytes: int = MAX_BYTES) -> pd.DataFrame:
    """Read a table of records: CSV, gzipped CSV or Parquet, recognised by content.

    CSV is UTF-8 text with commas and one header line.  A column is numeric only when every value
    is; values such as "007" stay text, so that ids keep their zeros.  Missing are the empty value
    and `MISSING_WORDS`.

    Parameters
    ----------
    path : the file
    max_bytes : most bytes that a compressed table may grow to

    Returns
    -------
    one row per record, with a plain index from 0

    Raises
    ------
    MissingFileError : there is no such file
    TableError : not a table, empty, damaged, too large once unpacked, a column name given twice;
        names the file and, in text, the line
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"There is no table {path}; check the path.")
    with path.open("rb") as file:
        head = file.read(4)
    if head == b"PAR1":
        table = _read_parquet(path, max_bytes)
    elif head == b"PK\x03\x04" or path.suffix in (".parquet", ".xlsx", ".xls"):
        raise TableError(f"{path} is neither CSV nor Parquet inside; save it as CSV.")
    else:
        table = _read_csv(path, gzipped=head[:2] == b"\x1f\x8b", max_bytes=max_bytes)
    if not table.num_rows:
        raise TableError(f"{path} has no rows; at least one record is needed.")
    return table.to_pandas()


def _read_parquet(path: Path, max_bytes: int) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            _refuse_twice(path, file.schema_arrow.names)
            # Runs of equal values pack to nothing, so count cells as well as the stated bytes.
            groups = (file.metadata.row_group(i) for i in range(file.num_row_groups))
            stated = sum(group.total_byte_size for group in groups)
            cells = file.metadata.num_rows * file.metadata.num_columns
            _refuse_large(path, max(stated, 8 * cells), max_bytes)
            table = file.read()
        table.validate(full=True)  # refuses text that is not UTF-8
        # Plain columns: no named index of pandas made of them, no nameless one among them.
        index = [name for name in table.column_names if name.startswith("__index_level_")]
        return table.replace_schema_metadata().drop_columns(index)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise TableError(f"{path} is a damaged Parquet file ({_first(error)}).") from error


def _read_csv(path: Path, *, gzipped: bool, max_bytes: int) -> pa.Table:
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    limit = max_bytes if gzipped else None
    try:
        names = _header(path, gzipped, limit)
        with _opened(path, gzipped) as raw:
            stream = _Measured(raw, path, limit)
            table = arrow_csv.read_csv(
                stream,
                # One thread, because only then a bad row is named.
                read_options=arrow_csv.ReadOptions(use_threads=False, block_size=2**24),
                parse_options=arrow_csv.ParseOptions(newlines_in_values=True),
                convert_options=arrow_csv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.string()),
                    null_values=list(MISSING_WORDS),
                    strings_can_be_null=True,
                ),
            )
        columns = dict(zip(table.column_names, map(_typed, table.columns), strict=True))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise TableError(f"{path} is a damaged gzip file ({_first(error)}).") from error
    except (pa.ArrowException, UnicodeDecodeError) as error:
        line = _undecodable_line(path, gzipped)
        if line:
            raise TableError(
                f"{path}, line {line}, is not UTF-8 text; save the table as UTF-8 CSV."
            ) from error
        raise TableError(f"{path} is not a table with commas ({_first(error)}).") from error
    if stream.n_quotes % 2 and table.num_rows and "\n" in (table.column(-1)[-1].as_py() or ""):
        raise TableError(f"{path} has a quote that is never closed; close or remove it.")
    return pa.table(columns)


def _header(path: Path, gzipped: bool, limit: int | None) -> list[str]:
    with _opened(path, gzipped) as raw:
        start = _Measured(raw, path, limit).read(2**22) or b""
    if b"\0" in start:
        raise TableError(f"{path} is not text; save the table as UTF-8 CSV or as Parquet.")
    if not start.strip():
        raise TableError(f"{path} is empty; a table has a header line and rows.")
    try:
        lines = csv.reader(io.StringIO(start.decode("utf-8-sig", errors="replace"), newline=""))
        names = next(line for line in lines if line)
    except csv.Error as error:
        raise TableError(f"{path} has no header line of column names ({error}).") from error
    if len(names) == 1 and any(mark in names[0] for mark in ";\t|"):
        raise TableError(f"{path} is not separated by commas; its header is {names[0][:60]!r}.")
    _refuse_twice(path, names)
    return names


def _opened(path: Path, gzipped: bool) -> BinaryIO:
    return gzip.open(path) if gzipped else path.open("rb")  # type: ignore[return-value]


class _Measured(io.RawIOBase):
    """A stream that counts quotes and refuses to grow beyond a limit."""

    def __init__(self, raw: BinaryIO, path: Path, limit: int | None) -> None:
        self._raw, self._path, self._limit = raw, path, limit
        self._n_bytes = 0
        self.n_quotes = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        data = self._raw.read(size)
        self._n_bytes += len(data)
        self.n_quotes += data.count(b'"')
        if self._limit is not None:
            _refuse_large(self._path, self._n_bytes, self._limit)
        return data


def _refuse_large(path: Path, n_bytes: int, limit: int) -> None:
    if n_bytes > limit:
        raise TableError(f"{path} unpacks to more than {limit:,} bytes; split or shorten it.")


def _refuse_twice(path: Path, names: Sequence[str]) -> None:
    name, n_times = Counter(names).most_common(1)[0] if names else ("", 0)
    if n_times > 1:
        raise TableError(f"{path} has {n_times} columns named {name!r}; rename them.")


def _undecodable_line(path: Path, gzipped: bool) -> int | None:
    with _opened(path, gzipped) as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return None


def _first(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]


def _typed(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Text -> int64 or float64 when every value is such a number, else unchanged."""
    import pyarrow as pa

    if column.null_count == len(column):
        return column.cast(pa.float64())
    kind = _kind(column.slice(0, 1000))  # most columns of text are recognised by their start
    kind = kind and _kind(column)
    return column.cast(kind) if kind else column


def _kind(column: pa.ChunkedArray) -> pa.DataType | None:
    import pyarrow as pa
    import pyarrow.compute as pc

    # Both ignore missing values, and say so for a part without any value.
    if pc.all(pc.match_substring_regex(column, _INTEGER), min_count=0).as_py():
        return pa.int64()
    if pc.any(pc.match_substring_regex(column, _LEADING_ZERO)).as_py():
        return None
    try:
        column.cast(pa.float64())
    except pa.ArrowInvalid:
        return None
    return pa.float64()


def require_columns(frame: pd.DataFrame, names: Iterable[str]) -> None:
    """Raise TableError unless every name is one column; names the nearest present."""
    present = Counter(frame.columns)
    for name in names:
        if not present[name]:
            near = did_you_mean(name, [str(column) for column in present])
            raise TableError(f"The table has no column {name!r}.{near}")
        if present[name] > 1:
            raise TableError(f"The table has {present[name]} columns {name!r}; rename them.")


def refuse_values(column: pd.Series[Any], bad: NDArray[np.bool_], expected: str) -> None:
    """Raise TableError if a value of a column is bad; names column, row and value.

    Parameters
    ----------
    column : of a table
    bad : (n_records,) bool
    expected : what it should be, as the end of a sentence
    """
    if bad.any():
        row = int(bad.argmax())
        raise TableError(
            f"Column {column.name!r} in row {row} is {plain(column.iloc[row])!r:.80}; expected "
            f"{expected}."
        )


def label_columns(
    frame: pd.DataFrame, label: str | Sequence[str]
) -> tuple[NDArray[Any], Task, tuple[str, ...]]:
    """Labels, task and names of the classes from one column, or from several (multilabel).

    Parameters
    ----------
    frame : one row per record
    label : a column of 2 (binary) or 3 to 1000 (multiclass) different values, text or whole
        numbers; or a list of columns of 1, 0 and missing (multilabel)

    Returns
    -------
    values : (n_records,) int64 class index, or (n_records, n_labels) float64 of 1, 0, NaN
    task : "binary", "multiclass" or "multilabel"
    classes : names of the classes, numbers by size and text by alphabet; or of the labels

    Raises
    ------
    TableError : a column is absent; one label is missing, has one value, more than 1000, or
        measured values; one of several labels is neither 0, 1 nor missing.  Names row and column.
    """
    if isinstance(label, str):
        require_columns(frame, [label])
        return _classes(frame[label], label)
    names = list(label)
    if not names or len(set(names)) < len(names):
        raise ArgumentError(f"Expected one or more different label columns, got {names}.")
    require_columns(frame, names)
    return np.column_stack([_known(frame[name], name) for name in names]), "multilabel", (*names,)


def _classes(column: pd.Series[Any], name: str) -> tuple[NDArray[np.int64], Task, tuple[str, ...]]:
    missing = column.isna().to_numpy()
    if missing.any():
        raise TableError(
            f"Label {name!r} is missing in row {int(missing.argmax())} (and in {missing.sum() - 1} "
            "more); give these records a label or leave them out."
        )
    codes, values = coded(column, name)
    fractions = [v for v in values if isinstance(v, float) and not v.is_integer()]
    if len(fractions) > _MAX_FRACTIONS:
        raise TableError(
            f"Label {name!r} has {len(values)} different values such as {fractions[0]:g}, which "
            "looks like a measurement; cut it into classes (regression is not supported)."
        )
    if not 2 <= len(values) <= MAX_CLASSES:
        raise TableError(
            f"Label {name!r} has {len(values)} different value(s); "
            f"expected 2 to {MAX_CLASSES} classes."
        )
    task: Task = "binary" if len(values) == 2 else "multiclass"
    return codes.astype(np.int64), task, tuple(text(value) for value in values)


def _known(column: pd.Series[Any], name: str) -> NDArray[np.float64]:
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    bad = column.notna().to_numpy() & (numbers != 0) & (numbers != 1)
    if bad.any():
        row = int(bad.argmax())
        raise TableError(
            f"Label {name!r} in row {row} is {plain(column.iloc[row])!r}; expected 1, 0 or a "
            "missing value for unknown."
        )
    return numbers


def group_columns(
    frame: pd.DataFrame, groups: Sequence[str] | Mapping[str, Sequence[float]]
) -> pd.DataFrame:
    """Columns of groups as text, missing values kept as missing.

    Parameters
    ----------
    frame : one row per record
    groups : names of columns, or {column: edges}: edges 40 and 60 cut a number into the bands
        "<40", "40-59" and ">=60" ("40-<60" when values or edges are no whole numbers); a column
        with an empty list of edges is taken as it is

    Returns
    -------
    (n_records, n_groups) text, with a plain index from 0

    Raises
    ------
    TableError : a column is absent, has more than 50 values, or should be cut and is no number
    """
    edges = groups if isinstance(groups, Mapping) else dict.fromkeys(groups, ())
    require_columns(frame, edges)
    columns = {
        name: _banded(frame[name], name, list(cuts)) if len(cuts) else _grouped(frame[name], name)
        for name, cuts in edges.items()
    }
    return pd.DataFrame(columns, index=range(len(frame)), dtype=object)


def _grouped(column: pd.Series[Any], name: str) -> NDArray[np.object_]:
    codes, values = coded(column, name)
    if len(values) > MAX_GROUP_VALUES:
        numeric = all(isinstance(value, (int, float)) for value in values)
        remedy = f"cut it into bands, groups: {{{name}: [40, 60]}}" if numeric else "merge some"
        raise TableError(
            f"Group {name!r} has {len(values)} different values, more than {MAX_GROUP_VALUES}; "
            f"{remedy}."
        )
    # Index -1, a missing value, takes the last name.
    return np.array([*(text(value) for value in values), np.nan], dtype=object)[codes]


def _banded(column: pd.Series[Any], name: str, edges: list[float]) -> NDArray[np.object_]:
    cuts = np.asarray(edges, dtype=np.float64)
    if not np.isfinite(cuts).all() or (np.diff(cuts) <= 0).any():
        raise TableError(f"Expected growing edges for group {name!r}, got {edges}.")
    if not pd.api.types.is_numeric_dtype(column):
        raise TableError(f"Group {name!r} is not a number and has no bands; give its name alone.")
    numbers = column.to_numpy(np.float64, na_value=np.nan)
    known = ~np.isnan(numbers)
    whole = all((part == np.floor(part)).all() for part in (cuts, numbers[known]))
    names = [f"<{text(cuts[0])}"]
    for low, high in pairwise(cuts):
        last = text(high - 1) if whole else f"<{text(high)}"
        names.append(f"{text(low)}-{last}" if not whole or low < high - 1 else text(low))
    names.append(f">={text(cuts[-1])}")
    bands = np.array([*names, np.nan], dtype=object)
    return bands[np.where(known, np.searchsorted(cuts, numbers, side="right"), -1)]


def coded(column: pd.Series[Any], name: str) -> tuple[NDArray[np.intp], list[Any]]:
    """(n_records,) index into the sorted different values, -1 for missing; and these values.

    Numbers sort by size, anything else by its text; values of one text (1 and "1") are one.
    """
    try:
        codes, found = pd.factorize(column)
    except TypeError as error:
        raise TableError(
            f"Column {name!r} holds lists or other compound values; expected text or numbers."
        ) from error
    values: list[Any] = found.tolist()
    if not all(isinstance(value, (int, float)) for value in values):
        values = [text(value) for value in values]
    different = sorted(set(values))
    place = {value: i for i, value in enumerate(different)}
    return np.array([*(place[value] for value in values), -1], dtype=np.intp)[codes], different


def text(value: object) -> str:
    """The text of a value; whole numbers without a decimal point.

    >>> text(2.0), text(2.5), text("2.0")
    ('2', '2.5', '2.0')
    """
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def plain(value: Any) -> Any:
    """An id as a Python value, for messages and JSON."""
    return value.item() if isinstance(value, np.generic) else value
