"""Erase what an audit folder knows about who was in a training set; keep its report.

Signals and masks are a membership list, and so are the seeds that the masks were drawn from.  The
manifest is changed first, so that from then on no command takes the folder for an audit that it
could resume; a kill at any instant leaves a folder that the same call finishes.
"""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from confide.audits.result import AuditResult
from confide.errors import FolderError, MissingFileError
from confide.runs.analysis import write_result
from confide.stores import AuditFolder, alone, disk_errors, read_json, read_table, write_json

TABLES = ("records", "patients", "groups", "curves")
REMOVED = ("signals.zarr", "cohort.parquet")
"""Signals and masks; and the table that says who was held out of all models."""

_KEPT = ("manifest.json", "summary.json", "report.html", *(f"{name}.parquet" for name in TABLES))
_BEGUN, _DONE = "erasing since ", "erased on "
_NOTES = (
    "Files are removed, not overwritten: on solid-state disks, in snapshots and in backups their "
    "content can outlast this. Where that matters, keep audits on an encrypted disk.",
    "records.parquet and patients.parquet keep the ids of patients. They say who is at risk, not "
    "who was in which model.",
)
_OF_RUN = (
    "Who was in which model can be drawn again from `audit: seed` of the configuration, 0 unless "
    "it says otherwise, and the data: keep the configuration as you would have kept the signals."
)
_OF_OTHERS = "The predictions that were read lie where they were, and tell the same as the signals."


def erase_signals(out: Path) -> dict[str, Any]:
    """Remove signals, masks and seeds from an audit folder; keep its tables and its report.

    Parameters
    ----------
    out : the audit folder; one that was erased before, or whose erasing was interrupted, too

    Returns
    -------
    erased : the date (UTC) on which it was erased
    removed, kept : names in the folder
    untouched : names that no audit writes, left as they are
    notes : what erasing does not do

    Raises
    ------
    MissingFileError, FolderError : no audit folder, in use by another process, or the signals are
        a link
    """
    _manifest(out)  # before a lock is left in a folder that is no audit
    before = os.umask(0o077)
    try:
        with alone(out / ".lock", out), disk_errors(out):
            return _erase(out)
    finally:
        os.umask(before)


def _erase(out: Path) -> dict[str, Any]:
    manifest = _manifest(out)
    for name in REMOVED:
        if (out / name).is_symlink():
            raise FolderError(
                f"{out / name} is a link; erase what it points to and remove the link, then run "
                "this again."
            )
    source = manifest.get("source")
    state = str(manifest["format"])
    if not state.startswith((_BEGUN, _DONE)):
        manifest = without_seeds(manifest)
        if source is not None:
            # It covers a membership list: a guess could be checked against it.
            manifest.pop("fingerprint", None)
        state = f"{_BEGUN}{datetime.now(UTC).date().isoformat()}"
        write_json(out / "manifest.json", manifest | {"format": state})
    removed = [name for name in REMOVED if (out / name).exists()]
    for leftover in out.rglob("*.partial"):
        leftover.unlink(missing_ok=True)
    if "signals.zarr" in removed:
        shutil.rmtree(out / "signals.zarr")
    (out / "cohort.parquet").unlink(missing_ok=True)
    date = state.removeprefix(_BEGUN).removeprefix(_DONE)
    if not state.startswith(_DONE):
        if not _redraw(out, manifest, date) and (out / "report.html").exists():
            (out / "report.html").unlink()  # it names the seed
            removed.append("report.html")
        write_json(out / "manifest.json", manifest | {"format": f"{_DONE}{date}"})
    _flush(out)
    names = sorted(p.name for p in out.iterdir() if p.name != ".lock")
    return {
        "erased": date,
        "removed": removed,
        "kept": [name for name in names if name in _KEPT],
        "untouched": [name for name in names if name not in _KEPT],
        "notes": [*_NOTES, _OF_RUN if source is None else _OF_OTHERS],
    }


def without_seeds(value: Any) -> Any:
    """A copy of plain JSON without any key that is a seed, at any depth."""
    if isinstance(value, dict):
        return {key: without_seeds(v) for key, v in value.items() if not _is_seed(str(key))}
    if isinstance(value, list):
        return [without_seeds(v) for v in value]
    return value


def _is_seed(key: str) -> bool:
    return key in ("seed", "seeds") or key.endswith(("_seed", "_seeds"))


def _manifest(out: Path) -> dict[str, Any]:
    """The manifest of an audit, erased or not."""
    if not out.is_dir():
        raise MissingFileError(f"There is no audit folder at {out}.")
    found = read_json(out / "manifest.json")
    if isinstance(found, dict) and str(found.get("format")).startswith((_BEGUN, _DONE)):
        return found
    return AuditFolder.read(out).manifest


def _redraw(out: Path, manifest: dict[str, Any], date: str) -> bool:
    """Write summary and report again, without seeds; False where they cannot be drawn."""
    result = _stored_result(out, date)
    if result is None:
        return False
    try:
        write_result(out, result, manifest)
    except (TemplateError, LookupError, TypeError, ValueError, AttributeError):
        return False  # tables of another version: what has to go, goes all the same
    return True


def _stored_result(out: Path, date: str) -> AuditResult | None:
    """What the audit found, or None where that is not whole."""
    try:
        tables = {name: read_table(out / f"{name}.parquet") for name in TABLES}
        summary = without_seeds(read_json(out / "summary.json"))
    except (MissingFileError, FolderError):
        return None
    if not isinstance(summary, dict):
        return None
    if "erased" not in summary:
        summary["erased"] = date
        summary["warnings"] = [
            *summary.get("warnings", []),
            f"The signals and the membership of this audit were erased on {date}; it cannot be "
            "analysed again.",
        ]
    return AuditResult(summary=summary, **tables)


def _flush(path: Path) -> None:
    """Have the removal of files reach the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
