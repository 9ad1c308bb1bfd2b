"""Networks of timm, drawn anew or from its weights; needs the extra `vision`."""

from __future__ import annotations

import hashlib
import importlib
import math
import warnings
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors import safe_open
from torch import Tensor, nn

from confide.errors import ArgumentError, MissingExtraError, MissingFileError
from confide.models.base import Network
from confide.models.layers import initialise, initialise_transformer
from confide.models.settings import TimmSettings, ViTB16Settings, ViTL16Settings

PATCH = 16
_RGB = 3
_MOST_POSITIONS = 64 * 64  # of a file: images of 1024 x 1024
_SHOWN = 200  # characters of another library's message


class ChannelAffine(nn.Module):
    """A scale and a shift of each channel: what batch norm is with fixed statistics."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        mean, variance = norm.running_mean, norm.running_var
        if mean is None or variance is None:
            raise ArgumentError("Expected a batch norm with running statistics, got one without.")
        with torch.no_grad():
            scale = norm.weight / (variance + norm.eps).sqrt()
            self.weight = nn.Parameter(scale)
            self.bias = nn.Parameter(norm.bias - mean * scale)

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, height, width) -> the same shape."""
        return x * self.weight[:, None, None] + self.bias[:, None, None]


class TimmNetwork(Network):
    """A network of timm as features, and a head.

    Drawn anew, batch norm is group norm of 32 groups (Wu and He, ECCV 2018), because a record's
    output must be its own.  :func:`pretrained` makes one that starts from weights of timm.

    Parameters
    ----------
    settings : the architecture
    shape : of a record, (channels, height, width)
    outputs : logits

    Raises
    ------
    MissingExtraError : timm is not installed, or does not fit the installed PyTorch
    """

    def __init__(self, settings: TimmSettings, shape: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self._transformer = isinstance(settings, ViTB16Settings | ViTL16Settings)
        options: dict[str, Any] = {"in_chans": shape[0], "num_classes": 0}
        if self._transformer:
            options["img_size"] = shape[1:]
        elif settings.weights is None:
            options["norm_layer"] = "groupnorm"
        self.trunk = _library().create_model(settings.architecture, pretrained=False, **options)
        self.trunk.eval()  # without batch norm nothing in it depends on the mode
        self.head = nn.Linear(self.trunk.num_features, outputs)
        self._start: dict[str, Tensor] = {}

    def features(self, x: Tensor) -> Tensor:
        """(n, channels, height, width) -> (n, width)."""
        out: Tensor = self.trunk(x)
        return out

    @torch.no_grad()
    def draw(self, generator: torch.Generator) -> None:
        """Draw all weights anew, or the head alone and let the others be those of the file."""
        if self._start:
            for name, parameter in self.trunk.named_parameters():
                parameter.copy_(self._start[name])
        elif self._transformer:
            initialise_transformer(self.trunk, generator)
        else:
            initialise(self.trunk, generator)
        self.head.weight.normal_(0, 1 / math.sqrt(self.head.in_features), generator=generator)
        self.head.bias.zero_()

    def load(self, path: Path) -> None:
        """Start from the weights in a file, whatever is drawn later; see :func:`pretrained`."""
        self.trunk.load_state_dict(_state(path, self.trunk))
        _freeze(self.trunk)
        self._start = {name: p.detach().clone() for name, p in self.trunk.named_parameters()}
        self.identity = {"weights_sha256": _sha256(path)}


def pretrained(
    settings: TimmSettings, shape: tuple[int, ...], outputs: int, *, folder: Path = Path()
) -> TimmNetwork:
    """A network that starts from weights of timm, on the CPU; its head is still to be drawn.

    Batch norm is frozen: its running statistics become part of a scale and a shift of each
    channel, which are trained as the other weights are.  Weights of timm are for RGB images; for
    grey ones the kernels of the first layer are summed over the colours, which is the same as
    showing the image in all three.  The positions of a transformer are interpolated (bicubic) to
    the size of the images.

    Parameters
    ----------
    settings : the architecture and its weights, not null
    shape, outputs : see :class:`TimmNetwork`
    folder : a relative path of weights is relative to it

    Raises
    ------
    MissingExtraError : see :class:`TimmNetwork`
    MissingFileError : the file of weights is not there, or cannot be fetched
    ArgumentError : a file of other weights, or images of other than 1 or 3 channels
    """
    if shape[0] not in (1, _RGB):
        raise ArgumentError(
            f"Weights of RGB images can start a network for 1 or 3 channels, got {shape[0]}; set "
            "train.model.weights: null."
        )
    with torch.device("meta"):  # so that torch draws nothing from its global generator
        network = TimmNetwork(settings, shape, outputs)
    network.to_empty(device="cpu")
    network.load(_file_of(settings, folder))
    return network


def _library() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import timm
    except (ImportError, RuntimeError, OSError) as error:
        # RuntimeError: a torchvision that was built for another PyTorch.
        missing = isinstance(error, ModuleNotFoundError)
        raise MissingExtraError(
            "resnet50, densenet121, vit_b16 and vit_l16 need timm, with a torchvision that fits "
            "the installed PyTorch: pip install 'confide[vision]'."
            + ("" if missing else f" It is there but fails: {_shortened(error)}.")
        ) from error
    return timm


def _file_of(settings: TimmSettings, folder: Path) -> Path:
    """The file of weights: the user's, or timm's own from the hub."""
    if isinstance(settings.weights, Path):
        path = folder / settings.weights
        if not path.is_file():
            raise MissingFileError(
                f"There are no weights at {path}; give a .safetensors file of timm's "
                f"{settings.architecture}, or weights: null to draw them."
            )
        return path
    name = _library().get_pretrained_cfg(settings.architecture).hf_hub_id
    where = f"https://huggingface.co/{name}"
    try:
        hub = importlib.import_module("huggingface_hub")  # comes with timm
        return Path(hub.hf_hub_download(name, "model.safetensors"))
    except Exception as error:  # of a dozen libraries below it
        raise MissingFileError(
            f"The weights of {settings.architecture} cannot be fetched from {where} "
            f"({type(error).__name__}: {_shortened(error)}). Fetch model.safetensors from there "
            "where there is a connection, and name the file under train.model.weights."
        ) from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _state(path: Path, trunk: Any) -> dict[str, Tensor]:
    """The state of `trunk` in a file, fitted to its images; no more than it is read.

    A file's shapes are compared with those that are needed before its numbers are read.
    """
    stem = f"{trunk.pretrained_cfg['first_conv']}.weight"
    state = {}
    try:
        with safe_open(path, framework="pt") as file:
            there = set(file.keys())
            for name, wanted in trunk.state_dict().items():
                if name.endswith(".num_batches_tracked"):
                    state[name] = torch.zeros((), dtype=torch.int64)
                    continue
                if name not in there:
                    raise _other(path, f"{name!r} is missing")
                found = tuple(file.get_slice(name).get_shape())
                if not _fits(name, found, tuple(wanted.shape), stem):
                    raise _other(path, f"{name!r} is {found}, expected {tuple(wanted.shape)}")
                tensor = file.get_tensor(name).float()
                if not bool(tensor.isfinite().all()):
                    raise ArgumentError(f"{name!r} in {path} holds numbers that are not finite.")
                state[name] = _fitted(name, tensor, wanted, stem, trunk)
    except (safetensors.SafetensorError, OSError) as error:
        raise ArgumentError(
            f"{path} is not a file of weights in the safetensors format: {_shortened(error)}."
        ) from error
    classifier = f"{trunk.pretrained_cfg['classifier']}."
    unknown = sorted(n for n in there - state.keys() if not n.startswith(classifier))
    if unknown:
        raise _other(path, f"{unknown[0]!r} has no place in it")
    return state


def _fits(name: str, found: tuple[int, ...], wanted: tuple[int, ...], stem: str) -> bool:
    if name == stem:
        return len(found) == len(wanted) and found == (wanted[0], _RGB, *wanted[2:])
    if name == "pos_embed":
        square = len(found) == len(wanted) and math.isqrt(found[1] - 1) ** 2 == found[1] - 1
        return square and found[::2] == wanted[::2] and 1 < found[1] <= _MOST_POSITIONS + 1
    return found == wanted


def _fitted(name: str, tensor: Tensor, wanted: Tensor, stem: str, trunk: Any) -> Tensor:
    if name == stem and wanted.shape[1] == 1:
        return tensor.sum(dim=1, keepdim=True)
    if name == "pos_embed":
        from timm.layers.pos_embed import resample_abs_pos_embed

        side = math.isqrt(tensor.shape[1] - 1)
        size = list(trunk.patch_embed.grid_size)
        fitted: Tensor = resample_abs_pos_embed(tensor, size, [side, side], num_prefix_tokens=1)
        return fitted
    return tensor


def _other(path: Path, what: str) -> ArgumentError:
    return ArgumentError(f"{path} holds weights of another network: {what}.")


def _freeze(network: nn.Module) -> None:
    """Put in the place of each batch norm what it is with the statistics that it has."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                affine: nn.Module = ChannelAffine(child)
                activation = getattr(child, "act", None)  # timm has both in one layer
                if activation is not None:
                    affine = nn.Sequential(affine, activation)
                setattr(parent, name, affine)


def _shortened(error: Exception) -> str:
    return " ".join(str(error).split())[:_SHOWN].rstrip(".")
