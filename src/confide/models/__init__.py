"""Architectures, one a file; :func:`build` makes one from its settings.

Classifiers of codes have their own: :func:`build_code_classifier`, :func:`build_plain_classifier`.

A new architecture is a file with the network, a settings class in `settings.py` and a case in
:func:`build`.  No layer may mix the records of a batch: a record's output is its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from confide.errors import ArgumentError
from confide.models.settings import (
    DeepViTSettings,
    ModelSettings,
    SmallCNNSettings,
    TabularResNetSettings,
    WRNSettings,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = [
    "DeepViTSettings",
    "ModelSettings",
    "SmallCNNSettings",
    "TabularResNetSettings",
    "WRNSettings",
    "build",
    "build_code_classifier",
    "build_plain_classifier",
]

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
    from confide.models.layers import initialise

    _check_shape(settings, input_shape)
    return _made(lambda: _skeleton(settings, input_shape[0], n_outputs), initialise)


def build_code_classifier(
    settings: DeepViTSettings, shape: tuple[int, ...], n_outputs: int, *, position: bool = False
) -> nn.Module:
    """Make a classifier of codes on the CPU, its weights drawn from a fixed seed.

    Draw other weights with :func:`confide.models.layers.initialise_uniform`.

    Parameters
    ----------
    settings : the architecture
    shape : of a code, (P, C)
    n_outputs : logits a record
    position : whether the rows of the codes keep their order, so that it can be learned from

    Returns
    -------
    torch.nn.Module : (n, P, C) -> (n, n_outputs)

    Raises
    ------
    ArgumentError : codes of another shape
    """
    from confide.models.layers import initialise_uniform

    if len(shape) != 2 or min(shape) < 1:
        raise ArgumentError(
            f"Expected codes of shape (rows, width), got {shape}; for plain records use "
            "build_plain_classifier."
        )
    return _made(lambda: _deep_vit(settings, shape, n_outputs, position), initialise_uniform)


def build_plain_classifier(
    settings: DeepViTSettings,
    shape: tuple[int, ...],
    n_outputs: int,
    *,
    patch: int,
    width: int,
    private_depth: int,
) -> nn.Module:
    """Make the same classifier with a trainable encoder in front: the baseline of an encoding.

    Parameters
    ----------
    settings : the architecture behind the encoder
    shape : of a record, (channels, height, width) or (leads, samples)
    n_outputs : logits a record
    patch, width, private_depth : of the encoder, see :mod:`confide.models.patch_encoder`

    Returns
    -------
    torch.nn.Module : (n, *shape) float32, standardised -> (n, n_outputs)

    Raises
    ------
    ArgumentError : records that are no images or signals, or no multiple of the patch
    """
    from torch import nn

    from confide.models.layers import initialise_uniform
    from confide.models.patch_encoder import PatchEncoder

    if len(shape) not in (2, 3) or min(shape) < 1 or any(side % patch for side in shape[1:]):
        raise ArgumentError(
            "Expected records as (channels, height, width) or (leads, samples) with sides that "
            f"are multiples of patch={patch}, got {shape}."
        )

    def make() -> nn.Module:
        encoder = PatchEncoder(shape, patch=patch, width=width, private_depth=private_depth)
        code = (len(encoder.position), width)
        return nn.Sequential(encoder, _deep_vit(settings, code, n_outputs, position=False))

    return _made(make, initialise_uniform)


def _made(
    make: Callable[[], nn.Module], draw: Callable[[nn.Module, torch.Generator], None]
) -> nn.Module:
    import torch

    with torch.device("meta"):  # so that torch draws nothing from its global generator
        network = make()
    network.to_empty(device="cpu")
    draw(network, torch.Generator().manual_seed(0))
    return network


def _deep_vit(
    settings: DeepViTSettings, shape: tuple[int, ...], n_outputs: int, position: bool
) -> nn.Module:
    from confide.models.deep_vit import DeepViT

    n_rows, width = shape
    pieces = settings.model_dump(exclude={"name"})
    return DeepViT(n_rows, width, n_outputs, **pieces, position=position)


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
