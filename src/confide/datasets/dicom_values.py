"""Stored values of a DICOM image -> what is shown, from black to white.

The stored values of a grey image go through the modality LUT or the rescale slope and intercept,
then through the VOI LUT or the window, then, for MONOCHROME1, are inverted (PS3.4 section N.2).
Each of these is a function of the stored value alone, so it is computed once for each value.

A data set is the header of a file; what it says wrongly raises ValueError.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pydicom import Dataset

RED_GREEN_BLUE = ("Red", "Green", "Blue")

Floats = NDArray[np.float64]


def shown(stored: NDArray[Any], dataset: Dataset) -> NDArray[np.float32]:
    """(height, width) stored integers -> float32 from 0 (black) to 255.

    By the first VOI LUT, else the first window, else the range of the values present.
    """
    low, high = int(stored.min()), int(stored.max())
    value = np.arange(low, high + 1)
    padding = _padding(value, stored.dtype, dataset)
    rescaled = _rescaled(value.astype(np.float64), dataset)
    if dataset.get("VOILUTSequence"):
        light = _looked_up(rescaled, dataset, dataset.VOILUTSequence[0], "LUT")
    elif (found := window(dataset)) is not None:
        light = _windowed(rescaled, *found)
    else:
        present = np.zeros(len(value), dtype=bool)
        for line in stored:
            present[line.astype(np.intp) - low] = True
        light = _stretched(rescaled, rescaled[present & ~padding])
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        light = 1 - light
    if not np.isfinite(light).all():
        raise ValueError("its rescaling or window gives no numbers")
    light = np.where(padding, 0, np.clip(light, 0, 1))
    return _mapped(stored, (255 * light).astype(np.float32))


def painted(stored: NDArray[Any], dataset: Dataset) -> NDArray[np.uint8]:
    """(height, width) indices into a palette -> (height, width, 3) uint8 RGB."""
    value = np.arange(int(stored.min()), int(stored.max()) + 1, dtype=np.float64)
    channels = []
    for colour in RED_GREEN_BLUE:
        name = f"{colour}PaletteColorLookupTable"
        if f"{name}Data" not in dataset:
            raise ValueError("it has no plain table of its palette")
        light = _looked_up(value, dataset, dataset, name)
        channels.append(_mapped(stored, np.round(255 * light).astype(np.uint8)))
    return np.stack(channels, axis=-1)


def eight_bits(stored: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """Unsigned integers of so many bits -> uint8."""
    top = 2**bits - 1
    return np.round(np.arange(top + 1) * (255 / top)).astype(np.uint8)[np.minimum(stored, top)]


def window(dataset: Dataset) -> tuple[float, float, str] | None:
    """Centre, width and function of the first window; None if it is void by the standard."""
    center, width = _number(dataset, "WindowCenter"), _number(dataset, "WindowWidth")
    function = str(dataset.get("VOILUTFunction") or "LINEAR").strip().upper()
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise ValueError(f"VOILUTFunction is {function!r:.40}")
    if center is None or width is None or not np.isfinite([center, width]).all():
        return None
    too_narrow = width < 1 if function == "LINEAR" else width <= 0
    return None if too_narrow else (center, width, function)


def _mapped(stored: NDArray[Any], table: NDArray[Any]) -> NDArray[Any]:
    """Entries of a table whose first one is for the smallest stored value."""
    low = int(stored.min())
    result = np.empty(stored.shape, dtype=table.dtype)
    for line, out in zip(stored, result, strict=True):  # by line: indices take 8 bytes a pixel
        out[:] = table[line.astype(np.intp) - low]
    return result


def _padding(value: NDArray[np.int64], dtype: np.dtype[Any], dataset: Dataset) -> NDArray[np.bool_]:
    """Stored values that stand for no measurement (PS3.3 C.7.5.1.1.2)."""
    first = dataset.get("PixelPaddingValue")
    if not isinstance(first, int):
        return np.zeros(len(value), dtype=bool)
    last = dataset.get("PixelPaddingRangeLimit")
    ends = [first, last if isinstance(last, int) else first]
    # Files mix up the signed and the unsigned form of one bit pattern.
    bottom, span = np.iinfo(dtype).min, 2 ** (8 * dtype.itemsize)
    ends = sorted((end - bottom) % span + bottom for end in ends)
    return (ends[0] <= value) & (value <= ends[1])


def _rescaled(value: Floats, dataset: Dataset) -> Floats:
    if dataset.get("ModalityLUTSequence"):
        item = dataset.ModalityLUTSequence[0]
        return _looked_up(value, dataset, item, "LUT") * (2 ** _descriptor(item, "LUT")[2] - 1)
    slope, intercept = (_number(dataset, f"Rescale{name}") for name in ("Slope", "Intercept"))
    return value if slope is None or intercept is None else value * slope + intercept


def _number(dataset: Dataset, name: str) -> float | None:
    """The first number of an element, None if there is none."""
    value = dataset.get(name)
    if value is None or isinstance(value, str):
        return None
    numbers = list(value) if hasattr(value, "__len__") else [value]
    return float(numbers[0]) if numbers else None


def _windowed(value: Floats, center: float, width: float, function: str) -> Floats:
    """From 0 to 1: PS3.3 C.11.2.1.2.1 (linear), C.11.2.1.3.1 (sigmoid), C.11.2.1.3.2 (exact)."""
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (value - center) / width, -700, 700)))
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    if not width:
        return (value > center).astype(np.float64)
    return np.clip((value - center) / width + 0.5, 0, 1)


def _stretched(value: Floats, present: Floats) -> Floats:
    """From 0 to 1 over the range of the values present; black when there is one value."""
    low, high = present.min(initial=np.inf), present.max(initial=-np.inf)
    return (value - low) / (high - low) if high > low else np.zeros(len(value))


def _looked_up(value: Floats, dataset: Dataset, item: Dataset, name: str) -> Floats:
    """Entries of a LUT (PS3.3 C.11.1.1, C.7.6.3.1.5) over the largest number of its bits."""
    count, first, bits = _descriptor(item, name)
    data = item.get(f"{name}Data")
    if isinstance(data, bytes):
        packed = bits <= 8 and len(data) < 2 * count  # two entries in a word
        order = "<" if dataset.original_encoding[1] else ">"
        entries = np.frombuffer(data[: len(data) // 2 * 2], "u1" if packed else f"{order}u2")
    else:
        entries = np.atleast_1d(np.asarray(data, dtype=np.int64))
    if len(entries) < count:
        raise ValueError(f"{name}Data has {len(entries)} of {count} entries")
    index = np.clip(np.rint(value) - first, 0, count - 1).astype(np.intp)
    return np.clip(entries[index] / (2.0**bits - 1), 0, 1)


def _descriptor(item: Dataset, name: str) -> tuple[int, int, int]:
    """Number of entries, first value that has one, and bits of an entry."""
    count, first, bits = (int(number) for number in item.get(f"{name}Descriptor") or (0, 0, 0))
    if not 1 <= bits <= 16:
        raise ValueError(f"{name}Descriptor speaks of entries of {bits} bits")
    return count or 2**16, first, bits
