"""Architectures: shapes, sizes, weights from one seed, records that do not mix."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from confide.errors import ArgumentError
from confide.models import (
    ModelSettings,
    SmallCNNSettings,
    TabularResNetSettings,
    WRNSettings,
    build,
)
from confide.models.layers import FeatureGroupNorm, initialise, n_groups

SMALL = [
    (TabularResNetSettings(width=20, depth=2), (7,)),
    (SmallCNNSettings(width=4), (3, 19, 16)),
    (WRNSettings(depth=10, width=1), (1, 16, 21)),
]


def _count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("settings", "shape", "low", "high"),
    [
        # 64 * 300 + 300, then 12 linear layers, 13 norms, and the head
        (
            TabularResNetSettings(),
            (64,),
            *[64 * 300 + 300 + 12 * (300 * 300 + 300) + 13 * 600 + 301] * 2,
        ),
        (SmallCNNSettings(), (1, 64, 64), 1.0e6, 1.3e6),
        (WRNSettings(), (1, 64, 64), 1.46e6, 1.48e6),
        (WRNSettings(), (3, 64, 48), 1.46e6, 1.48e6),
    ],
)
def test_number_of_parameters(settings, shape, low, high):
    assert low <= _count(build(settings, shape, 1)) <= high


@pytest.mark.parametrize(("settings", "shape"), SMALL)
@pytest.mark.parametrize("n_outputs", [1, 5])
def test_output_shape(settings, shape, n_outputs):
    network = build(settings, shape, n_outputs)
    assert network(torch.zeros(3, *shape)).shape == (3, n_outputs)


def test_sizes_of_a_wide_residual_network():
    network = build(WRNSettings(depth=16, width=2), (1, 32, 32), 1)
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    in_blocks = [m for m in convolutions if m.kernel_size == (3, 3)]
    # the name counts the stem, the 3 x 3 layers of the blocks and the head (and projections)
    assert len(in_blocks) == 1 + 3 * 2 * 2
    assert sorted({m.out_channels for m in in_blocks}) == [16, 32, 64, 128]


@pytest.mark.parametrize(("settings", "shape"), SMALL)
def test_a_record_does_not_see_the_rest_of_its_batch(settings, shape):
    network = build(settings, shape, 2)
    x = torch.randn(5, *shape, generator=torch.Generator().manual_seed(1))
    other = x.clone()
    other[1:] *= 100
    with torch.no_grad():
        for mode in (True, False):
            network.train(mode)
            torch.testing.assert_close(network(x)[:1], network(other)[:1])
            torch.testing.assert_close(network(x)[:1], network(x[:1]), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("settings", "shape"), SMALL)
def test_every_parameter_gets_a_gradient(settings, shape):
    network = build(settings, shape, 1)
    x = torch.randn(4, *shape, generator=torch.Generator().manual_seed(1))
    network(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in network.parameters())


@pytest.mark.parametrize(("settings", "shape"), SMALL)
def test_weights_come_from_the_generator_alone(settings, shape):
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first, second = build(settings, shape, 2), build(settings, shape, 2)
    assert all(
        torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True)
    )
    initialise(second, torch.Generator().manual_seed(7))
    drawn = [p.detach().clone() for p in second.parameters()]
    assert not torch.equal(next(first.parameters()), drawn[0])
    with torch.no_grad():
        for p in second.parameters():
            p.fill_(math.nan)  # nothing of the old weights may stay
    initialise(second, torch.Generator().manual_seed(7))
    assert all(torch.equal(a, b) for a, b in zip(second.parameters(), drawn, strict=True))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


def test_scale_of_the_weights():
    network = build(TabularResNetSettings(width=300, depth=1), (400,), 1)
    gain = 2 / (1 + 0.1**2)
    linear = network.blocks[0].linear1.weight
    assert linear.std().item() == pytest.approx(math.sqrt(gain / 300), rel=0.01)
    assert network.stem.weight.std().item() == pytest.approx(math.sqrt(gain / 400), rel=0.01)
    assert network.head.weight.std().item() == pytest.approx(math.sqrt(1 / 300), rel=0.15)
    conv = build(SmallCNNSettings(), (1, 16, 16), 1).stages[3][1].conv.weight
    assert conv.std().item() == pytest.approx(math.sqrt(gain / (256 * 9)), rel=0.01)


def test_feature_group_norm_is_group_norm():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(9, 24, generator=generator)
    ours, theirs = FeatureGroupNorm(4, 24), nn.GroupNorm(4, 24)
    with torch.no_grad():
        for norm in (ours, theirs):
            norm.weight.copy_(torch.linspace(-1, 2, 24))
            norm.bias.copy_(torch.linspace(3, -1, 24))
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours(x.view(3, 3, 24)).view(9, 24), theirs(x))


@pytest.mark.parametrize(
    ("channels", "smallest", "expected"),
    [(300, 4, 10), (128, 4, 8), (64, 4, 8), (16, 4, 4), (7, 4, 1), (97, 4, 1), (30, 1, 10)],
)
def test_number_of_groups(channels, smallest, expected):
    assert n_groups(channels, 10, smallest) == expected


@pytest.mark.parametrize(
    ("settings", "shape", "words"),
    [
        (TabularResNetSettings(), (1, 32, 32), "'tabular_resnet' takes .*small_cnn"),
        (SmallCNNSettings(), (30,), "'small_cnn' takes .*tabular_resnet"),
        (WRNSettings(), (30,), "'wrn' takes .*tabular_resnet"),
        (WRNSettings(), (1, 32, 15), "16 x 16 pixels or more, got 32 x 15"),
    ],
)
def test_records_that_do_not_fit_are_refused(settings, shape, words):
    with pytest.raises(ArgumentError, match=words):
        build(settings, shape, 1)


@pytest.mark.parametrize(
    "block",
    [
        {"name": "wrn", "depth": 27},
        {"name": "wrn", "depth": 4},
        {"name": "wrn", "width": 0},
        {"name": "small_cnn", "depth": 3},
        {"name": "tabular_resnet", "width": 3},
        {"name": "tabular_resnet", "depth": 0},
        {"name": "resnet"},
    ],
)
def test_settings_out_of_their_domain_are_refused(block):
    with pytest.raises(ValidationError):
        TypeAdapter(ModelSettings).validate_python(block)


def test_depth_of_a_wide_residual_network_names_the_remedy():
    with pytest.raises(ValidationError, match=r"depth=27 to be 6n \+ 4; use 22 or 28"):
        WRNSettings(depth=27)


def test_settings_do_not_import_torch():
    code = (
        "import sys, confide.models, confide.training, confide.training.settings\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
