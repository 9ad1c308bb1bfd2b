"""A residual network for signals."""

from __future__ import annotations

from torch import Tensor, nn

from confide.models.base import Network
from confide.models.layers import leaky_relu, n_groups

GROUPS = 16


def _conv(maps_in: int, maps: int, size: int, stride: int = 1) -> nn.Conv1d:
    return nn.Conv1d(maps_in, maps, size, stride, padding=size // 2, bias=False)


class Block(nn.Module):
    """Pre-activation block of convolutions over 5 and 3 samples; projects where it halves."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        groups = n_groups(width, GROUPS)
        self.norm1 = nn.GroupNorm(groups, width)
        self.conv1 = _conv(width, width, 5, stride)
        self.norm2 = nn.GroupNorm(groups, width)
        self.conv2 = _conv(width, width, 3)
        self.project = _conv(width, width, 1, stride) if stride != 1 else None

    def forward(self, x: Tensor) -> Tensor:
        """(n, width, samples) -> (n, width, samples / stride)."""
        y = leaky_relu(self.norm1(x))
        short = x if self.project is None else self.project(y)
        out: Tensor = short + self.conv2(leaky_relu(self.norm2(self.conv1(y))))
        return out


class ResNet1d(Network):
    """A stem over 7 samples, residual blocks of `width` maps, mean over time, linear.

    The layers of `resnet1d_wang` in Strodthoff et al., IEEE J. Biomed. Health Inform. 25:1519-1528
    (2021), after Wang et al., IJCNN 2017, with activations before the convolutions, group norm (16
    groups) and leaky ReLU as in Knolle et al., Nature 656:192-198 (2026), and the mean over time
    alone.  Any number of leads, 16 samples or more.
    """

    def __init__(self, leads: int, outputs: int, *, width: int, depth: int) -> None:
        super().__init__()
        self.stem = _conv(leads, width, 7)
        self.blocks = nn.ModuleList(Block(width, 2 if i else 1) for i in range(depth))
        self.norm = nn.GroupNorm(n_groups(width, GROUPS), width)
        self.head = nn.Linear(width, outputs)

    def features(self, x: Tensor) -> Tensor:
        """(n, leads, samples) -> (n, width)."""
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return leaky_relu(self.norm(x)).mean(dim=-1)
