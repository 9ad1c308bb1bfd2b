"""Data sets in the layout of their publishers: a user with access names the folder and is done.

A subclass gives `description`, `homepage`, `labels`, `all_groups`, defaults for its settings, and
:meth:`Published.listed`, which reads the publisher's tables into one frame; `chexpert.py` is the
example to follow.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field, model_validator

from confide._check import did_you_mean
from confide._tables import plain, read_table, require_columns
from confide.cohort import Cohort
from confide.datasets.base import (
    ByColumn,
    ByFraction,
    Data,
    Label,
    Opened,
    Source,
    naming,
)
from confide.datasets.folders import present
from confide.datasets.image_files import Files, Size
from confide.datasets.images import Side, opened_pictures
from confide.datasets.pixels import ANY, Pictures, open_files
from confide.datasets.published_words import counted
from confide.datasets.reading import Channels, Reading
from confide.errors import MissingFileError, TableError

RECORD, PATIENT, FILE = "record", "patient", "file"
"""Columns of every frame that :meth:`Published.listed` gives; `file` in sets of images alone."""

AGE_BANDS = ("0-19", "20-39", "40-59", "60-79", "80+")
"""Bands of age in years, the same in all published data sets."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Listed:
    """What the tables of a publisher list.

    Parameters
    ----------
    frame : one row per record, with `record`, `patient`, of images `file` (relative to the
        folder), the labels, the groups that could be made, and columns of a split
    absent : {group: why it could not be made, and what is needed, as half a sentence}
    notes : what was decided and left out, with counts, one sentence each
    """

    frame: pd.DataFrame
    absent: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def only(self, rows: NDArray[np.intp], note: str) -> Listed:
        """Some of the records, (n,) row numbers, and why the others are left out."""
        frame = self.frame.iloc[rows].reset_index(drop=True)
        return replace(self, frame=frame, notes=(*self.notes, note))


class Published(Source):
    """A data set in its publisher's layout.

    Parameters
    ----------
    path : the folder of the data set
    label : which labels; a name makes a task of classes, a list one of 1, 0 and unknown
    groups : which groups; by default all that the files give
    test : which patients are held out
    """

    homepage: ClassVar[str]
    """Where the data set is to be had."""
    labels: ClassVar[tuple[str, ...]]
    """Every label that can be named."""
    all_groups: ClassVar[tuple[str, ...]]
    """Every group that can be named."""

    path: Path
    label: Label
    groups: tuple[str, ...] | None = None
    test: ByFraction | ByColumn = ByFraction()

    @model_validator(mode="after")
    def _known(self) -> Self:
        named = [self.label] if isinstance(self.label, str) else self.label
        for key, names, known in (
            ("label", named, self.labels),
            ("groups", self.groups or (), self.all_groups),
        ):
            for name in names:
                if name not in known:
                    near = did_you_mean(name, known).partition(" Known:")[0]
                    raise ValueError(
                        f"{self.name} has no {name!r} for `{key}`, only {', '.join(known)}.{near}"
                    )
        return self

    @abstractmethod
    def listed(self, root: Path) -> Listed:
        """Read the publisher's tables.

        Columns of labels are needed for :attr:`wanted_labels` alone, so that records can be looked
        at without.

        Parameters
        ----------
        root : the folder of the data set, which is there
        """

    @property
    def wanted_labels(self) -> tuple[str, ...]:
        """Names of the labels that were asked for; none of an unlabelled source."""
        label: Label | None = self.label  # None in a source that is only looked at
        return (label,) if isinstance(label, str) else label or ()

    def wants(self, group: str) -> bool:
        """Whether a group was asked for, by name or by default."""
        return self.groups is None or group in self.groups

    def find(self, root: Path, *names: str) -> Path | None:
        """The first of some tables that is in the folder, as CSV or gzipped CSV; None without any.

        Parameters
        ----------
        root : the folder
        names : names below the folder, such as "train.csv" or "hosp/patients.csv"

        Raises
        ------
        TableError : there is the table as a spreadsheet alone
        """
        for name in names:
            for path in (root / name, root / f"{name}.gz"):
                if path.is_file():
                    return path
        for name in names:
            sheet = (root / name).with_suffix(".xlsx")
            if sheet.is_file():
                raise TableError(f"{sheet} is a spreadsheet; save it as CSV, {sheet.stem}.csv.")
        return None

    def table(
        self, root: Path, *names: str, columns: Sequence[str] = ()
    ) -> tuple[Path, pd.DataFrame]:
        """The first of some tables that is in the folder, and where it is.

        Parameters
        ----------
        root, names : as in :meth:`find`
        columns : columns that must be there

        Raises
        ------
        MissingFileError : there is none; says where the data set is to be had
        TableError : no table, or a column is missing
        """
        path = self.find(root, *names)
        if path is None:
            raise MissingFileError(
                f"There is no {' or '.join(names)} in {root}; {self.name} is to be had from "
                f"{self.homepage}, and `path` is the folder with this table."
            )
        frame = read_table(path)
        with naming(path):
            try:
                require_columns(frame, columns)
            except TableError as error:
                raise TableError(
                    f"{error} Is it the file of {self.name} from {self.homepage}?"
                ) from error
        return path, frame

    def cohort(self, root: Path) -> tuple[Listed, Cohort, NDArray[np.bool_]]:
        """The records that the tables list, the cohort of them, and which are held out.

        Raises
        ------
        MissingFileError : a file or folder is not there
        TableError : a table cannot be used, or nothing is left of it
        """
        if not root.is_dir():
            raise MissingFileError(
                f"There is no folder {root}; {self.name} is to be had from {self.homepage}."
            )
        found = self.listed(root)
        return (found, *self._of(root, found))

    def _of(self, root: Path, found: Listed) -> tuple[Cohort, NDArray[np.bool_]]:
        with naming(root):
            if not len(found.frame):
                raise TableError(f"No record is left. {' '.join(found.notes)}".strip())
            cohort = Cohort.from_frame(
                found.frame,
                record=RECORD,
                patient=PATIENT,
                label=self.label,
                groups=self._chosen(found),
            )
            return cohort, self.test.mask(cohort, found.frame)

    def notes(self, found: Listed) -> tuple[str, ...]:
        """What was left out, groups among it."""
        gone = found.absent if self.groups is None else {}
        return (*found.notes, *(f"The group {n} is left out: {why}." for n, why in gone.items()))

    def _chosen(self, found: Listed) -> list[str]:
        if self.groups is None:
            return [name for name in self.all_groups if name not in found.absent]
        for name in self.groups:
            if name in found.absent:
                raise TableError(f"The group {name!r} cannot be made: {found.absent[name]}.")
        return list(self.groups)


