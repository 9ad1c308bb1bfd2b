"""Codes on disk: one Zarr v3 array in shards, every byte of which has its place.

Codes are floats that do not compress, so all chunks have one size, and the size of a shard file
follows from the shape of the array.  Any reader of Zarr v3 opens the array.  It is written and
read here without one, because a general reader takes a lost chunk for empty values and believes
the offsets, sizes and codecs that a file of unknown origin states.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from confide import _check as check
from confide.encoders.settings import Dtype
from confide.errors import ReleaseError

ARRAY = "codes.zarr/codes"
SHARD_BYTES = 64_000_000
"""Size of a shard file, about, unless another is asked for."""
# A chunk is the least that is read for one code; smaller ones make long indices.
_CHUNK_BYTES = 65_536
_STORED = {"float32": "<f4", "float16": "<f2", "bfloat16": "<u2"}
_NOT_A_NUMBER = {"float32": "NaN", "float16": "NaN", "bfloat16": 0x7FC0}
_NO_CHUNK = 2**64 - 1
_CHECKSUM = 4
_SLOT = 16


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where each code stands in the files.

    Parameters
    ----------
    n_records : codes in all
    shape : (rows, channels) of a code
    dtype : type of the stored numbers; bfloat16 is stored as the uint16 of its bits
    codes_per_chunk : codes that are read and checked together
    codes_per_shard : codes in a file, a multiple of `codes_per_chunk`

    Raises
    ------
    ArgumentError : a size below 1, an unknown dtype, or no multiple
    """

    n_records: int
    shape: tuple[int, int]
    dtype: Dtype
    codes_per_chunk: int
    codes_per_shard: int

    def __post_init__(self) -> None:
        check.one_of(_STORED, dtype=self.dtype)
        check.at_least(1, n_records=self.n_records)
        check.at_least(1, rows=self.shape[0])
        check.at_least(1, channels=self.shape[1])
        check.at_least(1, codes_per_chunk=self.codes_per_chunk)
        check.at_least(1, codes_per_shard=self.codes_per_shard)
        left_over = self.codes_per_shard % self.codes_per_chunk
        check.in_range(0, 0, left_over_of_codes_per_shard=left_over)

    @classmethod
    def plan(
        cls,
        n_records: int,
        shape: tuple[int, int],
        dtype: Dtype,
        shard_bytes: int = SHARD_BYTES,
        codes_per_shard: int | None = None,
    ) -> Layout:
        """Chunks of 64 kB and shards of `shard_bytes`, or of one code where that is larger.

        With `codes_per_shard`, shards of as many codes, in the largest chunks that divide them.
        """
        check.one_of(_STORED, dtype=dtype)
        size = max(1, shape[0] * shape[1] * np.dtype(_STORED[dtype]).itemsize)
        chunk = max(1, min(_CHUNK_BYTES, shard_bytes) // size)
        if codes_per_shard is not None:
            chunk = max(k for k in range(1, chunk + 1) if codes_per_shard % k == 0)
            shard_bytes = codes_per_shard * size
        chunks = shard_bytes // (size * chunk)
        if codes_per_shard is None:
            chunks = max(1, min(chunks, -(-n_records // chunk)))
        return cls(
            n_records=n_records,
            shape=shape,
            dtype=dtype,
            codes_per_chunk=chunk,
            codes_per_shard=chunk * chunks,
        )

    @property
    def n_shards(self) -> int:
        """Files in all."""
        return -(-self.n_records // self.codes_per_shard)

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a chunk with its checksum."""
        size = self.shape[0] * self.shape[1] * np.dtype(_STORED[self.dtype]).itemsize
        return self.codes_per_chunk * size + _CHECKSUM

    def rows(self, shard: int) -> slice:
        """The codes of a shard."""
        start = shard * self.codes_per_shard
        return slice(start, min(start + self.codes_per_shard, self.n_records))

    def n_chunks(self, shard: int) -> int:
        """Chunks of a shard that hold codes."""
        rows = self.rows(shard)
        return -(-(rows.stop - rows.start) // self.codes_per_chunk)

    def file_bytes(self, shard: int) -> int:
        """Size of the file of a shard."""
        slots = self.codes_per_shard // self.codes_per_chunk
        return self.n_chunks(shard) * self.chunk_bytes + slots * _SLOT + _CHECKSUM

    def index(self, shard: int) -> bytes:
        """What stands at the end of the file: offset and size of each chunk, and a checksum."""
        n_chunks = self.n_chunks(shard)
        slots = np.full((self.codes_per_shard // self.codes_per_chunk, 2), _NO_CHUNK, "<u8")
        slots[:n_chunks, 0] = np.arange(n_chunks, dtype=np.uint64) * np.uint64(self.chunk_bytes)
        slots[:n_chunks, 1] = self.chunk_bytes
        return _with_checksum(slots.tobytes())

    def name(self, shard: int) -> str:
        """The file of a shard, relative to the release."""
        return f"{ARRAY}/c/{shard}/0/0"

    def documents(self) -> dict[str, bytes]:
        """The zarr.json files of the array and its group by name, relative to the release."""
        group = {"zarr_format": 3, "node_type": "group", "attributes": {}}
        return {"codes.zarr/zarr.json": _json(group), f"{ARRAY}/zarr.json": _json(self._array())}

    def _array(self) -> dict[str, Any]:
        little: dict[str, Any] = {"name": "bytes", "configuration": {"endian": "little"}}
        checked = [little, {"name": "crc32c"}]
        sharding = {
            "chunk_shape": [self.codes_per_chunk, *self.shape],
            "codecs": checked,
            "index_codecs": checked,
            "index_location": "end",
        }
        bits = {"bfloat16": "each uint16 holds the bits of a bfloat16, the upper half of a float32"}
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": [self.n_records, *self.shape],
            "data_type": "uint16" if self.dtype == "bfloat16" else self.dtype,
            "chunk_grid": {
                "name": "regular",
                "configuration": {"chunk_shape": [self.codes_per_shard, *self.shape]},
            },
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            # What a general reader shows for a lost chunk can then not be taken for a code.
            "fill_value": _NOT_A_NUMBER[self.dtype],
            "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
            "attributes": {"values": bits[self.dtype]} if self.dtype in bits else {},
            "dimension_names": ["code", "row", "channel"],
        }


def write_shard(file: BinaryIO, layout: Layout, shard: int, codes: NDArray[np.float32]) -> None:
    """Write the codes of a shard, rounded to nearest even; needs the memory of one chunk.

    Parameters
    ----------
    codes : (codes of the shard, rows, channels) float32

    Raises
    ------
    ReleaseError : NaN, infinity, or a number too large for the dtype; names the code
    """
    for start in range(0, len(codes), layout.codes_per_chunk):
        chunk = np.ascontiguousarray(codes[start : start + layout.codes_per_chunk])
        stored = _to_stored(chunk, layout.dtype)
        _refuse_unfit(chunk, stored, layout, layout.rows(shard).start + start)
        if len(chunk) < layout.codes_per_chunk:
            whole = np.full(
                (layout.codes_per_chunk, *layout.shape),
                float("nan") if stored.dtype.kind == "f" else _NOT_A_NUMBER[layout.dtype],
                stored.dtype,
            )
            whole[: len(chunk)] = stored
            stored = whole
        file.write(_with_checksum(stored.tobytes()))
    file.write(layout.index(shard))


def read_codes(release: Path, layout: Layout, rows: NDArray[np.intp]) -> NDArray[np.float32]:
    """Codes by number, in the order of `rows`; reads the chunks that hold them, each once.

    Parameters
    ----------
    rows : (n,) numbers of codes in [0, n_records), in any order, also several times

    Returns
    -------
    (n, rows, channels) float32

    Raises
    ------
    ReleaseError : a shard is missing or damaged; names its file
    """
    codes = np.empty((len(rows), *layout.shape), np.float32)
    for shard, in_shard in _groups(rows // layout.codes_per_shard):
        path = release / layout.name(shard)
        within = rows[in_shard] - layout.rows(shard).start
        try:
            with path.open("rb") as file:
                _check_form(file, path, layout, shard)
                for chunk, in_chunk in _groups(within // layout.codes_per_chunk):
                    stored = _read_chunk(file, path, layout, shard, chunk)
                    wanted = stored[within[in_chunk] - chunk * layout.codes_per_chunk]
                    codes[in_shard[in_chunk]] = _from_stored(wanted, layout.dtype)
        except OSError as error:
            raise ReleaseError(
                f"{path} cannot be read ({error.strerror or error}); get it from a copy."
            ) from error
    return codes


def _check_form(file: BinaryIO, path: Path, layout: Layout, shard: int) -> None:
    size, wanted = file.seek(0, 2), layout.file_bytes(shard)
    if size != wanted:
        raise ReleaseError(
            f"{path} has {size:,} bytes, expected {wanted:,}; it is damaged, get it from a copy."
        )
    index = layout.index(shard)
    file.seek(-len(index), 2)
    if file.read() != index:
        raise ReleaseError(
            f"{path} is damaged: its index is not that of shard {shard}; get it from a copy."
        )


def _read_chunk(file: BinaryIO, path: Path, layout: Layout, shard: int, chunk: int) -> NDArray[Any]:
    file.seek(chunk * layout.chunk_bytes)
    raw = file.read(layout.chunk_bytes)
    values = raw[:-_CHECKSUM]
    if _checksum(values) != raw[-_CHECKSUM:]:
        first = layout.rows(shard).start + chunk * layout.codes_per_chunk
        last = min(first + layout.codes_per_chunk, layout.n_records) - 1
        raise ReleaseError(
            f"{path} is damaged: the checksum of codes {first} to {last} differs; get it from a "
            "copy."
        )
    return np.frombuffer(values, _STORED[layout.dtype]).reshape(-1, *layout.shape)


def _groups(keys: NDArray[np.intp]) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """Each key, in rising order, with the positions where it stands."""
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.diff(keys[order], prepend=-1))
    for positions in np.split(order, starts[1:]) if len(keys) else []:
        yield int(keys[positions[0]]), positions


def _to_stored(codes: NDArray[np.float32], dtype: Dtype) -> NDArray[Any]:
    if dtype != "bfloat16":
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            return codes.astype(_STORED[dtype], copy=False)
    bits = codes.view(np.uint32)
    # To nearest, ties to even: add half of the last kept bit, less one if that bit is 0.
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")


def _from_stored(stored: NDArray[Any], dtype: Dtype) -> NDArray[np.float32]:
    if dtype != "bfloat16":
        return stored.astype(np.float32)
    return (stored.astype(np.uint32) << 16).view(np.float32)


def _refuse_unfit(
    codes: NDArray[np.float32], stored: NDArray[Any], layout: Layout, first: int
) -> None:
    for values in (codes, _from_stored(stored, layout.dtype)):
        finite = np.isfinite(values)
        if finite.all():
            continue
        at, row, channel = (int(i) for i in np.argwhere(~finite)[0])
        value = codes[at, row, channel]
        where = f"Code {first + at} holds {value!s} in row {row}, channel {channel}"
        if np.isfinite(value):
            raise ReleaseError(
                f"{where}, too large for {layout.dtype}; encode with dtype: float32 into another "
                "--out."
            )
        raise ReleaseError(
            f"{where}; expected finite numbers. Its record is named in truth.parquet; check its "
            "values."
        )


def _checksum(raw: bytes) -> bytes:
    return int(google_crc32c.value(raw)).to_bytes(_CHECKSUM, "little")


def _with_checksum(raw: bytes) -> bytes:
    return raw + _checksum(raw)


def _json(document: dict[str, Any]) -> bytes:
    return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()
