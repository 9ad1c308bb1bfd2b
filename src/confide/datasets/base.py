"""What a data set is: a cohort, the inputs of its records, and which records are held out.

A new source subclasses :class:`Source` in a file of its own and is named in
:data:`confide.datasets.KNOWN`.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from confide._tables import coded, plain, require_columns, text
from confide.cohort import Cohort
from confide.errors import ArgumentError, TableError


@dataclass(frozen=True, kw_only=True, eq=False)
class Data:
    """The records of a study, ready to train on.

    Parameters
    ----------
    cohort : all records, in the order of the user's table
    inputs : (n_records, n_features) float32, or (n_records, channels, height, width) uint8
    test : (n_records,) bool; held-out records, which no model is trained on
    feature_names : (n_features,) names, for tables
    notes : what the loader decided and left out, one sentence each

    Raises
    ------
    ArgumentError : shapes or types that do not fit
    TableError : no record is left to train on, or a patient is on both sides of the split
    """

    cohort: Cohort
    inputs: NDArray[Any]
    test: NDArray[np.bool_]
    feature_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n = self.cohort.n_records
        table = self.inputs.ndim == 2 and self.inputs.dtype == np.float32
        images = self.inputs.ndim == 4 and self.inputs.dtype == np.uint8
        if len(self.inputs) != n or not (table or images):
            raise ArgumentError(
                f"Expected inputs of {n} records, float32 (records, features) or uint8 (records, "
                f"channels, height, width), got {self.inputs.dtype} {self.inputs.shape}."
            )
        if table and len(self.feature_names) != self.inputs.shape[1]:
            raise ArgumentError(
                f"Expected {self.inputs.shape[1]} feature names, got {len(self.feature_names)}."
            )
        if self.test.shape != (n,) or self.test.dtype != bool:
            raise ArgumentError(
                f"Expected test of shape ({n},) and type bool, got {self.test.dtype} "
                f"{self.test.shape}."
            )
        if self.test.all():
            raise TableError("Every record is held out for the test; none is left to train on.")
        self._refuse_leak()

    def _refuse_leak(self) -> None:
        owner = self.cohort.patient_index
        n_test = np.bincount(owner, weights=self.test)
        both = (n_test > 0) & (n_test < self.cohort.records_per_patient)
        if both.any():
            patient = int(np.argmax(both))
            where = [
                f"record {plain(self.cohort.record[row])!r} (row {row})"
                for side in (~self.test, self.test)
                for row in np.flatnonzero((owner == patient) & side)[:1]
            ]
            raise TableError(
                f"Patient {plain(self.cohort.patients[patient])!r} is on both sides of the split: "
                f"{where[0]} in training, {where[1]} in test ({both.sum()} such patients in all); "
                "split by patient."
            )

    def fingerprint(self) -> str:
        """SHA-256 (hex) of records, patients, labels, groups, inputs and split.

        Equal data give equal fingerprints on every machine; notes and feature names do not count.
        """
        cohort = self.cohort
        # -1 for an unknown label, because NaN has many bit patterns.
        label = np.where(np.isnan(cohort.label), -1, cohort.label).astype("<i8")
        groups = {
            str(name): column.astype(object).where(column.notna(), None).tolist()
            for name, column in cohort.groups.items()
        }
        parts: dict[str, Any] = {
            "record": _json(cohort.record.tolist()),
            "patient": _json(cohort.patient.tolist()),
            "task": _json([cohort.task, *cohort.classes]),
            "label": np.ascontiguousarray(label),
            "groups": _json(groups),
            "shape": _json([str(self.inputs.dtype), *self.inputs.shape]),
            "inputs": np.ascontiguousarray(self.inputs, self.inputs.dtype.newbyteorder("<")),
            "test": np.packbits(self.test),
        }
        digest = hashlib.sha256()
        for name, part in parts.items():
            view = memoryview(part)
            digest.update(f"{name}:{view.nbytes}:".encode())
            digest.update(view.cast("B") if view.nbytes else b"")
        return digest.hexdigest()


def _json(value: Any) -> bytes:
    # Other types of ids and groups (decimals, dates) count by their text.
    return json.dumps(value, default=str).encode()


class Settings(BaseModel):
    """Frozen settings; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(Settings, ABC):
    """Where data come from: the `data:` block of a configuration.

    A subclass declares ``name: Literal["..."]``, its settings and a one-line `description`.
    """

    description: ClassVar[str]

    name: str

    @abstractmethod
    def load(self, folder: Path = Path()) -> Data:
        """Read the data; relative paths are relative to `folder`.

        Raises
        ------
        MissingFileError, TableError, ImageError : input that cannot be used; names the file, row
            and column
        """


class ByFraction(Settings):
    """Hold out a random share of the patients."""

    fraction: float = Field(default=0.2, gt=0, lt=1)
    seed: int = Field(default=0, ge=0)

    def mask(self, cohort: Cohort, frame: pd.DataFrame) -> NDArray[np.bool_]:
        """(n_records,) bool, true for held-out records."""
        return cohort.split(self.fraction, self.seed)[1]


class ByColumn(Settings):
    """Hold out the records that have a value in a column of the table."""

    column: str
    value: str | int

    def mask(self, cohort: Cohort, frame: pd.DataFrame) -> NDArray[np.bool_]:
        """(n_records,) bool, true for held-out records."""
        require_columns(frame, [self.column])
        codes, values = coded(frame[self.column], self.column)
        if (codes < 0).any():
            row = int(np.argmax(codes < 0))
            raise TableError(
                f"Column {self.column!r} of the split is missing in row {row}; "
                "give every record its side."
            )
        names = [text(value) for value in values]
        if text(self.value) not in names:
            known = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
            raise TableError(
                f"No record has the value {self.value!r} in column {self.column!r} of the split; "
                f"its values are {known}."
            )
        test: NDArray[np.bool_] = codes == names.index(text(self.value))
        return test


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put the name of the file before every TableError raised inside."""
    try:
        yield
    except TableError as error:
        raise TableError(f"{path}: {error}") from error
