import base64
import json
import stat
import subprocess
import sys
import threading

import numpy as np
import pytest
from filelock import FileLock

from confide.encoders import state as module
from confide.encoders.key import Key
from confide.encoders.state import KeyState, pack, unpack
from confide.errors import ArgumentError, FolderError, KeyFileError

SECRET = bytes(range(128, 160))
ARCHITECTURE = {"name": "neuracrypt", "patch": 16, "width": 64, "shape": [1, 32, 32]}
CALIBRATION = {"mean": pack(np.float32([43.9])), "norms": [pack(np.ones((2, 3), np.float32))]}


@pytest.fixture
def path(tmp_path):
    """A key file."""
    Key(SECRET).save(tmp_path / "a.key")
    return tmp_path / "a.key"


@pytest.fixture
def state(path):
    """The state of a key that was not used yet."""
    return KeyState.of(path, Key(SECRET).id)


@pytest.fixture
def used(state):
    """The state of a key that was used."""
    state.bind(ARCHITECTURE, CALIBRATION)
    state.register("r1", state.path.parent / "release")
    return state


def stored(state):
    return json.loads(state.path.read_text())


# ---- Binding


def test_a_new_key_is_bound_to_nothing(state, path):
    assert state.binding is None
    assert state.releases == []
    assert state.path == path.with_name("a.key.state.json")
    assert not state.path.exists()


def test_the_first_use_binds(state, path):
    assert state.bind(ARCHITECTURE, CALIBRATION) == CALIBRATION
    wanted = {"architecture": ARCHITECTURE, "calibration": CALIBRATION}
    assert state.binding == wanted
    assert KeyState.of(path, state.key_id).binding == wanted
    # Again, as a tuple from Python: the same, and the stored calibration counts.
    same = ARCHITECTURE | {"shape": (1, 32, 32)}
    assert state.bind(same, {"mean": "another"}) == CALIBRATION
    assert state.binding == wanted


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"patch": 8}, "made for patch=16, the configuration asks for patch=8; make another key"),
        ({"name": "linear", "width": 3}, "name='neuracrypt', the configuration asks for name='lin"),
        ({"shape": [1, 64, 64]}, "shape=[1, 32, 32], the configuration asks for shape=[1, 64, 64]"),
        ({"norm": "batch"}, "made for norm=None, the configuration asks for norm='batch'"),
    ],
)
def test_another_architecture_is_refused(used, asked, message):
    before = used.path.read_bytes()
    with pytest.raises(KeyFileError) as found:
        used.bind(ARCHITECTURE | asked, {})
    assert message in str(found.value)
    assert "`confide key new`" in str(found.value)
    assert used.path.read_bytes() == before


def test_a_missing_field_is_another_architecture(used):
    smaller = {name: value for name, value in ARCHITECTURE.items() if name != "width"}
    with pytest.raises(KeyFileError, match="made for width=64, the configuration asks for width=N"):
        used.bind(smaller, {})


# ---- Releases


def test_one_release_a_key(used):
    folder = used.path.parent
    (entry,) = used.releases
    assert entry == {
        "release_id": "r1",
        "path": str(folder / "release"),
        "finished": False,
        "manifest_sha256": None,
        "forced": False,
    }
    used.register("r1", folder / "release")  # a resume
    assert used.releases == [entry]
    with pytest.raises(KeyFileError) as found:
        used.register("r2", folder / "other")
    message = str(found.value)
    assert f"used for the release {folder / 'release'} (id r1), which is not finished" in message
    used.finish("r1", "a" * 64)
    entry |= {"finished": True, "manifest_sha256": "a" * 64}
    with pytest.raises(KeyFileError) as found:
        used.register("r2", folder / "other")
    message = str(found.value)
    assert f"already made the release {folder / 'release'} (id r1)" in message
    assert "codes that can be recognised as equal" in message
    assert "`confide key new`" in message
    assert "--reuse-key" in message
    assert used.releases == [entry]
    used.register("r2", folder / "other", force=True)
    assert [(e["release_id"], e["forced"]) for e in used.releases] == [("r1", False), ("r2", True)]
    used.register("r2", folder / "other")
    with pytest.raises(KeyFileError, match="already made the release"):
        used.register("r3", folder / "third")


def test_force_without_need_is_not_noted(state, tmp_path):
    state.register("r1", tmp_path / "release", force=True)
    assert state.releases[0]["forced"] is False


