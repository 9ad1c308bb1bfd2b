"""Any ECGs, or other signals of several leads: a table and an array."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from confide.datasets.arrays import open_array
from confide.datasets.base import (
    ByColumn,
    ByFraction,
    Data,
    Label,
    Opened,
    Source,
    fingerprint_of_files,
    naming,
    read_cohort,
)
from confide.errors import TableError

_TYPES = (np.float32, np.float64, np.int16)
_MAX_NUMBERS = 100_000_000  # of a record


class Ecg(Source):
    """A table with one row per ECG, and all ECGs in an array, in the order of the table.

    The array is (n_records, n_samples, n_leads) float32, float64 or int16, in any unit.  Records
    are read as (n_leads, n_samples) float32 of the same numbers.

    Parameters
    ----------
    path : the table, CSV or Parquet
    array : an .npz or .npy file
    array_key : name of the array in an .npz file; the first by default
    patient, label, groups, record, test : as in :class:`confide.datasets.Table`
    """

    description: ClassVar[str] = "any ECGs: a table and an array (records, samples, leads)"

    name: Literal["ecg"] = "ecg"
    path: Path
    array: Path
    array_key: str | None = None
    patient: str
    label: Label
    groups: tuple[str, ...] | dict[str, list[float]] = ()
    record: str | None = None
    test: ByFraction | ByColumn = ByFraction()

    def load(self, folder: Path = Path()) -> Data:
        """See :meth:`Source.load`."""
        return self.open(folder).load()

    def open(self, folder: Path = Path(), reading: Mapping[str, Any] | None = None) -> Opened:
        """See :meth:`Source.open`; an ECG with a number that is not finite raises when read."""
        path = folder / self.path
        frame, cohort, test = read_cohort(
            path,
            patient=self.patient,
            label=self.label,
            record=self.record,
            groups=self.groups,
            test=self.test,
        )

        def check(what: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
            _check_array(what, shape, dtype, len(frame))

        where = folder / self.array
        stored = open_array(where, self.array_key, check, error=TableError)
        _, n_samples, n_leads = stored.array.shape
        with naming(path):
            return Opened(
                cohort=cohort,
                test=test,
                frame=frame,
                reserved=(self.patient, *([self.record] if self.record else [])),
                shape=(n_leads, n_samples),
                read=lambda rows: _read(stored.array, rows, where),
                fingerprint=lambda: fingerprint_of_files(cohort, test, [], stored.mark()),
            )


def _check_array(what: str, shape: tuple[int, ...], dtype: np.dtype[Any], n_records: int) -> None:
    if dtype not in _TYPES:
        raise TableError(f"{what} is of type {dtype}; expected float32, float64 or int16.")
    if len(shape) != 3:
        raise TableError(f"{what} is of shape {shape}; expected (records, samples, leads).")
    if shape[0] != n_records:
        raise TableError(
            f"{what} has {shape[0]} records for a table of {n_records} rows; expected one a row."
        )
    if shape[1] * shape[2] > _MAX_NUMBERS:
        raise TableError(
            f"{what} has records of {shape[1]:,} samples x {shape[2]:,} leads; expected at most "
            f"{_MAX_NUMBERS:,} numbers each, cut them into shorter ones."
        )


def _read(array: NDArray[Any], rows: NDArray[np.intp], path: Path) -> NDArray[np.float32]:
    """(n, n_leads, n_samples) float32 of some rows of (n_records, n_samples, n_leads)."""
    with np.errstate(over="ignore"):  # what is too large for float32 is refused below
        read = np.ascontiguousarray(np.moveaxis(array[rows], 1, 2), dtype=np.float32)
    bad = ~np.isfinite(read)
    if bad.any():
        at, lead, sample = (int(i) for i in np.argwhere(bad)[0])
        raise TableError(
            f"{path}: row {rows[at]}, sample {sample}, lead {lead} is "
            f"{array[rows[at], sample, lead]}; expected finite numbers within float32. Fill gaps "
            "in or leave the record out."
        )
    return read
