"""Settings of the architectures: plain values, checked when made, without importing torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Settings(BaseModel):
    """Base of all settings: frozen, an unknown key is an error, and so is an infinite number."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TabularResNetSettings(Settings):
    """A residual network for tables; the defaults are those of Knolle et al., Nature 656 (2026)."""

    name: Literal["tabular_resnet"] = "tabular_resnet"
    width: int = Field(default=300, ge=4)
    depth: int = Field(default=6, ge=1)


class SmallCNNSettings(Settings):
    """A plain convolutional network; 1.2 million parameters at the default width."""

    name: Literal["small_cnn"] = "small_cnn"
    width: int = Field(default=32, ge=4)


class WRNSettings(Settings):
    """A wide residual network WRN-depth-width; depth is 6n + 4."""

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


class DeepViTSettings(Settings):
    """A transformer with re-attention for codes; the defaults are those of Yala et al.

    arXiv 2106.02484 (2021).  No model of an audit.

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


ModelSettings = Annotated[
    TabularResNetSettings | SmallCNNSettings | WRNSettings, Field(discriminator="name")
]
