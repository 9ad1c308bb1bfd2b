"""The NeuraCrypt challenge (github.com/yala/NeuraCrypt-Challenge): its folders.

A challenge is a folder of codes with the names of their images in an unrelated order, and the names
of other images.  Challenge 1 asks which code is of which image, challenge 2 for the mean rows of
the codes of the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confide._tables import text
from confide.datasets import Opened
from confide.encoders.base import Encoder
from confide.encoders.derive import Chance
from confide.errors import ArgumentError, FolderError, MissingFileError, ReleaseError, TableError
from confide.inversion.base import Floats, Progress, silent
from confide.inversion.challenge_files import (
    Names,
    array_names,
    bare,
    fresh_folder,
    mean_row,
    new_folder,
    read_array,
    read_pairs,
    read_texts,
    write_array,
)
from confide.stores import write_json
from confide.training.device import tensor_float32

CODES = "private_encoded_dataset"
IMAGES = "private_encoded_dataset_path_list.json"
TARGETS = "challenge_2_target_dataset"
TARGET_IMAGES = "challenge_2_target_dataset_path_list.json"
TRUTH = "path_dict.json"


def is_challenge(path: Path) -> bool:
    """Whether a folder is laid out as a challenge."""
    return (path / IMAGES).is_file() or (path / CODES).is_dir()


@dataclass(frozen=True, kw_only=True, eq=False)
class ChallengeFolder:
    """The codes of a challenge; make one with :meth:`read`.

    It has what attacks ask of codes: n_records, shape and codes(rows).

    Attributes
    ----------
    path : the folder
    files : (n_records,) names of the code files, in the order of their numbers
    images : (n_records,) names of the images, in an unrelated order
    target_images : names of the images of challenge 2; () without one
    shape : (P, C), rows of a code and length of a row
    """

    path: Path
    files: tuple[str, ...]
    images: tuple[str, ...]
    target_images: tuple[str, ...]
    shape: tuple[int, int]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Open a challenge; the first code is read here, each other one when it is asked for.

        Raises
        ------
        MissingFileError : there is no challenge at `path`
        ReleaseError, TableError : a file of it is damaged or holds other things; names the file
        """
        if not (path / IMAGES).exists():
            raise MissingFileError(f"{path / IMAGES} is missing; is {path} a finished challenge?")
        images = read_texts(path / IMAGES)
        files = array_names(path / CODES)
        if not files or len(files) != len(images):
            raise ReleaseError(
                f"{path / CODES} holds {len(files):,} codes, {IMAGES} names {len(images):,} "
                "images; get the challenge from a copy."
            )
        first = read_array(path / CODES / files[0], n_axes=(2,))
        targets = path / TARGET_IMAGES
        return cls(
            path=path,
            files=files,
            images=images,
            target_images=read_texts(targets) if targets.exists() else (),
            shape=(first.shape[0], first.shape[1]),
        )

    @property
    def n_records(self) -> int:
        """Number of codes."""
        return len(self.files)

    def codes(self, rows: slice | NDArray[np.integer[Any]]) -> Floats:
        """(n, P, C) float32 of the codes asked for, by number, in the order of `files`.

        Raises
        ------
        ArgumentError : out of range
        MissingFileError, ReleaseError : a file is missing, damaged or of another shape
        """
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(self.n_records))
        outside = (rows < 0) | (rows >= self.n_records)
        if outside.any():
            raise ArgumentError(
                f"Expected rows in [0, {self.n_records - 1}], got {rows[outside][0]}."
            )
        out = np.empty((len(rows), *self.shape), dtype=np.float32)
        for code, row in zip(out, rows, strict=True):
            file = self.path / CODES / self.files[row]
            values = read_array(file, n_axes=(2,))
            if values.shape != self.shape:
                raise ReleaseError(f"{file} has shape {values.shape}, expected {self.shape}.")
            code[:] = values
        return out

    def rows_of(self, record: NDArray[Any], frame: pd.DataFrame | None = None) -> dict[str, int]:
        """{image: row} of the images of this challenge in a table of records.

        Parameters
        ----------
        record : (n,) ids of the records
        frame : the table; None without one.  Its columns of text are tried after the ids, and the
            first that names all images is taken

        Raises
        ------
        TableError : neither the ids nor a column name all images
        """
        return self._places(self.images, IMAGES, record, frame)

    def target_rows(
        self, record: NDArray[Any], frame: pd.DataFrame | None = None
    ) -> dict[str, int]:
        """{image: row} of the images of challenge 2; as :meth:`rows_of`."""
        return self._places(self.target_images, TARGET_IMAGES, record, frame)

    def _places(
        self,
        images: tuple[str, ...],
        file: str,
        record: NDArray[Any],
        frame: pd.DataFrame | None,
    ) -> dict[str, int]:
        """Row by image."""
        columns = {"the ids of the records": [text(one) for one in record]}
        if frame is not None:
            for name in frame.columns:
                column = frame[name]
                if column.map(lambda value: isinstance(value, str)).any():
                    columns[f"column {name!r}"] = [str(one) for one in column]
        names, best = Names(images), ("nothing", 0)
        for title, values in columns.items():
            found: dict[str, int] = {}
            for row, value in enumerate(values):
                image = names.find(value)
                if image is not None:
                    found.setdefault(image, row)
            if len(found) == len(images):
                return found
            best = max(best, (title, len(found)), key=lambda one: one[1])
        raise TableError(
            f"{self.path / file} names {len(images):,} images, of which the records have "
            f"{best[1]:,} ({best[0]}); name the images as the challenge does, in a column of the "
            "table."
        )

    def truth(self) -> dict[str, str]:
        """Name of the code file of each image: what challenge 1 asks for.

        Read from path_dict.json, in the folder NAME.private beside this one or, as the authors
        have it, in this one.

        Raises
        ------
        MissingFileError : it is not there
        TableError : it is not about these images and codes; names what is wrong
        """
        file, found = self._private(TRUTH), {}
        names, files = Names(self.images), set(self.files)
        for given, reference in read_pairs(file).items():
            image = names.find(given)
            if image is None:
                continue  # of challenge 2
            name = bare(reference, file)
            if name not in files:
                raise TableError(f"{file}: {name!r} is not in {self.path / CODES}.")
            if image in found:
                raise TableError(f"{file} names the image {image!r:.120} more than once.")
            found[image] = name
        _require_all(file, self.images, found, CODES)
        if len(set(found.values())) < len(found):
            raise TableError(f"{file} names a code file for more than one image.")
        return found

    def target_means(self) -> Floats:
        """(n_target_images, C) mean rows of the true codes of challenge 2, in their order.

        Raises
        ------
        MissingFileError, TableError, ReleaseError : they are not there, or damaged
        """
        if not self.target_images:
            raise MissingFileError(
                f"{self.path / TARGET_IMAGES} is missing or empty; challenge 2 cannot be scored."
            )
        file, found = self._private(TRUTH), {}
        names, folder = Names(self.target_images), self._private(TARGETS)
        for given, reference in read_pairs(file).items():
            image = names.find(given)
            if image is not None:
                found[image] = folder / bare(reference, file)
        _require_all(file, self.target_images, found, TARGETS)
        rows = [mean_row(found[image], self.shape[1]) for image in self.target_images]
        return np.stack(rows)

    def _private(self, name: str) -> Path:
        path = self.path.resolve()
        beside = path.with_name(f"{path.name}.private") / name
        inside = self.path / name
        if not beside.exists() and not inside.exists():
            raise MissingFileError(
                f"{beside} is missing; only who made the challenge can score what was submitted."
            )
        return beside if beside.exists() else inside


