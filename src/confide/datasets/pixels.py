"""Image files and arrays of images -> uint8 images of one size.

Files are decoded as PNG or JPEG and nothing else, whatever they are called, because every further
decoder is a further risk with files from elsewhere.
"""

from __future__ import annotations

import math
import os
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from confide.errors import ImageError, MissingFileError

if TYPE_CHECKING:
    from PIL.Image import Image

Size = tuple[int, int]
Channels = Literal["auto", 1, 3]

MAX_ARRAY_BYTES = 8 * 2**30
"""An array of images that would take more memory is refused before it is read."""

# What Pillow and zlib raise on damaged files.
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)
_DAMAGED_ARRAY = (
    *_DAMAGED,
    NotImplementedError,  # an unknown compression
    RuntimeError,  # an encrypted file
    tokenize.TokenError,
    zipfile.BadZipFile,
)


def read_files(
    paths: Sequence[Path], size: Size, channels: Channels = "auto"
) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Decode and resize image files, on all cores.

    Parameters
    ----------
    paths : PNG or JPEG files, one a record
    size : height and width of the result
    channels : 1 (grey), 3 (RGB), or "auto": grey if no image has colour

    Returns
    -------
    images : (n_records, channels, height, width) uint8, resized by a bilinear filter with
        antialiasing
    notes : what was decided, one sentence each

    Raises
    ------
    ImageError : a file is absent, damaged, too large in pixels, holds several frames, or is no
        PNG or JPEG; names the row and the file
    """
    from PIL import Image

    def decode(row: int) -> NDArray[Any]:
        try:
            return _decode(paths[row], size, channels)
        except ImageError as error:
            raise ImageError(f"Row {row}: {error}") from error

    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        # Pillow only warns of an image between one and two times its limit of pixels.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        # Metadata that Pillow cannot read have no bearing on the pixels.
        warnings.simplefilter("ignore", UserWarning)
        images = list(pool.map(decode, range(len(paths))))
    return _stacked(images, channels)


def _decode(path: Path, size: Size, channels: Channels) -> NDArray[Any]:
    """(height, width) or (height, width, 3); uint8, or float32 for 16-bit files."""
    from PIL import Image, UnidentifiedImageError

    try:
        with path.open("rb") as file:
            head = file.read(132)
            if head[128:] == b"DICM":
                raise ImageError(
                    f"{path} is a DICOM file, which this version does not read; convert it to PNG."
                )
            file.seek(0)
            with Image.open(file, formats=("PNG", "JPEG")) as image:
                if getattr(image, "n_frames", 1) > 1:
                    raise ImageError(f"{path} holds several frames; save one image per file.")
                return _resized(image, size, channels)
    except ImageError:
        raise
    except FileNotFoundError as error:
        raise ImageError(f"There is no image {path}; check the table and the folder.") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(
            f"{path} has more than {Image.MAX_IMAGE_PIXELS:,} pixels; make it smaller."
        ) from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{path} is not a PNG or JPEG image; convert it to PNG.") from error
    except _DAMAGED as error:
        raise ImageError(f"{path} is damaged or cannot be read ({error}).") from error


def _resized(image: Image, size: Size, channels: Channels) -> NDArray[Any]:
    from PIL.Image import Resampling

    height, width = size
    if image.mode.startswith("I"):  # 16 bits: scaled later, by one factor for all files
        image = image.convert("F")
    elif image.mode in ("1", "L", "LA") or channels == 1:
        image = image.convert("L")
    else:
        image = image.convert("RGB")
    pixels = np.asarray(image.resize((width, height), Resampling.BILINEAR))
    grey = pixels.ndim == 3 and bool((pixels == pixels[..., :1]).all())
    return pixels[..., 0] if grey else pixels


def _stacked(
    images: list[NDArray[Any]], channels: Channels
) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    colour = channels == 3 or any(image.ndim == 3 for image in images)
    scale, notes = _scale(images)
    height, width = images[0].shape[:2]
    result = np.empty((len(images), 3 if colour else 1, height, width), dtype=np.uint8)
    for row, image in enumerate(images):
        pixels = image if image.dtype == np.uint8 else np.round(image * scale)
        result[row] = np.moveaxis(np.atleast_3d(pixels), -1, 0)
    return result, notes


def _scale(images: list[NDArray[Any]]) -> tuple[np.float32, tuple[str, ...]]:
    """Factor that brings 16-bit images to 0-255: one for all, so that they stay comparable.

    Many have 10 or 12 bits in use, and would be black if scaled by 16.
    """
    deep = [float(image.max()) for image in images if image.dtype != np.uint8]
    if not deep:
        return np.float32(1), ()
    top = 2 ** max(8, int(np.ceil(max(deep))).bit_length()) - 1
    note = f"{len(deep)} images have 16 bits; their values 0 to {top:,} became 0 to 255."
    return np.float32(255 / top), (note,)


def read_array(
    path: Path,
    key: str | None,
    n_records: int,
    size: Size,
    channels: Channels = "auto",
    *,
    max_bytes: int = MAX_ARRAY_BYTES,
) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Images from an array in an .npz file, in the form of :func:`read_files`.

    The array is (n_records, height, width) uint8 or uint16, or uint8 with 1 or 3 channels last or
    first.  Its size is checked before it is read.

    Parameters
    ----------
    path : the file
    key : name of the array; None for the first
    n_records : how many images there should be
    size, channels : as in :func:`read_files`
    max_bytes : most memory that the array may take

    Raises
    ------
    MissingFileError : there is no such file
    ImageError : not an .npz file, no such array, or one of the wrong shape, type or size
    """
    from PIL import Image

    if not path.is_file():
        raise MissingFileError(f"There is no array {path}; check the path.")
    try:
        array = _checked_array(path, key, n_records, max_bytes)
    except ImageError:
        raise
    except _DAMAGED_ARRAY as error:
        raise ImageError(f"{path} is damaged or not an .npz file ({error}).") from error
    if array.ndim == 4:
        array = array if array.shape[3] in (1, 3) else np.moveaxis(array, 1, 3)
        array = array[..., 0] if array.shape[3] == 1 else array
    images = (np.ascontiguousarray(pixels) for pixels in array)
    return _stacked([_resized(Image.fromarray(one), size, channels) for one in images], channels)


def _checked_array(path: Path, key: str | None, n_records: int, max_bytes: int) -> NDArray[Any]:
    with zipfile.ZipFile(path) as archive:
        names = [name[:-4] for name in archive.namelist() if name.endswith(".npy")]
        wanted = key if key is not None else (names or [""])[0]
        if wanted not in names:
            known = ", ".join(names) or "none"
            raise ImageError(f"{path} has no array {wanted!r}; its arrays are: {known}.")
        with archive.open(f"{wanted}.npy") as file:
            shape, dtype = _npy_header(file)
        what = f"Array {wanted!r} of {path}"
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
        n_bytes = math.prod(shape) * dtype.itemsize
        if not 0 < n_bytes <= max_bytes:
            raise ImageError(f"{what} takes {n_bytes:,} bytes; expected 1 to {max_bytes:,}.")
        with archive.open(f"{wanted}.npy") as file:
            array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
        return array


def _npy_header(file: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    if np.lib.format.read_magic(file) == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    else:
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    return shape, dtype
