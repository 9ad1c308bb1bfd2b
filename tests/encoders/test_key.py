import base64
import copy
import dataclasses
import inspect
import json
import os
import pickle
import pprint
import stat
import subprocess
import sys
import traceback
import unicodedata

import numpy as np
import pytest

from confide.encoders import derive, key_file
from confide.encoders.key import Header, Key, unlock
from confide.errors import ArgumentError, FolderError, KeyFileError, MissingFileError

SECRET = bytes(range(128, 160))
PASSPHRASE = "Grüße, correct horse"  # noqa: S105
CREATED = "2030-01-31T12:00:00+00:00"


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    """Passphrases that cost nothing to try."""
    monkeypatch.setattr(key_file, "_SCRYPT", {"n": 2, "r": 8, "p": 1})
    monkeypatch.delenv("CONFIDE_PASSPHRASE", raising=False)


@pytest.fixture
def key():
    return Key(SECRET, note="site A", created=CREATED)


@pytest.fixture(params=[None, PASSPHRASE], ids=["open", "protected"])
def file(request, key, tmp_path):
    path = tmp_path / "a.key"
    key.save(path, request.param)
    return path, request.param


def forms(secret=SECRET):
    """What a secret looks like when it leaks."""
    for part in (secret, secret[:12], secret[-12:]):
        yield part.hex()
        yield part.hex().upper()
        yield repr(part)[2:-1]
        yield str(list(part))[1:-1]
        yield part.decode("latin-1")
        # Any two bytes in, base64 looks the same.
        for skip in range(3):
            text = base64.b64encode(part[skip:]).decode()[:-4]
            yield text
            yield text.replace("+", "-").replace("/", "_")
    yield str(int.from_bytes(secret))
    yield str(int.from_bytes(secret, "little"))


def assert_hidden(text):
    for form in (*forms(), PASSPHRASE, repr(PASSPHRASE)[1:-1], ascii(PASSPHRASE)[1:-1]):
        assert form not in text


def refused(call, *arguments, error=KeyFileError, **named):
    """The message of the refusal; nothing on the way to it shows the secret."""
    try:
        call(*arguments, **named)
    except error as found:
        assert_hidden(traceback.format_exc())
        link = found
        while link is not None:
            # json, base64 and Unicode keep what they failed on.
            assert_hidden(f"{link} {link!r} {link.args} {vars(link)} {getattr(link, 'doc', '')}")
            assert_hidden(str(getattr(link, "object", b""), "latin-1"))
            link = link.__context__
        return str(found)
    raise AssertionError(f"{arguments} was accepted")


def rewritten(path, **changes):
    """Change fields of the file, one or in `protection`."""
    content = json.loads(path.read_bytes())
    for name, value in changes.items():
        where = content["protection"] if name in (content["protection"] or {}) else content
        where[name] = value
    path.write_bytes(key_file._render(content))


def test_leaks_would_be_found():
    for text in (SECRET.hex(), base64.b64encode(SECRET).decode(), repr(SECRET), str([*SECRET])):
        with pytest.raises(AssertionError):
            assert_hidden(f"before {text} after")


# ---- The object


def test_a_new_key_is_random():
    a, b = Key.new(), Key.new(note="b")
    assert a.id != b.id
    assert (a.note, b.note) == ("", "b")
    assert a.created.endswith("+00:00")
    assert a == a
    assert a != b
    assert a != a.id
    assert len({a, b, a}) == 2


def test_secrets_come_from_the_operating_system(monkeypatch):
    asked = []
    monkeypatch.setattr(os, "urandom", lambda n: asked.append(n) or SECRET)
    assert Key.new().id == Key(SECRET).id
    assert asked == [32]


