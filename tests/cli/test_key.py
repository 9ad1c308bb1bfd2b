import base64
import json
import os
import stat

import pytest
from typer.testing import CliRunner

from confide.cli import key as commands
from confide.encoders import key_file
from confide.encoders.key import Key
from confide.encoders.state import KeyState
from confide.errors import FolderError, KeyFileError, MissingFileError

SECRET = bytes(range(128, 160))
PASSPHRASE = "correct horse"  # noqa: S105


@pytest.fixture(autouse=True)
def surroundings(monkeypatch):
    monkeypatch.setattr(key_file, "_SCRYPT", {"n": 2, "r": 8, "p": 1})
    monkeypatch.setattr(os, "urandom", lambda n: SECRET[:n])
    monkeypatch.delenv("CONFIDE_PASSPHRASE", raising=False)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def file(tmp_path):
    return tmp_path / "site-a.key"


def run(*arguments, answers=None):
    """(stdout, stderr) of a command that succeeds and shows no secret."""
    found = CliRunner().invoke(commands.app, [*map(str, arguments)], input=answers)
    assert found.exit_code == 0, found.exception
    assert_hidden(found.output)
    return found.stdout, found.stderr


def refusal(*arguments, answers=None):
    found = CliRunner().invoke(commands.app, [*map(str, arguments)], input=answers)
    assert isinstance(found.exception, FolderError | KeyFileError | MissingFileError)
    assert found.stdout == ""
    assert_hidden(f"{found.output}{found.exception!r}")
    return str(found.exception)


def assert_hidden(text):
    for part in (SECRET, SECRET[:9], SECRET[-9:]):
        for form in (part.hex(), base64.b64encode(part).decode()[:-4], repr(part)[2:-1]):
            assert form not in text
    assert PASSPHRASE not in text


def terminal(monkeypatch):
    monkeypatch.setattr(commands, "_terminal", lambda: True)


@pytest.mark.parametrize("command", [[], ["new"], ["show"]], ids=" ".join)
def test_help_has_an_example(command):
    found = CliRunner().invoke(commands.app, [*command, "--help"], env={"COLUMNS": "80"})
    assert found.exit_code == 0
    assert "Example: confide key" in found.stdout
    assert max(map(len, found.stdout.splitlines())) <= 80


def test_new(file):
    out, err = run("new", file, "--note", "site A")
    assert err == ""
    key = Key.load(file)
    assert key.note == "site A"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    facts = dict(line.split(None, 1) for line in out.splitlines()[:4])
    assert facts == {"key": key.id, "file": str(file), "mode": "0600", "passphrase": "no"}
    sentence = " ".join(out.splitlines()[5:])
    assert sentence == (
        "Whoever holds this file can undo the encoding: keep it inside, and back it up with "
        "site-a.key.state.json, which its first use makes; a code is compatible with NeuraCrypt, "
        "and its leakage is what the attack suite measures."
    )
    assert max(map(len, out.splitlines()[4:])) <= 80
    for word in ("private", "anonymous", "secure"):
        assert word not in out.lower()


def test_new_as_json(file):
    found = json.loads(run("new", file, "--json")[0])
    key = Key.load(file)
    assert found == {
        "key_id": key.id,
        "path": str(file),
        "mode": "0600",
        "created": key.created,
        "note": "",
        "protected": False,
    }


def test_new_asks_twice_for_a_passphrase(file, monkeypatch):
    terminal(monkeypatch)
    out, err = run("new", file, "--passphrase", "--json", answers=f"{PASSPHRASE}\n{PASSPHRASE}\n")
    assert json.loads(out)["protected"] is True
    assert "Passphrase for the key" in err
    assert Key.load(file, PASSPHRASE).id == json.loads(out)["key_id"]


def test_new_asks_again_until_both_agree(file, monkeypatch):
    terminal(monkeypatch)
    answers = f"another\n{PASSPHRASE}\n{PASSPHRASE}\n{PASSPHRASE}\n"
    run("new", file, "--passphrase", answers=answers)
    assert Key.load(file, PASSPHRASE)


def test_new_that_is_given_up_makes_nothing(file, monkeypatch):
    terminal(monkeypatch)
    found = CliRunner().invoke(commands.app, ["new", str(file), "--passphrase"], input="")
    assert found.exit_code == 130
    assert "Stopped; nothing was changed." in found.stderr
    assert not file.exists()


