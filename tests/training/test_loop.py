"""The stacked loop against a plain one: an nn.Module, torch's optimizer, one model, no tricks."""

from __future__ import annotations

import copy
import math
from itertools import islice

import numpy as np
import pytest
import torch
from torch.nn import functional

from confide.models import build
from confide.models.layers import initialise
from confide.training import augment
from confide.training.forward import compiled, forward, loss_function
from confide.training.loop import Dice, evaluate, train
from confide.training.plan import Plan
from confide.training.records import Records
from confide.training.settings import Performance, TrainSettings
from confide.training.step import decay_at
from confide.training.stream import batches

N_ALL, N_AUDITED = 60, 48
TABLE = {"model": {"width": 16, "depth": 1}, "epochs": 3, "batch_size": 7}
IMAGES = {
    "model": {"name": "small_cnn", "width": 4},
    "epochs": 2,
    "batch_size": 8,
    "augment": "strong",
    "views": 3,
}


def _records(block, task, seed=0):
    rng = np.random.default_rng(seed)
    if "augment" in block:
        inputs = rng.integers(0, 256, (N_ALL, 2, 16, 20), dtype=np.uint8)
    else:
        inputs = rng.normal(size=(N_ALL, 5)).astype(np.float32)
    label = {
        "binary": rng.integers(0, 2, N_AUDITED),
        "multiclass": rng.integers(0, 3, N_AUDITED),
        "multilabel": rng.choice([0.0, 1.0, np.nan], (N_AUDITED, 3)),
    }[task]
    return Records.on(torch.device("cpu"), inputs, label, task, 3, N_AUDITED)


def _setup(block, task="binary"):
    settings = TrainSettings.model_validate(block)
    records = _records(block, task)
    network = build(settings.model, records.shape, records.n_outputs)
    n = sum(p.numel() for p in network.parameters())
    plan = Plan.of(settings, Performance(), "cpu", records.shape, N_AUDITED / 2, n)
    return settings, records, network, plan


def _train(block, members, seeds, task="binary"):
    settings, records, network, plan = _setup(block, task)
    loss_of = loss_function(network, task, half=False)
    weights = train(network, loss_of, records, members, seeds, settings, plan)
    return weights, evaluate(network, weights, records, settings, plan)


def _plain(block, rows, seed, task="binary"):
    """The same model by a loop as in a textbook."""
    settings, records, network, plan = _setup(block, task)
    dice = Dice.of(seed)
    initialise(network, dice.weights)
    average = copy.deepcopy(network)
    o = settings.optimizer
    if o.name == "sgd":
        optimizer = torch.optim.SGD(
            network.parameters(), momentum=o.momentum, weight_decay=o.weight_decay, foreach=False
        )
    else:
        optimizer = torch.optim.AdamW(
            network.parameters(), betas=o.betas, weight_decay=o.weight_decay, foreach=False
        )
    stream = batches(rows, plan.batch, dice.order)
    step = 0
    for _ in range(settings.epochs):
        chance = augment.draw((plan.steps_per_epoch, plan.batch), dice.chance)
        for i, batch in enumerate(islice(stream, plan.steps_per_epoch)):
            step += 1
            t = step / plan.steps
            rise = min(1.0, t / settings.schedule.warmup)
            optimizer.param_groups[0]["lr"] = o.lr * rise * math.cos(7 * math.pi * t / 16)
            x = records.standardised(batch)
            if settings.augment != "none":
                x = augment.apply(x, chance[i], settings.augment)
            z, y = network(x), records.label[batch]
            if task == "multiclass":
                loss = functional.cross_entropy(z, y)
            elif task == "binary":
                loss = functional.binary_cross_entropy_with_logits(z[:, 0], y.float())
            else:
                known = ~y.isnan()
                loss = functional.binary_cross_entropy_with_logits(z[known], y[known])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            decay = min(settings.ema, (1 + step) / (10 + step))
            with torch.no_grad():
                for slow, fast in zip(average.parameters(), network.parameters(), strict=True):
                    slow.copy_(decay * slow + (1 - decay) * fast)
    with torch.no_grad():
        return average, average(records.standardised(slice(None))).numpy()


