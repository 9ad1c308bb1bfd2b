"""Asking a model of somebody else; what it returns -> logits in the order of the classes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from confide.cohort import Cohort
from confide.errors import ArgumentError, SignalError
from confide.runs.model_settings import Output

Floats = NDArray[np.float64]
_EPS = float(np.finfo(np.float64).eps)


def scaled(
    inputs: NDArray[Any], mean: Sequence[float], scale: Sequence[float], name: str = "the model"
) -> NDArray[np.float32]:
    """(x - mean) / scale as float32, by channel or feature; x / 255 for images by default."""
    x = np.asarray(inputs, dtype=np.float32)
    if not mean and not scale:
        return np.asarray(x / 255, dtype=np.float32) if inputs.dtype == np.uint8 else x
    n = x.shape[1]
    shape = (1, n, *(1,) * (x.ndim - 2))
    both = []
    for word, values, default in (("mean", mean, 0.0), ("scale", scale, 1.0)):
        numbers = np.asarray(values or (default,), dtype=np.float32)
        if len(numbers) not in (1, n) or not np.isfinite(numbers).all():
            raise ArgumentError(
                f"`{word}` of {name!r} has {len(numbers)} values, expected 1 or {n}."
            )
        both.append(np.broadcast_to(numbers, n).reshape(shape))
    if (both[1] == 0).any():
        raise ArgumentError(f"`scale` of {name!r} holds 0; inputs are divided by it.")
    return np.asarray((x - both[0]) / both[1], dtype=np.float32)


def answer(
    run: Callable[[NDArray[np.float32]], Any], batch: NDArray[np.float32], name: str
) -> NDArray[Any]:
    """What a function returns for a batch, one row a record; ArgumentError where it does not."""
    try:
        found = np.asarray(run(batch))
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise ArgumentError(
            f"{name!r} does not take inputs of shape {batch.shape}: {_cause(error)}"
        ) from error
    if found.ndim == 0 or len(found) != len(batch):
        raise ArgumentError(
            f"{name!r} returns an array of shape {found.shape} for {len(batch)} records; "
            "expected one row a record. Was it exported for one size of batches alone?"
        )
    return found


def _cause(error: Exception) -> str:
    """What went wrong, in one line: TorchScript says it last, after a trace of its own."""
    named = re.findall(r"^\w*Error: (.+)", str(error), re.MULTILINE)
    return " ".join((named[-1] if named else str(error)).split())[:200]


def plain_id(cohort: Cohort, row: int) -> Any:
    """The id of a record as an int or a str, whose repr is short."""
    return cohort.record[row : row + 1].tolist()[0]


def to_logits(
    outputs: NDArray[Any],
    cohort: Cohort,
    *,
    output: Output | None,
    classes: Sequence[str] = (),
    name: str = "the model",
) -> tuple[Floats, list[str]]:
    """Outputs for all records -> logits, checked.

    Parameters
    ----------
    outputs : (n_records,), (n_records, n_outputs) or (n_records, n_views, n_outputs)
    cohort : the records
    output : what `outputs` are; None takes logits, and refuses what looks like probabilities
    classes : names of the outputs in their order; by default those of the cohort
    name : of the model, for messages

    Returns
    -------
    logits : (n_records, n_views, n_classes) with n_classes = 1 for a binary task; NaN in the
        columns of labels that a multilabel model does not have
    warnings : what was clipped

    Raises
    ------
    ArgumentError : a shape, or names of classes, that do not fit
    SignalError : a value that is not finite, or no probability; names the record
    """
    z = _shaped(outputs, cohort, name)
    _check_finite(z, cohort, name)
    warnings: list[str] = []
    kind = output or _guessed(z, name)
    if kind == "logits":
        _refuse_probabilities(z, name)
    else:
        z, warnings = _from_probabilities(z, cohort, name)
    return _columns(z, cohort, tuple(classes), name), warnings


def _shaped(outputs: NDArray[Any], cohort: Cohort, name: str) -> Floats:
    z = np.asarray(outputs)
    if not np.issubdtype(z.dtype, np.floating):
        raise ArgumentError(
            f"{name} returns {z.dtype}, not logits or probabilities; an audit of predicted "
            "classes alone is not supported."
        )
    if z.ndim == 1:
        z = z[:, None]
    if z.ndim == 2:
        z = z[:, None, :]
    if z.ndim != 3 or len(z) != cohort.n_records or z.shape[2] == 0 or z.shape[1] == 0:
        raise ArgumentError(
            f"{name} returns an array of shape {np.shape(outputs)} for {cohort.n_records} records; "
            "expected (n_records, n_classes)."
        )
    return z.astype(np.float64)


def _check_finite(z: Floats, cohort: Cohort, name: str) -> None:
    bad = ~np.isfinite(z)
    if bad.any():
        row, _, column = (int(i) for i in np.argwhere(bad)[0])
        raise SignalError(
            f"{name} returns {z[bad][0]} for record {plain_id(cohort, row)!r} (row {row}, output "
            f"{column}); every output must be finite."
        )


def _guessed(z: Floats, name: str) -> Output:
    within = bool(((z >= 0) & (z <= 1)).all())
    # Logits of many records lie on both sides of 0; a few may lie in [0, 1] by chance.
    if within and z.size >= 20:
        raise ArgumentError(
            f"All outputs of {name} lie between 0 and 1, as probabilities do. Set output: "
            "probabilities if they are, or output: logits if they are not."
        )
    return "logits"


def _refuse_probabilities(z: Floats, name: str) -> None:
    within = bool(((z >= 0) & (z <= 1)).all())
    if z.shape[2] > 1 and within and np.abs(z.sum(axis=2) - 1).max() < 1e-3:
        raise ArgumentError(
            f"The outputs of {name} add up to 1 for every record: they are probabilities, not "
            "logits. Set output: probabilities."
        )


def _from_probabilities(p: Floats, cohort: Cohort, name: str) -> tuple[Floats, list[str]]:
    bad = (p < 0) | (p > 1)
    if bad.any():
        row, _, column = (int(i) for i in np.argwhere(bad)[0])
        raise SignalError(
            f"{name} returns {p[bad][0]:g} for record {plain_id(cohort, row)!r} (row {row}, output "
            f"{column}); a probability is in [0, 1]. Set output: logits if these are logits."
        )
    single = cohort.task == "multilabel" or p.shape[2] == 1
    off = np.abs(p.sum(axis=2) - 1)
    if not single and off.max() > 0.01:
        row = int(off.max(axis=1).argmax())
        raise SignalError(
            f"The probabilities that {name} gives record {plain_id(cohort, row)!r} (row {row}) add "
            f"up to {1 + off[row].max():.4g} or less; expected 1."
        )
    extreme = int(((p == 0) | (p == 1)).any(axis=(1, 2)).sum())
    warnings = []
    if extreme:
        warnings.append(
            f"{name} gives {extreme:,} records a probability of exactly 0 or 1, which was clipped; "
            "these records cannot be told apart, and leaks in them may be missed. Give logits, if "
            "there are any."
        )
    if single:
        # 1 - p has float64 steps of eps near 1; p itself is exact down to the smallest numbers.
        return logit(np.clip(p, min(_EPS, p[p > 0].min(initial=1.0)), 1 - _EPS)), warnings
    return np.log(np.maximum(p, min(_EPS, p[p > 0].min(initial=1.0)))), warnings


def _columns(z: Floats, cohort: Cohort, classes: tuple[str, ...], name: str) -> Floats:
    n = z.shape[2]
    wanted = list(cohort.classes)
    if cohort.task == "binary" and n == 1:
        return z
    if not classes and n != len(wanted):
        raise ArgumentError(
            f"{name} has {n} outputs, the {cohort.task} task has {len(wanted)} classes "
            f"({', '.join(wanted[:8])}); name the outputs in their order under `classes`."
        )
    names = list(classes) or wanted
    if len(names) != n:
        raise ArgumentError(f"{name} has {n} outputs, but `classes` names {len(names)}.")
    if cohort.task == "multilabel":
        if not set(names) & set(wanted):
            raise ArgumentError(
                f"None of the labels {', '.join(wanted[:8])} is an output of {name}."
            )
        z = np.concatenate([z, np.full((*z.shape[:2], 1), np.nan)], axis=2)
        return z[:, :, [names.index(one) if one in names else n for one in wanted]]
    if sorted(names) != sorted(wanted):
        raise ArgumentError(
            f"The outputs of {name} are {', '.join(names[:8])}; the data have the classes "
            f"{', '.join(wanted[:8])}. They must be the same."
        )
    z = z[:, :, [names.index(one) for one in wanted]]
    return z[:, :, 1:] - z[:, :, :1] if cohort.task == "binary" else z
