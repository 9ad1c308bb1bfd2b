import getpass
import json
import os
import re
import socket
import stat
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from confide.encoders.publish import Publisher
from confide.encoders.release import Release, verify
from confide.errors import (
    ArgumentError,
    FolderError,
    MismatchError,
    ReleaseError,
    TableError,
)
from encoders.releases import (
    ASKED,
    SHAPE,
    codes_of,
    create,
    order_of,
    publish,
    table_of,
)

TIME = 315_619_200


def again():
    raise AssertionError("the order was drawn twice")


def shard_file(path, shard):
    return path / "codes.zarr" / "codes" / "c" / str(shard) / "0" / "0"


def write_some(path, n_shards, order=order_of):
    """Stop after some shards, as an exception does."""
    with Publisher.open(path, ASKED, order) as publisher:
        create(publisher)
        for shard, rows in list(publisher.pending())[:n_shards]:
            publisher.write(shard, codes_of(publisher.truth["row"][rows]))
        return publisher.truth


def check_whole(path, truth):
    release = Release.read(path)
    np.testing.assert_array_equal(release.codes(slice(None)), codes_of(truth["row"]))
    assert release.records["view"].tolist() == table_of(truth)["view"].tolist()
    assert verify(path) == []
    return release


def test_what_was_published_is_read(tmp_path):
    truth = publish(tmp_path / "r")
    release = check_whole(tmp_path / "r", truth)
    assert release.key_id == ASKED["key_id"]
    assert re.fullmatch("[0-9a-f]{32}", release.id)
    assert release.manifest.encoder == {"name": "neuracrypt", "patch": 16}
    assert (release.manifest.labels, release.manifest.columns) == (("edema",), ("view",))
    assert "compatible with NeuraCrypt" in release.manifest.statement
    expected = order_of()
    assert truth["code"].tolist() == list(range(23))
    pd.testing.assert_frame_equal(truth[["record", "patient", "row"]], expected, check_dtype=False)
    stored = pd.read_parquet(tmp_path / "r.private" / "truth.parquet")
    pd.testing.assert_frame_equal(stored, truth)


def test_two_releases_have_two_ids(tmp_path):
    publish(tmp_path / "a")
    publish(tmp_path / "b")
    assert Release.read(tmp_path / "a").id != Release.read(tmp_path / "b").id


@pytest.mark.parametrize("mask", [0o000, 0o077])
def test_only_the_owner_can_read(tmp_path, mask):
    before = os.umask(mask)
    try:
        (tmp_path / "r").mkdir(mode=0o755)
        publish(tmp_path / "r")
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    for folder in (tmp_path / "r", tmp_path / "r.private"):
        for path in [folder, *folder.rglob("*")]:
            wanted = 0o700 if path.is_dir() else 0o600
            assert stat.S_IMODE(path.stat().st_mode) == wanted, path


def test_times_tell_nothing(tmp_path):
    publish(tmp_path / "r")
    for path in [tmp_path / "r", *(tmp_path / "r").rglob("*")]:
        assert path.stat().st_mtime == TIME, path
    os.utime(tmp_path / "r" / "release.json")
    publish(tmp_path / "r")
    assert (tmp_path / "r" / "release.json").stat().st_mtime == TIME


def test_nothing_tells_where_when_and_of_whom(tmp_path):
    publish(tmp_path / "r", columns=("view",))
    words = [str(tmp_path), tmp_path.name, str(Path.home()), "/home", "x.csv", "pandas"]
    words += [socket.gethostname(), getpass.getuser(), "Vermeer", "image_", ".dcm", "fingerprint"]
    dates = re.compile(rb"(19|20)\d\d[-/.]\d\d[-/.]\d\d|\d\d:\d\d")
    files = [p for p in (tmp_path / "r").rglob("*") if p.is_file()]
    assert len(files) == 10
    for path in files:
        raw = path.read_bytes().lower()
        for word in words:
            assert word.lower().encode() not in raw, (path, word)
        assert "codes" in path.parts or not dates.search(raw), path


