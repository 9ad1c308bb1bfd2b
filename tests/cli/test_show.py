"""Tables at most 100 columns wide; progress on a terminal, and silence anywhere else."""

import io
import sys

import pytest
from rich.table import Table
from rich.text import Text

from confide.cli import bar, show


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """Make stderr a terminal of 80 columns; call it in the test, for pytest sets its own before."""
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")

    def make():
        stream = Terminal()
        monkeypatch.setattr(sys, "stderr", stream)
        return stream

    return make


@pytest.mark.parametrize(("columns", "widest"), [("80", 80), ("100", 100), ("200", 100)])
def test_lines_are_no_longer_than_can_be_read(monkeypatch, capfd, columns, widest):
    monkeypatch.setenv("COLUMNS", columns)
    show.tables([Text("word " * 100), Text("")])
    lines = capfd.readouterr().out.splitlines()
    assert widest - 5 < max(map(len, lines)) <= widest
    assert not [line for line in lines if line != line.rstrip()]


def test_markup_stays_text(monkeypatch, capfd):
    monkeypatch.setenv("COLUMNS", "80")
    table = Table("[red]a")
    table.add_row("[/]b")
    show.tables([table, "[bold]c"])
    out = capfd.readouterr().out
    assert "[/]b" in out
    assert "[bold]c" in out


def test_a_bar_with_the_time_left(terminal, monkeypatch):
    terminal()
    clock = [100.0]
    monkeypatch.setattr(bar.time, "monotonic", lambda: clock[0])
    with show.progress("Training models", then="Analysing") as progress:
        assert "Preparing" in shown(progress)
        progress(16, 64)  # these were there before
        assert "16/64" in shown(progress)
        assert "left" not in shown(progress)
        clock[0] += 60
        progress(32, 64)
        assert "0:02:00 left" in shown(progress)
        clock[0] += 45  # steps may be minutes apart: the time goes on
        assert "0:01:15 left" in shown(progress)
        clock[0] += 3000
        assert "0:00:00 left" in shown(progress)
        assert "Analysing" not in shown(progress)
        progress(64, 64)
        assert "64/64" in shown(progress)
        assert "Analysing" in shown(progress)
        progress(64, 64)
        assert shown(progress).count("Analysing") == 1
        assert max(map(len, shown(progress).splitlines())) <= 80
    assert "Analysing" not in shown(progress)  # over; the steps stay
    assert "64/64" in shown(progress)


def test_a_phase_before_the_steps(terminal, monkeypatch):
    terminal()
    clock = [100.0]
    monkeypatch.setattr(bar.time, "monotonic", lambda: clock[0])
    with show.progress("Training models", then="Analysing") as progress:
        reading = progress.phase("Reading images")
        assert "Reading" not in shown(progress)
        for _ in range(2):  # into a cache, and out of it
            reading(0, 100)
            clock[0] += 30
            reading(25, 100)
            assert "0:01:30 left" in shown(progress)
            assert "25/100" in shown(progress)
            reading(100, 100)
        progress(1, 4)
        lines = shown(progress).splitlines()
        assert [line.split()[0] for line in lines if line.strip()] == ["Reading", "Training"]
        progress(4, 4)
        assert "Analysing" in shown(progress)
    assert "Analysing" not in shown(progress)
    assert "100/100" in shown(progress)


def test_a_phase_of_something_without_steps(terminal):
    terminal()
    with show.waiting("Reading the records") as waiting:
        reading = waiting.phase("Reading images")
        reading(1, 2)
        assert [line.split()[:2] for line in shown(waiting).splitlines() if line.strip()] == [
            ["Reading", "images"],
            ["Reading", "the"],
        ]
    assert "the records" not in shown(waiting)
    assert "1/2" in shown(waiting)


def shown(progress):
    from rich.console import Console

    console = Console(width=80, file=io.StringIO(), no_color=True, force_terminal=False)
    console.print(progress._progress.get_renderable())
    return console.file.getvalue()


def test_waiting_says_what_for(terminal):
    stream = terminal()
    with show.waiting("Reading the records"):
        pass
    assert "Reading the records" in stream.getvalue()


@pytest.mark.parametrize(
    "environment", [{"TERM": "dumb"}, {"TERM": "unknown"}], ids=lambda e: e["TERM"]
)
def test_silent_on_a_terminal_that_cannot_draw(terminal, monkeypatch, environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    stream = terminal()
    with show.progress("Training", then="Analysing") as progress:
        progress(1, 2)
        progress(2, 2)
    assert stream.getvalue() == ""


@pytest.mark.parametrize("forced", [{}, {"FORCE_COLOR": "1"}, {"CI": "true"}], ids=str)
def test_silent_where_there_is_no_terminal(terminal, monkeypatch, forced):
    for name, value in forced.items():
        monkeypatch.setenv(name, value)
    stream = terminal()
    monkeypatch.setattr(Terminal, "isatty", lambda self: False)
    with show.progress("Training", then="Analysing") as progress:
        progress(1, 2)
        progress(2, 2)
    with show.waiting("Reading"):
        pass
    assert stream.getvalue() == ""
