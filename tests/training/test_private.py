"""The loop with noise: who is in a batch, how noise is added, and what is left without it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from confide.errors import ArgumentError
from confide.training import Performance, TorchTrainer, TrainSettings, augment, private
from confide.training.clipped import row_gradients
from confide.training.loop import Dice, drawn
from confide.training.losses import losses
from confide.training.private import Noise, Secret, Units, packed, train_private
from confide.training.step import optimizer_of

CPU = torch.device("cpu")
PATIENT = np.repeat(np.arange(30), np.tile([1, 2, 3], 10))  # 60 records
BLOCK = {
    "model": {"width": 8, "depth": 1},
    "epochs": 2,
    "batch_size": 10,
    "ema": 0.0,
    "optimizer": {"lr": 0.05, "momentum": 0.5},
}


def _trainer(block=None, performance=None, **more):
    rng = np.random.default_rng(0)
    return TorchTrainer(
        rng.normal(size=(70, 4)).astype(np.float32),
        rng.integers(0, 2, 60),
        task="binary",
        n_classes=2,
        n_audited=60,
        expected_members=30,
        settings=TrainSettings.model_validate(BLOCK | (block or {})),
        performance=Performance.model_validate({"device": "cpu"} | (performance or {})),
        **{"patient": PATIENT} | more,
    )


def _noise(**changes):
    plain = {"clip": 1e6, "scale": 0.0, "rate": 0.3, "expected": 10.0, "patient": None}
    return Noise(**plain | changes)


def _private(trainer, rows, noise, entropy=5, seeds=(1,)):
    return train_private(
        trainer._network,
        trainer._records,
        [torch.from_numpy(r) for r in rows],
        seeds,
        trainer._settings,
        trainer._plan,
        noise,
        secret=Secret(CPU, entropy),
    )


@pytest.mark.parametrize("patient", [None, PATIENT], ids=["record", "patient"])
def test_every_unit_is_sampled_on_its_own_at_the_rate(patient):
    rows = np.arange(0, 60, dtype=np.int64)
    units, rng = Units(rows, patient), np.random.default_rng(0)
    n_units, n = (60 if patient is None else 30), 4000
    seen = np.zeros((n, n_units), dtype=bool)
    for i in range(n):
        chosen, sizes = units.sample(0.2, rng)
        assert sizes.sum() == len(chosen) == len(set(chosen))
        owner = chosen if patient is None else patient[chosen]
        seen[i, np.unique(owner)] = True
        if patient is not None:  # all records of a patient or none
            assert (
                np.bincount(owner, minlength=30)[seen[i]] == np.bincount(patient)[seen[i]]
            ).all()
    error = np.sqrt(0.2 * 0.8 / n)
    assert (abs(seen.mean(axis=0) - 0.2) < 4.5 * error).all()
    total = seen.sum(axis=1)
    assert total.var() == pytest.approx(0.2 * 0.8 * n_units, rel=0.1)  # independent tosses
    pairs = np.corrcoef(seen.T.astype(float))[np.triu_indices(n_units, 1)]
    assert abs(pairs).max() < 5 / np.sqrt(n)


@pytest.mark.parametrize("blocks", [(3, 1), (2, 5), (1, 3), (100, 4)])
def test_chunks_hold_the_whole_batch_and_cut_no_unit(blocks):
    rng = np.random.default_rng(1)
    sizes = rng.integers(1, min(blocks[1], 3) + 1, 17)
    rows = rng.permutation(1000)[: sizes.sum()]
    found, unit = packed(rows, sizes, blocks)
    assert found.shape == unit.shape
    assert found.shape[1:] == blocks
    used = unit >= 0
    assert sorted(found[used]) == sorted(rows)
    assert (found[~used] == 0).all()
    assert (np.bincount(unit[used]) == sizes).all()
    for one in range(17):
        assert len({tuple(at[:2]) for at in np.argwhere(unit == one)}) == 1


def test_an_empty_batch_is_a_chunk_of_padding():
    found, unit = packed(np.empty(0, np.int64), np.empty(0, np.int64), (2, 3))
    assert found.shape == (1, 2, 3)
    assert (unit == -1).all()


@pytest.mark.parametrize("patient", [None, PATIENT], ids=["record", "patient"])
def test_without_noise_and_clipping_it_is_plain_descent_on_the_same_batches(patient):
    trainer, rows = _trainer(), np.arange(0, 40, dtype=np.int64)
    found = _private(trainer, [rows], _noise(patient=patient))
    network, records = trainer._network, trainer._records
    weights = drawn(network, [Dice.of(1)])
    network.load_state_dict({name: w[0] for name, w in weights.items()})
    own = dict(network.named_parameters())
    optimizer = optimizer_of(trainer._settings, list(own.values()))
    units, secret = Units(rows, patient), Secret(CPU, 5)
    for step in range(1, trainer._plan.steps + 1):
        chosen, _ = units.sample(0.3, secret.order)
        logits = network(records.inputs[chosen])[None]
        loss = losses(logits, records.label[chosen][None], "binary").sum() * len(chosen) / 10.0
        rate = 0.05 * trainer._settings.schedule.factor(step / trainer._plan.steps)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for name, w in own.items():
        torch.testing.assert_close(found[name][0], w.detach(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("patient", [None, PATIENT], ids=["record", "patient"])
def test_batches_in_many_chunks_give_the_same(patient, monkeypatch):
    trainer, rows = _trainer(), [np.arange(40), np.arange(20, 60)]
    noise = _noise(patient=patient, clip=0.1)
    wanted = _private(trainer, rows, noise, seeds=(1, 2))
    length = 1 if patient is None else 3
    monkeypatch.setattr(private, "_blocks", lambda *_: (2, length))
    found = _private(trainer, rows, noise, seeds=(1, 2))
    for name, w in wanted.items():
        torch.testing.assert_close(found[name], w, rtol=1e-3, atol=1e-5)


def test_noise_has_the_size_that_was_accounted_for():
    block = {"optimizer": {"lr": 1.0, "momentum": 0.0, "weight_decay": 0.0}, "batch_size": 30}
    block |= {"epochs": 1, "schedule": {"name": "constant", "warmup": 0.0}}
    trainer = _trainer(block | {"model": {"width": 64, "depth": 2}})
    assert trainer._plan.steps == 1
    rows, seeds = [np.arange(60)] * 2, (1, 2)
    first = _private(trainer, rows, _noise(clip=0.5, scale=0.0), seeds=seeds)
    noisy = _private(trainer, rows, _noise(clip=0.5, scale=3.0), seeds=seeds)
    moved = torch.cat([(noisy[n] - first[n]).flatten(1) for n in first], dim=1)
    wanted = 3.0 * 0.5 / 10.0  # noise x clip / expected number of units
    n = moved.numel()
    assert float(moved.std()) == pytest.approx(wanted, rel=4 / np.sqrt(2 * n))
    assert abs(float(moved.mean())) < 4 * wanted / np.sqrt(n)
    assert abs(float(torch.corrcoef(moved)[0, 1])) < 4 * np.sqrt(2 / n)  # of two models


def test_one_step_moves_by_the_clipping_norm_over_the_expected_number_at_most():
    """Adding one patient to the members, on the same random numbers of all others."""
    block = {"optimizer": {"lr": 1.0, "momentum": 0.0, "weight_decay": 0.0}, "batch_size": 30}
    trainer = _trainer(block | {"epochs": 1, "schedule": {"name": "constant", "warmup": 0.0}})
    trainer._records.inputs[57:60] *= 1e4  # the last patient, with three records
    noise = _noise(patient=PATIENT, clip=0.5, rate=1.0)
    with_, without = (_private(trainer, [np.arange(n)], noise) for n in (60, 57))
    moved = torch.cat([(with_[n] - without[n]).flatten() for n in with_])
    assert 0 < float(moved.norm()) <= 0.5 / 10.0 * (1 + 1e-4)


def test_random_numbers_are_new_in_every_training():
    block = {"privacy": {"unit": "patient", "epsilon": 8.0, "delta": 1e-2}}
    trainer, members = _trainer(block), np.ones((1, 60), dtype=bool)
    first, second = trainer.fit(members, [3]), trainer.fit(members, [3])
    assert not np.array_equal(first, second)
    state = torch.get_rng_state()
    trainer.fit(members, [3])
    assert torch.equal(state, torch.get_rng_state())


def test_who_is_no_member_is_not_touched():
    rows = np.arange(40)
    one, other = _trainer(), _trainer()
    other._records.inputs[40:] = 7.0
    noise = _noise(patient=PATIENT, clip=1.0, scale=1.0)
    first, second = _private(one, [rows], noise), _private(other, [rows], noise)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("unit", ["record", "patient"])
def test_a_trainer_says_what_it_guarantees(unit):
    trainer = _trainer({"privacy": {"unit": unit, "epsilon": 8.0, "delta": 1e-2}})
    found, noise = trainer.privacy, trainer._noise
    assert found["epsilon"] <= 8.0
    assert (found["steps"], found["most_records"]) == (6, 3)
    assert found["rate"] == noise.rate == pytest.approx(1 / 3)
    assert noise.scale == found["noise"]
    assert noise.expected == pytest.approx(10.0 if unit == "record" else 5.0)
    assert (noise.patient is None) == (unit == "record")
    assert _trainer().privacy is None


@pytest.mark.parametrize("unit", ["record", "patient"])
def test_a_trainer_describes_the_mechanism_and_the_patients(unit):
    block = {"privacy": {"unit": unit, "epsilon": 8.0, "delta": 1e-2}}
    other = PATIENT.copy()
    other[[0, 59]] = other[[59, 0]]
    first = _trainer(block).describe()["privacy"]
    assert first == _trainer(block).describe()["privacy"]
    assert first["noise"] == _trainer(block).privacy["noise"]
    assert (first["unit"], first["steps"], first["most_records"]) == (unit, 6, 3)
    assert first["rate"] == pytest.approx(1 / 3)
    assert _trainer(block, patient=other).describe()["privacy"] != first
    assert "privacy" not in _trainer().describe()


def test_dev_patients_may_choose_the_epoch():
    rng = np.random.default_rng(4)
    dev = rng.normal(size=(8, 4)).astype(np.float32), rng.integers(0, 2, 8)
    privacy = {"unit": "patient", "epsilon": 8.0, "delta": 1e-2}
    trainer = _trainer({"privacy": privacy, "dev": {}}, dev=dev)
    found = trainer.fit_whole(np.ones((1, 60), dtype=bool), [1])
    assert found.epochs.shape == (1,)
    assert found.epochs[0] in (1, 2)


def test_what_voids_the_guarantee_is_refused():
    privacy = {"privacy": {"unit": "record", "epsilon": 8.0, "delta": 1e-2}}
    for extra, words in (
        ({"mixup": 0.2}, "privacy and mixup=0.2 cannot be together: it mixes records"),
        ({"balance": True}, "privacy and balance=True cannot be together.* set balance: false"),
        ({"trace": True}, "gives away the loss of every record"),
        ({"dropout": 0.1}, "set dropout: 0"),
    ):
        with pytest.raises(ValueError, match=words):
            TrainSettings.model_validate(BLOCK | privacy | extra)
    with pytest.raises(ArgumentError, match=r"set performance\.precision: auto or float32"):
        _trainer(privacy, {"precision": "bfloat16"})
    with pytest.raises(ArgumentError, match=r"Expected patient of shape \(60\)"):
        _trainer(privacy, patient=PATIENT[:5])
    with pytest.raises(ArgumentError, match=r"needs patient, .* give patient=np\.arange"):
        _trainer(privacy, patient=None)


def test_batch_norm_is_refused(monkeypatch):
    network = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    privacy = TrainSettings.model_validate(
        {"privacy": {"unit": "record", "epsilon": 8.0, "delta": 1e-2}}
    ).privacy
    with pytest.raises(ArgumentError, match="without batch norm, but 1 is a BatchNorm1d"):
        private.noise_of(privacy, network, _trainer()._plan, 30, 60, PATIENT)


def _image_trainer(augment):
    rng = np.random.default_rng(0)
    return TorchTrainer(
        rng.integers(0, 256, (12, 1, 16, 16), dtype=np.uint8),
        rng.integers(0, 2, 12),
        task="binary",
        n_classes=2,
        n_audited=12,
        expected_members=6,
        settings=TrainSettings.model_validate(
            {
                "model": {"name": "small_cnn", "width": 4},
                "epochs": 1,
                "batch_size": 3,
                "augment": augment,
                "privacy": {"unit": "patient", "epsilon": 8.0, "delta": 1e-2},
            }
        ),
        performance=Performance(device="cpu", models_at_once=2),
        patient=np.arange(12) // 2,
    )


def test_images_are_trained_by_the_gradients_of_single_records():
    trainer = _image_trainer("weak")
    members = np.repeat([[True], [False]], 6, axis=0).reshape(1, 12).repeat(2, axis=0)
    assert np.isfinite(trainer.fit(members, [1, 2])).all()


@pytest.mark.parametrize("dropped", [0, 7, 11])
def test_one_record_less_changes_the_sum_by_the_clipping_norm_at_most_with_augmentation(dropped):
    """Given the changes of all other images, which depend on nothing else in the batch."""
    trainer = _image_trainer("strong")
    records = trainer._records
    weights = drawn(trainer._network, [Dice.of(1)])
    weights = {name: w.requires_grad_() for name, w in weights.items()}
    gradients, chance = row_gradients(trainer._network, "binary"), Secret(CPU, 5).chances(12)

    def inputs(rows):
        return augment.apply(records.standardised(rows), chance[rows], "strong")

    def summed(rows):
        batch = [packed(rows, np.ones_like(rows), (4, 1))]
        return private._clipped_sums(
            gradients, weights, inputs, records.label, batch, (4, 1), 0.01, tf32=False
        )

    rows = np.arange(12)
    all_, fewer = summed(rows), summed(np.delete(rows, dropped))
    moved = torch.cat([(all_[n] - fewer[n]).flatten() for n in all_])
    assert float(moved.norm()) == pytest.approx(0.01, rel=0.01)
    assert float(moved.norm()) <= 0.01 * (1 + 1e-4)


def test_images_are_changed_by_secret_numbers_each_on_its_own():
    records, rows = _image_trainer("strong")._records, torch.zeros(50, dtype=torch.int64)
    found = [private._inputs(records, "strong", Secret(CPU), rows) for _ in range(2)]
    images = torch.cat(found).flatten(1)
    assert len(torch.unique(images, dim=0)) == 100  # no two copies of one record alike
    chance = Secret(CPU).chances(20_000)
    assert 0 <= float(chance.min()) < float(chance.max()) < 1
    assert float((chance.mean(dim=0) - 0.5).abs().max()) < 5 / np.sqrt(12 * 20_000)
    off_diagonal = torch.corrcoef(chance.T) - torch.eye(6)
    assert float(off_diagonal.abs().max()) < 5 / np.sqrt(20_000)


@pytest.mark.gpu
@pytest.mark.parametrize("unit", ["record", "patient"])
def test_a_gpu_takes_the_same_steps_without_noise(unit):
    patient = PATIENT if unit == "patient" else None
    rows, found = np.arange(40), {}
    for device in ("cpu", "cuda"):
        trainer = _trainer({}, {"device": device, "precision": "float32"})
        found[device] = train_private(
            trainer._network,
            trainer._records,
            [torch.from_numpy(rows)],
            [1],
            trainer._settings,
            trainer._plan,
            _noise(patient=patient, clip=0.1),
            secret=Secret(torch.device(device), 5),
        )
    for name, w in found["cpu"].items():
        torch.testing.assert_close(found["cuda"][name].cpu(), w, rtol=1e-3, atol=1e-4)