def export(
    encoder: Encoder,
    opened: Opened,
    names: Sequence[str],
    out: Path,
    *,
    progress: Progress = silent,
) -> ChallengeFolder:
    """Make a challenge of records: those held out are the images of challenge 2.

    The codes stand in a random order, the names in that of the alphabet.  What answers the
    challenge is written to OUT.private, beside it, and must not be given away.

    Parameters
    ----------
    encoder : calibrated
    opened : the records
    names : (n_records,) of the images
    out : the folder of the challenge, which must not exist or be empty, as OUT.private
    progress : called with (codes written, codes in all)

    Raises
    ------
    ArgumentError : names that do not fit the records, or are not all different
    FolderError : a folder holds other things or cannot be written
    """
    n = opened.cohort.n_records
    if len(names) != n or len(set(names)) < n or not all(names):
        raise ArgumentError(f"Expected {n} different names of images, got {len(set(names))}.")
    out = out.resolve()
    if not out.name:
        raise FolderError(f"{out} cannot be a challenge; choose another --out.")
    private = out.with_name(f"{out.name}.private")
    fresh_folder(out)
    fresh_folder(private, mode=0o700)
    rows = {CODES: np.flatnonzero(~opened.test), TARGETS: np.flatnonzero(opened.test)}
    truth: dict[str, str] = {}
    done = 0
    for title, folder in ((TARGETS, private), (CODES, out)):
        new_folder(folder / title)
        # Files are written in the order of their numbers, so that times tell nothing.
        chosen = rows[title]
        chosen = chosen[Chance().permutation(len(chosen))]
        for part in encoder.batches(len(chosen)):
            with tensor_float32(False):
                codes = encoder(opened.read(chosen[part]))
            for i, (row, code) in enumerate(zip(chosen[part], codes, strict=True), part.start):
                write_array(folder / title / f"{i}.npy", code)
                truth[names[row]] = f"{title}/{i}.npy"
            done += len(codes)
            progress(done, n)
    write_json(private / TRUTH, {name: truth[name] for name in sorted(truth)})
    # The list of the images makes it a challenge: it comes last.
    write_json(out / TARGET_IMAGES, sorted(names[row] for row in rows[TARGETS].tolist()))
    write_json(out / IMAGES, sorted(names[row] for row in rows[CODES].tolist()))
    return ChallengeFolder.read(out)


def _require_all(file: Path, images: Sequence[str], found: Mapping[str, Any], folder: str) -> None:
    for image in images:
        if image not in found:
            raise TableError(f"{file} does not say which code in {folder} is of {image!r:.120}.")
