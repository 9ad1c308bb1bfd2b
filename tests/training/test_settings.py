"""The `train:` and `performance:` blocks."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from confide.models import SmallCNNSettings
from confide.training.settings import SGD, AdamW, Performance, Schedule, TrainSettings


def test_defaults_are_those_of_the_interface():
    assert TrainSettings().model_dump(mode="json") == {
        "model": {"name": "tabular_resnet", "width": 300, "depth": 6},
        "epochs": 30,
        "batch_size": 512,
        "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 1.0e-7},
        "schedule": {"name": "cosine", "warmup": 0.05},
        "ema": 0.995,
        "augment": "none",
        "views": 1,
        "trace": False,
        "privacy": None,
    }
    assert Performance().model_dump(mode="json") == {
        "device": "auto",
        "models_at_once": "auto",
        "compile": "auto",
        "precision": "auto",
    }


def test_round_trip():
    settings = TrainSettings.model_validate(
        {"model": {"name": "small_cnn", "width": 8}, "optimizer": {"name": "adamw"}}
    )
    assert settings.model == SmallCNNSettings(width=8)
    assert settings.optimizer == AdamW()
    assert TrainSettings.model_validate_json(settings.model_dump_json()) == settings


def test_a_block_without_a_name_is_the_default_one():
    settings = TrainSettings.model_validate({"optimizer": {"lr": 0.5}, "model": {"depth": 2}})
    assert settings.optimizer == SGD(lr=0.5)
    assert settings.model.name == "tabular_resnet"
    assert settings.model.depth == 2


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ({"epochs": 0}, "epochs"),
        ({"batch_size": 0}, "batch_size"),
        ({"ema": 1.0}, "ema"),
        ({"views": 0}, "views"),
        ({"augment": "wild"}, "augment"),
        ({"optimizer": {"lr": -1}}, "lr"),
        ({"optimizer": {"lr": math.inf}}, "lr"),
        ({"optimizer": {"name": "adamw", "betas": [0.9, 1.0]}}, "betas"),
        ({"optimizer": {"name": "sgdd"}}, "'sgd', 'adamw'"),
        ({"optimizer": {"name": "adamw", "momentum": 0.9}}, "momentum"),
        ({"schedule": {"warmup": 1.5}}, "warmup"),
        ({"model": {"name": "wrm"}}, "'wrn'"),
        ({"learning_rate": 1}, "learning_rate"),
        ({"privacy": {"epsilon": 8}}, r"privacy\.unit\n  Field required"),
        ({"augment": "weak"}, "augment='weak' changes images"),
        ({"views": 4}, "views=4 needs augmented copies"),
        ({"model": {"name": "wrn"}, "views": 4}, "views=4 needs augmented copies"),
    ],
)
def test_refusals(block, words):
    with pytest.raises(ValidationError, match=words):
        TrainSettings.model_validate(block)


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ({"dev": {"fraction": 0}}, "fraction"),
        ({"dev": {"fraction": 1}}, "fraction"),
        ({"dev": {"patience": 0}}, "patience"),
        ({"dev": {"patience": 2, "keep": "last"}}, "patience=2 stops at the best epoch, but keep"),
        ({"dev": {"patience": 2}, "trace": True}, r"trace=True reads all epochs, but dev.patience"),
        ({"dev": True}, "dev"),
        ({"balance": "auto"}, "balance"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"dropout": 1.0}, "dropout"),
        ({"dropout": -0.1}, "dropout"),
        ({"mixup": -1}, "mixup"),
        ({"mixup": math.inf}, "mixup"),
    ],
)
def test_refusals_of_tasks(block, words):
    with pytest.raises(ValidationError, match=words):
        TrainSettings.model_validate(block)


def test_what_is_off_is_not_written():
    """Folders of versions without these settings are compared with what is written now."""
    off = {"balance": False, "dev": None, "label_smoothing": 0.0, "dropout": 0.0, "mixup": 0.0}
    assert TrainSettings.model_validate(off).model_dump() == TrainSettings().model_dump()
    on = {"balance": True, "dev": {}, "label_smoothing": 0.1, "dropout": 0.2, "mixup": 0.3}
    settings = TrainSettings.model_validate(on)
    dev = {"fraction": 0.1, "seed": 0, "patience": None, "keep": "best"}
    written = settings.model_dump(mode="json")
    assert {key: written[key] for key in on} == on | {"dev": dev}
    assert TrainSettings.model_validate(written) == settings


@pytest.mark.parametrize(
    "block",
    [
        {"models_at_once": 0},
        {"models_at_once": True},
        {"models_at_once": "many"},
        {"compile": "yes"},
        {"device": "gpu"},
        {"precision": "float16"},
        {"speed": 1},
    ],
)
def test_refusals_of_performance(block):
    with pytest.raises(ValidationError, match=next(iter(block))):
        Performance.model_validate(block)


def test_settings_are_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        TrainSettings().epochs = 3


@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.2, 1.0])
def test_cosine_schedule(warmup):
    schedule = Schedule(warmup=warmup)
    for t in (0.0, 0.01, 0.05, 0.1, 0.5, 0.999, 1.0):
        rise = 1.0 if warmup == 0 or t >= warmup else t / warmup
        assert schedule.factor(t) == pytest.approx(rise * math.cos(7 * math.pi / 16 * t), abs=1e-15)
    assert Schedule(warmup=0).factor(0.0) == 1.0
    assert Schedule().factor(1.0) == pytest.approx(0.19509, abs=1e-5)


def test_constant_schedule():
    schedule = Schedule(name="constant", warmup=0.5)
    assert [schedule.factor(t) for t in (0.0, 0.25, 0.5, 1.0)] == [0.0, 0.5, 1.0, 1.0]
    assert Schedule(name="constant", warmup=0).factor(0.0) == 1.0
