"""A residual network for tables of numbers."""

from __future__ import annotations

from torch import Tensor, nn

from confide.models.base import Network
from confide.models.layers import FeatureGroupNorm, leaky_relu, n_groups


class Block(nn.Module):
    """x + Linear(act(norm(Linear(act(norm(x))))))."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.norm1 = FeatureGroupNorm(groups, width)
        self.linear1 = nn.Linear(width, width)
        self.norm2 = FeatureGroupNorm(groups, width)
        self.linear2 = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(n, width) -> (n, width)."""
        y = self.linear1(leaky_relu(self.norm1(x)))
        out: Tensor = x + self.linear2(leaky_relu(self.norm2(y)))
        return out


class TabularResNet(Network):
    """Pre-activation residual network (n, features) -> (n, outputs).

    With 300 units and 6 blocks the network of Knolle et al., Nature 656:192-198 (2026), for
    emergency records.  Norms have 10 groups where that divides the width into groups of at least
    four units, else the nearest number that does: a group of one or two units keeps nothing but
    signs.
    """

    def __init__(self, features: int, outputs: int, *, width: int, depth: int) -> None:
        super().__init__()
        groups = n_groups(width, 10, smallest=4)
        self.stem = nn.Linear(features, width)
        self.blocks = nn.ModuleList(Block(width, groups) for _ in range(depth))
        self.norm = FeatureGroupNorm(groups, width)
        self.head = nn.Linear(width, outputs)

    def features(self, x: Tensor) -> Tensor:
        """(n, features) -> (n, width)."""
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return leaky_relu(self.norm(x))
