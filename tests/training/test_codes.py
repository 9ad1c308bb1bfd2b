"""Training a classifier on codes: against a plain loop, and what it promises."""

from __future__ import annotations

import copy
import subprocess
import sys
import threading

import numpy as np
import pytest
import safetensors.torch
import torch
from pydantic import ValidationError
from sklearn.metrics import roc_auc_score

from confide.errors import ArgumentError, ConfigError, FolderError, TrainingError
from confide.models import DeepViTSettings, build_code_classifier, build_plain_classifier
from confide.models.layers import initialise_uniform
from confide.training.codes import (
    ArrayInputs,
    StreamInputs,
    epochs,
    fit,
    from_bytes,
    predict,
    to_bytes,
)
from confide.training.codes_settings import CodeTrainSettings, Plateau
from confide.training.device import device_of
from confide.training.settings import Performance

CPU = torch.device("cpu")
P, C = 6, 16
FAST = {"epochs": 6, "batch_size": 16, "optimizer": {"lr": 3e-3}, "model": {"head_width": 8}}


def _settings(**changes):
    return CodeTrainSettings.model_validate(FAST | changes)


def _codes(n=200, effect=1.0, seed=0, n_classes=2):
    """A class shows in four numbers of its own, in any one row of a code."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, n_classes, n)
    codes = rng.normal(size=(n, P, C)).astype(np.float32)
    row = rng.integers(0, P, n)
    for one in range(1, n_classes):
        at = np.flatnonzero(label == one)
        codes[at, row[at], 4 * one - 4 : 4 * one] += 4 * effect
    return codes, label


def _network(outputs=1):
    return build_code_classifier(DeepViTSettings(head_width=8), (P, C), outputs)


def _fit(
    codes, label, n_dev=50, network=None, inputs=None, progress=None, performance=None, **changes
):
    rows = np.arange(len(codes))
    network = network or _network()
    inputs = inputs or ArrayInputs(codes, CPU)
    settings = _settings(**changes)
    fitted = fit(
        network, inputs, label, rows[n_dev:], rows[:n_dev], settings, performance, progress=progress
    )
    return network, inputs, fitted


def _same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def test_learns_what_is_there():
    codes, label = _codes(400)
    network, inputs, _ = _fit(codes[:300], label[:300])
    test = ArrayInputs(codes, CPU)
    logits = predict(network, test, np.arange(300, 400))
    assert logits.shape == (100, 1)
    assert logits.dtype == np.float32
    assert roc_auc_score(label[300:], logits[:, 0]) > 0.95
    assert len(inputs) == 300


def test_finds_nothing_in_noise():
    codes, _ = _codes(1400, effect=0)
    label = np.random.default_rng(1).integers(0, 2, 1400)
    network, inputs, fitted = _fit(codes, label, n_dev=1000)
    dev = predict(network, inputs, np.arange(1000))
    train = predict(network, inputs, np.arange(1000, 1400))
    assert abs(roc_auc_score(label[:1000], dev[:, 0]) - 0.5) < 0.06
    last = fitted.history[-1]
    assert last.train_loss < last.dev_loss  # it did train: on what does not help
    assert train.shape == (400, 1)


def test_tells_more_than_two_classes():
    codes, label = _codes(400, n_classes=3)
    network, inputs, _ = _fit(codes, label, network=_network(3), epochs=10)
    logits = predict(network, inputs, np.arange(50))
    assert logits.shape == (50, 3)
    assert (logits.argmax(axis=1) == label[:50]).mean() > 0.8


def _plain_loop(codes, label, rows, settings):
    """Adam with L2 as Kingma and Ba write it, the loss from its definition."""
    order, start = (int(s) for s in np.random.SeedSequence(settings.seed).generate_state(2))
    network = _network()
    initialise_uniform(network, torch.Generator().manual_seed(start))
    weights = list(network.parameters())
    first = [torch.zeros_like(w) for w in weights]
    second = [torch.zeros_like(w) for w in weights]
    step, losses = 0, []
    for parts in epochs(label, rows, settings, np.random.default_rng(order)):
        total = 0.0
        for part in parts:
            z = network(torch.from_numpy(codes[part]))[:, 0]
            p = torch.sigmoid(z)
            y = torch.from_numpy(label[part]).float()
            loss = -(y * p.log() + (1 - y) * (1 - p).log()).mean()
            total += loss.item() * len(part)
            step += 1
            for w, m, v, g in zip(
                weights, first, second, torch.autograd.grad(loss, weights), strict=True
            ):
                g = g + settings.optimizer.weight_decay * w.detach()
                m.mul_(0.9).add_(0.1 * g)
                v.mul_(0.999).add_(0.001 * g * g)
                change = (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + 1e-8)
                w.data.sub_(settings.optimizer.lr * change)
        losses.append(total / sum(map(len, parts)))
    return network.state_dict(), losses


@pytest.mark.parametrize("balance", [True, False])
def test_steps_are_those_of_a_plain_loop(balance):
    codes, label = _codes(40)
    rows = np.arange(40)
    block = {"epochs": 2, "optimizer": {"lr": 1e-3, "weight_decay": 0.1}, "balance": balance}
    none = np.array([], dtype=np.int64)
    network = _network()
    fitted = fit(network, ArrayInputs(codes, CPU), label, rows, none, _settings(**block))
    wanted, losses = _plain_loop(codes, label, rows, _settings(**block))
    assert fitted.chosen_by == "last epoch"
    assert fitted.best_epoch == 2
    assert [e.train_loss for e in fitted.history] == pytest.approx(losses, rel=1e-5)
    assert [e.dev_loss for e in fitted.history] == [None, None]
    for name, values in wanted.items():
        torch.testing.assert_close(fitted.weights[name], values, atol=3e-5, rtol=1e-3)
    assert _same(network.state_dict(), fitted.weights)


def test_dev_loss_is_the_plain_mean_and_the_lowest_is_kept():
    codes, label = _codes(120, effect=0.4)
    network, inputs, fitted = _fit(codes, label, n_dev=37, epochs=15)
    losses = [e.dev_loss for e in fitted.history]
    assert fitted.chosen_by == "dev loss"
    assert fitted.best_epoch == 1 + int(np.argmin(losses))
    assert 1 < fitted.best_epoch < 15  # so that keeping the last would show
    z = predict(network, inputs, np.arange(37))[:, 0].astype(float)
    loss = np.mean(np.log1p(np.exp(-np.where(label[:37] == 1, z, -z))))
    assert min(losses) == pytest.approx(loss, rel=1e-5)
    assert [e.epoch for e in fitted.history] == list(range(1, 16))


def test_of_equal_losses_the_first_is_kept():
    codes, label = _codes()
    _, _, fitted = _fit(codes, label, optimizer={"lr": 0.0}, epochs=3)
    assert len({e.dev_loss for e in fitted.history}) == 1
    assert fitted.best_epoch == 1


def test_the_rate_falls_on_a_plateau():
    codes, label = _codes()
    plateau = {"factor": 0.5, "patience": 1}
    _, _, fitted = _fit(codes, label, optimizer={"lr": 1e-30}, epochs=6, schedule=plateau)
    assert [e.lr / 1e-30 for e in fitted.history] == pytest.approx([1, 1, 1, 0.5, 0.5, 0.25])
    constant = {"name": "constant"}
    _, _, fitted = _fit(codes, label, optimizer={"lr": 1e-30}, epochs=6, schedule=constant)
    assert {e.lr for e in fitted.history} == {1e-30}


def test_same_bits_twice_without_global_randomness():
    codes, label = _codes()
    before, before_np = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    network, _, one = _fit(codes, label)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], before_np)  # noqa: NPY002
    torch.rand(3)
    _, _, two = _fit(codes, label, network=network)  # what it held before does not matter
    assert _same(one.weights, two.weights)
    assert one.history == two.history
    _, _, other = _fit(codes, label, seed=1)
    assert not _same(one.weights, other.weights)


def test_classes_are_drawn_equally_often():
    label = np.array([0] * 900 + [1] * 90 + [2] * 10)
    rows = np.arange(1000)
    settings = _settings(epochs=20, batch_size=128)
    drawn = list(epochs(label, rows, settings, np.random.default_rng(0)))
    assert len(drawn) == 20
    for parts in drawn:
        assert [len(p) for p in parts] == [125] * 8
    flat = np.concatenate([np.concatenate(parts) for parts in drawn])
    counts = np.bincount(label[flat])
    assert np.abs(counts - 20_000 / 3).max() < 4 * np.sqrt(20_000 * 2 / 9)
    rare = np.bincount(flat, minlength=1000)[990:]
    assert np.abs(rare - 20_000 / 30).max() < 5 * np.sqrt(20_000 / 30)


def test_only_the_given_rows_are_drawn():
    label = np.array([0, 1] * 10)
    rows = np.array([3, 4, 9, 11, 16])
    for balance in (True, False):
        settings = _settings(epochs=30, batch_size=2, balance=balance)
        for parts in epochs(label, rows, settings, np.random.default_rng(0)):
            chosen = np.concatenate(parts)
            assert len(chosen) == 5
            assert np.isin(chosen, rows).all()
            assert balance or sorted(chosen) == sorted(rows)


def test_a_stream_gives_the_bits_of_an_array():
    codes, label = _codes()
    _, _, one = _fit(codes, label)
    inputs = StreamInputs(lambda rows: codes[rows], len(codes), (P, C), CPU)
    network, _, two = _fit(codes, label, inputs=inputs)
    assert _same(one.weights, two.weights)
    rows = np.array([5, 3, 3])
    assert np.array_equal(
        predict(network, inputs, rows), predict(network, ArrayInputs(codes, CPU), rows)
    )


def test_a_stream_reads_one_batch_ahead_in_one_other_thread():
    codes, _ = _codes(10)
    read, threads = [], set()

    def reader(rows):
        read.append(int(rows[0]))
        threads.add(threading.get_ident())
        return codes[rows]

    inputs = StreamInputs(reader, 10, (P, C), CPU)
    taken = inputs.batches(np.array([i]) for i in range(10))
    for i in range(4):
        assert torch.equal(next(taken), torch.from_numpy(codes[i : i + 1]))
        assert len(read) <= i + 2
    taken.close()
    assert len(read) <= 5
    assert len(threads) == 1
    assert threading.get_ident() not in threads
    assert list(inputs.batches([])) == []


def test_errors_of_reading_come_through():
    codes, label = _codes()

    def reader(rows):
        if 150 in rows:
            raise OSError("the disk is gone")
        return codes[rows]

    with pytest.raises(OSError, match="the disk is gone"):
        _fit(codes, label, inputs=StreamInputs(reader, 200, (P, C), CPU))
    wrong = StreamInputs(lambda rows: codes[rows].astype(np.float64), 200, (P, C), CPU)
    with pytest.raises(ArgumentError, match=r"float32 \(2, 6, 16\), got float64 \(2, 6, 16\)"):
        wrong.batch(np.array([0, 1]))


def test_arrays_become_float32():
    codes, _ = _codes(5)
    rows = np.array([4, 0, 4])
    for array in (codes, codes.astype(np.float16), codes[::-1][::-1], codes.swapaxes(1, 2)):
        array.setflags(write=False)
        batch = ArrayInputs(array, CPU).batch(rows)
        assert batch.dtype == torch.float32
        assert np.array_equal(batch, array[rows].astype(np.float32))
    images = np.random.default_rng(0).integers(0, 256, (5, 2, 4, 4), dtype=np.uint8)
    mean, scale = np.array([100.0, 20.0]), np.array([50.0, 3.0])
    inputs = ArrayInputs(images, CPU, mean=mean, scale=scale)
    wanted = (images[rows] - mean[:, None, None]) / scale[:, None, None]
    np.testing.assert_allclose(inputs.batch(rows), wanted, rtol=1e-5, atol=1e-6)
    signals = codes[:, :3]
    before = signals.copy()
    inputs = ArrayInputs(signals, CPU, mean=np.zeros(3), scale=np.full(3, 2.0), budget=0)
    np.testing.assert_allclose(inputs.batch(rows), signals[rows] / 2)
    assert np.array_equal(signals, before)
    assert inputs.shape == (3, C)


@pytest.mark.parametrize(
    ("array", "changes", "message"),
    [
        (np.zeros((3, 2, 2)), {}, "float32, float16 or uint8.*got float64"),
        (np.zeros((0, 2), np.float32), {}, "none of them empty"),
        (np.zeros(3, np.float32), {}, r"got float32 \(3,\)"),
        (np.zeros((3, 2, 4), np.uint8), {"mean": np.zeros(3)}, "Expected mean as 2 finite"),
        (np.zeros((3, 2, 4), np.uint8), {"scale": np.zeros(2)}, "above 0, got"),
        (np.zeros((3, 1, 4), np.uint8), {"scale": np.array([np.nan])}, "Expected scale as 1"),
    ],
)
def test_bad_arrays_are_refused(array, changes, message):
    with pytest.raises(ArgumentError, match=message):
        ArrayInputs(array, CPU, **changes)


def test_the_plain_baseline_trains_and_keeps_its_statistics():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 160)
    images = rng.integers(0, 100, (160, 1, 16, 16), dtype=np.uint8)
    images[label == 1, :, 4:8, 4:8] += 100
    inputs = ArrayInputs(images, CPU, mean=np.array([50.0]), scale=np.array([30.0]))
    network = build_plain_classifier(
        DeepViTSettings(head_width=8), (1, 16, 16), 1, patch=4, width=24, private_depth=2
    )
    _, _, fitted = _fit(images, label, network=network, inputs=inputs, optimizer={"lr": 1e-2})
    rows = np.arange(50)
    one = predict(network, inputs, rows)
    assert roc_auc_score(label[:50], one[:, 0]) > 0.95
    assert any("running_var" in name for name in fitted.weights)
    np.testing.assert_allclose(predict(network, inputs, rows, batch_size=7), one, atol=1e-4)
    back = copy.deepcopy(network)
    initialise_uniform(back, torch.Generator().manual_seed(9))
    back.load_state_dict(from_bytes(to_bytes(fitted.weights), back))
    assert np.array_equal(predict(back, inputs, rows), one)


def test_bfloat16_is_near_float32():
    codes, label = _codes()
    network, inputs, one = _fit(codes, label, epochs=2)
    half = Performance(precision="bfloat16")
    _, _, two = _fit(codes, label, epochs=2, performance=half)
    assert not _same(one.weights, two.weights)
    assert {w.dtype for w in two.weights.values()} == {torch.float32}
    assert two.history[-1].dev_loss == pytest.approx(one.history[-1].dev_loss, rel=0.05)
    assert predict(network, inputs, np.arange(5), half).dtype == np.float32


def test_progress_is_told():
    told = []
    codes, label = _codes()
    _fit(codes, label, epochs=3, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_divergence_is_an_error():
    codes, label = _codes()
    with pytest.raises(TrainingError, match=r"not finite. Lower train.optimizer.lr \(now 1e\+30\)"):
        _fit(codes, label, optimizer={"lr": 1e30})
    network, inputs, _ = _fit(codes, label, epochs=1)
    codes[7, 0, 0] = np.inf
    with pytest.raises(TrainingError, match="logits of record 7 are not finite"):
        predict(network, inputs, np.array([3, 7]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": np.zeros(19, int)}, r"Expected label of shape \(20\), got \(19,\)"),
        ({"label": np.arange(20) % 2 * 1.0}, "class indices .integers., got float64"),
        ({"label": np.arange(20) % 2 - 1}, "Expected label of at least 0, got -1"),
        ({"label": np.arange(20) % 3}, r"Expected label in \[0, 1\] for a network with 1 outputs"),
        ({"label": np.zeros(20, int)}, r"two classes or more among the 15 .* got \[0\]"),
        ({"train_rows": np.arange(5, 21)}, r"Expected train_rows in \[0, 19\], got 5 to 20"),
        ({"train_rows": np.ones(20, bool)}, "Expected train_rows as integers"),
        ({"train_rows": np.array([], int)}, "among the 0 rows"),
        ({"dev_rows": np.arange(-1, 3)}, r"Expected dev_rows in \[0, 19\], got -1 to 2"),
        ({"dev_rows": np.arange(7)}, r"Row 5 is in train_rows and in dev_rows \(2 are\)"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    codes, _ = _codes(20)
    good = {
        "label": np.arange(20) % 2,
        "train_rows": np.arange(5, 20),
        "dev_rows": np.arange(5),
    }
    with pytest.raises(ArgumentError, match=message):
        fit(_network(), ArrayInputs(codes, CPU), **good | change, settings=_settings())


def test_weights_come_back_or_are_refused():
    network = _network()
    weights = {name: w.clone() for name, w in network.state_dict().items()}
    data = to_bytes(weights)
    assert _same(from_bytes(data, network), weights)
    for cut in (0, 5, 100, len(data) - 1):
        with pytest.raises(FolderError, match=r"Cannot read w\.safetensors"):
            from_bytes(data[:cut], network, where="w.safetensors")
    with pytest.raises(FolderError, match="Cannot read"):
        from_bytes(b"\x80\x04not a tensor", network)
    wide = build_code_classifier(DeepViTSettings(head_width=4), (P, C), 1)
    with pytest.raises(FolderError, match=r"'last\.attention\.key\.weight' in the weights as"):
        from_bytes(data, wide)
    for change, message in (
        ({"more": torch.zeros(1)}, "'more' in the weights as nothing"),
        ({"token": weights["token"].double()}, "as float32 .16,., found float64"),
        ({"token": weights["token"] * np.nan}, "'token' .* not finite"),
    ):
        with pytest.raises(FolderError, match=message):
            from_bytes(safetensors.torch.save(weights | change), network)
    del weights["token"]
    with pytest.raises(FolderError, match="found nothing"):
        from_bytes(to_bytes(weights), network)


@pytest.mark.parametrize(
    "block",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"optimizer": {"lr": -1}},
        {"optimizer": {"name": "sgd"}},
        {"schedule": {"name": "cosine"}},
        {"schedule": {"factor": 1.0}},
        {"seed": -1},
        {"epoch": 3},
    ],
)
def test_bad_settings_are_refused(block):
    with pytest.raises(ValidationError):
        CodeTrainSettings.model_validate(block)


def test_settings_are_those_of_the_paper_and_need_no_torch():
    settings = CodeTrainSettings.model_validate({"schedule": {"patience": 3}})
    assert settings.schedule == Plateau(patience=3)
    assert (settings.epochs, settings.batch_size) == (25, 128)
    assert (settings.optimizer.lr, settings.optimizer.weight_decay) == (1e-4, 1e-3)
    assert CodeTrainSettings.model_validate(settings.model_dump(mode="json")) == settings
    code = "import sys, confide.training.codes_settings; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_device_is_the_one_asked_for():
    assert device_of(Performance(device="cpu")) == CPU
    if not torch.cuda.is_available():
        assert device_of(Performance()) == CPU
        with pytest.raises(ConfigError, match="no CUDA device was found"):
            device_of(Performance(device="cuda"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_cuda_device_gives_about_the_same():
    codes, label = _codes()
    _, _, one = _fit(codes, label, epochs=2)
    cuda = torch.device("cuda")
    for inputs in (
        ArrayInputs(codes, cuda),
        ArrayInputs(codes, cuda, budget=0),
        StreamInputs(lambda rows: codes[rows], len(codes), (P, C), cuda),
    ):
        network, _, two = _fit(codes, label, epochs=2, inputs=inputs)
        assert {w.device.type for w in two.weights.values()} == {"cpu"}
        assert two.history[-1].dev_loss == pytest.approx(one.history[-1].dev_loss, rel=0.02)
        assert predict(network, inputs, np.arange(5)).shape == (5, 1)