def test_relative_paths_are_stored_whole(state, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state.register("r1", tmp_path.joinpath("release").relative_to(tmp_path))
    assert state.releases[0]["path"] == str(tmp_path / "release")


def test_finish(used, tmp_path):
    used.register("r2", tmp_path / "other", force=True)
    used.finish("r2", "b" * 64)
    first, second = used.releases
    assert (first["finished"], first["manifest_sha256"]) == (False, None)
    assert (second["finished"], second["manifest_sha256"]) == (True, "b" * 64)
    used.finish("r2", "b" * 64)
    used.finish("r1", "a" * 64)
    assert [e["manifest_sha256"] for e in used.releases] == ["a" * 64, "b" * 64]
    with pytest.raises(KeyFileError, match=r"was finished with manifest b{16}\.\.\., it is c{16}"):
        used.finish("r2", "c" * 64)
    with pytest.raises(KeyFileError, match="does not list the release r9"):
        used.finish("r9", "a" * 64)


def test_what_changes_nothing_writes_nothing(used):
    before = used.path.stat()
    used.bind(ARCHITECTURE, {})
    used.register("r1", used.path.parent / "release")
    after = used.path.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


# ---- The file


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_modes_and_names(path, umask):
    import os

    before = os.umask(umask)
    try:
        KeyState.of(path, Key(SECRET).id).bind(ARCHITECTURE, CALIBRATION)
    finally:
        os.umask(before)
    found = {p.name: stat.S_IMODE(p.stat().st_mode) for p in path.parent.iterdir()}
    assert found.pop("a.key.state.lock", 0o600) == 0o600
    assert found == {"a.key": 0o600, "a.key.state.json": 0o600}


def test_no_secret_is_stored(used, path):
    text = used.path.read_text()
    for part in (SECRET, SECRET[:9], SECRET[-9:]):
        assert part.hex() not in text
        assert base64.b64encode(part).decode()[:-4] not in text
        assert repr(part)[2:-1] not in text
    assert json.loads(path.read_text())["secret"] not in text


def test_every_altered_byte_is_found_or_harmless(used):
    whole = used.path.read_bytes()
    truth = (used.binding, used.releases)
    for i in range(len(whole)):
        for altered in (
            whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :],
            whole[:i] + bytes([whole[i] ^ 0x20]) + whole[i + 1 :],
        ):
            used.path.write_bytes(altered)
            try:
                found = (used.binding, used.releases)
            except KeyFileError:
                continue
            assert found == truth  # white space
    for i in range(len(whole) - 1):
        used.path.write_bytes(whole[:i])
        with pytest.raises(KeyFileError, match="Restore it from a copy"):
            KeyState.of(used.path.parent / "a.key", used.key_id)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b"\xff", b'{"format": "confide key"}', b"[" * 100_000]
)
def test_what_is_no_state(used, content):
    used.path.write_bytes(content)
    for call in (
        lambda: used.binding,
        lambda: used.bind(ARCHITECTURE, CALIBRATION),
        lambda: used.register("r1", used.path),
        lambda: used.finish("r1", "a"),
    ):
        with pytest.raises(KeyFileError, match="is damaged: it is not the state of a key"):
            call()
    assert used.path.read_bytes() == content


@pytest.mark.parametrize(
    "change",
    [
        {"version": True},
        {"version": 0},
        {"key_id": 3},
        {"binding": {}},
        {"binding": {"architecture": [], "calibration": {}}},
        {"releases": {}},
        {"releases": [{}]},
        {"releases": ["r1"]},
        {"more": 1},
        {"binding": json.loads('{"architecture": ' + '{"a": ' * 600 + "1" + "}" * 601)},
    ],
)
def test_wrong_types_with_a_right_digest(used, change):
    content = stored(used) | change
    del content["sha256"]
    try:
        digest = module._digest(content)
    except RecursionError:
        digest = ""
    used.path.write_text(json.dumps(content | {"sha256": digest}))
    with pytest.raises(KeyFileError, match="is damaged"):
        KeyState.of(used.path.parent / "a.key", used.key_id)


@pytest.mark.parametrize(
    "change",
    [
        {"finished": 1},
        {"finished": True},
        {"manifest_sha256": 3},
        {"path": None},
        {"forced": "no"},
        {"more": 1},
    ],
)
def test_wrong_releases_with_a_right_digest(used, change):
    content = stored(used)
    del content["sha256"]
    content["releases"][0] |= change
    used.path.write_text(json.dumps(content | {"sha256": module._digest(content)}))
    with pytest.raises(KeyFileError, match="is damaged: it is not as it was written"):
        KeyState.of(used.path.parent / "a.key", used.key_id)


def test_the_state_of_another_key(used):
    other = Key(bytes(32)).id
    with pytest.raises(KeyFileError) as found:
        KeyState.of(used.path.parent / "a.key", other)
    assert f"belongs to the key {used.key_id}, not to {other}" in str(found.value)


def test_a_newer_version(used):
    used.path.write_text(json.dumps(stored(used) | {"version": 2}))
    with pytest.raises(KeyFileError, match="has version 2 of the format, this version of confide"):
        KeyState.of(used.path.parent / "a.key", used.key_id)


def test_a_state_that_others_can_read_is_refused(used):
    used.path.chmod(0o644)
    with pytest.raises(KeyFileError, match=r"open to other users \(mode 0644\).*chmod 600"):
        KeyState.of(used.path.parent / "a.key", used.key_id)


def test_a_lost_state_is_a_new_beginning(used):
    used.path.unlink()
    assert used.binding is None


def test_a_folder_that_is_none(path, tmp_path):
    state = KeyState.of(path / "a.key", "0" * 32)
    with pytest.raises(FolderError, match=r"a\.key cannot be used"):
        state.register("r1", tmp_path)


# ---- At once