class PublishedImages(Published):
    """A data set of images in its publisher's layout.

    Parameters
    ----------
    size : height and width that images are resized to
    channels : 1 (grey), 3 (RGB), or "auto": grey if no image has colour
    cache : folder where decoded images are kept, so that they are decoded once; changes no pixel,
        and is no part of what a run is compared by
    """

    size: tuple[Side, Side] = (64, 64)
    channels: Channels = "auto"
    cache: Path | None = Field(default=None, exclude=True)

    @property
    def files(self) -> Files:
        """How the files are read."""
        return ANY

    def left_out(
        self, n_records: int, pictures: Callable[[Size, Channels], Pictures]
    ) -> tuple[NDArray[np.bool_], str]:
        """Records that are left out for what their images show, none by default.

        Parameters
        ----------
        n_records : records that the tables list
        pictures : size and channels -> the images of all records that the tables list

        Returns
        -------
        out : (n_records,) bool
        why : a sentence for the notes
        """
        return np.zeros(n_records, dtype=bool), ""

    def load(self, folder: Path = Path()) -> Data:
        """See :meth:`Source.load`."""
        return self.open(folder).load(self.progress)

    def open(self, folder: Path = Path(), reading: Mapping[str, Any] | None = None) -> Opened:
        """See :meth:`Source.open`; images are decoded when they are read, or kept in the cache.

        `reading` counts as in :meth:`confide.datasets.Images.open`.
        """
        decided = None if reading is None else Reading.from_json(reading, self.channels)
        root = folder / self.path
        listed, cohort, test = self.cohort(root)
        with naming(root):
            files = present(root, listed.frame[FILE].tolist())
            cache = None if self.cache is None else folder / self.cache

            def pictures(
                size: Size, channels: Channels, decided: Reading | None = None
            ) -> Pictures:
                return open_files(
                    files,
                    size,
                    channels,
                    decided,
                    files=self.files,
                    cache=cache,
                    progress=self.progress,
                )

            out, why = self.left_out(len(files), pictures)
            found = pictures(self.size, self.channels, decided)
            if out.any():
                # All images are opened, so that one array in the cache serves for both.
                rows = np.flatnonzero(~out)
                listed, found = listed.only(rows, why), found.of_files(rows)
                cohort, test = self._of(root, listed)
            return opened_pictures(
                found,
                listed.frame[FILE].tolist(),
                self.channels,
                cohort=cohort,
                test=test,
                frame=listed.frame,
                reserved=(RECORD, PATIENT, FILE),
                notes=self.notes(listed),
            )


