"""Audit a log directory of leakoscope or med_leak: many runs, and who was in which."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confide._tables import group_columns, plain, read_table, require_columns
from confide.audits.audit import AuditSettings
from confide.audits.guards import check_accepted, recipe_guard, settle
from confide.audits.result import AuditResult
from confide.cohort import Cohort, Task
from confide.errors import MissingFileError, SignalError, TableError
from confide.runs.analysis import analyse
from confide.runs.logdir_files import (
    LoggedRun,
    logits_of,
    mapped,
    read_run,
    run_folders,
    scan,
)
from confide.runs.logdir_guards import drawn_as_published, order_guard, recipe_of
from confide.runs.models import Progress, cohort_table, environment, silent
from confide.runs.scores import random_membership
from confide.stores import AuditFolder, write_table

_MAX_NAMED = 20


@dataclass(frozen=True, kw_only=True, eq=False)
class _Runs:
    """What was found in a log directory, without the logits themselves."""

    names: tuple[str, ...]
    membership: NDArray[np.bool_]
    label: NDArray[np.float64]
    test_label: NDArray[np.float64] | None
    n_views: int
    dtype: np.dtype[Any]
    info: dict[str, Any]
    recipes: dict[str, dict[str, Any]]
    fingerprint: str
    warnings: tuple[str, ...]


def audit_logdir(
    logdir: Path,
    records: Path,
    out: Path,
    *,
    patient: str,
    groups: Sequence[str] = (),
    attacks: tuple[str, ...] = ("lira", "rmia"),
    fdr: float = 0.05,
    skip_incomplete: bool = False,
    accept: Sequence[str] = (),
    progress: Progress = silent,
) -> AuditResult:
    """Audit the runs of a log directory and write an audit folder.

    Parameters
    ----------
    logdir : the directory; in each folder of it ``train_logits.npy`` (n_records[, n_views],
        n_classes), ``train_labels.npy`` (n_records, n_classes) one- or multi-hot, NaN for unknown,
        and ``subset_mask.npy`` (n_patients,) bool; ``test_logits.npy``, ``test_labels.npy`` and
        ``info.json`` where there are any; ``super_mask.npy`` (n_masks, n_patients) at the top
    records : CSV or Parquet of the training records, one row each, in the order of the logits
    out : the audit folder, new or of the same runs
    patient : column of `records`; patients are numbered by first appearance
    groups : columns of `records`
    attacks, fdr : see :class:`confide.audits.audit.AuditSettings`
    skip_incomplete : list and leave out runs without their files, cut short, or with logits that
        are not finite; what is wrong otherwise is an error all the same
    accept : guards that may fail, by name
    progress : called with (runs copied, runs in all)

    Raises
    ------
    MissingFileError : no such directory, or a run without its files
    SignalError : a logit that is not finite; names run and record
    TableError : anything else that cannot be used; names run and file, or row and column
    ArgumentError : an unknown attack or guard, or an fdr outside [0, 1]
    FolderError, MismatchError : `out` cannot be written, or holds something else

    Notes
    -----
    Labels of one column are a binary task (one logit); rows that are all one-hot a multiclass one
    (softmax); anything else is multilabel (one sigmoid a label).  Logits are copied as they are,
    those of the test records as their mean over views, which is what utility reads.
    """
    AuditSettings(attacks=attacks, fdr=fdr)  # refused before anything is read
    check_accepted(accept)
    frame = read_table(records)
    require_columns(frame, [patient, *groups])
    patients = Cohort.from_frame(frame, patient=patient, label=None)
    found = _read(logdir, patients, skip_incomplete=skip_incomplete)
    task, label = _task(found.label)
    cohort = Cohort(
        record=patients.record,
        patient=patients.patient,
        label=label,
        task=task,
        classes=_classes(task, found.label.shape[1]),
        groups=group_columns(frame, groups),
    )
    heldout = None if found.test_label is None else _heldout(cohort, found.test_label)
    _refuse_constant(cohort, found.membership)
    wanted = {"source": "logdir", "fingerprint": found.fingerprint}

    def begin() -> dict[str, Any]:
        facts = {"task": task, "classes": list(cohort.classes)}
        state = {"models": ["pending"] * len(found.names), "model_ids": list(found.names)}
        return wanted | facts | state | environment()

    with AuditFolder.open(out, begin) as folder:
        folder.require_same(wanted)
        checks = [
            _membership_guard(found),
            recipe_guard({name: r | {"task": task} for name, r in found.recipes.items()}),
            order_guard(frame.drop(columns=patient), found.label),
        ]
        folder.manifest |= {
            "audit": {"attacks": list(attacks), "fdr": fdr},
            "title": logdir.name,
            "warnings": list(found.warnings),
            "notes": _notes(found, task, heldout),
            "guards": settle(checks, accept),
        }
        write_table(out / "cohort.parquet", cohort_table(cohort, heldout))
        _copy(folder, logdir, found, progress)
        folder.save()
        return analyse(out)


def _read(logdir: Path, patients: Cohort, *, skip_incomplete: bool) -> _Runs:
    """Read everything once: check it, and take its fingerprint."""
    logdir = logdir.resolve()
    first: LoggedRun | None = None
    names, masks, digests, recipes, left_out, tested = [], [], [], {}, [], []
    dtypes: list[np.dtype[Any]] = []
    for folder in run_folders(logdir):
        try:
            run = read_run(folder, patients.n_records, patients.n_patients)
            digest = scan(run, folder)
        except (MissingFileError, SignalError) as error:
            if not skip_incomplete:
                raise type(error)(f"{error} (--skip-incomplete leaves such runs out.)") from error
            left_out.append((folder.name, str(error).replace(f"{folder}/", "")))
            continue
        first = first or run
        _require_alike(run, first, folder)
        names.append(run.name)
        masks.append(run.mask)
        digests.append(digest)
        dtypes.append(run.logits.dtype)
        recipes[run.name] = recipe_of(run.info)
        tested.append(run.test is not None)
    if first is None or len(names) < 4:
        raise TableError(
            f"{logdir} has {len(names)} usable run(s), {len(left_out)} left out; an audit needs at "
            "least 4."
        )
    membership = np.stack(masks)
    _check_masks(logdir, names, membership)
    warnings = _left_out_warning(left_out) + _test_warning(tested)
    return _Runs(
        names=tuple(names),
        membership=membership,
        label=first.labels,
        test_label=first.test[1] if all(tested) and first.test is not None else None,
        n_views=first.logits.shape[1],
        dtype=np.result_type(*dtypes),
        info=first.info,
        recipes=recipes,
        fingerprint=_fingerprint(patients, first.labels, names, digests),
        warnings=tuple(warnings),
    )


def _require_alike(run: LoggedRun, first: LoggedRun, folder: Path) -> None:
    """All runs have the shape and the labels of the first."""
    if run.logits.shape != first.logits.shape:
        raise TableError(
            f"Run {folder}: train_logits.npy has shape {run.logits.shape} (records, views, "
            f"classes), that of run {first.name} {first.logits.shape}; all runs must agree."
        )
    pairs = [("train_labels.npy", run.labels, first.labels)]
    if run.test is not None and first.test is not None:
        pairs.append(("test_labels.npy", run.test[1], first.test[1]))
    for name, mine, theirs in pairs:
        if mine.shape != theirs.shape:
            raise TableError(
                f"Run {folder}: {name} has shape {mine.shape}, that of run {first.name} "
                f"{theirs.shape}; all runs must agree."
            )
        if not np.array_equal(mine, theirs, equal_nan=True):
            same = (mine == theirs) | (np.isnan(mine) & np.isnan(theirs))
            record, column = (int(i) for i in np.argwhere(~same)[0])
            raise TableError(
                f"Run {folder}: {name} has label {column} of record {record} = "
                f"{mine[record, column]:g}, that of run {first.name} {theirs[record, column]:g}; "
                "all runs must be about the same records in the same order."
            )


def _check_masks(logdir: Path, names: list[str], membership: NDArray[np.bool_]) -> None:
    """Each run has a draw of its own, and one of the directory's where these are stored."""
    packed = np.packbits(membership, axis=1)
    owner: dict[bytes, str] = {}
    for name, row in zip(names, packed, strict=True):
        other = owner.setdefault(row.tobytes(), name)
        if other != name:
            raise TableError(
                f"Runs {other!r} and {name!r} of {logdir} were trained on the same patients; "
                "p-values need a draw of its own for each run. Move one of them elsewhere."
            )
    path = logdir / "super_mask.npy"
    if not path.exists() and not path.is_symlink():
        return
    stored = mapped(path)
    if stored.dtype != np.bool_ or stored.ndim != 2 or stored.shape[1] != membership.shape[1]:
        raise TableError(
            f"{path} holds {stored.dtype} of shape {stored.shape}; the runs need bool of shape "
            f"(n_masks, {membership.shape[1]})."
        )
    known = {row.tobytes() for row in np.packbits(np.asarray(stored), axis=1)}
    for name, row in zip(names, packed, strict=True):
        if row.tobytes() not in known:
            raise TableError(
                f"The subset_mask.npy of run {name!r} is no row of {path}; the run belongs to "
                "another directory, or one of the two files was changed."
            )


