"""Architectures, one a file; :func:`build` makes one from its settings.

A new architecture is a file with the network, a settings class in `settings.py` and a case in
:func:`build`.  No layer may mix the records of a batch: a record's output is its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from confide.errors import ArgumentError
from confide.models.settings import (
    ModelSettings,
    SmallCNNSettings,
    TabularResNetSettings,
    WRNSettings,
)

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ModelSettings", "SmallCNNSettings", "TabularResNetSettings", "WRNSettings", "build"]

_SMALLEST_IMAGE = 16


def build(settings: ModelSettings, input_shape: tuple[int, ...], n_outputs: int) -> nn.Module:
    """Make a network on the CPU, its weights drawn from a fixed seed.

    Draw other weights with :func:`confide.models.layers.initialise`.  No global random state is
    read or changed.

    Parameters
    ----------
    settings : one of the settings classes of this package
    input_shape : shape of one record, (features,) or (channels, height, width)
    n_outputs : logits a record

    Returns
    -------
    torch.nn.Module : (n, *input_shape) -> (n, n_outputs)

    Raises
    ------
    ArgumentError : the architecture does not take records of this shape
    """
    import torch

    from confide.models.layers import initialise

    _check_shape(settings, input_shape)
    with torch.device("meta"):  # so that torch draws nothing from its global generator
        network = _skeleton(settings, input_shape[0], n_outputs)
    network.to_empty(device="cpu")
    initialise(network, torch.Generator().manual_seed(0))
    return network


def _skeleton(settings: ModelSettings, n_inputs: int, n_outputs: int) -> nn.Module:
    from confide.models.small_cnn import SmallCNN
    from confide.models.tabular_resnet import TabularResNet
    from confide.models.wrn import WideResNet

    match settings:
        case TabularResNetSettings(width=width, depth=depth):
            return TabularResNet(n_inputs, n_outputs, width=width, depth=depth)
        case SmallCNNSettings(width=width):
            return SmallCNN(n_inputs, n_outputs, width=width)
        case WRNSettings(depth=depth, width=width):
            return WideResNet(n_inputs, n_outputs, depth=depth, width=width)


def _check_shape(settings: ModelSettings, input_shape: tuple[int, ...]) -> None:
    if isinstance(settings, TabularResNetSettings):
        if len(input_shape) != 1:
            raise ArgumentError(
                f"Model 'tabular_resnet' takes records of shape (features,), got {input_shape}; "
                "for images use 'small_cnn' or 'wrn'."
            )
    elif len(input_shape) != 3:
        raise ArgumentError(
            f"Model {settings.name!r} takes records of shape (channels, height, width), got "
            f"{input_shape}; for tables use 'tabular_resnet'."
        )
    elif min(input_shape[1:]) < _SMALLEST_IMAGE:
        raise ArgumentError(
            f"Model {settings.name!r} needs images of {_SMALLEST_IMAGE} x {_SMALLEST_IMAGE} pixels "
            f"or more, got {input_shape[1]} x {input_shape[2]}."
        )
