"""The kernels for group norm and leaky ReLU against PyTorch's own in double precision."""

from __future__ import annotations

import sys
import types

import pytest
import torch
from torch import nn
from torch.nn import functional

from confide.models import build, layers
from confide.models.settings import WRNSettings
from confide.training.device import tensor_float32
from confide.training.forward import forward

GPU = pytest.mark.gpu


def _plain(norm, x, more):
    x = x if more is None else x + more
    y = functional.group_norm(x, norm.num_groups, norm.weight, norm.bias, norm.eps)
    return functional.leaky_relu(y, layers.SLOPE), x


def _both(call, norm, x, more, d_out, d_total):
    """Results and gradients."""
    given = [t for t in (x, more) if t is not None]
    found = call(norm, x, more)
    back = [d_out] if d_total is None else [d_out, d_total]
    leaves = [*given, norm.weight, norm.bias]
    return [*found, *torch.autograd.grad(found[: len(back)], leaves, back)]


@GPU
@pytest.mark.parametrize(
    "size", [(16, 9, 7), (32, 64, 64), (64, 32, 32), (128, 16, 16), (32, 3, 1)]
)
@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize("skips", [False, True])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_results_and_gradients_are_those_of_two_layers(size, adds, skips, kind):
    torch.manual_seed(0)

    def drawn():
        return (2 * torch.randn(5, *size, device="cuda") + 3).to(kind)

    norm = nn.GroupNorm(16, size[0]).cuda()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x, more = drawn().requires_grad_(), drawn().requires_grad_() if adds else None
    d_out, d_total = drawn(), drawn() if skips else None
    assert layers.fuses(x)
    found = _both(layers.norm_act, norm, x, more, d_out, d_total)
    exact = [None if t is None else t.detach().double() for t in (x, more, d_out, d_total)]
    if adds and kind == torch.bfloat16:  # the sum is stored, and normed, as rounded
        exact[0], exact[1] = (x + more).detach().double(), torch.zeros_like(exact[0])
    for t in exact[:2]:
        if t is not None:
            t.requires_grad_()
    wanted = _both(_plain, norm.double(), *exact)
    # Of a group of one value the norm is 0, and so is the gradient of what it is taken from.
    atol = 1e-4 if kind == torch.float32 else 0.02
    for one, other in zip(found, wanted, strict=True):
        scale = float(other.detach().abs().max()) + 1.0
        torch.testing.assert_close(one.double() / scale, other / scale, rtol=0, atol=atol)


@GPU
def test_a_large_mean_costs_no_precision():
    norm = nn.GroupNorm(16, 32).cuda()
    x = 1000.0 + torch.randn(3, 32, 24, 24, device="cuda")
    wanted = _plain(norm.double(), x.double(), None)[0]
    torch.testing.assert_close(
        layers.norm_act(norm.float(), x)[0].double(), wanted, rtol=0, atol=1e-3
    )


@GPU
def test_an_odd_corner_costs_no_precision():
    norm = nn.GroupNorm(16, 32).cuda()
    x = torch.randn(3, 32, 24, 24, device="cuda")
    x[:, :, 0, 0] += 100.0
    wanted = _plain(norm.double(), x.double(), None)[0]
    found = layers.norm_act(norm.float(), x)[0].double()
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@GPU
@pytest.mark.parametrize("channels", [1, 3])
def test_a_wide_residual_network_has_the_logits_and_gradients_of_plain_layers(channels):
    network = build(WRNSettings(depth=10, width=2), (channels, 24, 24), 2)
    layers.initialise(network, torch.Generator().manual_seed(0))
    weights = {n: w.detach().cuda()[None].requires_grad_() for n, w in network.named_parameters()}
    x = torch.randn(1, 6, channels, 24, 24, device="cuda")
    with tensor_float32(False):
        found = forward(network, weights, x)
        gradients = torch.autograd.grad(found.square().sum(), list(weights.values()))
    exact = {n: w.detach().cpu().double().requires_grad_() for n, w in weights.items()}
    wanted = torch.func.functional_call(
        network.double(), {n: w[0] for n, w in exact.items()}, (x[0].cpu().double(),)
    )
    torch.testing.assert_close(found[0].cpu().double(), wanted, rtol=1e-3, atol=1e-3)
    plain = torch.autograd.grad(wanted.square().sum(), list(exact.values()))
    for one, other in zip(gradients, plain, strict=True):
        away = float((one.cpu().double() - other).norm() / other.norm())
        assert away < 1e-3


def test_kernels_that_cannot_be_made_are_done_without(monkeypatch):
    class NormAct:
        @staticmethod
        def apply(*_):
            raise RuntimeError("Failed to find C compiler")

    kernels, cpu = types.ModuleType("fused_norm"), torch.device("cpu")
    kernels.NormAct = NormAct
    monkeypatch.setitem(sys.modules, "confide.models.fused_norm", kernels)
    monkeypatch.setattr(layers, "find_spec", lambda name: name)
    tried = layers._kernels_work.__wrapped__
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    with pytest.warns(RuntimeWarning, match="RuntimeError.*need a C compiler"):
        assert not tried(cpu)
    NormAct.apply = staticmethod(lambda *_: None)
    assert tried(cpu)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert not tried(cpu)  # which has no bfloat16


def test_a_cpu_has_plain_layers():
    norm, x = nn.GroupNorm(4, 8), torch.randn(2, 8, 3, 3)
    assert not layers.fuses(x)
    out, total = layers.norm_act(norm, x, x)
    torch.testing.assert_close(out, functional.leaky_relu(norm(2 * x), layers.SLOPE))
    torch.testing.assert_close(total, 2 * x)
