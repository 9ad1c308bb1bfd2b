"""Losses of stacked models against float64 loops."""

from __future__ import annotations

import math

import numpy as np
import torch

from confide.training.losses import losses

RNG = np.random.default_rng(0)


def _bce(z: float, y: float) -> float:
    p = 1 / (1 + math.exp(-z))
    return -math.log(p) if y == 1 else -math.log(1 - p)


def test_binary():
    z, y = RNG.normal(size=(3, 8, 1)), RNG.integers(0, 2, (3, 8))
    expected = [np.mean([_bce(z[m, i, 0], y[m, i]) for i in range(8)]) for m in range(3)]
    got = losses(torch.tensor(z), torch.tensor(y), "binary")
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-12)


def test_multiclass():
    z, y = RNG.normal(size=(3, 8, 5)), RNG.integers(0, 5, (3, 8))
    expected = [
        np.mean([np.log(np.exp(z[m, i]).sum()) - z[m, i, y[m, i]] for i in range(8)])
        for m in range(3)
    ]
    got = losses(torch.tensor(z), torch.tensor(y), "multiclass")
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-12)


def test_multilabel_ignores_unknown_labels():
    z = RNG.normal(size=(2, 6, 4))
    y = RNG.choice([0.0, 1.0, np.nan], size=(2, 6, 4))
    expected = [
        np.mean([_bce(z[m][i], y[m][i]) for i in np.ndindex(6, 4) if not np.isnan(y[m][i])])
        for m in range(2)
    ]
    logits = torch.tensor(z, requires_grad=True)
    got = losses(logits, torch.tensor(y), "multilabel")
    np.testing.assert_allclose(got.detach().numpy(), expected, rtol=1e-12)
    (gradient,) = torch.autograd.grad(got.sum(), logits)
    assert ((gradient.numpy() == 0) == np.isnan(y)).all()


def test_multilabel_without_any_known_label_is_zero():
    got = losses(torch.ones(1, 2, 3), torch.full((1, 2, 3), math.nan), "multilabel")
    assert got.tolist() == [0.0]


def test_losses_of_models_do_not_mix():
    z = torch.tensor(RNG.normal(size=(3, 8, 1)), requires_grad=True)
    y = torch.tensor(RNG.integers(0, 2, (3, 8)))
    (gradient,) = torch.autograd.grad(losses(z, y, "binary")[1], z)
    assert gradient[1].abs().min() > 0
    assert gradient[0].abs().max() == gradient[2].abs().max() == 0


def test_label_smoothing():
    z, s = RNG.normal(size=(2, 6, 3)), 0.3
    y = RNG.integers(0, 3, (2, 6))
    p = np.exp(z) / np.exp(z).sum(axis=-1, keepdims=True)
    q = np.eye(3)[y] * (1 - s) + s / 3
    got = losses(torch.tensor(z), torch.tensor(y), "multiclass", smoothing=s)
    np.testing.assert_allclose(got.numpy(), -(q * np.log(p)).sum(axis=-1).mean(axis=1), rtol=1e-12)
    # one logit is two logits, one of them 0
    two = torch.stack([torch.zeros(2, 6, dtype=torch.float64), torch.tensor(z[..., 0])], dim=-1)
    expected = losses(two, torch.tensor(y % 2), "multiclass", smoothing=s)
    got = losses(torch.tensor(z[..., :1]), torch.tensor(y % 2), "binary", smoothing=s)
    torch.testing.assert_close(got, expected)


def test_label_smoothing_leaves_unknown_labels_out():
    z, s = RNG.normal(size=(1, 6, 4)), 0.2
    y = RNG.choice([0.0, 1.0, np.nan], size=(1, 6, 4))
    known = [i for i in np.ndindex(y.shape) if not np.isnan(y[i])]
    expected = [(1 - s) * _bce(z[i], y[i]) + s / 2 * (_bce(z[i], 0) + _bce(z[i], 1)) for i in known]
    got = losses(torch.tensor(z), torch.tensor(y), "multilabel", smoothing=s)
    np.testing.assert_allclose(got.numpy(), [np.mean(expected)], rtol=1e-12)