MEMBERS = [torch.arange(0, 48, 2), torch.arange(20), torch.arange(5, 48)]
SEEDS = [11, 2**62 + 5, 0]


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
@pytest.mark.parametrize(
    "block",
    [
        TABLE,
        TABLE | {"optimizer": {"name": "adamw", "lr": 0.01}, "ema": 0.5},
        TABLE | {"ema": 0.0, "optimizer": {"lr": 0.05, "weight_decay": 0.1}},
        IMAGES,
    ],
    ids=["sgd", "adamw", "decay", "images"],
)
def test_stacked_models_are_what_a_plain_loop_gives(block, task):
    weights, logits = _train(block, MEMBERS, SEEDS, task)
    for i, (rows, seed) in enumerate(zip(MEMBERS, SEEDS, strict=True)):
        network, expected = _plain(block, rows, seed, task)
        for name, parameter in network.named_parameters():
            torch.testing.assert_close(
                weights[name][i], parameter.detach(), atol=2e-5, rtol=2e-4, msg=lambda m: m
            )
        # view 0 is the record itself
        np.testing.assert_allclose(logits[i, :, 0], expected, atol=2e-4, rtol=2e-3)


@pytest.mark.parametrize("block", [TABLE, IMAGES], ids=["table", "images"])
def test_a_model_is_the_same_alone_and_in_any_company(block):
    _, together = _train(block, MEMBERS, SEEDS)
    _, turned = _train(block, MEMBERS[::-1], SEEDS[::-1])
    np.testing.assert_allclose(together, turned[::-1], atol=1e-4)
    for i in range(3):
        _, alone = _train(block, MEMBERS[i : i + 1], SEEDS[i : i + 1])
        np.testing.assert_allclose(together[i], alone[0], atol=1e-4)


@pytest.mark.parametrize("k", [1, 3])
def test_the_same_call_gives_the_same_bits(k):
    first = _train(IMAGES, MEMBERS[:k], SEEDS[:k])[1]
    assert np.array_equal(first, _train(IMAGES, MEMBERS[:k], SEEDS[:k])[1])
    assert not np.array_equal(first, _train(IMAGES, MEMBERS[:k], [s + 1 for s in SEEDS[:k]])[1])


def _twice(network):
    return {n: p.detach()[None].repeat(2, *[1] * p.ndim) for n, p in network.named_parameters()}


def test_views():
    settings, records, network, plan = _setup(IMAGES)
    weights = _twice(network)
    logits = evaluate(network, weights, records, settings, plan)
    assert logits.shape == (2, N_ALL, 3, 1)
    # the same questions to both models; every view another one
    np.testing.assert_allclose(logits[0], logits[1], atol=1e-5)
    assert (np.abs(np.diff(logits[0, :, :, 0], axis=1)) > 1e-6).mean() > 0.95


@pytest.mark.parametrize("block", [TABLE, IMAGES], ids=["table", "images"])
@pytest.mark.parametrize("rows_at_once", [1, 7, 60, 1000])
def test_evaluation_does_not_depend_on_the_size_of_its_parts(block, rows_at_once):
    settings, records, network, plan = _setup(block)
    weights = {name: p.detach()[None] for name, p in network.named_parameters()}
    expected = evaluate(network, weights, records, settings, plan)
    plan = Plan(**{**vars(plan), "rows_at_once": rows_at_once})
    got = evaluate(network, weights, records, settings, plan)
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_decay_of_the_average():
    assert decay_at(0.0, 1) == 0.0
    assert decay_at(0.995, 1) == pytest.approx(2 / 11)
    assert decay_at(0.995, 1790) == 1791 / 1800  # the last step at which the ramp is the smaller
    assert decay_at(0.995, 1791) == 0.995


def test_bfloat16_is_near_float32():
    _, records, network, _ = _setup(TABLE)
    weights = _twice(network)
    x = records.standardised(slice(None))[None]
    full, half = (forward(network, weights, x, half=h) for h in (False, True))
    assert half.dtype == torch.float32
    assert 0 < (full - half).abs().max() < 0.1
    assert not torch.equal(half, half.bfloat16().float())  # the last layer rounds nothing


def test_a_compiler_that_fails_is_named_and_done_without(monkeypatch):
    def broken(function, **_):
        def call(*_):
            raise RuntimeError("no compiler")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    plain = loss_function(_setup(TABLE)[2], "binary", half=False)
    with pytest.warns(RuntimeWarning, match="RuntimeError.*performance.compile: false"):
        assert compiled(plain, {}, torch.zeros(1), torch.zeros(1)) is plain


def test_a_compiler_that_works_is_used(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **_: lambda *a: function(*a))
    _, _, network, _ = _setup(TABLE)
    plain = loss_function(network, "binary", half=False)
    weights = {n: p.detach()[None].requires_grad_() for n, p in network.named_parameters()}
    fast = compiled(plain, weights, torch.zeros(1, 4, 5), torch.zeros(1, 4, dtype=torch.int64))
    assert fast is not plain
