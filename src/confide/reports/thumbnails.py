"""Images of records as small PNGs inside a page."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from confide.errors import ArgumentError

SIDE = 96
"""Pixels of a side of a thumbnail, at most."""
MOST_PATIENTS = 100
"""Patients whose images a report shows, those most at risk."""
MOST_RECORDS = 4
"""Images of a patient."""
MOST_IMAGES = 240
"""Images of a report."""


def data_uri(image: NDArray[Any]) -> str:
    """An image as a data: URI of a PNG of at most 96 pixels a side; nothing else is stored in it.

    Parameters
    ----------
    image : (channels, height, width) uint8, 1 or 3 channels

    Raises
    ------
    ArgumentError : another shape or type
    """
    if image.ndim != 3 or image.dtype != np.uint8 or image.shape[0] not in (1, 3) or not image.size:
        raise ArgumentError(
            f"Expected an image of shape (1 or 3, height, width) and type uint8, got {image.dtype} "
            f"{image.shape}."
        )
    from PIL import Image

    pixels = np.ascontiguousarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))
    picture = Image.fromarray(pixels)
    picture.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    file = io.BytesIO()
    picture.save(file, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
