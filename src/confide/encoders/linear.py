"""The weak encoder of Yala et al. (arXiv 2106.02484): one strided convolution and nothing else."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor
from torch.nn import functional

from confide.encoders.base import Encoder
from confide.encoders.key import Key
from confide.encoders.settings import LinearSettings, Shape
from confide.models.patch_encoder import patches


class Linear(Encoder):
    """Each patch times one secret matrix; see :class:`Encoder`."""

    def __init__(self, settings: LinearSettings, shape: Shape, key: Key, **where: Any) -> None:
        super().__init__(settings, shape, key, **where)
        n_inputs = shape[0] * settings.patch ** (len(shape) - 1)
        bound = 1 / math.sqrt(n_inputs)
        self._weight = self._tensor(key.uniform("patch.weight", (self.width, n_inputs), bound))
        self._bias = self._tensor(key.uniform("patch.bias", (self.width,), bound))

    def _encode(self, x: Tensor) -> Tensor:
        return functional.linear(patches(x, self.settings.patch), self._weight, self._bias)
