"""Analyse what an audit folder holds, and write its tables and its report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from confide.audits.audit import AuditSettings, annotated, audit
from confide.audits.result import AuditResult
from confide.cohort import Cohort, Task
from confide.errors import FolderError
from confide.runs.models import cohort_from_table
from confide.signals import signals as to_signals
from confide.stores import AuditFolder, read_table, write_bytes, write_json, write_table

_SIGNALS = ("logits", "heldout_logits", "signal", "population_signal")


class StoredSignals:
    """Signals of the finished models, made from stored logits as they are sliced.

    Has the shape of an array (n_models, n_records, n_views[, n_labels]) and only ever holds the
    slice that is asked for.
    """

    def __init__(
        self, logits: Any, models: NDArray[np.bool_], label: NDArray[Any], task: Task
    ) -> None:
        self._logits, self._models, self._label, self._task = logits, models, label, task
        labels = logits.shape[3:] if task == "multilabel" else ()
        self.shape: tuple[int, ...] = (int(models.sum()), *logits.shape[1:3], *labels)

    def __getitem__(self, key: Any) -> NDArray[np.float64]:
        """``signals[:, a:b]``: all finished models, some records."""
        models, records = key
        logits = self._logits[:, records][self._models][models]
        return to_signals(logits, self._label[records], self._task)


class StoredScalars:
    """Signals that were given ready-made: (n_models, n_records, n_views)."""

    def __init__(self, values: Any, models: NDArray[np.bool_]) -> None:
        self._values, self._models = values, models
        self.shape: tuple[int, ...] = (int(models.sum()), *values.shape[1:])

    def __getitem__(self, key: Any) -> NDArray[np.float64]:
        """``signals[:, a:b]``: all finished models, some records."""
        models, records = key
        return np.asarray(self._values[:, records], dtype=np.float64)[self._models][models]


def analyse(out: Path) -> AuditResult:
    """Audit what is stored and write records, patients, groups, curves, summary and report.

    Models that are not finished are left out and named; failure of a model must not depend on who
    was in it.

    Raises
    ------
    FolderError : fewer than four models are finished, or a stored chunk is damaged
    MissingFileError : the signals are not there
    """
    folder = AuditFolder.read(out)
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
    stored, population = _signals(folder, cohort, heldout)
    settings = manifest.get("audit", {})
    result = audit(
        stored,
        folder.array("membership")[:][done],
        cohort,
        population=population,
        heldout=_heldout(folder, heldout),
        settings=AuditSettings(
            attacks=tuple(settings.get("attacks", ("lira", "rmia"))),
            fdr=settings.get("fdr", 0.05),
            seed=manifest.get("design", {}).get("seed", 0),
        ),
    )
    missing = [int(i) for i in np.flatnonzero(~done)]
    result = annotated(
        result,
        models_missing=missing,
        guards=manifest.get("guards", []),
        warnings=[
            *([f"{len(missing)} of {len(done)} models are not finished."] if missing else []),
            *manifest.get("warnings", []),
        ],
    )
    result.summary["version"] = manifest["versions"]["confide"]
    write_result(out, result, manifest)
    return result


def write_result(out: Path, result: AuditResult, manifest: dict[str, Any]) -> None:
    """Write the tables, summary.json and report.html of a result."""
    from confide.reports.html import render

    for name in ("records", "patients", "groups", "curves"):
        write_table(out / f"{name}.parquet", getattr(result, name))
    write_json(out / "summary.json", result.summary)
    html = render(result, title=manifest.get("title", "Audit"), method=_method(result, manifest))
    write_bytes(out / "report.html", html.encode())


def _signals(
    folder: AuditFolder, cohort: Cohort, heldout: Cohort | None
) -> tuple[StoredSignals | StoredScalars, NDArray[np.float64] | None]:
    done = folder.done
    if folder.has_array("signal"):
        population = None
        if folder.has_array("population_signal"):
            population = np.asarray(folder.array("population_signal")[:], dtype=np.float64)[done]
        return StoredScalars(folder.array("signal"), done), population
    stored = StoredSignals(folder.array("logits"), done, cohort.label, cohort.task)
    if heldout is None:
        return stored, None
    extra = StoredSignals(folder.array("heldout_logits"), done, heldout.label, heldout.task)
    return stored, extra[:, :]


def _heldout(folder: AuditFolder, heldout: Cohort | None) -> tuple[NDArray[Any], Cohort] | None:
    if heldout is None or not folder.has_array("heldout_logits"):
        return None
    return folder.array("heldout_logits")[:][folder.done], heldout


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
