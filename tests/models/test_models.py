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
    ResNet1dSettings,
    SmallCNNSettings,
    TabularResNetSettings,
    ViTSettings,
    WRNSettings,
    _skeleton,
    build,
)
from confide.models.layers import FeatureGroupNorm, initialise, n_groups
from confide.training.forward import forward

SMALL = [
    (TabularResNetSettings(width=20, depth=2), (7,)),
    (SmallCNNSettings(width=4), (3, 19, 16)),
    (WRNSettings(depth=10, width=1), (1, 16, 21)),
    (ResNet1dSettings(width=16, depth=2), (3, 33)),
    (ViTSettings(patch=4, width=24, depth=2, heads=2, mlp=2), (2, 12, 8)),
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
        (WRNSettings(depth=28, width=5), (1, 64, 64), 9.1e6, 9.2e6),
        (WRNSettings(depth=40, width=4), (1, 64, 64), 8.9e6, 9.0e6),
        # stem, three blocks of 5 and 3 samples, two projections, seven norms, and the head
        (
            ResNet1dSettings(),
            (12, 1000),
            *[12 * 128 * 7 + 3 * 8 * 128**2 + 2 * 128**2 + 7 * 256 + 129] * 2,
        ),
        # patches, positions, six blocks of twelve squares of the width, a norm, and the head
        (
            ViTSettings(),
            (1, 64, 64),
            *[64 * 192 + 192 + 64 * 192 + 6 * (12 * 192**2 + 13 * 192) + 2 * 192 + 193] * 2,
        ),
    ],
)
def test_number_of_parameters(settings, shape, low, high):
    with torch.device("meta"):
        assert low <= _count(_skeleton(settings, shape, 1)) <= high


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
def test_the_output_is_the_head_of_the_features(settings, shape):
    network = build(settings, shape, 3)
    x = torch.randn(4, *shape, generator=torch.Generator().manual_seed(1))
    features = network.features(x)
    assert features.shape == (4, network.head.in_features)
    assert torch.equal(network(x), network.head(features))


@pytest.mark.parametrize(("settings", "shape"), SMALL)
def test_a_stack_is_its_models(settings, shape):
    """Mapped over weights, as in training; nothing falls back to a slow loop (a warning)."""
    network = build(settings, shape, 2)
    drawn = []
    for seed in (1, 2):
        initialise(network, torch.Generator().manual_seed(seed))
        drawn.append({n: p.detach().clone() for n, p in network.named_parameters()})
    x = torch.randn(2, 4, *shape, generator=torch.Generator().manual_seed(1))
    stack = {name: torch.stack([w[name] for w in drawn]) for name in drawn[0]}
    both = forward(network, stack, x)
    for i in range(2):
        alone = forward(network, {n: w[None] for n, w in drawn[i].items()}, x[i : i + 1])
        torch.testing.assert_close(both[i], alone[0], atol=1e-4, rtol=1e-3)


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


def test_the_vision_transformer_is_that_of_pytorch():
    """Against PyTorch's own pre-norm encoder, with the same weights."""
    ours = build(ViTSettings(patch=4, width=24, depth=2, heads=2, mlp=2), (2, 12, 8), 3)
    theirs = nn.ModuleList(
        nn.TransformerEncoderLayer(
            24, 2, 48, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        for _ in range(2)
    )
    for block, layer in zip(ours.blocks, theirs, strict=True):
        pairs = {
            "self_attn.in_proj_": block.attention.query_key_value,
            "self_attn.out_proj.": block.attention.out,
            "linear1.": block.linear1,
            "linear2.": block.linear2,
            "norm1.": block.norm1,
            "norm2.": block.norm2,
        }
        layer.load_state_dict(
            {f"{k}{w}": getattr(m, w) for k, m in pairs.items() for w in ("weight", "bias")}
        )
    x = torch.randn(5, 2, 12, 8, generator=torch.Generator().manual_seed(0))
    cut = nn.functional.unfold(x, 4, stride=4).transpose(1, 2)  # (n, patches, channel row column)
    y = ours.stem(cut) + ours.position
    for layer in theirs:
        y = layer(y)
    torch.testing.assert_close(ours(x), ours.head(ours.norm(y).mean(dim=1)))


def test_scale_of_the_weights():
    network = build(TabularResNetSettings(width=300, depth=1), (400,), 1)
    gain = 2 / (1 + 0.1**2)
    linear = network.blocks[0].linear1.weight
    assert linear.std().item() == pytest.approx(math.sqrt(gain / 300), rel=0.01)
    assert network.stem.weight.std().item() == pytest.approx(math.sqrt(gain / 400), rel=0.01)
    assert network.head.weight.std().item() == pytest.approx(math.sqrt(1 / 300), rel=0.15)
    conv = build(SmallCNNSettings(), (1, 16, 16), 1).stages[3][1].conv.weight
    assert conv.std().item() == pytest.approx(math.sqrt(gain / (256 * 9)), rel=0.01)
    conv = build(ResNet1dSettings(), (12, 100), 1).blocks[0].conv1.weight
    assert conv.std().item() == pytest.approx(math.sqrt(gain / (128 * 5)), rel=0.01)
    vit = build(ViTSettings(), (1, 64, 64), 1)
    assert vit.blocks[0].linear2.weight.std().item() == pytest.approx(768**-0.5, rel=0.01)
    assert vit.position.std().item() == pytest.approx(0.02, rel=0.03)


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
        (WRNSettings(), (12, 100), "'wrn' takes .*'resnet1d'"),
        (ResNet1dSettings(), (1, 32, 32), r"takes records of shape \(leads, samples\).*'wrn'"),
        (ResNet1dSettings(), (30,), "'resnet1d' takes .*'tabular_resnet'"),
        (ResNet1dSettings(), (12, 15), "16 samples or more, got 15"),
        (ViTSettings(), (1, 32, 36), "patches of 8 x 8 pixels, which 32 x 36 is no multiple of"),
        (ViTSettings(), (1, 2, 3, 4), r"takes .*got \(1, 2, 3, 4\)\.$"),
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
        {"name": "resnet1d", "width": 3},
        {"name": "vit", "width": 100, "heads": 3},
        {"name": "resnet50", "depth": 50},
        {"name": "own"},
        {"name": "own", "module": "os.system"},
        {"name": "own", "module": "a b:C"},
        {"name": "own", "module": "a:C", "arguments": {"x": {1, 2}}},
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
