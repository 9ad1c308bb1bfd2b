"""RELEASE.private: what was asked for and how far a release came; never shared.

It stands beside RELEASE and also holds the lock and the order of the codes.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from confide.encoders.manifest import FORMAT, MANIFEST
from confide.encoders.shards import Layout
from confide.errors import ArgumentError, FolderError, MismatchError
from confide.stores import alone, disk_errors, first_difference, plain, read_json, write_json

FILE = "progress.json"


class Progress(BaseModel):
    """What progress.json says.

    Attributes
    ----------
    release_id : 128 random bits in hex, drawn when the release was begun
    asked : all that the codes depend on
    truth : SHA-256 of truth.parquet, once the order of the codes stands
    layout : of the array, once it was laid out
    shards : SHA-256 of each shard that is written, None for the others
    finished : whether the release is complete
    """

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = FORMAT
    release_id: str
    asked: dict[str, Any]
    truth: str | None = None
    layout: Layout | None = None
    shards: list[str | None] = []
    finished: bool = False

    def save(self, beside: Path) -> None:
        """Write progress.json."""
        write_json(beside / FILE, self.model_dump(mode="json"))

    def lay_out(self, path: Path, layout: Layout) -> None:
        """Take the layout, or refuse another one than was taken before.

        Raises
        ------
        MismatchError : it differs; names the field
        """
        if self.layout is None:
            self.layout, self.shards = layout, [None] * layout.n_shards
        # The sizes of chunks and shards follow from these two, which the user knows.
        for name in ("dtype", "shape"):
            stored, wanted = getattr(self.layout, name), getattr(layout, name)
            _require_same(path, {f"codes.{name}": stored}, {f"codes.{name}": wanted})
        _require_same(path, {"codes": vars(self.layout)}, {"codes": vars(layout)})


@contextlib.contextmanager
def locked(path: Path) -> Iterator[Path]:
    """Hold the lock of the release at `path`; gives the folder beside it.

    Raises
    ------
    FolderError : another process holds it, or one of the folders holds other things
    """
    if not path.name:
        raise FolderError(f"{path} cannot be a release; choose another --out.")
    beside = path.with_name(f"{path.name}.private")
    _refuse_foreign(path, beside)
    with disk_errors(beside):
        beside.mkdir(mode=0o700, parents=True, exist_ok=True)
        close_to_others(beside)
    with alone(beside / ".lock", path):
        yield beside


def is_begun(beside: Path) -> bool:
    """Whether the folder beside a release tells of one that was begun."""
    return (beside / FILE).is_file()


def begin_or_read(path: Path, beside: Path, asked: dict[str, Any]) -> Progress:
    """The progress of a release, written if it is new.

    Raises
    ------
    ArgumentError : nothing is asked for as "key_id"
    FolderError : progress.json is damaged
    MismatchError : the release was begun with something else asked for; names the field
    """
    file = beside / FILE
    if not re.fullmatch("[0-9a-f]{32}", str(asked.get("key_id"))):
        raise ArgumentError(f"Expected key_id as 32 hex digits, got {asked.get('key_id')!r:.80}.")
    for leftover in beside.glob(".*.partial"):
        leftover.unlink(missing_ok=True)
    if not file.exists():
        progress = Progress(release_id=secrets.token_hex(16), asked=plain(asked))
        progress.save(beside)
        return progress
    progress = read_progress(beside)
    if progress.layout is not None and len(progress.shards) != progress.layout.n_shards:
        raise FolderError(
            f"{file} is damaged: {len(progress.shards)} shards, expected "
            f"{progress.layout.n_shards}; restore it from a copy, or encode again with another "
            "--out."
        )
    _require_same(path, progress.asked, plain(asked))
    return progress


def read_progress(beside: Path) -> Progress:
    """What progress.json says.

    Raises
    ------
    MissingFileError, FolderError : it is missing or damaged
    """
    file = beside / FILE
    try:
        return Progress.model_validate(read_json(file))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])[:80]
        raise FolderError(
            f"{file} is damaged or of another version of confide ({where}: {first['msg']}); "
            "restore it from a copy, or encode again with another --out."
        ) from None


def close_to_others(folder: Path) -> None:
    """Take all rights of others to a folder, which may have been there, empty, before."""
    if stat.S_IMODE(folder.stat().st_mode) != 0o700:
        with contextlib.suppress(PermissionError):
            folder.chmod(0o700)


def _refuse_foreign(path: Path, beside: Path) -> None:
    if (beside / FILE).exists():
        return
    with disk_errors(path):
        if path.exists() and any(path.iterdir()):
            begun = (path / MANIFEST).exists() or (path / "codes.zarr").exists()
            what = f"a release, but {beside} does not belong to it" if begun else "other things"
            raise FolderError(f"{path} holds {what}; choose another --out.")
    with disk_errors(beside):
        # A kill at the very start leaves a lock and a partial file.
        if beside.exists() and any(
            p.name != ".lock" and p.suffix != ".partial" for p in beside.iterdir()
        ):
            raise FolderError(f"{beside} holds other things; choose another --out.")


def _require_same(path: Path, stored: dict[str, Any], asked: dict[str, Any]) -> None:
    for key in sorted(stored.keys() | asked.keys()):
        difference = first_difference(stored.get(key), asked.get(key), key)
        if difference:
            name, before, now = difference
            raise MismatchError(
                f"{path} was begun with {name.removeprefix('config.')} = {before!r:.80}; it is "
                f"{now!r:.80} now. Use the same configuration, data and key to go on, or another "
                "--out."
            )
