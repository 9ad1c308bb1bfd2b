"""One image file -> pixels, whatever it is called.

PNG, JPEG, plain TIFF, DICOM, and NumPy's .npy and .npz, and nothing else: every further decoder
would be a further risk with files from elsewhere.
"""

from __future__ import annotations

import contextlib
import hashlib
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from confide.datasets import dicom
from confide.datasets.arrays import open_array
from confide.datasets.reading import Channels
from confide.errors import ImageError

if TYPE_CHECKING:
    from PIL.Image import Image

Size = tuple[int, int]
Box = tuple[float, float, float, float]  # left, top, right, bottom, in pixels
Kind = Literal["grey", "colour", "deep"]  # colour: may have it; deep: of 16 bits

_SPARE = 2
"""A JPEG is decoded no smaller than this many times the wanted size."""

DECODING = f"jpeg {_SPARE}"
"""Changes when files are decoded to other pixels than before: no run mixes the two."""

# What Pillow and zlib raise on damaged files.
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,  # a directory of TIFF without dimensions, or of other types
    LookupError,
    ArithmeticError,
    EOFError,
    MemoryError,  # a chunk of PNG that states 4 GiB
    struct.error,
    zlib.error,
)


class Head(NamedTuple):
    """What the header of a file says; see :class:`confide.datasets.dicom.Look`."""

    kind: Kind
    burned_in: bool = False
    bare: bool = False  # DICOM without a window


@dataclass(frozen=True)
class Files:
    """How files are read, each alone: by what they hold.  A subclass reads files of one form.

    Parameters
    ----------
    key : name of the array in .npz files; None for the first
    """

    key: str | None = None

    def look(self, path: Path) -> Head:
        """Check the header of a file, without its pixels."""
        return look(path, self.key)

    def decoded(self, path: Path, size: Size, channels: Channels) -> NDArray[Any]:
        """See :func:`decoded`."""
        return decoded(path, size, channels, self.key)

    def digest(self, path: Path) -> str:
        """SHA-256 (hex) of all that the pixels follow from."""
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def look(path: Path, key: str | None = None) -> Head:
    """Check the header of a file, without its pixels; `key` as in :func:`decoded`."""
    with path.open("rb") as file:
        what = _container(file)
        if what == "picture":
            plain = _plain_jpeg(file)
            if plain is not None:
                return Head(plain)
            with _opened(file, path) as image:
                if image.mode.startswith("I"):
                    return Head("deep")
                return Head("grey" if image.mode in ("1", "L", "LA") else "colour")
    if what == "array":
        return Head(kind_of(_array(path, key)))
    head = dicom.look(path)
    return Head("colour" if head.colour else "grey", head.burned_in, head.bare)


def decoded(path: Path, size: Size, channels: Channels, key: str | None = None) -> NDArray[Any]:
    """(height, width) or (height, width, 3); uint8, or float32 for 16-bit files.

    A JPEG image of at least four times the wanted height and width is decoded to 1/2, 1/4 or 1/8 of
    its own, to the smallest that has twice the wanted ones, before it is resized: libjpeg leaves
    out high frequencies then, which resizing would average out.

    Parameters
    ----------
    path : the file
    size, channels : as in :func:`resized`
    key : name of the array in an .npz file; None for the first
    """
    from PIL import Image

    with path.open("rb") as file:
        what = _container(file)
        if what == "picture":
            with _opened(file, path) as image:
                return resized(image, size, channels, _shrunk(image, size))
    if what == "array":
        return resized(Image.fromarray(_array(path, key)), size, channels)
    pixels = dicom.read_dicom(path)
    small = resized(Image.fromarray(pixels), size, channels)
    # Already on the scale of 0 to 255, unlike 16-bit files.
    return np.round(small).astype(np.uint8) if pixels.ndim == 2 else small


_HEADER = 2**14  # bytes of a JPEG file, enough for a header without pictures or profiles in it
_SOF, _SOS = (0xC0, 0xC1, 0xC2), 0xDA  # markers of ITU-T T.81, table B.1
_PASSED = {0xC4, 0xDB, 0xDD, 0xE0, 0xFE}  # tables, JFIF and comments


def _plain_jpeg(file: BinaryIO) -> Kind | None:
    """The kind of a JPEG image with a header as most have; None leaves the file to Pillow.

    A header takes Pillow as long as a tenth of the pixels, and it is asked again when it decodes.
    """
    from PIL import Image

    head = file.read(_HEADER)
    file.seek(0)
    kind: Kind | None = None
    place = 2
    while head[:2] == b"\xff\xd8" and place + 10 <= len(head) and head[place] == 0xFF:
        marker, length = head[place + 1], int.from_bytes(head[place + 2 : place + 4])
        if marker == _SOS:
            return kind
        if marker in _SOF and kind is None:
            bits, height, width, n = struct.unpack_from(">BHHB", head, place + 4)
            limit = Image.MAX_IMAGE_PIXELS or 2**32
            if bits != 8 or n not in (1, 3) or not 0 < height * width <= limit:
                return None
            kind = "grey" if n == 1 else "colour"
        elif marker not in _PASSED or length < 2:
            return None
        place += 2 + length
    return None


def _shrunk(image: Image, size: Size) -> Box | None:
    """Have a JPEG image decoded smaller; what of its pixels is the image, None for all.

    The last row and column may be there in part: 390 pixels at 1/4 are 97.5.
    """
    height, width = size
    drafted = image.draft(None, (_SPARE * width, _SPARE * height))
    return None if drafted is None else drafted[1]


