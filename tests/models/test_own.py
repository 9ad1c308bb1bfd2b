"""Networks of the user's: imported by name, drawn from a generator alone, refused where unfit."""

from __future__ import annotations

import random
import sys

import numpy as np
import pytest
import torch

from confide import masks
from confide.errors import ArgumentError, ConfigError
from confide.models import OwnSettings, build
from confide.models.layers import initialise
from confide.training import Performance, TorchTrainer, TrainSettings
from models import own_networks


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.setitem(sys.modules, "own_networks", own_networks)


def _own(name, **arguments):
    return OwnSettings(module=f"own_networks:{name}", arguments=arguments)


def _states():
    return torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002


@pytest.mark.parametrize("name", ["Plain", "InTwo"])
def test_weights_come_from_the_generator_alone(name):
    torch.manual_seed(1)
    before = _states()
    network = build(_own(name), (5,), 1)
    initialise(network, torch.Generator().manual_seed(7))
    drawn = [p.detach().clone() for p in network.parameters()]
    after = _states()
    assert torch.equal(before[0], after[0])
    assert np.array_equal(before[1], after[1])
    assert before[2] == after[2]
    torch.manual_seed(2)  # another state of the process, another network, the same weights
    other = build(_own(name), (5,), 1)
    initialise(other, torch.Generator().manual_seed(7))
    assert all(torch.equal(a, b) for a, b in zip(other.parameters(), drawn, strict=True))
    initialise(other, torch.Generator().manual_seed(8))
    weights = zip(other.named_parameters(), drawn, strict=True)
    same = {n for (n, p), old in weights if torch.equal(p, old)}
    assert same <= {"inner.norm.weight", "inner.norm.bias"}


def test_layers_are_drawn_as_pytorch_draws_them():
    network = build(_own("Plain", features=400, width=300), (400,), 1)
    weight = network.inner.layer.weight
    assert weight.abs().max().item() == pytest.approx(400**-0.5, rel=1e-3)
    assert torch.equal(network.inner.norm.weight, torch.ones(300))


def test_features_and_head():
    network = build(_own("InTwo"), (5,), 1)
    names = [name for name, _ in network.named_parameters()]
    assert {"head.weight", "head.bias"} <= set(names)
    assert not [name for name in names if name.startswith("inner.head")]
    x = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(network(x), network.head(network.features(x)))
    torch.testing.assert_close(network(x), network.inner(x))
    plain = build(_own("Plain"), (5,), 1)
    assert torch.equal(plain(x), plain.inner(x))
    with pytest.raises(ConfigError, match=r"has no method features\(x\)"):
        plain.features(x)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("BatchNorm", "the buffer 'norm.running_mean' changes"),
        ("Subtle", "depends on the other records of its batch"),
        ("Dropout", "answers differently when it is asked twice"),
        ("Undrawn", r"no reset_parameters\(\) draws 'shift'"),
        ("NumpyDrawn", "other random numbers than torch's"),
        ("PythonDrawn", "other random numbers than torch's"),
        ("Frozen", "'layer.weight' is float32 and does not train"),
        ("Double", "'layer.weight' is float64"),
        ("Pair", r"returned tuple for records \(4, 5\); expected \(4, 1\), logits"),
        ("Fails", "fails for records .*RuntimeError: nothing works"),
        ("Overflow", "not finite"),
        ("Empty", "has no weights to train"),
        ("TwoMeanings", r"does not return head\(features\(x\)\)"),
    ],
)
def test_networks_that_are_refused(name, words):
    with pytest.raises(ArgumentError, match=words):
        build(_own(name), (5,), 1)


def test_batch_norm_without_statistics_is_refused():
    with pytest.raises(ArgumentError, match="depends on the other records of its batch"):
        build(_own("BatchNorm", track=False), (5,), 1)


def test_outputs_of_another_number_are_refused():
    with pytest.raises(ArgumentError, match=r"returned \(4, 1\) .*expected \(4, 3\), logits"):
        build(_own("Plain"), (5,), 3)


@pytest.mark.parametrize(
    ("module", "arguments", "words"),
    [
        ("no_such_package.nets:Net", {}, "cannot be imported .*PYTHONPATH"),
        ("own_networks:Nobody", {}, "has no class Nobody"),
        ("own_networks:not_a_class", {}, "has no class not_a_class that is a torch.nn.Module"),
        ("pathlib:Path", {}, "has no class Path that is a torch.nn.Module"),
        ("own_networks:Plain", {"depth": 3}, r"cannot be made with arguments \['depth'\].*TypeErr"),
    ],
)
def test_classes_that_cannot_be_had(module, arguments, words):
    with pytest.raises(ConfigError, match=words):
        build(OwnSettings(module=module, arguments=arguments), (5,), 1)


@pytest.mark.parametrize("name", ["Plain", "InTwo"])
def test_trained_as_any_other_network(name):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 5)).astype(np.float32), rng.integers(0, 2, 40)
    block = {"model": _own(name).model_dump(), "epochs": 20, "batch_size": 8}
    settings = TrainSettings.model_validate(block)

    trainers = [
        TorchTrainer(
            x, y, task="binary", n_classes=2, n_audited=40, expected_members=20.0,
            settings=settings, performance=Performance(models_at_once=k, device="cpu"),
        )
        for k in (1, 2)
    ]  # fmt: skip
    members = masks.balanced(4, 40)[:2]
    both = trainers[1].fit(members, [1, 2])
    alone = np.concatenate([trainers[0].fit(members[i : i + 1], [1 + i]) for i in range(2)])
    np.testing.assert_allclose(both, alone, atol=1e-4)
    assert len(trainers[0].describe()["source_sha256"]) == 64
    assert trainers[0].describe()["settings"]["model"]["module"] == f"own_networks:{name}"
