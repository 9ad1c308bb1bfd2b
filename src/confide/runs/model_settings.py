"""The configuration of an audit of a released model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from confide.datasets import AnySource
from confide.datasets.base import ByColumn, Settings
from confide.datasets.xrv import XrvCheXpert, XrvMimic
from confide.training.settings import Performance

Output = Literal["logits", "probabilities"]
Numbers = tuple[float, ...]


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _split(value: Any) -> Any:
    # A column of 1, 0 and missing is one of several forms; the block form names a value.
    return dict(value) if isinstance(value, Mapping) else value


class ModelSettings(Settings):
    """One model, and which records it was trained on.

    Parameters
    ----------
    model : a file: .pt2 (torch.export), .pt (TorchScript), .onnx, .skops, or a table of
        predictions with the columns record and logit_0 ... or prob_0 ...; or the name of a
        TorchXRayVision network, as densenet121-res224-chex
    members : a column of the data's table with 1 for records in the training data, 0 for others
        and nothing for records to leave out; or {column, value} for the value that says so; null
        for a reference that was trained on none of the records
    output : what the model returns; by default logits, unless they look like probabilities, which
        is refused
    classes : names of the outputs in their order; by default those of the data
    mean, scale : inputs are given as (x - mean) / scale, one number or one a channel (a feature of
        a table); by default x / 255 for images of 8 bits, and x as it is for all else
    trusted : types in a .skops file that may be made, beside those that skops trusts
    weights : a file of weights of a TorchXRayVision network, by default in that library's cache
    recipe : what is known of how the model was trained; fields that target and references state
        differently fail the guard "recipe"
    """

    model: Path
    members: Annotated[str | ByColumn | None, BeforeValidator(_split)] = None
    output: Output | None = None
    classes: tuple[str, ...] = ()
    mean: Annotated[Numbers, BeforeValidator(_listed)] = ()
    scale: Annotated[Numbers, BeforeValidator(_listed)] = ()
    trusted: tuple[str, ...] = ()
    weights: Path | None = None
    recipe: dict[str, Any] = Field(default_factory=dict)


class ModelConfig(Settings):
    """The configuration of an audit of a released model.

    Parameters
    ----------
    data : the records, members and non-members of one source.  Columns of a table are given to the
        models as they stand, in the order of `features`; images as the data block resizes them
    target : the released model
    references : models to compare it with
    seed : of the guard and of resampling
    batch_size : records given to a model at a time
    performance : the device
    """

    data: Annotated[AnySource | XrvCheXpert | XrvMimic, Field(discriminator="name")]
    target: ModelSettings
    references: tuple[ModelSettings, ...] = ()
    seed: int = Field(default=0, ge=0)
    batch_size: int = Field(default=256, ge=1)
    performance: Performance = Performance()
