"""Wide residual networks for images."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from confide.models.base import Network
from confide.models.layers import fuses, norm_act

GROUPS = 16


def _conv(channels_in: int, channels: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels, size, stride, padding=size // 2, bias=False)


class Block(nn.Module):
    """Pre-activation block of two 3 x 3 convolutions, with a projection where the shape changes."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, channels_in)
        self.conv1 = _conv(channels_in, channels, 3, stride)
        self.norm2 = nn.GroupNorm(GROUPS, channels)
        self.conv2 = _conv(channels, channels, 3)
        changes = channels_in != channels or stride != 1
        self.project = _conv(channels_in, channels, 1, stride) if changes else None

    def forward(self, x: Tensor, more: Tensor | None) -> tuple[Tensor, Tensor]:
        """x + more (n, channels_in, height, width) -> two summands of the result.

        (n, channels, height / stride, width / stride) each: the next norm takes their sum.
        """
        y, x = norm_act(self.norm1, x, more)
        short = x if self.project is None else self.project(y)
        y, _ = norm_act(self.norm2, self.conv1(y))
        return short, self.conv2(y)


class WideResNet(Network):
    """WRN-depth-width with group norm (16 groups) and leaky ReLU.

    Zagoruyko and Komodakis, BMVC 2016; norm and activation as in Knolle et al., Nature
    656:192-198 (2026).  Any number of channels, images of 16 x 16 pixels or more.
    """

    def __init__(self, channels: int, outputs: int, *, depth: int, width: int) -> None:
        super().__init__()
        self.stem = _conv(channels, 16, 3)
        blocks: list[nn.Module] = []
        size = 16
        for stage in range(3):
            wide = 16 * width * 2**stage
            for i in range((depth - 4) // 6):
                blocks.append(Block(size, wide, stride=2 if stage and not i else 1))
                size = wide
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.GroupNorm(GROUPS, size)
        self.head = nn.Linear(size, outputs)

    def features(self, x: Tensor) -> Tensor:
        """(n, channels, height, width) -> (n, width)."""
        x, more = self._stem(x), None
        for block in self.blocks:
            x, more = block(x, more)
        y, _ = norm_act(self.norm, x, more)
        return y.mean(dim=(-2, -1), dtype=torch.promote_types(y.dtype, torch.float32))

    def _stem(self, x: Tensor) -> Tensor:
        if not fuses(x):
            y: Tensor = self.stem(x)
            return y
        # Channels last, and eight of them: with one or three the gradient of this layer alone
        # takes more than a tenth of the step.
        spare = (0, 0, 0, 0, 0, -x.shape[1] % 8)
        x = functional.pad(x.contiguous(memory_format=torch.channels_last), spare)
        return functional.conv2d(x, functional.pad(self.stem.weight, spare), padding=1)
