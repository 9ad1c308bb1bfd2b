"""A guard that refuses a result: all is written and shown, then exit code 1."""

import json
import os
import sys

import pandas as pd
import pytest
import typer

from confide.audits.result import AuditResult
from confide.cli import main, show


@pytest.fixture
def report(monkeypatch, capfd, tmp_path):
    """Run `confide audit report --json` on a result with these guards."""

    def run(*guards, json_wanted=True):
        empty = pd.DataFrame()
        summary = {"n_models": 4, "guards": list(guards), "warnings": []}
        found = AuditResult(
            records=empty, patients=empty, groups=empty, curves=empty, summary=summary
        )
        monkeypatch.setattr("confide.runs.analyse", lambda folder, **shown: found)
        arguments = ["confide", "audit", "report", str(tmp_path / "o")]
        monkeypatch.setattr(sys, "argv", [*arguments, *(["--json"] if json_wanted else [])])
        before = os.umask(0o077)
        try:
            with pytest.raises(SystemExit) as stop:
                main()
        finally:
            os.umask(before)
        return stop.value.code or 0, *capfd.readouterr()

    return run


def guard(name, status):
    return {"name": name, "status": status, "message": "AUC 0.9."}


@pytest.mark.parametrize("name", ["blind", "recipe"])
def test_a_failed_guard_is_shown_and_exit_code_1(report, name):
    code, out, err = report(guard(name, "failed"))
    assert code == 1
    assert json.loads(out)["guards"] == [guard(name, "failed")]
    assert err.startswith("Error: The figures do not mean what they should")
    assert err.endswith(f"accept it by name with --accept {name}.\n")


@pytest.mark.parametrize(
    "calm",
    [
        guard("blind", "accepted"),
        guard("blind", "passed"),
        guard("recipe", "unknown"),
        guard("duplicates", "failed"),
        guard("near-duplicates", "failed"),
        guard("membership", "failed"),
    ],
    ids=lambda g: f"{g['name']} {g['status']}",
)
def test_everything_else_is_exit_code_0(report, calm):
    code, out, err = report(calm)
    assert (code, err) == (0, "")
    assert json.loads(out)["guards"] == [calm]


def test_accept_takes_names_of_guards_that_refuse():
    app = typer.Typer()

    @app.command()
    def command(accept: show.Accept = None):
        typer.echo(repr(accept))

    from typer.testing import CliRunner

    run = CliRunner().invoke
    assert run(app, []).stdout == "None\n"
    both = run(app, ["--accept", "blind", "--accept", "recipe"])
    assert both.stdout == "['blind', 'recipe']\n"
    wrong = run(app, ["--accept", "blnd"])
    assert "Did you mean 'blind'?" in str(wrong.exception)
