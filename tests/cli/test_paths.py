"""A path of another kind is answered with what it is, and with what can be done with it."""

import json

import pytest

from confide.cli import paths

MANIFESTS = {
    "audit": {"format": 1, "models": ["done"]},
    "training": {"format": 1, "asked": {"holds": "training on codes"}},
    "attack": {"format": 1, "asked": {"holds": "attack on a release"}},
}


@pytest.fixture
def there(tmp_path):
    """One path of every kind."""
    for name, content in MANIFESTS.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text(json.dumps(content))
    for folder, file in [
        ("release", "release.json"),
        ("truth", "truth.parquet"),
        ("comparison", "compare.json"),
        ("challenge", "private_encoded_dataset_path_list.json"),
        ("folder", "thesis.txt"),
        ("empty", None),
    ]:
        (tmp_path / folder).mkdir()
        if file:
            (tmp_path / folder / file).write_text("{}")
    for name, content in [
        ("table.csv", b"p,l\n1,0\n"),
        ("table.dat", b"PAR1...PAR1"),
        ("c.yaml", b"data: {name: embedded}"),
        ("page.html", b"<!doctype html>"),
        ("blank.yaml", b""),
        ("key", b'{\n "format": "confide key",\n "version": 1}'),
        ("c.json", b'{"data": {"name": "embedded"}}'),
    ]:
        (tmp_path / name).write_bytes(content)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, name) for name in (*MANIFESTS, "release", "truth", "comparison", "challenge")),
        ("folder", "folder"),
        ("empty", "empty"),
        ("table.csv", "table"),
        ("table.dat", "table"),
        ("c.yaml", "configuration"),
        ("page.html", "page"),
        ("blank.yaml", "blank"),
        ("key", "key"),
        ("c.json", "file"),
        ("gone", None),
        ("c.yaml/below", None),
    ],
)
def test_kinds(there, name, kind):
    assert paths.kind(there / name) == kind


@pytest.mark.parametrize(
    "content", [b"[]", b"{", b"\xff", b"[" * 100_000, b'{"asked": []}', b'{"asked": {"holds": 1}}']
)
def test_a_manifest_of_others_is_a_folder(tmp_path, content):
    (tmp_path / "manifest.json").write_bytes(content)
    assert paths.kind(tmp_path) == "folder"


def test_an_erased_audit_is_an_audit(tmp_path):
    (tmp_path / "manifest.json").write_text('{"format": "erased on 2026-01-01"}')
    assert paths.kind(tmp_path) == "audit"


def test_what_cannot_be_read_is_left_to_who_reads_it(there, monkeypatch):
    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr("pathlib.Path.is_dir", refuse)
    assert paths.kind(there / "audit") is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("audit report release", "release is a release of codes; confide audit report takes an"),
        ("audit report release", "To use it: confide encode verify "),
        ("audit report attack", "is the folder of an attack; confide audit report takes an audit"),
        ("audit report empty", "is an empty folder; confide audit report takes an audit folder."),
        ("audit report table.csv", "If it holds predictions: confide audit scores "),
        ("audit report folder", "manifest.json is missing; is "),
        ("audit report gone", "There is no audit folder at "),
        ("audit erase training", "confide audit erase takes an audit folder."),
        ("audit run audit --out o", "is an audit folder; confide audit run takes a YAML"),
        ("audit run audit --out o", "To use it: confide audit report "),
        ("audit run table.csv --out o", "data: {name: table, path: table.csv, patient: COLUMN"),
        ("audit run page.html --out o", "is a report; confide audit run takes a YAML"),
        ("audit run blank.yaml --out o", "is an empty file; confide audit run takes a YAML"),
        ("audit run c.yaml --out release", "confide audit run makes an audit folder. Choose"),
        ("audit run c.yaml --out table.csv", "is a table; confide audit run makes an audit"),
        ("audit plan key", "is a key; confide audit plan takes a YAML configuration."),
        ("audit model attack --out o", "confide audit model takes a YAML configuration."),
        ("audit scores audit --out o", "is an audit folder; confide audit scores takes a table."),
        ("audit scores c.yaml --out o", "is a YAML configuration; confide audit scores takes a"),
        ("audit logdir folder --records c.yaml --patient p --out o", " logdir --records takes a"),
        ("encode verify audit", "is an audit folder; confide encode verify takes a release"),
        ("encode verify truth", "is the private folder of a release; confide encode verify takes"),
        ("encode verify folder", "release.json is missing; is "),
        ("encode verify gone", "There is no release at "),
        ("encode run c.yaml --key table.csv --out o", "confide encode run --key takes a key."),
        ("encode run c.yaml --key gone --out o", "There is no key at "),
        ("encode run c.yaml --key key --out audit", "makes a release of codes. Choose another"),
        ("encode train audit --out o", "confide encode train takes a YAML configuration."),
        ("encode train c.yaml --out attack", "makes the folder of a training on codes. Choose"),
        ("encode predict release c.yaml --key key --out p", "takes the folder of a training on"),
        ("attack run audit c.yaml --out o", "is an audit folder; confide attack run takes a rel"),
        ("attack run c.yaml release --out o", "is a YAML configuration; confide attack run takes"),
        ("attack run release c.yaml --truth audit --out o", "attack run --truth takes the priv"),
        ("attack run release c.yaml --out audit", "makes the folder of an attack. Choose another"),
        ("challenge score release --encoded audit", "confide challenge score --encoded takes a"),
        ("challenge submit audit --encoded challenge --out o", "submit takes the folder of an at"),
        ("challenge export c.yaml --key c.yaml --out o", "challenge export --key takes a key."),
        ("key show table.csv", "is a table; confide key show takes a key."),
        ("data describe audit", "is an audit folder; confide data describe takes a YAML"),
        ("data describe table.csv", "is a table; confide data describe takes a YAML"),
        ("data describe images", "write a configuration with data.path"),
        ("demo --out release", "is a release of codes; confide demo makes an audit folder."),
    ],
)
def test_another_kind_is_refused_in_one_line(there, monkeypatch, confide, words, message):
    monkeypatch.chdir(there)
    before = sorted(there.rglob("*"))
    code, out, err = confide(*words.split())
    assert (code, out) == (2, "")
    assert err.startswith("Error: ")
    assert err.count("\n") == 1
    assert message in err
    assert sorted(there.rglob("*")) == before  # nothing half-written


def test_commands_that_are_told_are_quoted(tmp_path, confide):
    folder = tmp_path / "my [bold] audit"
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps(MANIFESTS["audit"]))
    assert f"confide audit report '{folder}'\n" in confide("encode", "verify", folder)[2]