def _container(file: Any) -> Literal["picture", "array", "dicom"]:
    """What a file is, by its first bytes; goes back to its start."""
    if dicom.is_dicom(file):
        return "dicom"
    head = file.read(6)
    file.seek(0)
    return "array" if head == b"\x93NUMPY" or head[:4] == b"PK\x03\x04" else "picture"


@contextmanager
def _opened(file: Any, path: Path) -> Iterator[Image]:
    from PIL import Image

    with Image.open(file, formats=("PNG", "JPEG", "TIFF")) as image:
        frames = _tiff_frames(image, path) if image.format == "TIFF" else 1
        if max(frames, getattr(image, "n_frames", 1)) > 1:
            raise ImageError(f"{path} holds several frames; save one image per file.")
        yield image


# What Pillow calls them.  The others are further decoders, or made for documents.
_PACKED = {"raw", "packbits", "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate"}
_BITS, _PHOTOMETRIC, _PLANES, _FORMAT = 258, 262, 284, 339  # tags of TIFF 6.0, section 8


def _tiff_frames(image: Any, path: Path) -> int:
    """1 for one page, 2 for more; refuses what would be shown wrongly, or not at all.

    Of the forms of TIFF 6.0: one plane of 8-bit grey, palette or RGB, or of 16-bit grey from
    black to white.
    """
    with contextlib.suppress(EOFError):
        image.seek(1)  # counting all pages would follow as many as the file claims
        return 2
    tags = image.tag_v2
    bits = set(tags.get(_BITS, (1,)))
    deep = bits == {16} and image.mode.startswith("I;16") and tags.get(_PHOTOMETRIC) == 1
    flat = bits == {8} and image.mode in ("L", "LA", "P", "RGB", "RGBA")
    form = {*tags.get(_FORMAT, (1,))}, tags.get(_PLANES, 1)
    if not (deep or flat) or form != ({1}, 1) or image.info["compression"] not in _PACKED:
        raise ImageError(
            f"{path} is a TIFF image in a form that is not read ({image.mode}, "
            f"{max(bits)} bits, {image.info['compression']}); save it as PNG."
        )
    covered = sum((right - left) * (low - top) for _, (left, top, right, low), *_ in image.tile)
    if covered < image.width * image.height:
        raise ImageError(f"{path} is damaged: parts of its image are absent.")
    return 1


def as_picture(array: NDArray[Any]) -> NDArray[Any]:
    """An image with its channels first or last -> (height, width) or (height, width, 3)."""
    if array.ndim == 3:
        array = array if array.shape[2] in (1, 3) else np.moveaxis(array, 0, 2)
        array = array[..., 0] if array.shape[2] == 1 else array
    return np.ascontiguousarray(array)


def kind_of(array: NDArray[Any]) -> Kind:
    """What one image says of itself, or an array of images of all."""
    return "deep" if array.dtype == np.uint16 else "colour" if array.ndim == 3 else "grey"


def check_pictures(
    what: str, shape: tuple[int, ...], dtype: np.dtype[Any], *, many: bool = False
) -> None:
    """Refuse an array that is no image, or, if `many`, no images.

    Those are (height, width) uint8 or uint16, or uint8 with 1 or 3 channels last or first.
    """
    from PIL import Image

    if dtype not in (np.uint8, np.uint16):
        raise ImageError(f"{what} is of type {dtype}; expected uint8 or uint16.")
    one = shape[1:] if many else shape
    colour = len(one) == 3 and dtype == np.uint8 and bool({one[0], one[2]} & {1, 3})
    if not (len(one) == 2 or colour):
        raise ImageError(
            f"{what} is of shape {shape} and type {dtype}; expected "
            f"({'records, ' if many else ''}height, width), or uint8 with 1 or 3 channels after or "
            "before height and width."
        )
    height, width = one[1:] if colour and one[2] not in (1, 3) else one[:2]
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and height * width > limit:
        raise ImageError(
            f"{what} has {'images of ' if many else ''}{height:,} x {width:,} pixels; expected at "
            f"most {limit:,} each, make them smaller."
        )


def _array(path: Path, key: str | None) -> NDArray[Any]:
    return as_picture(open_array(path, key, check_pictures).array)


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
        if not path.stat().st_size:
            raise ImageError(f"Row {row}: {path} is empty; get it again.") from error
        raise ImageError(
            f"Row {row}: {path} is not a PNG, JPEG or TIFF image, nor DICOM or an array of NumPy; "
            "convert it to PNG."
        ) from error
    except _DAMAGED as error:
        raise ImageError(f"Row {row}: {path} is damaged or cannot be read ({error}).") from error


def resized(image: Image, size: Size, channels: Channels, box: Box | None = None) -> NDArray[Any]:
    """(height, width) uint8 or float32, or (height, width, 3) uint8 if it has colour.

    Of the part of the image in `box`, if it is given.
    """
    from PIL.Image import Resampling

    height, width = size
    if image.mode == "F" or image.mode.startswith("I"):  # scaled later, or already
        image = image.convert("F")
    else:
        mode = "L" if image.mode in ("1", "L", "LA") or channels == 1 else "RGB"
        image = image if image.mode == mode else image.convert(mode)
    pixels = np.asarray(image.resize((width, height), Resampling.BILINEAR, box))
    grey = pixels.ndim == 3 and bool((pixels == pixels[..., :1]).all())
    return pixels[..., 0] if grey else pixels
