"""Analyse what an audit folder holds, and write its tables and its report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from confide import masks
from confide.audits.audit import AuditSettings, annotated, audit
from confide.audits.promise import accounting_guard, promised
from confide.audits.result import AuditResult
from confide.cohort import Cohort
from confide.errors import ArgumentError, FolderError
from confide.runs.canaries import canary_records, with_canaries, without_canaries
from confide.runs.looks import BLOCK, Until
from confide.runs.models import cohort_from_table
from confide.runs.stored import StoredLogits, StoredScalars, StoredSignals
from confide.stores import AuditFolder, read_table, write_bytes, write_json, write_table

_SIGNALS = ("logits", "heldout_logits", "signal", "population_signal", "trace")


def analyse(
    out: Path, *, show_ids: bool = False, show_images: bool = False, config: Path | None = None
) -> AuditResult:
    """Audit what is stored and write records, patients, groups, curves, summary and report.

    Models that are not finished are left out and named; failure of a model must not depend on who
    was in it.

    Parameters
    ----------
    out : an audit folder
    show_ids : name patients and records in the report, which are P1, R1, ... otherwise
    show_images : show images of the patients most at risk in the report
    config : the configuration of the audit, which says where the images lie

    Raises
    ------
    FolderError : fewer than four models are finished, or a stored chunk is damaged
    MissingFileError : the signals are not there
    ArgumentError : ids or images are asked of the audit of a released model, which lists nobody
    As :meth:`confide.runs.thumbnails.Pictures.of`, with `show_images`
    """
    folder = AuditFolder.read(out)
    if config is not None and not show_images:
        raise ArgumentError("A configuration is read for its images alone; add --show-images.")
    if folder.manifest.get("source") == "model":
        from confide.runs.released_analysis import analyse_model

        if show_ids or show_images:
            raise ArgumentError(
                f"{out} is the audit of a released model; its report lists no patients to show by "
                "id or image."
            )
        return analyse_model(out)
    pictures = None
    if show_images:  # before anything is computed, because it may be refused
        from confide.runs.thumbnails import Pictures

        pictures = Pictures.of(out, folder.manifest, config)
    done = folder.done
    if done.sum() < 4:
        raise FolderError(
            f"{out} holds {int(done.sum())} finished models of {len(done)}; an audit needs at "
            "least 4. Run `confide audit run` with the same --out to train the rest."
        )
    manifest = folder.manifest
    table = read_table(out / "cohort.parquet")
    cohort, heldout = cohort_from_table(table, manifest["task"], manifest["classes"])
    for name in ("membership", *_SIGNALS):
        if name == "membership" or folder.has_array(name):
            folder.check_complete(name)
    stored, population = stored_signals(folder, cohort, heldout)
    membership, canary = folder.array("membership")[:][done], canary_records(table)
    del table  # its ids and groups are those of the cohort
    real, held, patients = without_canaries(stored, membership, cohort, canary)
    trace = None
    if folder.has_array("trace"):
        ranges = StoredScalars(folder.array("trace"), done)
        trace, _, _ = without_canaries(ranges, membership, cohort, canary)
    settings, until = manifest.get("audit", {}), Until.of(manifest)
    block, looks, n_due = None, 1, len(done)
    if until is not None:
        block = masks.block_of(len(done), BLOCK)[done]
        looks, n_due = len(until.looks), until.n_due
    result = audit(
        real,
        held,
        patients,
        population=population,
        heldout=stored_heldout(folder, heldout),
        trace=trace,
        block=block,
        settings=AuditSettings(
            attacks=tuple(settings.get("attacks", ("lira", "rmia"))),
            fdr=settings.get("fdr", 0.05),
            looks=looks,
            seed=manifest.get("design", {}).get("seed", 0),
        ),
    )
    fdr = result.summary["patients"]["fdr"] / looks
    result = with_canaries(result, stored, membership, cohort, canary, fdr=fdr, block=block)
    missing = [int(i) for i in np.flatnonzero(~done[:n_due])]
    privacy = manifest.get("privacy")
    promise = () if privacy is None else (accounting_guard(result.summary["epsilon"], privacy),)
    result = annotated(
        result,
        models_missing=missing,
        guards=[*manifest.get("guards", []), *promise],
        warnings=[
            *([] if privacy is None else privacy["warnings"]),
            *([f"{len(missing)} of {n_due} models are not finished."] if missing else []),
            *manifest.get("warnings", []),
            *([] if until is None else until.warnings()),
        ],
    )
    if privacy is not None:
        result.summary["privacy"] = promised(privacy)
    if until is not None:
        result.summary["until"] = until.to_json()
    result.summary["version"] = manifest["versions"]["confide"]
    thumbnails = None if pictures is None else pictures.thumbnails(result)
    write_result(out, result, manifest, show_ids=show_ids, pictures=thumbnails)
    return result


def write_result(
    out: Path,
    result: AuditResult,
    manifest: dict[str, Any],
    *,
    show_ids: bool = False,
    pictures: Mapping[int, str] | None = None,
) -> None:
    """Write the tables, summary.json, summary.md and report.html of a result.

    A report.pdf of before, which may show what this report does not, is removed.  `show_ids` and
    `pictures` are those of :func:`confide.reports.html.render`.
    """
    from confide.reports.dpia import summary_of_audit
    from confide.reports.html import render

    (out / "report.pdf").unlink(missing_ok=True)
    title, method = manifest.get("title", "Audit"), _method(result, manifest)
    for name in ("records", "patients", "groups", "curves"):
        write_table(out / f"{name}.parquet", getattr(result, name))
    write_json(out / "summary.json", result.summary)
    text = summary_of_audit(result, title=title, method=method)
    write_bytes(out / "summary.md", text.encode())
    html = render(result, title=title, method=method, show_ids=show_ids, pictures=pictures)
    write_bytes(out / "report.html", html.encode())


def stored_signals(
    folder: AuditFolder, cohort: Cohort, heldout: Cohort | None
) -> tuple[StoredSignals | StoredScalars, NDArray[np.float64] | None]:
    done = folder.done
    if folder.has_array("signal"):
        population = None
        if folder.has_array("population_signal"):
            population = StoredScalars(folder.array("population_signal"), done)[:, :]
        return StoredScalars(folder.array("signal"), done), population
    stored = StoredSignals(folder.array("logits"), done, cohort.label, cohort.task)
    if heldout is None:
        return stored, None
    extra = StoredSignals(folder.array("heldout_logits"), done, heldout.label, heldout.task)
    return stored, extra[:, :]


def stored_heldout(
    folder: AuditFolder, heldout: Cohort | None
) -> tuple[StoredLogits, Cohort] | None:
    if heldout is None or not folder.has_array("heldout_logits"):
        return None
    return StoredLogits(folder.array("heldout_logits"), folder.done), heldout


def _method(result: AuditResult, manifest: dict[str, Any]) -> dict[str, Any]:
    """Facts for the report: what was run, with which settings and versions."""
    facts: dict[str, Any] = {
        "models analysed": result.summary["n_models"],
        "share of models that hold a patient": manifest.get("design", {}).get("fraction"),
        "seed": manifest.get("design", {}).get("seed"),
        "data fingerprint (SHA-256)": manifest.get("fingerprint"),
    }
    for block in ("data", "train"):
        for key, value in _flat(manifest.get("config", {}).get(block, {})):
            facts[f"{block}: {key}"] = value
    for i, note in enumerate(manifest.get("notes", []), start=1):
        facts[f"data: note {i}"] = note
    for name, value in manifest["versions"].items():
        facts[f"version of {name}"] = value
    return {key: value for key, value in facts.items() if value is not None}


def _flat(block: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if not isinstance(block, dict):
        return [(prefix, block)]
    pairs = []
    for key, value in block.items():
        pairs += _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return pairs
