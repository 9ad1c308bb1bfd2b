"""Architectures, one a file; :func:`build` makes one from its settings.

Classifiers of codes have their own: :func:`build_code_classifier`, :func:`build_plain_classifier`.

A new architecture is a file with the network, a settings class in `settings.py` and a case in
:func:`build`.  No layer may mix the records of a batch: a record's output is its own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from confide.errors import ArgumentError
from confide.models.settings import (
    CodeViTSettings,
    DeepViTSettings,
    DenseNet121Settings,
    ModelSettings,
    OwnSettings,
    ResNet1dSettings,
    ResNet50Settings,
    SmallCNNSettings,
    TabularResNetSettings,
    TimmSettings,
    ViTB16Settings,
    ViTL16Settings,
    ViTSettings,
    WRNSettings,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

    from confide.models.base import Network

__all__ = [
    "CodeViTSettings",
    "DeepViTSettings",
    "DenseNet121Settings",
    "ModelSettings",
    "OwnSettings",
    "ResNet1dSettings",
    "ResNet50Settings",
    "SmallCNNSettings",
    "TabularResNetSettings",
    "ViTB16Settings",
    "ViTL16Settings",
    "ViTSettings",
    "WRNSettings",
    "build",
    "build_code_classifier",
    "build_plain_classifier",
]

_SMALLEST = 16  # pixels of a side, or samples
_SMALLEST_OF_TIMM = 32  # halved five times


def build(
    settings: ModelSettings,
    input_shape: tuple[int, ...],
    n_outputs: int,
    *,
    folder: Path = Path(),
) -> Network:
    """Make a network on the CPU, its weights drawn from a fixed seed.

    Draw other weights with :func:`confide.models.layers.initialise`.  No global random state is
    read or changed.

    Parameters
    ----------
    settings : one of the settings classes of this package
    input_shape : shape of one record, (features,), (channels, height, width) or (leads, samples)
    n_outputs : logits a record
    folder : files that the settings name are relative to it

    Returns
    -------
    torch.nn.Module : (n, *input_shape) -> (n, n_outputs)

    Raises
    ------
    ArgumentError : the architecture does not take records of this shape
    MissingExtraError, MissingFileError : see :func:`confide.models.timm_nets.pretrained`
    ConfigError : see :class:`confide.models.own.OwnNetwork`
    """
    import torch

    from confide.models.layers import initialise

    _check_shape(settings, input_shape)
    if isinstance(settings, OwnSettings):
        from confide.models.own import OwnNetwork

        return OwnNetwork(settings, input_shape, n_outputs)
    if isinstance(settings, TimmSettings) and settings.weights is not None:
        from confide.models.timm_nets import pretrained

        network = pretrained(settings, input_shape, n_outputs, folder=folder)
        initialise(network, torch.Generator().manual_seed(0))
        return network
    return _made(lambda: _skeleton(settings, input_shape, n_outputs), initialise)


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


Made = TypeVar("Made", bound="nn.Module")


def _made(make: Callable[[], Made], draw: Callable[[nn.Module, torch.Generator], None]) -> Made:
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


def _skeleton(settings: ModelSettings, shape: tuple[int, ...], n_outputs: int) -> Network:
    from confide.models.deep_vit import DeepViT
    from confide.models.resnet1d import ResNet1d
    from confide.models.small_cnn import SmallCNN
    from confide.models.tabular_resnet import TabularResNet
    from confide.models.vit import ViT
    from confide.models.wrn import WideResNet

    n_inputs = shape[0]
    match settings:
        case TabularResNetSettings(width=width, depth=depth):
            return TabularResNet(n_inputs, n_outputs, width=width, depth=depth)
        case SmallCNNSettings(width=width):
            return SmallCNN(n_inputs, n_outputs, width=width)
        case WRNSettings(depth=depth, width=width):
            return WideResNet(n_inputs, n_outputs, depth=depth, width=width)
        case ResNet1dSettings(width=width, depth=depth):
            return ResNet1d(n_inputs, n_outputs, width=width, depth=depth)
        case ViTSettings():
            return ViT(shape, n_outputs, **settings.model_dump(exclude={"name"}))
        case CodeViTSettings():
            pieces = settings.model_dump(exclude={"name"})
            return DeepViT(n_inputs, shape[1], n_outputs, **pieces, dropout=0.0)
        case TimmSettings():
            from confide.models.timm_nets import TimmNetwork

            return TimmNetwork(settings, shape, n_outputs)
        case _:
            raise ArgumentError(f"No network is made from {type(settings).__name__}.")


_FORMS = {"tables": "(features,)", "images": "(channels, height, width)"}
_FORMS["signals"] = "(leads, samples)"
_KINDS = {1: "tables", 3: "images", 2: "signals"}  # by axes of a record
_REMEDIES = {
    "tables": "for tables use 'tabular_resnet'",
    "images": "for images use 'small_cnn' or 'wrn'",
    "signals": "for signals use 'resnet1d', for codes 'deep_vit'",
}


def _check_shape(settings: ModelSettings, input_shape: tuple[int, ...]) -> None:
    kind = _KINDS.get(len(input_shape))
    if settings.takes == "any":
        return
    if kind != settings.takes:
        remedy = f"; {_REMEDIES[kind]}" if kind else ""
        raise ArgumentError(
            f"Model {settings.name!r} takes records of shape {_FORMS[settings.takes]}, got "
            f"{input_shape}{remedy}."
        )
    codes = isinstance(settings, CodeViTSettings)  # (rows, channels), of any number
    if kind == "signals" and not codes and input_shape[1] < _SMALLEST:
        raise ArgumentError(
            f"Model {settings.name!r} needs signals of {_SMALLEST} samples or more, got "
            f"{input_shape[1]}."
        )
    if kind == "images":
        _check_image(settings, input_shape)


def _check_image(settings: ModelSettings, input_shape: tuple[int, ...]) -> None:
    height, width = input_shape[1:]
    patch = 16 if isinstance(settings, ViTB16Settings | ViTL16Settings) else 1
    smallest = _SMALLEST_OF_TIMM if isinstance(settings, TimmSettings) else _SMALLEST
    if isinstance(settings, ViTSettings):
        patch, smallest = settings.patch, settings.patch
    if min(height, width) < smallest:
        raise ArgumentError(
            f"Model {settings.name!r} needs images of {smallest} x {smallest} pixels or more, got "
            f"{height} x {width}."
        )
    if height % patch or width % patch:
        raise ArgumentError(
            f"Model {settings.name!r} cuts images into patches of {patch} x {patch} pixels, which "
            f"{height} x {width} is no multiple of; choose another size."
        )
