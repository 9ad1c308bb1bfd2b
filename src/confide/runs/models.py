"""Groups of models: trained, checked, stored, and said to be finished."""

from __future__ import annotations

import hashlib
import platform
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confide.cohort import Cohort
from confide.errors import FolderError, SignalError, TrainingError
from confide.stores import AuditFolder
from confide.training.base import Fit, Trainer

Progress = Callable[[int, int], None]
"""Called with (models finished, models in all)."""


def silent(done: int, total: int) -> None:
    """No progress shown."""


def groups_of(folder: AuditFolder, first: int, last: int) -> Iterator[slice]:
    """The unfinished of the models first to last - 1, in the groups that train together.

    Groups are as at the beginning: a model's rounding may depend on the size of its stack.
    """
    size = int(folder.manifest["models_at_once"])
    for start in range(first, last, size):
        group = slice(start, min(start + size, last))
        if not folder.done[group].all():
            yield group


def fit_group(
    trainer: Trainer, members: NDArray[np.bool_], folder: AuditFolder, group: slice
) -> Fit:
    """Train a group of models; an error says which they are.

    Parameters
    ----------
    members : (n, n_records) bool, the training records of each model of the group
    """
    trainer.models_at_once = int(folder.manifest["models_at_once"])
    try:
        return trainer.fit_whole(members, folder.manifest["seeds"][group])
    except TrainingError as error:
        one = group.stop - group.start == 1
        which = f"Model {group.start}" if one else f"Models {group.start} to {group.stop - 1}"
        raise TrainingError(
            f"{which}: {error} Finished models are safe in {folder.path}; run the same command "
            "again to resume."
        ) from error


def mark_done(folder: AuditFolder, group: slice, epochs: list[int] | None) -> None:
    """Say in the manifest that the models of a group are finished; their logits are stored."""
    if epochs is not None:
        total = len(folder.manifest["models"])
        folder.manifest.setdefault("epochs", [None] * total)[group] = epochs
    folder.manifest["models"][group] = ["done"] * (group.stop - group.start)
    folder.save()


def store_fit(
    folder: AuditFolder,
    group: slice,
    found: Fit,
    cohort: Cohort,
    heldout: Cohort | None,
) -> None:
    """Check what a trainer returned, and write it into signals.zarr."""
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


def begin_again(folder: AuditFolder, lost: str) -> None:
    """Say in the manifest that no model is finished: an array of that name was lost."""
    folder.manifest["models"] = ["pending"] * len(folder.manifest["models"])
    if isinstance(until := folder.manifest.get("until"), dict):
        folder.manifest["until"] = until | {"stopped_at": None, "why": None}
    folder.save()
    warnings.warn(
        f"{folder.signals}/{lost} is missing; all models are trained again.",
        RuntimeWarning,
        stacklevel=2,
    )


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
