"""Any images: a table and a folder of image files, or an array."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field, model_validator

from confide._tables import require_columns
from confide.cohort import Cohort
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
from confide.datasets.folders import inside
from confide.datasets.image_files import DECODING
from confide.datasets.pixels import Pictures, open_files, open_images
from confide.datasets.reading import Channels, Reading
from confide.errors import MissingFileError

Side = Annotated[int, Field(ge=1, le=4096)]


class Images(Source):
    """A table with one row per image, and the images in a folder or in an array.

    Parameters
    ----------
    path : the table, CSV or Parquet
    image : column of the file names, relative to the folder
    images : folder of PNG, JPEG, TIFF, DICOM, .npy or .npz files, one image each; the folder of the
        table by default
    array : an .npz or .npy file with all images in the order of the table, instead of files
    array_key : name of the array in an .npz file; the first by default
    patient, label, groups, record, test : as in :class:`confide.datasets.Table`
    size : height and width that images are resized to
    channels : 1 (grey), 3 (RGB), or "auto": grey if no image has colour
    cache : folder where decoded images of files are kept, so that they are decoded once; changes no
        pixel, and is no part of what a run is compared by
    """

    description: ClassVar[str] = "any images: a table and image files, or an array"

    name: Literal["images"] = "images"
    path: Path
    image: str = "image"
    images: Path | None = None
    array: Path | None = None
    array_key: str | None = None
    patient: str
    label: Label
    groups: tuple[str, ...] | dict[str, list[float]] = ()
    record: str | None = None
    test: ByFraction | ByColumn = ByFraction()
    size: tuple[Side, Side] = (64, 64)
    channels: Channels = "auto"
    cache: Path | None = Field(default=None, exclude=True)

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.array is not None and {"image", "images"} & self.model_fields_set:
            raise ValueError("images come from `array` or from files (`image`, `images`), not both")
        if self.array is None and self.array_key is not None:
            raise ValueError("`array_key` names an array in `array`, which is not given")
        if self.array is not None and self.cache is not None:
            raise ValueError("`cache` keeps images of files; images in `array` need none")
        return self

    def load(self, folder: Path = Path()) -> Data:
        """See :meth:`Source.load`."""
        return self.open(folder).load(self.progress)

    def open(self, folder: Path = Path(), reading: Mapping[str, Any] | None = None) -> Opened:
        """See :meth:`Source.open`; images are decoded when they are read, or kept in the cache.

        Which channels and which scale of 16-bit images are decided from all images together; with
        `reading`, they are taken from there.  Then images in colour become grey where grey was
        decided.

        Parameters
        ----------
        folder, reading : as in :meth:`Source.open`

        Raises
        ------
        ArgumentError : a `reading` that no images gave
        MismatchError : `channels` contradicts `reading`
        ImageError : also for 16-bit values beyond the scale of `reading`
        """
        decided = None if reading is None else Reading.from_json(reading, self.channels)
        path = folder / self.path
        frame, cohort, test = read_cohort(
            path,
            patient=self.patient,
            label=self.label,
            record=self.record,
            groups=self.groups,
            test=self.test,
        )
        with naming(path):
            names, found = self._pictures(folder, path, frame, decided)
            named = (self.patient, self.record, self.image if self.image in frame else None)
            return opened_pictures(
                found,
                names,
                self.channels,
                cohort=cohort,
                test=test,
                frame=frame,
                reserved=tuple(dict.fromkeys(name for name in named if name)),
            )

    def _pictures(
        self, folder: Path, path: Path, frame: pd.DataFrame, reading: Reading | None
    ) -> tuple[list[str], Pictures]:
        """Names of the files, if there are any, and the images."""
        if self.array is not None:
            where = folder / self.array
            return [], open_images(
                where, self.array_key, len(frame), self.size, self.channels, reading
            )
        require_columns(frame, [self.image])
        place = path.parent if self.images is None else folder / self.images
        if not place.is_dir():
            raise MissingFileError(f"There is no folder of images {place}; check the path.")
        root, names = place.resolve(), frame[self.image].tolist()
        files = [inside(root, name, row) for row, name in enumerate(names)]
        cache = None if self.cache is None else folder / self.cache
        return names, open_files(
            files, self.size, self.channels, reading, cache=cache, progress=self.progress
        )


def opened_pictures(
    found: Pictures,
    names: Sequence[str],
    channels: Channels,
    *,
    cohort: Cohort,
    test: NDArray[np.bool_],
    frame: pd.DataFrame,
    reserved: tuple[str, ...],
    notes: tuple[str, ...] = (),
) -> Opened:
    """Records whose inputs are pictures.

    Parameters
    ----------
    found : the pictures, one a record
    names : names of their files, relative to their folder; none for an array
    channels : as the settings ask for them
    cohort, test, frame, reserved : as in :class:`Opened`
    notes : what was said before those of the pictures
    """
    # Channels and scale as they were decided, so that equal pixels count as equal.
    marks = (DECODING if names else "array", channels, found.shape, found.reading.scale)
    return Opened(
        cohort=cohort,
        test=test,
        frame=frame,
        reserved=reserved,
        shape=found.shape,
        read=found.read,
        notes=(*notes, *found.notes),
        fingerprint=lambda: fingerprint_of_files(cohort, test, names, (*marks, found.mark())),
        reading=found.reading.to_json(),
    )
