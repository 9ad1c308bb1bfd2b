"""Signals read from disk block by block are the signals of all logits at once."""

import numpy as np
import pytest

from confide import stores
from confide.errors import FolderError, SignalError
from confide.runs import stored
from confide.runs.stored import StoredLogits, StoredScalars, StoredSignals
from confide.signals import signals
from confide.stores import AuditFolder

N_MODELS, N_RECORDS = 6, 53
DONE = np.array([True, False, True, True, False, True])
SHAPES = {"binary": (2, 1), "multiclass": (1, 4), "multilabel": (2, 3)}
BEGIN = {
    "models": ["done" if one else "pending" for one in DONE],
    "task": "binary",
    "classes": ["no", "yes"],
    "versions": {},
}


def labels(task, rng):
    if task == "multilabel":
        return rng.choice([0.0, 1.0, np.nan], (N_RECORDS, 3))
    return rng.integers(0, 2 if task == "binary" else 4, N_RECORDS)


def written(path, values, name="logits"):
    with AuditFolder.open(path, lambda: BEGIN) as folder:
        folder.create_array(name, values.shape, values.dtype)
        array = folder.array(name)
        for model in np.flatnonzero(DONE):
            array[model] = values[model]
    return AuditFolder.read(path).array(name)


@pytest.fixture(params=[(10, 10**9), (10, 900), (10**6, 700)], ids=["chunks", "parts", "old"])
def small(request, monkeypatch):
    """Records in a chunk and bytes of a block: chunk by chunk, parts of a chunk, a large chunk."""
    rows, block = request.param

    def sized(shape):
        return rows * 4 * int(np.prod(shape))

    monkeypatch.setattr(stored, "_BLOCK_BYTES", block)
    return sized, monkeypatch


@pytest.mark.parametrize("task", list(SHAPES))
@pytest.mark.parametrize("at_once", [1, 8_000_000])
def test_every_slice_is_that_of_the_whole(tmp_path, small, task, at_once):
    sized, monkeypatch = small
    monkeypatch.setattr(stores, "_CHUNK_BYTES", sized(SHAPES[task]))
    monkeypatch.setattr(stored, "_READ_BYTES", at_once)
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(N_MODELS, N_RECORDS, *SHAPES[task])).astype(np.float32)
    label = labels(task, rng)
    read = StoredSignals(written(tmp_path / "a", logits), DONE, label, task)
    whole = signals(logits[DONE], label, task)
    assert read.shape == whole.shape
    for start, stop, step in (
        (0, 53, 1),
        (3, 9, 1),
        (9, 31, 1),
        (0, 53, 7),
        (8, 60, 9),
        (53, 53, 1),
    ):
        np.testing.assert_array_equal(read[:, start:stop:step], whole[:, start:stop:step])
    np.testing.assert_array_equal(read[1:3, 40:], whole[1:3, 40:])
    np.testing.assert_array_equal(read[:, :0], whole[:, :0])
    np.testing.assert_array_equal(read[2, 5:25], whole[2, 5:25])


def test_ready_signals_and_held_out_logits_are_those_of_finished_models(tmp_path):
    rng = np.random.default_rng(1)
    values = rng.normal(size=(N_MODELS, N_RECORDS, 2)).astype(np.float32)
    read = StoredScalars(written(tmp_path / "a", values, "signal"), DONE)
    assert read[:, 4:9].dtype == np.float64
    np.testing.assert_array_equal(read[:, :], values[DONE].astype(np.float64))
    logits = values[..., None]
    extra = StoredLogits(written(tmp_path / "b", logits, "heldout_logits"), DONE)
    assert len(extra) == DONE.sum()
    np.testing.assert_array_equal(np.stack([extra[i] for i in range(len(extra))]), logits[DONE])


def test_consecutive_slices_read_each_chunk_once(tmp_path, monkeypatch):
    monkeypatch.setattr(stores, "_CHUNK_BYTES", 40)
    values = np.random.default_rng(2).normal(size=(N_MODELS, N_RECORDS, 1)).astype(np.float32)
    array = written(tmp_path / "a", values, "signal")
    asked = []

    class Counted:
        shape, itemsize = array.shape, array.itemsize
        records_per_chunk = array.records_per_chunk

        def __getitem__(self, key):
            asked.append(key[1])
            return array[key]

    read = StoredScalars(Counted(), DONE)
    for start in range(0, N_RECORDS, 3):
        read[:, start : start + 3]
    assert asked == [slice(low, min(low + 10, N_RECORDS)) for low in range(0, N_RECORDS, 10)]


def test_a_block_cannot_be_written_to(tmp_path):
    values = np.zeros((N_MODELS, N_RECORDS, 1), np.float32)
    read = StoredScalars(written(tmp_path / "a", values, "signal"), DONE)
    with pytest.raises(ValueError, match="read-only"):
        read[:, :5][:] = 1.0


def test_a_logit_that_is_not_finite_is_named_by_its_place_in_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(stores, "_CHUNK_BYTES", 40)
    logits = np.zeros((N_MODELS, N_RECORDS, 1, 1), np.float32)
    logits[3, 27] = np.inf
    label = np.zeros(N_RECORDS, dtype=np.int64)
    read = StoredSignals(written(tmp_path / "a", logits), DONE, label, "binary")
    read[:, :20]
    with pytest.raises(SignalError, match=r"model 3, record 27 \(view 0, class 0\) is inf"):
        read[:, 20:40]


def test_a_damaged_chunk_is_found(tmp_path):
    values = np.ones((N_MODELS, N_RECORDS, 1), np.float32)
    read = StoredScalars(written(tmp_path / "a", values, "signal"), DONE)
    chunk = tmp_path / "a" / "signals.zarr" / "signal" / "c" / "2" / "0" / "0"
    content = bytearray(chunk.read_bytes())
    content[5] ^= 1
    chunk.write_bytes(bytes(content))
    with pytest.raises(FolderError, match="signal is damaged"):
        read[:, :5]


def test_chunks_of_many_models_are_small_enough_to_be_read_together(tmp_path):
    with AuditFolder.open(tmp_path / "a", lambda: BEGIN) as folder:
        folder.create_array("few", (4, 300_000, 1, 14), np.float32)
        folder.create_array("many", (200, 300_000, 1, 14), np.float32)
        folder.create_array("most", (10_000, 300_000, 1, 14), np.float32)
        bytes_of = {
            name: folder.array(name).records_per_chunk * 56 for name in ("few", "many", "most")
        }
    assert 4_900_000 < bytes_of["few"] <= 5_000_000
    assert 200 * bytes_of["many"] <= 128_000_000
    assert 60_000 < bytes_of["most"] <= 64_000
