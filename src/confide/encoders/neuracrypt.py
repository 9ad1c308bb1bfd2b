"""NeuraCrypt (Yala et al., arXiv 2106.02484, 2021; layout of the authors' published code)."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from confide import _check
from confide.encoders.base import Calibration, Encoder, Floats
from confide.encoders.layer import Layer, Moments, activated
from confide.encoders.settings import NeuraCryptSettings
from confide.errors import ArgumentError

BLOCK = 2**22
"""Numbers in one activation on the CPU (16 MiB): near the size of its caches."""

CALIBRATION = 2**26
"""Numbers in one activation at calibration (256 MiB), at most: more records give fewer patches."""


class NeuraCrypt(Encoder):
    """Patches through a deep random network, with a random embedding of their positions.

    Strided convolution and ReLU; `private_depth` times 1x1 convolution, normalisation and ReLU;
    the position embedding is added; ReLU and a linear layer; the rows are shuffled.  Weights and
    biases are uniform within 1 / sqrt(fan-in), position embeddings standard normal, as torch
    initialises them; all come from the key.  See :class:`Encoder`.

    With norm "frozen" each hidden layer is normalised by statistics that are fixed at calibration,
    so that a code is a function of its record and the normalisation a part of the weights.

    With norm "batch" it is normalised by the batch, as in the authors' code: the code of a record
    then changes with the records beside it.  A call makes batches as even as can be of at most
    `settings.batch_size` records; a record alone is normalised by its own patches.
    """

    settings: NeuraCryptSettings

    def _prepare(self, calibration: Calibration) -> None:
        wanted = self.settings.private_depth if self.settings.norm == "frozen" else 0
        if len(calibration.norms) != wanted:
            raise ArgumentError(
                f"The calibration has statistics of {len(calibration.norms)} hidden layers, this "
                f"encoder needs {wanted}; calibrate it with records."
            )
        for norm in calibration.norms:
            _check.shape((2, self.width), norms=norm)
        self._hidden = []
        for i in range(self.settings.private_depth):
            layer = self._derived(f"hidden.{i}")
            if calibration.norms:
                layer = layer.normalised(torch.from_numpy(calibration.norms[i]))
            self._hidden.append(layer.on(self.device, self._dtype))
        self._first = self._derived("patch").on(self.device, self._dtype)
        self._mixer = self._derived("mixer").on(self.device, self._dtype)
        self._position: Tensor | None = None
        if self.settings.position:
            position = self._key.normal("position", (self.n_patches, self.width))
            self._position = torch.from_numpy(position).to(self.device, self._dtype)

    def _derived(self, name: str) -> Layer:
        n_inputs = self.n_inputs if name == "patch" else self.width
        return Layer.derived(self._key, name, self.width, n_inputs)

    def _encode(self, rows: Tensor, order: Tensor | None) -> Tensor:
        n = len(rows)
        codes = rows.new_empty(n * self.n_patches, self.width)
        if order is not None:
            order = order.view(-1)
        parts = self._parts(n * self.n_patches, self.n_patches)
        if self.settings.norm == "batch":
            self._encode_batch(rows.flatten(0, 1), order, codes, parts)
        else:
            self._encode_frozen(rows.flatten(0, 1), order, codes, parts)
        return codes.view(n, self.n_patches, self.width)

    def _encode_frozen(
        self, rows: Tensor, order: Tensor | None, codes: Tensor, parts: list[slice]
    ) -> None:
        # Two buffers in turn, so that no layer waits for fresh memory.
        room = codes.new_empty(2, parts[0].stop, self.width)
        for part in parts:
            h, spare = room[:, : part.stop - part.start]
            self._first(rows[part], out=h).relu_()
            for layer in self._hidden:
                layer(h, out=spare).relu_()
                h, spare = spare, h
            self._placed(h, order, part, spare)
            self._mixer(h.relu_(), out=codes[part])

    def _encode_batch(
        self, rows: Tensor, order: Tensor | None, codes: Tensor, parts: list[slice]
    ) -> None:
        room = codes.new_empty(2, parts[0].stop, self.width)
        for part in parts:
            self._first(rows[part], out=codes[part])
        norm = None
        for layer in self._hidden:
            norm = _through(layer, codes, norm, parts)
        for part in parts:
            h, spare = room[:, : part.stop - part.start]
            activated(codes[part], norm, out=h)
            self._placed(h, order, part, spare)
            self._mixer(h.relu_(), out=codes[part])

    def _placed(self, h: Tensor, order: Tensor | None, part: slice, spare: Tensor) -> None:
        """Add to each row of h, in place, the embedding of its position."""
        if self._position is None:
            return
        if order is None:
            h.view(-1, *self._position.shape).add_(self._position)
            return
        h.add_(torch.index_select(self._position, 0, order[part], out=spare))

    def _batch_size(self) -> int:
        return self.settings.batch_size if self.settings.norm == "batch" else super()._batch_size()

    def _parts(self, n_rows: int, multiple: int) -> list[slice]:
        """Rows that go through a layer together: all on a GPU, some on the CPU; longest first."""
        step = n_rows
        if self.device.type == "cpu":
            step = min(n_rows, multiple * max(1, BLOCK // (multiple * self.width)))
        return [slice(i, min(i + step, n_rows)) for i in range(0, n_rows, step)]

    def _norms(self, records: NDArray[Any], standard: tuple[Tensor, Tensor]) -> tuple[Floats, ...]:
        if self.settings.norm == "batch" or not self.settings.private_depth:
            return ()
        n = len(records)
        each = max(1, min(self.n_patches, CALIBRATION // self.width // n))
        h = torch.empty(n * each, self.width, device=self.device)
        first = self._derived("patch").on(self.device, torch.float32)
        of = torch.arange(each, device=self.device) * self.n_patches // each
        for i in range(n):
            # Spread evenly over the positions, from another one in each record.
            rows = self._rows(records[i : i + 1], standard)[0]
            first(rows[(of + i) % self.n_patches], out=h[i * each : (i + 1) * each])
        norm, norms = None, []
        for i in range(self.settings.private_depth):
            layer = self._derived(f"hidden.{i}").on(self.device, torch.float32)
            norm = _through(layer, h, norm, self._parts(len(h), 1))
            norms.append(norm.float().cpu().numpy())
        return tuple(norms)


def _through(layer: Layer, h: Tensor, norm: Tensor | None, parts: list[slice]) -> Tensor:
    """Put h (n_rows, C) through its normalisation, ReLU and a layer, in place and part by part.

    Returns the mean and variance of what comes out, (2, C), with which it is to be normalised.
    """
    found = Moments()
    room = h.new_empty(parts[0].stop, h.shape[1])
    wide = room if h.dtype == torch.float32 else torch.empty_like(room, dtype=torch.float32)
    for part in parts:
        size = part.stop - part.start
        layer(activated(h[part], norm, out=room[:size]), out=h[part])
        found.add(h[part], spare=wide[:size])
    return found.of_all()
