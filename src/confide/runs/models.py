"""Train the models of an audit into a folder; run again to resume."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confide import _check, masks
from confide.audits.guards import refuse_shared_patients
from confide.cohort import Cohort
from confide.errors import FolderError, SignalError, TrainingError
from confide.runs.looks import BLOCK, Rule, Until, planned, train_until
from confide.stores import AuditFolder, write_table
from confide.training.base import Fit, Trainer

Progress = Callable[[int, int], None]
"""Called with (models finished, models in all)."""


def silent(done: int, total: int) -> None:
    """No progress shown."""


def train_models(
    cohort: Cohort,
    trainer: Trainer,
    out: Path,
    *,
    n_models: int = 64,
    fraction: float = 0.5,
    seed: int = 0,
    heldout: Cohort | None = None,
    config: dict[str, Any] | None = None,
    fingerprint: str | None = None,
    canary: NDArray[np.bool_] | None = None,
    until: Rule | None = None,
    fdr: float = 0.05,
    progress: Progress = silent,
    about: dict[str, Any] | None = None,
) -> None:
    """Train models on random halves of the patients and store their logits.

    A kill at any instant loses at most the models in training; the same call resumes and gives
    the same numbers as an undisturbed run.

    Parameters
    ----------
    cohort : the audited records
    trainer : what trains; see :class:`confide.training.base.Trainer`
    out : the audit folder
    n_models, fraction, seed : the design; see :func:`confide.masks.balanced`.  With `until`
        the most models, a multiple of 16
    heldout : records that no model is trained on; the trainer returns their logits after those of
        `cohort`
    config : what changes the answer, kept in the manifest and compared on resume
    fingerprint : of the data; computed from the cohort when not given
    canary : (n_records,) bool, the records of `cohort` that were planted, if any
    until : stop early, when this rule says that it is enough; see :mod:`confide.runs.looks`
    fdr : of the list of patients, which `until` looks at; that of the first call counts
    progress : called after each finished group of models
    about : more facts for the manifest, not compared; those of the last call count

    Raises
    ------
    ArgumentError : a design that cannot be drawn
    MismatchError : the folder was begun with another configuration or other data
    TrainingError, SignalError : a model could not be trained; what was finished stays
    FolderError : the folder is in use or cannot be written
    """
    _check.at_least(4, n_models=n_models)
    if heldout is not None:
        refuse_shared_patients(cohort, heldout)
    wanted: dict[str, Any] = {
        # In this order they are compared; what the trainer says of itself may follow from the rest.
        "config": config or {},
        "design": {"n_models": n_models, "fraction": fraction, "seed": seed},
        "fingerprint": fingerprint or cohort_fingerprint(cohort, heldout),
        "trainer": trainer.describe(),
    }

    if canary is not None and canary.any():
        wanted["design"] |= {"canaries": len(np.unique(cohort.patient_index[canary]))}
    block, looks = None, {}
    if until is not None:
        block = BLOCK
        wanted["design"] |= {"block": block, "until": until.text}
        looks["until"] = Until(rule=until.text, looks=planned(n_models), fdr=fdr).to_json()
    membership = masks.balanced(
        n_models, cohort.n_patients, fraction=fraction, seed=seed, block=block
    )

    def begin() -> dict[str, Any]:
        return (
            wanted
            | {"models_at_once": trainer.models_at_once, "models": ["pending"] * n_models}
            | environment()
            | {"task": cohort.task, "classes": list(cohort.classes)}
            | {"seeds": model_seeds(seed, n_models)}
            | looks
        )

    with AuditFolder.open(out, begin) as folder:
        # Before the rest of the design, which follows from it.
        stored = folder.manifest.get("design", {})
        folder.require_same({"design": stored | {"until": wanted["design"].get("until")}})
        folder.require_same(wanted)
        folder.manifest |= about or {}
        folder.save()
        if not (out / "cohort.parquet").exists():
            write_table(out / "cohort.parquet", cohort_table(cohort, heldout, canary))
        if not folder.has_array("membership"):
            folder.create_array("membership", membership.shape, np.bool_)
        if not folder.done.any():
            folder.array("membership")[:] = membership
        train = partial(_train_pending, folder, cohort, heldout, trainer, membership, progress)
        if until is None:
            train(0, n_models)
        else:
            train_until(folder, cohort, canary, train)


def _train_pending(
    folder: AuditFolder,
    cohort: Cohort,
    heldout: Cohort | None,
    trainer: Trainer,
    membership: NDArray[np.bool_],
    progress: Progress,
    first: int,
    last: int,
) -> None:
    n_models = len(membership)
    # Groups as at the beginning: a model's rounding may depend on the size of its stack.
    size = int(folder.manifest["models_at_once"])
    trainer.models_at_once = size
    progress(int(folder.done.sum()), n_models)
    for start in range(first, last, size):
        group = slice(start, min(start + size, last))
        if folder.done[group].all():
            continue
        members = cohort.expand(membership[group])
        try:
            found = trainer.fit_whole(members, folder.manifest["seeds"][group])
        except TrainingError as error:
            one = group.stop - group.start == 1
            which = f"Model {group.start}" if one else f"Models {group.start} to {group.stop - 1}"
            raise TrainingError(
                f"{which}: {error} Finished models are safe in "
                f"{folder.path}; run the same command again to resume."
            ) from error
        _write_group(folder, group, found, cohort, heldout)
        progress(int(folder.done.sum()), n_models)


def _write_group(
    folder: AuditFolder,
    group: slice,
    found: Fit,
    cohort: Cohort,
    heldout: Cohort | None,
) -> None:
    logits, trace = found.logits, found.trace
    n, extra = cohort.n_records, 0 if heldout is None else heldout.n_records
    if logits.ndim != 4 or logits.shape[:2] != (group.stop - group.start, n + extra):
        raise TrainingError(
            f"The trainer returned logits of shape {logits.shape}; expected "
            f"({group.stop - group.start}, {n + extra}, n_views, n_classes)."
        )
    expected = 1 if cohort.task == "binary" else len(cohort.classes)
    if logits.shape[3] != expected:
        raise TrainingError(
            f"The trainer returned {logits.shape[3]} logits a record; a {cohort.task} task has "
            f"{expected}."
        )
    finite = np.isfinite(logits)
    if not finite.all():
        model, record = (int(i) for i in np.argwhere(~finite)[0][:2])
        name = cohort.record[record] if record < n else heldout.record[record - n]  # type: ignore[union-attr]
        raise SignalError(
            f"Model {group.start + model} gives record {name} a logit that is not finite. Did the "
            "training diverge? Try a smaller learning rate, or mend your function, with another "
            "folder."
        )
    total = len(folder.manifest["models"])
    parts = {"logits": logits[:, :n]} | ({"heldout_logits": logits[:, n:]} if extra else {})
    if trace is not None:
        if trace.shape != (group.stop - group.start, n):
            raise TrainingError(
                f"The trainer returned ranges of loss traces of shape {trace.shape}; expected "
                f"({group.stop - group.start}, {n})."
            )
        parts["trace"] = trace
    for name, part in parts.items():
        if not folder.has_array(name):
            folder.create_array(name, (total, *part.shape[1:]), np.float32)
        array = folder.array(name)
        if array.shape != (total, *part.shape[1:]):
            raise FolderError(f"{folder.path}: stored {name} have shape {array.shape}.")
        array[group] = part
    if found.epochs is not None:
        folder.manifest.setdefault("epochs", [None] * total)[group] = found.epochs.tolist()
    folder.manifest["models"][group] = ["done"] * (group.stop - group.start)
    folder.save()


def model_seeds(seed: int, n_models: int) -> list[int]:
    """One seed a model, apart from the stream of the masks; the same for any number of models."""
    children = np.random.SeedSequence(seed, spawn_key=(1,)).spawn(n_models)
    return [int(child.generate_state(1, np.uint64)[0] >> 1) for child in children]


def environment() -> dict[str, Any]:
    """Versions that made the numbers."""
    packages = ("confide", "numpy", "scipy", "torch")
    return {
        "versions": {"python": platform.python_version()} | {p: version(p) for p in packages},
        "machine": platform.machine(),
    }


def cohort_table(
    cohort: Cohort, heldout: Cohort | None, canary: NDArray[np.bool_] | None = None
) -> pd.DataFrame:
    """Audited records, then held-out ones, as one table; `canary` marks planted ones."""
    parts = [_cohort_rows(cohort).assign(heldout=False)]
    if heldout is not None:
        parts.append(_cohort_rows(heldout).assign(heldout=True))
    table = pd.concat(parts, ignore_index=True)
    if canary is not None and canary.any():
        table["canary"] = np.concatenate([canary, np.zeros(len(table) - len(canary), bool)])
    return table


def _cohort_rows(cohort: Cohort) -> pd.DataFrame:
    labels = (
        {f"label_{i}": cohort.label[:, i] for i in range(len(cohort.classes))}
        if cohort.task == "multilabel"
        else {"label": cohort.label}
    )
    groups = {f"group_{name}": cohort.groups[name].to_numpy() for name in cohort.groups.columns}
    return pd.DataFrame({"record": cohort.record, "patient": cohort.patient} | labels | groups)


def cohort_from_table(
    table: pd.DataFrame, task: Any, classes: list[str]
) -> tuple[Cohort, Cohort | None]:
    """The inverse of :func:`cohort_table`."""

    def rows(part: pd.DataFrame) -> Cohort:
        names = [str(c) for c in part.columns if str(c).startswith("group_")]
        label = (
            part[[f"label_{i}" for i in range(len(classes))]].to_numpy(dtype=np.float64)
            if task == "multilabel"
            else part["label"].to_numpy(dtype=np.int64)
        )
        return Cohort(
            record=part["record"].to_numpy(),
            patient=part["patient"].to_numpy(),
            label=label,
            task=task,
            classes=tuple(classes),
            groups=part[names].rename(columns=lambda c: c.removeprefix("group_")),
        )

    out = table["heldout"].to_numpy(dtype=bool)
    audited = rows(table[~out].reset_index(drop=True))
    return audited, rows(table[out].reset_index(drop=True)) if out.any() else None


def cohort_fingerprint(cohort: Cohort, heldout: Cohort | None) -> str:
    """SHA-256 of records, patients, labels and groups, for trainers that hold their own inputs."""
    table = cohort_table(cohort, heldout)
    digest = hashlib.sha256(repr([cohort.task, cohort.classes, *table.columns]).encode())
    for _, column in table.items():
        digest.update("\x1f".join(map(str, column.tolist())).encode())
    return digest.hexdigest()
