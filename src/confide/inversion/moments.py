"""Features of a patch, and of a row of a code, that a key changes little.

A random network mixes the numbers of a patch, but a patch with large and spread numbers gives a row
with large and spread numbers, whatever the weights: moments over a row tell something of the
moments over its patch (Carlini et al., arXiv 2108.07256, 2021).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from confide.encoders.derive import Chance
from confide.inversion.base import Architecture, Codes, Records, Work
from confide.inversion.rows import Order, parts
from confide.inversion.substitute import batches
from confide.models.patch_encoder import patches
from confide.training.inputs import Inputs

ORDERS = range(2, 15)
N_FEATURES = 1 + len(ORDERS)

FLOOR = 1e-2
"""Of a moment, in shares of its root mean square: below it lies rounding."""

NUMBERS_AT_ONCE = 2**23
"""Numbers of rows that are raised to powers at once; the CPU has them in its caches."""


def moments(rows: Tensor) -> Tensor:
    """The mean over a row, and the i-th root of its i-th absolute central moment, i = 2 .. 14.

    Carlini et al. list the first central moment too, which is 0.  All grow in proportion to the
    row.  Powers are of the row in units of its standard deviation, which float32 holds.

    Parameters
    ----------
    rows : (..., C) float32

    Returns
    -------
    (..., 14) float32
    """
    mean = rows.mean(dim=-1, keepdim=True)
    unit = rows - mean
    deviation = unit.square().mean(dim=-1, keepdim=True).sqrt()
    unit /= deviation.clamp_min(1e-30)
    power = unit.square()
    out = [mean, deviation]
    for order in ORDERS[1:]:
        power *= unit
        out.append(power.mean(dim=-1, keepdim=True).abs() ** (1 / order) * deviation)
    return torch.cat(out, dim=-1)


@torch.no_grad()
def beyond(rows: Tensor, mean: Tensor) -> Tensor:
    """Moments (n, P, 14) of rows (n, P, C) less their mean (P, C) over records.

    The mean holds the embedding of the position and the bias of the last layer.
    """
    step = max(1, NUMBERS_AT_ONCE // mean.numel())
    return torch.cat([moments(part - mean) for part in torch.split(rows, step)])


def of_codes(codes: Codes, order: Order, work: Work) -> Tensor:
    """(n_codes, P, 14) features of the rows of codes in order; they are read once."""
    mean = torch.from_numpy(order.mean).to(work.device)
    found = []
    for part in parts(codes):
        found.append(beyond(torch.from_numpy(order.read(codes, part)).to(work.device), mean))
    return torch.cat(found)


@torch.no_grad()
def of_records(inputs: Inputs, patch: int) -> Tensor:
    """(n, P, 14) features of the patches of standardised records."""
    each = batches(len(inputs), max(1, NUMBERS_AT_ONCE // inputs.batch(np.arange(1)).numel()))
    total = sum(patches(inputs.batch(part), patch).sum(dim=0, dtype=torch.float64) for part in each)
    mean = (torch.as_tensor(total) / len(inputs)).float()
    return torch.cat([beyond(patches(inputs.batch(part), patch), mean) for part in each])


def of_shadow(architecture: Architecture, records: Records, seed: int, work: Work) -> Tensor:
    """(n, P, 14) features of the codes of records under a key of the attacker's own.

    Parameters
    ----------
    records : few enough for their codes to fit the memory of the device
    seed : of the key
    """
    encoder = architecture.shadow(records, seed, device=work.device)
    chance = Chance()  # orders nothing: a shadow keeps its rows in order
    codes = [encoder.encode(records[part], chance=chance) for part in encoder.batches(len(records))]
    total = sum(code.sum(dim=0, dtype=torch.float64) for code in codes)
    mean = (torch.as_tensor(total) / len(records)).float()
    return torch.cat([beyond(code, mean) for code in codes])


def standardised(features: Tensor) -> Tensor:
    """Features (n, P, 14) as a network takes them: moments as logarithms, all of deviation 1.

    By the statistics of the features themselves, so that the scale of a key, or of a scanner, does
    not matter.
    """
    flat = features.flatten(0, -2)
    floor = FLOOR * flat[:, 1:].square().mean(dim=0).sqrt().clamp_min(1e-30)
    flat = torch.cat([flat[:, :1], torch.maximum(flat[:, 1:], floor).log()], dim=1)
    deviation = flat.std(dim=0)
    flat = (flat - flat.mean(dim=0)) / torch.where(deviation > 0, deviation, torch.inf)
    return flat.view(features.shape)
