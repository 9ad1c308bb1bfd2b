"""A small convolutional network for images."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from confide.models.base import Network
from confide.models.layers import leaky_relu, n_groups

STAGES = 4


class ConvNorm(nn.Module):
    """act(norm(conv(x))) with kernels of 3 x 3."""

    def __init__(self, channels_in: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.norm = nn.GroupNorm(n_groups(channels, 16, smallest=4), channels)

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels_in, height, width) -> (n, channels, height / stride, width / stride)."""
        return leaky_relu(self.norm(self.conv(x)))


class SmallCNN(Network):
    """Four stages of two convolutions, 2 x 2 maximum between them, mean over the image, linear.

    Stage i has ``width * 2**i`` maps.  The first convolution has stride 2, which takes three
    quarters off the time of the whole; images of 16 x 16 pixels or more.
    """

    def __init__(self, channels: int, outputs: int, *, width: int) -> None:
        super().__init__()
        sizes = [width * 2**i for i in range(STAGES)]
        self.stages = nn.ModuleList(
            nn.Sequential(ConvNorm(before, size, 1 if i else 2), ConvNorm(size, size))
            for i, (before, size) in enumerate(zip([channels, *sizes[:-1]], sizes, strict=True))
        )
        self.head = nn.Linear(sizes[-1], outputs)

    def features(self, x: Tensor) -> Tensor:
        """(n, channels, height, width) -> (n, maps)."""
        for i, stage in enumerate(self.stages):
            x = stage(functional.max_pool2d(x, 2) if i else x)
        return x.mean(dim=(-2, -1))
