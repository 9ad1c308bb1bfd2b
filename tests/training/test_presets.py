"""Named recipes: what they hold, what overrides them, how many steps they take."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from confide.config import parse
from confide.errors import ConfigError
from confide.models import _skeleton
from confide.training.plan import Plan
from confide.training.presets import PRESETS
from confide.training.settings import Performance, TrainSettings

SGD_ROWS = {
    # name: model, epochs, batch, lr, weight decay, warm-up, EMA, augmentation
    "chexpert": ("wrn", 60, 512, 1.0, 1e-4, 0.05, 0.9995, "medium"),
    "mimic-cxr": ("wrn", 60, 512, 0.25, 1e-3, 0.2, 0.95, "medium"),
    "fitzpatrick17k": ("wrn", 100, 256, 5e-3, 1e-4, 0.05, 0.99, "medium"),
    "fairvision": ("wrn", 100, 256, 1e-4, 1e-6, 0.1, 0.99, "weak"),
    "embed": ("wrn", 30, 512, 0.1, 1e-8, 0.1, 0.995, ("rotate", "contrast", "brightness")),
    "mimic-iv-ed": ("tabular_resnet", 100, 512, 0.1, 1e-7, 0.05, 0.995, "none"),
    "ptb-xl": ("resnet1d", 100, 512, 0.25, 5e-3, 0.05, 0.995, "none"),
}
# shape of a record, records in all, steps of a model, weights (of a model with one logit)
SIZES = {
    "chexpert": ((1, 64, 64), 223_414, 60 * 218, 1.46e6),
    "mimic-cxr": ((1, 64, 64), 377_110, 60 * 368, 1.46e6),
    "fitzpatrick17k": ((3, 64, 64), 16_574, 100 * 32, 1.46e6),
    "fairvision": ((1, 64, 64), 30_000, 100 * 59, 1.46e6),
    "embed": ((1, 64, 48), 480_323, 30 * 469, 1.46e6),
    "mimic-iv-ed": ((64,), 425_087, 100 * 415, 1.11e6),
    "ptb-xl": ((12, 1000), 21_799, 100 * 21, 0.439e6),
    "embed-dp": ((1, 64, 48), 480_323, 20 * 469, 1.46e6),
    "ptb-xl-dp": ((12, 1000), 21_799, 200 * 11, 0.030e6),
}


def _settings(name, **changes):
    private = {"privacy": None} if name.endswith("-dp") else {}
    return TrainSettings.model_validate({"preset": f"nature-{name}", **private, **changes})


def test_there_is_one_for_each_row():
    assert {f"nature-{name}" for name in SIZES} == set(PRESETS)


@pytest.mark.parametrize("name", SGD_ROWS)
def test_recipes(name):
    model, epochs, batch, lr, decay, warmup, ema, augment = SGD_ROWS[name]
    settings = _settings(name)
    optimizer = settings.optimizer
    assert settings.model.name == model
    assert (settings.epochs, settings.batch_size, settings.ema) == (epochs, batch, ema)
    assert (optimizer.name, optimizer.lr, optimizer.momentum) == ("sgd", lr, 0.9)
    assert optimizer.weight_decay == decay
    assert (settings.schedule.name, settings.schedule.warmup) == ("cosine", warmup)
    assert settings.augment == augment
    assert settings.views == (1 if augment == "none" else 16)


@pytest.mark.parametrize(
    ("name", "epochs", "batch", "lr", "ema"),
    [("embed-dp", 20, 512, 3e-3, 0.0), ("ptb-xl-dp", 200, 1024, 5e-3, 0.9)],
)
def test_private_recipes(name, epochs, batch, lr, ema):
    settings = _settings(name)
    assert (settings.epochs, settings.batch_size, settings.ema) == (epochs, batch, ema)
    assert (settings.optimizer.name, settings.optimizer.lr) == ("adamw", lr)
    assert settings.optimizer.weight_decay == 0
    assert [settings.schedule.factor(t) for t in (0.0, 0.5, 1.0)] == [1.0, 1.0, 1.0]
    assert (settings.augment, settings.views) == ("none", 1)
    if name == "ptb-xl-dp":
        assert settings.model.width == 32


@pytest.mark.parametrize("name", ["nature-embed-dp", "nature-ptb-xl-dp"])
def test_a_private_recipe_does_not_choose_the_privacy(name):
    with pytest.raises(ValidationError, match="leaves the privacy to you"):
        TrainSettings.model_validate({"preset": name})


@pytest.mark.parametrize("name", SIZES)
def test_steps_and_weights_at_the_published_sizes(name):
    shape, n, steps, weights = SIZES[name]
    settings = _settings(name)
    assert steps == settings.epochs * round(n / 2 / settings.batch_size)
    with torch.device("meta"):
        network = _skeleton(settings.model, shape, 1)
    count = sum(p.numel() for p in network.parameters())
    assert count == pytest.approx(weights, rel=0.01)
    plan = Plan.of(settings, Performance(), "cuda", shape, n / 2, count)
    assert (plan.batch, plan.steps) == (settings.batch_size, steps)


def test_what_the_user_says_counts():
    changes = {"epochs": 2, "optimizer": {"lr": 0.5}, "model": {"width": 3}, "views": 4}
    settings = _settings("chexpert", **changes)
    assert settings.epochs == 2
    assert settings.optimizer.model_dump() == {
        "name": "sgd", "lr": 0.5, "momentum": 0.9, "weight_decay": 1e-4,
    }  # fmt: skip
    assert settings.model.model_dump() == {"name": "wrn", "depth": 28, "width": 3}
    assert (settings.batch_size, settings.views, settings.augment) == (512, 4, "medium")
    # another kind is not filled in with values of this one
    other = _settings("chexpert", optimizer={"name": "adamw"}, model={"name": "small_cnn"})
    assert (
        other.optimizer == TrainSettings.model_validate({"optimizer": {"name": "adamw"}}).optimizer
    )
    assert other.model.width == 32
    with pytest.raises(ValidationError, match="views=16 needs augmented copies"):
        _settings("chexpert", augment="none")


def test_the_settings_hold_all_values_and_no_name():
    settings = _settings("mimic-iv-ed", epochs=7)
    written = settings.model_dump(mode="json")
    assert "preset" not in written
    assert (written["epochs"], written["optimizer"]["lr"]) == (7, 0.1)
    assert TrainSettings.model_validate(written) == settings
    spelt_out = {**PRESETS["nature-mimic-iv-ed"], "epochs": 7}
    assert TrainSettings.model_validate(spelt_out) == settings


@pytest.mark.parametrize("name", ["nature-chexprt", "chexpert", 3])
def test_an_unknown_preset_names_the_nearest(name):
    block = {"data": {"name": "embedded"}, "train": {"preset": name}}
    with pytest.raises(ConfigError, match=r"unknown preset .*Known: nature-chexpert") as caught:
        parse(block)
    if isinstance(name, str):
        assert "Did you mean 'nature-chexpert'?" in str(caught.value)


def test_presets_are_not_changed_by_their_use():
    before = repr(PRESETS)
    _settings("chexpert", optimizer={"lr": 0.5}, model={"depth": 10})
    assert repr(PRESETS) == before
