"""``confide data``: what is known, and published data sets by their folder alone."""

import json
import sys
from pathlib import Path

import pytest

from confide.datasets import KNOWN

sys.path.insert(0, str(Path(__file__).parents[1] / "datasets"))  # tests are imported from files
from test_ptb_xl import write as write_ptb_xl

PUBLISHED = sorted(name for name, source in KNOWN.items() if hasattr(source, "homepage"))


def test_the_list_says_where_to_get_published_data_sets(confide):
    code, out, err = confide("data", "list")
    assert (code, err) == (0, "")
    lines = {line.split()[0]: line for line in out.splitlines()}
    names = [*KNOWN, "release"]
    assert list(lines) == names
    found = json.loads(confide("data", "list", "--json")[1])
    assert list(found) == names
    assert {"ptb-xl", "mimic-iv-ed"} <= set(PUBLISHED)
    for name, about in found.items():
        assert about["description"] in lines[name]
        assert (about["homepage"] is not None) == (name in PUBLISHED)
        assert name not in PUBLISHED or f"({about['homepage']})" in lines[name]
        assert name not in PUBLISHED or about["homepage"].startswith("https://")


def test_a_published_data_set_needs_its_folder_alone(confide, tmp_path, monkeypatch):
    write_ptb_xl(tmp_path / "here")
    monkeypatch.chdir(tmp_path)
    code, out, err = confide("data", "describe", "ptb-xl", "--path", "here", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert (found["records"], found["patients"], found["test_records"]) == (6, 5, 2)
    assert found["labels"]["MI"] == {"positive": 3, "negative": 3, "unknown": 0}
    code, out, err = confide("data", "describe", "ptb-xl", "--path", tmp_path / "here")
    assert (code, err) == (0, "")
    assert "group extra_systole" in out
    assert "Note: 2 of 8 records have no diagnostic statement; left out." in out
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "describe ptb-xl",
            "say where they are by --path, or write a configuration with data.path",
        ),
        ("describe ptb-xl", "They are to be had from https://physionet.org/content/ptb-xl/."),
        ("describe ptb-xl --path gone", "There is no folder gone; ptb-xl is to be had from https"),
        ("describe ptb-xl --path .", "There is no ptbxl_database.csv in .; ptb-xl is to be had"),
        ("describe embedded --path .", "'embedded' reads no files; leave --path out."),
        ("describe table --path t.csv", "write a configuration with data.path, data.patient, data"),
        ("describe release", "write a configuration with data.path, data.label and describe that."),
        ("describe c.yaml --path .", "--path goes with the name of a data source, and 'c.yaml' is"),
        ("describe ptbxl --path .", "'ptbxl' is none. Did you mean 'ptb-xl'?"),
    ],
)
def test_what_cannot_be_described_is_one_line(confide, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text("data: {name: embedded}")
    code, out, err = confide("data", *words.split())
    assert (code, out) == (2, "")
    assert err.startswith("Error: ")
    assert err.count("\n") == 1
    assert message in err
