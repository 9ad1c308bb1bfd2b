"""Networks of a user, good and bad."""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import nn


class Plain(nn.Module):
    def __init__(self, features=5, outputs=1, width=8):
        super().__init__()
        self.layer = nn.Linear(features, width)
        self.norm = nn.LayerNorm(width)
        self.last = nn.Linear(width, outputs)

    def forward(self, x):
        return self.last(torch.relu(self.norm(self.layer(x))))


class InTwo(nn.Module):
    """With features, a head, a constant buffer and a parameter of its own."""

    def __init__(self, outputs=1):
        super().__init__()
        self.register_buffer("ramp", torch.arange(5.0))
        self.shift = nn.Parameter(torch.randn(5))
        self.layer = nn.Linear(5, 6)
        self.head = nn.Linear(6, outputs)

    def reset_parameters(self):
        nn.init.normal_(self.shift)

    def features(self, x):
        return torch.relu(self.layer(x + self.ramp + self.shift))

    def forward(self, x):
        return self.head(self.features(x))


class TwoMeanings(InTwo):
    def forward(self, x):
        return 2 * self.head(self.features(x))


class Undrawn(InTwo):
    reset_parameters = None


class BatchNorm(Plain):
    def __init__(self, track=True):
        super().__init__()
        self.norm = nn.BatchNorm1d(8, track_running_stats=track)


class Subtle(Plain):
    """Mixes records by a value without a slope."""

    def forward(self, x):
        return super().forward(x) + x.detach().max()


class Dropout(Plain):
    def forward(self, x):
        return super().forward(nn.functional.dropout(x))


class NumpyDrawn(Plain):
    def reset_parameters(self):
        self.layer.weight.data.fill_(np.random.random())  # noqa: NPY002


class PythonDrawn(Plain):
    def reset_parameters(self):
        self.layer.weight.data.fill_(random.random())  # noqa: S311


class Frozen(Plain):
    def __init__(self):
        super().__init__()
        self.layer.requires_grad_(False)


class Double(Plain):
    def __init__(self):
        super().__init__()
        self.double()


class Pair(Plain):
    def forward(self, x):
        return super().forward(x), x


class Fails(Plain):
    def forward(self, x):
        raise RuntimeError("nothing\nworks")


class Overflow(Plain):
    def forward(self, x):
        return super().forward(x) * torch.inf


class Empty(nn.Module):
    def forward(self, x):
        return x[:, :1]


def not_a_class():
    return Plain()
