"""Erase what an audit folder knows about who was in a training set; keep its report.

Signals and masks are a membership list, and so are the seeds that the masks were drawn from.  Of a
released model, the tables are one too: they say who was a member, and what was answered on whom.
The manifest is changed first, so that from then on no command takes the folder for an audit that
it could resume; a kill at any instant leaves a folder that the same call finishes.
"""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import TemplateError

from confide._objects import in_store
from confide.audits.result import AuditResult
from confide.errors import FolderError, MissingFileError
from confide.reports.dpia_released import summary_of_released
from confide.reports.released import render_released
from confide.runs.analysis import write_result
from confide.stores import (
    AuditFolder,
    alone,
    disk_errors,
    owners_alone,
    read_json,
    read_table,
    refuse_claims,
    write_bytes,
    write_json,
    write_table,
)

TABLES = ("records", "patients", "groups", "curves")
REMOVED = ("signals.zarr", "cohort.parquet", "report.pdf")
"""Signals and masks; the table that says who was held out of all models; and a print of the report,
which names the seed."""

_KEPT = (
    *("manifest.json", "summary.json", "summary.md", "report.html"),
    *(f"{name}.parquet" for name in TABLES),
)
_BEGUN, _DONE = "erasing since ", "erased on "
_OF_PEOPLE = ("records.parquet", "patients.parquet")
_PLAIN = ("record", "patient", "n_records")
"""Columns of these that stay after the audit of a released model, beside groups."""

_MODEL_FILES = (".pt2", ".pt", ".onnx", ".skops")
_DISKS = (
    "Files are removed, not overwritten: on solid-state disks, in snapshots and in backups their "
    "content can outlast this. Where that matters, keep audits on an encrypted disk."
)
_VERSIONS = (
    "The objects of the signals were deleted. Where their bucket keeps versions, or has copies, "
    "those outlast this: whoever keeps the bucket has to delete them."
)
_IDS = (
    "records.parquet and patients.parquet keep the ids of patients. They say who is at risk, not "
    "who was in which model."
)
_REDRAWN = (
    "report.html and summary.md were drawn again from the tables, without ids and images of "
    "patients, whatever they showed before. Copies of the earlier page lie where "
    "they were."
)
_OF_RUN = (
    "Who was in which model can be drawn again from `audit: seed` of the configuration, 0 unless "
    "it says otherwise, and the data: keep the configuration as you would have kept the signals."
)
_OF_OTHERS = "The predictions that were read lie where they were, and tell the same as the signals."
_OF_MODEL = (
    "records.parquet and patients.parquet keep the ids and groups of all whom the model was asked "
    "about, members and non-members together, sorted by id. Ids or groups that give membership "
    "away by themselves still do.",
    "The curves and the figures stay. Whoever holds all records with their labels and can ask the "
    "same models can put the records in the order of an attack, and read off the curves who was a "
    "member: the fewer the patients, the more exactly.",
    "The models, the table that says who was a member and any tables of predictions lie where "
    "they were.",
)


def erase_signals(out: Path) -> dict[str, Any]:
    """Remove signals, masks and seeds from an audit folder; keep its tables and its report.

    Of a released model, records.parquet and patients.parquet keep ids and groups alone.

    Parameters
    ----------
    out : the audit folder; one that was erased before, or whose erasing was interrupted, too

    Returns
    -------
    erased : the date (UTC) on which it was erased
    removed, kept : names in the folder; signals in an object store have a URL
    untouched : names that no audit writes, left as they are
    notes : what erasing does not do

    Raises
    ------
    StoreError : the object store that holds the signals cannot be used
    MissingFileError, FolderError : no audit folder, in use by another process, or what has to go
        is a link
    """
    _manifest(out)  # before a lock is left in a folder that is no audit
    with owners_alone(), alone(out / ".lock", out), disk_errors(out):
        refuse_claims(out)
        return _erase(out)


def _erase(out: Path) -> dict[str, Any]:
    manifest = _manifest(out)
    source = manifest.get("source")
    of_people = _OF_PEOPLE if source == "model" else ()
    for name in (*REMOVED, *of_people):
        if (out / name).is_symlink():
            raise FolderError(
                f"{out / name} is a link; erase what it points to and remove the link, then run "
                "this again."
            )
    state, objects = str(manifest["format"]), in_store(manifest)
    if objects is not None and not state.startswith(_DONE):
        objects.claim(begun=True)  # where erasing was interrupted, too: another store has no id
    if not state.startswith((_BEGUN, _DONE)):
        manifest = without_seeds(manifest)
        manifest.pop("cohort_sha256", None)  # it covers who was held out
        if source is not None:
            # It covers a membership list: a guess could be checked against it.
            manifest.pop("fingerprint", None)
        if source == "model":
            manifest = _without_members(manifest)
        state = f"{_BEGUN}{datetime.now(UTC).date().isoformat()}"
        write_json(out / "manifest.json", manifest | {"format": state})
    removed = [name for name in REMOVED if (out / name).exists()]
    for leftover in out.rglob("*.partial"):
        leftover.unlink(missing_ok=True)
    if "signals.zarr" in removed:
        shutil.rmtree(out / "signals.zarr")
    if objects is not None and objects.is_ours():
        objects.remove()
        removed.append(str(objects))
    for name in ("cohort.parquet", "report.pdf"):
        (out / name).unlink(missing_ok=True)
    date = state.removeprefix(_BEGUN).removeprefix(_DONE)
    if not state.startswith(_DONE):
        removed += [name for name in of_people if not _only_ids(out / name)]
        if source == "model" and not _only_figures(out / "summary.json"):
            removed.append("summary.json")
        if not _redraw(out, manifest, date):
            # One names the seed, and both may quote it.
            drawn = [name for name in ("report.html", "summary.md") if (out / name).exists()]
            for name in drawn:
                (out / name).unlink()
            removed += drawn
        write_json(out / "manifest.json", manifest | {"format": f"{_DONE}{date}"})
    _flush(out)
    if objects is not None and objects.is_ours():
        objects.release()
    names = sorted(p.name for p in out.iterdir() if p.name != ".lock")
    versions = [_VERSIONS] * (objects is not None)
    redrawn = [_REDRAWN] * (source != "model" and (out / "report.html").exists())
    return {
        "erased": date,
        "removed": removed,
        "kept": [name for name in names if name in _KEPT],
        "untouched": [name for name in names if name not in _KEPT],
        "notes": [_DISKS, *versions, *redrawn, *_notes(source)],
    }


