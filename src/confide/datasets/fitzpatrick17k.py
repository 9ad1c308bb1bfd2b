"""Fitzpatrick17k: clinical photographs of 114 skin conditions, with Fitzpatrick's skin types."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confide._tables import refuse_values
from confide.datasets.base import ByColumn, ByFraction, naming
from confide.datasets.published import FILE, PATIENT, RECORD, Listed, PublishedImages
from confide.datasets.published_words import counted, only_known
from confide.datasets.reading import Channels
from confide.errors import MissingFileError

HASH, QUALITY, SPLIT = "md5hash", "qc", "split"

NO_SKIN = frozenset(
    {
        "2ea034fc482e9bd21a5dfa2506cc5d6b",
        "bccab73c32aba48c90602de9bb458272",
        "e69165b3455bb3a5a8b33a0f6fd8a1d3",
    }
)
"""Images that are no photographs of skin but radiographs and the like; left out by name."""

_RATED_BY = {"skin_type": "fitzpatrick_scale", "skin_type_centaur": "fitzpatrick_centaur"}
_SKIN_TYPES = ("I/II", "III/IV", "V/VI")
_TESTED = "1 Diagnostic"
_REMARKS = {
    _TESTED: "test",
    **dict.fromkeys(
        ("2 Characteristic", "3 Wrongly labelled", "4 Other", "5 Potentially"), "train"
    ),
}
_CLASSES = {
    "three_partition_label": ("non-neoplastic", "benign", "malignant"),
    "nine_partition_label": (
        *("inflammatory", "genodermatoses", "benign dermal", "benign epidermal"),
        *("benign melanocyte", "malignant dermal", "malignant epidermal", "malignant melanoma"),
        "malignant cutaneous lymphoma",
    ),
}
_PLACES = ("", "images", "data/finalfitz17k")  # the last is that of the publisher's own scripts

_NO_PATIENTS = (
    "The publisher names no patients, so each image counts as a patient of its own. The same "
    "person may be in several images, and risk is then understated; images that are almost equal "
    "are counted among the near-duplicates."
)


class Fitzpatrick17k(PublishedImages):
    """Fitzpatrick17k, 16,577 photographs out of two atlases of dermatology (Groh et al. 2021).

    Below the folder stand ``fitzpatrick17k.csv`` and the images, named ``MD5HASH.jpg``, beside it,
    in ``images`` or in ``data/finalfitz17k``.  The publisher gives addresses of the images, not the
    images.  Three that show no skin are left out, see `NO_SKIN`.  No patients are named: one image
    is one patient.

    Groups: `skin_type` is Fitzpatrick's type as rated for Scale AI, `skin_type_centaur` as rated
    for Centaur Labs, both in three bands I/II, III/IV and V/VI; -1 is unknown.

    Parameters
    ----------
    path, groups, size, channels : as in :class:`confide.datasets.published.PublishedImages`
    label : the partition of the conditions into 3 or into 9 classes, or the condition (114)
    test : by default the images whose diagnosis two dermatologists found to be shown, `qc`
        is "1 Diagnostic" (348 of them); images with other remarks stay in training
    missing : "leave_out" leaves out the rows whose image is not in the folder, and counts them;
        otherwise they are an error
    """

    description: ClassVar[str] = "Fitzpatrick17k: photographs of skin, with skin types"
    homepage: ClassVar[str] = "https://github.com/mattgroh/fitzpatrick17k"
    labels: ClassVar[tuple[str, ...]] = (
        "three_partition_label",
        "nine_partition_label",
        "label",
    )
    all_groups: ClassVar[tuple[str, ...]] = tuple(_RATED_BY)

    name: Literal["fitzpatrick17k"] = "fitzpatrick17k"
    label: Literal["three_partition_label", "nine_partition_label", "label"] = (
        "three_partition_label"
    )
    test: ByFraction | ByColumn = ByColumn(column=SPLIT, value="test")
    channels: Channels = 3
    missing: Literal["refuse", "leave_out"] = "refuse"

    def listed(self, root: Path) -> Listed:
        """See :meth:`confide.datasets.published.Published.listed`."""
        groups = self.all_groups if self.groups is None else self.groups
        by_split = isinstance(self.test, ByColumn) and self.test.column == SPLIT
        needed = [HASH, *self.wanted_labels, *(_RATED_BY[name] for name in groups)]
        path, table = self.table(
            root, "fitzpatrick17k.csv", columns=[*needed, *([QUALITY] if by_split else [])]
        )
        with naming(path):
            ids = _hashes(table[HASH])
            frame = pd.DataFrame({RECORD: ids, PATIENT: ids})
            for name in groups:
                frame[name] = _bands(table[_RATED_BY[name]])
            for name in self.wanted_labels:
                frame[name] = _classes(table[name], name)
            if by_split:
                frame[SPLIT] = only_known(table[QUALITY], _REMARKS).fillna("train")
        place, there = _found(root, ids)
        frame[FILE] = [f"{place}{one}.jpg" for one in ids]
        no_skin = frame[RECORD].isin(NO_SKIN).to_numpy()
        lost = ~no_skin & ~there
        if self.missing == "refuse" and lost.any():
            raise MissingFileError(self._absent(root, path, frame[FILE], lost))
        return Listed(
            frame=frame[~no_skin & ~lost].reset_index(drop=True),
            notes=(_NO_PATIENTS, *_left_out(int(no_skin.sum()), lost)),
        )

    def _absent(
        self, root: Path, path: Path, files: pd.Series[str], lost: NDArray[np.bool_]
    ) -> str:
        row = int(lost.argmax())
        return (
            f"{path}: Row {row}: There is no image {root / files.iloc[row]} ({lost.sum():,} of "
            f"{len(lost):,} images are not there). The publisher gives addresses of the images "
            f"alone, see {self.homepage}: download them, or write `missing: leave_out`."
        )


def _hashes(column: pd.Series[Any]) -> pd.Series[str]:
    ids = column.astype(str)
    bad = ~ids.str.fullmatch("[0-9a-f]{32}").to_numpy(bool)
    refuse_values(column, bad, "32 digits 0-9 and a-f, the name of the image")
    return ids


def _classes(column: pd.Series[Any], name: str) -> pd.Series[Any]:
    """Classes as the publisher writes them; any name is a condition, of which there are 114."""
    if name in _CLASSES:
        return only_known(column, {one: one for one in _CLASSES[name]})
    return column.astype("string").str.strip().str.casefold().astype(object)


def _bands(column: pd.Series[Any]) -> NDArray[np.object_]:
    """Types 1 to 6 -> the three bands; missing for -1 and for none."""
    types = pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    bad = column.notna().to_numpy() & ~np.isin(types, (-1, 1, 2, 3, 4, 5, 6))
    refuse_values(column, bad, "a skin type from 1 to 6, or -1 for unknown")
    place = np.where(types >= 1, (types - 1) // 2, -1).astype(np.intp)
    return np.array([*_SKIN_TYPES, np.nan], dtype=object)[place]


def _found(root: Path, ids: Sequence[str] | pd.Series[str]) -> tuple[str, NDArray[np.bool_]]:
    """The place of the images below the folder, and which of them are there."""
    for place in _PLACES:
        folder = root / place
        names = {one.name for one in folder.iterdir()} if folder.is_dir() else set()
        there = np.array([f"{one}.jpg" in names for one in ids], dtype=bool)
        if there.any():
            return f"{place}/" if place else "", there
    return "", np.zeros(len(ids), dtype=bool)


def _left_out(n_no_skin: int, lost: NDArray[np.bool_]) -> list[str]:
    notes = []
    if n_no_skin:
        who = counted(n_no_skin, "image that shows no skin is", "images that show no skin are")
        notes.append(f"{who} left out.")
    if lost.any():
        notes.append(
            f"{lost.sum():,} of {len(lost):,} rows are left out: their image is not in the folder."
        )
    return notes
