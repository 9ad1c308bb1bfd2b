"""Wide residual networks for images."""

from __future__ import annotations

from torch import Tensor, nn

from confide.models.base import Network
from confide.models.layers import leaky_relu

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

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels_in, height, width) -> (n, channels, height / stride, width / stride)."""
        y = leaky_relu(self.norm1(x))
        short = x if self.project is None else self.project(y)
        out: Tensor = short + self.conv2(leaky_relu(self.norm2(self.conv1(y))))
        return out


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
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return leaky_relu(self.norm(x)).mean(dim=(-2, -1))
