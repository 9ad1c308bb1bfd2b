"""The guards of validity of a run: what the data say, before any model is looked at."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confide.audits.guards import BLIND_BY_DESIGN, RECIPE_BY_DESIGN, Guard
from confide.audits.prevalence import prevalence_warnings
from confide.audits.suppression import SMALL_CELL
from confide.cohort import Cohort
from confide.datasets import Data, describe
from confide.datasets.near_duplicates import area_means

Floats = NDArray[np.float64]

_SIDE = 8  # of the small picture that stands for an image
_MOST_VALUES = 20  # of a column that become features of their own
_PART = 2048  # records at a time


def designed(data: Data) -> list[Guard]:
    """Guards of an audit that draws who is in which model and trains all models by one recipe."""
    return [*data_guards(data), BLIND_BY_DESIGN, RECIPE_BY_DESIGN]


def data_guards(data: Data) -> list[Guard]:
    """Does one person stand under two ids?  Exactly equal inputs, and almost equal images."""
    found = describe(data)
    guards = [_exact(found["duplicates_across_patients"])]
    near = found["near_duplicates_across_patients"]
    return guards if near is None else [*guards, _near(near)]


def data_warnings(data: Data) -> list[str]:
    """What else the data say that a reader of the audit should know; one sentence each."""
    return prevalence_warnings(data.cohort.select(~data.test))


def _some(n: int) -> str:
    """A number that reports may tell: guards stand in all of them."""
    return f"{n:,}" if n >= SMALL_CELL else f"Fewer than {SMALL_CELL}"


def _exact(same: dict[str, Any]) -> Guard:
    if same["records"]:
        text = (
            f"{_some(same['records'])} records have exactly the inputs of another patient's "
            "record: the same person under two ids, or identical measurements. Their membership "
            "is mixed up, and their risk understated; `confide data describe` counts them."
        )
        return {"name": "duplicates", "status": "failed", "message": text}
    text = "No two patients have a record with exactly the same inputs."
    return {"name": "duplicates", "status": "passed", "message": text}


def _near(near: dict[str, Any]) -> Guard:
    left = [
        f"{near[key]:,} images {why} and were not compared."
        for key, why in (("blank", "show nothing"), ("crowded", "are like thousands of others"))
        if near[key]
    ]
    if near["records"]:
        text = (
            f"{_some(near['records'])} images are almost the same as an image of another patient "
            "(exact copies count too): the same person under two ids? Their membership is mixed "
            "up, and their risk understated; `confide data describe` counts them."
        )
        status = "failed"
    else:
        text = (
            "No two patients have images that are almost the same. Copies that are mirrored, "
            "turned, shifted or cropped, and other pictures of one person, are not found."
        )
        status = "unknown" if near["crowded"] else "passed"
    return {"name": "near-duplicates", "status": status, "message": " ".join([text, *left])}


def blind_features(
    cohort: Cohort, inputs: NDArray[Any] | None = None, columns: pd.DataFrame | None = None
) -> Floats:
    """What a classifier that sees no model may know of records, for the blind guard.

    Parameters
    ----------
    cohort : the records; their labels and groups count
    inputs : as in :class:`confide.datasets.Data`.  Tables count as they are; images as 8 x 8
        means and statistics of brightness and sharpness of each channel; signals as statistics of
        each lead
    columns : one row a record, more to know, such as the original width and height of images

    Returns
    -------
    (n_records, n_features) float64, NaN where unknown; for
    :func:`confide.audits.guards.blind_guard`
    """
    parts = [] if inputs is None else [input_features(inputs)]
    if cohort.task == "multilabel":
        parts.append(cohort.label.astype(np.float64))
    else:
        parts.append(_of_column(pd.Series(cohort.label).astype(object)))
    for table in (cohort.groups, columns):
        if table is not None:
            parts += [_of_column(table[name]) for name in table.columns]
    return np.concatenate(parts, axis=1)


def _of_column(column: pd.Series[Any]) -> Floats:
    """A number as it is; the commonest values of anything else as 0 or 1."""
    numeric = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    if numeric:
        values = column.to_numpy(dtype=np.float64, na_value=np.nan)[:, None]
        return np.where(np.isinf(values), np.nan, values)
    codes, names = pd.factorize(column)
    common = np.argsort(-np.bincount(codes[codes >= 0], minlength=len(names)), kind="stable")
    shown = np.concatenate([[-1], common[:_MOST_VALUES]])  # -1: missing
    return np.asarray(codes[:, None] == shown, dtype=np.float64)


def input_features(inputs: NDArray[Any]) -> Floats:
    """The part of :func:`blind_features` that comes from the inputs, row by row."""
    if inputs.ndim == 2:
        values = inputs.astype(np.float64)
        return np.where(np.isinf(values), np.nan, values)
    of = _of_images if inputs.ndim == 4 else _of_signals
    parts = [of(inputs[start : start + _PART]) for start in range(0, len(inputs), _PART)]
    return np.concatenate(parts).astype(np.float64)


def _of_images(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    pixels = images.astype(np.float32)
    rows, columns = (area_means(side, _SIDE).astype(np.float32) for side in images.shape[2:])
    flat = pixels.reshape(*pixels.shape[:2], -1)
    statistics = [
        *_statistics(flat),
        (flat == 0).mean(axis=2),
        (flat == 255).mean(axis=2),
        np.abs(np.diff(pixels, axis=2)).mean(axis=(2, 3)),
        np.abs(np.diff(pixels, axis=3)).mean(axis=(2, 3)),
    ]
    small = (rows @ pixels @ columns.T).reshape(len(pixels), -1)
    return np.concatenate([small, *statistics], axis=1).astype(np.float32)


def _of_signals(signals: NDArray[np.float32]) -> NDArray[np.float32]:
    steps = np.abs(np.diff(signals, axis=2)).mean(axis=2)
    found = np.concatenate([*_statistics(signals), steps, signals.mean(axis=2)], axis=1)
    return np.where(np.isinf(found), np.nan, found).astype(np.float32)


def _statistics(values: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Standard deviation and three quantiles of (n_records, n_channels, n_values)."""
    last = values.shape[2] - 1
    places = [last // 100, last // 2, last - last // 100]
    ordered = np.partition(values, places, axis=2)
    return [values.std(axis=2), *(ordered[:, :, place] for place in places)]
