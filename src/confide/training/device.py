"""The device of a training, and how exactly it multiplies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from confide.errors import ConfigError
from confide.training.settings import Performance


def device_of(performance: Performance) -> torch.device:
    """The device that is asked for.

    Raises
    ------
    ConfigError : device "cuda" where there is none
    """
    available = torch.cuda.is_available()
    if performance.device == "cuda" and not available:
        raise ConfigError(
            "performance.device is cuda, but no CUDA device was found; use auto or cpu."
        )
    return torch.device("cuda" if available and performance.device != "cpu" else "cpu")


@contextmanager
def tensor_float32(allowed: bool) -> Iterator[None]:
    """Allow or forbid TensorFloat32 in products and convolutions of float32, for a while."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]
