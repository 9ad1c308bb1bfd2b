"""The classifier of codes and the trainable encoder, against plain versions written apart."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from confide.errors import ArgumentError
from confide.models import DeepViTSettings, build_code_classifier, build_plain_classifier
from confide.models.layers import initialise_uniform
from confide.models.patch_encoder import PatchEncoder, patches

SMALL = {"heads": 3, "head_width": 5}


def _normal(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _network(depth=1, position=False, outputs=2, **changes):
    settings = DeepViTSettings(depth=depth, **SMALL | changes)
    network = build_code_classifier(settings, (7, 12), outputs, position=position).double()
    with torch.no_grad():  # scales of 1 and shifts of 0 would hide a layer left out
        for i, p in enumerate(network.parameters()):
            p.add_(0.3 * _normal(*p.shape, seed=100 + i))
    return network


def _norm(x, w, name):
    centred = x - x.mean(dim=-1, keepdim=True)
    scaled = centred / torch.sqrt((centred**2).mean(dim=-1, keepdim=True) + 1e-5)
    return scaled * w[name + ".weight"] + w[name + ".bias"]


def _reference(w, x, depth, heads=3, size=5):
    """The whole network, all rows of all blocks, one head after another."""
    if "position" in w:
        x = x + w["position"]
    x = torch.stack([torch.cat([w["token"][None], one]) for one in x])
    for i in range(depth):
        at = "last." if i == depth - 1 else f"blocks.{i}."
        y = _norm(x, w, at + "attention.norm")
        maps, values = [], []
        for h in range(heads):
            part = slice(h * size, (h + 1) * size)
            q, k, v = (
                y @ w[f"{at}attention.{n}.weight"][part].T for n in ("query", "key", "value")
            )
            maps.append(torch.softmax(torch.einsum("nic,njc->nij", q, k) / math.sqrt(size), dim=2))
            values.append(v)
        mix = w[at + "attention.mix"]
        mixed = [sum(maps[h] * mix[h, g] for h in range(heads)) for g in range(heads)]
        mixed = _norm(torch.stack(mixed, dim=-1), w, at + "attention.mix_norm")
        out = torch.cat([mixed[..., g] @ values[g] for g in range(heads)], dim=2)
        x = x + out @ w[at + "attention.out.weight"].T + w[at + "attention.out.bias"]
        y = _norm(x, w, at + "norm") @ w[at + "wide.weight"].T + w[at + "wide.bias"]
        y = y * 0.5 * (1 + torch.erf(y / math.sqrt(2)))
        x = x + y @ w[at + "narrow.weight"].T + w[at + "narrow.bias"]
    return _norm(x[:, 0], w, "norm") @ w["head.weight"].T + w["head.bias"]


@pytest.mark.parametrize("position", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_outputs_and_gradients_are_those_of_the_whole_network(depth, position):
    network = _network(depth, position)
    w = dict(network.named_parameters())
    x, y = _normal(4, 7, 12), torch.tensor([0, 1, 1, 0])
    x.requires_grad_()
    assert ("position" in w) == position
    results = []
    for logits in (network(x), _reference(w, x, depth)):
        loss = nn.functional.cross_entropy(logits, y)
        results.append((logits, *torch.autograd.grad(loss, [x, *w.values()])))
    for name, ours, theirs in zip(["logits", "x", *w], *results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-11, rtol=1e-9, msg=name)
        # softmax does not see what is the same for all keys, so only such shifts may do nothing
        assert theirs.abs().max() > 1e-9, name


def test_rows_far_from_zero_lose_no_precision():
    network = _network().float()
    x = _normal(4, 7, 12).float() + 50.0
    exact = network.double()(x.double())
    torch.testing.assert_close(network.float()(x).double(), exact, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("depth", [1, 2])
def test_order_of_rows_matters_only_with_a_position(depth):
    x = _normal(3, 7, 12)
    turned = x[:, [3, 1, 6, 0, 5, 2, 4]]
    network = _network(depth)
    torch.testing.assert_close(network(x), network(turned))
    network = _network(depth, position=True)
    assert (network(x) - network(turned)).abs().max() > 1e-3


def test_a_record_does_not_see_the_rest_of_its_batch():
    network, x = _network(2), _normal(5, 7, 12)
    other = x.clone()
    other[1:] *= 100
    torch.testing.assert_close(network(x)[:1], network(other)[:1])


def test_dropout_is_off_in_evaluation():
    network, x = _network(2, dropout=0.5), _normal(5, 7, 12)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert not torch.equal(network.train()(x), network(x))
    assert torch.equal(network.eval()(x), network(x))


def test_number_of_weights_at_the_size_of_the_paper():
    network = build_code_classifier(DeepViTSettings(), (256, 2048), 1)
    c, inner = 2048, 512
    attention = 3 * c * inner + inner * c + c + 8 * 8 + 2 * 8
    mlp = 2 * (c * 2 * c) + 3 * c
    assert sum(p.numel() for p in network.parameters()) == (
        attention + mlp + 3 * 2 * c + c + (c + 1)
    )


def test_weights_come_from_the_generator_alone():
    before = torch.get_rng_state()
    one, two = (build_code_classifier(DeepViTSettings(), (4, 64), 1) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    initialise_uniform(two, torch.Generator().manual_seed(1))
    assert not torch.equal(one.token, two.token)


def test_weights_are_drawn_as_torch_draws_them():
    torch_own = {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch_own["last.wide"] = nn.Linear(256, 512)
        torch_own["last.narrow"] = nn.Linear(512, 256)
    network = build_code_classifier(DeepViTSettings(), (16, 256), 1, position=True)
    modules = dict(network.named_modules())
    for name, wanted in torch_own.items():
        for part in ("weight", "bias"):
            found, other = getattr(modules[name], part), getattr(wanted, part)
            assert found.shape == other.shape
            bound = 1 / math.sqrt(wanted.in_features)
            assert 0.95 * bound < found.abs().max() <= bound * (1 + 1e-6)
            assert found.std().item() == pytest.approx(other.std().item(), rel=0.1)
    for parameter in (network.token, network.position):
        assert parameter.std().item() == pytest.approx(1, abs=0.15)
        assert parameter.mean().item() == pytest.approx(0, abs=0.2)
    assert network.last.attention.mix.std().item() == pytest.approx(1, abs=0.3)
    for norm in (network.norm, network.last.norm, network.last.attention.mix_norm):
        assert (norm.weight == 1).all()
        assert (norm.bias == 0).all()


@pytest.mark.parametrize("shape", [(3, 16, 16), (12,), (0, 4)])
def test_codes_of_another_shape_are_refused(shape):
    with pytest.raises(ArgumentError, match=r"Expected codes of shape \(rows, width\)"):
        build_code_classifier(DeepViTSettings(), shape, 1)


@pytest.mark.parametrize("block", [{"depth": 0}, {"heads": 0}, {"dropout": 1.0}, {"width": 3}])
def test_bad_settings_are_refused(block):
    with pytest.raises(ValidationError):
        DeepViTSettings.model_validate(block)


def test_patches_are_those_of_a_convolution():
    for shape, patch, make in [((3, 12, 8), 4, nn.Conv2d), ((5, 21), 7, nn.Conv1d)]:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            conv = make(shape[0], 6, patch, stride=patch).double()
        x = _normal(2, *shape)
        ours = patches(x, patch) @ conv.weight.flatten(1).T + conv.bias
        torch.testing.assert_close(ours, conv(x).flatten(2).transpose(1, 2))


def _encoder(shape, patch, depth=2, width=10):
    network = build_plain_classifier(
        DeepViTSettings(**SMALL), shape, 1, patch=patch, width=width, private_depth=depth
    )
    encoder = network[0].double()
    assert isinstance(encoder, PatchEncoder)
    return encoder


@pytest.mark.parametrize(
    ("shape", "patch", "conv", "norm"),
    [((2, 8, 12), 4, nn.Conv2d, nn.BatchNorm2d), ((3, 20), 5, nn.Conv1d, nn.BatchNorm1d)],
)
def test_encoder_is_the_convolutional_one(shape, patch, conv, norm):
    encoder = _encoder(shape, patch)
    with torch.random.fork_rng():
        first = conv(shape[0], 10, patch, stride=patch).double()
        hidden = [conv(10, 10, 1).double() for _ in range(2)]
        norms = [norm(10).double() for _ in range(2)]
    pairs = [(first, encoder.first), *zip(hidden, encoder.hidden, strict=True)]
    with torch.no_grad():
        for theirs, ours in pairs:
            theirs.weight.copy_(ours.weight.view_as(theirs.weight))
            theirs.bias.copy_(ours.bias)

    def reference(x):
        x = first(x).relu()
        for layer, scale in zip(hidden, norms, strict=True):
            x = scale(layer(x)).relu()
        rows = x.flatten(2).transpose(1, 2)
        return (rows + encoder.position).relu() @ encoder.last.weight.T + encoder.last.bias

    for seed in range(3):  # the running statistics move alike
        x = _normal(6, *shape, seed=seed)
        torch.testing.assert_close(encoder(x), reference(x))
    for part in (encoder, *norms):
        part.eval()
    torch.testing.assert_close(encoder(x), reference(x))


def test_in_evaluation_a_record_does_not_see_its_batch_and_in_training_it_does():
    encoder, x = _encoder((1, 8, 8), 4), _normal(6, 1, 8, 8)
    other = x.clone()
    other[1:] *= 3
    assert not torch.allclose(encoder(x)[:1], encoder(other)[:1])
    encoder.eval()
    torch.testing.assert_close(encoder(x)[:1], encoder(other)[:1])
    torch.testing.assert_close(encoder(x)[:1], encoder(x[:1]))


def test_drawing_anew_forgets_the_running_statistics():
    encoder = _encoder((1, 8, 8), 4)
    fresh = {name: value.clone() for name, value in encoder.state_dict().items()}
    encoder(_normal(6, 1, 8, 8))
    assert any(not torch.equal(fresh[n], v) for n, v in encoder.state_dict().items())
    for generator in (torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)):
        initialise_uniform(encoder, generator)
    assert (encoder.norms[0].running_mean == 0).all()
    assert (encoder.norms[0].running_var == 1).all()
    assert encoder.norms[0].num_batches_tracked == 0


@pytest.mark.parametrize("shape", [(5,), (1, 10, 8), (1, 8, 10), (2, 3, 4, 4), (0, 8, 8), (2, 7)])
def test_records_that_cannot_be_cut_are_refused(shape):
    with pytest.raises(ArgumentError, match="multiples of patch=4"):
        build_plain_classifier(DeepViTSettings(), shape, 1, patch=4, width=8, private_depth=0)
