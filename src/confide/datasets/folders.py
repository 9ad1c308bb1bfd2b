"""Files that a table names, in the folder where they should be."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from confide.errors import ImageError

_LONGEST = 4096  # characters of a name, as many as Linux allows


def inside(folder: Path, name: object, row: int) -> Path:
    """The file of a name from a table, which must not lead out of the (resolved) folder."""
    name = _text(name, row)
    try:
        within = (folder / name).resolve().is_relative_to(folder)
    except RuntimeError:  # a circle of symbolic links
        within = False
    if not within:
        raise ImageError(
            f"Row {row}: the file {name!r} is outside the folder {folder}; move the image into it."
        )
    return folder / name


def present(folder: Path, names: Sequence[object]) -> list[Path]:
    """The files of names from a table, all of which must be in the folder.

    Every folder that a name has is listed once, instead of asking for each file, and followed to
    its end only where a link or ".." is on the way.

    Parameters
    ----------
    folder : where the names begin
    names : one a record, with "/" between folders

    Raises
    ------
    ImageError : a name leads out of the folder, or there is no such file; names the row, and how
        many there are not
    """
    root = folder.resolve()
    listed: dict[str, frozenset[str]] = {}
    plain: dict[str, bool] = {}
    files: list[Path] = []
    absent: list[int] = []
    for row, name in enumerate(names):
        name = _text(name, row)
        place, _, last = name.rpartition("/")
        if place not in listed:
            way = _is_plain(root, place, plain)
            listed[place] = _listed(root / place if way else inside(root, place, row))
        # What is not listed as a plain file may be a link, or lead elsewhere, as ".." does; and
        # what begins with "/" leads to the root of the disk, whatever is listed here.
        known = last in listed[place] and not name.startswith("/")
        files.append(root / name if known else inside(root, name, row))
        if not known and not _is(Path.is_file, root, name):
            absent.append(row)
    if absent:
        row = absent[0]
        raise ImageError(
            f"Row {row}: There is no image {files[row]} ({len(absent):,} of {len(files):,} images "
            "are not there, or not to be read); complete the folder."
        )
    return files


def _text(name: object, row: int) -> str:
    if not isinstance(name, str) or "\0" in name or len(name) > _LONGEST:
        raise ImageError(f"Row {row} has {name!r:.80} for a file name; give each image its file.")
    return name


def _is_plain(root: Path, place: str, known: dict[str, bool]) -> bool:
    """Whether a folder lies below the root without a link or ".." on the way."""
    parts = place.split("/") if place else []
    for end, part in enumerate(parts, start=1):
        way = "/".join(parts[:end])
        if way not in known:
            known[way] = part not in ("", ".", "..") and not _is(Path.is_symlink, root, way)
        if not known[way]:
            return False
    return True


def _is(kind: Callable[[Path], bool], root: Path, name: str) -> bool:
    try:
        return kind(root / name)
    except OSError:  # a name that is too long, say
        return False


def _listed(folder: Path) -> frozenset[str]:
    """Names of the plain files of a folder, none where it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return frozenset(e.name for e in entries if e.is_file(follow_symlinks=False))
    except OSError:
        return frozenset()