def _membership_guard(found: _Runs) -> dict[str, str]:
    if not drawn_as_published(found.membership, found.info):
        return random_membership(found.membership)
    return {
        "name": "membership",
        "status": "passed",
        "message": "The masks are those that the published code draws at random, patient by "
        "patient, from the seed that the runs state.",
    }


def _refuse_constant(cohort: Cohort, membership: NDArray[np.bool_]) -> None:
    for never, word in ((~membership.any(axis=0), "in"), (membership.all(axis=0), "out of")):
        if never.any():
            at = int(np.argmax(never))
            raise TableError(
                f"Patient {plain(cohort.patients[at])!r} is never {word} the training data of a "
                f"run ({int(never.sum()):,} such patients); every patient must be in some runs and "
                "out of others. Are runs missing?"
            )


def _task(label: NDArray[np.float64]) -> tuple[Task, NDArray[Any]]:
    """What the labels are: (n_records, n_columns) 1, 0, NaN -> task and labels of a cohort."""
    if label.shape[1] == 1 and not np.isnan(label).any():
        return "binary", label[:, 0].astype(np.int64)
    if label.shape[1] > 1 and (label.sum(axis=1) == 1).all():
        return "multiclass", label.argmax(axis=1)
    return "multilabel", label


def _classes(task: Task, n_columns: int) -> tuple[str, ...]:
    return tuple(str(i) for i in range(2 if task == "binary" else n_columns))


