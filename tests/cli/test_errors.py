"""What goes wrong outside of confide, and inside of it: one line, and the exit codes."""

import errno
import os
import resource
import subprocess
import sys

import pytest

from confide.cli import _OF_THE_SYSTEM


@pytest.mark.parametrize("number", _OF_THE_SYSTEM, ids=errno.errorcode.get)
def test_an_error_of_the_system_is_one_line(confide, monkeypatch, tmp_path, number):
    def fail(*arguments, **settings):
        raise OSError(number, os.strerror(number), "/data/x.csv")

    monkeypatch.setattr("confide.runs.analyse", fail)
    code, out, err = confide("audit", "report", tmp_path / "o")
    assert (code, out) == (2, "")
    assert err.startswith("Error: /data/x.csv: ")
    assert err.count("\n") == 1
    assert "; " in err  # what to do


def test_an_error_of_confide_is_not_a_missed_gate(confide, monkeypatch, tmp_path):
    def fail(*arguments, **settings):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("confide.runs.analyse", fail)
    code, out, err = confide("audit", "report", tmp_path / "o")
    assert (code, out) == (70, "")
    assert "ZeroDivisionError: division by zero" in err
    assert err.endswith("please report it with the lines above.\n")


def test_memory(confide, monkeypatch, tmp_path):
    def fail(*arguments, **settings):
        raise MemoryError("Unable to allocate 3 TiB")

    monkeypatch.setattr("confide.runs.analyse", fail)
    code, _, err = confide("audit", "report", tmp_path / "o")
    assert code == 2
    assert err == (
        "Error: This does not fit into memory (Unable to allocate 3 TiB); use smaller data.\n"
    )


def test_a_table_that_may_not_be_read(confide, monkeypatch, tmp_path):
    (tmp_path / "t.csv").write_text("p,l,x\n1,0,2\n")
    (tmp_path / "c.yaml").write_text("data: {name: table, path: t.csv, patient: p, label: l}")

    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("confide.datasets.table.read_table", refuse)
    code, out, err = confide("data", "describe", tmp_path / "c.yaml")
    assert (code, out) == (2, "")
    table = tmp_path / "t.csv"
    assert err == f"Error: {table}: permission denied; check who may read and write it.\n"


@pytest.mark.parametrize(
    ("keys", "nearest"),
    [
        ("patient: patient_nbr, label: lable", "no column 'lable'. Did you mean 'label'?"),
        ("patient: patnt, label: label", "no column 'patnt'. Did you mean 'patient_nbr'?"),
        ("patient: patient_nbr, label: label, groups: [sxe]", "no column 'sxe'. Did you mean"),
    ],
)
def test_a_column_that_is_not_there_is_answered_with_the_nearest(confide, tmp_path, keys, nearest):
    (tmp_path / "t.csv").write_text("patient_nbr,label,sex,x\n1,0,f,2\n2,1,m,3\n")
    (tmp_path / "c.yaml").write_text(f"data: {{name: table, path: t.csv, {keys}}}")
    code, out, err = confide("audit", "run", tmp_path / "c.yaml", "--out", tmp_path / "o")
    assert (code, out) == (2, "")
    assert str(tmp_path / "t.csv") in err
    assert nearest in err
    assert err.count("\n") == 1
    assert not (tmp_path / "o").exists()


def test_a_full_disk_is_one_line_and_the_run_goes_on_later(confide, tmp_path):
    rows = [
        f"{m},{r},p{r},{(m + r) % 2},{r % 2},{m * r % 7}.5" for m in range(4) for r in range(40)
    ]
    table = tmp_path / "t.csv"
    table.write_text("\n".join(["model,record,patient,member,label,logit_0", *rows]))
    arguments = ("audit", "scores", table, "--out", tmp_path / "o", "--attacks", "loss", "--json")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (1000, before[1])
    )  # bytes a file, as a disk that ends
    try:
        code, out, err = confide(*arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (code, out) == (2, "")
    assert err.startswith("Error: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert confide(*arguments)[0] == 0


def run(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        check=False,
    )


NAMES = """
import sys
from rich.text import Text
from confide.cli import app, main, show
@app.command()
def names():
    show.tables([Text("Zoë \\u2192 \\U0001f600 \\udcff [red]")])
    show.as_json({"name": "Zoë"})
sys.argv = ["confide", "names"]
main()
"""


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-8"])
def test_every_name_can_be_shown_in_every_encoding(encoding):
    done = run(NAMES, PYTHONIOENCODING=encoding, NO_COLOR="1", COLUMNS="80")
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    first, *rest = done.stdout.decode(encoding).splitlines()
    assert first.endswith("\\udcff [red]")
    name = "Zoë" if encoding == "utf-8" else "Zo\\u00eb"
    assert rest == ["{", f' "name": "{name}"', "}"]
