"""The weak encoder of Yala et al. (arXiv 2106.02484): one strided convolution and nothing else."""

from __future__ import annotations

from torch import Tensor

from confide.encoders.base import Calibration, Encoder
from confide.encoders.layer import Layer
from confide.encoders.settings import LinearSettings


class Linear(Encoder):
    """Each patch times one secret matrix; see :class:`Encoder`."""

    settings: LinearSettings

    def _prepare(self, calibration: Calibration) -> None:
        self._layer = Layer.derived(self._key, "patch", self.width, self.n_inputs).on(
            self.device, self._dtype
        )

    def _encode(self, rows: Tensor, order: Tensor | None) -> Tensor:
        codes = rows.new_empty(*rows.shape[:2], self.width)
        self._layer(rows.flatten(0, 1), out=codes.view(-1, self.width))
        return codes
