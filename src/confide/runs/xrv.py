"""The networks of TorchXRayVision, from their own files of weights."""

from __future__ import annotations

import re
import warnings
from collections import OrderedDict
from pathlib import Path
from types import ModuleType
from typing import Any

from confide.errors import ArgumentError, MissingExtraError, MissingFileError
from confide.runs.model_files import Opened, torch_function
from confide.training.device import device_of
from confide.training.settings import Performance

_NAME = re.compile(r"densenet121-res224-[a-z_]+")


def is_network(path: Path) -> bool:
    """Whether a path is the name of one of the library's networks rather than a file."""
    return _NAME.fullmatch(str(path)) is not None


def open_network(
    name: str, weights: Path | None = None, *, performance: Performance | None = None
) -> Opened:
    """A network of the library, which returns the logits of its findings.

    The library's own calls return probabilities that are bent to operating points and saturate;
    logits are what the last layer gives.

    Files of weights are read by PyTorch's restricted unpickler, which makes tensors and the layers
    of this kind of network and refuses all else.  It cannot read whole networks as PyTorch stored
    them before version 1.6; of these the weights have to be saved anew, once.

    Parameters
    ----------
    name : as "densenet121-res224-chex"
    weights : file of the weights; by default where the library stores its downloads
    performance : the device

    Raises
    ------
    MissingExtraError : torchxrayvision is not installed
    MissingFileError : the weights are not there; nothing is downloaded
    ArgumentError : an unknown name, or a file of other weights
    """
    library = _library()
    known = library.models.model_urls
    if name not in known:
        names = ", ".join(sorted(n for n in known if _NAME.fullmatch(n)))
        raise ArgumentError(f"TorchXRayVision has no network {name!r}. Known: {names}.")
    url = str(known[name]["weights_url"])
    path = weights or Path.home() / ".torchxrayvision" / "models_data" / url.rpartition("/")[2]
    if not path.is_file():
        raise MissingFileError(
            f"The weights of {name} are not at {path}, and nothing is downloaded here. Fetch {url} "
            "and name the file under `weights`."
        )
    network = library.models.DenseNet(num_classes=len(known[name]["labels"]))
    state = _state(path, name, library)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        text = " ".join(str(error).split())[:200]
        raise ArgumentError(f"{path} does not hold the weights of {name}: {text}") from error
    device = device_of(performance or Performance())
    network = network.eval().to(device)
    # Outputs that were never trained have no name.
    classes = tuple(label or f"({i})" for i, label in enumerate(known[name]["labels"]))
    return Opened(run=torch_function(network, device), output="logits", classes=classes)


def _library() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import torchxrayvision
    except (ImportError, RuntimeError, OSError) as error:
        # RuntimeError: a torchvision that was built for another PyTorch.
        missing = isinstance(error, ModuleNotFoundError)
        raise MissingExtraError(
            "The networks of TorchXRayVision need the library, with a torchvision that fits the "
            "installed PyTorch: pip install 'confide[vision]'."
            + ("" if missing else f" It is there but fails: {' '.join(str(error).split())[:200]}.")
        ) from error
    return torchxrayvision


def _state(path: Path, name: str, library: ModuleType) -> dict[str, Any]:
    """The weights in a file of the library: of a whole network, or its state."""
    import torch
    from torch import nn

    allowed: list[Any] = [
        *(getattr(library.models, n) for n in ("DenseNet", "_DenseBlock", "_DenseLayer")),
        library.models._Transition,
        *(nn.Sequential, nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d, nn.AvgPool2d, nn.Linear),
        OrderedDict,
        set,
    ]
    try:
        with torch.serialization.safe_globals(allowed), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the classes' source has changed since 2020
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ArgumentError(
            f"{path} cannot be read without running code that is in it. If you trust it, save its "
            'weights anew: python -c "import torch, torchxrayvision as x; torch.save(x.models.'
            f"DenseNet(weights='{name}').state_dict(), 'weights.pt')\", and name weights.pt under "
            "`weights`."
        ) from error
    if isinstance(found, nn.Module):
        return _tensors(found)
    if not isinstance(found, dict):
        raise ArgumentError(f"{path} holds {type(found).__name__}, not weights.")
    # Operating points are no weights.
    return {key: value for key, value in found.items() if key != "op_threshs"}


def _tensors(module: Any, prefix: str = "") -> dict[str, Any]:
    """Parameters and buffers by name, of a module as an old PyTorch stored it."""
    found = {
        f"{prefix}{name}": value
        for held in ("_parameters", "_buffers")
        for name, value in module.__dict__[held].items()
        if value is not None and name != "op_threshs"
    }
    for name, inner in module.__dict__["_modules"].items():
        found |= _tensors(inner, f"{prefix}{name}.")
    return found
