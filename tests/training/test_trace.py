"""Loss traces against a plain loop: another pass over all records after each epoch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from confide import masks
from confide.errors import TrainingError
from confide.models import build
from confide.training import Performance, TorchTrainer, TrainSettings
from confide.training.forward import loss_function
from confide.training.loop import train
from confide.training.losses import losses
from confide.training.plan import Plan
from confide.training.records import Records
from confide.training.trace import LossTraces, record_losses

N_ALL, N_AUDITED = 50, 40
TABLE = {"model": {"width": 16, "depth": 1}, "epochs": 5, "batch_size": 8, "trace": True}
IMAGES = {
    "model": {"name": "small_cnn", "width": 4},
    "epochs": 4,
    "batch_size": 8,
    "augment": "strong",
    "views": 2,
    "trace": True,
}


def _data(block, task, seed=0):
    rng = np.random.default_rng(seed)
    if "augment" in block:
        inputs = rng.integers(0, 256, (N_ALL, 1, 16, 16), dtype=np.uint8)
    else:
        inputs = rng.normal(size=(N_ALL, 5)).astype(np.float32)
    label = {
        "binary": rng.integers(0, 2, N_AUDITED),
        "multiclass": rng.integers(0, 3, N_AUDITED),
        "multilabel": rng.choice([0.0, 1.0, np.nan], (N_AUDITED, 3)),
    }[task]
    if task == "multilabel":
        label[4] = np.nan
    return inputs, label


def _trainer(block, task="binary", **performance):
    inputs, label = _data(block, task)
    return TorchTrainer(
        inputs,
        label,
        task=task,
        n_classes=2 if task == "binary" else 3,
        n_audited=N_AUDITED,
        expected_members=N_AUDITED / 2,
        settings=TrainSettings.model_validate(block),
        performance=Performance.model_validate({"device": "cpu"} | performance),
    )


def _plain_loss(logits, y, task):
    if task == "multiclass":
        return functional.cross_entropy(logits, torch.as_tensor(y)).item()
    if task == "binary":
        return functional.binary_cross_entropy_with_logits(logits[0], torch.tensor(float(y))).item()
    known = ~np.isnan(y)
    if not known.any():
        return np.nan
    target = torch.as_tensor(y[known], dtype=torch.float32)
    return functional.binary_cross_entropy_with_logits(logits[known], target).item()


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
@pytest.mark.parametrize("block", [TABLE, IMAGES], ids=["table", "images"])
def test_ranges_are_those_of_a_plain_loop(block, task):
    """One record at a time, of the weights as they are and the records as they are."""
    settings = TrainSettings.model_validate(block)
    inputs, label = _data(block, task)
    n_classes = 2 if task == "binary" else 3
    records = Records.on(torch.device("cpu"), inputs, label, task, n_classes, N_AUDITED)
    network = build(settings.model, records.shape, records.n_outputs)
    n = sum(p.numel() for p in network.parameters())
    plan = Plan.of(settings, Performance(), "cpu", records.shape, N_AUDITED / 2, n)
    x, epochs = records.standardised(slice(None)), []

    def look(weights):
        row = {name: w[0].detach() for name, w in weights.items()}
        logits = torch.func.functional_call(network, row, (x,)).detach()
        epochs.append([_plain_loss(logits[i], label[i], task) for i in range(N_AUDITED)])

    members = masks.balanced(4, N_AUDITED)[:1]
    rows = [torch.from_numpy(np.flatnonzero(members[0]))]
    loss_of = loss_function(network, task, half=False)
    train(network, loss_of, records, rows, [5], settings, plan, look)
    assert len(epochs) == settings.epochs
    low, high = np.percentile(np.array(epochs), [25, 75], axis=0)
    _, trace = _trainer(block, task).fit_traced(members, [5])
    assert trace.dtype == np.float32
    np.testing.assert_allclose(trace[0], high - low, rtol=2e-3, atol=2e-5)
    assert np.isnan(trace[0]).sum() == (np.isnan(label).all(axis=1).sum() if label.ndim > 1 else 0)


def test_a_trace_changes_no_model():
    members = masks.balanced(4, N_AUDITED)
    traced, plain = _trainer(TABLE), _trainer(TABLE | {"trace": False})
    assert traced.keeps_traces
    assert not plain.keeps_traces
    logits, trace = traced.fit_traced(members, range(4))
    same, none = plain.fit_traced(members, range(4))
    np.testing.assert_array_equal(logits, same)
    np.testing.assert_array_equal(logits, plain.fit(members, range(4)))
    assert trace.shape == (4, N_AUDITED)
    assert none is None


def test_a_trace_is_the_same_alone_in_company_and_again():
    members = masks.balanced(4, N_AUDITED)
    trainer = _trainer(IMAGES)
    together = trainer.fit_traced(members, range(4))[1]
    np.testing.assert_array_equal(together, trainer.fit_traced(members, range(4))[1])
    for i in range(4):
        alone = trainer.fit_traced(members[i : i + 1], [i])[1]
        np.testing.assert_allclose(alone[0], together[i], atol=1e-4)


def test_what_is_memorised_moves_most():
    """Random labels: members' losses fall, and without any step nothing moves."""
    members = masks.balanced(8, N_AUDITED)
    block = TABLE | {"model": {"width": 32, "depth": 1}, "epochs": 20, "batch_size": 4}
    assert (_trainer(block).fit_traced(members, range(8))[1] > 0).all()
    still = _trainer(block | {"optimizer": {"lr": 0.0}}).fit_traced(members, range(8))[1]
    assert (still == 0).all()


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
def test_losses_of_records_are_those_of_the_training(task):
    """Batches of one record: the training's own mean over a batch is the loss of the record."""
    label = torch.as_tensor(_data(TABLE, task)[1])
    label = label.float() if task == "multilabel" else label
    shape = (3, N_AUDITED, 1 if task == "binary" else 3)
    logits = 3 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    each = record_losses(logits, label, task)
    for i in range(N_AUDITED):
        y = label[i : i + 1].expand(3, 1, *label.shape[1:])
        alone = losses(logits[:, i : i + 1], y, task)
        if task == "multilabel" and label[i].isnan().all():
            assert each[:, i].isnan().all()
        else:
            torch.testing.assert_close(each[:, i], alone)


