"""The weights of one network as bytes: safetensors, checked against the network on the way back."""

from __future__ import annotations

from collections.abc import Mapping

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from confide.errors import FolderError


def to_bytes(weights: Mapping[str, Tensor]) -> bytes:
    """The weights, and running statistics, of a network in the safetensors format."""
    return safetensors.torch.save({name: w.contiguous() for name, w in weights.items()})


def from_bytes(data: bytes, network: nn.Module, *, where: str = "the weights") -> dict[str, Tensor]:
    """Weights for `network` from what :func:`to_bytes` made; the network is not changed.

    Parameters
    ----------
    data : the bytes
    network : names, shapes and types must be those of its `state_dict()`
    where : the file, for messages

    Returns
    -------
    dict of tensors on the CPU, for `network.load_state_dict`

    Raises
    ------
    FolderError : damaged, of another network, or not finite
    """
    try:
        weights = safetensors.torch.load(data)
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise FolderError(f"Cannot read {where}: {error}; train again.") from error
    wanted = network.state_dict()
    for name in sorted(wanted.keys() | weights.keys()):
        found, needed = _form(weights.get(name)), _form(wanted.get(name))
        if found != needed:
            raise FolderError(
                f"Expected {name!r} in {where} as {needed}, found {found}: these are weights of "
                "another network."
            )
        if not bool(torch.isfinite(weights[name]).all()):
            raise FolderError(
                f"{name!r} in {where} holds numbers that are not finite; train again."
            )
    return weights


def _form(tensor: Tensor | None) -> str:
    if tensor is None:
        return "nothing"
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
