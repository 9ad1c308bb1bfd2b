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
    members = _Shuffled(rows, generator)
    while True:
        yield members.take(size)


def balanced_batches(
    rows: Tensor, label: Tensor, size: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """Endless full batches in which all classes of one model's members are drawn equally often.

    Each place in a batch belongs to a class: permutations of the classes follow one another.  It
    takes the next of that class's own permutations of its members.  After any number of records
    each class was drawn equally often, up to one time, and so was each member within its class.
    Classes without a member have no place.

    Parameters
    ----------
    rows, size, generator : as in :func:`batches`
    label : (n_members,) int64 class of each row

    Yields
    ------
    (size,) int64 rows
    """
    classes = [_Shuffled(rows[label == k], generator) for k in torch.unique(label)]
    turns = torch.empty(0, dtype=torch.int64)
    while True:
        n_rounds = max(0, -(-(size - len(turns)) // len(classes)))
        chance = torch.rand((n_rounds, len(classes)), generator=generator, dtype=torch.float64)
        turns = torch.cat([turns, chance.argsort(dim=1).flatten()])
        batch = torch.empty(size, dtype=rows.dtype)
        for k, members in enumerate(classes):
            places = turns[:size] == k
            batch[places] = members.take(int(places.sum()))
        turns = turns[size:]
        yield batch


class _Shuffled:
    """Permutations of some rows, one after the other, taken piece by piece."""

    def __init__(self, rows: Tensor, generator: torch.Generator) -> None:
        self._rows, self._generator = rows, generator
        self._left = rows[:0]

    def take(self, n: int) -> Tensor:
        """The next `n` rows."""
        n_more = max(0, -(-(n - len(self._left)) // len(self._rows)))
        orders = [torch.randperm(len(self._rows), generator=self._generator) for _ in range(n_more)]
        left = torch.cat([self._left, *(self._rows[order] for order in orders)])
        self._left = left[n:]
        return left[:n]
