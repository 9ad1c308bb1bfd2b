import errno
import json
import os
import stat
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from confide import stores
from confide.errors import FolderError, MismatchError, MissingFileError
from confide.stores import AuditFolder, read_json, read_table, write_bytes, write_json, write_table


def begin():
    return {
        "models": ["pending"] * 4,
        "task": "binary",
        "classes": ["0", "1"],
        "versions": {"confide": "0"},
        "config": {"train": {"epochs": 3, "lr": 0.1}},
        "design": {"seed": 0},
    }


@pytest.fixture
def out(tmp_path):
    """A folder with one array, finished."""
    path = tmp_path / "out"
    with AuditFolder.open(path, begin) as folder:
        folder.create_array("logits", (4, 10, 1, 1), np.float32)
        folder.array("logits")[:] = np.arange(40, dtype=np.float32).reshape(4, 10, 1, 1)
        folder.create_array("membership", (4, 5), np.bool_)
        folder.array("membership")[:] = np.eye(4, 5) > 0
        folder.manifest["models"] = ["done"] * 4
        folder.save()
    return path


def chunks(out, name):
    return sorted(p for p in (out / "signals.zarr" / name / "c").rglob("*") if p.is_file())


def test_what_was_written_is_read(out):
    folder = AuditFolder.read(out)
    assert folder.manifest == {"format": 1, **begin(), "models": ["done"] * 4}
    assert folder.done.all()
    values = folder.array("logits")
    assert values.shape == (4, 10, 1, 1)
    np.testing.assert_array_equal(values[1, 2:4].ravel(), [12, 13])
    np.testing.assert_array_equal(folder.array("membership")[:], np.eye(4, 5) > 0)
    assert not folder.has_array("signal")
    with pytest.raises(MissingFileError, match="does not hold 'signal'; were the signals erased"):
        folder.array("signal")


def test_begun_once(out):
    def again():
        raise AssertionError("begun twice")

    with AuditFolder.open(out, again) as folder:
        assert folder.done.all()


def test_only_the_owner_can_read(out, tmp_path):
    assert stat.S_IMODE(out.stat().st_mode) == 0o700
    for name in ("manifest.json", ".lock"):
        assert stat.S_IMODE((out / name).stat().st_mode) == 0o600
    open_to_all = tmp_path / "open"
    open_to_all.mkdir(mode=0o755)
    with AuditFolder.open(open_to_all, begin):
        assert stat.S_IMODE(open_to_all.stat().st_mode) == 0o700


def test_two_writers_at_once_are_refused(out):
    with (
        AuditFolder.open(out, begin),
        pytest.raises(FolderError, match="in use by another process; wait for it or choose"),
        AuditFolder.open(out, begin),
    ):
        pass
    with AuditFolder.open(out, begin):
        pass


def test_what_a_kill_left_is_cleaned(out):
    leftovers = [out / ".manifest.json.x.partial", out / "signals.zarr" / "logits" / "a.partial"]
    for leftover in leftovers:
        leftover.write_text("half")
    with AuditFolder.open(out, begin):
        assert not any(leftover.exists() for leftover in leftovers)


def test_a_kill_before_the_first_manifest_leaves_a_folder_to_begin(tmp_path):
    (tmp_path / ".lock").touch()
    (tmp_path / ".manifest.json.x.partial").write_text("half")
    with AuditFolder.open(tmp_path, begin) as folder:
        assert not folder.done.any()


