"""Group norm and leaky ReLU of images, in one kernel forwards and one backwards, for CUDA.

In a wide residual network half of the time goes into reading and writing memory for these two.
Here an image is read twice and written once, the second time mostly from the cache; the sum of a
block's shortcut and its branch is taken in the same pass, and so is that of their gradients.  All
sums are in float32.  Norms are those of Wu and He, ECCV 2018.  By Triton, which PyTorch brings
along where it brings CUDA.
"""

# mypy: disable-error-code="import-not-found, no-untyped-def, untyped-decorator"
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

_ELEMENTS = 8192  # of an image that are in registers at once
_WARPS = 16


class NormAct(torch.autograd.Function):
    """(x, more, scale, shift, groups, eps, slope) -> leaky_relu(group_norm(s)), s.

    s is x + more, or x where `more` is None.

    The sum is given out for the shortcut that follows: what comes back there is added to the
    gradient of the norm without a pass of its own.

    x, more : (n, channels, height, width) on a CUDA device, as large as each other; the number of
    channels is a power of two, and a multiple of `groups`, that is one as well
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        more: Tensor | None,
        scale: Tensor,
        shift: Tensor,
        groups: int,
        eps: float,
        slope: float,
    ) -> tuple[Tensor, Tensor]:
        """See the class; both results are as `x` in memory of channels last."""
        ctx.set_materialize_grads(False)
        x = x.contiguous(memory_format=torch.channels_last)
        total, added = x, x
        if more is not None:
            added = more.contiguous(memory_format=torch.channels_last)
            total = torch.empty_like(x)
        out = torch.empty_like(x)
        mean = torch.empty((len(x), groups), dtype=torch.float32, device=x.device)
        inverse = torch.empty_like(mean)
        sizes = _sizes(x, groups)
        _forward[(len(x),)](
            *(x, added, total, out, scale, shift, mean, inverse, eps, slope),
            adds=more is not None,
            first_rows=min(sizes["rows"], sizes["pixels"]),
            **sizes,
        )
        ctx.save_for_backward(total, scale, shift, mean, inverse)
        ctx.slope, ctx.groups, ctx.adds = slope, groups, more is not None
        return out, total if more is not None else x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor | None, d_total: Tensor | None) -> tuple[Any, ...]:
        """Gradients of x, more, scale and shift."""
        x, scale, shift, mean, inverse = ctx.saved_tensors
        if d_out is None:
            return d_total, d_total if ctx.adds else None, None, None, None, None, None
        d_out = d_out.contiguous(memory_format=torch.channels_last)
        skipped = d_out
        if d_total is not None:
            skipped = d_total.contiguous(memory_format=torch.channels_last)
        d_x = torch.empty_like(x)
        parts = torch.empty((2, x.shape[1], len(x)), dtype=torch.float32, device=x.device)
        _backward[(len(x),)](
            *(x, d_out, skipped, d_x, scale, shift, mean, inverse, parts, len(x), ctx.slope),
            skips=d_total is not None,
            **_sizes(x, ctx.groups),
        )
        d_scale, d_shift = parts.sum(dim=-1)
        return d_x, d_x if ctx.adds else None, d_scale, d_shift, None, None, None


def _sizes(x: Tensor, groups: int) -> dict[str, int]:
    channels, pixels = x.shape[1], x[0, 0].numel()
    rows = max(1, min(_ELEMENTS // channels, triton.next_power_of_2(pixels)))
    return {
        "pixels": pixels,
        "channels": channels,
        "groups": groups,
        "rows": rows,
        "num_warps": _WARPS,
    }


@triton.jit
def _by_group(values, channels: tl.constexpr, groups: tl.constexpr):
    """The sum over its group, for each channel."""
    each: tl.constexpr = channels // groups
    total = tl.sum(tl.reshape(values, (groups, each)), axis=1)
    return tl.reshape(tl.broadcast_to(total[:, None], (groups, each)), (channels,))


@triton.jit
def _forward(
    x_of,
    more_of,
    total_of,
    out_of,
    scale_of,
    shift_of,
    mean_of,
    inverse_of,
    eps,
    slope,
    adds: tl.constexpr,
    pixels: tl.constexpr,
    channels: tl.constexpr,
    groups: tl.constexpr,
    rows: tl.constexpr,
    first_rows: tl.constexpr,
):
    """One image a program."""
    image = tl.program_id(0).to(tl.int64)
    channel = tl.arange(0, channels)
    each: tl.constexpr = channels // groups
    start_of = image * pixels * channels
    # Sums of differences from the mean of the first rows, so that large means cost no precision.
    row = tl.arange(0, rows)
    at = start_of + row[:, None] * channels + channel[None, :]
    some = tl.load(x_of + at, mask=(row < pixels)[:, None], other=0.0).to(tl.float32)
    if adds:
        some += tl.load(more_of + at, mask=(row < pixels)[:, None], other=0.0).to(tl.float32)
    first = _by_group(tl.sum(some, axis=0), channels, groups) / (first_rows * each)
    sums = tl.zeros((rows, channels), tl.float32)
    squares = tl.zeros((rows, channels), tl.float32)
    for start in range(0, pixels, rows):
        row = start + tl.arange(0, rows)
        here = (row < pixels)[:, None]
        at = start_of + row[:, None] * channels + channel[None, :]
        x = tl.load(x_of + at, mask=here, other=0.0).to(tl.float32)
        if adds:
            x += tl.load(more_of + at, mask=here, other=0.0).to(tl.float32)
            stored = x.to(total_of.dtype.element_ty)
            tl.store(total_of + at, stored, mask=here)
            x = stored.to(tl.float32)  # what is read below, and backwards
        x = tl.where(here, x - first[None, :], 0.0)
        sums += x
        squares += x * x
    count = pixels * each
    away = _by_group(tl.sum(sums, axis=0), channels, groups) / count
    square = _by_group(tl.sum(squares, axis=0), channels, groups) / count
    mean = first + away
    inverse = 1.0 / tl.sqrt(tl.maximum(square - away * away, 0.0) + eps)
    group = image * groups + channel // each
    tl.store(mean_of + group, mean, mask=channel % each == 0)
    tl.store(inverse_of + group, inverse, mask=channel % each == 0)
    scale = tl.load(scale_of + channel).to(tl.float32)
    shift = tl.load(shift_of + channel).to(tl.float32)
    if adds:
        tl.debug_barrier()  # other threads of this program may have stored what is read now
    for start in range(0, pixels, rows):
        row = start + tl.arange(0, rows)
        here = (row < pixels)[:, None]
        at = start_of + row[:, None] * channels + channel[None, :]
        x = tl.load(total_of + at, mask=here, other=0.0).to(tl.float32)
        y = (x - mean[None, :]) * inverse[None, :] * scale[None, :] + shift[None, :]
        y = tl.where(y > 0, y, y * slope)
        tl.store(out_of + at, y.to(out_of.dtype.element_ty), mask=here)


@triton.jit
def _backward(
    x_of,
    d_out_of,
    skipped_of,
    d_x_of,
    scale_of,
    shift_of,
    mean_of,
    inverse_of,
    parts_of,
    images,
    slope,
    skips: tl.constexpr,
    pixels: tl.constexpr,
    channels: tl.constexpr,
    groups: tl.constexpr,
    rows: tl.constexpr,
):
    """One image a program; gradients of scale and shift (2, channels, images) are summed later."""
    image = tl.program_id(0).to(tl.int64)
    channel = tl.arange(0, channels)
    each: tl.constexpr = channels // groups
    start_of = image * pixels * channels
    group = image * groups + channel // each
    mean = tl.load(mean_of + group)
    inverse = tl.load(inverse_of + group)
    scale = tl.load(scale_of + channel).to(tl.float32)
    shift = tl.load(shift_of + channel).to(tl.float32)
    sum_d = tl.zeros((rows, channels), tl.float32)
    sum_dx = tl.zeros((rows, channels), tl.float32)
    for start in range(0, pixels, rows):
        row = start + tl.arange(0, rows)
        here = (row < pixels)[:, None]
        at = start_of + row[:, None] * channels + channel[None, :]
        x = tl.load(x_of + at, mask=here, other=0.0).to(tl.float32)
        d = tl.load(d_out_of + at, mask=here, other=0.0).to(tl.float32)
        x = (x - mean[None, :]) * inverse[None, :]
        d = tl.where(x * scale[None, :] + shift[None, :] > 0, d, d * slope)
        sum_d += d
        sum_dx += d * x
    of_shift = tl.sum(sum_d, axis=0)
    of_scale = tl.sum(sum_dx, axis=0)
    tl.store(parts_of + channel * images + image, of_scale)
    tl.store(parts_of + (channels + channel) * images + image, of_shift)
    count = pixels * each
    mean_d = _by_group(of_shift * scale, channels, groups) / count
    mean_dx = _by_group(of_scale * scale, channels, groups) / count
    for start in range(0, pixels, rows):
        row = start + tl.arange(0, rows)
        here = (row < pixels)[:, None]
        at = start_of + row[:, None] * channels + channel[None, :]
        x = tl.load(x_of + at, mask=here, other=0.0).to(tl.float32)
        d = tl.load(d_out_of + at, mask=here, other=0.0).to(tl.float32)
        x = (x - mean[None, :]) * inverse[None, :]
        d = tl.where(x * scale[None, :] + shift[None, :] > 0, d, d * slope)
        d = (d * scale[None, :] - mean_d[None, :] - x * mean_dx[None, :]) * inverse[None, :]
        if skips:
            d += tl.load(skipped_of + at, mask=here, other=0.0).to(tl.float32)
        tl.store(d_x_of + at, d.to(d_x_of.dtype.element_ty), mask=here)