def test_nothing_is_done_twice(tmp_path):
    publish(tmp_path / "r")
    before = (tmp_path / "r" / "release.json").read_bytes()
    with Publisher.open(tmp_path / "r", ASKED, again) as publisher:
        assert publisher.finished
    assert (tmp_path / "r" / "release.json").read_bytes() == before


@pytest.mark.parametrize("n_shards", range(7))
def test_stopped_after_some_shards_it_goes_on(tmp_path, n_shards):
    truth = write_some(tmp_path / "r", n_shards)
    written = {i: shard_file(tmp_path / "r", i).stat().st_ino for i in range(n_shards)}
    with pytest.raises(ReleaseError, match=r"is not finished, or its release.json was lost. Run"):
        Release.read(tmp_path / "r")
    with pytest.raises(ReleaseError, match="is not finished"):
        verify(tmp_path / "r")
    with Publisher.open(tmp_path / "r", ASKED, again) as publisher:
        assert not publisher.finished
        pd.testing.assert_frame_equal(publisher.truth, truth)
        create(publisher)
        assert [shard for shard, _ in publisher.pending()] == list(range(n_shards, 6))
    publish(tmp_path / "r")
    check_whole(tmp_path / "r", truth)
    assert {i: shard_file(tmp_path / "r", i).stat().st_ino for i in written} == written


def test_lost_and_cut_shards_are_written_again(tmp_path):
    truth = write_some(tmp_path / "r", 5)
    shard_file(tmp_path / "r", 1).unlink()
    os.truncate(shard_file(tmp_path / "r", 3), 100)
    (shard_file(tmp_path / "r", 2).parent / ".0.x.partial").write_bytes(b"half")
    with Publisher.open(tmp_path / "r", ASKED, again) as publisher:
        create(publisher)
        assert [shard for shard, _ in publisher.pending()] == [1, 3, 5]
    publish(tmp_path / "r")
    check_whole(tmp_path / "r", truth)


def test_a_failure_inside_the_loop_loses_one_shard(tmp_path):
    def fail_at(number):
        with Publisher.open(tmp_path / "r", ASKED, order_of) as publisher:
            create(publisher)
            for shard, rows in publisher.pending():
                if shard == number:
                    raise KeyboardInterrupt
                publisher.write(shard, codes_of(publisher.truth["row"][rows]))

    with pytest.raises(KeyboardInterrupt):
        fail_at(2)
    with Publisher.open(tmp_path / "r", ASKED, again) as publisher:
        create(publisher)
        assert [rows.start for _, rows in publisher.pending()] == [8, 12, 16, 20]


# Every third call that changes the disk is the last one once; then SIGKILL at any instant.
HARNESS = """
import os, pathlib, random, shutil, signal, sys, time
sys.path.append(sys.argv[2])
from encoders.releases import ASKED, order_of, publish
from confide.encoders.publish import Publisher

folder = sys.argv[1]

os.fsync = lambda handle: None  # a killed process loses nothing that it wrote

def limit(n):
    left = [n]
    def counted(call):
        def one(*args, **kwargs):
            left[0] -= 1
            if left[0] < 0:
                os._exit(9)
            return call(*args, **kwargs)
        return one
    for owner, name in (
        (os, "fsync"), (os, "utime"), (pathlib.Path, "replace"), (pathlib.Path, "mkdir"),
    ):
        setattr(owner, name, counted(getattr(owner, name)))

def run(out, n=None, seconds=None, **more):
    pid = os.fork()
    if not pid:
        code = 70
        try:
            if n is not None:
                limit(n)
            publish(pathlib.Path(out), n=5, **more)
            code = 0
        except BaseException as error:
            print(type(error), error, flush=True)
        finally:
            os._exit(code)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def keep(out):
    # An order that was taken down must never change.
    progress = pathlib.Path(f"{out}.private/progress.json")
    if progress.exists() and '"truth": null' not in progress.read_text():
        shutil.copy(f"{out}.private/truth.parquet", f"{out}.truth")

for n in range(0, 1000, 3):
    out = f"{folder}/{n}"
    code = run(out, n)
    keep(out)
    assert code in (0, 9), (n, code)
    if code == 0:
        break
    assert run(out) == 0, n
rng = random.Random(0)
killed = 0
for i in range(6):
    killed += run(f"{folder}/killed", seconds=rng.uniform(0, 0.03), shard_bytes=100) == -9
    keep(f"{folder}/killed")
assert run(f"{folder}/killed", shard_bytes=100) == 0
print(n, killed)
"""


