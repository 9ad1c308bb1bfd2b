"""Named recipes: the keys of a `train:` block, which a user's own keys override.

The recipes of the audit in Knolle et al., Nature 656:192-198 (2026), one for each data set.  A
configuration that names one is expanded when it is read, so that the manifest of a run holds all
its settings and no name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from confide._check import did_you_mean

_WRN: dict[str, Any] = {"name": "wrn", "depth": 28, "width": 2}


def _sgd(lr: float, weight_decay: float, warmup: float, ema: float) -> dict[str, Any]:
    optimizer = {"name": "sgd", "lr": lr, "momentum": 0.9, "weight_decay": weight_decay}
    return {"optimizer": optimizer, "schedule": {"name": "cosine", "warmup": warmup}, "ema": ema}


def _adamw(lr: float, ema: float) -> dict[str, Any]:
    optimizer = {"name": "adamw", "lr": lr, "weight_decay": 0.0}
    return {"optimizer": optimizer, "schedule": {"name": "constant", "warmup": 0.0}, "ema": ema}


PRESETS: dict[str, dict[str, Any]] = {
    "nature-chexpert": {
        "model": _WRN,
        "epochs": 60,
        "batch_size": 512,
        **_sgd(1.0, 1e-4, 0.05, 0.9995),
        "augment": "medium",
        "views": 16,
    },
    "nature-mimic-cxr": {
        "model": _WRN,
        "epochs": 60,
        "batch_size": 512,
        **_sgd(0.25, 1e-3, 0.2, 0.95),
        "augment": "medium",
        "views": 16,
    },
    "nature-fitzpatrick17k": {
        "model": _WRN,
        "epochs": 100,
        "batch_size": 256,
        **_sgd(5e-3, 1e-4, 0.05, 0.99),
        "augment": "medium",
        "views": 16,
    },
    "nature-fairvision": {
        "model": _WRN,
        "epochs": 100,
        "batch_size": 256,
        **_sgd(1e-4, 1e-6, 0.1, 0.99),
        "augment": "weak",
        "views": 16,
    },
    "nature-embed": {
        "model": _WRN,
        "epochs": 30,
        "batch_size": 512,
        **_sgd(0.1, 1e-8, 0.1, 0.995),
        "augment": ["rotate", "contrast", "brightness"],
        "views": 16,
    },
    "nature-mimic-iv-ed": {
        "model": {"name": "tabular_resnet", "width": 300, "depth": 6},
        "epochs": 100,
        "batch_size": 512,
        **_sgd(0.1, 1e-7, 0.05, 0.995),
        "augment": "none",
        "views": 1,
    },
    "nature-ptb-xl": {
        "model": {"name": "resnet1d", "width": 128},
        "epochs": 100,
        "batch_size": 512,
        **_sgd(0.25, 5e-3, 0.05, 0.995),
        "augment": "none",
        "views": 1,
    },
    "nature-embed-dp": {
        "model": _WRN,
        "epochs": 20,
        "batch_size": 512,
        **_adamw(3e-3, 0.0),
        "augment": "none",
        "views": 1,
    },
    "nature-ptb-xl-dp": {
        "model": {"name": "resnet1d", "width": 32},
        "epochs": 200,
        "batch_size": 1024,
        **_adamw(5e-3, 0.9),
        "augment": "none",
        "views": 1,
    },
}
"""Name -> block, as a user would write it."""

_PRIVATE = ("nature-embed-dp", "nature-ptb-xl-dp")
"""Run at several epsilons, so that the user says which."""


def expanded(block: Mapping[str, Any]) -> dict[str, Any]:
    """A `train:` block without `preset`, whose keys it fills in.

    What the block says itself counts.  An inner block (model, optimizer, schedule) is filled in
    too, unless it names another kind than the preset.

    Raises
    ------
    ValueError : an unknown preset; a preset of private training without the key `privacy`

    >>> expanded({"preset": "nature-ptb-xl", "epochs": 2, "optimizer": {"lr": 0.1}})["optimizer"]
    {'name': 'sgd', 'lr': 0.1, 'momentum': 0.9, 'weight_decay': 0.005}
    """
    given = dict(block)
    name = given.pop("preset", None)
    if name is None:
        return given
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}.{did_you_mean(str(name), PRESETS)}")
    if name in _PRIVATE and "privacy" not in given:
        raise ValueError(
            f"preset {name!r} leaves the privacy to you: add the key privacy with its epsilon, or "
            "privacy: null for the same recipe without"
        )
    return {**PRESETS[name], **{key: _over(PRESETS[name].get(key), v) for key, v in given.items()}}


def _over(preset: Any, given: Any) -> Any:
    if not (isinstance(preset, Mapping) and isinstance(given, Mapping)):
        return given
    same = given.get("name", preset["name"]) == preset["name"]
    return {**preset, **given} if same else given
