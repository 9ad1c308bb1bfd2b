"""Analyse what an audit of a released model stored, and write its tables and its report."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confide.audits.guards import settle, voided
from confide.audits.released import audit_released
from confide.audits.result import AuditResult
from confide.audits.utility import utility
from confide.errors import FolderError
from confide.reports.dpia_released import summary_of_released
from confide.reports.released import render_released
from confide.runs.models import cohort_from_table
from confide.signals import signals as to_signals
from confide.stores import AuditFolder, read_table, write_bytes, write_json, write_table


def analyse_model(out: Path) -> AuditResult:
    """Analyse what an audit of a released model stored, and write its tables and its report.

    Raises
    ------
    FolderError : the models did not answer yet, or a stored chunk is damaged
    """
    folder = AuditFolder.read(out)
    manifest = folder.manifest
    if not folder.done.all():
        raise FolderError(
            f"{out} is not finished; run `confide audit model` with this --out again."
        )
    cohort, _ = cohort_from_table(
        read_table(out / "cohort.parquet"), manifest["task"], manifest["classes"]
    )
    for name in ("membership", "logits"):
        folder.check_complete(name)
    membership = np.asarray(folder.array("membership")[:], dtype=bool)
    logits = np.asarray(folder.array("logits")[:])
    if cohort.task == "multilabel":
        shared = np.flatnonzero(~np.isnan(logits).any(axis=(0, 1, 2)))
        logits = logits[..., shared]
        cohort = replace(
            cohort,
            label=cohort.label[:, shared],
            classes=tuple(cohort.classes[i] for i in shared),
        )
    result = audit_released(
        to_signals(logits, cohort.label, cohort.task),
        membership,
        cohort,
        seed=int(manifest.get("seed", 0)),
    )
    summary = dict(result.summary)
    outside: NDArray[np.bool_] = ~cohort.expand(membership[0])
    summary["utility"] = utility(logits[:1, outside], cohort.select(outside))
    summary["guards"] = settle(
        [*manifest.get("guards", []), *summary["guards"]], manifest.get("accepted", [])
    )
    summary["warnings"] = [*manifest.get("warnings", []), *summary["warnings"]]
    summary["models"] = list(manifest.get("model_ids", []))
    summary["version"] = manifest["versions"]["confide"]
    why = _unclaimed(summary["guards"])
    if why:
        summary["verdict"] = {"status": "not_established", "text": why}
    result = replace(result, summary=summary)
    _write(out, result, manifest)
    return result


def _unclaimed(guards: Sequence[Mapping[str, Any]]) -> str | None:
    """Why nothing is claimed of the model, as text of a verdict; None where the guards allow it.

    To accept a guard by name is to read the figures knowing what it found; that stays true.
    """
    accepted = {str(g["name"]): str(g["message"]) for g in guards if g["status"] == "accepted"}
    said = []
    if "blind" in accepted:
        auc = re.search(r"AUC [\d.]+ \([\d.]+ to [\d.]+\)", accepted["blind"])
        said.append(
            "Members and others can be told apart without the model"
            f"{f', {auc[0]}' if auc else ''}, so the figures do not separate the model's memory "
            "from the source of the records."
        )
    if "recipe" in accepted:
        said.append(
            "The target and its references were not trained alike, so the figures do not separate "
            "the model's memory from that difference."
        )
    failed = voided(guards)
    if not said:
        return failed
    claim = failed or "No claim is made."
    return f"{' '.join(said)} This was accepted by name. {claim}"


def _write(out: Path, result: AuditResult, manifest: dict[str, Any]) -> None:
    (out / "report.pdf").unlink(missing_ok=True)
    for name in ("records", "patients", "groups", "curves"):
        table: pd.DataFrame = getattr(result, name)
        write_table(out / f"{name}.parquet", table)
    write_json(out / "summary.json", result.summary)
    facts: dict[str, Any] = {
        "target": manifest["target"]["name"],
        "references": [one["name"] for one in manifest["references"]],
        "labels": list(manifest["classes"]),
        "seed": manifest["seed"],
        "data fingerprint (SHA-256)": manifest["fingerprint"],
        "target (SHA-256)": manifest["target"]["file"],
        "notes": manifest.get("notes"),
        "versions": manifest["versions"],
    }
    title = manifest.get("title", "A released model")
    method = {key: value for key, value in facts.items() if value}
    text = summary_of_released(result, title=title, method=method)
    write_bytes(out / "summary.md", text.encode())
    html = render_released(result, title=title, method=method)
    write_bytes(out / "report.html", html.encode())