def test_id_and_derived_values_never_change():
    key = Key(bytes(range(32)))
    assert key.id == "00b82f34b7461d83e582498dcb00f0b8"
    assert key.id == derive.hkdf(bytes(range(32)), "confide key id v1", 16).hex()
    assert key.derive("calibration rows").hex() == (
        "dd28e09503eb27bec80870c454af9f517c57aa6dd26208dd4dea23fec920073b"
    )
    assert key.derive("calibration rows", 8) == key.derive("calibration rows")[:8]
    assert key.derive("other") != key.derive("calibration rows")
    found = key.uniform("patch.weight", (4,), 0.25)
    assert found.tobytes().hex() == "d92e543eea088ebd092d543e951f5c3e"
    found = key.normal("position", (2, 2))
    assert found.tobytes().hex() == "8513573fc18fff3ea86e10be94f63c3f"


def test_nothing_shows_the_secret(key):
    for text in (
        repr(key),
        str(key),
        f"{key} {key!r} {key!a}",
        f"{key}",
        pprint.pformat([key, {"key": key}]),
        str(inspect.getmembers(key)),
        str([getattr(key, name) for name in dir(key)]),
    ):
        assert_hidden(text)
        assert key.id in text
    assert repr(key) == f"Key({key.id})"
    with pytest.raises(TypeError):
        vars(key)
    with pytest.raises(TypeError):
        dict(key)
    with pytest.raises(TypeError):
        json.dumps(key)
    with pytest.raises(TypeError):
        dataclasses.asdict(key)


def test_a_key_is_not_copied_or_pickled(key):
    @dataclasses.dataclass
    class Holder:
        key: Key

    for call in (
        copy.copy,
        copy.deepcopy,
        *(lambda k, p=p: pickle.dumps(k, p) for p in range(pickle.HIGHEST_PROTOCOL + 1)),
        lambda k: dataclasses.asdict(Holder(k)),
        lambda k: k.__getstate__(),
    ):
        assert "neither copied nor pickled" in refused(call, key)


@pytest.mark.parametrize("secret", [SECRET[1:], SECRET + b"\0", bytearray(SECRET), SECRET.hex()])
def test_bad_secrets_are_not_shown(secret):
    assert refused(Key, secret, error=ArgumentError) == "Expected a secret of 32 bytes."


@pytest.mark.parametrize("note", ["two\nlines", "\x1b[2J", "x" * 201, "\ud800", 3, "\u202e"])
def test_bad_notes(note):
    assert "Expected a note of one line" in refused(Key, SECRET, note=note, error=ArgumentError)


@pytest.mark.parametrize("created", ["", "today", "2030-01-31", "2030-01-31T12:00:00+01:00", 3])
def test_bad_times(created):
    assert "Expected created=" in refused(Key, SECRET, created=created, error=ArgumentError)


# ---- The file


def test_what_was_saved_is_loaded(file, key):
    path, passphrase = file
    found = Key.load(path, passphrase)
    assert found == key
    assert (found.id, found.note, found.created) == (key.id, "site A", CREATED)
    assert np.array_equal(found.normal("a", (3,)), key.normal("a", (3,)))


def test_the_form_of_an_open_file(key, tmp_path):
    key.save(tmp_path / "k")
    content = json.loads((tmp_path / "k").read_text())
    assert list(content) == [*key_file._HEADER, "secret", "check"]
    assert (content["format"], content["version"]) == ("confide key", 1)
    assert (content["key_id"], content["protection"]) == (key.id, None)
    assert base64.b64decode(content["secret"]) == SECRET


def test_the_form_of_a_protected_file(key, tmp_path, monkeypatch):
    monkeypatch.undo()  # the parameters that count
    key.save(tmp_path / "k", PASSPHRASE)
    text = (tmp_path / "k").read_text()
    assert_hidden(text)
    content = json.loads(text)
    assert list(content) == [*key_file._HEADER, "secret"]
    p = content["protection"]
    assert (p["kdf"], p["cipher"]) == ("scrypt", "AES-256-GCM")
    assert (p["n"], p["r"], p["p"]) == (65536, 8, 1)
    assert Key.load(tmp_path / "k", PASSPHRASE) == key
    # The same key and passphrase never give the same file.
    key.save(tmp_path / "k2", PASSPHRASE)
    other = json.loads((tmp_path / "k2").read_text())
    for name in ("salt", "nonce"):
        assert other["protection"][name] != p[name]
    assert other["secret"] != content["secret"]


