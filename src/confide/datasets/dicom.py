"""DICOM files -> grey or RGB images, as the standard says that they are shown.

Here a file is checked and its stored values are decoded; what they look like is the matter of
:mod:`confide.datasets.dicom_values`.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from numpy.typing import NDArray

from confide.datasets import dicom_values as values
from confide.errors import ConfideError, ImageError, MissingExtraError

if TYPE_CHECKING:
    from pydicom import Dataset

MAX_FILE_BYTES = 2**29
"""A larger file is refused before it is read."""

_MAX_READS = 200_000  # a header has a few hundred elements; a hostile one could have millions
_MAX_LUT_BYTES = 2**22

_NATIVE = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"}
_JPEG = {"1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"}
_JPEG_2000 = {"1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"}
_RLE = {"1.2.840.10008.1.2.5"}
_GREY = {"MONOCHROME1", "MONOCHROME2"}
_THREE = {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"}

_NEEDED = [
    "SOPClassUID",
    "Modality",
    "BurnedInAnnotation",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "RescaleIntercept",
    "RescaleSlope",
    "ModalityLUTSequence",
    "VOILUTSequence",
    *(
        f"{colour}PaletteColorLookupTable{part}"
        for colour in values.RED_GREEN_BLUE
        for part in ("Descriptor", "Data")
    ),
    "PixelData",
]


class Look(NamedTuple):
    """What the header of an image says.

    colour : it may have colour
    burned_in : it says that annotations are part of the pixels
    bare : it is grey and has neither a window nor a VOI LUT
    """

    colour: bool
    burned_in: bool
    bare: bool


def is_dicom(file: BinaryIO) -> bool:
    """Whether an open file is DICOM, by "DICM" after 128 bytes; goes back to its start."""
    head = file.read(132)
    file.seek(0)
    return head[128:] == b"DICM"


def look(path: Path) -> Look:
    """Check the header of an image, without its pixels; raises as :func:`read_dicom`."""
    with _refusing(path):
        dataset = _parsed(path, pixels=False)
        grey = dataset.PhotometricInterpretation in _GREY
        bare = grey and not dataset.get("VOILUTSequence") and values.window(dataset) is None
        burned_in = str(dataset.get("BurnedInAnnotation", "")).strip().upper() == "YES"
        return Look(not grey, burned_in, bare)


def read_dicom(path: Path) -> NDArray[Any]:
    """Read a DICOM image as it is meant to be shown.

    Grey: modality LUT or rescale (PS3.3 C.11.1), then the first VOI LUT, else the first window
    (PS3.3 C.11.2), else the range of the values of this image, from 0 (black) to 255.  A window
    too narrow for the standard counts as none.  Padding is black and has no part in the range.
    Colour: palettes and YBR become RGB.  Read are uncompressed pixels, RLE, 8-bit JPEG and
    JPEG 2000.

    Parameters
    ----------
    path : the file

    Returns
    -------
    (height, width) float32 from 0 to 255, or (height, width, 3) uint8

    Raises
    ------
    ImageError : damaged, without an image, with several frames, too large, or in a form that is
        not read; names the file
    MissingExtraError : pydicom or a decoder is not installed
    """
    with _refusing(path):
        dataset = _parsed(path, pixels=True)
        stored = _stored(dataset, path)
        photometric = dataset.PhotometricInterpretation
        if photometric in _GREY:
            return values.shown(stored, dataset)
        if photometric == "PALETTE COLOR":
            return values.painted(stored, dataset)
        bits = 8 if stored.dtype.itemsize == 1 else dataset.BitsStored
        return stored if bits == 8 else values.eight_bits(stored, bits)


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    try:
        yield
    except (ConfideError, FileNotFoundError):
        raise
    # A file from elsewhere makes pydicom and the decoders raise nearly anything.
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise ImageError(f"{path} is a damaged DICOM file ({reason}).") from error


# --- the header


class _Bounded:
    """A file that is read in at most so many calls, none of them beyond its end."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size, self._left = file, size, _MAX_READS

    def read(self, size: int = -1) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise ValueError("its header has too many elements")
        rest = max(self._size - self._file.tell(), 0)
        return self._file.read(rest if size < 0 else min(size, rest))

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def _parsed(path: Path, *, pixels: bool) -> Dataset:
    """The elements of `_NEEDED`, checked."""
    try:
        from pydicom import dcmread
        from pydicom.dataelem import RawDataElement
        from pydicom.filereader import _read_file_meta_info, read_preamble
    except ImportError as error:
        raise MissingExtraError(
            f'{path} is a DICOM file; to read it, pip install "confide[dicom]".'
        ) from error
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise ImageError(f"{path} has {size:,} bytes; at most {MAX_FILE_BYTES:,} are read.")
    with path.open("rb") as file:
        # The public reader of this part takes a path, and would read without bounds.
        start: Any = _Bounded(file, size)
        read_preamble(start, False)
        syntax = _read_file_meta_info(start).get("TransferSyntaxUID")
        if not syntax:
            raise ImageError(f"{path} is a DICOM file that does not say its transfer syntax.")
        # Before the rest is read, since pydicom would inflate a deflated one, whatever its size.
        if syntax not in _NATIVE | _JPEG | _JPEG_2000 | _RLE:
            raise _unread(path, syntax)
        file.seek(0)
        dataset = dcmread(
            _Bounded(file, size), stop_before_pixels=not pixels, specific_tags=_NEEDED
        )
    for element in dataset.values():
        # LUTs are small; what is not would take long to parse.
        if isinstance(element, RawDataElement) and element.tag.group == 0x0028:
            _refuse_unless(element.length <= _MAX_LUT_BYTES, path, f"{element.tag}", "too long")
    _check_header(dataset, path)
    return dataset