def test_a_kill_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "summary.json"
    write_json(path, {"n": 1})

    def killed(handle):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        write_json(path, {"n": 2})
    assert read_json(path) == {"n": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["summary.json"]


def test_a_foreign_folder_is_refused_and_untouched(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with (
        pytest.raises(FolderError, match="is not empty and is not an audit folder; choose another"),
        AuditFolder.open(tmp_path, begin),
    ):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("below", ["", "sub"])
def test_a_file_in_place_of_a_folder(tmp_path, below):
    (tmp_path / "file").write_text("mine")
    with (
        pytest.raises(FolderError, match="check that it is a folder"),
        AuditFolder.open(tmp_path / "file" / below, begin),
    ):
        pass
    with pytest.raises(MissingFileError, match="There is no audit folder at"):
        AuditFolder.read(tmp_path / "file" / below)


def failing(code):
    def fail(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    return fail


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "mkstemp", failing(errno.EROFS))
    with (
        pytest.raises(FolderError, match=r"cannot be used \(Read-only file system\).*permissions"),
        AuditFolder.open(tmp_path / "out", begin),
    ):
        pass


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_says_what_to_do_and_keeps_what_was_there(out, monkeypatch, code):
    before = (out / "manifest.json").read_bytes()
    with AuditFolder.open(out, begin) as folder:
        folder.manifest["models"][0] = "pending"
        monkeypatch.setattr(os, "fsync", failing(code))
        with pytest.raises(FolderError, match=r"is full.*free some space and run the same command"):
            folder.save()
    assert (out / "manifest.json").read_bytes() == before
    assert not list(out.rglob("*.partial"))


def test_a_full_disk_while_signals_are_written(out, monkeypatch):
    array = AuditFolder.read(out).array("logits")
    monkeypatch.setattr(Path, "open", failing(errno.ENOSPC))
    with pytest.raises(FolderError, match="is full"):
        array[0] = 1.0


@pytest.mark.parametrize("where", [0, 7, -1])
def test_a_flipped_byte_in_a_chunk_is_found(out, where):
    path = chunks(out, "logits")[2]
    content = bytearray(path.read_bytes())
    content[where] ^= 0x10
    path.write_bytes(content)
    array = AuditFolder.read(out).array("logits")
    np.testing.assert_array_equal(array[0].ravel(), np.arange(10))
    with pytest.raises(FolderError, match=r"signals\.zarr/logits is damaged.*restore the folder"):
        array[:]


@pytest.mark.parametrize("length", [0, 3, -1])
def test_a_truncated_chunk_is_found(out, length):
    path = chunks(out, "membership")[1]
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(FolderError, match=r"signals\.zarr/membership is damaged"):
        AuditFolder.read(out).array("membership")[:]


def test_a_lost_chunk_is_found(out):
    folder = AuditFolder.read(out)
    folder.check_complete("membership")
    chunks(out, "membership")[1].unlink()
    with pytest.raises(FolderError, match=r"1 stored chunk\(s\) of .*membership are missing"):
        folder.check_complete("membership")


def test_an_array_of_nothing_but_the_fill_value_is_complete(out):
    with AuditFolder.open(out, begin) as folder:
        folder.create_array("membership", (4, 5), np.bool_)
        folder.array("membership")[:] = False
        folder.check_complete("membership")


def test_large_arrays_are_chunked_by_model_and_records(tmp_path, monkeypatch):
    monkeypatch.setattr(stores, "_CHUNK_BYTES", 400)
    with AuditFolder.open(tmp_path / "out", begin) as folder:
        folder.create_array("logits", (4, 100, 2, 5), np.float32)
        folder.array("logits")[1] = np.ones((100, 2, 5))
    assert len(chunks(tmp_path / "out", "logits")) == 10


def rewrite(out, change):
    content = json.loads((out / "manifest.json").read_text())
    change(content)
    (out / "manifest.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda out: (out / "manifest.json").write_text('{"format": 1, '), "not valid JSON"),
        (lambda out: (out / "manifest.json").write_bytes(b"\xff\x00"), "not valid JSON"),
        (lambda out: (out / "manifest.json").write_text("[" * 100_000), "not valid JSON"),
        (lambda out: (out / "manifest.json").write_text("[]"), "is not the manifest of an audit"),
        (lambda out: (out / "manifest.json").write_text('{"a": 1}'), "is not the manifest"),
        (lambda out: rewrite(out, lambda m: m.update(format=2)), "format 2; this version reads f"),
        (lambda out: rewrite(out, lambda m: m.pop("models")), "damaged, entries are missing"),
        (lambda out: rewrite(out, lambda m: m.update(models=[1])), "damaged, entries are missing"),
        (lambda out: rewrite(out, lambda m: m.pop("task")), "damaged, entries are missing"),
    ],
)
def test_a_damaged_manifest_is_named(out, damage, message):
    damage(out)
    with pytest.raises(FolderError, match=message) as caught:
        AuditFolder.read(out)
    assert str(out) in str(caught.value)
    with pytest.raises(FolderError, match=message), AuditFolder.open(out, begin):
        pass


def test_a_folder_without_manifest(tmp_path):
    with pytest.raises(MissingFileError, match=r"manifest\.json is missing; is .* an audit folder"):
        AuditFolder.read(tmp_path)


def test_the_first_difference_is_named(out):
    folder = AuditFolder.read(out)
    same = {"config": {"train": {"epochs": 3, "lr": 0.1}}, "design": {"seed": 0}}
    folder.require_same(same)
    for change, message in [
        ({"config": {"train": {"epochs": 9, "lr": 1}}}, r"with train\.epochs = 3; it is 9 now"),
        ({"design": {"seed": 1}}, r"with audit\.seed = 0; it is 1 now"),
        ({"config": {"train": {"epochs": 3}}}, r"train\.lr = 0\.1; it is None now"),
        ({"source": "scores"}, "source = None; it is 'scores' now"),
    ]:
        with pytest.raises(MismatchError, match=message):
            folder.require_same(same | change)


def test_numbers_that_json_has_not_become_null(tmp_path):
    values = {"a": np.float32(0.5), "b": [np.nan, np.inf, np.int64(3)], 1: (np.bool_(True), None)}
    write_json(tmp_path / "x.json", values)
    assert read_json(tmp_path / "x.json") == {"a": 0.5, "b": [None, None, 3], "1": [True, None]}


def test_a_huge_json_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(stores, "_LARGEST_JSON", 10)
    write_json(tmp_path / "x.json", list(range(10)))
    with pytest.raises(FolderError, match="larger than 10 bytes; it was not read"):
        read_json(tmp_path / "x.json")


def test_tables_survive(tmp_path):
    table = pd.DataFrame({"record": ["007", "08"], "auc": [0.5, np.nan]})
    write_table(tmp_path / "t.parquet", table)
    pd.testing.assert_frame_equal(read_table(tmp_path / "t.parquet"), table)
    write_bytes(tmp_path / "t.parquet", b"PAR1 no more")
    with pytest.raises(FolderError, match=r"t\.parquet is damaged, it is no Parquet file"):
        read_table(tmp_path / "t.parquet")
    with pytest.raises(MissingFileError, match=r"u\.parquet is missing"):
        read_table(tmp_path / "u.parquet")
