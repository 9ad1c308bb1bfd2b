"""Pieces that the architectures share, and the one way in which weights are drawn."""

from __future__ import annotations

import math
import warnings
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor, nn
from torch.nn import functional

from confide.errors import ArgumentError

SLOPE = 0.1  # of every leaky ReLU


def leaky_relu(x: Tensor) -> Tensor:
    """Leaky ReLU with the slope that all architectures use."""
    return functional.leaky_relu(x, SLOPE)


def fuses(x: Tensor) -> bool:
    """Whether :func:`norm_act` has a kernel for images `x` as they are.

    That is on a CUDA device.  Not under torch.compile, which fuses by itself, nor where torch.func
    shows many images as one.
    """
    return (
        x.is_cuda
        and not torch.compiler.is_compiling()
        and not torch._C._functorch.is_functorch_wrapped_tensor(x)
        and _kernels_work(x.device)
    )


@cache
def _kernels_work(device: torch.device) -> bool:
    """Whether the kernels can be made on a device; they need Triton, a compiler and an Ampere."""
    if find_spec("triton") is None or torch.cuda.get_device_capability(device) < (8, 0):
        return False
    from confide.models.fused_norm import NormAct

    x, one = torch.zeros((1, 16, 2, 2), device=device), torch.ones(16, device=device)
    try:
        NormAct.apply(x, x, one, one, 16, 1e-5, SLOPE)  # type: ignore[no-untyped-call]
    except Exception as error:  # of Triton, whose errors have no base, or of what it calls
        warnings.warn(
            f"The kernels for group norm cannot be made on {device} ({type(error).__name__}); "
            "training goes on with those of PyTorch, which are slower. They need a C compiler and "
            "the headers of Python.",
            RuntimeWarning,
            stacklevel=2,
        )
        return False
    return True


def norm_act(norm: nn.GroupNorm, x: Tensor, more: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """leaky_relu(norm(s)) and s, where s = x + more; (n, channels, height, width) each.

    In one kernel where there is one, see :mod:`confide.models.fused_norm`.
    """
    channels, groups = norm.num_channels, norm.num_groups
    # Of as many channels as Triton can count in; a divisor of a power of two is another one.
    if fuses(x) and channels & (channels - 1) == 0:
        from confide.models.fused_norm import NormAct

        both: tuple[Tensor, Tensor] = NormAct.apply(  # type: ignore[no-untyped-call]
            x, more, norm.weight, norm.bias, groups, norm.eps, SLOPE
        )
        return both
    x = x if more is None else x + more
    return leaky_relu(norm(x)), x


def n_groups(channels: int, wanted: int, smallest: int = 1) -> int:
    """The divisor of `channels` nearest to `wanted` that leaves groups of `smallest` or more.

    Of two equally near divisors the smaller one.

    >>> n_groups(300, 10), n_groups(128, 10), n_groups(16, 10, smallest=4)
    (10, 8, 4)
    """
    divisors = [
        g for g in range(1, channels + 1) if channels % g == 0 and channels // g >= smallest
    ]
    return min(divisors or [1], key=lambda g: (abs(g - wanted), g))


class FeatureGroupNorm(nn.Module):
    """Group normalisation (Wu and He, ECCV 2018) of vectors (..., features).

    The same numbers as torch.nn.GroupNorm for an input (n, features), written as a layer norm
    over each group, which takes about half of its time on a CPU.
    """

    def __init__(self, groups: int, features: int) -> None:
        super().__init__()
        self.groups = groups
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        """(..., features) -> (..., features)."""
        size = x.shape[-1] // self.groups
        y = functional.layer_norm(x.reshape(*x.shape[:-1], self.groups, size), (size,))
        return torch.addcmul(self.bias, y.flatten(-2), self.weight)


@torch.no_grad()
def initialise(network: nn.Module, generator: torch.Generator) -> None:
    """Draw all weights of `network` anew, in place, from `generator` alone.

    A network with a method ``draw(generator)`` does it by that.  Otherwise He normal (He et al.,
    ICCV 2015) for leaky ReLU: by fan-out for convolutions, by fan-in for linear layers; the layer
    named "head" has unit gain.  Biases are 0, scales of norms 1.

    Raises
    ------
    ArgumentError : a module of another kind has weights of its own
    """
    draw = getattr(network, "draw", None)
    if draw is not None:
        draw(generator)
        return
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
            fan_out, fan_in = module.weight.shape[:2]
            fan = fan_in
            if not isinstance(module, nn.Linear):
                fan = fan_out * math.prod(module.kernel_size)
            gain = 1.0 if name == "head" else 2.0 / (1.0 + SLOPE**2)
            module.weight.normal_(0.0, math.sqrt(gain / fan), generator=generator)
        elif isinstance(module, nn.GroupNorm | FeatureGroupNorm):
            module.weight.fill_(1.0)
        elif any(True for _ in module.parameters(recurse=False)):
            raise ArgumentError(
                f"No rule draws the weights of {name or 'the network'}, a {type(module).__name__}; "
                "add one to confide.models.layers.initialise."
            )
        else:
            continue
        if module.bias is not None:
            module.bias.zero_()


@torch.no_grad()
def initialise_transformer(network: nn.Module, generator: torch.Generator) -> None:
    """Draw all weights of a transformer anew, in place, from `generator` alone.

    Linear layers and patch projections normal with variance 1 / fan-in, biases 0, scales of norms
    1; tokens and positions normal with standard deviation 0.02.
    """
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            fan_in = module.weight[0].numel()
            module.weight.normal_(0.0, 1.0 / math.sqrt(fan_in), generator=generator)
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, nn.LayerNorm):
            module.weight.fill_(1.0)
            module.bias.zero_()
        else:
            for parameter in module.parameters(recurse=False):
                parameter.normal_(0.0, 0.02, generator=generator)


@torch.no_grad()
def initialise_uniform(network: nn.Module, generator: torch.Generator) -> None:
    """Draw all weights of a network for codes anew, in place, from `generator` alone.

    Linear layers as in PyTorch: weights and biases uniform within 1 / sqrt(fan-in).  Scales of
    norms 1, their shifts 0, running statistics as at the start; all other parameters (tokens,
    embeddings, mixing matrices) standard normal.
    """
    for module in network.modules():
        if isinstance(module, nn.Linear):
            bound = 1.0 / math.sqrt(module.in_features)
            for parameter in module.parameters():
                parameter.uniform_(-bound, bound, generator=generator)
        elif isinstance(module, nn.LayerNorm | nn.BatchNorm1d):
            module.weight.fill_(1.0)
            module.bias.zero_()
            if isinstance(module, nn.BatchNorm1d):
                module.reset_running_stats()
        else:
            for parameter in module.parameters(recurse=False):
                parameter.normal_(0.0, 1.0, generator=generator)
