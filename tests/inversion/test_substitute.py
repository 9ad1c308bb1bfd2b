"""The trainable encoder has the layers of the encoder that it stands in for."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from confide.encoders.base import build
from confide.encoders.key import Key
from confide.encoders.settings import LinearSettings, NeuraCryptSettings
from confide.errors import TrainingError
from confide.inversion import substitute as sub
from confide.inversion.base import Architecture, ArrayCodes, CodesOnly, Work

CPU = torch.device("cpu")
SHAPES = [(1, 16, 24), (3, 16, 16), (2, 32)]
SETTINGS = [
    LinearSettings(patch=8, width=12),
    NeuraCryptSettings(patch=8, width=12, private_depth=0),
    NeuraCryptSettings(patch=8, width=12, private_depth=2),
    NeuraCryptSettings(patch=8, width=12, private_depth=1, position=False),
]


def records(shape, n=9, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def made(settings, shape):
    return sub.untrained(Architecture(settings=settings, shape=shape), 1, CPU)


@torch.no_grad()
def with_weights_of(encoder, settings):
    """A substitute with the weights of a frozen encoder, its norms folded into its layers."""
    network = made(settings, encoder.shape)
    layers = [(network.first, getattr(encoder, "_first", getattr(encoder, "_layer", None)))]
    if network.last is not None:
        layers += [
            *zip(network.hidden, encoder._hidden, strict=True),
            (network.last, encoder._mixer),
        ]
    for mine, theirs in layers:
        mine.weight.copy_(theirs.weight)
        mine.bias.copy_(theirs.bias)
    if network.position is not None:
        network.position.copy_(encoder._position)
    network.norms = nn.ModuleList(nn.Identity() for _ in network.norms)
    return network.eval()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("settings", SETTINGS)
def test_it_can_be_the_encoder_itself(settings, shape):
    x = records(shape)
    settings = settings.model_copy(update={"shuffle": False})
    encoder = build(settings, shape, Key(bytes(32)))
    encoder.calibrate(x)
    network = with_weights_of(encoder, settings)
    standard = sub.standardiser(x, CPU)(x)
    with torch.no_grad():
        codes = network(standard.batch(np.arange(len(x)))).numpy()
    np.testing.assert_allclose(codes, encoder(x), atol=2e-5)
    np.testing.assert_allclose(network.predict(standard), encoder(x).mean(axis=1), atol=2e-5)


def test_its_weights_are_drawn_as_those_of_an_encoder():
    settings = NeuraCryptSettings(patch=8, width=200, private_depth=1)
    network = made(settings, (1, 32, 32)).requires_grad_(False)
    hidden = network.hidden[0].weight
    assert float(hidden.abs().max()) == pytest.approx(200**-0.5, rel=1e-3)
    assert float(hidden.std()) == pytest.approx((3 * 200) ** -0.5, rel=0.02)
    assert float(network.position.std()) == pytest.approx(1, rel=0.05)
    assert torch.equal(made(settings, (1, 32, 32)).first.weight, network.first.weight)


def test_its_norms_are_those_of_the_batch_until_it_is_settled():
    settings = NeuraCryptSettings(patch=8, width=16, private_depth=2)
    network = made(settings, (1, 16, 16))
    x = records((1, 16, 16), n=40)
    standard = sub.standardiser(x, CPU)(x)
    network.train()
    with torch.no_grad():
        alone = network(standard.batch(np.arange(2)))
        beside = network(standard.batch(np.arange(40)))[:2]
    assert not torch.allclose(alone, beside, atol=1e-2)
    network.settle(standard)
    with torch.no_grad():
        alone = network(standard.batch(np.arange(2)))
        # All in one batch: the statistics of the batch are those of all.
        everything = network(standard.batch(np.arange(40)))
        torch.testing.assert_close(alone, everything[:2])
        torch.testing.assert_close(everything[:2], beside, rtol=1e-2, atol=5e-3)


def test_records_are_standardised_by_the_plaintexts():
    x = records((3, 16, 16), n=30)
    x[:, 2] = 7
    batch = sub.standardiser(x, CPU)(x).batch(np.arange(30))
    torch.testing.assert_close(batch[:, :2].mean(dim=(0, 2, 3)), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(batch[:, :2].std(dim=(0, 2, 3)), torch.ones(2), atol=1e-3, rtol=0)
    assert not batch[:, 2].any()


@dataclass
class Shy:
    """Codes that count what they are asked for."""

    values: np.ndarray
    most: int = 0

    @property
    def n_records(self):
        return len(self.values)

    @property
    def shape(self):
        return self.values.shape[1:]

    def codes(self, rows):
        out = self.values[rows]
        self.most = max(self.most, len(out))
        return out


def test_targets_are_codes_or_mean_rows_and_few_are_read_at_once(monkeypatch):
    values = np.random.default_rng(0).standard_normal((20, 4, 8), dtype=np.float32)
    monkeypatch.setattr(sub, "HELD", 100)
    monkeypatch.setattr(sub, "AT_ONCE", 100)
    rows = np.array([3, 1, 19])
    for shuffle in (True, False):
        settings = NeuraCryptSettings(patch=8, width=8, shuffle=shuffle)
        codes = Shy(values)
        known = CodesOnly(
            architecture=Architecture(settings=settings, shape=(1, 16, 16)), codes=codes
        )
        targets = sub.target_inputs(known, CPU)
        wanted = values[rows].mean(axis=1) if shuffle else values[rows]
        np.testing.assert_allclose(targets.batch(rows), wanted, atol=1e-6)
        assert codes.most <= 3


def test_draws_are_without_repetition_and_repeat_themselves():
    first = list(sub.draws(10, 4, seed=1, steps=300))
    assert all(len(np.unique(rows)) == 4 for rows in first)
    assert np.ptp(np.bincount(np.concatenate(first))) < 60
    again = list(sub.draws(10, 4, seed=1, steps=300))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert np.array_equal(next(sub.draws(3, 9, 0, 1)), np.arange(3))


def test_descent_reaches_a_minimum_and_stops_when_it_is_late():
    layer = nn.Linear(3, 3, bias=False)
    seen = []
    work = Work(progress=lambda *at: seen.append(at))
    notes = sub.descend(layer, lambda: (layer.weight - 2).square().sum(), work, steps=500, lr=0.1)
    assert notes == ()
    torch.testing.assert_close(layer.weight.detach(), torch.full((3, 3), 2.0))
    assert seen[-1] == (500, 500)
    late = sub.descend(layer, lambda: layer.weight.sum(), Work(seconds=0.0), steps=5, lr=0.1)
    assert late == (sub.LATE,)
    torch.testing.assert_close(layer.weight.detach(), torch.full((3, 3), 2.0))


def test_a_loss_that_is_not_finite_is_named():
    layer = nn.Linear(2, 2)
    with pytest.raises(TrainingError, match=r"nan at step 0; lower"):
        sub.descend(layer, lambda: layer.weight.sum() * np.nan, Work(), steps=3, lr=0.1)


def test_codes_in_memory_are_held():
    values = np.zeros((5, 4, 8), dtype=np.float32)
    assert type(sub.code_inputs(ArrayCodes(values), CPU)).__name__ == "ArrayInputs"
