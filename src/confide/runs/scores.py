"""Audit predictions that were made elsewhere."""

from __future__ import annotations

import hashlib
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from confide.attacks import require_inputs
from confide.audits.audit import AuditSettings
from confide.audits.result import AuditResult
from confide.runs.analysis import analyse
from confide.runs.models import cohort_table, environment
from confide.runs.predictions import Predictions, read_predictions
from confide.stores import AuditFolder, write_table


def audit_scores(
    table: Path, out: Path, *, attacks: tuple[str, ...] = ("lira", "rmia"), fdr: float = 0.05
) -> AuditResult:
    """Audit a table of predictions and write an audit folder.

    Parameters
    ----------
    table : CSV or Parquet with columns model, record, patient, member, label and logit_0 ...,
        prob_0 ... or signal; optional view and population; any other column is a group
    out : the audit folder, new or of the same table
    attacks, fdr : see :class:`confide.audits.audit.AuditSettings`

    Raises
    ------
    TableError : a table that cannot be used; names row, column and the record or patient
    ArgumentError : an unknown attack, or an fdr outside [0, 1]
    FolderError, MismatchError : `out` cannot be written, or holds something else
    """
    AuditSettings(attacks=attacks, fdr=fdr)  # refused before anything is written
    found = read_predictions(table)
    require_inputs(attacks, trace=False, population=found.population is not None)
    with table.open("rb") as file:
        fingerprint = hashlib.file_digest(file, "sha256").hexdigest()
    wanted = {"source": "scores", "fingerprint": fingerprint}

    def begin() -> dict[str, Any]:
        facts = {"task": found.cohort.task, "classes": list(found.cohort.classes)}
        state = {"models": ["pending"] * len(found.models), "model_ids": list(found.models)}
        return wanted | facts | state | environment()

    with AuditFolder.open(out, begin) as folder:
        folder.require_same(wanted)
        folder.manifest |= {
            "audit": {"attacks": list(attacks), "fdr": fdr},
            "title": table.name,
            "warnings": [*found.warnings, *_scale_warning(found.kind, attacks)],
            "guards": [random_membership(found.membership)],
        }
        if not folder.done.all():
            _store(folder, found)
            folder.manifest["models"] = ["done"] * len(found.models)
        folder.save()
        return analyse(out)


def random_membership(membership: NDArray[np.bool_]) -> dict[str, str]:
    """A guard: do patients have as many different membership columns as random draws have?

    The p-values of patients assume that membership was drawn at random for each patient.  A table
    cannot prove that; whole blocks of patients that share one column, up to exchanging in and
    out, disprove it.
    """
    n_models, n_patients = membership.shape
    relative = membership ^ membership[:1]
    n_different = len(np.unique(np.packbits(relative, axis=0), axis=1).T)
    n_in = int(np.median(membership.sum(axis=0)))
    # Half in and half out: a column and its complement count as one.  Bounded to stay a float.
    n_columns = min(comb(n_models, n_in), 10**15)
    n_possible = n_columns / 2 if 2 * n_in == n_models else float(n_columns)
    expected = -n_possible * np.expm1(n_patients * np.log1p(-1 / n_possible))
    if n_different < 0.5 * expected:
        return {
            "name": "membership",
            "status": "failed",
            "message": f"{n_patients:,} patients have only {n_different:,} different membership "
            f"columns; drawn at random there would be about {expected:,.0f}. Models differ by more "
            "than one patient's membership, so the p-values and the list of patients mean nothing.",
        }
    return {
        "name": "membership",
        "status": "unknown",
        "message": "The p-values assume that who is in which model was drawn at random, patient by "
        "patient; a table of predictions cannot show it.",
    }


def _scale_warning(kind: str, attacks: tuple[str, ...]) -> list[str]:
    read = [name for name in attacks if name.startswith("rmia")]
    if kind != "signal" or not read:
        return []
    return [
        f"{' and '.join(read)} read `signal` as the logit of the probability of the true label; "
        "on another scale their figures mean nothing."
    ]


def _store(folder: AuditFolder, found: Predictions) -> None:
    held = None
    arrays: dict[str, Any] = {"membership": found.membership, found.kind: found.values}
    if found.population is not None and found.kind == "logits":
        arrays["heldout_logits"], held = found.population
    elif found.population is not None:
        arrays["population_signal"] = found.population[0]
    write_table(folder.path / "cohort.parquet", cohort_table(found.cohort, held))
    for name, values in arrays.items():
        folder.create_array(name, values.shape, values.dtype)
        folder.array(name)[:] = values
