"""The manifest of a release: what release.json says, and how much of it is believed."""

from __future__ import annotations

import hashlib
import json
import stat
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from confide.encoders.settings import Dtype
from confide.encoders.shards import Layout
from confide.errors import ArgumentError, MissingFileError, ReleaseError, UnfinishedError

FORMAT: Literal[1] = 1
MANIFEST = "release.json"
RECORDS = "records.parquet"
RESERVED = ("code", "split", "patient")
"""Columns of the table that no label and no public column may be named like."""
STATEMENT = (
    "The codes are compatible with NeuraCrypt (Yala et al., 2021); how much they give away is "
    "what the attack suite measures."
)
STATEMENT_LINEAR = (
    "The codes are those of one secret matrix, the weak baseline of NeuraCrypt (Yala et al., "
    "2021); expect them to be undone."
)
_LARGEST_MANIFEST = 64_000_000

Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Id = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
Size = Annotated[int, Field(ge=1, le=2**40)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Entry(_Strict):
    """One file of a release: its size and its SHA-256 in hex."""

    bytes: Annotated[int, Field(ge=0, le=2**53)]
    sha256: Sha256


class Manifest(_Strict):
    """What release.json says.

    Parameters
    ----------
    format : of the folder, 1
    confide : version of the package that wrote it
    release_id, key_id : 128 bits each in hex; neither tells anything about the key
    encoder : architecture of the encoder
    n_records : codes in all
    shape : (rows, channels) of a code
    dtype : type of the stored numbers
    codes_per_chunk, codes_per_shard : layout of the array
    labels, columns : names of the label columns and of the other public columns
    pseudonyms : whether the table holds a pseudonym of the patient
    statement : what the codes are, and are not
    files : size and SHA-256 of every other file, by its path in the folder
    digest : SHA-256 of the canonical JSON of everything else
    """

    format: Literal[1]
    confide: Name
    release_id: Id
    key_id: Id
    encoder: dict[str, Any]
    n_records: Size
    shape: tuple[Size, Size]
    dtype: Dtype
    codes_per_chunk: Size
    codes_per_shard: Size
    labels: tuple[Name, ...]
    columns: tuple[Name, ...]
    pseudonyms: bool
    statement: Annotated[str, StringConstraints(max_length=1000)]
    files: dict[str, Entry]
    digest: Sha256

    @property
    def table(self) -> tuple[str, ...]:
        """Names of the columns of records.parquet, in their order."""
        patient = ("patient",) if self.pseudonyms else ()
        return ("code", *self.labels, *self.columns, "split", *patient)

    @cached_property
    def layout(self) -> Layout:
        """Where each code stands."""
        return Layout(
            n_records=self.n_records,
            shape=self.shape,
            dtype=self.dtype,
            codes_per_chunk=self.codes_per_chunk,
            codes_per_shard=self.codes_per_shard,
        )


def read_manifest(path: Path) -> Manifest | None:
    """The manifest of the release at `path`; None if it is not, to the byte, what was written.

    Raises
    ------
    MissingFileError : there is no release at `path`
    ReleaseError : it is not finished, of another format, or its manifest cannot be one of confide
    """
    raw = _raw(path)
    content = None if raw is None else _content(raw)
    return None if raw is None or content is None else _checked(path / MANIFEST, raw, content)


def check_facts(facts: dict[str, Any]) -> dict[str, Any]:
    """Return what a manifest will say but for its files, before anything is encoded.

    Raises
    ------
    ArgumentError : it could not be read back; names the field
    """
    try:
        Manifest.model_validate_json(render(facts | {"files": {}}))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ArgumentError(f"{where}: {first['msg']}, got {first['input']!r:.80}.") from None
    return facts


def render(content: dict[str, Any]) -> bytes:
    """The bytes of release.json for everything but the digest, which is added."""
    return _indented({**content, "digest": _digest(content)})


def _indented(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def _digest(content: dict[str, Any]) -> str:
    rest = {key: value for key, value in content.items() if key != "digest"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _raw(path: Path) -> bytes | None:
    """What release.json holds; None if it cannot be one."""
    file = path / MANIFEST
    if not path.is_dir():
        raise MissingFileError(f"There is no release at {path}.")
    try:
        status = file.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST_MANIFEST:
            return None
        return file.read_bytes()
    except FileNotFoundError:
        if (path / "codes.zarr").is_dir():
            raise UnfinishedError(
                f"{path} is not finished, or its {MANIFEST} was lost. Run the same command again "
                "where it was made to finish it, or get it again."
            ) from None
        raise MissingFileError(f"{file} is missing; is {path} a release?") from None
    except OSError as error:
        raise ReleaseError(f"{file} cannot be read ({error.strerror or error}).") from error


def _content(raw: bytes) -> dict[str, Any] | None:
    """The JSON of a manifest, or None unless it is, byte for byte, what its digest says."""
    try:
        content = json.loads(raw)
        # Duplicate keys, NaN and other spellings of the same values do not come back the same.
        if isinstance(content, dict) and content.get("digest") == _digest(content):
            return content if _indented(content) == raw else None
    except (ValueError, RecursionError):
        return None
    return None


def _checked(file: Path, raw: bytes, content: dict[str, Any]) -> Manifest:
    if content.get("format") != FORMAT:
        raise ReleaseError(
            f"{file} has format {content.get('format')!r:.40}; this version of confide reads "
            f"format {FORMAT}. Use the version that made it ({content.get('confide')!r:.40})."
        )
    try:
        manifest = Manifest.model_validate_json(raw)
        layout = manifest.layout
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])[:80]
        raise ReleaseError(
            f"{file}: {where!r}: {first['msg']}, found {first['input']!r:.40}; it was not made by "
            "confide."
        ) from None
    except ArgumentError as error:
        raise ReleaseError(f"{file}: {error} It was not made by confide.") from None
    names = [*manifest.labels, *manifest.columns]
    if len({*names, *RESERVED}) < len(names) + len(RESERVED):
        raise ReleaseError(
            f"{file} names a column twice, or {' or '.join(RESERVED)}: {names!r:.200}; it was not "
            "made by confide."
        )
    _check_files(file, manifest.files, layout)
    return manifest


def _check_files(file: Path, files: dict[str, Entry], layout: Layout) -> None:
    # The files follow from the layout, so that no path in the manifest needs to be believed.
    if len(files) != layout.n_shards + 3 or files.keys() != (
        {RECORDS} | layout.documents().keys() | {layout.name(i) for i in range(layout.n_shards)}
    ):
        raise ReleaseError(
            f"{file} lists {len(files):,} files that are not those of {layout.n_records:,} codes "
            f"in {layout.n_shards:,} shards; it was not made by confide."
        )
    for shard in range(layout.n_shards):
        name, wanted = layout.name(shard), layout.file_bytes(shard)
        if files[name].bytes != wanted:
            raise ReleaseError(
                f"{file}: {name} has {files[name].bytes:,} bytes, expected {wanted:,}; it was not "
                "made by confide."
            )
