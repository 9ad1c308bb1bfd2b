"""What a path on the command line is, so that a wrong one is answered with what it is.

Only a path that is plainly something else is refused here.  What is missing, damaged or unknown is
left to whoever reads it, and says more about it.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from confide.errors import FolderError

_LARGEST_JSON = 2**26

_WORDS = {
    "audit": "an audit folder",
    "training": "the folder of a training on codes",
    "attack": "the folder of an attack",
    "comparison": "the folder of a comparison",
    "release": "a release of codes",
    "truth": "the private folder of a release",
    "challenge": "a challenge",
    "empty": "an empty folder",
    "blank": "an empty file",
    "folder": "a folder",
    "key": "a key",
    "table": "a table",
    "configuration": "a YAML configuration",
    "page": "a report",
    "file": "a file of another kind",
}
_NEXT = {
    "audit": "confide audit report {path}",
    "release": "confide encode verify {path}",
    "challenge": "confide attack run {path} CONFIG --out DIR",
    "key": "confide key show {path}",
}
"""What can be done with each; named where something else was expected."""

_TABLE = (
    " If it holds predictions: confide audit scores {path} --out DIR. If it holds records: name it "
    "in a configuration, data: {{name: table, path: {name}, patient: COLUMN, label: COLUMN}}."
)
_FOLDERS = ("audit", "training", "attack", "release", "truth", "challenge")


def kind(path: Path) -> str | None:
    """What lies at a path, a key of the words above; None if nothing does or it is unreadable."""
    try:
        if path.is_dir():
            return _kind_of_folder(path)
        return _kind_of_file(path) if path.is_file() else None
    except OSError:
        return None


def _kind_of_folder(path: Path) -> str:
    for name, what in (
        ("release.json", "release"),
        ("truth.parquet", "truth"),
        ("compare.json", "comparison"),
        ("private_encoded_dataset_path_list.json", "challenge"),
    ):
        if (path / name).is_file():
            return what
    manifest = content_of(path / "manifest.json")
    if manifest:
        asked = manifest.get("asked")
        holds = asked.get("holds") if isinstance(asked, dict) else None
        if isinstance(holds, str):
            found = [one for one in ("training", "attack") if holds.startswith(one)]
            return found[0] if found else "folder"
        erased = str(manifest.get("format")).startswith("eras")
        return "audit" if erased or "models" in manifest else "folder"
    return "folder" if any(path.iterdir()) else "empty"


def _kind_of_file(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(200)
    if not head:
        return "blank"
    if b'"confide key"' in head:
        return "key"
    if head[:4] == b"PAR1":
        return "table"
    if head.lstrip()[:9].lower() in (b"<!doctype", b"<html"):
        return "page"
    suffixes = {".csv": "table", ".parquet": "table", ".yaml": "configuration"}
    return suffixes.get(path.suffix.lower(), "file")


def content_of(path: Path) -> dict[str, Any]:
    """What a JSON file holds; nothing if there is none, or it holds something else."""
    if not path.is_file() or path.stat().st_size > _LARGEST_JSON:
        return {}
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


Check = Callable[[typer.Context, typer.CallbackParam, Path | None], Path | None]


def wanted(*kinds: str) -> Check:
    """A callback of a parameter: refuse a path that is plainly of another kind.

    The first of the kinds is the one that messages name.  A plain file, or a folder of no known
    kind, passes where a file or a folder is wanted.
    """

    def check(
        context: typer.Context, parameter: typer.CallbackParam, path: Path | None
    ) -> Path | None:
        if path is None or context.resilient_parsing:  # the shell completes a line
            return path
        found = kind(path)
        vague = "folder" if kinds[0] in _FOLDERS else "file"
        if found is not None and found not in kinds and found != vague:
            option = f" {parameter.opts[0]}" if parameter.opts[0].startswith("-") else ""
            raise FolderError(
                f"{path} is {_WORDS[found]}; {context.command_path}{option} takes "
                f"{_WORDS[kinds[0]]}.{_what_to_do(found, kinds[0], path)}"
            )
        return path

    return check


def out(what: str) -> Check:
    """A callback of ``--out``: refuse a file, and a folder that holds something else."""

    def check(
        context: typer.Context, parameter: typer.CallbackParam, path: Path | None
    ) -> Path | None:
        if path is None or context.resilient_parsing:
            return path
        found = kind(path)
        if found is not None and found not in (what, "folder", "empty"):
            raise FolderError(
                f"{path} is {_WORDS[found]}; {context.command_path} makes {_WORDS[what]}. Choose "
                "another --out."
            )
        return path

    return check


def _what_to_do(found: str, asked: str, path: Path) -> str:
    quoted = shlex.quote(str(path))
    if found == "table" and asked in ("configuration", "audit"):
        return _TABLE.format(path=quoted, name=path.name)
    return f" To use it: {_NEXT[found].format(path=quoted)}" if found in _NEXT else ""
