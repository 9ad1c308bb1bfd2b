"""The command line in this process."""

import os
import sys

import pytest

from confide.cli import main


@pytest.fixture
def confide(monkeypatch, capfd):
    """Run the command line in this process: (exit code, stdout, stderr)."""
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["confide", *map(str, arguments)])
        before = os.umask(0o077)
        try:
            with pytest.raises(SystemExit) as stop:
                main()
        finally:
            os.umask(before)
        return stop.value.code or 0, *capfd.readouterr()

    return run
