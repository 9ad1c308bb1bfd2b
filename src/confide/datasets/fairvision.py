"""Harvard-FairVision: fundus images of glaucoma, diabetic retinopathy and macular degeneration."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confide._tables import plain
from confide.datasets.arrays import Stored, open_array
from confide.datasets.base import ByColumn, ByFraction, naming
from confide.datasets.image_files import Files, Head, Size, resized
from confide.datasets.pixels import ANY, Pictures
from confide.datasets.published import FILE, PATIENT, RECORD, Listed, PublishedImages, age_bands
from confide.datasets.published_words import only_known
from confide.datasets.reading import Channels
from confide.errors import ImageError, MissingFileError, TableError

USE, LABEL, SLO = "use", "disease", "slo_fundus"

_HEALTHY = "healthy"
_DISEASES: dict[str, dict[str, str]] = {
    "Glaucoma": {"no": _HEALTHY, "yes": "glaucoma"},
    "DR": {
        "non-vision threatening dr": "non-vision-threatening DR",
        "vision threatening dr": "vision-threatening DR",
    },
    "AMD": {
        "normal": _HEALTHY,
        "early amd": "early AMD",
        "intermediate amd": "intermediate AMD",
        "late amd": "late AMD",
    },
}
"""The words of the publisher's tables, by disease, and the names of the classes."""

# The publisher's archives have the first names; the publisher's code asks to rename them.
_FOLDERS = {
    "training": ("Training", "train"),
    "validation": ("Validation", "val"),
    "test": ("Test", "test"),
}
_WORDS: dict[str, dict[str, str | float]] = {
    group: {**{word: word for word in words}, "unknown": np.nan}
    for group, words in {
        "race": ("asian", "black", "white"),
        "sex": ("female", "male"),
        "ethnicity": ("hispanic", "non-hispanic"),
    }.items()
}
_GROUPS = {"race": "race", "sex": "gender", "age": "age", "ethnicity": "ethnicity"}

LEAST_SD, LEAST_MEAN = 3, 1
"""Images at or below one of these, in grey values of 0 to 255, show next to nothing."""
_RULED = (64, 64)
"""Height and width at which that is measured, so that no record comes or goes with `size`."""

_MOST_BYTES = 2**24  # of an image in an archive; the publisher's have 40,000


class FairVision(PublishedImages):
    """Harvard-FairVision30k: SLO fundus images of 30,000 patients, one each (Luo et al. 2024).

    Below the folder stand one, two or three of ``Glaucoma``, ``DR`` and ``AMD``, each with
    ``ReadMe/data_summary_DISEASE.csv`` and ``Training``, ``Validation`` and ``Test`` (or ``train``,
    ``val`` and ``test``), in which the files are ``slo_fundus_00001.jpg`` and ``data_00001.npz``.
    The volumes of optical coherence tomography in the latter are not read.

    The label `disease` has up to seven classes: healthy, glaucoma, (non-)vision-threatening
    diabetic retinopathy, and early, intermediate and late macular degeneration.  Images whose grey
    values, at 64 x 64, have a standard deviation of at most 3, or a mean of at most 1, are left
    out; every image is decoded for it when the data are opened, with `cache` once for all.

    Groups: `race`, `sex` and `ethnicity` in the publisher's words, "unknown" as missing, and `age`;
    any further word is refused.

    Parameters
    ----------
    path, groups, size, channels, cache : as in :class:`confide.datasets.published.PublishedImages`
    test : by default the publisher's test part
    image : "slo", the JPEG files, or "npz", the smaller copies in the archives, which the publisher
        brought to the range of 0 to 255
    """

    description: ClassVar[str] = "Harvard-FairVision: fundus images of three eye diseases"
    homepage: ClassVar[str] = "https://github.com/Harvard-Ophthalmology-AI-Lab/FairVision"
    labels: ClassVar[tuple[str, ...]] = (LABEL,)
    all_groups: ClassVar[tuple[str, ...]] = tuple(_GROUPS)

    name: Literal["fairvision"] = "fairvision"
    label: Literal["disease"] = "disease"
    test: ByFraction | ByColumn = ByColumn(column=USE, value="test")
    channels: Channels = 1
    image: Literal["slo", "npz"] = "slo"

    @property
    def files(self) -> Files:
        """How the files are read."""
        return ANY if self.image == "slo" else _Copies(SLO)

    def left_out(
        self, n_records: int, pictures: Callable[[Size, Channels], Pictures]
    ) -> tuple[NDArray[np.bool_], str]:
        """Images that show next to nothing, the same for every `size`."""
        mean, sd = pictures(_RULED, 1).moments(np.arange(n_records), self.progress)
        out = (sd <= LEAST_SD) | (mean <= LEAST_MEAN)
        return out, (
            f"{out.sum():,} of {n_records:,} images are left out: their grey values have a "
            f"standard deviation of at most {LEAST_SD}, or a mean of at most {LEAST_MEAN}."
        )

    def listed(self, root: Path) -> Listed:
        """See :meth:`confide.datasets.published.Published.listed`."""
        here = [one for one in _DISEASES if (root / one).is_dir()]
        if not here:
            raise MissingFileError(
                f"There is no folder {', '.join(_DISEASES)} in {root}; {self.name} is to be had "
                f"from {self.homepage}, and `path` is the folder that holds them."
            )
        frame = pd.concat([self._records(root, one) for one in here], ignore_index=True)
        return Listed(frame=frame, notes=tuple(_notes(here)))

    def _records(self, root: Path, disease: str) -> pd.DataFrame:
        """The records of one disease."""
        column, groups = disease.lower(), self.all_groups if self.groups is None else self.groups
        wanted = [column] if self.wanted_labels else []
        summary = f"data_summary_{column}.csv"
        path, table = self.table(
            root,
            f"{disease}/ReadMe/{summary}",
            summary,
            columns=["filename", USE, *wanted, *(_GROUPS[name] for name in groups)],
        )
        with naming(path):
            number = table["filename"].astype("string").str.extract(r"^data_(\d{1,9})\.npz$")[0]
            _known(table["filename"], number, "data_00001.npz")
            use = _said(table[USE], {part: part for part in _FOLDERS})
            patient = f"{disease[0].lower()}_" + number.astype(object)
            frame = pd.DataFrame({RECORD: patient, PATIENT: patient, USE: use})
            for name in groups:
                given = table[_GROUPS[name]]
                frame[name] = age_bands(given) if name == "age" else only_known(given, _WORDS[name])
            if wanted:
                frame[LABEL] = _said(table[column], _DISEASES[disease])
        place = {part: _folder(root, disease, names) for part, names in _FOLDERS.items()}
        file = SLO + "_" + number + ".jpg" if self.image == "slo" else "data_" + number + ".npz"
        frame[FILE] = (use.map(place) + "/" + file).astype(object)
        return frame


