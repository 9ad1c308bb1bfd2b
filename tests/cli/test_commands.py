"""What holds for every command: JSON, an example that parses, help that is legible and quick."""

import os
import re
import shlex
import subprocess
import sys

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from confide.cli import app

HEAVY = {"torch", "plotly", "pandas", "numpy", "scipy", "sklearn", "pyarrow", "zarr", "matplotlib"}


def commands(group=None, path=()):
    """(words, command) of the command line, groups included."""
    group = get_command(app) if group is None else group
    yield path, group
    for name, one in getattr(group, "commands", {}).items():
        yield from commands(one, (*path, name))


ALL = dict(commands())
LEAVES = [path for path, one in ALL.items() if not hasattr(one, "commands")]


def test_the_commands_of_the_interface_are_there():
    assert {
        ("demo",),
        ("data", "list"),
        ("data", "describe"),
        *(("audit", name) for name in ("plan", "run", "scores", "logdir", "model", "erase")),
        ("audit", "report"),
        ("compare",),
        ("figures",),
        ("key", "new"),
        ("key", "show"),
        *(("encode", name) for name in ("run", "verify", "train", "predict")),
        ("attack", "run"),
        ("attack", "list"),
        *(("challenge", name) for name in ("export", "submit", "score")),
    } <= set(LEAVES)


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_command_has_json(path):
    names = {option for one in ALL[path].params for option in one.opts}
    assert "--json" in names


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_has_an_example_that_parses(path):
    kind, _, example = ALL[path].epilog.partition(": ")
    assert kind == ("Start with" if not path else "Example")
    words = shlex.split(example)
    assert words[: len(path) + 1] == ["confide", *path]
    # Through the groups, down to the command, whose arguments are parsed and not run.
    command, words = ALL[()], words[1:]
    context = None
    while hasattr(command, "commands"):
        context = command.make_context(command.name, words, parent=context)
        _, command, words = command.resolve_command(context, words)
    assert command.make_context(command.name, words, parent=context).params


@pytest.mark.parametrize("path", ALL, ids=" ".join)
@pytest.mark.parametrize("width", ["80", "200"])
def test_help_is_legible(path, width):
    found = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": width, "NO_COLOR": "1"})
    assert found.exit_code == 0
    assert "\x1b" not in found.stdout
    assert "…" not in found.stdout  # nothing is cut
    assert max(map(len, found.stdout.splitlines())) <= int(width)
    # A flag takes no value, so none is announced.
    assert not [line for line in found.stdout.splitlines() if "--json" in line and "<" in line]


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_what_stands_in_brackets_is_shown(path):
    """Rich takes [figures] of a text for markup, unless its bracket is escaped."""
    command = ALL[path]
    texts = [command.help, command.epilog, *(getattr(one, "help", "") for one in command.params)]
    written = [
        word
        for text in texts
        for word in re.findall(r"confide\[[a-z0-9,-]+\]", (text or "").replace("\\[", "["))
    ]
    found = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"})
    for word in written:
        assert word in found.stdout
    if path == ("figures",):
        assert written == ["confide[figures]"]


