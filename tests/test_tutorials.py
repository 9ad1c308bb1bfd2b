"""Each tutorial runs from an empty folder and says what it is stored with.

As a program, ``python tests/test_tutorials.py``, this file stores the outputs anew.
"""

import os
import re
import sys
import tempfile
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

TUTORIALS = sorted((Path(__file__).parents[1] / "docs" / "tutorials").glob("*.ipynb"))
_SLOW_MACHINE = 300  # seconds that a cell may take; each takes a few


def executed(path, folder, more=""):
    """The notebook, run in a folder, with a cell behind the last one."""
    book = nbformat.read(path, as_version=4)
    if more:
        book.cells.append(nbformat.v4.new_code_cell(more))
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    environment = {"OMP_NUM_THREADS": "1", "COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb"}
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)  # a kernel inherits it
    try:
        NotebookClient(
            book,
            timeout=_SLOW_MACHINE,
            kernel_name="python3",
            record_timing=False,
            resources={"metadata": {"path": str(folder)}},
        ).execute()
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    return book


def kinds(cell):
    """What a cell's outputs are, without what they say; warnings of libraries do not count."""
    found = []
    for output in cell.outputs:
        if output.get("name") == "stderr":
            continue
        kind = output.output_type, output.get("name"), tuple(sorted(output.get("data", {})))
        if kind not in found:
            found.append(kind)
    return found


AFTERWARDS = {
    "pytorch": """
        assert found.summary["patients"]["n_at_risk"] >= 10
        assert shorter.summary["patients"]["n_at_risk"] < found.summary["patients"]["n_at_risk"] / 2
        assert found.summary["n_patients"] == 96
        assert shorter.summary["utility"]["overall"]["auroc"] > 0.7
    """,
    "scikit-learn": """
        listed = {name: r.summary["patients"]["n_at_risk"] for name, r in found.items()}
        assert listed["forest"] >= 30, listed
        assert listed["regression"] <= 2, listed
        assert min(r.summary["utility"]["overall"]["auroc"] for r in found.values()) > 0.95
    """,
    "csv": """
        assert done.returncode == 0, done.stdout + done.stderr
        assert n_at_risk >= 5
        assert summary["patients"]["n_at_risk"] == int(patients["at_risk"].sum())
        assert summary["utility"]["overall"]["auroc"] > 0.95
    """,
    "dicom": """
        assert done.returncode == 0, done.stdout + done.stderr
        risk = patients.set_index("patient")["auc_joint"]
        of = pd.Series(hard)[risk.index]
        assert patients["at_risk"].sum() >= 5
        assert risk[of == "hard"].mean() > risk[of == "typical"].mean() + 0.1
        assert patients["n_records"].max() == 3
    """,
}


def test_every_tutorial_is_here():
    assert {path.stem for path in TUTORIALS} == set(AFTERWARDS)


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda p: p.stem)
def test_a_tutorial_runs_and_finds_what_it_says(path, tmp_path):
    checks = "\n".join(line.strip() for line in AFTERWARDS[path.stem].strip().splitlines())
    fresh = executed(path, tmp_path, checks)
    stored = nbformat.read(path, as_version=4)
    for old, new in zip(stored.cells, fresh.cells[:-1], strict=True):
        if old.cell_type == "code":
            assert kinds(old) == kinds(new), old.source
    assert (tmp_path / "runs").is_dir()
    assert list((tmp_path / "runs").glob("*/report.html"))


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda p: p.stem)
def test_what_is_stored_is_small_and_names_no_machine(path):
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    assert path.stat().st_size < 100_000
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert outputs
    for output in outputs:
        assert output.output_type != "error"
        assert output.get("name") != "stderr"
        text = str(output)
        assert not re.search(r"/(home|root|tmp|work|usr)/|\x1b|Traceback", text), text
        assert not re.search(r"\b\d+ (s|min)\b", text), "a time will not be the same elsewhere"
    assert not any(cell.metadata for cell in book.cells)
    assert book.metadata.kernelspec.name == "python3"


if __name__ == "__main__":
    for one in TUTORIALS:
        if not sys.argv[1:] or one.stem in sys.argv[1:]:
            with tempfile.TemporaryDirectory() as empty:
                made = executed(one, Path(empty))
            made.metadata.language_info = {"name": "python"}
            nbformat.write(made, one)
