"""A network of the user's: a class by its import path, checked before anything is trained with it.

The class is imported from where Python finds modules (installed, or on PYTHONPATH); the folder of
the configuration is not searched, so that a configuration alone cannot bring code with it.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from confide.errors import ArgumentError, ConfigError
from confide.models.base import Network
from confide.models.settings import OwnSettings

_PROBED = 4  # records
_SHOWN = 300  # characters of what the user's code says


class OwnNetwork(Network):
    """A module of the user's as a network of an audit.

    Weights are drawn by ``reset_parameters`` of the module and of the modules in it, as PyTorch's
    layers have it, with torch's generator on the CPU seeded for that and put back afterwards.

    Parameters
    ----------
    settings : the class and its arguments
    shape : of a record
    outputs : logits

    Raises
    ------
    ConfigError : the class cannot be imported or made, or is no torch.nn.Module
    ArgumentError : outputs of another shape, a layer that mixes records, randomness or a state of
        its own, weights that are not drawn, that do not train or are not float32
    """

    def __init__(self, settings: OwnSettings, shape: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self._name = settings.module
        with _forked(0):
            inner, self.identity = _made(settings)
        head = getattr(inner, "head", None)
        self._in_two = False
        if isinstance(head, nn.Linear) and callable(getattr(inner, "features", None)):
            self._in_two = True
            self.head = head  # before `inner`, so that its weights are named by it
        self.inner = inner
        self._check_parameters()
        self._check_draws()
        self._check_calls(shape, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(n, *shape of a record) -> (n, outputs)."""
        return super().forward(x) if self._in_two else self._whole(x)

    def features(self, x: Tensor) -> Tensor:
        """(n, *shape of a record) -> (n, width), by the module's own method.

        Raises
        ------
        ConfigError : the module has none, or no linear layer `head` behind it
        """
        if not self._in_two:
            raise ConfigError(
                f"{self._name} has no method features(x) -> (n, width) with a linear layer `head` "
                "behind it; add both."
            )
        features: Any = self.inner.features
        out: Tensor = features(x)
        return out

    def _whole(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x)
        return out

    @torch.no_grad()
    def draw(self, generator: torch.Generator) -> None:
        """Draw all weights anew.

        Raises
        ------
        ArgumentError : a weight is not drawn, or not by torch's generator alone
        """
        seed = int(torch.randint(2**62, (), generator=generator))
        for parameter in self.inner.parameters():
            parameter.fill_(float("nan"))  # nothing of the old weights may stay
        with _forked(seed):
            for module in reversed(list(self.inner.modules())):  # the whole after its parts
                reset = getattr(module, "reset_parameters", None)
                if callable(reset):
                    reset()
        for name, parameter in self.inner.named_parameters():
            if not bool(parameter.isfinite().all()):
                raise ArgumentError(
                    f"{self._name}: no reset_parameters() draws {name!r}; give the class a method "
                    "reset_parameters(self) that draws all weights anew."
                )

    def _check_parameters(self) -> None:
        if not any(True for _ in self.inner.parameters()):
            raise ArgumentError(f"{self._name} has no weights to train.")
        for name, parameter in self.inner.named_parameters():
            if parameter.dtype != torch.float32 or not parameter.requires_grad:
                raise ArgumentError(
                    f"{self._name}: {name!r} is {str(parameter.dtype).removeprefix('torch.')}"
                    f"{'' if parameter.requires_grad else ' and does not train'}; expected float32 "
                    "weights that all train. What is fixed belongs into a buffer."
                )

    def _check_draws(self) -> None:
        drawn = []
        for _ in range(2):
            self.draw(torch.Generator().manual_seed(0))
            drawn.append([parameter.detach().clone() for parameter in self.inner.parameters()])
        if not all(torch.equal(a, b) for a, b in zip(*drawn, strict=True)):
            raise ArgumentError(
                f"{self._name}: reset_parameters() reads other random numbers than torch's on the "
                "CPU; draw all weights with torch."
            )

    def _check_calls(self, shape: tuple[int, ...], outputs: int) -> None:
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(_PROBED, *shape, generator=generator)
        x.requires_grad_()
        first, again = self._called(x, outputs), self._called(x, outputs, seed=1)
        if self._in_two and not torch.allclose(first, self(x)):
            raise ArgumentError(
                f"{self._name} does not return head(features(x)); rename one of them if they mean "
                "something else."
            )
        if not torch.equal(first, again):
            raise ArgumentError(
                f"{self._name} answers differently when it is asked twice, as with dropout; remove "
                "what is random in it."
            )
        # A loss of one record must not see the others: neither in its slopes nor in its value.
        for row in range(_PROBED):
            (slope,) = torch.autograd.grad(
                first[row].sum(), x, retain_graph=True, allow_unused=True
            )
            others = torch.arange(_PROBED) != row
            if slope is not None and bool((slope[others] != 0).any()):
                raise self._mixes()
        changed = x.detach().clone()
        changed[1:] = 100 * torch.randn(changed[1:].shape, generator=generator)
        close = torch.isclose(first[0], self._called(changed, outputs)[0], rtol=1e-3, atol=1e-4)
        if not bool(close.all()):
            raise self._mixes()

    def _called(self, x: Tensor, outputs: int, seed: int = 0) -> Tensor:
        """The outputs in the mode of training, with which nothing in the module may change."""
        before = {name: buffer.clone() for name, buffer in self.inner.named_buffers()}
        with _forked(seed):
            try:
                out = self.inner(x)
            except Exception as error:
                raise ArgumentError(
                    f"{self._name} fails for records {tuple(x.shape)}: {_shortened(error)}."
                ) from error
        if not isinstance(out, Tensor) or out.shape != (len(x), outputs):
            got = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise ArgumentError(
                f"{self._name} returned {got} for records {tuple(x.shape)}; expected "
                f"({len(x)}, {outputs}), logits."
            )
        if not bool(out.isfinite().all()):
            raise ArgumentError(f"{self._name} returns numbers that are not finite, at the start.")
        for name, buffer in self.inner.named_buffers():
            if name not in before or not torch.equal(buffer, before[name]):
                raise ArgumentError(
                    f"{self._name}: the buffer {name!r} changes when the module is called, as in "
                    "batch norm; use nn.GroupNorm or nn.LayerNorm, whose outputs are a record's "
                    "own."
                )
        return out

    def _mixes(self) -> ArgumentError:
        return ArgumentError(
            f"{self._name}: the output for a record depends on the other records of its batch; "
            "use layers such as nn.GroupNorm or nn.LayerNorm, not batch norm."
        )


