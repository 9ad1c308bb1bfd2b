"""Which members a model sees at each step."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


def batches(rows: Tensor, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Endless full batches of one model's members.

    Permutations of all members follow one another and are cut every `size` records, without regard
    to where one ends and the next begins.  All batches thus have one shape, and after any number of
    batches each member was seen equally often, up to one time.

    Parameters
    ----------
    rows : (n_members,) int64 row numbers, at least one
    size : records a batch
    generator : on the CPU; draws the order, which is the same on every device

    Yields
    ------
    (size,) int64 rows
    """
    left = rows[:0]
    while True:
        while len(left) < size:
            order = torch.randperm(len(rows), generator=generator)
            left = torch.cat([left, rows[order]])
        yield left[:size]
        left = left[size:]
