"""What a data set is: a cohort, the inputs of its records, and which records are held out.

A new source subclasses :class:`Source` in a file of its own and is named in
:data:`confide.datasets.KNOWN`.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from confide._tables import coded, plain, read_table, require_columns, text
from confide.cohort import Cohort
from confide.datasets.reading import Progress, silent
from confide.errors import ArgumentError, TableError

_READ_AT_ONCE = 1024  # records


@dataclass(frozen=True, kw_only=True, eq=False)
class Data:
    """The records of a study, ready to train on.

    Parameters
    ----------
    cohort : all records, in the order of the user's table
    inputs : (n_records, n_features) float32, (n_records, n_leads, n_samples) float32, or
        (n_records, channels, height, width) uint8
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
        signals = self.inputs.ndim == 3 and self.inputs.dtype == np.float32
        images = self.inputs.ndim == 4 and self.inputs.dtype == np.uint8
        if len(self.inputs) != n or not (table or signals or images):
            raise ArgumentError(
                f"Expected inputs of {n} records, float32 (records, features) or (records, leads, "
                "samples), or uint8 (records, channels, height, width), got "
                f"{self.inputs.dtype} {self.inputs.shape}."
            )
        if table and len(self.feature_names) != self.inputs.shape[1]:
            raise ArgumentError(
                f"Expected {self.inputs.shape[1]} feature names, got {len(self.feature_names)}."
            )
        _check_split(self.cohort, self.test)

    def fingerprint(self) -> str:
        """SHA-256 (hex) of records, patients, labels, groups, inputs and split.

        Equal data give equal fingerprints on every machine; notes and feature names do not count.
        """
        parts = {
            "shape": _json([str(self.inputs.dtype), *self.inputs.shape]),
            "inputs": np.ascontiguousarray(self.inputs, self.inputs.dtype.newbyteorder("<")),
        }
        return _fingerprint(self.cohort, parts, self.test)


@dataclass(frozen=True, kw_only=True, eq=False)
class Opened:
    """The records of a study, read some at a time and in any order.

    Memory does not grow with the inputs of records that are not asked for, unless the source
    holds them anyway (tables, made-up data).

    Parameters
    ----------
    cohort : all records, in the order of the user's table
    test : (n_records,) bool; held-out records
    frame : the user's table, one row per record
    reserved : columns of the frame that name records, patients or files
    shape : shape of one record, as in :class:`Data` without the first axis
    read : row numbers (n,), in any order -> their inputs (n, *shape), float32 or uint8
    notes : what the loader decided and left out, one sentence each
    fingerprint : -> SHA-256 (hex) of the records, patients, labels, groups, split and of what
        makes the inputs: the inputs themselves where they are in memory, otherwise the settings
        and the names and contents of files, all of which are read for it
    reading : how the inputs are read where that was decided from all of them, as JSON values for
        :meth:`Source.open`; {"scale": float, "channels": 1 or 3} for :class:`Images`, else {}

    Raises
    ------
    ArgumentError, TableError : as :class:`Data`
    """

    cohort: Cohort
    test: NDArray[np.bool_]
    frame: pd.DataFrame | None
    reserved: tuple[str, ...]
    shape: tuple[int, ...]
    read: Callable[[NDArray[np.intp]], NDArray[Any]] = field(repr=False)
    notes: tuple[str, ...] = ()
    fingerprint: Callable[[], str] = field(repr=False)
    reading: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_split(self.cohort, self.test)

    def load(self, progress: Progress = silent) -> Data:
        """All records, with their inputs in memory.

        Parameters
        ----------
        progress : called with (records finished, records in all)
        """
        n = self.cohort.n_records
        inputs: NDArray[Any] = np.empty(0)
        for start in range(0, n, _READ_AT_ONCE):
            stop = min(start + _READ_AT_ONCE, n)
            some = self.read(np.arange(start, stop))
            if len(some) != stop - start:  # one would otherwise stand for all
                raise ArgumentError(
                    f"A source returned {len(some)} inputs for {stop - start} rows (from row "
                    f"{start}); its `read` has to return one a row."
                )
            if not start:
                inputs = np.empty((n, *some.shape[1:]), some.dtype)
            inputs[start:stop] = some
            progress(stop, n)
        return Data(cohort=self.cohort, inputs=inputs, test=self.test, notes=self.notes)


