"""An audit folder on disk: manifest, signals and tables, written so that a kill loses nothing.

Small files are written beside themselves and renamed; a model counts as done only after its
logits are on disk and the manifest that says so has been renamed into place.  Nothing is ever
unpickled.  The folder tells who was in which training set, so it is readable by its owner alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from confide._disk import REMEDY, cohort_is_as_written, forget_lost, lost_chunks
from confide._disk import disk_errors as disk_errors
from confide._objects import in_store
from confide._places import Checked, InFolder, Place
from confide.errors import ConfideError, FolderError, MismatchError, MissingFileError

FORMAT = 1
_CHUNK_BYTES = 5_000_000
"""An object store takes so much in one request; of an upload in parts, a kill would leave some."""
_BLOCK_BYTES = 128_000_000
"""The same records of all models are read together: their chunks have about this size in all."""
_LEAST_CHUNK_BYTES = 64_000
_LARGEST_JSON = 256_000_000
_CLAIM = ".models-"


@contextlib.contextmanager
def alone(lock: Path, path: Path, *, wait: float = 0.0) -> Iterator[None]:
    """Hold a lock file for as long as `path` is written to.

    Parameters
    ----------
    lock, path : the file, and what it stands for
    wait : seconds to wait for it

    Raises
    ------
    FolderError : another process holds it
    """
    with disk_errors(lock.parent):
        held = FileLock(lock, mode=0o600)
        try:
            held.acquire(timeout=wait)
        except Timeout:
            raise FolderError(
                f"{path} is in use by another process; wait for it or choose another --out."
            ) from None
    try:
        yield
    finally:
        held.release()


@contextlib.contextmanager
def owners_alone() -> Iterator[None]:
    """New files are readable by their owner alone: they tell who was in a training set."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


@contextlib.contextmanager
def claimed(path: Path, group: slice, *, wait: float = 0.0) -> Iterator[bool]:
    """Train a group of models as the only process that does; false if another one does.

    Several processes may train models of one folder, each of which writes other chunks.  They take
    the folder's own lock only for a moment, to claim a group and to say that it is finished; who
    holds that lock and finds no claim is alone.

    Parameters
    ----------
    path, group : the audit folder, and the numbers of the models
    wait : seconds to wait for the folder's lock

    Raises
    ------
    FolderError : another process holds the folder's lock all the while, or the folder was erased
    """
    held = FileLock(path / f"{_CLAIM}{group.start:06}.lock", mode=0o600)
    with alone(path / ".lock", path, wait=wait), disk_errors(path):
        AuditFolder.read(path)
        with contextlib.suppress(Timeout):
            held.acquire(timeout=0)
    try:
        yield held.is_locked
    finally:
        held.release()


def refuse_claims(path: Path) -> None:
    """Refuse a folder while other processes train models of it; the folder's lock is held."""
    for lock in path.glob(f"{_CLAIM}*.lock"):
        with alone(lock, path):
            lock.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, readable by its owner alone."""
    with disk_errors(path.parent):
        # mkstemp creates the file with mode 0600.
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def write_json(path: Path, content: Any) -> None:
    """Write JSON; NaN and infinity become null, since JSON has neither."""
    text = json.dumps(plain(content), indent=1, ensure_ascii=False, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def read_json(path: Path) -> Any:
    """Read a JSON file of this package; a damaged one is an error that names it."""
    if not path.is_file():
        raise MissingFileError(f"{path} is missing; is {path.parent} an audit folder?")
    if path.stat().st_size > _LARGEST_JSON:
        raise FolderError(f"{path} is larger than {_LARGEST_JSON:,} bytes; it was not read.")
    try:
        with disk_errors(path.parent):
            return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise FolderError(
            f"{path} is damaged, it is not valid JSON ({error}); restore it from a copy, or use "
            "another --out."
        ) from error


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a Parquet table, with a checksum of each page."""
    write_bytes(path, _parquet(table))


def _parquet(table: pd.DataFrame) -> bytes:
    buffer = BytesIO()
    table.to_parquet(buffer, index=False, write_page_checksum=True)
    return buffer.getvalue()


def read_table(path: Path) -> pd.DataFrame:
    """Read a Parquet table of this package."""
    if not path.is_file():
        raise MissingFileError(f"{path} is missing; is {path.parent} an audit folder?")
    try:
        return pd.read_parquet(path, page_checksum_verification=True)
    except (ValueError, LookupError, TypeError, NotImplementedError, OSError) as error:
        raise FolderError(
            f"{path} is damaged, it is no Parquet file ({str(error).splitlines()[0]}); restore it "
            "from a copy, or use another --out."
        ) from error


