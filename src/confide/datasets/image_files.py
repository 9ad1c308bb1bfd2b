"""One image file -> pixels; PNG, JPEG or DICOM and nothing else, whatever it is called.

Every further decoder would be a further risk with files from elsewhere.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from confide.datasets import dicom
from confide.datasets.reading import Channels
from confide.errors import ImageError

if TYPE_CHECKING:
    from PIL.Image import Image

Size = tuple[int, int]
Kind = Literal["grey", "colour", "deep"]  # colour: may have it; deep: of 16 bits

# What Pillow and zlib raise on damaged files.
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)


class Head(NamedTuple):
    """What the header of a file says; see :class:`confide.datasets.dicom.Look`."""

    kind: Kind
    burned_in: bool = False
    bare: bool = False  # DICOM without a window


def look(path: Path) -> Head:
    """Check the header of a file, without its pixels."""
    with path.open("rb") as file:
        if dicom.is_dicom(file):
            head = dicom.look(path)
            return Head("colour" if head.colour else "grey", head.burned_in, head.bare)
        with _opened(file, path) as image:
            if image.mode.startswith("I"):
                return Head("deep")
            return Head("grey" if image.mode in ("1", "L", "LA") else "colour")


def decoded(path: Path, size: Size, channels: Channels) -> NDArray[Any]:
    """(height, width) or (height, width, 3); uint8, or float32 for 16-bit files."""
    from PIL import Image

    with path.open("rb") as file:
        if not dicom.is_dicom(file):
            with _opened(file, path) as image:
                return resized(image, size, channels)
    pixels = dicom.read_dicom(path)
    small = resized(Image.fromarray(pixels), size, channels)
    # Already on the scale of 0 to 255, unlike 16-bit files.
    return np.round(small).astype(np.uint8) if pixels.ndim == 2 else small


@contextmanager
def _opened(file: Any, path: Path) -> Iterator[Image]:
    from PIL import Image

    with Image.open(file, formats=("PNG", "JPEG")) as image:
        if getattr(image, "n_frames", 1) > 1:
            raise ImageError(f"{path} holds several frames; save one image per file.")
        yield image


@contextmanager
def naming(row: int, path: Path) -> Iterator[None]:
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


def resized(image: Image, size: Size, channels: Channels) -> NDArray[Any]:
    """(height, width) uint8 or float32, or (height, width, 3) uint8 if it has colour."""
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