def test_parts_do_not_matter():
    inputs, label = _data(TABLE, "multilabel")
    settings = TrainSettings.model_validate(TABLE)
    records = Records.on(torch.device("cpu"), inputs, label, "multilabel", 3, N_AUDITED)
    network = build(settings.model, records.shape, 3)
    weights = {name: p.detach()[None] for name, p in network.named_parameters()}
    found = []
    for rows_at_once in (1, 7, 40, 1000):
        plan = Plan.of(settings, Performance(), "cpu", records.shape, 20.0, 100)
        traces = LossTraces(network, records, Plan(**{**vars(plan), "rows_at_once": rows_at_once}))
        for factor in (0.0, 1.0, 2.0):
            traces.add({name: factor * w for name, w in weights.items()})
        found.append(traces.ranges())
    for ranges in found[1:]:
        np.testing.assert_allclose(ranges, found[0], atol=1e-6)


def test_a_loss_that_is_not_finite_is_an_error():
    inputs, label = _data(TABLE, "multilabel")
    settings = TrainSettings.model_validate(TABLE)
    records = Records.on(torch.device("cpu"), inputs, label, "multilabel", 3, N_AUDITED)
    network = build(settings.model, records.shape, 3)
    plan = Plan.of(settings, Performance(), "cpu", records.shape, 20.0, 100)
    traces = LossTraces(network, records, plan)
    traces.add({name: p.detach()[None] for name, p in network.named_parameters()})
    with pytest.raises(TrainingError, match="not finite after epoch 2; lower"):
        traces.add({n: p.detach()[None] * np.nan for n, p in network.named_parameters()})
