"""What a network of an audit is: features of a record, then a linear head."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn


class Network(nn.Module):
    """Base of the networks: a record's output is its own, and nothing is kept between calls.

    A subclass sets `head` and defines :meth:`features`.  One whose weights the rules of
    :func:`confide.models.layers.initialise` do not draw also has ``draw(generator)``.

    Attributes
    ----------
    head : the last layer, (n, width) -> (n, outputs)
    identity : digests of files that the settings only name; a resumed run compares them
    """

    head: nn.Linear
    identity: Mapping[str, str] = MappingProxyType({})

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """(n, *shape of a record) -> (n, width), what the head reads."""

    def forward(self, x: Tensor) -> Tensor:
        """(n, *shape of a record) -> (n, outputs)."""
        features = self.features(x)
        # Logits that are rounded to bfloat16 would be ties in every attack.
        with torch.autocast(x.device.type, enabled=False):
            exact = features.to(torch.promote_types(features.dtype, torch.float32))
            out: Tensor = self.head(exact)
        return out
