"""One layer of an encoder: rows times a secret matrix, and the statistics of what comes out."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from confide.encoders.key import Key

EPSILON = 1e-5  # of torch.nn.BatchNorm2d


class Layer:
    """A linear layer of rows.

    Parameters
    ----------
    weight : (n_outputs, n_inputs)
    bias : (n_outputs,)
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self.weight, self.bias = weight, bias

    @classmethod
    def derived(cls, key: Key, name: str, n_outputs: int, n_inputs: int) -> Layer:
        """Of a key, float32 on the CPU: uniform within 1 / sqrt(n_inputs), as torch initialises."""
        bound = 1 / math.sqrt(n_inputs)
        weight = key.uniform(f"{name}.weight", (n_outputs, n_inputs), bound)
        bias = key.uniform(f"{name}.bias", (n_outputs,), bound)
        return cls(torch.from_numpy(weight), torch.from_numpy(bias))

    def normalised(self, norm: Tensor) -> Layer:
        """The layer followed by a normalisation with fixed (2, n_outputs) mean and variance."""
        factor = (norm[1].double() + EPSILON).rsqrt()
        weight = self.weight * factor[:, None]
        bias = (self.bias - norm[0].double()) * factor
        return Layer(weight.float(), bias.float())

    def on(self, device: torch.device, dtype: torch.dtype) -> Layer:
        """The layer on a device, in a type."""
        return Layer(self.weight.to(device, dtype), self.bias.to(device, dtype))

    def __call__(self, rows: Tensor, out: Tensor) -> Tensor:
        """(n, n_inputs) -> (n, n_outputs), written to `out`."""
        return torch.addmm(self.bias, rows, self.weight.t(), out=out)


def activated(h: Tensor, norm: Tensor | None, out: Tensor) -> Tensor:
    """Normalisation by (2, n) mean and variance, if given, and ReLU; (rows, n), to `out`."""
    if norm is None:
        return torch.clamp_min(h, 0, out=out)
    factor = (norm[1] + EPSILON).rsqrt()
    shift = -norm[0] * factor
    return torch.addcmul(shift.float(), h, factor.float(), out=out).relu_()


class Moments:
    """Mean and biased variance over rows that come in parts.

    Each part about its own mean, and the parts put together (Chan, Golub and LeVeque 1983,
    equation 2.1), so that nothing cancels and no part is needed twice.
    """

    def __init__(self) -> None:
        self._parts: list[tuple[int, Tensor, Tensor]] = []

    def add(self, rows: Tensor, spare: Tensor) -> None:
        """Take (n_rows, n) in; `spare`, float32 of the same shape, is overwritten."""
        mean = torch.mean(rows, dim=0, dtype=torch.float32)
        spread = torch.sub(rows, mean, out=spare).square_().sum(dim=0)
        self._parts.append((len(rows), mean.double(), spread.double()))

    def of_all(self) -> Tensor:
        """(2, n) float64."""
        n_rows = sum(n for n, _, _ in self._parts)
        mean = torch.zeros_like(self._parts[0][1])
        variance = torch.zeros_like(mean)
        for n, part, _ in self._parts:
            mean += part * (n / n_rows)
        for n, part, spread in self._parts:
            variance += spread / n_rows + (part - mean) ** 2 * (n / n_rows)
        return torch.stack([mean, variance])
