"""The tables of the page on performance are those of what was measured."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = runpy.run_path(str(ROOT / "benchmarks" / "page.py"))


def test_the_page_is_made_from_the_results():
    text = (ROOT / "docs" / "performance.md").read_text()
    assert PAGE["filled"](text) == text
    for name in PAGE["TABLES"]:
        assert f"<!-- table: {name} -->" in text


def test_another_result_makes_another_page(tmp_path, monkeypatch):
    stored = json.loads((ROOT / "benchmarks" / "results" / "workers.json").read_text())
    stored["workers"]["2"] *= 1.5
    (tmp_path / "workers.json").write_text(json.dumps(stored))
    made = PAGE["workers"]
    before = made()
    monkeypatch.setitem(made.__globals__, "FOLDER", tmp_path)
    assert made() != before


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks" / "results").glob("*.json")))
def test_results_name_the_machine_and_the_versions(path):
    stored = json.loads(path.read_text())
    assert set(stored) == {"machine", path.stem}
    assert stored["machine"]["cores"] >= 1
    assert {"numpy", "torch", "confide"} <= set(stored["machine"]["versions"])