def test_killed_at_any_instant_it_goes_on_in_the_same_order(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", HARNESS, str(tmp_path), str(Path(__file__).parents[1])],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    n_calls, n_killed = map(int, done.stdout.split()[-2:])
    assert n_calls > 40
    assert n_killed >= 2, "too few were killed while at work"
    orders = 0
    for out in [*map(str, range(0, n_calls, 3)), "killed"]:
        path = tmp_path / out
        truth = pd.read_parquet(tmp_path / f"{out}.private" / "truth.parquet")
        check_whole(path, truth)
        if (tmp_path / f"{out}.truth").exists():
            stored = (tmp_path / f"{out}.private" / "truth.parquet").read_bytes()
            assert (tmp_path / f"{out}.truth").read_bytes() == stored
            orders += 1
        assert {p.stat().st_mtime for p in [path, *path.rglob("*")]} == {TIME}
        assert not list(tmp_path.glob(f"{out}*/**/*.partial"))
    assert orders > 12


def test_two_writers_at_once_are_refused(tmp_path):
    with (
        Publisher.open(tmp_path / "r", ASKED, order_of),
        pytest.raises(FolderError, match="r is in use by another process; wait for it or choose"),
        Publisher.open(tmp_path / "r", ASKED, order_of),
    ):
        pass
    publish(tmp_path / "r")


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key_id": "cd" * 16}, "was begun with key_id = 'abab.*'; it is 'cdcd"),
        ({"fingerprint": "0" * 64}, "fingerprint = 'ffff"),
        ({"config": {**ASKED["config"], "encode": {"patch": 8, "dtype": "float32"}}}, "patch = 16"),
        ({"more": 1}, "more = None; it is 1 now. Use the same configuration, data and key"),
    ],
)
def test_something_else_asked_for_is_refused(tmp_path, change, message, finished):
    if finished:
        publish(tmp_path / "r")
    else:
        write_some(tmp_path / "r", 1)
    with (
        pytest.raises(MismatchError, match=message),
        Publisher.open(tmp_path / "r", {**ASKED, **change}, again),
    ):
        pass


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"dtype": "float16"}, "codes.dtype = 'float32'; it is 'float16' now"),
        ({"shape": (3, 8)}, r"codes.shape = \(4, 6\); it is \(3, 8\)"),
        ({"shard_bytes": 100}, "codes_per_"),
    ],
)
def test_another_layout_is_refused(tmp_path, more, message):
    write_some(tmp_path / "r", 1)
    with (
        Publisher.open(tmp_path / "r", ASKED, again) as publisher,
        pytest.raises(MismatchError, match=message),
    ):
        create(publisher, **more)


def test_folders_that_hold_other_things_are_refused_and_untouched(tmp_path):
    def refused(message):
        with (
            pytest.raises(FolderError, match=message),
            Publisher.open(tmp_path / "r", ASKED, again),
        ):
            pass

    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "thesis.txt").write_text("mine")
    refused("r holds other things; choose another --out")
    assert [p.name for p in tmp_path.rglob("*")] == ["r", "thesis.txt"]
    (tmp_path / "r" / "thesis.txt").unlink()
    (tmp_path / "r.private").mkdir()
    (tmp_path / "r.private" / "truth.parquet").write_text("of another release")
    refused("r.private holds other things; choose another --out")
    assert (tmp_path / "r.private" / "truth.parquet").read_text() == "of another release"
    (tmp_path / "r.private" / "truth.parquet").unlink()
    (tmp_path / "r").rmdir()
    (tmp_path / "r").write_text("a file")
    refused("cannot be used")


def test_a_release_without_the_folder_beside_it(tmp_path):
    publish(tmp_path / "r")
    (tmp_path / "r.private").rename(tmp_path / "elsewhere")
    with (
        pytest.raises(FolderError, match=r"r holds a release, but .*r.private does not belong"),
        Publisher.open(tmp_path / "r", ASKED, again),
    ):
        pass
    assert not (tmp_path / "r.private").exists()