def _heldout(cohort: Cohort, label: NDArray[Any]) -> Cohort:
    """Test records have no patient ids: each is taken for a patient of its own."""
    known = cohort.task == "multilabel" or not np.isnan(label).any()
    if not known or (cohort.task == "multiclass" and (label.sum(axis=1) != 1).any()):
        raise TableError(
            f"test_labels.npy does not hold the labels of a {cohort.task} task, as train_labels.npy"
            " does; remove the test files, they are optional."
        )
    if cohort.task == "multiclass":
        label = label.argmax(axis=1)
    elif cohort.task == "binary":
        label = label[:, 0].astype(np.int64)
    n, of_text = len(label), cohort.patient.dtype.kind not in "iuf"
    taken = set(cohort.patients.tolist())
    names = [f"test {i}" if of_text else i for i in range(n + cohort.n_patients)]
    free: list[Any] = [name for name in names if name not in taken][:n]
    # One type for both, so that a table of them keeps ids as they are.
    kind = object if of_text else np.result_type(cohort.patient, np.min_scalar_type(max(free)))
    return Cohort(
        record=cohort.n_records + np.arange(n),
        patient=np.array(free, dtype=kind),
        label=label,
        task=cohort.task,
        classes=cohort.classes,
        groups=pd.DataFrame({name: [None] * n for name in cohort.groups.columns}, dtype=object),
    )