def test_a_state_in_use_is_waited_for(state, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "_PATIENCE", 0.1)
    ready, leave = threading.Event(), threading.Event()

    def hold():
        with FileLock(tmp_path / "a.key.state.lock"):
            ready.set()
            leave.wait(10)

    other = threading.Thread(target=hold)
    other.start()
    ready.wait(10)
    with pytest.raises(KeyFileError, match="in use by another process; wait for it"):
        state.register("r1", tmp_path)
    monkeypatch.setattr(module, "_PATIENCE", 10)
    threading.Timer(0.2, leave.set).start()
    state.register("r1", tmp_path)
    other.join()
    assert len(state.releases) == 1


def test_of_many_threads_one_registers(path, tmp_path):
    key_id = Key(SECRET).id
    barrier = threading.Barrier(8)
    won, refused = [], []

    def register(i):
        state = KeyState.of(path, key_id)
        barrier.wait()
        try:
            state.register(f"r{i}", tmp_path / str(i))
            won.append(f"r{i}")
        except KeyFileError:
            refused.append(i)

    threads = [threading.Thread(target=register, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(refused)) == (1, 7)
    assert [e["release_id"] for e in KeyState.of(path, key_id).releases] == won


def test_of_two_processes_one_registers(path, tmp_path):
    code = """
import sys
from pathlib import Path
from confide.encoders.state import KeyState
from confide.errors import KeyFileError
state = KeyState.of(Path(sys.argv[1]), sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
try:
    state.register(sys.argv[3], Path(sys.argv[3]))
    print("won", state.bind({"patch": sys.argv[3]}, {}))
except KeyFileError as error:
    print("refused", error)
"""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, path, Key(SECRET).id, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("r1", "r2")
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    found = [process.communicate()[0].split()[0] for process in processes]
    assert sorted(found) == ["refused", "won"]
    (entry,) = KeyState.of(path, Key(SECRET).id).releases
    assert entry["release_id"] == ("r1" if found[0] == "won" else "r2")


def test_a_kill_while_writing_leaves_the_old_state(used, monkeypatch):
    from pathlib import Path

    before = used.path.read_bytes()

    def killed(self, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        used.finish("r1", "a" * 64)
    monkeypatch.undo()
    assert used.path.read_bytes() == before
    used.finish("r1", "a" * 64)  # the lock was given back


# ---- Arrays


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 2), (2, 0, 4), (1000,)])
def test_arrays_come_back_bit_by_bit(shape):
    array = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    array = np.asarray(array, dtype=np.float32)
    found = unpack(json.loads(json.dumps(pack(array))))
    assert (found.dtype, found.shape) == (np.float32, shape)
    assert found.tobytes() == array.tobytes()
    found += 1  # may be written to


def test_the_form_of_an_array():
    array = np.float32([[1, -2.5, 3e-45], [np.pi, 0, -0.0]]).T  # not contiguous
    found = pack(array)
    assert (found["dtype"], found["shape"]) == ("<f4", [3, 2])
    raw = base64.b64decode(found["base64"])
    np.testing.assert_array_equal(np.frombuffer(raw, "<f4").reshape(3, 2), array)


def test_arrays_that_cannot_be_packed():
    with pytest.raises(ArgumentError, match="of float32, got float64"):
        pack(np.ones(2))
    for value in (np.nan, np.inf):
        with pytest.raises(ArgumentError, match=r"at index \(1,\)"):
            pack(np.float32([1, value]))


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "<f8"},
        {"dtype": "|O"},
        {"shape": [3]},
        {"shape": [-1, -2]},
        {"shape": [2.0]},
        {"shape": [True, 2]},
        {"shape": [2**40, 2**40]},
        {"shape": [2**27]},
        {"shape": [2] + [1] * 8},
        {"shape": 2},
        {"shape": None},
        {"base64": ""},
        {"base64": "AACAPwAAgD8"},
        {"base64": "AACAPwAAgD8A"},
        {"base64": "AACAPwAA*D8="},
        {"base64": "AACAPwA=gD8="},
        {"base64": "é" * 12},
        {"base64": None},
        {"base64": base64.b64encode(np.float32([1, np.nan]).tobytes()).decode()},
        {"base64": base64.b64encode(np.float32([1, np.inf]).tobytes()).decode()},
        {"more": 1},
    ],
)
def test_damaged_arrays(change):
    content = pack(np.ones(2, dtype=np.float32)) | change
    with pytest.raises(KeyFileError, match="stored array of the key's state is damaged"):
        unpack(content)


def test_arrays_are_bounded(monkeypatch):
    content = pack(np.ones((2, 2), dtype=np.float32))
    monkeypatch.setattr(module, "_LARGEST_ARRAY", 4)
    assert unpack(content).shape == (2, 2)
    monkeypatch.setattr(module, "_LARGEST_ARRAY", 3)
    with pytest.raises(KeyFileError, match="is damaged"):
        unpack(content)


@pytest.mark.parametrize("content", [None, [], "x", {}, {"dtype": "<f4"}])
def test_what_is_no_array(content):
    with pytest.raises(KeyFileError, match="is damaged"):
        unpack(content)