def test_a_finished_release_that_was_moved_is_not_made_again(tmp_path):
    publish(tmp_path / "r")
    (tmp_path / "r").rename(tmp_path / "sent")
    with (
        pytest.raises(FolderError, match=r"was finished, but .* holds it no more. Put it back"),
        Publisher.open(tmp_path / "r", ASKED, again),
    ):
        pass


def test_another_release_in_its_place_is_refused(tmp_path):
    publish(tmp_path / "r")
    publish(tmp_path / "other")
    (tmp_path / "r").rename(tmp_path / "sent")
    (tmp_path / "other").rename(tmp_path / "r")
    with (
        pytest.raises(FolderError, match=r"release.json is not that of the release that was made"),
        Publisher.open(tmp_path / "r", ASKED, again),
    ):
        pass


@pytest.mark.parametrize("name", ["truth.parquet", "progress.json"])
@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff"])
def test_damage_beside_a_release_is_named(tmp_path, name, content):
    write_some(tmp_path / "r", 1)
    (tmp_path / "r.private" / name).write_bytes(content)
    with (
        pytest.raises(FolderError, match=name),
        Publisher.open(tmp_path / "r", ASKED, again),
    ):
        pass


def test_progress_of_other_sizes_is_refused(tmp_path):
    write_some(tmp_path / "r", 1)
    file = tmp_path / "r.private" / "progress.json"
    stored = json.loads(file.read_text())
    layout = {**stored["layout"], "n_records": 0}
    for change in ({"shards": []}, {"layout": layout}, {"format": 2}, {"x" * 10_000: 1}):
        file.write_text(json.dumps(stored | change))
        with (
            pytest.raises(FolderError, match=r"progress.json is damaged") as error,
            Publisher.open(tmp_path / "r", ASKED, again),
        ):
            pass
        assert len(str(error.value)) < 1000


def test_strange_files_do_not_leave_with_the_release(tmp_path):
    write_some(tmp_path / "r", 6)
    (tmp_path / "r" / "codes.zarr" / ".DS_Store").write_text("/Users/ann")
    with pytest.raises(FolderError, match=r"DS_Store is no part of the release .1 such in all"):
        publish(tmp_path / "r")
    (tmp_path / "r" / "codes.zarr" / ".DS_Store").unlink()
    publish(tmp_path / "r")


