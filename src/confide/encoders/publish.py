"""Writing a release so that a kill at any instant loses at most the shard being written.

Beside RELEASE, which is made to be shared, stands RELEASE.private, which never is: the order of
the codes (truth.parquet), and what was asked for and how far it came (progress.json).
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confide import _check as check
from confide.encoders.manifest import (
    FORMAT,
    MANIFEST,
    RECORDS,
    RESERVED,
    STATEMENT,
    STATEMENT_LINEAR,
    Manifest,
    check_facts,
    read_manifest,
    render,
)
from confide.encoders.progress import (
    Progress,
    begin_or_read,
    close_to_others,
    is_begun,
    locked,
    read_progress,
)
from confide.encoders.published import render_records
from confide.encoders.release import sha256, walk
from confide.encoders.settings import Dtype
from confide.encoders.shards import SHARD_BYTES, Layout, write_shard
from confide.errors import ArgumentError, FolderError, MismatchError, TableError
from confide.stores import disk_errors, owners_alone, plain, read_table, write_bytes, write_table

TRUTH = "truth.parquet"
# When a file was written tells when a record was encoded.  The first day that a zip archive can
# hold is 1980-01-01 local time, wherever it is packed.
_TIME = 315_619_200  # 1980-01-02 00:00 UTC


class Publisher:
    """A release in the making.  Use :meth:`open` as a context: one process at a time writes.

    Attributes
    ----------
    path : the release
    beside : RELEASE.private, the folder beside it that is never shared
    release_id : 128 random bits in hex, drawn when the release was begun
    truth : one row per code, in the order of the codes: code, record, patient, and row of the
        user's table
    """

    def __init__(self, path: Path, beside: Path, progress: Progress) -> None:
        self.path = path
        self.beside = beside
        self.release_id: str = progress.release_id
        self.truth = pd.DataFrame()
        self._progress = progress
        self._facts: dict[str, Any] = {}

    @classmethod
    @contextlib.contextmanager
    def open(
        cls, path: Path, asked: dict[str, Any], order: Callable[[], pd.DataFrame]
    ) -> Iterator[Publisher]:
        """Begin a release, or go on with one that was stopped.

        Parameters
        ----------
        path : the release; the folder beside it is named after it
        asked : all that the codes depend on, as JSON values, with "key_id"; going on needs the
            same
        order : called when a release is begun; the columns record, patient and row, one row per
            code, in the (random) order of the codes

        Raises
        ------
        FolderError : another process writes to it, it cannot be written, it holds other things, or
            what was begun is damaged or gone
        MismatchError : it was begun with something else asked for; names the field
        """
        path = path.resolve()
        # The order of the codes tells whose they are.
        with owners_alone(), locked(path) as beside:
            publisher = cls(path, beside, begin_or_read(path, beside, asked))
            publisher._resume(order)
            yield publisher

    @staticmethod
    def begun(path: Path) -> bool:
        """Whether a release at this path was begun, so that opening it goes on with it."""
        path = path.resolve()
        return is_begun(path.with_name(f"{path.name}.private"))

    @property
    def finished(self) -> bool:
        """Whether the release is complete, and nothing is left to do."""
        return self._progress.finished

    def create(
        self,
        records: pd.DataFrame,
        *,
        shape: tuple[int, int],
        dtype: Dtype,
        encoder: dict[str, Any],
        labels: tuple[str, ...],
        columns: tuple[str, ...] = (),
        pseudonyms: bool = False,
        shard_bytes: int = SHARD_BYTES,
        codes_per_shard: int | None = None,
    ) -> None:
        """Write the table and lay out the array; call it again, with the same, when going on.

        Parameters
        ----------
        records : one row per code, in their order: code (0, 1, ...), split ("train", "dev" or
            "test"), the labels, the public columns and, with `pseudonyms`, patient (a pseudonym,
            made for this release alone)
        shape : (rows, channels) of a code
        dtype : type of the stored numbers
        encoder : architecture of the encoder, as JSON values
        labels, columns : names of columns of `records`
        pseudonyms : whether `records` holds pseudonyms of the patients
        shard_bytes : size of a file, about, and of the memory that writing needs
        codes_per_shard : codes in a file, in place of its size

        Raises
        ------
        TableError : a table that cannot be published; names row and column
        ArgumentError : a shape, dtype, name or value that a manifest cannot hold
        MismatchError : the release was begun with another shape, dtype or shard size
        """
        names = (*labels, *columns)
        _check_table(records, names, self.truth, pseudonyms)
        patient = ("patient",) if pseudonyms else ()
        table = render_records(records, ("code", *names, "split", *patient))
        layout = Layout.plan(
            len(self.truth), (shape[0], shape[1]), dtype, shard_bytes, codes_per_shard
        )
        linear = isinstance(encoder, dict) and encoder.get("name") == "linear"
        facts = {
            "format": FORMAT,
            "confide": version("confide"),
            "release_id": self.release_id,
            "key_id": self._progress.asked["key_id"],
            "encoder": encoder,
            "labels": labels,
            "columns": columns,
            "pseudonyms": pseudonyms,
            "statement": STATEMENT_LINEAR if linear else STATEMENT,
            **asdict(layout),
        }
        self._facts = check_facts(plain(facts))
        self._progress.lay_out(self.path, layout)
        self._save()
        for name, content in {RECORDS: table, **layout.documents()}.items():
            with disk_errors(self.path):
                (self.path / name).parent.mkdir(parents=True, exist_ok=True)
            write_bytes(self.path / name, content)

    def pending(self) -> Iterator[tuple[int, slice]]:
        """The shards that are not written yet, each with the codes (rows of `truth`) it holds."""
        layout, done = self._layout, self._progress.shards
        for shard in [i for i, checksum in enumerate(done) if checksum is None]:
            yield shard, layout.rows(shard)

    def write(self, shard: int, codes: NDArray[np.float32]) -> None:
        """Write a shard whole or not at all; it is safe on disk when this returns.

        Parameters
        ----------
        codes : (codes of the shard, rows, channels) float32

        Raises
        ------
        ArgumentError : another shape or type
        ReleaseError : NaN, infinity, or a number too large for the dtype; names the code
        FolderError : the disk is full or cannot be written
        """
        layout = self._layout
        check.in_range(0, layout.n_shards - 1, shard=shard)
        rows = layout.rows(shard)
        wanted = (rows.stop - rows.start, *layout.shape)
        if codes.shape != wanted or codes.dtype != np.float32:
            raise ArgumentError(
                f"Expected codes of shard {shard} as float32 {wanted}, got {codes.dtype} "
                f"{codes.shape}."
            )
        path = self.path / layout.name(shard)
        with disk_errors(self.path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with _replacing(path) as file:
                write_shard(file, layout, shard, codes)
            self._progress.shards[shard] = sha256(path)
        self._save()

    def finish(self) -> Manifest:
        """Write the manifest, with the checksum of every file, that makes the folder a release.

        Raises
        ------
        ArgumentError : shards are not written yet
        FolderError : the folder of the release holds other things, or lost a file
        """
        layout = self._layout
        left = self._progress.shards.count(None)
        if left:
            raise ArgumentError(
                f"{left} of {layout.n_shards} shards of {self.path} are not written yet; write all "
                "that pending() gives before finish()."
            )
        raw = render(self._facts | {"files": self._files()})
        _level_times(self.path)
        write_bytes(self.path / MANIFEST, raw)
        return self._close()

    def manifest(self) -> Manifest:
        """The manifest of a release that is finished."""
        return self._close()

    @property
    def _layout(self) -> Layout:
        if not self._facts or self._progress.layout is None:
            raise ArgumentError("Call create() before pending(), write() and finish().")
        return self._progress.layout

    def _files(self) -> dict[str, dict[str, Any]]:
        """Size and checksum of every file, of shards as it was when they were written."""
        layout = self._layout
        shards = {layout.name(i): done for i, done in enumerate(self._progress.shards)}
        small = {RECORDS, *layout.documents()}
        found = dict(walk(self.path))
        for name in [*shards, *small]:
            if name not in found:
                raise FolderError(
                    f"{self.path / name} was removed while the release was written; run the same "
                    "command again."
                )
        strange = sorted(found.keys() - shards.keys() - small)
        if strange:
            raise FolderError(
                f"{self.path / strange[0]} is no part of the release ({len(strange)} such in all); "
                "remove it and run the same command again."
            )
        return {
            name: {
                "bytes": found[name].st_size,
                "sha256": shards[name] if name in shards else sha256(self.path / name),
            }
            for name in found
        }

    def _resume(self, order: Callable[[], pd.DataFrame]) -> None:
        progress, truth = self._progress, self.beside / TRUTH
        if progress.truth is None:
            # Nothing is encoded yet: an order that a kill left unrecorded may be drawn again.
            write_table(truth, _truth(order()))
            progress.truth = sha256(truth)
            self._save()
        self.truth = _read_truth(truth, progress)
        if (self.path / MANIFEST).is_file():
            self._close()
        elif self.finished:
            raise FolderError(
                f"This release was finished, but {self.path} holds it no more. Put it back, or "
                "encode again with another --out."
            )
        else:
            self._clean()

    def _clean(self) -> None:
        with disk_errors(self.path):
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            close_to_others(self.path)
            for leftover in self.path.rglob(".*.partial"):
                leftover.unlink(missing_ok=True)
        layout, shards = self._progress.layout, self._progress.shards
        if layout is None:
            return
        found = dict(walk(self.path))
        for shard in range(layout.n_shards):
            status = found.get(layout.name(shard))
            if status is None or status.st_size != layout.file_bytes(shard):
                shards[shard] = None

    def _close(self) -> Manifest:
        manifest = read_manifest(self.path)
        if manifest is None or manifest.release_id != self.release_id:
            raise FolderError(
                f"{self.path / MANIFEST} is not that of the release that was made here; restore it "
                "from a copy, or encode again with another --out."
            )
        _level_times(self.path)
        if not self.finished:
            self._progress.finished = True
            self._save()
        return manifest

    def _save(self) -> None:
        self._progress.save(self.beside)


@dataclass(frozen=True, kw_only=True, eq=False)
class Beside:
    """What RELEASE.private tells of a finished release.

    Attributes
    ----------
    asked : all that the codes depend on
    truth : one row per code: code, record, patient, row
    """

    asked: dict[str, Any]
    truth: pd.DataFrame


def read_beside(path: Path, release_id: str) -> Beside | None:
    """What lies beside a release, None if there is nothing; see :func:`read_private`."""
    beside = path.with_name(f"{path.name}.private")
    return read_private(beside, release_id) if is_begun(beside) else None


def read_private(beside: Path, release_id: str) -> Beside:
    """What a RELEASE.private tells.

    Raises
    ------
    MissingFileError : there is none
    FolderError : it is damaged
    MismatchError : it is that of another release
    """
    progress = read_progress(beside)
    if progress.release_id != release_id:
        raise MismatchError(
            f"{beside} is not that of the release with the id {release_id}; name the one that was "
            "made with it, or take it away."
        )
    return Beside(asked=progress.asked, truth=_read_truth(beside / TRUTH, progress))


def _read_truth(file: Path, progress: Progress) -> pd.DataFrame:
    if not file.is_file() or sha256(file) != progress.truth:
        raise FolderError(
            f"{file} is missing or was altered; the order of the codes is lost without it. "
            "Restore it from a copy, or encode again with another --out."
        )
    return read_table(file)


def _truth(order: pd.DataFrame) -> pd.DataFrame:
    wanted = ["record", "patient", "row"]
    if sorted(map(str, order.columns)) != sorted(wanted) or not len(order):
        raise ArgumentError(
            f"Expected an order with the columns {', '.join(wanted)} and a row per code, got "
            f"{len(order)} rows of {', '.join(map(str, order.columns))}."
        )
    truth = order[wanted].reset_index(drop=True)
    truth.insert(0, "code", np.arange(len(truth)))
    return truth


def _check_table(
    records: pd.DataFrame, names: tuple[str, ...], truth: pd.DataFrame, pseudonyms: bool
) -> None:
    taken = [name for name in names if name in RESERVED or names.count(name) > 1]
    if taken:
        raise TableError(
            f"A label or public column is named {taken[0]!r}, which the table of a release has "
            "already; rename it."
        )
    if len(records) != len(truth):
        raise TableError(f"Expected {len(truth)} rows, one per code, got {len(records)}.")
    if pseudonyms and "patient" in records:
        same = records["patient"].astype(str).to_numpy() == truth["patient"].astype(str).to_numpy()
        if same.any():
            raise TableError(
                f"Row {int(np.argmax(same))} of the table of the release holds the patient's own "
                "id in 'patient'; expected a pseudonym made for this release."
            )


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of `path` when it is whole and on disk."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _level_times(folder: Path) -> None:
    with disk_errors(folder):
        for path in [*folder.rglob("*"), folder]:
            os.utime(path, (_TIME, _TIME), follow_symlinks=False)