def _check_header(dataset: Dataset, path: Path) -> None:
    from PIL import Image

    if "Rows" not in dataset:
        kind = getattr(dataset.get("SOPClassUID"), "name", "") or dataset.get("Modality") or "?"
        raise ImageError(f"{path} has no image; it holds {str(kind)[:80]}.")
    n_frames = dataset.get("NumberOfFrames") or 1
    if n_frames > 1:
        raise ImageError(
            f"{path} holds several frames ({n_frames}), and which is meant is not known; save the "
            "frame in a file of its own."
        )
    height, width = (_whole(dataset, name, path, 1, 2**16 - 1) for name in ("Rows", "Columns"))
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and height * width > limit:
        raise ImageError(f"{path} has more than {limit:,} pixels; make it smaller.")
    allocated = _whole(dataset, "BitsAllocated", path, 1, 64)
    _refuse_unless(allocated in (1, 8, 16), path, "BitsAllocated", allocated)
    _whole(dataset, "BitsStored", path, 1, allocated)
    _whole(dataset, "PixelRepresentation", path, 0, 1)
    photometric = str(dataset.get("PhotometricInterpretation", ""))
    if photometric not in {*_GREY, *_THREE, "PALETTE COLOR"}:
        raise ImageError(
            f"{path} has the photometric interpretation {photometric[:40]!r}, which is not read; "
            "convert it to PNG."
        )
    samples = 3 if photometric in _THREE else 1
    _whole(dataset, "SamplesPerPixel", path, samples, samples)
    if samples == 3:
        _whole(dataset, "PixelRepresentation", path, 0, 0)


def _whole(dataset: Dataset, name: str, path: Path, low: int, high: int) -> int:
    value = dataset.get(name)
    _refuse_unless(isinstance(value, int) and low <= value <= high, path, name, value)
    return int(value)


def _refuse_unless(fits: bool, path: Path, name: str, value: object) -> None:
    if not fits:
        raise ImageError(f"{path} is a damaged DICOM file, or not read: {name} is {value!r:.80}.")


def _unread(path: Path, syntax: Any) -> ImageError:
    name = syntax.name if syntax.name != syntax else "unknown"
    return ImageError(
        f"{path} is compressed in a form that is not read: {name} ({syntax}); convert it to PNG or "
        "to uncompressed DICOM."
    )


# --- stored values


def _stored(dataset: Dataset, path: Path) -> NDArray[Any]:
    """(height, width) integers, or (height, width, 3) of RGB."""
    from pydicom.encaps import get_frame
    from pydicom.pixels.decoders.base import get_decoder

    syntax = dataset.file_meta.TransferSyntaxUID
    if "PixelData" not in dataset or not dataset.PixelData:
        raise ImageError(f"{path} has no image: its header speaks of one, the pixels are absent.")
    if syntax in _JPEG | _JPEG_2000:
        frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
        found = _jpeg_size(frame) if syntax in _JPEG else _jpeg_2000_size(frame, path)
        wanted = (dataset.Rows, dataset.Columns)
        if found != wanted:
            raise ImageError(
                f"{path} is a damaged DICOM file: its header says {wanted[0]} x {wanted[1]} "
                f"pixels, its compressed image {found[0]} x {found[1]}."
            )
    decoder = get_decoder(syntax)
    if not decoder.is_available:
        raise MissingExtraError(
            f'{path} is compressed as {syntax.name}; to read it, pip install "confide[dicom]".'
        )
    return decoder.as_array(dataset, index=0)[0]


def _jpeg_size(frame: bytes) -> tuple[int, int]:
    from PIL import Image

    with Image.open(io.BytesIO(frame), formats=("JPEG",)) as image:
        return image.height, image.width


def _jpeg_2000_size(frame: bytes, path: Path) -> tuple[int, int]:
    """Height and width by the SIZ segment (ISO 15444-1 A.5.1), which must come first."""
    if frame[:4] != b"\xff\x4f\xff\x51" or len(frame) < 24:
        raise ImageError(f"{path} is a damaged DICOM file: its pixels are no JPEG 2000 codestream.")
    right, bottom, left, top = struct.unpack_from(">4I", frame, 8)
    return bottom - top, right - left