def _copy(folder: AuditFolder, logdir: Path, found: _Runs, progress: Progress) -> None:
    """Copy the runs that are not copied yet; a kill loses at most one."""
    n_models, n_patients = found.membership.shape
    n_records, n_classes = found.label.shape
    if not folder.done.any():
        folder.create_array("membership", (n_models, n_patients), np.bool_)
        folder.array("membership")[:] = found.membership
        shape = (n_models, n_records, found.n_views, n_classes)
        folder.create_array("logits", shape, found.dtype)
        if found.test_label is not None:
            shape = (n_models, len(found.test_label), 1, n_classes)
            folder.create_array("heldout_logits", shape, _at_least_single(found.dtype))
    for i, name in enumerate(found.names):
        if not folder.done[i]:
            logits = logits_of(logdir.resolve() / name, test=False)
            folder.array("logits")[i : i + 1] = logits[None].astype(found.dtype, copy=False)
            if found.test_label is not None:
                logits = logits_of(logdir.resolve() / name, test=True)
                mean = logits.mean(axis=1, keepdims=True, dtype=np.float64)
                wide = _at_least_single(found.dtype)
                folder.array("heldout_logits")[i : i + 1] = mean[None].astype(wide)
            folder.manifest["models"][i] = "done"
            folder.save()
        progress(i + 1, n_models)


def _at_least_single(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.promote_types(dtype, np.float32)


def _fingerprint(
    patients: Cohort, label: NDArray[np.float64], names: list[str], digests: list[bytes]
) -> str:
    digest = hashlib.sha256("\x1f".join(map(str, patients.patient.tolist())).encode())
    digest.update(np.ascontiguousarray(label).tobytes())
    for name, content in zip(names, digests, strict=True):
        digest.update(name.encode(errors="surrogateescape") + b"\0" + content)
    return digest.hexdigest()


def _left_out_warning(left_out: list[tuple[str, str]]) -> list[str]:
    if not left_out:
        return []
    named = [f"{name} ({reason.rstrip('.')})" for name, reason in left_out[:_MAX_NAMED]]
    more = [f"and {len(left_out) - _MAX_NAMED} more"] if len(left_out) > _MAX_NAMED else []
    return [
        f"{len(left_out)} runs were left out as incomplete; whether a run failed must not depend "
        f"on who was in it: {'; '.join(named + more)}."
    ]


def _test_warning(tested: list[bool]) -> list[str]:
    if all(tested):
        return [
            "The test records have no patient ids: each counts as a patient of its own, so that "
            "intervals of utility are too narrow where a patient has several. RMIA takes them as "
            "its population, which assumes that they come from the source of the training records."
        ]
    if any(tested):
        return [
            f"{len(tested) - sum(tested)} of {len(tested)} runs have no test files; those of the "
            "others were not read, and there is no utility."
        ]
    return []


def _notes(found: _Runs, task: Task, heldout: Cohort | None) -> list[str]:
    how = {
        "binary": "one column of labels, one logit",
        "multiclass": "every row of labels is one-hot: softmax over the classes",
        "multilabel": "labels are not one-hot: one sigmoid a label (the published code takes a "
        "softmax over all labels, so that its figures differ)",
    }
    return [
        f"{len(found.names)} runs of a log directory, {found.n_views} view(s) of each record",
        f"read as a {task} task: {how[task]}",
        f"{0 if heldout is None else heldout.n_records} test records, their mean over views",
    ]
