"""The layout of a training depends on settings and shapes alone."""

from __future__ import annotations

import pytest

from confide.models import SmallCNNSettings, TabularResNetSettings, WRNSettings
from confide.training.plan import Plan, activations
from confide.training.settings import Performance, TrainSettings


def _plan(
    block=None, performance=None, device="cpu", shape=(30,), members=1000.0, n_parameters=10_000
):
    return Plan.of(
        TrainSettings.model_validate(block or {}),
        Performance.model_validate(performance or {}),
        device,
        shape,
        members,
        n_parameters,
    )


@pytest.mark.parametrize(
    ("members", "batch_size", "batch", "steps_per_epoch"),
    [
        (32_500.0, 512, 512, 63),
        (227.5, 512, 228, 1),
        (300.0, 256, 256, 1),
        (400.0, 256, 256, 2),
        (1.0, 512, 1, 1),
        (0.4, 512, 1, 1),
    ],
)
def test_steps(members, batch_size, batch, steps_per_epoch):
    plan = _plan({"batch_size": batch_size, "epochs": 7}, members=members)
    assert (plan.batch, plan.steps_per_epoch) == (batch, steps_per_epoch)
    assert plan.steps == 7 * steps_per_epoch


def test_models_at_once():
    cnn, wrn = {"model": {"name": "small_cnn"}}, {"model": {"name": "wrn"}}
    image = (1, 28, 28)
    assert _plan({"model": {"width": 128, "depth": 3}}).models_at_once == 16
    assert _plan(device="cuda").models_at_once == 128
    assert _plan(cnn, shape=image).models_at_once == 1
    assert _plan(cnn, shape=image, device="cuda").models_at_once == 32
    assert _plan(wrn, shape=image, device="cuda").models_at_once == 1
    assert _plan(wrn, {"models_at_once": 5}, shape=image).models_at_once == 5
    # memory: fewer models where each is larger, never none
    assert 1 < _plan().models_at_once < 16
    assert _plan(n_parameters=10**10).models_at_once == 1


def test_rows_evaluated_at_once_fit_where_a_stack_in_training_fits():
    for device in ("cpu", "cuda"):
        table, small = (_plan({"model": {"width": w}}, device=device) for w in (300, 30))
        assert small.rows_at_once * small.models_at_once > 1000
        assert table.rows_at_once * table.models_at_once < small.rows_at_once * small.models_at_once
    assert _plan({"model": {"width": 10**8}}).rows_at_once == 1


def test_precision_and_compilation():
    cnn = {"model": {"name": "small_cnn"}, "epochs": 2000}
    assert not _plan().half
    assert not _plan(device="cuda").half
    assert not _plan(cnn, device="cuda", shape=(1, 28, 28)).half
    assert not _plan(cnn, {"precision": "float32"}, device="cuda", shape=(1, 28, 28)).half
    assert _plan(performance={"precision": "bfloat16"}).half
    assert not _plan({"epochs": 2000}).compiles
    assert _plan({"epochs": 2000}, device="cuda").compiles
    assert not _plan({"epochs": 10}, device="cuda").compiles
    assert _plan(performance={"compile": True}).compiles
    assert not _plan({"epochs": 2000}, {"compile": False}, device="cuda").compiles


def test_activations_grow_with_the_network():
    assert activations(TabularResNetSettings(width=300, depth=6), (64,)) == 64 + 300 * 52
    small = activations(SmallCNNSettings(), (1, 28, 28))
    assert activations(SmallCNNSettings(), (1, 56, 56)) == 4 * small
    assert activations(WRNSettings(), (1, 28, 28)) > 10 * small
