"""Image files and arrays of images -> uint8 images of one size, decoded when they are asked for.

Files are decoded as PNG, JPEG or DICOM and nothing else, whatever they are called, because every
further decoder is a further risk with files from elsewhere.
"""

from __future__ import annotations

import os
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from confide.datasets import dicom
from confide.datasets.arrays import MAX_ARRAY_BYTES, open_array
from confide.errors import ImageError

if TYPE_CHECKING:
    from PIL.Image import Image

Size = tuple[int, int]
Channels = Literal["auto", 1, 3]
_Result = TypeVar("_Result")

# What Pillow and zlib raise on damaged files.
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)

# Filters of warnings belong to the process: two threads that set them at once would not restore
# them.
_FILTERS = threading.Lock()


@dataclass(frozen=True, kw_only=True, eq=False)
class Pictures:
    """Images of one size, not yet decoded.

    Parameters
    ----------
    decode : row -> (height, width) or (height, width, 3), uint8, or float32 for 16 bits
    shape : channels, height and width of the result
    scale : factor that brings 16-bit images to 0-255: one for all, so that they stay comparable
    notes : what was decided, one sentence each
    mark : plain values that change when the files do
    """

    decode: Callable[[int], NDArray[Any]]
    shape: tuple[int, int, int]
    scale: np.float32
    notes: tuple[str, ...]
    mark: tuple[Any, ...] = field(repr=False)

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
        ImageError : a file is damaged; names the row and the file
        """
        result = np.empty((len(rows), *self.shape), dtype=np.uint8)
        for i, image in enumerate(_each(self.decode, rows.tolist())):
            pixels = image if image.dtype == np.uint8 else np.round(image * self.scale)
            result[i] = np.moveaxis(np.atleast_3d(pixels), -1, 0)
        return result


def read_files(
    paths: Sequence[Path], size: Size, channels: Channels = "auto"
) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """(n_records, channels, height, width) uint8 and notes; see :func:`open_files`."""
    found = open_files(paths, size, channels)
    return found.read(np.arange(len(paths))), found.notes


def open_files(paths: Sequence[Path], size: Size, channels: Channels = "auto") -> Pictures:
    """Survey image files; memory does not grow with their pixels.

    The headers of all files are read.  Decoded are only those that may have colour, up to the
    first that has, and those of 16 bits, whose common scale is that of their greatest value.
    DICOM images are scaled each by its own window; see :func:`confide.datasets.dicom.read_dicom`.

    Parameters
    ----------
    paths : PNG, JPEG or DICOM files, one a record
    size : height and width of the result
    channels : 1 (grey), 3 (RGB), or "auto": grey if no image has colour

    Raises
    ------
    ImageError : a file is absent, damaged, too large in pixels, holds several frames, or is no
        PNG, JPEG or DICOM; names the row and the file
    MissingExtraError : there are DICOM files, and the packages that read them are not installed
    """

    def decode(row: int) -> NDArray[Any]:
        with _naming(row, paths[row]):
            return _decoded(paths[row], size, channels)

    def look(row: int) -> _Head:
        with _naming(row, paths[row]):
            return _head(paths[row])

    heads = list(_each(look, range(len(paths))))
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
    mark = tuple(head.n_bytes for head in heads)
    return _surveyed(decode, kinds, size, channels, notes, mark)


def read_array(
    path: Path,
    key: str | None,
    n_records: int,
    size: Size,
    channels: Channels = "auto",
    *,
    max_bytes: int = MAX_ARRAY_BYTES,
) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """(n_records, channels, height, width) uint8 and notes; see :func:`open_images`."""
    found = open_images(path, key, n_records, size, channels, max_bytes=max_bytes)
    return found.read(np.arange(n_records)), found.notes


def open_images(
    path: Path,
    key: str | None,
    n_records: int,
    size: Size,
    channels: Channels = "auto",
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
    size, channels : as in :func:`open_files`
    max_bytes : most bytes that the array may have

    Raises
    ------
    MissingFileError : there is no such file
    ImageError : not such a file, no such array, or one of the wrong shape, type or size
    """
    from PIL import Image

    def check(what: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        _check_array(what, shape, dtype, n_records)

    stored = open_array(path, key, check, max_bytes=max_bytes)
    array = stored.array
    if array.ndim == 4:
        array = array if array.shape[3] in (1, 3) else np.moveaxis(array, 1, 3)
        array = array[..., 0] if array.shape[3] == 1 else array

    def decode(row: int) -> NDArray[Any]:
        return _resized(Image.fromarray(np.ascontiguousarray(array[row])), size, channels)

    kind: _Kind = "deep" if array.dtype == np.uint16 else "colour" if array.ndim == 4 else "grey"
    return _surveyed(decode, [kind] * n_records, size, channels, [], stored.mark)


def _check_array(what: str, shape: tuple[int, ...], dtype: np.dtype[Any], n_records: int) -> None:
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


# --- what all images have in common

_Kind = Literal["grey", "colour", "deep"]  # colour: may have it; deep: of 16 bits


def _surveyed(
    decode: Callable[[int], NDArray[Any]],
    kinds: Sequence[_Kind],
    size: Size,
    channels: Channels,
    notes: list[str],
    mark: tuple[Any, ...],
) -> Pictures:
    coloured = channels == 3
    if channels == "auto":
        maybe = [row for row, kind in enumerate(kinds) if kind == "colour"]
        coloured = any(image.ndim == 3 for image in _each(decode, maybe))
    deep = [row for row, kind in enumerate(kinds) if kind == "deep"]
    largest = max((float(image.max()) for image in _each(decode, deep)), default=None)
    scale, of_scale = _scale(largest, len(deep))
    return Pictures(
        decode=decode,
        shape=(3 if coloured else 1, *size),
        scale=scale,
        notes=(*of_scale, *notes),
        mark=mark,
    )


def _scale(largest: float | None, n_images: int) -> tuple[np.float32, tuple[str, ...]]:
    """Factor for 16-bit images: many have 10 or 12 bits in use, and would be black if halved."""
    if largest is None:
        return np.float32(1), ()
    top = 2 ** max(8, int(np.ceil(largest)).bit_length()) - 1
    note = f"{n_images} images have 16 bits; their values 0 to {top:,} became 0 to 255."
    return np.float32(255 / top), (note,)


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


# --- files


class _Head(NamedTuple):
    kind: _Kind
    n_bytes: int
    burned_in: bool = False
    bare: bool = False  # DICOM without a window


def _head(path: Path) -> _Head:
    with path.open("rb") as file:
        n_bytes = os.fstat(file.fileno()).st_size
        if dicom.is_dicom(file):
            head = dicom.look(path)
            return _Head("colour" if head.colour else "grey", n_bytes, head.burned_in, head.bare)
        with _opened(file, path) as image:
            if image.mode.startswith("I"):
                return _Head("deep", n_bytes)
            return _Head("grey" if image.mode in ("1", "L", "LA") else "colour", n_bytes)


def _decoded(path: Path, size: Size, channels: Channels) -> NDArray[Any]:
    """(height, width) or (height, width, 3); uint8, or float32 for 16-bit files."""
    from PIL import Image

    with path.open("rb") as file:
        if not dicom.is_dicom(file):
            with _opened(file, path) as image:
                return _resized(image, size, channels)
    pixels = dicom.read_dicom(path)
    resized = _resized(Image.fromarray(pixels), size, channels)
    # Already on the scale of 0 to 255, unlike 16-bit files.
    return np.round(resized).astype(np.uint8) if pixels.ndim == 2 else resized


@contextmanager
def _opened(file: Any, path: Path) -> Iterator[Image]:
    from PIL import Image

    with Image.open(file, formats=("PNG", "JPEG")) as image:
        if getattr(image, "n_frames", 1) > 1:
            raise ImageError(f"{path} holds several frames; save one image per file.")
        yield image


@contextmanager
def _naming(row: int, path: Path) -> Iterator[None]:
    """Turn what goes wrong with a file into an ImageError that names row and file."""
    from PIL import Image, UnidentifiedImageError

    try:
        yield
    except ImageError as error:
        raise ImageError(f"Row {row}: {error}") from error
    except FileNotFoundError as error:
        raise ImageError(
            f"Row {row}: There is no image {path}; check the table and the folder."
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(
            f"Row {row}: {path} has more than {Image.MAX_IMAGE_PIXELS:,} pixels; make it smaller."
        ) from error
    except UnidentifiedImageError as error:
        raise ImageError(
            f"Row {row}: {path} is not a PNG or JPEG image, nor DICOM; convert it to PNG."
        ) from error
    except _DAMAGED as error:
        raise ImageError(f"Row {row}: {path} is damaged or cannot be read ({error}).") from error


def _resized(image: Image, size: Size, channels: Channels) -> NDArray[Any]:
    from PIL.Image import Resampling

    height, width = size
    if image.mode == "F" or image.mode.startswith("I"):  # scaled later, or already
        image = image.convert("F")
    elif image.mode in ("1", "L", "LA") or channels == 1:
        image = image.convert("L")
    else:
        image = image.convert("RGB")
    pixels = np.asarray(image.resize((width, height), Resampling.BILINEAR))
    grey = pixels.ndim == 3 and bool((pixels == pixels[..., :1]).all())
    return pixels[..., 0] if grey else pixels