def erased_on(out: Path) -> str | None:
    """The date (UTC) on which an audit folder was erased; None of any other folder."""
    if not (out / "manifest.json").is_file():
        return None
    found = read_json(out / "manifest.json")
    state = str(found.get("format")) if isinstance(found, dict) else ""
    return state.removeprefix(_DONE) if state.startswith(_DONE) else None


def _notes(source: Any) -> tuple[str, ...]:
    if source == "model":
        return _OF_MODEL
    return (_IDS, _OF_RUN if source is None else _OF_OTHERS)


def without_seeds(value: Any) -> Any:
    """A copy of plain JSON without any key that is a seed, at any depth."""
    if isinstance(value, dict):
        return {key: without_seeds(v) for key, v in value.items() if not _is_seed(str(key))}
    if isinstance(value, list):
        return [without_seeds(v) for v in value]
    return value


def _is_seed(key: str) -> bool:
    return key in ("seed", "seeds") or key.endswith(("_seed", "_seeds"))


def _without_members(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest of a released model without anything that a guess could be checked against.

    Digests of the members go, and those of files that may be tables; what was stated of the
    training may name a seed or a list.
    """

    def bare(model: Any) -> dict[str, Any]:
        if not isinstance(model, dict):
            return {}
        gone = {"members", "recipe"}
        if not str(model.get("name")).endswith(_MODEL_FILES):
            gone.add("file")
        return {key: value for key, value in model.items() if key not in gone}

    return manifest | {
        "target": bare(manifest.get("target")),
        "references": [bare(one) for one in manifest.get("references", [])],
        "guards": _without_recipes(manifest.get("guards", [])),
    }


def _without_recipes(guards: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Guards, where one that quotes the seeds of recipes says only that they differ."""
    text = "Models were not trained alike. What differed was erased, for a seed was among it."
    return [
        guard | {"message": text}
        if guard.get("name") == "recipe" and "seed" in str(guard.get("message")).lower()
        else guard
        for guard in guards
    ]


def _only_ids(path: Path) -> bool:
    """Leave ids and groups alone in a table of people; False where it was damaged, and removed."""
    if not path.exists():
        return True
    try:
        table = read_table(path)
        ids = [name for name in ("patient", "record") if name in table.columns]
        # Members may have been listed first.
        table = table.sort_values(ids, ignore_index=True)
    except (FolderError, TypeError, ValueError):
        path.unlink()
        return False
    names = [str(c) for c in table.columns if c in _PLAIN or str(c).startswith("group_")]
    write_table(path, pd.DataFrame({name: table[name].to_numpy() for name in names}))
    return True


def _only_figures(path: Path) -> bool:
    """Take seeds out of a summary; False where it was damaged, and removed."""
    if not path.exists():
        return True
    try:
        summary = without_seeds(read_json(path))
        guards = _without_recipes(summary["guards"])
    except (FolderError, LookupError, TypeError, AttributeError):
        path.unlink()
        return False
    write_json(path, summary | {"guards": guards})
    return True


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
        if manifest.get("source") == "model":
            _write_released(out, result, manifest)
        else:
            write_result(out, result, manifest)
    except (TemplateError, LookupError, TypeError, ValueError, AttributeError):
        return False  # tables of another version: what has to go, goes all the same
    return True


def _write_released(out: Path, result: AuditResult, manifest: dict[str, Any]) -> None:
    """Summary and report of a released model, from what is left in the manifest."""
    facts: dict[str, Any] = {
        "target": manifest["target"]["name"],
        "references": [one["name"] for one in manifest["references"]],
        "labels": list(manifest["classes"]),
        "target (SHA-256)": manifest["target"].get("file"),
        "notes": manifest.get("notes"),
        "versions": manifest["versions"],
    }
    title = manifest.get("title", "A released model")
    method = {key: value for key, value in facts.items() if value}
    html = render_released(result, title=title, method=method)
    text = summary_of_released(result, title=title, method=method)
    write_json(out / "summary.json", result.summary)
    write_bytes(out / "summary.md", text.encode())
    write_bytes(out / "report.html", html.encode())


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