def test_a_protected_file_by_other_means(key, tmp_path):
    """What the format says, with Python's own scrypt."""
    import hashlib

    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    key.save(tmp_path / "k", PASSPHRASE)
    content = json.loads((tmp_path / "k").read_text())
    p, secret = content["protection"], base64.b64decode(content.pop("secret"))
    code = hashlib.scrypt(
        PASSPHRASE.encode(), salt=base64.b64decode(p["salt"]), n=2, r=8, p=1, dklen=32
    )
    header = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    assert AESGCM(code).decrypt(base64.b64decode(p["nonce"]), secret, header) == SECRET


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
@pytest.mark.parametrize("passphrase", [None, PASSPHRASE])
def test_mode_is_0600_from_the_first_byte(key, tmp_path, umask, passphrase, monkeypatch):
    seen = []
    fsync = os.fsync

    def look(handle):
        seen.append(stat.S_IMODE(os.fstat(handle).st_mode))
        fsync(handle)

    made = []
    opened = os.open

    def spy(path, flags, mode=0o777, **more):
        made.append((flags & os.O_EXCL != 0, mode))
        return opened(path, flags, mode, **more)

    monkeypatch.setattr(os, "fsync", look)
    monkeypatch.setattr(os, "open", spy)
    before = os.umask(umask)
    try:
        key.save(tmp_path / "k", passphrase)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "k").stat().st_mode) == 0o600
    assert seen == [0o600]
    assert made == [(True, 0o600)]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o644])
def test_files_open_to_others_are_refused(file, mode):
    path, passphrase = file
    path.chmod(mode)
    message = refused(Key.load, path, passphrase)
    assert f"is open to other users (mode {mode:04o})" in message
    assert message.endswith(f"chmod 600 {path}")
    path.chmod(0o400)
    assert Key.load(path, passphrase)


def test_never_over_another_file(file, key, tmp_path):
    path, _ = file
    before = path.read_bytes()
    assert "a.key exists; a key is never written over" in refused(Key.new().save, path)
    assert path.read_bytes() == before
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    assert "exists" in refused(key.save, tmp_path / "link")
    assert not (tmp_path / "elsewhere").exists()
    assert "exists" in refused(key.save, tmp_path)
    assert "cannot be used" in refused(key.save, tmp_path / "gone" / "k", error=FolderError)


