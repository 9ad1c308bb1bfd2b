"""PTB-XL: 21,799 twelve-lead ECGs of 10 seconds, of 18,869 patients."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confide._tables import refuse_values
from confide.datasets.base import (
    ByColumn,
    ByFraction,
    Data,
    Label,
    Opened,
    fingerprint_of_files,
    naming,
)
from confide.datasets.folders import present
from confide.datasets.published import FILE, PATIENT, RECORD, Listed, Published, age_bands
from confide.datasets.published_words import counted
from confide.datasets.wfdb import Header, read_header, read_signals
from confide.errors import MissingFileError, TableError

SUPERCLASSES = ("NORM", "MI", "STTC", "CD", "HYP")
"""Normal, myocardial infarction, ST/T change, conduction disturbance, hypertrophy (Wagner et al.
2020, table 5)."""

_DATABASE, _STATEMENTS = "ptbxl_database.csv", "scp_statements.csv"
_FILES = {100: "filename_lr", 500: "filename_hr"}
_SEX = {0: "Male", 1: "Female"}
_OVER_89 = 300  # what the publisher writes for an age above 89

# A Python dictionary of statements and likelihoods, as {'NORM': 100.0, 'SR': 0.0}; never evaluated.
_PAIR = r"'[^'\\]{1,20}': ?[0-9]{1,3}(?:\.[0-9]{1,3})?"
_CODES = re.compile(rf"\{{(?:{_PAIR}(?:, ?{_PAIR}){{0,99}})?\}}")
_CODE = re.compile(r"'([^']+)'")


class PtbXl(Published):
    """PTB-XL, a large publicly available electrocardiography dataset (Wagner et al. 2020).

    Records are (12, 1000) or (12, 5000) float32 in millivolts, with the leads in the order of the
    files.  A super-class is 1 where the record has a diagnostic statement of it, of any
    likelihood, else 0.

    Parameters
    ----------
    path : the folder with ptbxl_database.csv, scp_statements.csv, records100 or records500
    rate : 100 or 500 samples per second
    label : some of the five super-classes; one alone makes a binary task
    unclassified : records without any diagnostic statement: leave them out, or keep as `negative`,
        with 0 for all five
    groups : some of sex, age (band) and extra_systole (something is noted in `extra_beats`)
    test : which patients are held out; by default fold 10, as the publisher recommends
    """

    description: ClassVar[str] = "PTB-XL: 12-lead ECGs with five diagnostic super-classes"
    homepage: ClassVar[str] = "https://physionet.org/content/ptb-xl/"
    labels: ClassVar[tuple[str, ...]] = SUPERCLASSES
    all_groups: ClassVar[tuple[str, ...]] = ("sex", "age", "extra_systole")

    name: Literal["ptb-xl"] = "ptb-xl"
    label: Label = SUPERCLASSES
    rate: Literal[100, 500] = 100
    unclassified: Literal["leave_out", "negative"] = "leave_out"
    test: ByFraction | ByColumn = ByColumn(column="strat_fold", value=10)

    def load(self, folder: Path = Path()) -> Data:
        """See :meth:`Source.load`."""
        return self.open(folder).load()

    def open(self, folder: Path = Path(), reading: Mapping[str, Any] | None = None) -> Opened:
        """See :meth:`Source.open`; the signals of a record are read when they are asked for."""
        root = folder / self.path
        listed, cohort, test = self.cohort(root)
        names = listed.frame[FILE].tolist()
        with naming(root):
            headers = present(root, [f"{name}.hea" for name in names])
            signals = present(root, [f"{name}.dat" for name in names])
            first = read_header(headers[0])
            self._check(first, first, headers[0])

        def read(rows: NDArray[np.intp]) -> NDArray[np.float32]:
            result = np.empty((len(rows), len(first.leads), first.n_samples), dtype=np.float32)
            for i, row in enumerate(rows.tolist()):
                result[i] = self._signals(headers[row], first, row)
            return result

        return Opened(
            cohort=cohort,
            test=test,
            frame=listed.frame,
            reserved=(RECORD, PATIENT, FILE),
            shape=(len(first.leads), first.n_samples),
            read=read,
            notes=self.notes(listed),
            fingerprint=lambda: fingerprint_of_files(
                cohort, test, names, [_digest(path) for path in (*headers, *signals)]
            ),
        )

    def listed(self, root: Path) -> Listed:
        """See :meth:`Published.listed`."""
        file = _FILES[self.rate]
        needed = ("ecg_id", "patient_id", "scp_codes", "strat_fold", file)
        path, table = self.table(root, _DATABASE, columns=needed)
        with naming(path):
            frame = pd.DataFrame(
                {
                    RECORD: table["ecg_id"],
                    PATIENT: _whole(table["patient_id"]),
                    FILE: table[file],
                    "strat_fold": _folds(table["strat_fold"]),
                }
            )
            absent = _add_groups(frame, table)
            if not self.wanted_labels:
                return Listed(frame=frame, absent=absent)
            found = _superclasses(table["scp_codes"], self._classes(root))
        frame = pd.concat([frame, found], axis=1)
        none = ~found.any(axis=1).to_numpy()
        if self.unclassified == "negative":
            who = counted(int(none.sum()), "record has", "records have")
            says = f"{who} no diagnostic statement; taken as negative."
            return Listed(frame=frame, absent=absent, notes=(says,))
        says = f"{none.sum():,} of {len(frame):,} records have no diagnostic statement; left out."
        return Listed(frame=frame[~none].reset_index(drop=True), absent=absent, notes=(says,))

    def _classes(self, root: Path) -> dict[str, str | None]:
        """The super-class of each statement, None for those of form and rhythm."""
        needed = ("diagnostic", "diagnostic_class")
        path, table = self.table(root, _STATEMENTS, columns=needed)
        # The column of the codes has no name in the publisher's file.
        codes = table[table.columns[0]].astype(str)
        diagnostic = pd.to_numeric(table["diagnostic"], errors="coerce") == 1
        classes = table["diagnostic_class"].where(diagnostic, None)
        for code, name in zip(codes, classes, strict=True):
            if isinstance(name, str) and name not in SUPERCLASSES:
                raise TableError(
                    f"{path}: statement {code!r} is of class {name!r}; expected one of "
                    f"{', '.join(SUPERCLASSES)}."
                )
        return {
            code: name if isinstance(name, str) else None
            for code, name in zip(codes, classes, strict=True)
        }

    def _signals(self, path: Path, first: Header, row: int) -> NDArray[np.float32]:
        try:
            header = read_header(path)
            self._check(header, first, path)
            return read_signals(path, header)
        except (TableError, MissingFileError) as error:
            raise type(error)(f"Row {row}: {error}") from error

    def _check(self, header: Header, first: Header, path: Path) -> None:
        """Refuse records that are not like the first one, or not in the publisher's layout."""
        signals = path.with_suffix(".dat").name
        if header.file != signals:  # the fingerprint covers this file
            raise TableError(f"{path} names the signal file {header.file!r}; expected {signals!r}.")
        if header.rate != self.rate:
            raise TableError(
                f"{path} has {header.rate:g} samples per second; expected {self.rate}."
            )
        if header.names != first.names or header.n_samples != first.n_samples:
            raise TableError(
                f"{path} has {header.n_samples} samples of the leads {', '.join(header.names)}; "
                f"the first record has {first.n_samples} of {', '.join(first.names)}."
            )