def test_new_takes_the_passphrase_from_the_environment(file, monkeypatch):
    monkeypatch.setenv("CONFIDE_PASSPHRASE", PASSPHRASE)
    out, _ = run("new", file, "--passphrase")
    assert "passphrase  yes" in out
    assert Key.load(file, PASSPHRASE)
    # Only if asked to.
    run("new", file.with_name("open.key"))
    assert Key.load(file.with_name("open.key"))


def test_new_refuses(file, monkeypatch):
    assert "no terminal to ask for a passphrase: set CONFIDE_PASSPHRASE" in refusal(
        "new", file, "--passphrase"
    )
    monkeypatch.setenv("CONFIDE_PASSPHRASE", "")
    assert "The passphrase is empty" in refusal("new", file, "--passphrase")
    assert not file.exists()
    file.write_text("mine")
    assert "exists; a key is never written over" in refusal("new", file)
    assert file.read_text() == "mine"


def test_show(file):
    Key(SECRET, note="site A", created="2030-01-31T12:00:00+00:00").save(file)
    out, err = run("show", file)
    assert err == ""
    key_id = Key(SECRET).id
    facts = dict(line.split("  ", 1) for line in out.splitlines())
    assert {name: value.strip() for name, value in facts.items()} == {
        "key": key_id,
        "file": str(file),
        "mode": "0600",
        "created": "2030-01-31T12:00:00+00:00",
        "note": "site A",
        "passphrase": "no",
        "integrity": "checked",
        "bound to": "nothing yet: not used",
        "releases": "none",
    }


def test_show_a_key_that_was_used(file, tmp_path):
    Key(SECRET).save(file)
    state = KeyState.of(file, Key(SECRET).id)
    architecture = {"name": "linear", "patch": 16, "shape": [1, 32, 32]}
    state.bind(architecture, {"mean": "CALIBRATION"})
    state.register("r1", tmp_path / "one\x1b[2J")
    state.finish("r1", "a" * 64)
    state.register("r2", tmp_path / "two", force=True)
    out, _ = run("show", file)
    assert "bound to    name=linear, patch=16, shape=[1, 32, 32]\n" in out
    assert "releases    2\n" in out
    assert f"  r1  {tmp_path}/one\ufffd[2J (finished)\n" in out
    assert f"  r2  {tmp_path}/two (not finished, key used again)\n" in out
    assert "CALIBRATION" not in out
    found = json.loads(run("show", file, "--json")[0])
    assert found["architecture"] == architecture
    assert [entry["release_id"] for entry in found["releases"]] == ["r1", "r2"]
    assert "CALIBRATION" not in str(found)


def test_show_needs_no_passphrase_and_says_what_it_did_not_check(file, monkeypatch):
    Key(SECRET).save(file, PASSPHRASE)
    assert "integrity   not checked: protected by a passphrase\n" in run("show", file)[0]
    found = json.loads(run("show", file, "--json")[0])
    assert (found["protected"], found["checked"]) == (True, False)
    monkeypatch.setenv("CONFIDE_PASSPHRASE", PASSPHRASE)
    assert json.loads(run("show", file, "--json")[0])["checked"] is True
    monkeypatch.setenv("CONFIDE_PASSPHRASE", "wrong")
    assert "the passphrase is wrong, or the file is damaged" in refusal("show", file)


def test_show_refuses(file, tmp_path):
    assert "There is no key at" in refusal("show", file)
    assert "is an empty folder; root show takes a key." in refusal("show", tmp_path)
    Key(SECRET).save(file)
    (tmp_path / "site-a.key.state.json").touch(0o600)
    assert "is damaged: it is not the state of a key" in refusal("show", file)
    file.write_bytes(file.read_bytes().replace(b'"note": ""', b'"note": "x"'))
    assert "damaged or was altered" in refusal("show", file)
    file.chmod(0o644)
    assert "chmod 600" in refusal("show", file)


def test_unlock_for_other_commands(file, monkeypatch):
    Key(SECRET).save(file, PASSPHRASE)
    with pytest.raises(KeyFileError, match="set CONFIDE_PASSPHRASE, or run in a terminal"):
        commands.unlock(file)
    terminal(monkeypatch)
    asked = []
    monkeypatch.setattr(
        commands.typer, "prompt", lambda *a, **named: asked.append(named) or PASSPHRASE
    )
    assert commands.unlock(file).id == Key(SECRET).id
    assert asked == [{"hide_input": True, "confirmation_prompt": False, "err": True}]
    monkeypatch.setenv("CONFIDE_PASSPHRASE", PASSPHRASE)
    assert commands.unlock(file).id == Key(SECRET).id
    assert len(asked) == 1
