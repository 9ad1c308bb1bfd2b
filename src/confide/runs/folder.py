"""A folder that a run writes to, and that the same run resumes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from confide.encoders.progress import close_to_others
from confide.errors import FolderError, MismatchError
from confide.stores import (
    alone,
    disk_errors,
    first_difference,
    owners_alone,
    plain,
    read_json,
    write_json,
)

FORMAT = 1


@contextlib.contextmanager
def resumable(path: Path, asked: dict[str, Any], holds: str) -> Iterator[None]:
    """Begin a folder, or go on with one that was begun with the same `asked`.

    One process at a time writes to it, and what it writes is readable by its owner alone.

    Parameters
    ----------
    path : the folder
    asked : all that its content depends on
    holds : what it holds, in words: "training on codes"

    Raises
    ------
    FolderError : another process writes to it, it cannot be written, or holds other things
    MismatchError : it was begun with something else; names the field
    """
    with owners_alone():
        with disk_errors(path):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            manifest = path / "manifest.json"
            others = [p.name for p in path.iterdir() if p.name != ".lock"]
            if not manifest.exists() and any(not n.endswith(".partial") for n in others):
                raise FolderError(
                    f"{path} is not empty and holds no {holds}; choose another --out."
                )
            close_to_others(path)
        with alone(path / ".lock", path):
            _begin(manifest, {"holds": holds, **plain(asked)}, holds)
            yield


def _begin(manifest: Path, asked: dict[str, Any], holds: str) -> None:
    if not manifest.exists():
        write_json(manifest, {"format": FORMAT, "asked": asked})
        return
    stored = read_json(manifest)
    before = stored.get("asked") if isinstance(stored, dict) else None
    if (
        not isinstance(before, dict)
        or stored.get("format") != FORMAT
        or before.get("holds", holds) != holds
    ):
        article = "an" if holds[0] in "aeiou" else "a"
        raise FolderError(
            f"{manifest} is not the manifest of {article} {holds}; choose another --out."
        )
    difference = first_difference(before, asked, "")
    if difference:
        name, then, now = difference
        raise MismatchError(
            f"{manifest.parent} was begun with {name.lstrip('.')} = {then!r:.80}; it is "
            f"{now!r:.80} now. Use the same configuration and releases to resume, or another --out."
        )