@pytest.mark.parametrize(
    ("dtype", "value", "message"),
    [
        ("float32", np.nan, "Code 5 holds nan in row 2, channel 3; expected finite numbers"),
        ("bfloat16", -np.inf, "Code 5 holds -inf in row 2, channel 3"),
        ("float16", 65_520, r"Code 5 holds 65520.0 in .* too large for float16; .*dtype: float32"),
        ("bfloat16", np.finfo("f4").max, "too large for bfloat16; encode with dtype: float32"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(tmp_path, dtype, value, message):
    with Publisher.open(tmp_path / "r", ASKED, order_of) as publisher:
        create(publisher, dtype)
        codes = np.zeros((23, *SHAPE), np.float32)
        codes[4, 0, 0] = 65_519
        codes[5, 2, 3] = value
        shard, rows = next((s, r) for s, r in publisher.pending() if r.start <= 5 < r.stop)
        with pytest.raises(ReleaseError, match=message):
            publisher.write(shard, codes[rows])
        assert not list((tmp_path / "r" / "codes.zarr" / "codes").rglob("*.partial"))
        codes[5] = 0
        publisher.write(shard, codes[rows])


def test_misuse_is_refused(tmp_path):
    with Publisher.open(tmp_path / "r", ASKED, order_of) as publisher:
        for call in (lambda: list(publisher.pending()), publisher.finish):
            with pytest.raises(ArgumentError, match=r"Call create\(\) before"):
                call()
        create(publisher)
        with pytest.raises(ArgumentError, match=r"6 of 6 shards of .* are not written yet"):
            publisher.finish()
        for codes in (np.zeros((3, *SHAPE), "f4"), np.zeros((4, *SHAPE)), np.zeros((4, 24), "f4")):
            with pytest.raises(ArgumentError, match=r"shard 0 as float32 \(4, 4, 6\), got"):
                publisher.write(0, codes)
        with pytest.raises(ArgumentError, match="shard=6"):
            publisher.write(6, np.zeros((4, *SHAPE), "f4"))
    for key_id in (None, "short", "AB" * 16):
        with (
            pytest.raises(ArgumentError, match="key_id as 32 hex digits"),
            Publisher.open(tmp_path / "q", {"key_id": key_id}, again),
        ):
            pass
    for order in (order_of().drop(columns="row"), order_of()[:0]):
        with (
            pytest.raises(ArgumentError, match="an order with the columns record, patient, row"),
            Publisher.open(tmp_path / "q", ASKED, lambda order=order: order),
        ):
            pass
    publish(tmp_path / "q")


@pytest.mark.parametrize(
    ("change", "more", "error", "message"),
    [
        ({}, {"columns": ("edema",)}, TableError, "named 'edema', which the table .* has already"),
        ({"patient": "Bea"}, {"columns": ("view", "patient")}, TableError, "named 'patient'"),
        ({"site": pd.Timestamp("2020-01-01")}, {"columns": ("view", "site")}, TableError, "site"),
        ({"site": "a"}, {}, TableError, "Expected the columns code, edema, view, split in"),
        ({}, {"encoder": 3}, ArgumentError, "encoder: Input should be an object, got 3"),
        ({"x" * 300: 1}, {"columns": ("view", "x" * 300)}, ArgumentError, "columns.1: String"),
        ({}, {"pseudonyms": True}, TableError, "columns code, edema, view, split, patient"),
    ],
)
def test_tables_are_refused_before_anything_is_encoded(tmp_path, change, more, error, message):
    with Publisher.open(tmp_path / "r", ASKED, order_of) as publisher:
        with pytest.raises(error, match=message):
            create(publisher, records=table_of(publisher.truth).assign(**change), **more)
        with pytest.raises(TableError, match="Expected 23 rows, one per code, got 22"):
            create(publisher, records=table_of(publisher.truth)[:22])
        assert not (tmp_path / "r" / "records.parquet").exists()


def test_pseudonyms_are_no_ids(tmp_path):
    with Publisher.open(tmp_path / "r", ASKED, order_of) as publisher:
        records = table_of(publisher.truth)
        name = {p: f"p{i}" for i, p in enumerate(publisher.truth["patient"].unique())}
        records["patient"] = publisher.truth["patient"].map(name)
        records.loc[7, "patient"] = publisher.truth["patient"][7]
        with pytest.raises(TableError, match=r"Row 7 .* holds the patient's own id in 'patient'"):
            create(publisher, records=records, pseudonyms=True)
        records["patient"] = publisher.truth["patient"].map(name)
        create(publisher, records=records, pseudonyms=True)
        for shard, rows in publisher.pending():
            publisher.write(shard, codes_of(publisher.truth["row"][rows]))
        publisher.finish()
    found = Release.read(tmp_path / "r")
    assert found.manifest.pseudonyms
    assert found.records["patient"].tolist() == records["patient"].tolist()


def test_writing_needs_the_memory_of_a_shard(tmp_path):
    shape, size = (64, 256), 64 * 256 * 4
    n_codes, n_shards = 16, 40
    codes = np.random.default_rng(0).normal(size=(n_codes, *shape)).astype(np.float32)
    with Publisher.open(tmp_path / "r", ASKED, lambda: order_of(n_codes * n_shards)) as publisher:
        create(publisher, shape=shape, dtype="float16", shard_bytes=n_codes * size // 2)
        assert len(list(publisher.pending())) == n_shards
        tracemalloc.start()
        try:
            for shard, _ in publisher.pending():
                publisher.write(shard, codes.copy())
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        publisher.finish()
    assert peak < 2 * n_codes * size
    release = Release.read(tmp_path / "r")
    np.testing.assert_array_equal(release.codes([5, 639]), codes[[5, 15]].astype("f2"))
