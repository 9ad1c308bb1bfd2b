"""The layout of a training depends on settings and shapes alone."""

from __future__ import annotations

import pytest
import torch

from confide.models import (
    DenseNet121Settings,
    OwnSettings,
    ResNet1dSettings,
    ResNet50Settings,
    SmallCNNSettings,
    TabularResNetSettings,
    ViTB16Settings,
    ViTL16Settings,
    ViTSettings,
    WRNSettings,
    build,
)
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


def test_a_network_with_kernels_of_its_own_is_not_compiled():
    def plan(performance=None, **block):
        return _plan({"epochs": 2000, **block}, performance, "cuda", (1, 64, 64))

    wrn = {"name": "wrn"}
    assert not plan(model=wrn).compiles
    odd = wrn | {"width": 5}  # its channels are no powers of two
    assert plan(model=odd).compiles
    stack = plan({"models_at_once": 2}, model=wrn)  # which the kernel does not know
    assert stack.compiles
    assert not plan(model=wrn).half  # nobody asked for it


def test_steps_that_are_the_same_each_time_are_recorded_on_cuda():
    assert _plan(device="cuda").replays
    assert not _plan().replays
    assert not _plan(performance={"compile": False}, device="cuda").replays
    for one in ("dropout", "mixup", "label_smoothing"):
        assert not _plan({one: 0.1}, device="cuda").replays
    privacy = {"unit": "record", "epsilon": 1, "delta": 1e-5}
    assert not _plan({"privacy": privacy}, device="cuda").replays
    own = {"model": {"name": "own", "module": "mine:Net"}}
    assert not _plan(own, device="cuda").replays


IMAGE, SIGNAL = (1, 64, 64), (12, 1000)
NEW = [
    (ResNet1dSettings(), SIGNAL),
    (ViTSettings(), IMAGE),
    (ResNet50Settings(), IMAGE),
    (DenseNet121Settings(), IMAGE),
    (ViTB16Settings(), IMAGE),
    (ViTL16Settings(), IMAGE),
    (OwnSettings(module="a:B"), IMAGE),
]


@pytest.mark.parametrize(("model", "shape"), NEW)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_model_has_a_plan(model, shape, device):
    plan = _plan({"model": model}, device=device, shape=shape)
    assert plan.models_at_once == 1
    assert 1 <= plan.rows_at_once <= 2**20
    assert _plan({"model": model}, {"models_at_once": 3}, shape=shape).models_at_once == 3
    assert activations(ViTL16Settings(), IMAGE) > activations(ViTB16Settings(), IMAGE)


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (ResNet1dSettings(), SIGNAL),
        (ViTSettings(), IMAGE),
        (SmallCNNSettings(), IMAGE),
        (WRNSettings(), IMAGE),
    ],
)
def test_activations_are_about_those_that_backward_keeps(model, shape):
    network = build(model, shape, 1)
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() // 4
        return tensor

    weights = {p.untyped_storage().data_ptr() for p in network.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = network(torch.zeros(1, *shape))
    n = sum(size for place, size in kept.items() if place not in weights)
    assert out.shape == (1, 1)
    assert 0.4 < activations(model, shape) / n < 2.5


def test_activations_grow_with_the_network():
    assert activations(TabularResNetSettings(width=300, depth=6), (64,)) == 64 + 300 * 52
    small = activations(SmallCNNSettings(), (1, 28, 28))
    assert activations(SmallCNNSettings(), (1, 56, 56)) == 4 * small
    assert activations(WRNSettings(), (1, 28, 28)) > 10 * small
