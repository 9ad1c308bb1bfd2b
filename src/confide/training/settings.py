"""The `train:` and `performance:` blocks of a configuration, without importing torch.

What changes the answer (:class:`TrainSettings`) and what changes only the speed
(:class:`Performance`) are two classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from confide.models.settings import ModelSettings, Settings, TabularResNetSettings
from confide.training.presets import expanded
from confide.training.privacy import Privacy, refuse_what_voids

Step = Literal["mirror", "shift", "rotate", "contrast", "brightness"]
Augment = Literal["none", "trivial", "weak", "medium", "strong"] | tuple[Step, ...]

AUGMENT_STEPS: dict[str, tuple[Step, ...]] = {
    "none": (),
    "trivial": ("mirror",),
    "weak": ("mirror", "shift"),
    "medium": ("mirror", "shift", "rotate"),
    "strong": ("mirror", "shift", "rotate", "contrast", "brightness"),
}
"""What each level does, in this order."""


class SGD(Settings):
    """Stochastic gradient descent with heavy-ball momentum.

    Weight decay is added to the gradient of all weights, those of norms and biases too.
    """

    name: Literal["sgd"] = "sgd"
    lr: float = Field(default=0.1, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=1e-7, ge=0)


class AdamW(Settings):
    """Adam with decoupled weight decay (Loshchilov and Hutter, ICLR 2019)."""

    name: Literal["adamw"] = "adamw"
    lr: float = Field(default=1e-3, ge=0)
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (
        0.9,
        0.999,
    )
    weight_decay: float = Field(default=1e-2, ge=0)


class Schedule(Settings):
    """Learning rate over training, as a factor of the optimizer's.

    Parameters
    ----------
    name : "cosine" for cos(7 pi t / 16), which ends at 0.195, or "constant"
    warmup : share of the training over which the factor rises linearly from 0
    """

    name: Literal["cosine", "constant"] = "cosine"
    warmup: float = Field(default=0.05, ge=0, le=1)

    def factor(self, t: float) -> float:
        """Factor of the learning rate when a share `t` in [0, 1] of the steps is done.

        Carlini et al., "Membership inference attacks from first principles", S&P 2022 (in the
        code of the paper).

        >>> round(Schedule().factor(1.0), 3), Schedule(warmup=0.5).factor(0.0)
        (0.195, 0.0)
        """
        rise = min(1.0, t / self.warmup) if self.warmup else 1.0
        return rise * (math.cos(7 * math.pi * t / 16) if self.name == "cosine" else 1.0)


class Dev(Settings):
    """Patients set apart to choose the epoch that is kept, of those who are not held out.

    They influence every model, so they are neither audited nor test patients.  After each epoch
    the loss of their records is taken, of the averaged weights, and each model keeps the epoch at
    which it was lowest, of equal ones the first.

    Parameters
    ----------
    fraction : share of the patients who are not held out
    seed : chooses them
    patience : stop a model after this many epochs in a row without a lower loss; null to train all
        epochs
    keep : "best", or "last" to set the same patients apart and keep the last epoch, so that a
        recipe that stops early can be compared with one that does not
    """

    fraction: float = Field(default=0.1, gt=0, lt=1)
    seed: int = Field(default=0, ge=0)
    patience: int | None = Field(default=None, ge=1)
    keep: Literal["best", "last"] = "best"

    @model_validator(mode="after")
    def _stops_at_the_best(self) -> Dev:
        if self.patience is not None and self.keep == "last":
            raise ValueError(
                f"patience={self.patience} stops at the best epoch, but keep is 'last'; leave one "
                "of them out."
            )
        return self


def named(default: str) -> BeforeValidator:
    """A block without a name is the default one, so that ``optimizer: {lr: 0.01}`` works."""

    def add(block: Any) -> Any:
        if isinstance(block, Mapping) and "name" not in block:
            return {"name": default, **block}
        return block

    return BeforeValidator(add)


_NEWER = {"balance": False, "dev": None, "label_smoothing": 0.0, "dropout": 0.0, "mixup": 0.0}
"""Settings that came later, as they are when off."""


class TrainSettings(Settings):
    """How models are trained; everything in it changes the answer.

    Parameters
    ----------
    preset : a named recipe, whose values the keys that are not given take; see
        :mod:`confide.training.presets`.  Null once it is read: the settings hold all values
    model : the architecture
    epochs : passes over the members, on average
    batch_size : records a step; at most the number of members that is expected
    optimizer, schedule : see there
    ema : decay of the running average of the weights, which is what is evaluated; 0 for none.
        Early on the decay is (1 + step) / (10 + step) where that is smaller, so that a short
        training does not keep its first weights.
    augment : none, trivial (mirror), weak (and shift), medium (and rotate) or strong (and change
        contrast and brightness); or a list of steps, of `mirror`, `shift`, `rotate`, `contrast`
        and `brightness`
    views : evaluations of each record: the record itself, then views - 1 augmented copies, the
        same for all models
    trace : keep how far the loss of each record moves over the epochs, for the attack lt_iqr;
        costs one more evaluation of all audited records an epoch
    balance : class-balanced sampling: every class among the members is drawn equally often.  Not
        for multilabel tasks, where a record has no one class
    dev : patients set apart to choose the epoch, null for none: the last epoch is kept
    label_smoothing : share e of each label that is spread over the classes: (1 - e) y + e / K, K
        being 2 for binary tasks and for each label of a multilabel one (Szegedy et al., CVPR 2016)
    dropout : share of the inputs of the last layer that are set to 0 in training, anew for each
        record and step (Srivastava et al., JMLR 2014)
    mixup : alpha of mix-up (Zhang et al., ICLR 2018); 0 for none.  Each batch is mixed with itself
        in another order, at shares drawn from Beta(alpha, alpha), one a step
    privacy : differential privacy, see :class:`confide.training.privacy.Privacy`; null for none
    """

    preset: str | None = Field(default=None, exclude=True)
    model: Annotated[ModelSettings, named("tabular_resnet")] = TabularResNetSettings()
    epochs: int = Field(default=30, ge=1)
    batch_size: int = Field(default=512, ge=1)
    optimizer: Annotated[Annotated[SGD | AdamW, Field(discriminator="name")], named("sgd")] = SGD()
    schedule: Schedule = Schedule()
    ema: float = Field(default=0.995, ge=0, lt=1)
    augment: Augment = "none"
    views: int = Field(default=1, ge=1)
    trace: bool = False
    balance: bool = False
    dev: Dev | None = None
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    mixup: float = Field(default=0.0, ge=0)
    privacy: Privacy | None = None

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, block: Any) -> Any:
        return expanded(block) if isinstance(block, Mapping) else block

    @field_validator("augment")
    @classmethod
    def _each_once(cls, steps: Augment) -> Augment:
        if isinstance(steps, str):
            return steps
        if not steps or len(set(steps)) < len(steps):
            raise ValueError("name each step once, and at least one; or set augment: none")
        return tuple(step for step in AUGMENT_STEPS["strong"] if step in steps)

    @model_validator(mode="after")
    def _fit_together(self) -> TrainSettings:
        if self.model.takes in ("tables", "signals") and self.augment != "none":
            raise ValueError(
                f"augment={self.augment!r} changes images, but model {self.model.name!r} takes "
                f"{self.model.takes}; set augment: none."
            )
        if self.augment == "none" and self.views > 1:
            raise ValueError(
                f"views={self.views} needs augmented copies of the records; set views: 1 or "
                "augment: trivial, weak, medium or strong."
            )
        if self.trace and self.epochs == 1:
            raise ValueError(
                "trace=True needs epochs over which the loss can move; set epochs: 2 or more, or "
                "trace: false."
            )
        if self.trace and self.dev is not None and self.dev.patience is not None:
            raise ValueError(
                f"trace=True reads all epochs, but dev.patience={self.dev.patience} stops before "
                "them; leave one of them out."
            )
        if self.privacy is not None:
            refuse_what_voids(self)
        return self

    @model_serializer(mode="wrap")
    def _written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # What is off is left out, so that folders of versions without it can be resumed.
        values: dict[str, Any] = handler(self)
        return {k: v for k, v in values.items() if k not in _NEWER or getattr(self, k) != _NEWER[k]}


class Performance(Settings):
    """How fast models are trained; nothing in it changes the meaning of a result.

    Parameters
    ----------
    device : auto (a CUDA device where there is one), cpu or cuda
    models_at_once : auto, or how many models are trained as one stack
    compile : auto, or whether torch.compile is used; with false steps are not recorded as a CUDA
        graph either
    precision : auto (float32, with TensorFloat32 products on CUDA), float32 (in full), or
        bfloat16, which a short training of a small network was seen to depend on (logits .7
        apart), and with which a wide residual network takes about half of the time on CUDA;
        weights, norms, the last layer and losses are float32 in any case.  A run that was begun
        in bfloat16 is resumed in it
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    models_at_once: Literal["auto"] | int = "auto"
    compile: Literal["auto"] | bool = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"

    @field_validator("models_at_once", mode="before")
    @classmethod
    def _count(cls, value: Any) -> Any:
        if value == "auto" or (type(value) is int and value >= 1):
            return value
        raise ValueError("expected auto or a whole number of at least 1")

    @field_validator("compile", mode="before")
    @classmethod
    def _choice(cls, value: Any) -> Any:
        if value == "auto" or isinstance(value, bool):
            return value
        raise ValueError("expected auto, true or false")
