"""Image files and arrays of images -> uint8 images of one size, decoded when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from confide.datasets.arrays import MAX_ARRAY_BYTES, open_array
from confide.datasets.cache import keep
from confide.datasets.image_files import (
    Files,
    Head,
    Kind,
    Size,
    as_picture,
    check_pictures,
    kind_of,
    naming,
    resized,
)
from confide.datasets.reading import Channels, Progress, Reading, each, silent
from confide.errors import ImageError

_TOLD_EVERY = 64  # images
_MOMENTS_AT_ONCE = 256  # images

ANY = Files()
"""Whatever :mod:`confide.datasets.image_files` reads."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Pictures:
    """Images of one size, decoded when they are asked for, or kept in a cache.

    Parameters
    ----------
    reader : row numbers (n,), and progress -> (n, channels, height, width) uint8
    size : height and width of the result
    reading : channels, and the scale of 16-bit images: one for all, so that they stay comparable
    notes : what was decided, one sentence each
    mark : -> plain values that change with the content of the files, of files one each; reads all
        of it, or with a cache what is new
    """

    reader: Callable[[NDArray[np.intp], Progress], NDArray[np.uint8]] = field(repr=False)
    size: Size
    reading: Reading
    notes: tuple[str, ...]
    mark: Callable[[], tuple[Any, ...]] = field(repr=False)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the result."""
        return (self.reading.channels, *self.size)

    def read(self, rows: NDArray[np.intp], progress: Progress = silent) -> NDArray[np.uint8]:
        """Decode and resize some images, on all cores; or take them from the cache.

        Parameters
        ----------
        rows : (n,) row numbers, in any order
        progress : called with (images finished, images in all)

        Returns
        -------
        (n, channels, height, width) uint8, resized by a bilinear filter with antialiasing

        Raises
        ------
        ImageError : a file is damaged, or brighter than the scale allows; names the row and the
            file
        """
        return self.reader(rows, progress)

    def of_files(self, rows: NDArray[np.intp]) -> Self:
        """Some of these images of files, (n,) row numbers."""

        def mark() -> tuple[Any, ...]:
            marks = self.mark()
            return tuple(marks[row] for row in rows)

        return replace(self, reader=lambda some, told: self.reader(rows[some], told), mark=mark)

    def moments(
        self, rows: NDArray[np.intp], progress: Progress = silent
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and standard deviation over the pixels and channels of each image, on 0 to 255.

        They are those of the images as :meth:`read` gives them, resized; memory does not grow
        with their number.  Raises as :meth:`read`.

        Parameters
        ----------
        rows : (n,) row numbers, in any order
        progress : called with (images finished, images in all)

        Returns
        -------
        mean, sd : (n,) each; sd divides by the number of pixels
        """
        mean, sd = np.empty(len(rows)), np.empty(len(rows))
        for start in range(0, len(rows), _MOMENTS_AT_ONCE):
            part = slice(start, start + _MOMENTS_AT_ONCE)
            flat = self.read(rows[part]).reshape(len(rows[part]), -1)
            mean[part], sd[part] = flat.mean(1, dtype=np.float64), flat.std(1, dtype=np.float64)
            progress(min(part.stop, len(rows)), len(rows))
        return mean, sd


def open_files(
    paths: Sequence[Path],
    size: Size,
    channels: Channels = "auto",
    reading: Reading | None = None,
    *,
    files: Files = ANY,
    cache: Path | None = None,
    progress: Progress = silent,
) -> Pictures:
    """Survey image files; memory does not grow with their pixels.

    The headers of all files are read.  Decoded are only those that may have colour, up to the
    first that has, and those of 16 bits, whose common scale is that of their greatest value.
    DICOM images are scaled each by its own window; see :func:`confide.datasets.dicom.read_dicom`.
    With a cache, all are decoded now, or were before; see :func:`confide.datasets.cache.keep`.

    Parameters
    ----------
    paths : PNG, JPEG, TIFF, DICOM, .npy or .npz files, one a record
    size : height and width of the result
    channels : 1 (grey), 3 (RGB), or "auto": grey if no image has colour
    reading : channels and scale that were decided before, instead of deciding them
    files : how each is read
    cache : folder where decoded images are kept
    progress : called with (images kept, images in all) while the cache is filled

    Raises
    ------
    ImageError : a file is absent, damaged, too large in pixels, holds several frames, is of
        another kind or form, has 16-bit values beyond the scale of `reading`, or changed while it
        was read; names the row and the file
    FolderError : the cache cannot be written
    MissingExtraError : there are DICOM files, and the packages that read them are not installed
    """
    channels = channels if reading is None else reading.channels

    def decode(row: int) -> NDArray[Any]:
        with naming(row, paths[row]):
            return files.decoded(paths[row], size, channels)

    def digest(row: int) -> str:
        with naming(row, paths[row]):
            return files.digest(paths[row])

    def path(row: int) -> Path:
        return paths[row]

    def survey() -> Pictures:
        kinds, notes = _looked(paths, files)
        return _surveyed(
            kinds,
            channels,
            reading,
            decode=decode,
            path=path,
            size=size,
            notes=notes,
            mark=lambda: tuple(each(digest, range(len(paths)))),
        )

    if cache is None or not paths:
        return survey()
    asked = {
        "size": list(size),
        "channels": channels,
        "reading": None if reading is None else reading.to_json(),
        "files": repr(files),
    }
    kept = keep(
        cache,
        paths,
        asked,
        survey=survey,
        reader=lambda decided: _Decoder(decode=decode, path=path, size=size, reading=decided).read,
        digest=digest,
        progress=progress,
    )
    return Pictures(
        reader=lambda rows, progress: np.array(kept.images[rows], subok=False),
        size=size,
        reading=kept.reading,
        notes=kept.notes,
        mark=lambda: kept.digests,
    )