@contextmanager
def _forked(seed: int) -> Iterator[None]:
    """Torch's generator on the CPU with a seed, and as it was afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def _made(settings: OwnSettings) -> tuple[nn.Module, dict[str, str]]:
    """The module, and the digest of the file that its class stands in."""
    where, _, name = settings.module.partition(":")
    try:
        module = importlib.import_module(where)
    except ImportError as error:
        raise ConfigError(
            f"train.model.module = {settings.module!r} cannot be imported ({_shortened(error)}); "
            "install the package, or put the folder that holds it on PYTHONPATH."
        ) from error
    kind = getattr(module, name, None)
    if not (inspect.isclass(kind) and issubclass(kind, nn.Module)):
        raise ConfigError(
            f"{where} has no class {name} that is a torch.nn.Module; name one in "
            "train.model.module."
        )
    try:
        made = kind(**settings.arguments)
    except Exception as error:
        raise ConfigError(
            f"{settings.module} cannot be made with arguments "
            f"{sorted(settings.arguments)}: {_shortened(error)}."
        ) from error
    return made, {"source_sha256": _digest(kind)}


def _digest(kind: type[nn.Module]) -> str:
    """SHA-256 of the source file of a class, or of nothing where it has none."""
    try:
        source = Path(inspect.getfile(kind)).read_bytes()
    except (TypeError, OSError):
        source = b""
    return hashlib.sha256(source).hexdigest()


def _shortened(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:_SHOWN]}".rstrip(".")
