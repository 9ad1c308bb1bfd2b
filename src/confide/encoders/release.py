"""A release: the folder of codes and labels that leaves the hospital, read and verified.

A release may come from anybody: nothing in it is believed before it was checked against its
manifest, and nothing outside its folder is opened.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confide.encoders.manifest import MANIFEST, RECORDS, Entry, Manifest, read_manifest
from confide.encoders.published import parse_records
from confide.encoders.settings import Dtype
from confide.encoders.shards import read_codes
from confide.errors import ArgumentError, ReleaseError
from confide.stores import disk_errors


@dataclass(frozen=True, kw_only=True, eq=False)
class Release:
    """A release, checked and open for reading; make one with :meth:`read`.

    Attributes
    ----------
    path : the folder
    manifest : what release.json says
    records : one row per code: code, the labels, the public columns, split ("train", "dev" or
        "test") and, if the release has pseudonyms, patient
    """

    path: Path
    manifest: Manifest
    records: pd.DataFrame

    @classmethod
    def read(cls, path: Path) -> Release:
        """Open a release.

        The manifest, the table and the sizes of all files are checked here, each chunk of codes
        when it is read; :func:`verify` reads every byte.

        Raises
        ------
        MissingFileError : there is no release at `path`
        ReleaseError : it is not finished, of another format, or damaged; names the file
        """
        manifest = read_manifest(path)
        if manifest is None:
            raise ReleaseError(
                f"{path / MANIFEST} is damaged or was altered: it is not what its digest says; "
                "get it from a copy."
            )
        _check_sizes(path, manifest)
        for name, document in manifest.layout.documents().items():
            if (path / name).read_bytes() != document:
                raise ReleaseError(
                    f"{path / name} does not describe the codes of {path / MANIFEST}; get the "
                    "release from a copy."
                )
        return cls(path=path, manifest=manifest, records=_records(path, manifest))

    @property
    def id(self) -> str:
        """128 random bits in hex, drawn for this release."""
        return self.manifest.release_id

    @property
    def key_id(self) -> str:
        """Of the key that the codes were made with."""
        return self.manifest.key_id

    @property
    def n_records(self) -> int:
        """Number of codes."""
        return self.manifest.n_records

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, channels) of a code."""
        return self.manifest.shape

    @property
    def dtype(self) -> Dtype:
        """Type of the stored numbers."""
        return self.manifest.dtype

    def codes(self, rows: slice | NDArray[np.integer[Any]] | Iterable[int]) -> NDArray[np.float32]:
        """Codes by number, in the order of `rows`.

        Parameters
        ----------
        rows : a slice, or (n,) whole numbers in [0, n_records), in any order, also several times

        Returns
        -------
        (n, rows of a code, channels) float32

        Raises
        ------
        ArgumentError : not whole numbers, or out of range
        ReleaseError : a shard is missing or damaged; names its file
        """
        if isinstance(rows, slice):
            numbers = np.arange(*rows.indices(self.n_records))
        else:
            numbers = np.asarray(rows if isinstance(rows, np.ndarray) else list(rows))
            if not len(numbers):
                numbers = numbers.astype(np.intp)
        if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
            raise ArgumentError(
                f"Expected rows as whole numbers of shape (n,), got {numbers.dtype} "
                f"{numbers.shape}."
            )
        outside = (numbers < 0) | (numbers >= self.n_records)
        if outside.any():
            raise ArgumentError(
                f"Expected rows in [0, {self.n_records - 1}], got {numbers[outside][0]}."
            )
        return read_codes(self.path, self.manifest.layout, numbers.astype(np.intp))


@dataclass(frozen=True)
class Damage:
    """A file of a release that is not as its manifest says, and in what way."""

    file: str
    what: Literal["missing", "altered", "unexpected", "unreadable"]


def verify(path: Path, progress: Callable[[int, int], None] | None = None) -> list[Damage]:
    """Read every byte of a release and list what is not as its manifest says; [] if all is well.

    Parameters
    ----------
    progress : called with (files checked, files in all)

    Raises
    ------
    MissingFileError : there is no release at `path`
    UnfinishedError : it has no manifest (yet)
    ReleaseError : its manifest is sound but of another format
    """
    manifest = read_manifest(path)
    if manifest is None:
        return [Damage(MANIFEST, "altered")]
    files = manifest.files
    found = dict(walk(path))
    damages = []
    for n_done, (name, entry) in enumerate(sorted(files.items()), 1):
        what = _damage(path / name, found.get(name), entry)
        if what:
            damages.append(Damage(name, what))
        if progress:
            progress(n_done, len(files))
    # A lost file may leave its folder behind.
    folders = {f"{folder}/" for name in files for folder in PurePosixPath(name).parents}
    unexpected = sorted(found.keys() - files.keys() - folders - {MANIFEST})
    return damages + [Damage(name, "unexpected") for name in unexpected]


def _damage(
    path: Path, status: os.stat_result | None, entry: Entry
) -> Literal["missing", "altered", "unreadable"] | None:
    if status is None:
        return "missing"
    # Never follow a link, nor wait for a pipe.
    if not stat.S_ISREG(status.st_mode) or status.st_size != entry.bytes:
        return "altered"
    try:
        return None if sha256(path) == entry.sha256 else "altered"
    except OSError:
        return "unreadable"


def sha256(path: Path) -> str:
    """SHA-256 of a file in hex, without holding it in memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def walk(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Everything below a folder but folders that hold something: relative path and status.

    Symbolic links are listed, not followed.
    """
    pending = [""]
    while pending:
        prefix = pending.pop()
        with disk_errors(folder / prefix), os.scandir(folder / prefix) as entries:
            inside = list(entries)
        if prefix and not inside:
            yield prefix, (folder / prefix).lstat()
        for entry in inside:
            name = f"{prefix}{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                pending.append(f"{name}/")
            else:
                yield name, entry.stat(follow_symlinks=False)


def _check_sizes(path: Path, manifest: Manifest) -> None:
    found = dict(walk(path))
    for name, status in found.items():
        if stat.S_ISLNK(status.st_mode):
            raise ReleaseError(
                f"{path / name} is a symbolic link; a release holds files alone. Replace it by the "
                "file itself, or remove it."
            )
    for name, entry in manifest.files.items():
        if name not in found:
            raise ReleaseError(f"{path / name} is missing; get it from a copy.")
        status = found[name]
        if not stat.S_ISREG(status.st_mode) or status.st_size != entry.bytes:
            raise ReleaseError(
                f"{path / name} has {status.st_size:,} bytes, expected {entry.bytes:,}; it is "
                "damaged, get it from a copy."
            )


def _records(path: Path, manifest: Manifest) -> pd.DataFrame:
    file = path / RECORDS
    raw = file.read_bytes()
    if hashlib.sha256(raw).hexdigest() != manifest.files[RECORDS].sha256:
        raise ReleaseError(f"{file} is damaged, its checksum differs; get it from a copy.")
    return parse_records(file, raw, manifest.table, manifest.n_records)
