"""A cohort: records, the patient of each, labels and groups.

Patients are the unit of privacy.  A mask of patients becomes a mask of records in one place only,
:meth:`Cohort.expand`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confide._tables import Task, group_columns, label_columns, plain, require_columns
from confide.errors import ArgumentError, TableError

__all__ = ["Cohort", "Task"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Cohort:
    """The records of a study, in the order of the user's table.

    Parameters
    ----------
    record : (n_records,) strings or integers, unique
    patient : (n_records,) strings or integers; the owner of each record
    label : (n_records,) int64 class index for binary and multiclass tasks;
        (n_records, n_labels) float for multilabel, 1, 0 or NaN for unknown
    task : "binary", "multiclass" or "multilabel"
    classes : names of the classes (or, for multilabel, of the labels)
    groups : one column per group, one row per record; missing values allowed

    Raises
    ------
    ArgumentError : lengths differ, or labels do not fit the task
    TableError : a record id is given twice, or an id is missing or is neither text nor a whole
        number
    """

    record: NDArray[Any]
    patient: NDArray[Any]
    label: NDArray[Any]
    task: Task
    classes: tuple[str, ...]
    groups: pd.DataFrame = field(default_factory=pd.DataFrame)

    def __post_init__(self) -> None:
        for name in ("record", "patient", "label"):
            object.__setattr__(self, name, np.asarray(getattr(self, name)))
        n = len(self.record)
        if len(self.patient) != n or len(self.label) != n:
            raise ArgumentError(
                f"Expected record, patient and label of one length, got {n}, "
                f"{len(self.patient)} and {len(self.label)}."
            )
        if n == 0:
            raise TableError("The cohort is empty; at least one record is needed.")
        if self.groups.shape[1] and len(self.groups) != n:
            raise ArgumentError(f"Expected {n} rows of groups, got {len(self.groups)}.")
        # Rows of groups are found by position, whatever index the user's table had.
        groups = self.groups if self.groups.shape[1] else pd.DataFrame(index=range(n))
        object.__setattr__(self, "groups", groups.set_axis(range(n)))
        _check_ids(self.record, "record")
        _check_ids(self.patient, "patient")
        twice = pd.Series(self.record).duplicated().to_numpy()
        if twice.any():
            row = int(np.argmax(twice))
            raise TableError(
                f"Record {plain(self.record[row])!r} (row {row}) is given twice; ids are unique."
            )
        self._check_labels()

    def _check_labels(self) -> None:
        label = self.label
        if self.task == "multilabel":
            if label.ndim != 2 or label.shape[1] != len(self.classes):
                raise ArgumentError(
                    f"Expected multilabel labels of shape ({len(self.record)}, "
                    f"{len(self.classes)}), got {label.shape}."
                )
            bad = ~(np.isnan(label) | (label == 0) | (label == 1))
            if bad.any():
                row, column = np.argwhere(bad)[0]
                raise TableError(
                    f"Label {self.classes[column]!r} of record {plain(self.record[row])!r} is "
                    f"{label[row, column]}; expected 0, 1 or missing."
                )
            return
        if label.ndim != 1 or not np.issubdtype(label.dtype, np.integer):
            raise ArgumentError("Expected one class index (an integer) for each record.")
        if label.min() < 0 or label.max() >= len(self.classes):
            raise ArgumentError(
                f"Expected class indices in [0, {len(self.classes) - 1}], "
                f"got {label.min()} to {label.max()}."
            )
        if self.task == "binary" and len(self.classes) != 2:
            raise ArgumentError(f"A binary task has two classes, got {len(self.classes)}.")

    @property
    def n_records(self) -> int:
        """Number of records."""
        return len(self.record)

    @property
    def n_patients(self) -> int:
        """Number of patients."""
        return len(self.patients)

    @cached_property
    def _factorized(self) -> tuple[NDArray[np.intp], NDArray[Any]]:
        codes, patients = pd.factorize(pd.Series(self.patient))
        return codes.astype(np.intp), np.asarray(patients)

    @property
    def patients(self) -> NDArray[Any]:
        """(n_patients,) ids in order of first appearance in the table."""
        return self._factorized[1]

    @property
    def patient_index(self) -> NDArray[np.intp]:
        """(n_records,) row of each record's patient in `patients`."""
        return self._factorized[0]

    @cached_property
    def records_per_patient(self) -> NDArray[np.int64]:
        """(n_patients,) number of records of each patient."""
        return np.bincount(self.patient_index, minlength=self.n_patients)

    def expand(self, membership: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Membership of patients -> membership of their records.

        Parameters
        ----------
        membership : (n_models, n_patients) or (n_patients,) bool

        Returns
        -------
        (n_models, n_records) or (n_records,) bool
        """
        if membership.shape[-1] != self.n_patients:
            raise ArgumentError(
                f"Expected membership of {self.n_patients} patients, got {membership.shape[-1]}."
            )
        return membership[..., self.patient_index]

    def select(self, rows: NDArray[Any]) -> Cohort:
        """The cohort of some records: a boolean mask or row numbers of shape (n,)."""
        return Cohort(
            record=self.record[rows],
            patient=self.patient[rows],
            label=self.label[rows],
            task=self.task,
            classes=self.classes,
            groups=self.groups.iloc[np.arange(self.n_records)[rows]].reset_index(drop=True),
        )

    def patient_groups(self) -> tuple[pd.DataFrame, dict[str, int]]:
        """Groups of patients: the value of the first record of each patient.

        Returns
        -------
        table : (n_patients, n_groups)
        conflicts : for each group the number of patients with two or more different values;
            a missing value is no other value
        """
        first = np.full(self.n_patients, -1, dtype=np.intp)
        # Written backwards, so that the first record of a patient is the one that stays.
        first[self.patient_index[::-1]] = np.arange(self.n_records)[::-1]
        table = self.groups.iloc[first].reset_index(drop=True)
        conflicts: dict[str, int] = {}
        for name in self.groups.columns:
            codes = pd.factorize(self.groups[name])[0]
            n_codes = int(codes.max(initial=0)) + 1
            pairs = np.unique((self.patient_index * n_codes + codes)[codes >= 0])
            n_values = np.bincount(pairs // n_codes)
            conflicts[str(name)] = int((n_values > 1).sum())
        return table, conflicts

    def split(self, fraction: float, seed: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Split records into (train, test) masks so that no patient is on both sides.

        `fraction` of the patients (rounded, at least one on each side) are test patients.
        """
        if not 0 < fraction < 1:
            raise ArgumentError(f"Expected fraction={fraction} strictly between 0 and 1.")
        n_test = min(max(round(fraction * self.n_patients), 1), self.n_patients - 1)
        if n_test < 1:
            raise TableError("A single patient cannot be split into training and test.")
        chosen = np.random.default_rng(seed).permutation(self.n_patients)[:n_test]
        test = self.expand(np.isin(np.arange(self.n_patients), chosen))
        return ~test, test

    @classmethod
    def from_frame(
        cls,
        frame: pd.DataFrame,
        *,
        patient: str,
        label: str | Sequence[str] | None,
        record: str | None = None,
        groups: Sequence[str] | Mapping[str, Sequence[float]] = (),
    ) -> Cohort:
        """Build a cohort from columns of a table.

        Parameters
        ----------
        frame : one row per record
        patient, label, record : names of columns; a list of labels makes a multilabel cohort,
            None one of records that are only looked at, multilabel without a label;
            without `record` the row numbers are the record ids
        groups : names of columns, or {column: edges} to cut a number into bands; edges 40 and 60
            make "<40", "40-59" and ">=60", no edges leave the column as it is

        Raises
        ------
        TableError : a column is missing, a label has one class or is missing, a group has more
            than 50 values, an id is missing or given twice; the message names row and column
        """
        groups = [groups] if isinstance(groups, str) else groups
        require_columns(frame, [patient, *([record] if record else [])])
        values: NDArray[Any] = np.empty((len(frame), 0))
        task: Task = "multilabel"
        classes: tuple[str, ...] = ()
        if label is not None:
            values, task, classes = label_columns(frame, label)
        return cls(
            record=frame[record].to_numpy() if record else np.arange(len(frame)),
            patient=frame[patient].to_numpy(),
            label=values,
            task=task,
            classes=classes,
            groups=group_columns(frame, groups),
        )


def _check_ids(ids: NDArray[Any], kind: str) -> None:
    missing = pd.isna(ids)
    if not missing.any() and ids.dtype.kind in "OU":
        missing = np.asarray(ids == "", dtype=bool)
    if missing.any():
        row = int(np.argmax(missing))
        raise TableError(
            f"Row {row} has no {kind} id; give every record its {kind} or leave it out."
        )
    if ids.dtype.kind == "f" and (ids != np.floor(ids)).any():
        row = int(np.argmax(ids != np.floor(ids)))
        raise TableError(
            f"The {kind} id in row {row} is {ids[row]}; expected text or whole numbers. "
            "Numbers such as 1.1 and 1.10 would be taken for one."
        )
    if ids.dtype.kind == "O":
        kinds = {str if isinstance(one, str) else type(one) for one in ids}
        if len(kinds) > 1:
            # 7 and "7" may be one person, and would be split or counted as two.
            names = " and ".join(sorted(one.__name__ for one in kinds))
            raise TableError(f"The {kind} ids are partly {names}; convert all of them to text.")
