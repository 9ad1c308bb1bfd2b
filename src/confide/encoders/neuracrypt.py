"""NeuraCrypt (Yala et al., arXiv 2106.02484, 2021; layout of the authors' published code)."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from confide import _check
from confide.encoders.base import Calibration, Encoder, Floats
from confide.encoders.key import Key
from confide.encoders.settings import NeuraCryptSettings, Shape
from confide.models.patch_encoder import patches

EPSILON = 1e-5  # of torch.nn.BatchNorm2d

MAX_CALIBRATION_ROWS = 2**15
"""Patches that calibrate the hidden layers, at most; more records give fewer patches each."""


class NeuraCrypt(Encoder):
    """Patches through a deep random network, with a random embedding of their positions.

    Strided convolution and ReLU; `private_depth` times 1x1 convolution, normalisation and ReLU;
    the position embedding is added; ReLU and a linear layer; the rows are shuffled.  Weights and
    biases are uniform within 1 / sqrt(fan-in), position embeddings standard normal, as torch
    initialises them; all come from the key.  See :class:`Encoder`.

    With norm "frozen" each hidden layer is normalised by statistics that are fixed at calibration,
    so a code is a function of its record and the layer is one matrix product.  With norm "batch" it
    is normalised by the batch, as in the authors' code: the code of a record then changes with the
    records beside it.
    """

    settings: NeuraCryptSettings

    def __init__(self, settings: NeuraCryptSettings, shape: Shape, key: Key, **where: Any) -> None:
        super().__init__(settings, shape, key, **where)
        width, depth = self.width, settings.private_depth
        n_inputs = shape[0] * settings.patch ** (len(shape) - 1)
        self._layers = [_Layer.of(self, key, "patch", n_inputs)]
        self._layers += [_Layer.of(self, key, f"hidden.{i}", width) for i in range(depth)]
        self._mixer = _Layer.of(self, key, "mixer", width)
        self._position: Tensor | None = None
        if settings.position:
            self._position = self._tensor(key.normal("position", (self.n_patches, width)))
        self._folded: list[_Layer] = []
        self._calibration_seed = int.from_bytes(key.derive("calibration rows"))

    def use(self, calibration: Calibration) -> None:
        """See :meth:`Encoder.use`."""
        for norm in calibration.norms:
            _check.shape((2, self.width), norms=norm)
        super().use(calibration)
        hidden = self._layers[1:]
        # A normalisation by fixed numbers is part of the product before it.
        self._folded = [
            layer.scaled(torch.from_numpy(norm).to(self.device))
            for layer, norm in zip(hidden, calibration.norms, strict=False)
        ]

    def _encode(self, x: Tensor) -> Tensor:
        n = len(x)
        h = self._layers[0](patches(x, self.settings.patch).flatten(0, 1)).relu_()
        if self.settings.norm == "batch":
            for layer in self._layers[1:]:
                h = _normalised(layer(h)).relu_()
        else:
            if len(self._folded) != self.settings.private_depth:
                raise self._uncalibrated()
            for layer in self._folded:
                h = layer(h).relu_()
        h = h.view(n, self.n_patches, self.width)
        if self._position is not None:
            h += self._position
        return self._mixer(h.relu_())

    def _norms(self, records: NDArray[Any]) -> tuple[Floats, ...]:
        if self.settings.norm == "batch":
            return ()
        rows = self._sampled(records)
        parts = [slice(a, b) for a, b in pairwise([*range(0, len(rows), 4096), len(rows)])]
        h = torch.empty(len(rows), self.width, device=self.device, dtype=self._dtype)
        for part in parts:
            h[part] = self._layers[0](rows[part]).relu_()
        norms = []
        for layer in self._layers[1:]:
            for part in parts:
                h[part] = layer(h[part])
            norm = torch.stack([h.float().mean(dim=0), h.float().var(dim=0, correction=0)])
            norms.append(norm.cpu().numpy())
            for part in parts:
                h[part] = _scale(h[part], norm).relu_()
        return tuple(norms)

    def _sampled(self, records: NDArray[Any]) -> Tensor:
        """(n_rows, n_inputs) random patches, as many of each record."""
        rng = np.random.default_rng(self._calibration_seed)
        each = max(1, min(self.n_patches, MAX_CALIBRATION_ROWS // len(records)))
        rows = []
        for i in range(len(records)):
            chosen = np.sort(rng.permutation(self.n_patches)[:each])
            one = patches(self.standardised(records[i : i + 1]), self.settings.patch)
            rows.append(one[0, torch.from_numpy(chosen).to(self.device)])
        return torch.cat(rows)

    def _uncalibrated(self) -> Exception:
        from confide.errors import ArgumentError

        return ArgumentError(
            f"The calibration has {len(self._folded)} hidden layers, the encoder "
            f"{self.settings.private_depth}; calibrate it with records."
        )


class _Layer:
    """A row-wise linear layer; weight (n_outputs, n_inputs), bias (n_outputs,)."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self.weight, self.bias = weight, bias

    @classmethod
    def of(cls, encoder: NeuraCrypt, key: Key, name: str, n_inputs: int) -> _Layer:
        bound = 1 / math.sqrt(n_inputs)
        weight = key.uniform(f"{name}.weight", (encoder.width, n_inputs), bound)
        bias = key.uniform(f"{name}.bias", (encoder.width,), bound)
        return cls(encoder._tensor(weight), encoder._tensor(bias))

    def scaled(self, norm: Tensor) -> _Layer:
        """The layer followed by a normalisation with fixed (2, width) mean and variance."""
        factor = (norm[1].double() + EPSILON).rsqrt()
        weight = self.weight.double() * factor[:, None]
        bias = (self.bias.double() - norm[0].double()) * factor
        return _Layer(weight.to(self.weight.dtype), bias.to(self.bias.dtype))

    def __call__(self, h: Tensor) -> Tensor:
        return functional.linear(h, self.weight, self.bias)


def _normalised(h: Tensor) -> Tensor:
    """By the mean and (biased) variance of all rows of the batch."""
    wide = h.float()
    return _scale(h, torch.stack([wide.mean(dim=0), wide.var(dim=0, correction=0)]))


def _scale(h: Tensor, norm: Tensor) -> Tensor:
    return ((h - norm[0].to(h.dtype)) * (norm[1] + EPSILON).rsqrt().to(h.dtype)).to(h.dtype)
