"""Raw records in the place of codes: what linkage and probes reach without any encoding."""

from __future__ import annotations

import numpy as np
import torch

from confide import _check
from confide.encoders.settings import LinearSettings
from confide.inversion.base import Architecture, ArrayCodes, Records
from confide.models.patch_encoder import patches


def raw_codes(records: Records, architecture: Architecture) -> ArrayCodes:
    """Records as if they were codes: row j is patch j, in order.

    Parameters
    ----------
    records : (n, *shape)
    architecture : whose patches they are cut into

    Returns
    -------
    (n, P, numbers in a patch) float32, on the scale of the records

    Raises
    ------
    ArgumentError : records of another shape
    """
    _check.shape((None, *architecture.shape), records=records)
    plain = torch.from_numpy(np.array(records, dtype=np.float32))
    return ArrayCodes(patches(plain, architecture.settings.patch).contiguous().numpy())


def raw_architecture(architecture: Architecture) -> Architecture:
    """How :func:`raw_codes` stand to the records: by patch, rows in order."""
    settings = architecture.settings
    width = architecture.shape[0] * settings.patch ** (len(architecture.shape) - 1)
    return Architecture(
        settings=LinearSettings(patch=settings.patch, width=width, shuffle=False),
        shape=architecture.shape,
    )