class AuditFolder:
    """One audit on disk.  Use :meth:`open` as a context: one process at a time writes.

    Attributes
    ----------
    path : the folder
    manifest : what was asked for and how far it came, as stored in manifest.json
    """

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest

    @classmethod
    def read(cls, path: Path) -> AuditFolder:
        """Open a folder for reading; no lock is taken."""
        if not path.is_dir():
            raise MissingFileError(f"There is no audit folder at {path}.")
        manifest = read_json(path / "manifest.json")
        if not isinstance(manifest, dict) or "format" not in manifest:
            raise FolderError(f"{path / 'manifest.json'} is not the manifest of an audit.")
        state = str(manifest["format"])
        if state.startswith("erased on "):
            raise FolderError(
                f"The signals of {path} were {state:.40}; its tables and report are all that is "
                "left. Audit again with another --out."
            )
        if state.startswith("erasing since "):
            raise FolderError(
                f"Erasing {path} was interrupted; run `confide audit erase {path}` again."
            )
        if manifest["format"] != FORMAT:
            raise FolderError(
                f"{path} has format {manifest['format']!r:.40}; this version reads format "
                f"{FORMAT}. Use the version of confide that made it, or another --out."
            )
        if not _whole(manifest):
            raise FolderError(
                f"{path / 'manifest.json'} is damaged, entries are missing; restore it from a "
                "copy, or use another --out."
            )
        return cls(path, manifest)

    @classmethod
    @contextlib.contextmanager
    def open(
        cls, path: Path, begin: Callable[[], dict[str, Any]], *, wait: float | None = None
    ) -> Iterator[AuditFolder]:
        """Open a folder for writing, or begin one with the manifest that `begin` makes.

        Parameters
        ----------
        path : the folder
        begin : -> the manifest
        wait : None if nobody else may train models of it meanwhile; else the seconds to wait until
            the others let this process write

        Raises
        ------
        FolderError : another process writes to it, it cannot be written, or it holds other things
        """
        with owners_alone(), cls._locked(path, begin, wait) as folder:
            yield folder

    @classmethod
    @contextlib.contextmanager
    def _locked(
        cls, path: Path, begin: Callable[[], dict[str, Any]], wait: float | None
    ) -> Iterator[AuditFolder]:
        with disk_errors(path):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if _foreign(path):
                raise FolderError(
                    f"{path} is not empty and is not an audit folder; choose another --out."
                )
        with alone(path / ".lock", path, wait=wait or 0.0):
            if wait is None:
                refuse_claims(path)
            if (path / "manifest.json").exists():
                folder = cls.read(path)
                folder.signals.claim(begun=bool(folder.done.any()))
                if wait is None:
                    # What another process is writing has such a name, too.
                    for leftover in path.rglob("*.partial"):
                        leftover.unlink(missing_ok=True)
                    forget_lost(folder)
            else:
                # A folder that was there, empty, may be open to others.
                with contextlib.suppress(PermissionError):
                    path.chmod(0o700)
                folder = cls(path, {"format": FORMAT} | plain(begin()))
                # The manifest first: with it, a kill in between leaves nothing that is nobody's.
                folder.signals.require_free()
                folder.save()
                folder.signals.claim(begun=False)
            yield folder

    def save(self) -> None:
        """Write the manifest."""
        write_json(self.path / "manifest.json", self.manifest)

    def require_same(self, wanted: dict[str, Any]) -> None:
        """Refuse to go on with another configuration or other data; names the first field."""
        for key, value in wanted.items():
            difference = first_difference(self.manifest.get(key), plain(value), key)
            if difference:
                name, stored, now = difference
                # By the user's names: the design is a part of the audit block.
                name = name.removeprefix("config.").replace("design", "audit", 1)
                raise MismatchError(
                    f"{self.path} was begun with {name} = {stored!r:.80}; it is {now!r:.80} now. "
                    "Use the same configuration and data to resume, or another --out."
                )

    @cached_property
    def signals(self) -> Place:
        """Where the arrays lie."""
        return in_store(self.manifest) or InFolder(self.path)

    @property
    def done(self) -> NDArray[np.bool_]:
        """(n_models,) which models are finished."""
        return np.asarray(self.manifest["models"]) == "done"

    def create_array(self, name: str, shape: tuple[int, ...], dtype: Any) -> None:
        """Make an array of signals.zarr: one model a row, chunked by model and by records.

        The more models, the smaller are the chunks, so that some records of all models can be
        read without reading the rest.
        """
        import zarr
        from zarr.codecs import Crc32cCodec

        width = int(np.prod(shape[2:], dtype=np.int64)) * np.dtype(dtype).itemsize
        most = min(_CHUNK_BYTES, max(_LEAST_CHUNK_BYTES, _BLOCK_BYTES // max(shape[0], 1)))
        rows = max(1, min(shape[1], most // max(width, 1)))
        with self.signals.writing():
            group = zarr.open_group(self.signals.store, mode="a", zarr_format=3)
            group.create_array(
                name,
                shape=shape,
                chunks=(1, rows, *shape[2:]),
                dtype=dtype,
                compressors=[Crc32cCodec()],  # finds truncated or altered chunks when read
                fill_value=np.nan if np.issubdtype(dtype, np.floating) else False,
                overwrite=True,
            )

    def has_array(self, name: str) -> bool:
        """Whether signals.zarr holds the array."""
        return self.signals.has(name)

    def array(self, name: str) -> Checked:
        """The Zarr array of that name, sliced like NumPy's."""
        import zarr

        where = self.signals
        if not where.has(name):
            raise MissingFileError(f"{where} does not hold {name!r}; were the signals erased?")
        try:
            # Empty chunks are written too, so that a chunk that is not there is one lost.
            with where.reading(), zarr.config.set({"array.write_empty_chunks": True}):
                group = zarr.open_group(where.store, mode="r+", zarr_format=3)
                return Checked(group[name], where)
        except ConfideError:
            raise
        except (
            *(ValueError, LookupError, TypeError, AttributeError, OSError),
            RecursionError,  # of brackets within brackets
        ) as error:
            raise FolderError(
                f"{where}/{name}/zarr.json, or the one above it, cannot be read; {REMEDY}"
            ) from error

    def write_cohort(self, table: pd.DataFrame) -> None:
        """Write cohort.parquet, and its SHA-256 into the manifest."""
        content = _parquet(table)
        # First: a kill in between leaves no table, and that is written again.
        self.manifest["cohort_sha256"] = hashlib.sha256(content).hexdigest()
        self.save()
        write_bytes(self.path / "cohort.parquet", content)

    def check_complete(self, name: str) -> None:
        """Refuse an array that lost a chunk of a finished model: it would read as not a member.

        With membership, the table that names its patients must have its checksum.
        """
        if name == "membership" and cohort_is_as_written(self) is False:
            raise FolderError(f"{self.path / 'cohort.parquet'} is damaged or missing; {REMEDY}")
        n_lost = sum(1 for _ in lost_chunks(self, name, read=False))
        if n_lost:
            raise FolderError(
                f"{n_lost:,} stored chunk(s) of {self.signals}/{name} are missing; {REMEDY}"
            )


def _foreign(path: Path) -> bool:
    # A kill before the first manifest leaves only its partial file, and the lock.
    # Listed once: another process may be beginning the folder just now.
    names = [p.name for p in path.iterdir()]
    others = [name for name in names if name != ".lock" and not name.endswith(".partial")]
    return bool(others) and "manifest.json" not in others


def _whole(manifest: dict[str, Any]) -> bool:
    kinds = {"models": list, "task": str, "classes": list, "versions": dict}
    optional = {"audit": dict, "design": dict, "config": dict, "warnings": list, "guards": list}
    return (
        all(isinstance(manifest.get(key), kind) for key, kind in kinds.items())
        and all(isinstance(manifest.get(key, kind()), kind) for key, kind in optional.items())
        and manifest["task"] in ("binary", "multiclass", "multilabel")
        and all(state in ("pending", "done") for state in manifest["models"])
        and ("signals" not in manifest or in_store(manifest) is not None)
    )


def first_difference(stored: Any, now: Any, name: str) -> tuple[str, Any, Any] | None:
    if isinstance(stored, dict) and isinstance(now, dict):
        for key in sorted(stored.keys() | now.keys()):
            found = first_difference(stored.get(key), now.get(key), f"{name}.{key}")
            if found:
                return found
        return None
    return None if stored == now else (name, stored, now)