def _folder(root: Path, disease: str, names: tuple[str, ...]) -> str:
    """The folder of a part of the data, below the root; the publisher's where there is none."""
    there = [name for name in names if (root / disease / name).is_dir()]
    return f"{disease}/{(there or names)[0]}"


def _said(column: pd.Series[Any], words: Mapping[str, str]) -> pd.Series[Any]:
    """Words of the publisher -> ours; raises TableError for any other."""
    said = column.astype("string").str.strip().str.casefold().map(words)
    _known(column, said, " or ".join(map(repr, words)))
    return said.astype(object)


def _known(column: pd.Series[Any], found: pd.Series[Any], expected: str) -> None:
    bad = found.isna().to_numpy()
    if bad.any():
        row = int(bad.argmax())
        raise TableError(
            f"Column {column.name!r} in row {row} is {plain(column.iloc[row])!r:.80}; expected "
            f"{expected}."
        )


class _Copies(Files):
    """The copies in the archives, grey; the volumes beside them are not read."""

    def look(self, path: Path) -> Head:
        self._opened(path)
        return Head("grey")

    def decoded(self, path: Path, size: Size, channels: Channels) -> NDArray[Any]:
        from PIL import Image

        values = np.asarray(self._opened(path).array)
        if values.dtype != np.uint8:
            if not (values.min() >= 0 and values.max() <= 255):  # NaN compares false
                raise ImageError(
                    f"Array {SLO!r} of {path} has values from {values.min():g} to "
                    f"{values.max():g}; expected grey values of 0 to 255."
                )
            values = np.round(values).astype(np.uint8)
        return resized(Image.fromarray(values), size, channels)

    def digest(self, path: Path) -> str:
        return hashlib.sha256(repr(self._opened(path).mark()).encode()).hexdigest()

    def _opened(self, path: Path) -> Stored:
        return open_array(path, self.key, _check, max_bytes=_MOST_BYTES)


def _check(what: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if dtype not in (np.uint8, np.float32, np.float64) or len(shape) != 2:
        raise ImageError(
            f"{what} is of shape {shape} and type {dtype}; expected (height, width) of grey values."
        )


def _notes(diseases: Sequence[str]) -> list[str]:
    notes = [f"The folder has the records of {', '.join(diseases)}."]
    if len(diseases) > 1:
        notes.append(
            "Each disease numbers its patients anew; whether the same person is in two of them "
            "cannot be known."
        )
    if "DR" in diseases:
        notes.append(
            "The class non-vision-threatening DR is the publisher's, and holds those without any "
            "retinopathy too."
        )
    if set(diseases) & {"Glaucoma", "AMD"}:
        notes.append(
            "The class healthy is without the disease that the record was collected for, and may "
            "have another."
        )
    return notes
