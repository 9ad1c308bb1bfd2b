"""Regularisers against a plain loop over one model, with mixed labels written out."""

from __future__ import annotations

import copy
from itertools import islice

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional

from confide.errors import ArgumentError
from confide.models import build
from confide.models.layers import initialise
from confide.training.forward import loss_function
from confide.training.loop import Dice, evaluate, train
from confide.training.plan import Plan
from confide.training.records import Records
from confide.training.regularise import (
    Chances,
    draw_mixup,
    regularised_loss,
    regularises,
    width_of_head,
)
from confide.training.settings import Performance, TrainSettings
from confide.training.stream import balanced_batches, batches

N = 40
BLOCK = {"model": {"width": 16, "depth": 1}, "epochs": 2, "batch_size": 7, "ema": 0.5}
IMAGES = {"model": {"name": "small_cnn", "width": 4}, "epochs": 1, "batch_size": 6}
MEMBERS = [torch.arange(0, N, 2), torch.arange(25), torch.arange(5, N)]
SEEDS = [11, 2**62 + 5, 0]
ALL = {"label_smoothing": 0.2, "dropout": 0.3, "mixup": 0.7}


def _setup(block, task):
    rng = np.random.default_rng(0)
    settings = TrainSettings.model_validate(block)
    if settings.model.name == "small_cnn":
        inputs = rng.integers(0, 256, (N, 1, 16, 16), dtype=np.uint8)
    else:
        inputs = rng.normal(size=(N, 5)).astype(np.float32)
    label = {
        "binary": rng.integers(0, 2, N),
        "multiclass": rng.integers(0, 3, N),
        "multilabel": rng.choice([0.0, 1.0, np.nan], (N, 3)),
    }[task]
    records = Records.on(torch.device("cpu"), inputs, label, task, 3, N)
    network = build(settings.model, records.shape, records.n_outputs)
    n = sum(p.numel() for p in network.parameters())
    plan = Plan.of(settings, Performance(), "cpu", records.shape, N / 2, n)
    return settings, records, network, plan


def _train(block, task, which=slice(None)):
    settings, records, network, plan = _setup(block, task)
    loss_of = regularised_loss(network, task, settings, half=False)
    return train(network, loss_of, records, MEMBERS[which], SEEDS[which], settings, plan)


def _target(y, task, smoothing):
    """Labels as shares of classes (n, K) or of findings (n, labels), NaN for unknown."""
    if task == "multiclass":
        return functional.one_hot(y, 3) * (1 - smoothing) + smoothing / 3
    y = y.float().view(len(y), -1)
    return y * (1 - smoothing) + smoothing / 2


def _loss(z, y, share, partner, task, smoothing):
    """The loss of the mixed label, record by record and label by label."""
    own = _target(y, task, smoothing)
    other = own[partner]
    if task == "multiclass":
        mixed = share * own + (1 - share) * other
        return -(mixed * z.log_softmax(dim=1)).sum(dim=1).mean()
    if task == "binary":
        mixed = share * own + (1 - share) * other
        return -(mixed * functional.logsigmoid(z) + (1 - mixed) * functional.logsigmoid(-z)).mean()
    total, known = 0.0, 0.0
    for i in range(len(z)):
        for label in range(z.shape[1]):
            for part, target in ((share, own[i, label]), (1 - share, other[i, label])):
                if not target.isnan():
                    yes, no = (
                        functional.logsigmoid(z[i, label]),
                        functional.logsigmoid(-z[i, label]),
                    )
                    total = total - part * (target * yes + (1 - target) * no)
                    known += part
    return total / known


