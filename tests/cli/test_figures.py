"""``confide figures``: what is drawn, where it goes, and what is refused."""

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from confide.cli import app
from confide.errors import ArgumentError, FolderError, MissingFileError
from confide.runs.figures import write_figures
from confide.stores import write_json, write_table

sys.path.append(str(Path(__file__).parents[1]))
from reports.certificates import make as make_certificate
from reports.conftest import make

pytest.importorskip("matplotlib")


@pytest.fixture
def audit(tmp_path):
    """An audit folder of tables alone, as after erasing."""
    folder, result = tmp_path / "audit", make()
    folder.mkdir()
    for name in ("records", "patients", "groups", "curves"):
        write_table(folder / f"{name}.parquet", getattr(result, name))
    write_json(folder / "summary.json", result.summary)
    return folder


def test_figures_of_an_audit(audit, tmp_path):
    found = CliRunner().invoke(app, ["figures", str(audit), "--style", "nature"])
    assert found.exit_code == 0, found.output
    names = ["roc.pdf", "survival.pdf", "groups.pdf", "utility.pdf"]
    assert found.stdout.splitlines() == [str(audit / "figures" / name) for name in names]
    assert sorted(p.name for p in (audit / "figures").iterdir()) == sorted(names)
    assert (audit / "figures" / "roc.pdf").read_bytes().startswith(b"%PDF")
    assert (audit / "figures" / "roc.pdf").stat().st_mode & 0o777 == 0o600
    out = tmp_path / "a" / "b"
    options = ["--out", str(out), "--format", "svg", "--style", "plain", "--json"]
    write_table(audit / "groups.parquet", make().groups.iloc[:0])
    write_json(audit / "summary.json", make().summary | {"groups": {}, "utility": None})
    found = CliRunner().invoke(app, ["figures", str(audit), *options])
    assert json.loads(found.stdout)["figures"][0] == str(out / "roc.svg")
    assert (out / "roc.svg").read_bytes().startswith(b"<?xml")


def test_figures_of_an_attack(tmp_path):
    write_json(tmp_path / "certificate.json", make_certificate())
    found = write_figures(tmp_path, kind="svg")
    assert [path.name for path in found] == ["shares.svg", "areas.svg"]


def test_figures_of_a_comparison(tmp_path):
    arm = {"name": "a", "auc": 0.6, "auc_low": 0.5, "auc_high": 0.7, "on_frontier": True}
    arm |= {"auroc": 0.8, "auroc_low": 0.7, "auroc_high": 0.9, "guards": []}
    found = {"attack": "lira", "frontier_by": "auc", "arms": [arm]}
    write_json(tmp_path / "compare.json", found)
    assert [path.name for path in write_figures(tmp_path)] == ["frontier.pdf"]


def test_what_is_refused(audit, tmp_path):
    with pytest.raises(ArgumentError, match="style"):
        write_figures(audit, style="sience")
    with pytest.raises(ArgumentError, match="Did you mean 'pdf'"):
        write_figures(audit, kind="pfd")
    with pytest.raises(MissingFileError, match="nothing can be drawn"):
        write_figures(tmp_path)
    (audit / "curves.parquet").write_bytes(b"PAR1")
    with pytest.raises(FolderError, match="curves"):
        write_figures(audit)
    write_table(audit / "curves.parquet", make().groups)
    with pytest.raises(FolderError, match="another version"):
        write_figures(audit)
    write_json(audit / "summary.json", [1])
    with pytest.raises(FolderError, match="no object"):
        write_figures(audit)
    (tmp_path / "compare.json").write_text('{"attack": "lira", "arms": [1]}')
    with pytest.raises(FolderError, match="damaged"):
        write_figures(tmp_path)
    (tmp_path / "compare.json").write_text('{"arms": []}')
    with pytest.raises(FolderError, match="no figure"):
        write_figures(tmp_path)
    assert not (audit / "figures").exists()