def test_help_of_every_command_imports_nothing_heavy():
    code = f"""
import contextlib, io, sys
from typer.main import get_command
from confide.cli import app
command = get_command(app)
for path in {LEAVES!r}:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        command([*path, "--help"], prog_name="confide")
print("LOADED", *({HEAVY!r} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "LOADED"


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (["adit"], "audit"),
        (["encod", "run"], "encode"),
        (["audit", "reprot"], "report"),
        (["key", "nwe"], "new"),
        (["audit", "run", "c.yaml", "--ot", "x"], "--out"),
        (["audit", "report", "x", "--jsn"], "--json"),
        (["attack", "run", "r", "c.yaml", "--out", "o", "--max-rid", "0.1"], "--max-reid"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_what_is_misspelt_is_answered_with_the_nearest(words, near):
    found = CliRunner().invoke(app, words, env={"COLUMNS": "80", "NO_COLOR": "1"})
    assert found.exit_code == 2
    assert near in found.stderr
    assert found.stdout == ""


class TestCompletion:
    """The protocol that the scripts of `confide --show-completion` speak."""

    @staticmethod
    def complete(monkeypatch, capfd, line):
        words = shlex.split(line) if not line.endswith(" ") else [*shlex.split(line), ""]
        monkeypatch.setenv("_CONFIDE_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", "\n".join(words))
        monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
        with pytest.raises(SystemExit):
            app(prog_name="confide")
        return capfd.readouterr().out.split()

    @pytest.mark.parametrize(
        ("line", "offered"),
        [
            ("confide au", ["audit"]),
            ("confide audit r", ["run", "report"]),
            ("confide encode ", ["run", "verify", "train", "predict"]),
            ("confide data describe e", ["ecg", "embed", "embedded"]),
            ("confide data describe runs/", []),
            ("confide audit model c.yaml --accept ", ["blind", "recipe"]),
            ("confide audit model c.yaml --accept blind --ou", ["--out"]),
            ("confide audit scores t.csv --attacks lira,rm", ["lira,rmia", "lira,rmia_offline"]),
            ("confide audit run c.yaml --until s", ["stable", "se=0.05"]),
            ("confide challenge submit r --attack m", ["mmd"]),
            ("confide figures r --style ", ["nature", "plain"]),
            ("confide figures r --format p", ["pdf", "png"]),
        ],
    )
    def test_offers(self, monkeypatch, capfd, line, offered):
        assert self.complete(monkeypatch, capfd, line) == offered

    def test_a_path_of_another_kind_does_not_disturb(self, monkeypatch, capfd, tmp_path):
        (tmp_path / "t.csv").write_text("a,b\n1,2\n")
        line = f"confide audit run {tmp_path / 't.csv'} --ou"
        assert self.complete(monkeypatch, capfd, line) == ["--out"]

    @pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
    def test_scripts_of_the_shells(self, monkeypatch, capfd, shell):
        monkeypatch.setenv("_CONFIDE_COMPLETE", f"source_{shell}")
        with pytest.raises(SystemExit) as stop:
            app(prog_name="confide")
        assert not stop.value.code
        assert "_CONFIDE_COMPLETE" in capfd.readouterr().out

    def test_bash_completes_with_the_script(self, tmp_path):
        found = subprocess.run(
            [sys.executable, "-m", "confide"],
            env=os.environ | {"_CONFIDE_COMPLETE": "source_bash"},
            capture_output=True,
            text=True,
            check=True,
        )
        (tmp_path / "confide").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m confide "$@"\n')
        (tmp_path / "confide").chmod(0o700)
        script = f"""{found.stdout}
COMP_WORDS=(confide audit re)
COMP_CWORD=2
_confide_completion confide
printf '%s' "${{COMPREPLY[*]}}"
"""
        done = subprocess.run(
            ["bash", "-c", script],
            env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == "report"

    def test_imports_nothing_heavy(self):
        code = f"""
import atexit, sys
atexit.register(lambda: print("LOADED", *({HEAVY!r} & set(sys.modules)), file=sys.stderr))
from confide.cli import main
main()
"""
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ
            | {
                "_CONFIDE_COMPLETE": "complete_bash",
                "COMP_WORDS": "confide\naudit\nmodel\nc.yaml\n--accept\nblind\n--accept\n",
                "COMP_CWORD": "7",
            },
            capture_output=True,
            text=True,
        )
        assert done.stdout.split() == ["blind", "recipe"]
        assert done.stderr.splitlines()[-1] == "LOADED"

    def test_names_are_those_that_exist(self):
        from confide.attacks import KNOWN
        from confide.audits.guards import REFUSING
        from confide.cli import choices
        from confide.datasets import KNOWN as SOURCES
        from confide.inversion.settings import NEEDS
        from confide.reports.paper_style import FORMATS, STYLES

        assert tuple(sorted(SOURCES)) == choices.DATA
        assert tuple(sorted(KNOWN)) == choices.MEMBERSHIP_ATTACKS
        assert tuple(sorted(NEEDS)) == choices.INVERSION_ATTACKS
        assert tuple(sorted(REFUSING)) == choices.GUARDS
        assert choices.FORMATS == FORMATS
        assert tuple(STYLES) == choices.STYLES


def test_a_new_command_is_seen():
    """The walk above looks into groups."""
    outer, inner = typer.Typer(), typer.Typer()
    inner.command("b")(lambda: None)
    inner.command("c")(lambda: None)
    outer.add_typer(inner, name="a")
    outer.command("d")(lambda: None)
    assert {("a", "b"), ("a", "c"), ("d",)} < set(dict(commands(get_command(outer))))
