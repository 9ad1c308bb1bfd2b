"""The table beside the codes, records.parquet: what may be published in it, written and read."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from confide.errors import ReleaseError, TableError

SPLITS = ("train", "dev", "test")
_LARGEST_CELL = 1000
_ROWS_AT_ONCE = 256


def render_records(records: pd.DataFrame, columns: tuple[str, ...]) -> bytes:
    """The bytes of records.parquet; nothing of pandas, of the index or of the machine is in it.

    Parameters
    ----------
    records : one row per code, in the order of `code`
    columns : names of all its columns, in the order to write

    Raises
    ------
    TableError : other columns, a value missing where one is needed, or a column that is neither
        text nor numbers nor true and false
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if sorted(map(str, records.columns)) != sorted(columns):
        raise TableError(
            f"Expected the columns {', '.join(columns)} in the table of the release, got "
            f"{', '.join(map(str, records.columns))}."
        )
    _check_values(records, len(records))
    arrays = [_array(records[name], name) for name in columns]
    buffer = BytesIO()
    pq.write_table(pa.table(arrays, names=list(columns)), buffer, store_schema=False)
    return buffer.getvalue()


def parse_records(file: Path, raw: bytes, columns: tuple[str, ...], n_records: int) -> pd.DataFrame:
    """Read what :func:`render_records` wrote; the file may come from anybody.

    It is decoded a few rows at a time, so that a small file that unfolds without end is found
    before it fills the memory.

    Raises
    ------
    ReleaseError : it is not such a table; names `file`
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Facts about column chunks are not asked for: with hostile ones, pyarrow aborts.
        parquet = pq.ParquetFile(pa.BufferReader(raw))
        schema = parquet.schema_arrow
        if (
            tuple(schema.names) != columns
            or parquet.metadata.num_rows != n_records
            or not all(_is_plain(kind) for kind in schema.types)
        ):
            raise ReleaseError(
                f"{file} is not a plain table of {n_records:,} rows with the columns "
                f"{list(columns)!r:.200}; it was not made by confide."
            )
        records = _decoded(file, parquet, _LARGEST_CELL * len(columns) * (n_records + 1))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ReleaseError(
            f"{file} is no Parquet file ({' '.join(str(error).split())!s:.200}); get it from a "
            "copy."
        ) from error
    try:
        _check_values(records, n_records)
    except TableError as error:
        raise ReleaseError(f"{file}: {error}") from error
    return records


def _decoded(file: Path, parquet: Any, most_bytes: int) -> pd.DataFrame:
    import pyarrow as pa

    batches, n_bytes = [], 0
    for batch in parquet.iter_batches(batch_size=_ROWS_AT_ONCE):
        n_bytes += batch.nbytes
        if n_bytes > most_bytes:
            raise ReleaseError(
                f"{file} unfolds to more than {most_bytes:,} bytes; it was not made by confide."
            )
        batch.validate(full=True)
        batches.append(batch)
    return pd.DataFrame(pa.Table.from_batches(batches, parquet.schema_arrow).to_pandas())


def _check_values(records: pd.DataFrame, n_records: int) -> None:
    code = records["code"]
    if code.dtype.kind not in "iu" or not np.array_equal(code, np.arange(n_records)):
        raise TableError(f"Expected the column 'code' to count from 0 to {n_records - 1}.")
    known = records["split"].isin(SPLITS).to_numpy()
    if not known.all():
        row = int(np.argmin(known))
        raise TableError(
            f"Row {row} has split {records['split'].iloc[row]!r:.40}; expected one of "
            f"{', '.join(SPLITS)}."
        )
    if "patient" in records and records["patient"].isna().any():
        row = int(np.argmax(records["patient"].isna()))
        raise TableError(f"Row {row} has no pseudonym of its patient.")


def _array(column: pd.Series[Any], name: str) -> Any:
    import pyarrow as pa
    import pyarrow.types as types

    try:
        array = pa.Array.from_pandas(column)
    except pa.ArrowException as error:
        raise TableError(
            f"Column {name!r} mixes text with other values ({str(error).splitlines()[0]:.200}); "
            "make it all text or all numbers."
        ) from error
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if types.is_null(array.type):
        array = array.cast(pa.string())
    if not _is_plain(array.type):
        raise TableError(
            f"Column {name!r} holds {array.type}; a release holds text, numbers, and true or "
            "false. Leave it out, or turn it into one of them: dates tell who a patient is."
        )
    return array


def _is_plain(kind: Any) -> bool:
    import pyarrow.types as types

    tests = (
        types.is_boolean,
        types.is_integer,
        types.is_floating,
        types.is_string,
        types.is_large_string,
    )
    return any(test(kind) for test in tests)