Uncertain = Literal["ones", "zeros", "unknown"]
Blank = Literal["unknown", "zeros"]
_COUNTS_AS = {"ones": 1.0, "zeros": 0.0, "unknown": np.nan}

FINDINGS = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
"""The 14 labels that CheXpert's labeller takes from a report (Irvin et al. 2019, table 1)."""


class ChestFindings(PublishedImages):
    """Chest radiographs with the 14 findings, each 1, 0, -1 (uncertain) or blank (not mentioned).

    Parameters
    ----------
    label : a list of findings, by default all 14; or one finding, which every record must have
    uncertain : what -1 counts as; "ones" is U-Ones of Irvin et al. 2019, section 4.1
    blank : what a finding counts as that the report does not mention: unknown, or "zeros", as if
        the report had denied it; "No Finding" has no other value but 1
    """

    labels: ClassVar[tuple[str, ...]] = FINDINGS

    label: Label = FINDINGS
    uncertain: Uncertain = "ones"
    blank: Blank = "unknown"

    def findings(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The wanted findings, (n_records, n_findings) float64 of 1, 0 and NaN for unknown.

        Raises
        ------
        TableError : a column is missing, a value is not 1, 0, -1 or blank, or a single wanted
            finding is unknown; names row and column
        """
        require_columns(frame, self.wanted_labels)
        columns = {name: self._finding(frame[name], name) for name in self.wanted_labels}
        return pd.DataFrame(columns, index=frame.index)

    def readings(self, written: pd.DataFrame) -> tuple[str, ...]:
        """How many uncertain and blank findings count as 1 or 0, a sentence each.

        Parameters
        ----------
        written : the wanted findings as the publisher gives them, one row per record that is kept
        """
        found = written.apply(pd.to_numeric, errors="coerce")
        notes = []
        for what, taken, here in (
            ("uncertain", _COUNTS_AS[self.uncertain], found == -1),
            ("blank", _COUNTS_AS[self.blank], written.isna()),
        ):
            n = {name: int(here[name].sum()) for name in written if here[name].any()}
            if n and not np.isnan(taken):
                each = ", ".join(f"{name} {count:,}" for name, count in n.items())
                who = counted(sum(n.values()), f"{what} finding counts", f"{what} findings count")
                notes.append(f"{who} as {taken:g}: {each}.")
        return tuple(notes)

    def _finding(self, column: pd.Series[Any], name: str) -> NDArray[np.float64]:
        numbers = pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)
        bad = column.notna().to_numpy() & ~np.isin(numbers, (-1, 0, 1))
        if bad.any():
            row = int(bad.argmax())
            raise TableError(
                f"Finding {name!r} in row {row} is {plain(column.iloc[row])!r}; expected 1, 0, "
                "-1 or nothing."
            )
        blank = np.isnan(numbers)
        found = np.where(numbers == -1, _COUNTS_AS[self.uncertain], numbers)
        found[blank] = _COUNTS_AS[self.blank]
        n_unknown = int(np.isnan(found).sum())
        if isinstance(self.label, str) and n_unknown:
            raise TableError(
                f"{n_unknown:,} records have no known {name!r}; write `label: [{name}]` to keep "
                "them as unknown, or set `blank` and `uncertain`."
            )
        return found


def age_bands(age: pd.Series[Any]) -> pd.Series[Any]:
    """Ages in years -> the bands `AGE_BANDS`, missing for missing ages.

    >>> age_bands(pd.Series([0, 19.9, 20, 79, 80, None])).tolist()
    ['0-19', '0-19', '20-39', '60-79', '80+', nan]

    Raises
    ------
    TableError : an age is no number from 0 to 150; names the row
    """
    years = pd.to_numeric(age, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    known = age.notna().to_numpy()
    bad = known & ~((years >= 0) & (years <= 150))
    if bad.any():
        row = int(bad.argmax())
        raise TableError(
            f"Column {age.name!r} in row {row} is {plain(age.iloc[row])!r}; expected an age in "
            "years from 0 to 150, or nothing."
        )
    place = np.where(known, np.searchsorted((20, 40, 60, 80), years, side="right"), -1)
    bands = np.array([*AGE_BANDS, np.nan], dtype=object)[place]
    return pd.Series(bands, index=age.index, name=age.name)