def _whole(column: pd.Series[Any]) -> pd.Series[Any]:
    """Ids that are written as 15709.0, as whole numbers."""
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    bad = ~(np.isfinite(numbers) & (numbers == np.floor(numbers)) & (np.abs(numbers) < 2**53))
    refuse_values(column, bad, "a whole number")
    return pd.Series(numbers.astype(np.int64), index=column.index, name=column.name)


def _folds(column: pd.Series[Any]) -> pd.Series[Any]:
    """The publisher's folds as whole numbers; one that is not given stays a gap."""
    numbers = pd.to_numeric(column, errors="coerce")
    bad = (column.notna() & ~numbers.isin(range(1, 11))).to_numpy(bool)
    refuse_values(column, bad, "a fold from 1 to 10, or nothing")
    return numbers.astype("Int64").astype(object).where(numbers.notna(), np.nan)


def _add_groups(frame: pd.DataFrame, table: pd.DataFrame) -> dict[str, str]:
    """Add the groups whose columns are there, and say why the others are not."""
    absent = {}
    for group, column in (("sex", "sex"), ("age", "age"), ("extra_systole", "extra_beats")):
        if column not in table:
            absent[group] = f"{_DATABASE} has no column {column!r}"
        elif group == "sex":
            frame[group] = _sex(table[column])
        elif group == "age":
            # Of the band 80+; all other ages are below 90.
            frame[group] = age_bands(table[column].replace(_OVER_89, 90))
        else:
            frame[group] = np.where(table[column].notna(), "yes", "no")
    return absent


def _sex(column: pd.Series[Any]) -> pd.Series[Any]:
    bad = (column.notna() & ~column.isin(list(_SEX))).to_numpy()
    refuse_values(column, bad, "0 (male), 1 (female) or nothing")
    return column.map(_SEX)


def _superclasses(column: pd.Series[Any], classes: Mapping[str, str | None]) -> pd.DataFrame:
    """(n_records, 5) of 1 and 0: whether a record has a diagnostic statement of the class."""
    found = np.zeros((len(column), len(SUPERCLASSES)), dtype=np.int64)
    for row, text in enumerate(column):
        for code in _statements(text, row):
            if code not in classes:
                raise TableError(
                    f"Statement {code!r} of row {row} is not in {_STATEMENTS}; take both files "
                    "from the same version of the data set."
                )
            name = classes[code]
            if name is not None:
                found[row, SUPERCLASSES.index(name)] = 1
    return pd.DataFrame(found, columns=list(SUPERCLASSES), index=column.index)


def _statements(text: object, row: int) -> Sequence[str]:
    if not isinstance(text, str) or not _CODES.fullmatch(text):
        raise TableError(
            f"Column 'scp_codes' in row {row} is {str(text)[:60]!r}; expected statements and "
            "likelihoods, such as {'NORM': 100.0, 'SR': 0.0}."
        )
    return _CODE.findall(text)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
