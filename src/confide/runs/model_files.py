"""Opening a model made elsewhere: a file -> a function from inputs to outputs.

Nothing is unpickled.  A model file is a program all the same: TorchScript, exported programs and
ONNX run the operations that are in them.  Open only files from somebody whom you would let run a
program, or do it where nothing else can be reached.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from confide._tables import text
from confide.errors import ArgumentError, MissingExtraError
from confide.runs.model_archives import harmless_pt2, kind_of, refuse_damaged
from confide.runs.model_settings import Output
from confide.training.device import device_of
from confide.training.settings import Performance

Batch = NDArray[np.float32]
Function = Callable[[Batch], NDArray[Any]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Opened:
    """A model that is ready to run.

    Attributes
    ----------
    run : inputs (n, ...) float32 -> outputs (n,) or (n, n_outputs)
    output : what it returns, None where the file does not tell
    classes : names of the outputs, empty where the file does not tell
    """

    run: Function
    output: Output | None = None
    classes: tuple[str, ...] = ()


def open_model(
    path: Path, *, trusted: Sequence[str] = (), performance: Performance | None = None
) -> Opened:
    """Open a model file by its content.

    Parameters
    ----------
    path : .pt2, TorchScript, ONNX or skops
    trusted : types that may be made from a skops file, beside those that skops trusts
    performance : where to run PyTorch models

    Raises
    ------
    MissingFileError : there is no such file
    ArgumentError : a pickle, damaged, of no known kind, or it needs what is refused
    MissingExtraError : the library for it is not installed; names the extra
    """
    performance = performance or Performance()
    kind = kind_of(path)
    if kind == "onnx":
        return _onnx(path, performance)
    if kind == "skops":
        return _skops(path, trusted)
    if kind == "table":
        raise ArgumentError(f"{path} is a table of predictions, not a model to run.")
    return _torch(path, kind, performance)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """What a library raises on a damaged or foreign file, as one error of this package."""
    loggers = [logging.getLogger(name) for name in ("torch.export", "torch._export")]
    levels = [logger.level for logger in loggers]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the library's advice to its own callers
            for logger in loggers:
                logger.setLevel(logging.CRITICAL)
            yield
    except (ArgumentError, MissingExtraError, MemoryError):
        raise
    except Exception as error:
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise ArgumentError(f"{path} cannot be opened: {said}") from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _torch(path: Path, kind: str, performance: Performance) -> Opened:
    import torch

    device = device_of(performance)
    with _reading(path):
        if kind == "pt2":
            program = torch.export.load(harmless_pt2(path))
            module: Any = program.module(check_guards=False)
            module = module.to(device)
        else:
            refuse_damaged(path)
            module = torch.jit.load(str(path), map_location=device)  # type: ignore[no-untyped-call]
            module.eval()
    return Opened(run=torch_function(module, device))


def torch_function(module: Any, device: Any) -> Function:
    """A PyTorch module as a function of arrays; the first of several outputs is taken."""
    import torch

    def run(batch: Batch) -> NDArray[Any]:
        with torch.inference_mode():
            found = module(torch.from_numpy(np.ascontiguousarray(batch)).to(device))
        if isinstance(found, dict):
            found = next(iter(found.values()))
        while isinstance(found, tuple | list):
            found = found[0]
        return np.asarray(found.detach().to("cpu", torch.float64).numpy())

    return run


def _onnx(path: Path, performance: Performance) -> Opened:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError(
            f"{path} is an ONNX model, which needs onnxruntime: pip install 'confide[onnx]'."
        ) from error
    available = onnxruntime.get_available_providers()
    wanted = ["CUDAExecutionProvider"] if performance.device != "cpu" else []
    with _reading(path):
        session = onnxruntime.InferenceSession(
            str(path), providers=[p for p in [*wanted, "CPUExecutionProvider"] if p in available]
        )
    inputs = session.get_inputs()
    if len(inputs) != 1 or inputs[0].type not in ("tensor(float)", "tensor(double)"):
        found = ", ".join(f"{i.name}: {i.type}" for i in inputs)
        raise ArgumentError(f"{path} takes {found}; expected one input of floating-point numbers.")
    kind = np.float32 if inputs[0].type == "tensor(float)" else np.float64
    # Converters of scikit-learn give the predicted label first and probabilities second.
    outputs = [
        o.name for o in session.get_outputs() if o.type in ("tensor(float)", "tensor(double)")
    ]
    if not outputs:
        raise ArgumentError(f"{path} has no output of floating-point numbers.")

    def run(batch: Batch) -> NDArray[Any]:
        return np.asarray(session.run(outputs[:1], {inputs[0].name: batch.astype(kind)})[0])

    return Opened(run=run)


def _skops(path: Path, trusted: Sequence[str]) -> Opened:
    try:
        import skops.io
    except ImportError as error:
        raise MissingExtraError(
            f"{path} is a scikit-learn model saved with skops, which is not installed: "
            "pip install 'confide[skops]'."
        ) from error
    with _reading(path):
        unknown = sorted(set(skops.io.get_untrusted_types(file=path)) - set(trusted))
        if unknown:
            raise ArgumentError(
                f"{path} holds types that skops does not trust: {', '.join(unknown)}. If you know "
                "them and trust who made the file, name them under `trusted`."
            )
        model = skops.io.load(path, trusted=list(trusted))
    if not hasattr(model, "predict_proba"):
        raise ArgumentError(
            f"{path} is {type(model).__name__}, which gives no probabilities; an audit needs them."
        )
    classes: Any = getattr(model, "classes_", None)
    plain = isinstance(classes, np.ndarray) and classes.ndim == 1
    names = tuple(text(c) for c in classes.tolist()) if plain else ()

    def run(batch: Batch) -> NDArray[Any]:
        found = model.predict_proba(batch.reshape(len(batch), -1))
        if isinstance(found, list):  # one array a label
            return np.column_stack([one[:, -1] for one in found])
        return np.asarray(found, dtype=np.float64)

    return Opened(run=run, output="probabilities", classes=names)
