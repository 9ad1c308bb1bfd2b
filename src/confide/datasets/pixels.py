"""Image files and arrays of images -> uint8 images of one size, decoded when they are asked for."""

from __future__ import annotations

import hashlib
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from confide.datasets.arrays import MAX_ARRAY_BYTES, open_array
from confide.datasets.image_files import Head, Kind, Size, decoded, look, naming, resized
from confide.datasets.reading import Channels, Reading
from confide.errors import ImageError

_Result = TypeVar("_Result")

# Filters of warnings belong to the process: two threads that set them at once would not restore
# them.
_FILTERS = threading.Lock()


@dataclass(frozen=True, kw_only=True, eq=False)
class Pictures:
    """Images of one size, not yet decoded.

    Parameters
    ----------
    decode : row -> (height, width) or (height, width, 3), uint8, or float32 for 16 bits
    path : row -> its file, for messages
    size : height and width of the result
    reading : channels, and the scale of 16-bit images: one for all, so that they stay comparable
    notes : what was decided, one sentence each
    mark : -> plain values that change with the content of the files; reads all of it
    """

    decode: Callable[[int], NDArray[Any]] = field(repr=False)
    path: Callable[[int], Path] = field(repr=False)
    size: Size
    reading: Reading
    notes: tuple[str, ...]
    mark: Callable[[], tuple[Any, ...]] = field(repr=False)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the result."""
        return (self.reading.channels, *self.size)

    def one(self, row: int) -> NDArray[np.uint8]:
        """(height, width) or (height, width, 3) uint8 of a row; raises as :meth:`read`."""
        image = self.decode(row)
        if image.dtype == np.uint8:
            return image
        largest = int(np.rint(image.max()))
        if largest > self.reading.top:
            raise ImageError(
                f"Row {row}: {self.path(row)} has the 16-bit value {largest:,}, brighter than the "
                f"images that the key was calibrated with (at most {self.reading.top:,}); leave "
                "the image out, bring its values to that range, or use a new key."
            )
        return np.round(image * np.float32(self.reading.scale)).astype(np.uint8)

    def read(self, rows: NDArray[np.intp]) -> NDArray[np.uint8]:
        """Decode and resize some images, on all cores.

        Parameters
        ----------
        rows : (n,) row numbers, in any order

        Returns
        -------
        (n, channels, height, width) uint8, resized by a bilinear filter with antialiasing

        Raises
        ------
        ImageError : a file is damaged, or brighter than the scale allows; names the row and the
            file
        """
        result = np.empty((len(rows), *self.shape), dtype=np.uint8)
        for i, image in enumerate(_each(self.one, rows.tolist())):
            result[i] = np.moveaxis(np.atleast_3d(image), -1, 0)
        return result


def open_files(
    paths: Sequence[Path],
    size: Size,
    channels: Channels = "auto",
    reading: Reading | None = None,
) -> Pictures:
    """Survey image files; memory does not grow with their pixels.

    The headers of all files are read.  Decoded are only those that may have colour, up to the
    first that has, and those of 16 bits, whose common scale is that of their greatest value.
    DICOM images are scaled each by its own window; see :func:`confide.datasets.dicom.read_dicom`.

    Parameters
    ----------
    paths : PNG, JPEG or DICOM files, one a record
    size : height and width of the result
    channels : 1 (grey), 3 (RGB), or "auto": grey if no image has colour
    reading : channels and scale that were decided before, instead of deciding them

    Raises
    ------
    ImageError : a file is absent, damaged, too large in pixels, holds several frames, is no PNG,
        JPEG or DICOM, or has 16-bit values beyond the scale of `reading`; names the row and the
        file
    MissingExtraError : there are DICOM files, and the packages that read them are not installed
    """
    channels = channels if reading is None else reading.channels

    def decode(row: int) -> NDArray[Any]:
        with naming(row, paths[row]):
            return decoded(paths[row], size, channels)

    def digest(row: int) -> str:
        with naming(row, paths[row]), paths[row].open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def head(row: int) -> Head:
        with naming(row, paths[row]):
            return look(paths[row])

    heads = list(_each(head, range(len(paths))))
    kinds = [head.kind for head in heads]
    n_burned_in = sum(head.burned_in for head in heads)
    n_bare = sum(head.bare for head in heads)
    notes = []
    if n_bare:
        notes.append(
            f"{n_bare} DICOM images have no window; each was scaled from its own smallest to its "
            "largest value."
        )
    if n_burned_in:
        notes.append(
            f"{n_burned_in} images say that they have burned-in annotations (names may be "
            "readable in the pixels)."
        )
    return _surveyed(
        kinds,
        channels,
        reading,
        decode=decode,
        path=lambda row: paths[row],
        size=size,
        notes=tuple(notes),
        mark=lambda: tuple(_each(digest, range(len(paths)))),
    )


def open_images(
    path: Path,
    key: str | None,
    n_records: int,
    size: Size,
    channels: Channels = "auto",
    reading: Reading | None = None,
    *,
    max_bytes: int = MAX_ARRAY_BYTES,
) -> Pictures:
    """Survey an array of images in an .npz or .npy file, as :func:`open_files` does.

    The array is (n_records, height, width) uint8 or uint16, or uint8 with 1 or 3 channels last or
    first.  Its size is checked before it is read.

    Parameters
    ----------
    path : the file
    key : name of the array in an .npz file; None for the first
    n_records : how many images there should be
    size, channels, reading : as in :func:`open_files`
    max_bytes : most bytes that the array may have

    Raises
    ------
    MissingFileError : there is no such file
    ImageError : not such a file, no such array, one of the wrong shape, type or size, or 16-bit
        values beyond the scale of `reading`
    """
    from PIL import Image

    channels = channels if reading is None else reading.channels

    def check(what: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        _check_array(what, shape, dtype, n_records)

    stored = open_array(path, key, check, max_bytes=max_bytes)
    array = stored.array
    if array.ndim == 4:
        array = array if array.shape[3] in (1, 3) else np.moveaxis(array, 1, 3)
        array = array[..., 0] if array.shape[3] == 1 else array

    def decode(row: int) -> NDArray[Any]:
        return resized(Image.fromarray(np.ascontiguousarray(array[row])), size, channels)

    kind: Kind = "deep" if array.dtype == np.uint16 else "colour" if array.ndim == 4 else "grey"
    return _surveyed(
        [kind] * n_records,
        channels,
        reading,
        decode=decode,
        path=lambda row: path,
        size=size,
        notes=(),
        mark=stored.mark,
    )


def _check_array(what: str, shape: tuple[int, ...], dtype: np.dtype[Any], n_records: int) -> None:
    from PIL import Image

    if dtype not in (np.uint8, np.uint16):
        raise ImageError(f"{what} is of type {dtype}; expected uint8 or uint16.")
    colour = len(shape) == 4 and dtype == np.uint8 and bool({shape[1], shape[3]} & {1, 3})
    if not (len(shape) == 3 or colour):
        raise ImageError(
            f"{what} is of shape {shape} and type {dtype}; expected (records, height, width), "
            "or uint8 with 1 or 3 channels after or before height and width."
        )
    if shape[0] != n_records:
        raise ImageError(
            f"{what} has {shape[0]} images for a table of {n_records} rows; expected one a row."
        )
    height, width = shape[2:] if colour and shape[3] not in (1, 3) else shape[1:3]
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and height * width > limit:
        raise ImageError(
            f"{what} has images of {height:,} x {width:,} pixels; expected at most {limit:,} "
            "each, make them smaller."
        )


# --- what all images have in common


def _surveyed(
    kinds: Sequence[Kind],
    channels: Channels,
    reading: Reading | None,
    *,
    decode: Callable[[int], NDArray[Any]],
    notes: tuple[str, ...],
    **given: Any,
) -> Pictures:
    """The images, read as it was decided before, or else as all of them together ask for."""
    deep = [row for row, kind in enumerate(kinds) if kind == "deep"]
    decided = reading
    if decided is None:
        coloured = channels == 3
        if channels == "auto":
            maybe = [row for row, kind in enumerate(kinds) if kind == "colour"]
            coloured = any(image.ndim == 3 for image in _each(decode, maybe))
        largest = max((float(image.max()) for image in _each(decode, deep)), default=None)
        decided = Reading.of(largest, coloured)
    if deep:
        says = f"their values 0 to {decided.top:,} became 0 to 255."
        notes = (f"{len(deep)} images have 16 bits; {says}", *notes)
    found = Pictures(decode=decode, reading=decided, notes=notes, **given)
    if reading is not None:
        # Refused now, and not halfway through the work.
        for _ in _each(found.one, deep):
            pass
    return found


def _each(function: Callable[[int], _Result], rows: Sequence[int]) -> Iterator[_Result]:
    """The results in order, computed on all cores, a few at a time."""
    if not rows:
        return
    n_cores = os.cpu_count() or 1
    with ThreadPoolExecutor(n_cores) as pool:
        for start in range(0, len(rows), 8 * n_cores):
            with _quiet():
                some = list(pool.map(function, rows[start : start + 8 * n_cores]))
            yield from some


@contextmanager
def _quiet() -> Iterator[None]:
    from PIL import Image

    with _FILTERS, warnings.catch_warnings():
        # Pillow only warns of an image between one and two times its limit of pixels.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        # Metadata that Pillow and pydicom cannot read have no bearing on the pixels.
        warnings.simplefilter("ignore", UserWarning)
        yield