def _looked(paths: Sequence[Path], files: Files) -> tuple[list[Kind], tuple[str, ...]]:
    """What the headers of all files say: the kind of each, and notes."""

    def head(row: int) -> Head:
        with naming(row, paths[row]):
            return files.look(paths[row])

    heads = list(each(head, range(len(paths))))
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
    return [head.kind for head in heads], tuple(notes)


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
        check_pictures(what, shape, dtype, many=True)
        if shape[0] != n_records:
            raise ImageError(
                f"{what} has {shape[0]} images for a table of {n_records} rows; expected one a row."
            )

    stored = open_array(path, key, check, max_bytes=max_bytes)

    def decode(row: int) -> NDArray[Any]:
        return resized(Image.fromarray(as_picture(stored.array[row])), size, channels)

    return _surveyed(
        [kind_of(as_picture(stored.array[0]))] * n_records if n_records else [],
        channels,
        reading,
        decode=decode,
        path=lambda row: path,
        size=size,
        notes=(),
        mark=stored.mark,
    )


# --- what all images have in common


@dataclass(frozen=True, kw_only=True, eq=False)
class _Decoder:
    """Reads images, each row from its file, on the scale of all."""

    decode: Callable[[int], NDArray[Any]]
    path: Callable[[int], Path]
    size: Size
    reading: Reading

    def one(self, row: int) -> NDArray[np.uint8]:
        """(height, width) or (height, width, 3)."""
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

    def read(self, rows: NDArray[np.intp], progress: Progress) -> NDArray[np.uint8]:
        result = np.empty((len(rows), self.reading.channels, *self.size), dtype=np.uint8)

        def place(i: int) -> None:
            image = self.one(int(rows[i]))
            result[i] = image if image.ndim == 2 else np.moveaxis(image, -1, 0)

        for done, _ in enumerate(each(place, range(len(rows))), start=1):
            if done % _TOLD_EVERY == 0 or done == len(rows):
                progress(done, len(rows))
        return result


def _surveyed(
    kinds: Sequence[Kind],
    channels: Channels,
    reading: Reading | None,
    *,
    decode: Callable[[int], NDArray[Any]],
    path: Callable[[int], Path],
    size: Size,
    notes: tuple[str, ...],
    mark: Callable[[], tuple[Any, ...]],
) -> Pictures:
    """The images, read as it was decided before, or else as all of them together ask for."""
    deep = [row for row, kind in enumerate(kinds) if kind == "deep"]
    decided = reading
    if decided is None:
        coloured = channels == 3
        if channels == "auto":
            maybe = [row for row, kind in enumerate(kinds) if kind == "colour"]
            # The first will mostly do.
            coloured = any(each(lambda row: decode(row).ndim == 3, maybe, per_core=1))
        largest = max(each(lambda row: float(decode(row).max()), deep), default=None)
        decided = Reading.of(largest, coloured)
    if deep:
        says = f"their values 0 to {decided.top:,} became 0 to 255."
        notes = (f"{len(deep)} images have 16 bits; {says}", *notes)
    decoder = _Decoder(decode=decode, path=path, size=size, reading=decided)
    if reading is not None:
        # Refused now, and not halfway through the work.
        for _ in each(lambda row: decoder.one(row).size, deep):
            pass
    return Pictures(reader=decoder.read, size=size, reading=decided, notes=notes, mark=mark)
