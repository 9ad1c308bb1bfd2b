import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from confide.cli import app

TINY = """
data: {name: embedded}
train: {model: {name: tabular_resnet, width: 8, depth: 1}, epochs: 1}
audit: {n_models: 6}
performance: {device: cpu}
"""
COMMANDS = [
    [],
    ["demo"],
    ["data"],
    ["data", "list"],
    ["data", "describe"],
    ["audit"],
    ["audit", "plan"],
    ["audit", "run"],
    ["audit", "scores"],
    ["audit", "logdir"],
    ["audit", "model"],
    ["audit", "erase"],
    ["audit", "report"],
    ["compare"],
    ["figures"],
    ["key"],
    ["key", "new"],
    ["key", "show"],
    ["encode"],
    ["encode", "run"],
    ["encode", "verify"],
    ["encode", "train"],
    ["encode", "predict"],
    ["attack"],
    ["attack", "list"],
    ["attack", "run"],
    ["challenge"],
    ["compare"],
    ["figures"],
]


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture
def table(tmp_path):
    """A table of predictions; patients carry names that a terminal would act on."""
    rng = np.random.default_rng(0)
    n_models, n_records = 8, 24
    model, record = (axis.ravel() for axis in np.indices((n_models, n_records)))
    member = np.stack([rng.permutation(n_models) < 4 for _ in range(n_records)])[record, model]
    label = record % 2
    frame = pd.DataFrame(
        {
            "model": model,
            "record": record,
            "patient": [f"[red]{i}\x1b[2J" for i in record],
            "member": member.astype(int),
            "label": label,
            "logit_0": rng.normal(size=len(model)) + (2 * label - 1) * member,
            "site": np.where(record // 2 % 2, "[bold]a", "b"),
        }
    )
    path = tmp_path / "predictions.csv"
    frame.to_csv(path, index=False)
    return path


def strict(text):
    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


def refusal(found):
    code, out, err = found
    assert code == 2
    assert out == ""
    assert err.startswith("Error: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    return err


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_answers_with_an_example(command):
    found = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "80"})
    assert found.exit_code == 0
    assert "Usage:" in found.stdout
    assert f"confide {' '.join(command)}".strip() in found.stdout
    assert "Example: confide" in found.stdout or "Start with: confide" in found.stdout
    assert max(map(len, found.stdout.splitlines())) <= 80


