"""The kept epoch against a plain loop that remembers every epoch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from confide.errors import ArgumentError, TrainingError
from confide.training import Performance, TorchTrainer, TrainSettings
from confide.training.dev import BestEpoch, dev_records, record_weights

N, N_DEV = 60, 30
BLOCK = {
    "model": {"width": 16, "depth": 1},
    "epochs": 8,
    "batch_size": 8,
    "ema": 0.3,
    "optimizer": {"lr": 0.3},
}
CLASSES = {"binary": 2, "multiclass": 3, "multilabel": 3}


def _data(task, seed=0):
    rng = np.random.default_rng(seed)
    n = N + N_DEV
    label = {
        "binary": rng.integers(0, 2, n),
        "multiclass": rng.choice(3, n, p=[0.6, 0.3, 0.1]),
        "multilabel": rng.choice([0.0, 1.0, np.nan], (n, 3), p=[0.2, 0.2, 0.6]),
    }[task]
    x = rng.normal(size=(n, 6)).astype(np.float32)
    x[:, 0] += np.nan_to_num(label if label.ndim == 1 else label[:, 0])
    return x, label


def _trainer(task, block=None, performance=None, dev=True, seed=0):
    x, y = _data(task, seed)
    return TorchTrainer(
        x[:N],
        y[:N],
        task=task,
        n_classes=CLASSES[task],
        n_audited=N,
        expected_members=N / 2,
        settings=TrainSettings.model_validate({"dev": {}} | (block or BLOCK)),
        performance=Performance.model_validate({"device": "cpu"} | (performance or {})),
        dev=(x[N:], y[N:]) if dev else None,
    )


MEMBERS = np.random.default_rng(1).random((4, N)) < 0.5


def _dev_loss(z, y, task, balance):
    """Mean over records, over classes, or over known labels."""
    z = z.astype(np.float64)
    if task == "multilabel":
        each = np.logaddexp(0, np.where(y == 1, -z, z))
        return each[~np.isnan(y)].mean()
    if task == "binary":
        z = np.concatenate([np.zeros_like(z), z], axis=1)
    each = -log_softmax(z, axis=1)[np.arange(len(y)), y]
    return np.mean([each[y == k].mean() for k in np.unique(y)]) if balance else each.mean()


def _epoch_by_epoch(task, block, monkeypatch):
    """What is found, and (epochs, models, N + N_DEV, outputs) logits after each epoch."""
    seen = []
    add, x = BestEpoch.add, torch.from_numpy(_data(task)[0])

    def spied(self, average):
        logits = []
        for i in range(len(next(iter(average.values())))):
            one = {name: w[i] for name, w in average.items()}
            logits.append(torch.func.functional_call(self._network, one, (x,)).detach().numpy())
        seen.append(np.stack(logits))
        add(self, average)

    monkeypatch.setattr(BestEpoch, "add", spied)
    found = _trainer(task, block).fit_whole(MEMBERS, range(4))
    monkeypatch.undo()
    return found, np.stack(seen)


@pytest.mark.parametrize(
    ("task", "balance"),
    [("binary", False), ("multiclass", False), ("multiclass", True), ("multilabel", False)],
)
def test_the_epoch_with_the_lowest_dev_loss_is_kept(task, balance, monkeypatch):
    block = BLOCK | {"balance": balance}
    found, seen = _epoch_by_epoch(task, block, monkeypatch)
    y = _data(task)[1][N:]
    losses = np.array([[_dev_loss(z[N:], y, task, balance) for z in models] for models in seen])
    assert len(losses) == 8
    assert found.epochs.tolist() == (losses.argmin(axis=0) + 1).tolist()
    assert len(set(found.epochs.tolist())) > 1
    assert found.epochs.dtype == np.int64
    for i, epoch in enumerate(found.epochs):
        np.testing.assert_allclose(found.logits[i, :, 0], seen[epoch - 1, i, :N], atol=1e-4)


def test_patience_stops_where_the_rule_says(monkeypatch):
    block = BLOCK | {"epochs": 12}
    _, seen = _epoch_by_epoch("binary", block, monkeypatch)
    y = _data("binary")[1][N:]
    losses = np.array([[_dev_loss(z[N:], y, "binary", False) for z in models] for models in seen])
    expected = []
    for column in losses.T:
        best = 0
        for epoch in range(1, 12):
            if column[epoch] < column[best]:
                best = epoch
            if epoch - best >= 2:
                break
        expected.append(best + 1)
    stopped, seen = _epoch_by_epoch("binary", block | {"dev": {"patience": 2}}, monkeypatch)
    assert stopped.epochs.tolist() == expected
    assert len(seen) == min(12, max(expected) + 2)  # until the last of them has stopped
    assert len(seen) < 12


@pytest.mark.parametrize("dev", [{}, {"patience": 1}])
def test_a_model_keeps_its_epoch_alone_and_in_any_company(dev):
    trainer = _trainer("binary", BLOCK | {"dev": dev, "dropout": 0.2, "mixup": 0.5})
    together = trainer.fit_whole(MEMBERS, range(4))
    turned = trainer.fit_whole(MEMBERS[::-1], range(4)[::-1])
    assert together.epochs.tolist() == turned.epochs[::-1].tolist()
    np.testing.assert_allclose(together.logits, turned.logits[::-1], atol=2e-3)
    for i in range(4):
        alone = trainer.fit_whole(MEMBERS[i : i + 1], [i])
        assert alone.epochs.tolist() == together.epochs[i : i + 1].tolist()
        np.testing.assert_allclose(alone.logits[0], together.logits[i], atol=2e-3)


def test_the_best_epoch_of_all_is_the_last_when_the_loss_only_falls():
    slow = BLOCK | {"optimizer": {"lr": 1e-3}, "epochs": 4}
    with_dev = _trainer("binary", slow).fit_whole(MEMBERS, range(4))
    assert with_dev.epochs.tolist() == [4] * 4
    last = _trainer("binary", slow | {"dev": None}, dev=False).fit_whole(MEMBERS, range(4))
    assert last.epochs is None
    assert np.array_equal(with_dev.logits, last.logits)  # looking changes nothing
    same = _trainer("binary", slow | {"dev": {"keep": "last"}}, dev=False)
    assert np.array_equal(same.fit(MEMBERS, range(4)), last.logits)


def test_dev_records_are_not_learnt_from_and_have_no_logits():
    x, y = _data("binary")
    still = BLOCK | {"epochs": 1}
    other = _trainer("binary", still)
    first = other.fit(MEMBERS, range(4))
    assert first.shape == (4, N, 1, 1)
    moved = TorchTrainer(
        x[:N],
        y[:N],
        task="binary",
        n_classes=2,
        n_audited=N,
        expected_members=N / 2,
        settings=TrainSettings.model_validate(still | {"dev": {}}),
        performance=Performance(device="cpu"),
        dev=(x[N:] * 3, 1 - y[N:]),
    )
    assert np.array_equal(first, moved.fit(MEMBERS, range(4)))


def test_a_stopped_model_that_diverges_hurts_nobody():
    """Alone it would have ended; in a stack it goes on, unseen."""
    trainer = _trainer("binary", BLOCK | {"dev": {"patience": 1}})
    best = BestEpoch(trainer._network, trainer._dev, trainer._settings, trainer._plan, 2)
    weights = {
        n: p.detach()[None].repeat(2, *[1] * p.ndim) for n, p in trainer._network.named_parameters()
    }
    best.add(weights)
    assert best.epochs.tolist() == [1, 1]
    best.add(weights)  # the same loss is not a lower one
    assert best.stopped.tolist() == [True, True]
    for w in weights.values():
        w[1] = torch.nan
    best.add(weights)
    assert best.epochs.tolist() == [1, 1]
    assert all(w.isfinite().all() for w in best.weights.values())
    fresh = BestEpoch(trainer._network, trainer._dev, trainer._settings, trainer._plan, 2)
    with pytest.raises(TrainingError, match=r"dev loss .* position 1 of 2 is not finite after"):
        fresh.add(weights)


@pytest.mark.parametrize("rows_at_once", [1, 7, 1000])
@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_dev_loss_does_not_depend_on_the_size_of_its_parts(task, rows_at_once):
    trainer = _trainer(task, BLOCK | {"balance": task == "multiclass"})
    plan = type(trainer._plan)(**{**vars(trainer._plan), "rows_at_once": rows_at_once})
    best = BestEpoch(trainer._network, trainer._dev, trainer._settings, plan, 1)
    weights = {n: p.detach()[None] for n, p in trainer._network.named_parameters()}
    x, y = _data(task)
    z = trainer._network(torch.from_numpy(x[N:])).detach().numpy()
    expected = _dev_loss(z, y[N:], task, trainer._settings.balance)
    assert best.losses(weights).tolist() == pytest.approx([expected], rel=1e-5)


def test_weights_of_records():
    records = _trainer("multiclass")._dev
    weight = record_weights(records, balance=True)
    totals = torch.zeros(3, dtype=torch.float64).index_add(0, records.label, weight)
    np.testing.assert_allclose(totals.numpy(), 1.0)
    labels = _trainer("multilabel")._dev
    known = (~np.isnan(_data("multilabel")[1][N:])).sum(axis=1)
    assert record_weights(labels, balance=False).tolist() == known.tolist()


def test_images_are_standardised_like_the_audited_ones():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 200, (30, 1, 16, 16), dtype=np.uint8), rng.integers(0, 2, 30)
    trainer = TorchTrainer(
        x[:20],
        y[:20],
        task="binary",
        n_classes=2,
        n_audited=20,
        expected_members=10,
        settings=TrainSettings.model_validate(
            {"model": {"name": "small_cnn", "width": 4}, "epochs": 2, "dev": {}, "batch_size": 5}
        ),
        performance=Performance(device="cpu"),
        dev=(x[20:], y[20:]),
    )
    got = trainer._dev.standardised(slice(None)).numpy()
    np.testing.assert_allclose(got, (x[20:] - x[:20].mean()) / x[:20].std(), atol=1e-5)
    assert trainer.fit_whole(np.arange(20)[None] < 10, [1]).epochs[0] in (1, 2)


def test_refusals():
    with pytest.raises(ArgumentError, match="keeps the best epoch, and none without; got none"):
        _trainer("binary", dev=False)
    with pytest.raises(ArgumentError, match="got some and dev=None"):
        _trainer("binary", BLOCK | {"dev": None})
    with pytest.raises(ArgumentError, match="got some and dev=Dev"):
        _trainer("binary", BLOCK | {"dev": {"keep": "last"}})
    with pytest.raises(ArgumentError, match=r"train\.balance needs one class a record"):
        _trainer("multilabel", BLOCK | {"balance": True})
    with pytest.raises(ArgumentError, match=r"train\.mixup mixes records of a batch"):
        _trainer("binary", BLOCK | {"mixup": 1.0, "batch_size": 1})
    audited = _trainer("multilabel")._records
    x, y = _data("multilabel")
    with pytest.raises(ArgumentError, match="None of the dev records has a known label"):
        dev_records(x[N:], np.full((N_DEV, 3), np.nan), audited)
    with pytest.raises(ArgumentError, match=r"like the audited ones, .* got .*\(5,\)"):
        dev_records(x[N:, 1:], y[N:], audited)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # torch's compiler
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_cuda_device_gives_what_the_cpu_gives():
    more = {"dropout": 0.2, "mixup": 0.5, "label_smoothing": 0.1, "balance": True, "epochs": 3}
    exact = {"precision": "float32", "models_at_once": 4}
    on_cpu = _trainer("multiclass", BLOCK | more, exact).fit_whole(MEMBERS, range(4))
    for changes in ({}, {"compile": True}):
        performance = exact | {"device": "cuda"} | changes
        on_cuda = _trainer("multiclass", BLOCK | more, performance).fit_whole(MEMBERS, range(4))
        assert on_cuda.epochs.tolist() == on_cpu.epochs.tolist()
        np.testing.assert_allclose(on_cuda.logits, on_cpu.logits, atol=5e-3)