def test_a_full_disk_leaves_no_file(key, tmp_path, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert "is full" in refused(key.save, tmp_path / "k", error=FolderError)
    assert not list(tmp_path.iterdir())


def test_every_altered_bit_is_found(file):
    path, passphrase = file
    whole = path.read_bytes()
    for i in range(len(whole)):
        for bit in range(8):
            altered = bytearray(whole)
            altered[i] ^= 1 << bit
            path.write_bytes(altered)
            with pytest.raises(KeyFileError):
                Key.load(path, passphrase)
    path.write_bytes(whole)
    Key.load(path, passphrase)


def test_every_cut_is_found_and_shows_nothing(file):
    path, passphrase = file
    whole = path.read_bytes()
    for i in range(len(whole)):
        for altered in (
            whole[:i],
            whole[:i] + whole[i + 1 :],
            whole[:i] + b" " + whole[i:],
            whole[:i] + b"\xff" + whole[i + 1 :],
        ):
            path.write_bytes(altered)
            assert str(path) in refused(Key.load, path, passphrase)
    for altered in (whole + b"\n", whole + b"\0", whole * 2, whole.replace(b"\n", b"\r\n")):
        path.write_bytes(altered)
        assert str(path) in refused(Key.load, path, passphrase)


def test_fields_of_two_files_do_not_mix(file, tmp_path):
    path, passphrase = file
    Key.new(note="other").save(tmp_path / "b.key", passphrase)
    other = json.loads((tmp_path / "b.key").read_bytes())
    whole = path.read_bytes()
    for name in ("key_id", "note", "secret", "protection", "check"):
        if other.get(name) is not None:
            rewritten(path, **{name: other[name]})
            assert "damaged" in refused(Key.load, path, passphrase)
            path.write_bytes(whole)


def test_an_id_that_is_not_of_the_secret(key, tmp_path):
    """Even when whoever wrote the file knew the secret."""
    key.save(tmp_path / "k")
    content = json.loads((tmp_path / "k").read_bytes()) | {"key_id": "0" * 32}
    rewritten(tmp_path / "k", key_id="0" * 32, check=key_file._check(SECRET, content))
    assert "is damaged or was altered" in refused(Key.load, tmp_path / "k")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"-----BEGIN OPENSSH PRIVATE KEY-----",
        b'{"format": "confide key state"}',
        b"[" * 50_000,
        b'{"version": ' + b"1" * 5000 + b"}",
    ],
)
def test_what_is_no_key(tmp_path, content):
    path = tmp_path / "k"
    path.touch(0o600)
    path.write_bytes(content)
    assert f"{path} is not a key, or is damaged" in refused(Key.load, path)
    assert "is not a key" in refused(Header.read, path)
    assert "is not a key" in refused(unlock, path)


def test_files_that_are_not_there_or_not_files(tmp_path):
    path = tmp_path / "k"
    message = refused(Key.load, path, error=MissingFileError)
    assert message == f"There is no key at {path}; make one with: confide key new {path}"
    assert "is not a file" in refused(Key.load, tmp_path)
    os.mkfifo(path, 0o600)
    assert "is not a file" in refused(Key.load, path)


def test_huge_files_are_not_read(tmp_path):
    with (tmp_path / "k").open("wb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.truncate(2**40)
    assert "is larger than 100,000 bytes" in refused(Key.load, tmp_path / "k")


def test_a_newer_version(file):
    path, passphrase = file
    rewritten(path, version=2)
    assert "has version 2 of the format, this version of confide reads 1" in refused(
        Key.load, path, passphrase
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("version", 0),
        ("version", True),
        ("version", 1.0),
        ("key_id", "0" * 31),
        ("key_id", None),
        ("created", "now"),
        ("created", None),
        ("note", "\x1b[2J"),
        ("note", ["site A"]),
        ("secret", ""),
        ("secret", 3),
        ("secret", "é" * 44),
        ("protection", False),
        ("protection", {}),
        ("protection", "none"),
        ("more", 1),
    ],
)
def test_wrong_types(file, name, value):
    path, passphrase = file
    rewritten(path, **{name: value})
    assert "is damaged or was altered" in refused(Key.load, path, passphrase)
    assert "is damaged or was altered" in refused(Header.read, path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 2**19),  # 512 MiB
        ("n", 2**40),
        ("n", 10**400),
        ("n", 3),
        ("n", 1),
        ("n", 0),
        ("n", -2),
        ("n", True),
        ("n", 2.0),
        ("n", None),
        ("r", 2**21),
        ("r", 0),
        ("p", 2**23),
        ("p", 0),
        ("kdf", "none"),
        ("cipher", "AES-128-ECB"),
        ("salt", "AA=="),
        ("salt", ""),
        ("nonce", "A" * 17),
        ("nonce", 12),
    ],
)
def test_hostile_parameters_cost_nothing(key, tmp_path, name, value, monkeypatch):
    key.save(tmp_path / "k", PASSPHRASE)
    rewritten(tmp_path / "k", **{name: value})
    monkeypatch.setattr(key_file, "Scrypt", None)  # would fail if it came so far
    assert "is damaged or was altered" in refused(Key.load, tmp_path / "k", PASSPHRASE)