def test_help_and_version_are_light():
    code = """
import sys
sys.argv = ["confide", "--help"]
from confide.cli import main
try:
    main()
except SystemExit as stop:
    heavy = {"torch", "pandas", "numpy", "scipy", "sklearn", "pyarrow", "zarr"}
    print("LOADED", *(heavy & set(sys.modules)), stop.code)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "LOADED 0"


def test_version(confide):
    import confide as package

    assert confide("--version") == (0, f"confide {package.__version__}\n", "")


@pytest.mark.parametrize(
    "arguments", [["adit"], ["audit", "rum"], ["audit", "run"], ["audit", "run", "x.yaml"], ["--x"]]
)
def test_bad_usage_is_exit_code_2(confide, arguments):
    code, out, err = confide(*arguments)
    assert code == 2
    assert out == ""
    assert "Usage: confide" in err
    assert "Traceback" not in err


def test_data_describe_by_name_and_by_configuration(confide, config):
    code, out, err = confide("data", "describe", "embedded", "--json")
    assert (code, err) == (0, "")
    found = strict(out)
    assert (found["records"], found["patients"], found["test_records"]) == (569, 569, 114)
    assert strict(confide("data", "describe", config, "--json")[1]) == found
    code, out, err = confide("data", "describe", "embedded")
    assert (code, err) == (0, "")
    assert "569" in out
    assert "malignant" in out
    assert "blank" not in out
    assert max(map(len, out.splitlines())) <= 80


def test_describe_shows_names_as_text(confide, tmp_path):
    names = ["[red]\x1b[2Jm", "[/]f"]
    rows = [f"{i},{i % 2},{names[i % 2]},{i}.5" for i in range(20)]
    (tmp_path / "t.csv").write_text("\n".join(["p,l,[b]sex,x", *rows]))
    (tmp_path / "c.yaml").write_text(
        "data: {name: table, path: t.csv, patient: p, label: l, groups: ['[b]sex']}"
    )
    code, out, _ = confide("data", "describe", tmp_path / "c.yaml")
    assert code == 0
    assert "\x1b" not in out
    assert "[red]" in out
    assert "[/]f" in out
    assert "group [b]sex" in out


def test_plan(confide, config):
    code, out, err = confide("audit", "plan", config, "--json")
    assert (code, err) == (0, "")
    found = strict(out)
    assert (found["n_models"], found["n_patients"], found["n_heldout_records"]) == (6, 455, 114)
    assert found["seconds"] > 0
    assert [b["n_models"] for b in found["budgets"]] == [6, 16, 32, 64, 128, 256]
    code, out, err = confide("audit", "plan", config)
    assert (code, err) == (0, "")
    assert "this: 6" in out
    assert max(map(len, out.splitlines())) <= 80


def test_run_then_report(confide, config, tmp_path):
    out_folder = tmp_path / "runs" / "o"
    code, out, err = confide("audit", "run", config, "--out", out_folder, "--json")
    assert (code, err) == (0, "")
    summary = strict(out)
    assert summary["n_models"] == 6
    assert summary == strict((out_folder / "summary.json").read_text())
    html = (out_folder / "report.html").read_bytes()
    (out_folder / "report.html").unlink()
    code, out, err = confide("audit", "report", out_folder, "--json")
    assert (code, err) == (0, "")
    assert strict(out) == summary
    assert (out_folder / "report.html").read_bytes() == html
    code, out, err = confide("audit", "report", out_folder)
    assert (code, err) == (0, "")
    assert "LiRA" in out
    assert "\x1b" not in out
    assert max(map(len, out.splitlines()[:-2])) <= 80
    assert out.splitlines()[-2:] == [
        f"Report: {out_folder / 'report.html'}",
        f"Summary: {out_folder / 'summary.md'}",
    ]

    # Other attacks: analysed again, nothing trained.
    before = (out_folder / "signals.zarr" / "logits" / "c").stat().st_mtime_ns
    config.write_text(TINY.replace("n_models: 6", "n_models: 6, attacks: [loss], fdr: 0.2"))
    code, out, _ = confide("audit", "run", config, "--out", out_folder, "--json")
    assert code == 0
    assert (list(strict(out)["attacks"]), strict(out)["patients"]["fdr"]) == (["loss"], 0.2)
    assert (out_folder / "signals.zarr" / "logits" / "c").stat().st_mtime_ns == before

    # Another training, design or data: refused, and the field is named.
    for old, new, field in [
        ("epochs: 1", "epochs: 2", "train.epochs = 1; it is 2 now"),
        ("n_models: 6", "n_models: 7", "audit.n_models = 6; it is 7 now"),
        ("n_models: 6", "n_models: 6, seed: 4", "audit.seed = 0; it is 4 now"),
        ("n_models: 6", "n_models: 6, fraction: 0.4", "audit.fraction = 0.5; it is 0.4 now"),
        ("embedded", "embedded, test: {seed: 3}", "data.test.seed = 0; it is 3 now"),
    ]:
        config.write_text(TINY.replace(old, new))
        assert field in refusal(confide("audit", "run", config, "--out", out_folder))
    # What only changes the speed is free.
    config.write_text(TINY.replace("device: cpu", "device: cpu, models_at_once: 1"))
    assert confide("audit", "run", config, "--out", out_folder, "--json")[0] == 0


def test_changed_data_are_refused_and_moved_data_are_not(confide, tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"p": range(40), "l": np.arange(40) % 2, "x": rng.normal(size=40)})
    config = tmp_path / "c.yaml"

    def audit(name):
        frame.to_csv(tmp_path / name, index=False)
        block = f"{{name: table, path: {name}, patient: p, label: l, features: [x]}}"
        config.write_text(TINY.replace("{name: embedded}", block))
        return confide("audit", "run", config, "--out", tmp_path / "out", "--json")

    assert audit("a.csv")[0] == 0
    assert audit("b.csv")[0] == 0
    frame.loc[3, "x"] += 1
    assert "was begun with fingerprint = " in refusal(audit("b.csv"))


def test_scores(confide, table, tmp_path):
    code, out, err = confide("audit", "scores", table, "--out", tmp_path / "o", "--json")
    assert (code, err) == (0, "")
    summary = strict(out)
    assert (summary["n_models"], summary["n_patients"]) == (8, 24)
    assert list(summary["attacks"]) == ["lira", "rmia"]
    arguments = ["--attacks", "rmia, loss", "--fdr", "0.3"]
    code, out, err = confide("audit", "scores", table, "--out", tmp_path / "o", *arguments)
    assert (code, err) == (0, "")
    assert "RMIA" in out
    assert "LiRA" not in out
    assert "[bold]a" in out
    assert "\x1b" not in out
    for path in [tmp_path / "o", *(tmp_path / "o").rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_what_cannot_be_used_is_one_line_and_exit_code_2(confide, config, table, tmp_path):
    out = tmp_path / "o"
    bad = tmp_path / "bad.yaml"
    bad.write_text("data: {name: embedded}\ntrain: {epochss: 3}")
    gone = tmp_path / "gone"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    for arguments, message in [
        (["audit", "run", bad, "--out", out], "unknown key train.epochss. Did you mean 'epochs'?"),
        (["audit", "plan", bad], "unknown key train.epochss"),
        (["data", "describe", bad], "unknown key train.epochss"),
        (["audit", "run", gone, "--out", out], "There is no configuration at"),
        (["audit", "run", tmp_path, "--out", out], "is a folder; confide audit run takes a YAML"),
        (["audit", "run", table, "--out", out], "is a table; confide audit run takes a YAML"),
        (["data", "describe", "embeded"], "Did you mean 'embedded'?"),
        (["data", "describe", "table"], "write a configuration with data.path, data.patient, data"),
        (["audit", "scores", gone, "--out", out], "There is no table"),
        (["audit", "scores", config, "--out", out], "tiny.yaml"),
        (["audit", "scores", table, "--out", out, "--attacks", "lirra"], "Did you mean 'lira'?"),
        (["audit", "scores", table, "--out", out, "--fdr", "2"], "Expected fdr=2.0"),
        (["audit", "scores", table, "--out", tmp_path / "other"], "is not an audit folder"),
        (["audit", "run", config, "--out", tmp_path / "other"], "is not an audit folder"),
        (["audit", "scores", table, "--out", config], "Choose another --out"),
        (["audit", "scores", table, "--out", config / "x"], "check that it is a folder"),
        (["audit", "report", gone], "There is no audit folder at"),
        (["audit", "report", config], "confide audit report takes an audit folder"),
        (["audit", "report", tmp_path / "other"], "manifest.json is missing"),
    ]:
        assert message in refusal(confide(*arguments))
    assert not out.exists()
    assert [p.name for p in (tmp_path / "other").iterdir()] == ["thesis.txt"]


def test_ctrl_c_says_how_to_resume(confide, table, tmp_path, monkeypatch):
    def stop(*arguments, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr("confide.runs.audit_scores", stop)
    code, out, err = confide("audit", "scores", table, "--out", tmp_path / "o")
    assert (code, out) == (130, "")
    assert err == (
        "\nStopped. What was finished is safe; resume with: "
        f"confide audit scores {table} --out {tmp_path / 'o'}\n"
    )

    def stop_in_a_library(*arguments, **settings):
        try:
            raise KeyboardInterrupt
        finally:
            raise RuntimeError("an assertion of the library failed")

    monkeypatch.setattr("confide.runs.audit_scores", stop_in_a_library)
    assert confide("audit", "scores", table, "--out", tmp_path / "o") == (code, out, err)
    # As it was typed: with its options, and quoted where a shell needs that.
    more = ["--attacks", "lira, rmia", "--fdr", "0.2"]
    err = confide("audit", "scores", table, "--out", tmp_path / "o", *more)[2]
    assert err.endswith("--attacks 'lira, rmia' --fdr 0.2\n")


def test_a_guard_is_exit_code_1(confide, monkeypatch, tmp_path):
    from confide.errors import GuardError

    def trip(*arguments, **settings):
        raise GuardError("The blind guard tripped.")

    monkeypatch.setattr("confide.runs.analyse", trip)
    assert confide("audit", "report", tmp_path / "o") == (
        1,
        "",
        "Error: The blind guard tripped.\n",
    )
