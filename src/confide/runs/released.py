"""Audit a released model: its answers on members and non-members, beside those of references."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from confide.audits.guards import (
    Guard,
    blind_guard,
    check_accepted,
    recipe_guard,
    refuse_both_sides,
)
from confide.audits.result import AuditResult
from confide.cohort import Cohort
from confide.errors import ArgumentError, TableError
from confide.runs.guards import blind_features
from confide.runs.models import Progress, cohort_table, environment, silent
from confide.runs.outputs import answer, plain_id, scaled, to_logits
from confide.runs.released_analysis import analyse_model
from confide.stores import AuditFolder, plain, write_table

Floats = NDArray[np.float64]
Read = Callable[[NDArray[np.intp]], NDArray[Any]]

_MOST_BLIND = 40_000  # records whose inputs the blind guard sees
_BATCH = 256


@dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """A model under audit, or a reference, and which records it was trained on.

    Parameters
    ----------
    model : a function from inputs (n, ...) float32 to outputs (n, n_classes), or the outputs for
        all records: (n_records, n_classes) or (n_records, n_views, n_classes)
    members : (n_records,) 1 for records in its training data, 0 for others, NaN for records that
        are to be left out; None for a reference that was trained on none of them
    name : for messages and the report
    output : "logits" or "probabilities"; None takes logits, and refuses what looks otherwise
    classes : names of the outputs in their order; by default the cohort's
    mean, scale : inputs are given as (x - mean) / scale; see
        :class:`confide.runs.model_settings.ModelSettings`
    recipe : what is known of its training; see :func:`confide.audits.guards.recipe_guard`
    mark : what tells this model from another when a folder is resumed
    """

    model: Callable[..., Any] | NDArray[Any]
    members: NDArray[Any] | None = None
    name: str = "model"
    output: Any = None
    classes: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    recipe: Mapping[str, Any] = field(default_factory=dict)
    mark: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Records:
    """The records that models are asked about.

    Attributes
    ----------
    cohort : all of them
    read : row numbers -> inputs, or None where only outputs are given
    fingerprint : of the data
    notes : what the loader decided
    """

    cohort: Cohort
    read: Read | None = None
    fingerprint: str = ""
    notes: tuple[str, ...] = ()


def audit_model(
    target: Model,
    records: Cohort | Records,
    out: Path | str,
    *,
    inputs: NDArray[Any] | None = None,
    references: Sequence[Model] = (),
    seed: int = 0,
    batch_size: int = _BATCH,
    accept: Sequence[str] = (),
    title: str = "A released model",
    progress: Progress = silent,
) -> AuditResult:
    """Audit one model, with references or without, and write an audit folder.

    Parameters
    ----------
    target : the model, with its members; see :class:`Model`
    records : the cohort, members and non-members of one source, or records to be read
    out : the audit folder; one whose models have answered is analysed again, without asking them
    inputs : of the records of a cohort: (n_records, ...) as in :class:`confide.datasets.Data`;
        needed where a model is a function
    references : models to compare with
    seed : of the guard, of the draw of references and of the bootstrap
    batch_size : records given to a model at a time
    accept : guards that may fail: "blind", "recipe"
    title : heading of the report
    progress : called with (records answered, records in all)

    Returns
    -------
    see :func:`confide.audits.released.audit_released`; a failed guard leaves the figures and takes
    the verdict away, accepted or not

    Raises
    ------
    TableError : a patient on both sides
    ArgumentError, SignalError : outputs that cannot be used, or no member or non-member
    MismatchError : the folder holds answers of other models or on other data
    """
    check_accepted(accept)
    if isinstance(records, Cohort):
        records = Records(cohort=records, read=None if inputs is None else _reader(inputs))
    if records.read is None and any(callable(m.model) for m in (target, *references)):
        raise ArgumentError("A model that is a function needs the inputs of the records.")
    out = Path(out)
    models = (target, *references)
    held, kept = _memberships(models, records.cohort)
    cohort = records.cohort.select(kept)
    wanted = {
        "source": "model",
        "fingerprint": records.fingerprint or _digest(records.cohort, held),
        "seed": seed,
        "target": _stated(target),
        "references": [_stated(m) for m in references],
    }

    def begin() -> dict[str, Any]:
        return (
            wanted
            | {"models": ["pending"] * len(models), "model_ids": [m.name for m in models]}
            | {"task": cohort.task, "classes": list(cohort.classes)}
            | environment()
        )

    with AuditFolder.open(out, begin) as folder:
        if folder.manifest.get("source") == "model" and not folder.done.any():
            # Refused or stopped before a model had answered: nothing there is worth keeping.
            folder.manifest |= plain(begin())
        folder.require_same(wanted)
        folder.manifest |= {"title": title, "accepted": list(accept), "notes": list(records.notes)}
        if not folder.done.all():
            _fill(folder, models, records, cohort, kept, held, seed, batch_size, progress)
        folder.save()
        return analyse_model(out)


def _memberships(
    models: Sequence[Model], cohort: Cohort
) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
    """Who was in which model, (n_models, n_kept), and the records that are kept, in order."""
    n = cohort.n_records
    sides = []
    for i, model in enumerate(models):
        if model.members is None:
            if i == 0:
                raise ArgumentError("The members of the target are not given; an audit needs them.")
            sides.append(np.zeros(n))
            continue
        side = np.asarray(model.members, dtype=np.float64)
        if side.shape != (n,) or not np.isin(side[~np.isnan(side)], (0.0, 1.0)).all():
            raise ArgumentError(
                f"Expected members of {model.name!r} as {n} values of 1, 0 or missing, got shape "
                f"{side.shape}."
            )
        sides.append(side)
    kept = np.flatnonzero(~np.isnan(sides[0]))
    if not len(kept):
        raise ArgumentError("No record is a member or a non-member of the target.")
    for model, side in zip(models[1:], sides[1:], strict=True):
        if np.isnan(side[kept]).any():
            row = int(kept[int(np.argmax(np.isnan(side[kept])))])
            raise ArgumentError(
                f"Whether {model.name!r} was trained on record {plain_id(cohort, row)!r} (row "
                f"{row}) is not given; give 1 or 0, or leave the record out for the target too."
            )
    held = np.stack([side[kept] == 1.0 for side in sides])
    part = cohort.select(kept)
    for model, side in zip(models, held, strict=True):
        try:
            refuse_both_sides(part, side)
        except TableError as error:
            raise TableError(f"{model.name}: {error}") from error
    return held, kept


def _reader(inputs: NDArray[Any]) -> Read:
    return lambda rows: inputs[rows]


def _digest(cohort: Cohort, held: NDArray[np.bool_]) -> str:
    digest = hashlib.sha256(np.packbits(held).tobytes())
    for _, column in cohort_table(cohort, None).items():
        digest.update("\x1f".join(map(str, column.tolist())).encode())
    return digest.hexdigest()


def _stated(model: Model) -> dict[str, Any]:
    mark = model.mark
    if not mark and not callable(model.model):
        mark = hashlib.sha256(np.ascontiguousarray(model.model).tobytes()).hexdigest()
    held = None if model.members is None else np.asarray(model.members, dtype=np.float64)
    return {
        "name": model.name,
        "file": mark,
        "members": None if held is None else hashlib.sha256(held.tobytes()).hexdigest(),
        "output": model.output,
        "classes": list(model.classes),
        "mean": list(model.mean),
        "scale": list(model.scale),
        "recipe": dict(model.recipe),
    }


def _fill(
    folder: AuditFolder,
    models: Sequence[Model],
    records: Records,
    cohort: Cohort,
    kept: NDArray[np.intp],
    held: NDArray[np.bool_],
    seed: int,
    batch_size: int,
    progress: Progress,
) -> None:
    """The guards first, then what every model says, into the folder."""
    guards = [_blind(records, cohort, kept, held[0], seed)]
    guards.append(_recipes(models))
    outputs, digests = _answers(models, records, kept, batch_size, progress)
    if digests is not None:
        guards.append(_duplicates(digests, held[0].tolist()))
    logits, warnings = [], []
    for model, found in zip(models, outputs, strict=True):
        z, said = to_logits(
            found, cohort, output=model.output, classes=model.classes, name=model.name
        )
        logits.append(z)
        warnings += said
    if len({z.shape[1] for z in logits}) > 1:
        raise ArgumentError("The models give different numbers of views; give them the same.")
    stacked = np.stack(logits)
    warnings += _only_some(stacked, cohort)
    membership = np.zeros((len(models), cohort.n_patients), dtype=bool)
    membership[:, cohort.patient_index] = held
    write_table(folder.path / "cohort.parquet", cohort_table(cohort, None))
    for name, values in (("membership", membership), ("logits", stacked)):
        folder.create_array(name, values.shape, values.dtype)
        folder.array(name)[:] = values
    left_out = len(records.cohort.record) - len(kept)
    if left_out:
        warnings.append(
            f"{left_out:,} records are neither members nor non-members and were left out."
        )
    folder.manifest |= {"guards": guards, "warnings": warnings, "models": ["done"] * len(models)}


def _blind(
    records: Records,
    cohort: Cohort,
    kept: NDArray[np.intp],
    member: NDArray[np.bool_],
    seed: int,
) -> Guard:
    """Can members be told from non-members by anything but the model?"""
    rng = np.random.default_rng(seed)
    shown = np.ones(cohort.n_records, dtype=bool)
    if cohort.n_records > _MOST_BLIND:
        # Whole patients, so that the number of records of each stays what it is.
        order = rng.permutation(cohort.n_patients)
        drawn = order[np.cumsum(cohort.records_per_patient[order]) <= _MOST_BLIND]
        shown = np.isin(cohort.patient_index, drawn)
    part = cohort.select(shown)
    features = blind_features(part)
    if records.read is None:
        guard = blind_guard(features, member[shown], part.patient_index, seed)
        if guard["status"] == "passed":
            guard = guard | {"status": "unknown"}
        said = "The inputs of the records were not given, only labels and groups were compared."
        return guard | {"message": f"{guard['message']} {said}"}
    rows = kept[shown]
    n_others = features.shape[1]
    seen = []
    for start in range(0, len(rows), _BATCH):
        some = np.arange(start, min(start + _BATCH, len(rows)))
        known = blind_features(part.select(some), _as_data(records.read(rows[some])))
        seen.append(_inputs_alone(known, blind_features(part.select(some))))
    features = np.concatenate([np.concatenate(seen), features[:, :n_others]], axis=1)
    return blind_guard(features, member[shown], part.patient_index, seed)


def _inputs_alone(features: Floats, others: Floats) -> Floats:
    """Without the columns of labels and groups, whose number depends on the part."""
    return features[:, : features.shape[1] - others.shape[1]]


def _as_data(inputs: NDArray[Any]) -> NDArray[Any]:
    """Images as 8 bits, whatever their range; tables and signals as they are."""
    if inputs.ndim != 4 or inputs.dtype == np.uint8:
        return inputs if inputs.dtype == np.uint8 else inputs.astype(np.float32)
    low, high = float(min(inputs.min(), -1024.0)), float(max(inputs.max(), 1024.0))
    if inputs.min() >= 0 and inputs.max() <= 1:
        low, high = 0.0, 1.0
    return np.round(255 * (inputs - low) / (high - low)).astype(np.uint8)


def _recipes(models: Sequence[Model]) -> Guard:
    if len(models) == 1:
        text = "There are no references whose training could differ from the target's."
        return {"name": "recipe", "status": "passed", "message": text}
    named = {f"{m.name} ({i})" if i else m.name: m.recipe for i, m in enumerate(models)}
    return recipe_guard(named)


def _answers(
    models: Sequence[Model],
    records: Records,
    kept: NDArray[np.intp],
    batch_size: int,
    progress: Progress,
) -> tuple[list[NDArray[Any]], list[bytes] | None]:
    """What each model says of the kept records, and a digest of each record's inputs."""
    given: list[Any] = []
    for model in models:
        if callable(model.model):
            given.append([])
            continue
        outputs = np.asarray(model.model)
        if len(outputs) != records.cohort.n_records:
            raise ArgumentError(
                f"{model.name!r} has outputs for {len(outputs)} records, expected "
                f"{records.cohort.n_records}."
            )
        given.append(outputs[kept])
    if records.read is None:
        return given, None
    digests: list[bytes] = []
    for start in range(0, len(kept), batch_size):
        inputs = records.read(kept[start : start + batch_size])
        digests += [hashlib.sha256(one.tobytes()).digest() for one in np.ascontiguousarray(inputs)]
        for model, found in zip(models, given, strict=True):
            if callable(model.model):
                batch = scaled(inputs, model.mean, model.scale, model.name)
                found.append(answer(model.model, batch, model.name))
        progress(min(start + batch_size, len(kept)), len(kept))
    return [np.concatenate(f) if isinstance(f, list) else f for f in given], digests


def _duplicates(digests: Sequence[bytes], member: list[bool]) -> Guard:
    """Are the same inputs on both sides?"""
    inside = {d for d, m in zip(digests, member, strict=True) if m}
    n = sum(d in inside for d, m in zip(digests, member, strict=True) if not m)
    if n:
        text = (
            f"{n:,} non-members have exactly the inputs of a member: one person under two ids? "
            "The model was trained on these inputs all the same, so what leaks is understated."
        )
        return {"name": "duplicates", "status": "failed", "message": text}
    text = "No non-member has exactly the inputs of a member. Near-duplicates were not looked for."
    return {"name": "duplicates", "status": "passed", "message": text}


def _only_some(logits: Floats, cohort: Cohort) -> list[str]:
    """Labels that are not an output of every model cannot be compared, and are left out."""
    if cohort.task != "multilabel":
        return []
    missing = [bool(np.isnan(logits[..., i]).any()) for i in range(logits.shape[-1])]
    if all(missing):
        raise ArgumentError("No label is an output of all models; there is nothing to compare.")
    if not any(missing):
        return []
    names = ", ".join(c for c, gone in zip(cohort.classes, missing, strict=True) if gone)
    return [f"Labels that not every model predicts were left out: {names}."]
