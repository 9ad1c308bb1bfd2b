"""Settings of the architectures: plain values, checked when made, without importing torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator

Kind = Literal["tables", "images", "signals", "any"]
"""What records are: (features,), (channels, height, width), (leads, samples), or any of these."""


class Settings(BaseModel):
    """Base of all settings: frozen, an unknown key is an error, and so is an infinite number."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TabularResNetSettings(Settings):
    """A residual network for tables; the defaults are those of Knolle et al., Nature 656 (2026)."""

    takes: ClassVar[Kind] = "tables"

    name: Literal["tabular_resnet"] = "tabular_resnet"
    width: int = Field(default=300, ge=4)
    depth: int = Field(default=6, ge=1)


class SmallCNNSettings(Settings):
    """A plain convolutional network; 1.2 million parameters at the default width."""

    takes: ClassVar[Kind] = "images"

    name: Literal["small_cnn"] = "small_cnn"
    width: int = Field(default=32, ge=4)


class WRNSettings(Settings):
    """A wide residual network WRN-depth-width; depth is 6n + 4."""

    takes: ClassVar[Kind] = "images"

    name: Literal["wrn"] = "wrn"
    depth: int = Field(default=28, ge=10)
    width: int = Field(default=2, ge=1)

    @model_validator(mode="after")
    def _whole_blocks(self) -> WRNSettings:
        if (self.depth - 4) % 6:
            below = self.depth - (self.depth - 4) % 6
            raise ValueError(
                f"Expected depth={self.depth} to be 6n + 4; use {below} or {below + 6}."
            )
        return self


class ResNet1dSettings(Settings):
    """A residual network for signals, such as ECGs.

    Parameters
    ----------
    width : maps of every layer
    depth : blocks of two convolutions; each but the first halves the number of samples
    """

    takes: ClassVar[Kind] = "signals"

    name: Literal["resnet1d"] = "resnet1d"
    width: int = Field(default=128, ge=4)
    depth: int = Field(default=3, ge=1, le=16)


class ViTSettings(Settings):
    """A small vision transformer; 2.7 million parameters at the defaults.

    Parameters
    ----------
    patch : side of the square patches in pixels; the sides of the images are multiples of it
    width : numbers a patch, a multiple of `heads`
    depth : blocks
    heads : of each attention
    mlp : width of the hidden layer of a block, as a multiple of `width`
    """

    takes: ClassVar[Kind] = "images"

    name: Literal["vit"] = "vit"
    patch: int = Field(default=8, ge=1)
    width: int = Field(default=192, ge=4)
    depth: int = Field(default=6, ge=1)
    heads: int = Field(default=3, ge=1)
    mlp: int = Field(default=4, ge=1)

    @model_validator(mode="after")
    def _whole_heads(self) -> Self:
        if self.width % self.heads:
            raise ValueError(
                f"Expected width={self.width} to be a multiple of heads={self.heads}; use "
                f"{max(1, round(self.width / self.heads)) * self.heads}."
            )
        return self


class TimmSettings(Settings):
    """Base of the networks of timm, from the extra `vision`.

    Parameters
    ----------
    weights : null, to draw all weights anew for each model; a .safetensors file of timm's weights
        of this network, to start all models from them, with a newly drawn head; or hub, to fetch
        timm's own from the Hugging Face hub.  The file's digest is kept in the manifest
    """

    takes: ClassVar[Kind] = "images"
    architecture: ClassVar[str]

    weights: Literal["hub"] | Path | None = None


class ResNet50Settings(TimmSettings):
    """ResNet-50 (He et al., CVPR 2016); 23.5 million parameters without its head."""

    architecture: ClassVar[str] = "resnet50"

    name: Literal["resnet50"] = "resnet50"


class DenseNet121Settings(TimmSettings):
    """DenseNet-121 (Huang et al., CVPR 2017); 7.0 million parameters without its head."""

    architecture: ClassVar[str] = "densenet121"

    name: Literal["densenet121"] = "densenet121"


class ViTB16Settings(TimmSettings):
    """ViT-B/16 (Dosovitskiy et al., ICLR 2021), patches of 16 x 16; 86 million parameters."""

    architecture: ClassVar[str] = "vit_base_patch16_224"

    name: Literal["vit_b16"] = "vit_b16"


class ViTL16Settings(TimmSettings):
    """ViT-L/16 (Dosovitskiy et al., ICLR 2021), patches of 16 x 16; 303 million parameters."""

    architecture: ClassVar[str] = "vit_large_patch16_224"

    name: Literal["vit_l16"] = "vit_l16"


class OwnSettings(Settings):
    """A network of your own: a class that is installed, by name.

    Parameters
    ----------
    module : "package.module:Class", a torch.nn.Module; importing it runs its code
    arguments : by name, for the class
    """

    takes: ClassVar[Kind] = "any"

    name: Literal["own"] = "own"
    module: str
    arguments: dict[str, JsonValue] = Field(default_factory=dict)

    @field_validator("module")
    @classmethod
    def _a_class(cls, path: str) -> str:
        where, _, name = path.partition(":")
        if not (name.isidentifier() and all(part.isidentifier() for part in where.split("."))):
            raise ValueError("expected a class as package.module:Class")
        return path


class DeepViTSettings(Settings):
    """A transformer with re-attention for codes; the defaults are those of Yala et al.

    arXiv 2106.02484 (2021).  For `confide encode train`.

    Parameters
    ----------
    depth : blocks
    heads, head_width : of each attention
    mlp : width of the hidden layer of a block, as a multiple of that of a row
    dropout : after each attention and each layer of the MLP
    """

    name: Literal["deep_vit"] = "deep_vit"
    depth: int = Field(default=1, ge=1)
    heads: int = Field(default=8, ge=1)
    head_width: int = Field(default=64, ge=1)
    mlp: int = Field(default=2, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)


class CodeViTSettings(Settings):
    """The transformer of Yala et al. for codes, as a model of an audit.

    Parameters
    ----------
    depth : blocks
    heads, head_width : of each attention
    mlp : width of the hidden layer of a block, as a multiple of that of a row
    position : whether the rows of the codes keep their order (`shuffle: false`), so that it can be
        learned from
    """

    takes: ClassVar[Kind] = "signals"

    name: Literal["deep_vit"] = "deep_vit"
    depth: int = Field(default=1, ge=1)
    heads: int = Field(default=8, ge=1)
    head_width: int = Field(default=64, ge=1)
    mlp: int = Field(default=2, ge=1)
    position: bool = False


ModelSettings = Annotated[
    TabularResNetSettings
    | ResNet1dSettings
    | SmallCNNSettings
    | WRNSettings
    | ViTSettings
    | ResNet50Settings
    | DenseNet121Settings
    | ViTB16Settings
    | ViTL16Settings
    | CodeViTSettings
    | OwnSettings,
    Field(discriminator="name"),
]
