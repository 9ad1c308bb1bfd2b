"""A small vision transformer."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from confide.models.base import Network
from confide.models.layers import initialise_transformer
from confide.models.patch_encoder import patches


class Attention(nn.Module):
    """Self-attention of several heads (Vaswani et al., NeurIPS 2017)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(n, rows, width) -> (n, rows, width)."""
        n, rows, width = x.shape
        # (3, n, heads, rows, width / heads)
        split = self.query_key_value(x).view(n, rows, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = split[0], split[1], split[2]
        # Written out, because it also runs fast when it is mapped over stacked models.
        weight = (query @ key.transpose(-2, -1) / math.sqrt(width // self.heads)).softmax(dim=-1)
        out: Tensor = self.out((weight @ value).transpose(1, 2).reshape(n, rows, width))
        return out


class Block(nn.Module):
    """x + attention(norm(x)), then x + MLP(norm(x)) with GELU."""

    def __init__(self, width: int, heads: int, mlp: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.linear1 = nn.Linear(width, mlp * width)
        self.linear2 = nn.Linear(mlp * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(n, rows, width) -> (n, rows, width)."""
        x = x + self.attention(self.norm1(x))
        out: Tensor = x + self.linear2(functional.gelu(self.linear1(self.norm2(x))))
        return out


class ViT(Network):
    """Square patches, a learned position each, pre-norm blocks, norm, mean over patches, linear.

    Dosovitskiy et al., ICLR 2021, without a class token (their appendix D.3) and without dropout.

    Parameters
    ----------
    shape : of a record, (channels, height, width), sides multiples of `patch`
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        outputs: int,
        *,
        patch: int,
        width: int,
        depth: int,
        heads: int,
        mlp: int,
    ) -> None:
        super().__init__()
        channels, height, length = shape
        self.patch = patch
        self.stem = nn.Linear(channels * patch**2, width)
        self.position = nn.Parameter(torch.empty((height // patch) * (length // patch), width))
        self.blocks = nn.ModuleList(Block(width, heads, mlp) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, outputs)

    def draw(self, generator: torch.Generator) -> None:
        """Draw all weights anew; see :func:`confide.models.layers.initialise_transformer`."""
        initialise_transformer(self, generator)

    def features(self, x: Tensor) -> Tensor:
        """(n, channels, height, width) -> (n, width)."""
        x = self.stem(patches(x, self.patch)) + self.position
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.norm(x)
        return out.mean(dim=1)
