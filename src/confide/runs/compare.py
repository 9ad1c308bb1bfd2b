"""Several audits side by side, from their folders; nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from confide.audits.comparison import Comparison, compare, strongest_common
from confide.errors import ArgumentError, FolderError
from confide.reports import numbers
from confide.reports.compare import render_comparison
from confide.runs.compare_arms import Stored, arm_of, differing, require_same_patients
from confide.runs.models import Progress, silent
from confide.stores import disk_errors, owners_alone, write_bytes, write_json, write_table

_LONGEST_NAME = 80
_MOST = 12
"""Audits on one page: more are hard to tell apart, and there are 66 pairs of 12."""


def compare_audits(
    folders: Sequence[Path],
    out: Path | None = None,
    *,
    names: Sequence[str] = (),
    progress: Progress = silent,
) -> Comparison:
    """Compare audits of the same patients: what each recipe gives away, and what it is good for.

    Parameters
    ----------
    folders : two audit folders or more, of the same records and patients
    out : where compare.json, arms.parquet, groups.parquet and report.html are written; None to
        write nothing
    names : what the audits are called, one each; by default the names of their folders
    progress : called with (audits read, audits in all)

    Raises
    ------
    ArgumentError : fewer than two folders, one given twice, or names that do not fit
    FolderError, MissingFileError : a folder that holds no finished audit of a recipe
    MismatchError : audits of different patients; names what differs
    """
    called = _names(folders, names)
    if out is not None:
        _check_out(out, folders)
    stored = [Stored.read(folder, name) for folder, name in zip(folders, called, strict=True)]
    warnings = require_same_patients(stored)
    attack = strongest_common([one.summary for one in stored])
    recipes = differing(stored)
    arms = []
    progress(0, len(stored))
    for one, recipe in zip(stored, recipes, strict=True):
        arms.append(arm_of(one, recipe, attack))
        progress(len(arms), len(stored))
    found = compare(arms, attack, warnings=warnings)
    found.summary["version"] = version("confide")
    if out is not None:
        _write(found, out)
    return found


def _names(folders: Sequence[Path], names: Sequence[str]) -> list[str]:
    if not 2 <= len(folders) <= _MOST:
        raise ArgumentError(f"Expected 2 to {_MOST} audit folders, got {len(folders)}.")
    places = [folder.resolve() for folder in folders]
    for i, place in enumerate(places):
        if place in places[:i]:
            raise ArgumentError(f"{folders[i]} is given twice; compare different audits.")
    if names and len(names) != len(folders):
        raise ArgumentError(
            f"{len(names)} names are given for {len(folders)} folders; give one each, or none."
        )
    found = [numbers.name(name) for name in names or [place.name for place in places]]
    for i, name in enumerate(found):
        if len(name) > _LONGEST_NAME:
            raise ArgumentError(
                f"The name {name[:20]!r}... has {len(name)} characters; give a --name of at most "
                f"{_LONGEST_NAME}."
            )
        if name in found[:i]:
            raise ArgumentError(f"Two audits are called {name!r}; give each a --name of its own.")
    return found


def _check_out(out: Path, folders: Sequence[Path]) -> None:
    if out.resolve() in [folder.resolve() for folder in folders]:
        raise ArgumentError(f"{out} is one of the audits; choose another --out.")
    with disk_errors(out):
        others = out.exists() and any(out.iterdir())
        if others and not (out / "compare.json").is_file():
            raise FolderError(f"{out} is not empty and holds no comparison; choose another --out.")


def _write(found: Comparison, out: Path) -> None:
    html = render_comparison(found)
    with owners_alone():
        with disk_errors(out):
            out.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_json(out / "compare.json", found.summary)
        write_table(out / "arms.parquet", found.arms)
        write_table(out / "groups.parquet", found.groups)
        write_bytes(out / "report.html", html.encode())
        (out / "report.pdf").unlink(missing_ok=True)  # of another comparison