def _check_split(cohort: Cohort, test: NDArray[np.bool_]) -> None:
    n = cohort.n_records
    if test.shape != (n,) or test.dtype != bool:
        raise ArgumentError(
            f"Expected test of shape ({n},) and type bool, got {test.dtype} {test.shape}."
        )
    if test.all():
        raise TableError("Every record is held out for the test; none is left to train on.")
    owner = cohort.patient_index
    n_test = np.bincount(owner, weights=test)
    both = (n_test > 0) & (n_test < cohort.records_per_patient)
    if both.any():
        patient = int(np.argmax(both))
        where = [
            f"record {plain(cohort.record[row])!r} (row {row})"
            for side in (~test, test)
            for row in np.flatnonzero((owner == patient) & side)[:1]
        ]
        raise TableError(
            f"Patient {plain(cohort.patients[patient])!r} is on both sides of the split: "
            f"{where[0]} in training, {where[1]} in test ({both.sum()} such patients in all); "
            "split by patient."
        )


def fingerprint_of_files(
    cohort: Cohort, test: NDArray[np.bool_], names: Sequence[str], marks: Sequence[Any]
) -> str:
    """SHA-256 (hex) of a cohort, its split, and inputs that are known by their files.

    Parameters
    ----------
    cohort, test : as in :class:`Opened`
    names : names of the files, relative to their folder
    marks : plain values that change with the contents of the files or with how they are read
    """
    return _fingerprint(cohort, {"files": _json([list(names), list(marks)])}, test)


def _fingerprint(cohort: Cohort, inputs: dict[str, Any], test: NDArray[np.bool_]) -> str:
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
        **inputs,
        "test": np.packbits(test),
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


Label = str | Annotated[tuple[str, ...], Field(min_length=1)]
"""A column of classes, or columns of 1, 0 and missing."""


class Source(Settings, ABC):
    """Where data come from: the `data:` block of a configuration.

    A subclass declares ``name: Literal["..."]``, its settings and a one-line `description`.
    """

    description: ClassVar[str]

    name: str

    _progress: Progress | None = PrivateAttr(default=None)

    @property
    def progress(self) -> Progress:
        """Whom reading is told."""
        return self._progress or silent

    def telling(self, progress: Progress) -> Self:
        """The same source, which tells how far it has read where that takes long.

        Images tell of it, in :meth:`open` while a cache is filled and in :meth:`load`.

        Parameters
        ----------
        progress : called with (records read, records in all), from the first again for each pass
        """
        source = self.model_copy()
        source._progress = progress
        return source

    @abstractmethod
    def load(self, folder: Path = Path()) -> Data:
        """Read the data; relative paths are relative to `folder`.

        Raises
        ------
        MissingFileError, TableError, ImageError : input that cannot be used; names the file, row
            and column
        """

    def unlabelled(self) -> Self:
        """The same source for records that are only looked at: no labels, groups or split.

        The columns of labels and groups need not be there, and one patient is enough.
        """
        blank: dict[str, Any] = {"label": None, "groups": (), "test": Nobody()}
        return self.model_copy(
            update={name: value for name, value in blank.items() if name in type(self).model_fields}
        )

    def open(self, folder: Path = Path(), reading: Mapping[str, Any] | None = None) -> Opened:
        """Prepare to read the records some at a time; raises as :meth:`load`.

        A source whose records need not all be in memory overrides this, and loads by
        :meth:`Opened.load`.

        Parameters
        ----------
        folder : relative paths are relative to it
        reading : :attr:`Opened.reading` of records opened before, to read these in the same way;
            without meaning for sources that decide nothing from all records
        """
        data = self.load(folder)
        return Opened(
            cohort=data.cohort,
            test=data.test,
            frame=data.cohort.groups,
            reserved=(),
            shape=data.inputs.shape[1:],
            read=lambda rows: data.inputs[rows],
            notes=data.notes,
            fingerprint=data.fingerprint,
        )


class Nobody(Settings):
    """Hold out nobody."""

    def mask(self, cohort: Cohort, frame: pd.DataFrame) -> NDArray[np.bool_]:
        """(n_records,) bool, false."""
        return np.zeros(cohort.n_records, dtype=bool)


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


def read_cohort(
    path: Path,
    *,
    patient: str,
    label: str | Sequence[str] | None,
    record: str | None,
    groups: Sequence[str] | Mapping[str, Sequence[float]],
    test: ByFraction | ByColumn,
) -> tuple[pd.DataFrame, Cohort, NDArray[np.bool_]]:
    """A table, the cohort of its columns, and its held-out records; raises TableError."""
    frame = read_table(path)
    with naming(path):
        cohort = Cohort.from_frame(
            frame, patient=patient, label=label, record=record, groups=groups
        )
        return frame, cohort, test.mask(cohort, frame)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put the name of the file before every TableError raised inside."""
    try:
        yield
    except TableError as error:
        raise TableError(f"{path}: {error}") from error
