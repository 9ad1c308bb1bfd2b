"""``confide compare`` as it is typed, on audits whose signals were erased."""

import json

import pytest
from typer.testing import CliRunner

from confide.cli import app
from confide.errors import ArgumentError
from reports.comparisons import erased_folder
from reports.conftest import make


@pytest.fixture
def folders(tmp_path):
    return [
        erased_folder(make, tmp_path / "plain", auc=0.8, auroc=0.85),
        erased_folder(make, tmp_path / "early", auc=0.6, auroc=0.9, epochs=3),
    ]


def compare(*arguments):
    environment = {"NO_COLOR": "1", "COLUMNS": "80"}
    return CliRunner().invoke(app, ["compare", *map(str, arguments)], env=environment)


def test_the_table_is_legible_at_80_columns(folders, tmp_path):
    found = compare(*folders, "--out", tmp_path / "out")
    assert found.exit_code == 0, found.output
    lines = found.stdout.splitlines()
    assert max(map(len, lines[:-1])) <= 80
    text = " ".join(found.stdout.split())
    assert "“plain” gives away more than “early”, and its utility is lower." in text
    assert "Warning: The signals of “plain”, “early” were erased." in text
    assert "epochs 14 3" in text
    assert lines[-1] == f"Report: {tmp_path / 'out' / 'report.html'}"
    assert (tmp_path / "out" / "report.html").is_file()


def test_json_is_what_is_written(folders, tmp_path):
    found = compare(*folders, "--out", tmp_path / "out", "--json")
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout) == json.loads((tmp_path / "out" / "compare.json").read_text())


def test_names_are_shown_as_text(folders, tmp_path):
    found = compare(
        *folders, "--out", tmp_path / "out", "--name", "[red]a[/]", "--name", "<b>\x1b[2J"
    )
    assert found.exit_code == 0, found.output
    assert "[red]a[/]" in found.stdout
    assert "\x1b" not in found.stdout
    assert "<b>�[2J" not in (tmp_path / "out" / "report.html").read_text()


def test_one_folder_is_not_enough(folders, tmp_path):
    found = compare(folders[0], "--out", tmp_path / "out")
    assert isinstance(found.exception, ArgumentError)
    assert not (tmp_path / "out").exists()


def test_help_has_an_example():
    found = compare("--help")
    assert "Example: confide compare" in found.stdout
