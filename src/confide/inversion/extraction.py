"""Train an encoder on codes and the plaintexts that an attack took for theirs.

The last step of Carlini et al. (arXiv 2108.07256, 2021): wrong pairs are outliers, which an
absolute loss hardly heeds, so that an encoder trained on a matching that is partly right gives a
better one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from confide.errors import ArgumentError
from confide.inversion.base import (
    Codes,
    Floats,
    Integers,
    Records,
    SameImages,
    Substitute,
    Work,
    require_plaintexts,
)
from confide.inversion.rows import Order, parts
from confide.inversion.substitute import (
    AT_ONCE,
    TrainableEncoder,
    batches,
    code_inputs,
    descend,
    draws,
    standardiser,
    untrained,
)
from confide.training.inputs import Inputs

SKETCH = 2**14
"""Numbers of a sketch of a code; distances of sketches are those of codes to about a percent."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Extracted(Substitute):
    """A substitute whose codes can be compared row by row.

    Attributes
    ----------
    rows : (n, *shape) records -> (n, P, C) float32, their predicted codes, row j of patch j
    """

    rows: Callable[[Records], Floats] = field(repr=False)


@dataclass(frozen=True, kw_only=True, eq=False)
class Ordered:
    """Codes whose rows are put in order as they are read.

    Parameters
    ----------
    of : the codes as they are
    order : of their rows
    """

    of: Codes
    order: Order

    @property
    def n_records(self) -> int:
        """Number of codes."""
        return self.of.n_records

    @property
    def shape(self) -> tuple[int, int]:
        """(P, C)."""
        return self.of.shape

    def codes(self, rows: slice | NDArray[np.integer[Any]]) -> Floats:
        """(n, P, C) of the codes asked for."""
        return self.order.read(self.of, rows)


def extract(
    known: SameImages,
    assigned: Integers,
    order: Order,
    work: Work,
    *,
    steps: int = 2000,
    batch_size: int = 32,
    lr: float = 1e-3,
) -> Extracted:
    """Train an encoder to make of each plaintext the code that it was assigned to.

    Parameters
    ----------
    assigned : (n_codes,) number of a plaintext, or -1 for codes to leave out
    order : of the rows of the codes, position j being patch j
    steps, batch_size : of Adam, and pairs a step
    lr : learning rate of the first step, which falls linearly to 0

    Returns
    -------
    Extracted : the encoder

    Raises
    ------
    ArgumentError : plaintexts of another shape, or fewer than two pairs
    """
    require_plaintexts(known)
    pairs = np.flatnonzero(assigned >= 0)
    if len(pairs) < 2:
        raise ArgumentError(f"Extraction needs at least 2 pairs, got {len(pairs)}.")
    start, drawn = work.seeds(2)
    standard = standardiser(known.plaintexts, work.device)
    plaintexts = standard(known.plaintexts)
    targets = code_inputs(Ordered(of=known.codes, order=order), work.device)
    network = untrained(known.architecture, start, work.device)
    codes = targets.batches(pairs[i] for i in draws(len(pairs), batch_size, drawn, steps))
    records = plaintexts.batches(
        assigned[pairs[i]] for i in draws(len(pairs), batch_size, drawn, steps)
    )

    def loss() -> Tensor:
        return functional.l1_loss(network(next(records)), next(codes))

    notes = descend(network, loss, work, steps=steps, lr=lr)
    network.settle(plaintexts)
    return Extracted(
        notes=notes,
        means=lambda some: network.predict(standard(some)),
        rows=lambda some: _rows(network, standard(some)),
    )


def nearness(found: Extracted, known: SameImages, order: Order, work: Work) -> Floats:
    """How near the codes are to what the plaintexts would give, (n_codes, n_plaintexts).

    The correlation of full codes beyond the mean over codes, up to the error of a random sketch,
    without which neither codes nor predictions would fit the memory.

    Parameters
    ----------
    found : an extracted encoder
    order : of the rows of the codes, position j being patch j
    work : its seed draws the sketch
    """
    n_rows, width = known.codes.shape
    size = max(1, min(width, SKETCH // n_rows))
    draw = torch.Generator().manual_seed(work.seeds(3)[2])
    directions = (torch.randn(width, size, generator=draw) / size**0.5).to(work.device)

    def sketch(codes: Floats) -> Tensor:
        return (torch.from_numpy(codes).to(work.device) @ directions).flatten(1)

    step = max(1, AT_ONCE // (n_rows * width))
    hidden = [sketch(order.read(known.codes, part)) for part in parts(known.codes)]
    plain = [sketch(found.rows(known.plaintexts[i])) for i in batches(len(known.plaintexts), step)]
    return correlations(torch.cat(hidden), torch.cat(plain))


def correlations(left: Tensor, right: Tensor) -> Floats:
    """(n, m) cosines of vectors (n, d) and (m, d), each less the mean over its own kind."""
    unit = [functional.normalize(side - side.mean(dim=0), dim=1) for side in (left, right)]
    out: Floats = (unit[0] @ unit[1].T).cpu().numpy()
    return out


@torch.no_grad()
def _rows(network: TrainableEncoder, inputs: Inputs) -> Floats:
    """(n, P, C) predicted codes."""
    n_rows = network(inputs.batch(np.arange(1))).shape[1]
    step = max(1, AT_ONCE // (n_rows * network.first.out_features))
    return torch.cat([network(inputs.batch(i)).cpu() for i in batches(len(inputs), step)]).numpy()
