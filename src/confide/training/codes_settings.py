"""How a classifier of codes is trained, without importing torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from confide.models.settings import DeepViTSettings, Settings
from confide.training.settings import named


class Adam(Settings):
    """Adam (Kingma and Ba, ICLR 2015); weight decay is added to the gradient (L2)."""

    name: Literal["adam"] = "adam"
    lr: float = Field(default=1e-4, ge=0)
    weight_decay: float = Field(default=1e-3, ge=0)


class Plateau(Settings):
    """The learning rate times `factor` after more than `patience` epochs without a lower dev loss.

    An epoch counts as lower from a relative 1e-4 on.  Without dev records the rate stays.
    """

    name: Literal["plateau"] = "plateau"
    factor: float = Field(default=0.1, gt=0, lt=1)
    patience: int = Field(default=10, ge=0)


class Constant(Settings):
    """The same learning rate throughout."""

    name: Literal["constant"] = "constant"


class CodeTrainSettings(Settings):
    """How a classifier is trained on codes; everything in it changes the answer.

    The defaults are those of Yala et al., arXiv 2106.02484 (2021).

    Parameters
    ----------
    model : the architecture
    epochs : passes; in each as many records are drawn as there are to train on
    batch_size : records a step, at most
    optimizer, schedule : see there
    balance : whether records are drawn with replacement so that each class is drawn equally often,
        on average; else each record is seen once an epoch
    seed : of the first weights and of the order
    """

    model: DeepViTSettings = DeepViTSettings()
    epochs: int = Field(default=25, ge=1)
    batch_size: int = Field(default=128, ge=1)
    optimizer: Adam = Adam()
    schedule: Annotated[
        Annotated[Plateau | Constant, Field(discriminator="name")], named("plateau")
    ] = Plateau()
    balance: bool = True
    seed: int = Field(default=0, ge=0, lt=2**63)
