"""A table of predictions, one row per (model, record), checked and brought into arrays."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confide._tables import MAX_GROUP_VALUES, group_columns, plain, read_table, require_columns
from confide.cohort import Cohort, Task
from confide.datasets.features import looks_like_identifier
from confide.errors import TableError

Floats = NDArray[np.float64]
_KEYS = ("model", "record", "patient", "member", "label")
_LARGEST = 1e100
_VALUE = re.compile(r"(logit|prob)_(\d+)")
_WORDS = {"1": 1, "0": 0, "true": 1, "false": 0, "1.0": 1, "0.0": 0}


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
    """Predictions of many models about the same records.

    Attributes
    ----------
    cohort : the audited records, in order of first appearance in the table
    membership : (n_models, n_patients) bool
    kind : "logits" or "signal", what `values` holds
    values : (n_models, n_records, n_views, n_classes) logits, or (n_models, n_records, n_views)
    population : the same for records never trained on, and their cohort; None without any
    models : ids of the models, sorted
    warnings : what was clipped or decided
    """

    cohort: Cohort
    membership: NDArray[np.bool_]
    kind: str
    values: Floats
    population: tuple[Floats, Cohort] | None
    models: tuple[str, ...]
    warnings: tuple[str, ...]


def read_predictions(path: Path) -> Predictions:
    """Read and check a table of predictions; see :func:`confide.runs.audit_scores`."""
    frame = read_table(path)
    try:
        return predictions(frame)
    except TableError as error:
        raise TableError(f"{path}: {error}") from error


def predictions(frame: pd.DataFrame) -> Predictions:
    """Check a table of predictions and bring it into arrays."""
    require_columns(frame, _KEYS)
    if not len(frame):
        raise TableError("The table has no rows.")
    if "logit" in frame.columns and "logit_0" not in frame.columns:
        frame = frame.rename(columns={"logit": "logit_0"})
    _refuse_compound(frame)
    for key in ("model", "record", "patient", "label", *({"view"} & set(frame.columns))):
        _refuse_missing(frame, key)
    member = _yes_or_no(frame, "member")
    outside = (
        _yes_or_no(frame, "population").astype(bool)
        if "population" in frame.columns
        else np.zeros(len(frame), dtype=bool)
    )
    columns = _value_columns(frame)
    values = np.column_stack([_numbers(frame, column) for column in columns])
    if outside.all():
        raise TableError("Every row has population = 1; no record is left to audit.")
    if (outside & (member == 1)).any():
        row = int(np.argmax(outside & (member == 1)))
        raise TableError(
            f"Row {row} (record {_at(frame, 'record', row)}) has population = 1 and member = 1; "
            "a population record is in no training set."
        )
    for column in ("record", "patient"):
        both = frame[column].isin(frame[column][outside]) & ~outside
        if both.any():
            row = int(np.argmax(both))
            raise TableError(
                f"{column.capitalize()} {_at(frame, column, row)} has population = 0 in row {row} "
                "and 1 in another; give it one value."
            )
    # Sorted, because attacks pair models by their order: rows in another order, the same result.
    model_codes, models = pd.factorize(frame["model"], sort=True)
    if len(models) < 4:
        raise TableError(f"The table has {len(models)} model(s); an audit needs at least 4.")
    values, kind, task, classes, warnings = _as_logits(frame, columns, values)
    groups, left_out = _groups(frame, columns)
    warnings += left_out
    reader = _Reader(frame, model_codes, np.asarray(models), values, task, classes, groups)
    cohort, audited, record = reader.part(~outside)
    membership = reader.membership(cohort, member, ~outside, record)
    population = None
    if outside.any():
        rest, held, _ = reader.part(outside)
        population = (held, rest)
    if kind == "signal":
        audited = audited[..., 0]
        population = None if population is None else (population[0][..., 0], population[1])
    return Predictions(
        cohort=cohort,
        membership=membership,
        kind=kind,
        values=audited,
        population=population,
        models=tuple(str(m) for m in models),
        warnings=tuple(warnings),
    )


@dataclass(frozen=True, eq=False)
class _Reader:
    """Turns rows into arrays; every inconsistency is an error that names its row."""

    frame: pd.DataFrame
    model: NDArray[np.intp]
    models: NDArray[Any]
    values: Floats
    task: Task
    classes: tuple[str, ...]
    groups: list[str]

    def part(self, rows: NDArray[np.bool_]) -> tuple[Cohort, Floats, NDArray[np.intp]]:
        """Cohort, values (n_models, n_records, n_views, n_columns), record codes of some rows."""
        frame = self.frame[rows]
        where = np.flatnonzero(rows)
        record, ids = pd.factorize(frame["record"])
        for column in ("patient", "label"):
            self._one_each(frame, where, record, column)
        first = np.unique(record, return_index=True)[1]
        heads = frame.iloc[first].reset_index(drop=True)
        cohort = Cohort(
            record=np.asarray(ids),
            patient=heads["patient"].to_numpy(),
            label=_class_index(heads, self.classes),
            task=self.task,
            classes=self.classes,
            groups=group_columns(heads, self.groups),
        )
        return cohort, self._cube(frame, where, record, len(ids)), record

    def _one_each(
        self, frame: pd.DataFrame, where: NDArray[np.intp], record: NDArray[np.intp], column: str
    ) -> None:
        codes = pd.factorize(frame[column])[0]
        first = np.unique(record, return_index=True)[1]
        differs = codes != codes[first][record]
        if differs.any():
            row = int(np.argmax(differs))
            raise TableError(
                f"Record {_at(frame, 'record', row)} has two values of {column}: "
                f"{_at(frame, column, first[record[row]])} (row {where[first[record[row]]]}) and "
                f"{_at(frame, column, row)} (row {where[row]})."
            )

    def _cube(
        self,
        frame: pd.DataFrame,
        where: NDArray[np.intp],
        record: NDArray[np.intp],
        n_records: int,
    ) -> Floats:
        view, n_views = np.zeros(len(frame), dtype=np.intp), 1
        if "view" in frame.columns:
            view, views = pd.factorize(frame["view"], sort=True, use_na_sentinel=False)
            n_views = len(views)
        model = self.model[where]
        place = (model * n_records + record) * n_views + view
        order = np.argsort(place, kind="stable")
        twice = np.flatnonzero(np.diff(place[order]) == 0)
        if len(twice):
            row = int(order[twice[0] + 1])
            raise TableError(
                f"Record {_at(frame, 'record', row)} of model {_at(frame, 'model', row)} is "
                f"given twice: rows {where[order[twice[0]]]} and {where[row]}"
                + (" (same view)." if n_views > 1 else ".")
            )
        size = len(self.models) * n_records * n_views
        if len(place) != size:
            present = np.zeros(size, dtype=bool)
            present[place] = True
            at = int(np.argmin(present))
            ids = pd.unique(frame["record"])
            raise TableError(
                f"Model {plain(self.models[at // (n_records * n_views)])!r:.80} has no row for "
                f"record {plain(ids[at // n_views % n_records])!r:.80}"
                + (f", view number {at % n_views}" if n_views > 1 else "")
                + "; every model predicts every record, members or not."
            )
        shape = (len(self.models), n_records, n_views, self.values.shape[1])
        return self.values[where[order]].reshape(shape)

    def membership(
        self,
        cohort: Cohort,
        member: NDArray[np.int64],
        rows: NDArray[np.bool_],
        record: NDArray[np.intp],
    ) -> NDArray[np.bool_]:
        """(n_models, n_patients), refusing a patient both in and out of one model."""
        where = np.flatnonzero(rows)
        patient = cohort.patient_index[record]
        place = self.model[where] * cohort.n_patients + patient
        size = len(self.models) * cohort.n_patients
        n_rows = np.bincount(place, minlength=size)
        n_member = np.bincount(place, weights=member[where], minlength=size)
        mixed = (n_member > 0) & (n_member < n_rows)
        if mixed.any():
            at = int(np.argmax(mixed))
            row = int(where[np.flatnonzero((place == at) & (member[where] == 0))[0]])
            raise TableError(
                f"Patient {_at(self.frame, 'patient', row)} is both in and out of model "
                f"{plain(self.models[at // cohort.n_patients])!r:.80} (member = 0 in row {row}); a "
                "patient's records are all in or all out."
            )
        result: NDArray[np.bool_] = (n_member > 0).reshape(len(self.models), cohort.n_patients)
        for never, word in ((~result.any(axis=0), "in"), (result.all(axis=0), "out of")):
            if never.any():
                row = int(where[np.argmax(patient == np.argmax(never))])
                raise TableError(
                    f"Patient {_at(self.frame, 'patient', row)} (row {row}) is never {word} the "
                    f"training data of a model ({int(never.sum())} such patients); column 'member' "
                    "needs both 0 and 1 for every patient."
                )
        return result


def _value_columns(frame: pd.DataFrame) -> list[str]:
    names = [str(c) for c in frame.columns]
    kinds = {}
    for kind in ("logit", "prob"):
        numbered = sorted(
            int(m.group(2)) for m in map(_VALUE.fullmatch, names) if m and m.group(1) == kind
        )
        if numbered:
            kinds[kind] = [f"{kind}_{i}" for i in range(max(numbered) + 1)]
    if "signal" in names:
        kinds["signal"] = ["signal"]
    if len(kinds) != 1:
        found = f"it has {' and '.join(kinds)}" if kinds else "it has none of them"
        raise TableError(
            "The table needs either logit_0, logit_1, ... or prob_0, prob_1, ... or signal; "
            f"{found}."
        )
    (columns,) = kinds.values()
    require_columns(frame, columns)
    return columns


def _groups(frame: pd.DataFrame, columns: list[str]) -> tuple[list[str], list[str]]:
    """Columns that are groups, and a warning for each other column that is not one."""
    used = {*_KEYS, "view", "population", *columns}
    groups, left_out = [], []
    for name in frame.columns:
        if name in used:
            continue
        n_values = frame[name].nunique()
        n_patients = frame["patient"].nunique()
        if n_values > MAX_GROUP_VALUES:
            reason = f"has {n_values:,} different values, more than {MAX_GROUP_VALUES}"
        elif 2 * n_values > n_patients or looks_like_identifier(frame[name], str(name)):
            # Its values would name patients in a report that is meant to be shared.
            reason = "looks like an identifier of patients"
        elif frame.groupby("record", sort=False)[name].nunique().max() > 1:
            reason = "differs between the rows of a record"
        else:
            groups.append(name)
            continue
        left_out.append(f"Column {name!r} {reason}; it was not taken as a group.")
    return groups, left_out


def _as_logits(
    frame: pd.DataFrame, columns: list[str], values: Floats
) -> tuple[Floats, str, Task, tuple[str, ...], list[str]]:
    """Values as logits or signals, with kind, task, names of the classes and warnings."""
    warnings: list[str] = []
    if columns == ["signal"]:
        n_classes = max(int(_class_numbers(frame).max()) + 1, 2)
        task: Task = "binary" if n_classes == 2 else "multiclass"
        return values, "signal", task, _class_names(n_classes), warnings
    if columns[0].startswith("prob"):
        values, warnings = _logits_of(frame, columns, values)
    n_columns = values.shape[1]
    n_classes = max(n_columns, 2)
    label = _class_numbers(frame)
    if label.max() >= n_classes:
        row = int(np.argmax(label))
        raise TableError(
            f"Label {label[row]} in row {row} (record {_at(frame, 'record', row)}) has no column "
            f"{columns[0].split('_')[0]}_{label[row]}; labels are class indices from 0."
        )
    if n_columns == 2:  # two classes: one logit says the same
        values = values[:, 1:] - values[:, :1]
    task = "binary" if n_classes == 2 else "multiclass"
    return values, "logits", task, _class_names(n_classes), warnings


def _logits_of(frame: pd.DataFrame, columns: list[str], p: Floats) -> tuple[Floats, list[str]]:
    bad = (p < 0) | (p > 1)
    if bad.any():
        row, column = (int(i) for i in np.argwhere(bad)[0])
        raise TableError(
            f"Column {columns[column]!r} in row {row} (record {_at(frame, 'record', row)}) is "
            f"{p[row, column]:g}; a probability is in [0, 1]."
        )
    if len(columns) == 1:
        raise TableError(
            "The table has prob_0 alone; give prob_0 and prob_1, the probabilities of classes 0 "
            "and 1."
        )
    total = p.sum(axis=1)
    if (np.abs(total - 1) > 0.01).any():
        row = int(np.argmax(np.abs(total - 1) > 0.01))
        raise TableError(
            f"The probabilities of row {row} (record {_at(frame, 'record', row)}) add up to "
            f"{total[row]:.4g}; expected 1."
        )
    extreme = int(((p == 0) | (p == 1)).any(axis=1).sum())
    warnings = []
    if extreme:
        warnings.append(
            f"{extreme:,} rows have a probability of exactly 0 or 1; zeros were clipped at float "
            "precision, and records that are clipped in many models cannot be told apart. Give "
            "logits instead, if there are any."
        )
    # Zeros alone: a tiny probability is exact, and the leak may be in it.
    least = min(float(np.finfo(np.float64).eps), float(p[p > 0].min()))
    return np.log(np.where(p > 0, p, least)), warnings


def _class_numbers(frame: pd.DataFrame) -> NDArray[np.int64]:
    numbers = _numbers(frame, "label")
    bad = (numbers < 0) | (numbers != np.floor(numbers)) | (numbers > 100_000)
    if bad.any():
        row = int(np.argmax(bad))
        raise TableError(
            f"Column 'label' in row {row} (record {_at(frame, 'record', row)}) is "
            f"{numbers[row]:g}; expected a class index 0, 1, 2, ..."
        )
    return numbers.astype(np.int64)


def _class_index(heads: pd.DataFrame, classes: tuple[str, ...]) -> NDArray[np.int64]:
    return np.minimum(_class_numbers(heads), len(classes) - 1)


def _class_names(n: int) -> tuple[str, ...]:
    return tuple(str(i) for i in range(n))


def _at(frame: pd.DataFrame, column: str, row: int) -> str:
    """A cell as a message shows it."""
    return repr(plain(frame[column].iloc[row]))[:80]


def _refuse_compound(frame: pd.DataFrame) -> None:
    for name in frame.columns:
        if frame[name].dtype == object:
            compound = frame[name].map(lambda v: isinstance(v, list | dict | tuple | np.ndarray))
            if compound.any():
                raise TableError(
                    f"Column {name!r} holds lists or other compound values (row "
                    f"{int(np.argmax(compound))}); expected text or numbers."
                )


def _refuse_missing(frame: pd.DataFrame, column: str) -> None:
    missing = frame[column].isna().to_numpy()
    if missing.any():
        row = int(np.argmax(missing))
        record = "" if column == "record" else f" (record {_at(frame, 'record', row)})"
        raise TableError(f"Column {column!r} is missing in row {row}{record}.")


def _yes_or_no(frame: pd.DataFrame, column: str) -> NDArray[np.int64]:
    """0 or 1 from 0/1, true/false in any case."""
    codes, found = pd.factorize(frame[column])
    values = [_WORDS.get(str(v).strip().lower(), -1) for v in found]
    result = np.array([*values, -1], dtype=np.int64)[codes]
    if (result < 0).any():
        row = int(np.argmax(result < 0))
        raise TableError(
            f"Column {column!r} in row {row} (record {_at(frame, 'record', row)}) is "
            f"{_at(frame, column, row)}; expected 0 or 1."
        )
    return result


def _numbers(frame: pd.DataFrame, column: str) -> Floats:
    values = frame[column]
    if pd.api.types.is_datetime64_any_dtype(values) or pd.api.types.is_timedelta64_dtype(values):
        raise TableError(f"Column {column!r} holds times; expected numbers.")
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    bad = ~(np.abs(numbers) < _LARGEST)  # squares of larger numbers overflow
    if bad.any():
        row = int(np.argmax(bad))
        raise TableError(
            f"Column {column!r} in row {row} (record {_at(frame, 'record', row)}) is "
            f"{_at(frame, column, row)}; expected a finite number."
        )
    return numbers
