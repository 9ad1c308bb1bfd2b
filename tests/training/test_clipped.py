"""Gradients of single records, and what bounds a unit's share of their sum."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import functional_call

from confide.models import SmallCNNSettings, TabularResNetSettings, build
from confide.training.clipped import factors, row_gradients
from confide.training.losses import losses

TABLE = (TabularResNetSettings(width=16, depth=1), (5,))
IMAGE = (SmallCNNSettings(width=4), (1, 16, 16))


def _setting(model, task, n_models, n, seed=0):
    settings, shape = model
    generator = torch.Generator().manual_seed(seed)
    n_outputs = {"binary": 1, "multiclass": 3, "multilabel": 3}[task]
    network = build(settings, shape, n_outputs)
    weights = {
        name: w.detach() + 0.2 * torch.randn((n_models, *w.shape), generator=generator)
        for name, w in network.named_parameters()
    }
    x = torch.randn((n_models, n, *shape), generator=generator)
    y = torch.randint(0, 2, (n_models, n), generator=generator)
    if task == "multilabel":
        y = torch.randint(0, 2, (n_models, n, 3), generator=generator).float()
        y[0, 0, 1] = torch.nan
        y[0, 1] = torch.nan
    return network, weights, x, y


def _oracle(network, weights, x, y, task):
    """(n_models, n, n_weights) gradients, one by one."""
    out = []
    for m in range(len(x)):
        for i in range(x.shape[1]):
            own = {name: w[m].clone().requires_grad_() for name, w in weights.items()}
            logits = functional_call(network, own, (x[m, i : i + 1],))[None]
            loss = losses(logits, y[m, i : i + 1][None], task).sum()
            found = torch.autograd.grad(loss, list(own.values()))
            out.append(torch.cat([g.flatten() for g in found]))
    return torch.stack(out).view(*x.shape[:2], -1)


def _flat(sums, weights):
    return torch.cat([sums[name].flatten(1) for name in weights], dim=1)


@pytest.mark.parametrize("n_models", [1, 3])
@pytest.mark.parametrize(
    ("model", "task"), [(TABLE, "binary"), (TABLE, "multilabel"), (IMAGE, "multiclass")]
)
def test_gradients_are_those_of_autograd_record_by_record(model, task, n_models):
    network, weights, x, y = _setting(model, task, n_models, 6)
    rows = _oracle(network, weights, x, y, task)
    found = row_gradients(network, task)(weights, x, y)
    for length in (1, 3):
        blocks = rows.view(n_models, 6 // length, length, -1)
        wanted = blocks @ blocks.mT
        got = found.products((6 // length, length))
        torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-5 * float(wanted.abs().max()))
    factor = torch.rand(n_models, 6)
    sums = _flat(found.weighted(factor), weights)
    torch.testing.assert_close(sums, (factor[..., None] * rows).sum(1), rtol=1e-3, atol=1e-3)


def test_a_network_keeps_no_hook():
    network, weights, x, y = _setting(TABLE, "binary", 1, 4)
    row_gradients(network, "binary")(weights, x, y)
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_label_smoothing_is_that_of_the_loss():
    network, weights, x, y = _setting(TABLE, "binary", 1, 4)
    sums = row_gradients(network, "binary", smoothing=0.2)(weights, x, y).weighted(torch.ones(1, 4))
    own = {name: w[0].clone().requires_grad_() for name, w in weights.items()}
    logits = functional_call(network, own, (x[0],))[None]
    loss = 4 * losses(logits, y, "binary", smoothing=0.2).sum()
    wanted = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(own.values()))])
    torch.testing.assert_close(_flat(sums, weights)[0], wanted, rtol=1e-3, atol=1e-4)


def _sum(vectors, unit, clip):
    """Clipped sum of plain vectors (n, width) of one block, by the factors."""
    products = (vectors @ vectors.T)[None, None]
    factor = factors(products, unit[None, None], clip)[0, 0]
    kept = torch.where(factor[:, None] > 0, vectors, 0.0)
    return (factor[:, None] * kept).sum(dim=0)


@pytest.mark.parametrize("clip", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3, 1e7, 1e15])
@pytest.mark.parametrize("per_unit", [1, 4])
def test_adding_or_removing_a_unit_changes_the_sum_by_at_most_the_norm(clip, scale, per_unit):
    """Also for gradients that are huge, and for those of a patient that nearly cancel."""
    generator = torch.Generator().manual_seed(1)
    n = 4 * per_unit
    vectors = torch.randn(n, 50, generator=generator)
    vectors[:per_unit] *= scale
    if per_unit > 1:
        vectors[1] = -vectors[0] * (1 + 1e-6)
    unit = torch.arange(n) // per_unit
    whole, without = _sum(vectors, unit, clip), _sum(vectors[per_unit:], unit[per_unit:], clip)
    change = float((whole.double() - without.double()).norm())
    assert change <= clip * (1 + 1e-6)
    if scale >= 1e3 and per_unit == 1:
        assert change >= clip * (1 - 1e-3)


def test_more_records_of_a_patient_change_the_sum_no_more():
    one = torch.randn(3, 20, generator=torch.Generator().manual_seed(2)) + 1.0
    for times in (1, 2, 8):
        vectors = one.repeat(times, 1)
        found = _sum(vectors, torch.zeros(len(vectors), dtype=torch.int64), 1.0)
        assert 0.999 <= float(found.norm()) <= 1.0
    as_records = _sum(one.repeat(8, 1), torch.arange(24), 1.0)
    assert float(as_records.norm()) > 5  # each record is clipped on its own


def test_short_gradients_are_left_as_they_are():
    vectors = 0.01 * torch.randn(6, 20, generator=torch.Generator().manual_seed(3))
    unit = torch.tensor([0, 0, 1, 1, 2, 3])
    torch.testing.assert_close(_sum(vectors, unit, 1.0), vectors.sum(dim=0))


def test_padding_and_gradients_that_are_not_finite_count_for_nothing():
    vectors = torch.ones(4, 3)
    vectors[1] = torch.inf
    vectors[2, 1] = torch.nan
    found = _sum(vectors, torch.tensor([0, 1, 2, -1]), 10.0)
    torch.testing.assert_close(found, torch.ones(3))
    spoilt = _sum(vectors, torch.tensor([0, 0, 1, -1]), 10.0)  # a patient with a bad record
    assert torch.equal(spoilt, torch.zeros(3))


@pytest.mark.parametrize("model", [TABLE, IMAGE], ids=["table", "image"])
def test_a_record_of_a_network_that_overflows_does_not_touch_the_others(model):
    task = "binary"
    network, weights, x, y = _setting(model, task, 1, 4)
    wanted = row_gradients(network, task)(weights, x[:, 1:], y[:, 1:]).weighted(torch.ones(1, 3))
    x[0, 0] = torch.inf
    found = row_gradients(network, task)(weights, x, y)
    factor = factors(found.products((4, 1)), torch.arange(4).view(1, 4, 1), 1e6)
    assert factor.flatten().tolist() == pytest.approx([0.0, 1.0, 1.0, 1.0])
    sums = found.weighted(factor.flatten(1))
    torch.testing.assert_close(_flat(sums, weights), _flat(wanted, weights), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("model", [TABLE, IMAGE], ids=["table", "image"])
@pytest.mark.parametrize("length", [1, 3])
def test_the_sensitivity_of_a_network_is_the_clipping_norm(model, length):
    """The whole way: inputs of one unit are blown up, and the sum moves by the norm at most."""
    network, weights, x, y = _setting(model, "binary", 1, 6)
    x[:, :length] *= 1e4
    unit = (torch.arange(6) // length).view(1, 6 // length, length)
    take = row_gradients(network, "binary")

    def clipped(unit):
        found = take(weights, x, y)
        factor = factors(found.products((6 // length, length)), unit, 0.5)
        return _flat(found.weighted(factor.flatten(1)), weights)

    without = torch.where(unit == 0, -1, unit)
    change = float((clipped(unit) - clipped(without)).norm())
    assert 0.45 < change <= 0.5 * (1 + 1e-5)


def test_a_table_is_not_materialised():
    network, weights, x, y = _setting(TABLE, "binary", 1, 4)
    assert "Factored" in type(row_gradients(network, "binary")(weights, x, y)).__name__
    other = nn.Sequential(nn.Flatten(), nn.Linear(5, 1))
    weights = {name: w.detach()[None] for name, w in other.named_parameters()}
    found = row_gradients(other, "binary")(weights, x, y)
    assert "Materialised" in type(found).__name__
