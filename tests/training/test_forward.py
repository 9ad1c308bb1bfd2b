"""Stacks of models: those of a stack are those alone, with constants on any device."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from confide.training.forward import forward, loss_function


class Shifted(nn.Module):
    """A linear layer and a constant."""

    def __init__(self):
        super().__init__()
        self.register_buffer("shift", torch.arange(3.0))
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        return self.head(x + self.shift)


def _stack(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        "head.weight": torch.randn(n, 2, 3, generator=generator),
        "head.bias": torch.randn(n, 2, generator=generator),
    }


@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("shared", [False, True])
def test_logits_of_a_stack(n, shared):
    weights, network = _stack(n), Shifted()
    x = torch.randn(1 if shared else n, 5, 3, generator=torch.Generator().manual_seed(1))
    got = forward(network, weights, x)
    shifted = x + torch.arange(3.0)
    expected = torch.einsum("mbf,mof->mbo", shifted.expand(n, 5, 3), weights["head.weight"])
    torch.testing.assert_close(got, expected + weights["head.bias"][:, None])
    assert got.dtype == torch.float32


def test_each_model_has_the_loss_of_its_own_batch():
    weights, network = _stack(3), Shifted()
    x = torch.randn(3, 5, 3, generator=torch.Generator().manual_seed(1))
    y = torch.randint(2, (3, 5), generator=torch.Generator().manual_seed(2))
    found = loss_function(network, "multiclass", half=False)(weights, x, y)
    for i in range(3):
        logits = forward(network, {k: w[i : i + 1] for k, w in weights.items()}, x[i : i + 1])
        expected = nn.functional.cross_entropy(logits[0], y[i])
        torch.testing.assert_close(found[i], expected)


def test_half_precision_gives_full_logits():
    x = torch.ones(1, 2, 3)
    half, full = (forward(Shifted(), _stack(1), x, half=h) for h in (True, False))
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, full, atol=0.1, rtol=0.05)
    assert not torch.equal(half, full)