def _plain(block, rows, seed, task):
    """The same model as in a textbook: a module, a hook for dropout, torch's optimizer."""
    settings, records, network, plan = _setup(block, task)
    dice = Dice.of(seed)
    initialise(network, dice.weights)
    average = copy.deepcopy(network)
    o, p, width = settings.optimizer, settings.dropout, network.head.in_features
    optimizer = torch.optim.SGD(network.parameters(), momentum=o.momentum, foreach=False)
    optimizer.param_groups[0]["weight_decay"] = o.weight_decay
    kept = None
    network.head.register_forward_pre_hook(lambda _, x: x[0] * kept / (1 - p) if p else None)
    if settings.balance:
        stream = balanced_batches(rows, records.label[rows], plan.batch, dice.order)
    else:
        stream = batches(rows, plan.batch, dice.order)
    for step, batch in enumerate(islice(stream, plan.steps), start=1):
        optimizer.param_groups[0]["lr"] = o.lr * settings.schedule.factor(step / plan.steps)
        x, y = records.standardised(batch), records.label[batch]
        share, partner = torch.tensor(1.0), torch.arange(len(batch))
        if settings.mixup:
            share, partner = draw_mixup(settings.mixup, len(batch), dice.mixup)
        if p:
            kept = torch.rand((len(batch), width), generator=dice.dropout) >= p
        z = network(share * x + (1 - share) * x[partner])
        optimizer.zero_grad()
        _loss(z, y, share, partner, task, settings.label_smoothing).backward()
        optimizer.step()
        decay = min(settings.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            for slow, fast in zip(average.parameters(), network.parameters(), strict=True):
                slow.lerp_(fast, 1 - decay)
    return average


@pytest.mark.parametrize(
    ("more", "task"),
    [
        ({"label_smoothing": 0.2}, "multiclass"),
        ({"dropout": 0.3}, "binary"),
        ({"mixup": 0.7}, "multilabel"),
        ({"balance": True}, "multiclass"),
        *[(ALL, task) for task in ("binary", "multiclass", "multilabel")],
    ],
)
def test_stacked_models_are_what_a_plain_loop_gives(more, task):
    weights = _train(BLOCK | more, task)
    for i, (rows, seed) in enumerate(zip(MEMBERS, SEEDS, strict=True)):
        for name, parameter in _plain(BLOCK | more, rows, seed, task).named_parameters():
            torch.testing.assert_close(weights[name][i], parameter.detach(), atol=2e-5, rtol=2e-4)


def test_images_too():
    weights = _train(IMAGES | ALL, "multiclass")
    for i, (rows, seed) in enumerate(zip(MEMBERS, SEEDS, strict=True)):
        for name, parameter in _plain(IMAGES | ALL, rows, seed, "multiclass").named_parameters():
            torch.testing.assert_close(weights[name][i], parameter.detach(), atol=2e-5, rtol=2e-4)


@pytest.mark.parametrize("block", [BLOCK, IMAGES], ids=["table", "images"])
def test_a_model_is_the_same_alone_and_in_any_company(block):
    together = _train(block | ALL | {"balance": True}, "binary")
    turned = _train(block | ALL | {"balance": True}, "binary", slice(None, None, -1))
    for i in range(3):
        alone = _train(block | ALL | {"balance": True}, "binary", slice(i, i + 1))
        for name, w in together.items():
            torch.testing.assert_close(w[i], alone[name][0], atol=1e-5, rtol=1e-3)
            torch.testing.assert_close(w[i], turned[name][2 - i], atol=1e-5, rtol=1e-3)


def test_each_regulariser_changes_the_model_and_no_other_draw():
    plain = _train(BLOCK, "binary")["stem.weight"]
    for more in ({"label_smoothing": 0.2}, {"dropout": 0.3}, {"mixup": 0.7}):
        assert not torch.equal(_train(BLOCK | more, "binary")["stem.weight"], plain)


def test_the_draws_of_before_are_unchanged():
    """As computed before there were generators for mix-up and dropout."""
    dice = Dice.of(2**62 + 5)
    seeds = [one.initial_seed() for one in (dice.weights, dice.order, dice.chance)]
    assert seeds == [2039663683, 3555316550, 3243402972]
    assert len({one.initial_seed() for one in vars(dice).values()}) == 5


def test_without_regularisers_the_loss_is_the_plain_one_to_the_bit():
    settings, records, network, plan = _setup(BLOCK, "multilabel")
    assert not regularises(settings)
    assert all(regularises(settings.model_copy(update={k: v})) for k, v in ALL.items())
    found = []
    for make in (loss_function, lambda n, t, half: regularised_loss(n, t, settings, half=half)):
        loss_of = make(network, "multilabel", half=False)
        weights = train(network, loss_of, records, MEMBERS, SEEDS, settings, plan)
        found.append(evaluate(network, weights, records, settings, plan))
    assert np.array_equal(*found)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_shares_follow_the_beta_distribution(alpha):
    generator = torch.Generator().manual_seed(3)
    shares = [float(draw_mixup(alpha, 2, generator)[0]) for _ in range(1500)]
    assert stats.kstest(shares, stats.beta(alpha, alpha).cdf).pvalue > 0.01


def test_partners_are_permutations_and_dropout_keeps_its_share():
    generators = [torch.Generator().manual_seed(i) for i in range(4)]
    settings = TrainSettings(mixup=1.0, dropout=0.3)
    before = torch.get_rng_state()
    chances = Chances(settings, generators[:2], generators[2:], (200, 50), torch.device("cpu"))
    share, partner, keep = chances.draw()
    assert torch.equal(torch.get_rng_state(), before)
    assert share.shape == (2,)
    assert (partner.sort(dim=1).values == torch.arange(200)).all()
    assert keep.shape == (2, 200, 50)
    # 10,000 draws a model, each kept with probability .7: sd .0046
    assert (keep.float().mean(dim=(1, 2)) - 0.7).abs().max() < 0.02
    assert not torch.equal(keep[0], keep[1])
    assert not torch.equal(chances.draw()[2], keep)
    assert (
        Chances(TrainSettings(), generators, generators, (2, 2), torch.device("cpu")).draw() == ()
    )


def test_dropout_keeps_the_mean_of_the_logits():
    settings, records, network, _ = _setup(BLOCK, "multiclass")
    network.head.bias.data += 1.0
    weights = {n: p.detach()[None] for n, p in network.named_parameters()}
    x, y = records.standardised(slice(0, 1))[None], records.label[:1][None]
    loss_of = regularised_loss(
        network, "multiclass", settings.model_copy(update={"dropout": 0.5}), half=False
    )
    # with one record and a linear head, the mean over all masks of the logits is known
    keep = torch.ones((1, 1, 16), dtype=torch.bool)
    doubled = 2 * network(x[0]) - network.head.bias  # all kept: twice the features
    expected = functional.cross_entropy(doubled, y[0])
    torch.testing.assert_close(loss_of(weights, x, y, None, None, keep)[0], expected)
    nothing = functional.cross_entropy(network.head.bias[None], y[0])
    torch.testing.assert_close(loss_of(weights, x, y, None, None, ~keep)[0], nothing)


def test_a_network_without_a_head_is_refused():
    for network in (nn.Linear(3, 2), nn.Sequential()):
        with pytest.raises(ArgumentError, match=r"train\.dropout acts before .* set dropout: 0"):
            width_of_head(network)
    assert width_of_head(_setup(BLOCK, "binary")[2]) == 16
