"""Steps that are replayed on a CUDA device against the same steps as they are written."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from confide.errors import TrainingError
from confide.models import build
from confide.training import loop, step
from confide.training.device import tensor_float32
from confide.training.forward import loss_function
from confide.training.plan import Plan
from confide.training.records import Records
from confide.training.settings import Performance, TrainSettings

N = 60
TABLE = {"model": {"width": 16, "depth": 1}, "epochs": 3, "batch_size": 7}
CNN = {
    "model": {"name": "small_cnn", "width": 4},
    "epochs": 2,
    "batch_size": 8,
    "augment": "strong",
    # Small, because steps amplify the rounding in which two algorithms of one convolution differ.
    "optimizer": {"name": "sgd", "lr": 0.01},
}
WRN = CNN | {"model": {"name": "wrn", "depth": 10, "width": 1}}
ADAMW = TABLE | {"optimizer": {"name": "adamw", "lr": 0.01}, "ema": 0.5}
BALANCED = TABLE | {"balance": True}


def _setup(block, device):
    settings = TrainSettings.model_validate(block)
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(N, 5)).astype(np.float32)
    if "augment" in block:
        inputs = rng.integers(0, 256, (N, 2, 16, 20), dtype=np.uint8)
    label = rng.integers(0, 2, N)
    records = Records.on(torch.device(device), inputs, label, "binary", 2, N)
    network = build(settings.model, records.shape, 1)
    n = sum(p.numel() for p in network.parameters())
    performance = Performance(precision="float32", compile="auto")
    return settings, records, network, Plan.of(settings, performance, device, records.shape, 30, n)


def _train(parts, taken, seeds):
    settings, records, network, plan = parts
    members = [torch.arange(seed, N, 2) for seed in seeds]
    with tensor_float32(False):
        found = loop.train(
            network, taken.loss_of, records, members, seeds, settings, plan, step=taken
        )
    return {name: w.detach().clone() for name, w in found.items()}


@pytest.mark.gpu
@pytest.mark.parametrize("block", [TABLE, CNN, WRN, ADAMW, BALANCED])
@pytest.mark.parametrize("n_models", [1, 3])
def test_replayed_steps_give_the_same_weights(block, n_models):
    parts = settings, records, network, plan = _setup(block, "cuda")
    loss_of = loss_function(network, "binary", half=False)
    assert plan.replays
    with tensor_float32(False):
        replayed = step.step_of(network, loss_of, records, settings, plan, n_models)
    assert isinstance(replayed, step.Replayed)
    written = step.Step(loss_of, records, settings, plan)
    for first in (0, 1):  # two stacks after another: the second begins anew
        seeds = [*range(first, first + n_models)]
        wanted, found = _train(parts, written, seeds), _train(parts, replayed, seeds)
        for name, w in wanted.items():
            torch.testing.assert_close(found[name], w, rtol=1e-3, atol=1e-4)


@pytest.mark.gpu
def test_a_loss_that_is_not_finite_is_seen_where_steps_are_replayed():
    parts = settings, records, network, plan = _setup(TABLE, "cuda")
    loss_of = loss_function(network, "binary", half=False)

    divisor = torch.tensor([1.0, 0.0], device="cuda")

    def broken(weights, x, y):
        return loss_of(weights, x, y) / divisor

    replayed = step.step_of(network, broken, records, settings, plan, 2)
    with pytest.raises(TrainingError, match="position 1 of 2 diverged"):
        _train(parts, replayed, [0, 1])


@pytest.mark.gpu
def test_a_step_that_cannot_be_recorded_is_taken_as_it_is_written():
    parts = settings, records, network, plan = _setup(TABLE, "cuda")
    loss_of = loss_function(network, "binary", half=False)

    def looks(weights, x, y):
        loss = loss_of(weights, x, y)
        assert float(loss.detach().sum()) > 0  # waits for the device, which no graph can hold
        return loss

    with pytest.warns(RuntimeWarning, match="cannot be recorded"):
        taken = step.step_of(network, looks, records, settings, plan, 1)
    assert type(taken) is step.Step
    plain = step.Step(loss_of, records, settings, plan)
    wanted, found = _train(parts, plain, [0]), _train(parts, taken, [0])
    for name, w in wanted.items():
        torch.testing.assert_close(found[name], w, rtol=1e-4, atol=1e-5)


def test_a_step_begins_anew_with_the_weights_it_is_given():
    parts = settings, records, network, plan = _setup(TABLE, "cpu")
    loss_of = loss_function(network, "binary", half=False)
    taken = step.step_of(network, loss_of, records, settings, plan, 2)
    assert type(taken) is step.Step  # nothing is recorded on a CPU
    first = _train(parts, taken, [0, 1])
    other = _train(parts, taken, [1, 2])
    again = _train(parts, taken, [0, 1])
    for name, w in first.items():
        assert torch.equal(again[name], w)
        torch.testing.assert_close(other[name][0], w[1], rtol=1e-4, atol=1e-5)
