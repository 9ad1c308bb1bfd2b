"""The trainer as an audit sees it."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import roc_auc_score

from confide import masks
from confide.errors import ArgumentError, ConfigError, TrainingError
from confide.signals import signals
from confide.training import Performance, TorchTrainer, TrainSettings

SMALL = {"model": {"width": 32, "depth": 1}, "epochs": 20, "batch_size": 16}
CNN = {"model": {"name": "small_cnn", "width": 4}, "epochs": 2, "batch_size": 8}


def _trainer(inputs, label, block=None, performance=None, **changes):
    n = changes.get("n_audited", len(label))
    return TorchTrainer(
        inputs,
        label,
        **{"task": "binary", "n_classes": 2, "n_audited": n, "expected_members": n / 2} | changes,
        settings=TrainSettings.model_validate(SMALL if block is None else block),
        performance=Performance.model_validate({"device": "cpu"} | (performance or {})),
    )


def _noise(n=80, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 10)).astype(np.float32), rng.integers(0, 2, n)


def _images(n=40, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, 1, 16, 16), dtype=np.uint8), rng.integers(0, 2, n)


def test_learns_a_real_disease():
    x, y = load_breast_cancer(return_X_y=True)
    x = ((x - x.mean(axis=0)) / x.std(axis=0)).astype(np.float32)
    trainer = _trainer(x, y[:455], SMALL | {"batch_size": 64})
    logits = trainer.fit(masks.balanced(8, 455), range(8))
    assert logits.shape == (8, 569, 1, 1)
    assert logits.dtype == np.float32
    for z in logits:
        assert roc_auc_score(y[455:], z[455:, 0, 0]) > 0.97


def _gap(logits, label, members):
    """Mean signal of members minus that of the others, in standard errors over models."""
    signal = signals(logits[:, : members.shape[1]], label, "binary")[..., 0]
    gaps = [s[m].mean() - s[~m].mean() for s, m in zip(signal, members, strict=True)]
    return np.mean(gaps) / (np.std(gaps) / np.sqrt(len(gaps)) + 1e-12)


def test_random_labels_are_memorised_and_nothing_is_without_training():
    x, y = _noise()
    members = masks.balanced(16, 80)
    assert _gap(_trainer(x, y).fit(members, range(16)), y, members) > 20
    still = _trainer(x, y, SMALL | {"optimizer": {"lr": 0.0}})
    logits = still.fit(members, [5] * 16)
    # equal seeds and no step: who is in changes nothing
    assert np.array_equal(logits, np.repeat(logits[:1], 16, axis=0))


def test_no_gap_for_masks_that_were_not_used():
    x, y = _noise(seed=3)
    logits = _trainer(x, y).fit(masks.balanced(16, 80), range(16))
    assert abs(_gap(logits, y, masks.balanced(16, 80, seed=99))) < 4


def test_records_outside_of_a_model_do_not_touch_it():
    x, y = _noise()
    members = np.zeros((2, 60), dtype=bool)
    members[0, :30] = members[1, 10:40] = True  # nobody holds 40 to 59; 60 on are held out
    outside = np.r_[40:80]
    other_x, other_y = x.copy(), y[:60].copy()
    other_x[outside] = 7.0
    other_y[40:] = 1 - other_y[40:]
    first = _trainer(x, y[:60], n_audited=60).fit(members, [1, 2])
    second = _trainer(other_x, other_y, n_audited=60).fit(members, [1, 2])
    assert np.array_equal(first[:, :40], second[:, :40])
    assert not np.array_equal(first[:, 40:], second[:, 40:])


def test_images_outside_of_a_model_do_not_touch_it():
    x, y = _images()
    members = np.arange(30)[None] < 15
    other_x, other_y = x.copy(), y[:30].copy()
    # mirrored, because mean and sd of all audited images are shared by design
    other_x[15:30] = x[15:30, :, ::-1]
    other_x[30:] = 0
    other_y[15:] = 1 - other_y[15:]
    block = CNN | {"augment": "medium"}
    first = _trainer(x, y[:30], block, n_audited=30).fit(members, [1])
    second = _trainer(other_x, other_y, block, n_audited=30).fit(members, [1])
    assert np.array_equal(first[:, :15], second[:, :15])
    assert not np.array_equal(first[:, 15:], second[:, 15:])


@pytest.mark.parametrize(("block", "data"), [(SMALL, _noise), (CNN, _images)])
def test_global_random_states_are_neither_read_nor_changed(block, data):
    x, y = data()
    members = masks.balanced(2, len(y))
    results = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        before = torch.get_rng_state()
        results.append(_trainer(x, y, block, {"models_at_once": 2}).fit(members, [3, 4]))
        assert torch.equal(before, torch.get_rng_state())
        fresh = np.random.RandomState(seed).random()
        assert np.random.random() == fresh  # noqa: NPY002
    assert np.array_equal(results[0], results[1])


def test_a_trainer_keeps_nothing_from_one_fit_to_the_next():
    x, y = _noise()
    members = masks.balanced(4, 80)
    trainer = _trainer(x, y)
    first = trainer.fit(members[:2], [1, 2])
    trainer.fit(members[2:], [3, 4])
    assert np.array_equal(first, trainer.fit(members[:2], [1, 2]))


def test_inputs_are_left_as_they_were():
    x, y = _noise()
    before = x.copy(), y.copy()
    x.flags.writeable = False
    _trainer(x, y).fit(masks.balanced(2, 80), [1, 2])
    assert np.array_equal(x, before[0])
    assert np.array_equal(y, before[1])


def test_images_are_standardised_by_the_audited_ones():
    x, _ = _images()
    x = np.concatenate([x, x // 2, np.full_like(x, 9)], axis=1)
    y = np.zeros(30, dtype=np.int64)
    records = _trainer(x, y, CNN, n_audited=30)._records
    got = records.standardised(slice(None)).numpy()
    mean = x[:30, :2].mean(axis=(0, 2, 3), keepdims=True)
    sd = x[:30, :2].std(axis=(0, 2, 3), keepdims=True)
    np.testing.assert_allclose(got[:, :2], (x[:, :2] - mean) / sd, atol=1e-5)
    assert (got[:, 2] == 0).all()  # a constant channel


@pytest.mark.parametrize(
    ("task", "n_outputs"), [("binary", 1), ("multiclass", 4), ("multilabel", 4)]
)
def test_shape_of_logits(task, n_outputs):
    x, y = _images()
    label = {
        "binary": y,
        "multiclass": y + 2,
        "multilabel": np.where(np.eye(4)[y] == 0, np.nan, 1.0),
    }[task]
    block = CNN | {"augment": "trivial", "views": 2}
    trainer = _trainer(x, label, block, {"models_at_once": 3}, task=task, n_classes=4)
    logits = trainer.fit(masks.balanced(3, 40), [0, 1, 2])
    assert logits.shape == (3, 40, 2, n_outputs)
    assert np.isfinite(logits).all()


def test_describe_is_json_without_what_only_changes_the_speed():
    x, y = _noise()
    first, second = _trainer(x, y), _trainer(x, y, None, {"models_at_once": 3})
    assert first.describe() == second.describe() == json.loads(json.dumps(first.describe()))
    assert first.describe()["settings"]["model"]["width"] == 32
    assert (first.models_at_once, second.models_at_once) == (16, 3)
    assert first.describe() != _trainer(x, y, expected_members=10).describe()


def test_a_model_that_diverges_is_named():
    x, y = _noise(40)
    x[30] = 3e38  # a finite number that no layer survives
    members = np.arange(40) < 20
    stack = np.stack([members, ~members, members])
    with pytest.raises(TrainingError, match=r"position 1 of 3 diverged in epoch 1.*lr \(now 0.1\)"):
        _trainer(x, y).fit(stack, [0, 1, 2])
    # nobody trains on it, but its own logit cannot be given
    with pytest.raises(TrainingError, match=r"position 0 of 1 diverged at the end"):
        _trainer(x, y).fit(stack[:1], [0])
    x[30] = 0
    with pytest.raises(TrainingError, match=r"position 0 of 3 .*now 1e\+30"):
        _trainer(x, y, SMALL | {"optimizer": {"lr": 1e30}}).fit(stack, [0, 1, 2])


def test_out_of_memory_names_the_remedy(monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr("confide.training.trainer.train", full)
    x, y = _noise()
    with pytest.raises(TrainingError, match=r"2 models at once .*models_at_once lower"):
        _trainer(x, y).fit(masks.balanced(2, 80), [0, 1])


@pytest.mark.parametrize(
    ("members", "seeds", "words"),
    [
        (np.ones((1, 79), dtype=bool), [0], "members of shape"),
        (np.ones(80, dtype=bool), [0], "members of shape"),
        (np.ones((1, 80)), [0], "type bool, got float64"),
        (np.ones((17, 80), dtype=bool), range(17), "1 to 16 rows"),
        (np.ones((0, 80), dtype=bool), [], "1 to 16 rows"),
        (np.ones((2, 80), dtype=bool), [0], "got 2 and 1"),
        (
            np.arange(160).reshape(2, 80) < 80,
            [0, 1],
            r"position 1 has no members: 80 record\(s\) are left to audit",
        ),
    ],
)
def test_members_that_do_not_fit_are_refused(members, seeds, words):
    x, y = _noise()
    with pytest.raises(ArgumentError, match=words):
        _trainer(x, y).fit(members, seeds)


def test_a_model_without_members_is_told_of_the_patients():
    x, y = _noise()
    words = r"80 record\(s\) of 2 patient\(s\) are left to audit.*smaller `test` or `train.dev`"
    with pytest.raises(ArgumentError, match=words):
        _trainer(x, y, patient=np.arange(80) // 40).fit(np.zeros((1, 80), dtype=bool), [0])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"inputs": np.zeros((80, 10))}, "got float64"),
        ({"inputs": np.zeros((80, 10, 2), dtype=np.float32)}, "for signals use 'resnet1d'"),
        ({"inputs": np.zeros((80, 10, 2))}, "float64 .*80, 10, 2"),
        ({"inputs": np.zeros((80, 0), dtype=np.float32)}, "none of them empty"),
        ({"inputs": np.zeros((80, 1, 16, 16), dtype=np.uint8)}, "'tabular_resnet' takes"),
        ({"inputs": np.full((80, 2), np.nan, dtype=np.float32)}, r"nan at index \(0, 0\)"),
        ({"block": CNN}, "'small_cnn' takes"),
        ({"label": np.zeros(79, dtype=np.int64), "n_audited": 80}, "80 labels, got 79"),
        ({"label": np.zeros(80)}, "integers"),
        ({"label": np.full(80, 2)}, r"in \[0, 1\] for a binary task"),
        ({"label": np.full(80, -1), "task": "multiclass"}, "got -1 to -1"),
        ({"label": np.zeros((80, 3)), "task": "multilabel"}, "label of shape"),
        ({"label": np.full((80, 2), 0.5), "task": "multilabel"}, "0, 1 or NaN"),
        ({"task": "regression"}, "Unknown task='regression'"),
        ({"n_audited": 81}, "n_audited=81"),
        ({"n_audited": 0}, "n_audited=0"),
        ({"expected_members": 0}, "expected_members=0"),
        ({"expected_members": 81}, "expected_members=81"),
    ],
)
def test_data_that_do_not_fit_are_refused(changes, words):
    x, y = _noise()
    arguments = {"inputs": x, "label": y, "n_audited": 80} | changes
    with pytest.raises(ArgumentError, match=words):
        _trainer(**arguments)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_device_is_refused():
    x, y = _noise()
    with pytest.raises(ConfigError, match="no CUDA device was found"):
        _trainer(x, y, None, {"device": "cuda"})


def test_the_matmul_precision_of_others_is_restored():
    x, y = _noise()
    torch.set_float32_matmul_precision("medium")
    try:
        _trainer(x, y).fit(masks.balanced(2, 80), [0, 1])
        assert torch.get_float32_matmul_precision() == "medium"
        assert torch.backends.cudnn.allow_tf32
    finally:
        torch.set_float32_matmul_precision("highest")


def test_importing_the_package_does_not_import_torch():
    code = "import sys, confide, confide.training; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_models_of_two_precisions_do_not_share_a_folder():
    x, y = _noise()
    plain, half = _trainer(x, y), _trainer(x, y, performance={"precision": "bfloat16"})
    assert "precision" not in plain.describe()
    assert half.describe() == plain.describe() | {"precision": "bfloat16"}


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler has some
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize(("block", "data"), [(SMALL, _noise), (CNN, _images)])
def test_a_cuda_device_gives_what_the_cpu_gives(block, data):
    x, y = data()
    members = masks.balanced(4, len(y))
    exact = {"precision": "float32", "models_at_once": 4}
    block = block | {"epochs": 2}
    on_cpu = _trainer(x, y, block, exact).fit(members, range(4))
    on_cuda = _trainer(x, y, block, exact | {"device": "cuda"}).fit(members, range(4))
    np.testing.assert_allclose(on_cuda, on_cpu, atol=1e-3)
    fast = {"device": "cuda", "models_at_once": 4, "compile": True}
    compiled = _trainer(x, y, block, fast).fit(members, range(4))
    np.testing.assert_allclose(compiled, on_cpu, atol=0.1)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_groups_of_other_sizes_are_recorded_anew():
    x, y = _noise()
    members, exact = masks.balanced(6, len(y)), {"precision": "float32", "models_at_once": 2}
    wanted = _trainer(x, y, performance=exact).fit(members[:2], range(2))
    trainer = _trainer(x, y, performance=exact | {"device": "cuda"})
    first = trainer.fit(members[:2], range(2))
    alone = trainer.fit(members[1:2], [1])
    again = trainer.fit(members[:2], range(2))
    np.testing.assert_allclose(first, wanted, atol=1e-3)
    np.testing.assert_allclose(alone[0], wanted[1], atol=1e-3)
    np.testing.assert_allclose(again, wanted, atol=1e-3)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_half_a_wide_residual_network_is_near_the_whole():
    x, y = _images()
    block = CNN | {"model": {"name": "wrn", "depth": 10, "width": 1}, "optimizer": {"lr": 0.01}}
    found = {}
    for device, precision in (("cpu", "float32"), ("cuda", "float32"), ("cuda", "bfloat16")):
        trainer = _trainer(x, y, block, {"device": device, "precision": precision})
        found[device, precision] = trainer.fit(masks.balanced(4, len(y))[:1], [0])
    wanted = found["cpu", "float32"]
    np.testing.assert_allclose(found["cuda", "float32"], wanted, atol=1e-2)
    np.testing.assert_allclose(found["cuda", "bfloat16"], wanted, atol=0.1)