def test_the_costliest_parameters_that_pass(key, tmp_path):
    def passes(**p):
        return key_file._is_protection(content["protection"] | p)

    key.save(tmp_path / "k", PASSPHRASE)
    content = json.loads((tmp_path / "k").read_bytes())
    assert passes(n=2**18, r=8, p=4)
    assert not passes(n=2**18, r=8, p=5)
    assert not passes(n=2**18, r=9, p=1)
    assert passes(n=2**15, r=1, p=1)
    assert not passes(n=2**16, r=1, p=1)  # RFC 7914, section 2


# ---- Passphrases


def test_passphrases_that_do_not_fit(key, tmp_path):
    key.save(tmp_path / "open")
    key.save(tmp_path / "locked", PASSPHRASE)
    message = refused(Key.load, tmp_path / "locked")
    assert "is protected by a passphrase: set CONFIDE_PASSPHRASE, or run in a terminal" in message
    assert "the passphrase is wrong" in refused(Key.load, tmp_path / "locked", "Grusse")
    assert "The passphrase is empty" in refused(Key.load, tmp_path / "locked", "")
    assert "is not protected by a passphrase, but one was given" in refused(
        Key.load, tmp_path / "open", PASSPHRASE
    )
    assert "The passphrase is empty" in refused(key.save, tmp_path / "new", "")
    assert not (tmp_path / "new").exists()


def test_a_passphrase_is_the_same_in_every_normal_form(key, tmp_path):
    composed, apart = (unicodedata.normalize(form, PASSPHRASE) for form in ("NFC", "NFD"))
    assert composed != apart
    key.save(tmp_path / "k", composed)
    assert Key.load(tmp_path / "k", apart) == key


def test_any_text_is_a_passphrase(key, tmp_path):
    # What Python makes of an environment variable that is not UTF-8.
    odd = b"\xffcorrect horse".decode("utf-8", "surrogateescape")
    key.save(tmp_path / "k", odd)
    assert Key.load(tmp_path / "k", odd) == key
    assert "wrong" in refused(Key.load, tmp_path / "k", odd + "\ud800")


def never():
    raise AssertionError("asked without need")


def test_unlock(key, tmp_path, monkeypatch):
    key.save(tmp_path / "open")
    key.save(tmp_path / "locked", PASSPHRASE)
    assert unlock(tmp_path / "open", never) == key
    assert unlock(tmp_path / "locked", lambda: PASSPHRASE) == key
    assert "wrong" in refused(unlock, tmp_path / "locked", lambda: "x")
    assert "set CONFIDE_PASSPHRASE, or run in a terminal" in refused(unlock, tmp_path / "locked")
    monkeypatch.setenv("CONFIDE_PASSPHRASE", PASSPHRASE)
    assert unlock(tmp_path / "open", never) == key
    assert unlock(tmp_path / "locked", never) == key
    monkeypatch.setenv("CONFIDE_PASSPHRASE", "x")
    assert "wrong" in refused(unlock, tmp_path / "locked", never)
    monkeypatch.setenv("CONFIDE_PASSPHRASE", "")
    assert "is empty" in refused(unlock, tmp_path / "locked", never)


def test_header(file, key):
    path, passphrase = file
    plain = Header(
        key_id=key.id, created=CREATED, note="site A", protected=bool(passphrase), checked=True
    )
    assert Header.read(path) == dataclasses.replace(plain, checked=not passphrase)
    assert Header.read(path, PASSPHRASE) == plain
    rewritten(path, note="site B")
    if passphrase:
        assert Header.read(path).note == "site B"  # not checked, and says so
        assert not Header.read(path).checked
        assert "damaged" in refused(Header.read, path, passphrase)
    else:
        assert "damaged" in refused(Header.read, path)


def test_no_torch():
    code = (
        "import sys, confide.encoders.key, confide.encoders.state, confide.cli.key; "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
