"""The encoder of codes as a part of the network: trained with the classifier, on plain records."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def patches(x: Tensor, patch: int) -> Tensor:
    """Cut records into patches.

    Parameters
    ----------
    x : (n, channels, height, width) or (n, leads, samples), sides multiples of `patch`
    patch : side of a square, or length

    Returns
    -------
    (n, P, channels * patch * patch) or (n, P, leads * patch): positions in row-major order, each
    flattened as torch flattens the kernel of a convolution (channel, row, column)
    """
    if x.ndim == 3:
        return x.reshape(*x.shape[:2], -1, patch).transpose(1, 2).flatten(2)
    n, channels, height, width = x.shape
    x = x.reshape(n, channels, height // patch, patch, width // patch, patch)
    return x.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


class PatchEncoder(nn.Module):
    """Records -> (n, P, width), with the layers of NeuraCrypt (Yala et al., arXiv 2106.02484).

    Linear on each patch and ReLU; `private_depth` times linear, batch norm and ReLU; then a
    position embedding is added, ReLU, linear.  Batch norm is over all patches of a batch and keeps
    running statistics, so that a prediction in evaluation mode does not depend on its batch; that
    of the authors' code keeps none, and does.

    Parameters
    ----------
    shape : of a record, (channels, height, width) or (leads, samples); sides multiples of `patch`
    patch, width, private_depth : as of the encoder that it is compared with
    """

    def __init__(
        self, shape: tuple[int, ...], *, patch: int, width: int, private_depth: int
    ) -> None:
        super().__init__()
        channels, *sides = shape
        self.patch = patch
        self.first = nn.Linear(channels * patch ** len(sides), width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(private_depth))
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(private_depth))
        n_patches = 1
        for side in sides:
            n_patches *= side // patch
        self.position = nn.Parameter(torch.empty(n_patches, width))
        self.last = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(n, *shape) -> (n, P, width)."""
        rows = patches(x, self.patch)
        y = functional.relu(self.first(rows.flatten(0, 1)))
        for linear, norm in zip(self.hidden, self.norms, strict=True):
            y = functional.relu(norm(linear(y)))
        y = y.view(*rows.shape[:2], -1) + self.position
        out: Tensor = self.last(functional.relu(y))
        return out
