"""The configurations in examples/ are right, and the README's commands are those that exist."""

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from typer.testing import CliRunner

from confide.cli import app
from confide.config import CodesConfig, load, load_as
from confide.runs import audit_scores
from confide.runs.model_files import open_model
from confide.runs.model_settings import ModelConfig
from runs.logs import make_logs

ROOT = Path(__file__).parents[1]
TRAININGS = sorted((ROOT / "examples").glob("*_train.yaml"))
MODELS = sorted((ROOT / "examples").glob("*model.yaml"))
EXAMPLES = sorted(set((ROOT / "examples").glob("*.yaml")) - {*TRAININGS, *MODELS})
DATA = Path(os.environ.get("CONFIDE_DATA", ROOT.parent / "shared" / "data"))
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands():
    """The lines of the README's shell blocks, without comments."""
    for block in re.findall(r"```(?:sh|console)\n(.*?)```", README, flags=re.DOTALL):
        for line in block.splitlines():
            line = line.split("  #")[0].strip()
            if line and not line.startswith("#"):
                yield line


COMMANDS = list(commands())


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_example_is_valid(path, monkeypatch):
    monkeypatch.setenv("CONFIDE_DATA", str(DATA))
    config, folder = load(path)
    assert folder == path.parent
    assert config.audit.n_models >= 16


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_example_loads(path, monkeypatch):
    monkeypatch.setenv("CONFIDE_DATA", str(DATA))
    config, folder = load(path)
    for key in ("path", "array", "images"):
        named = getattr(config.data, key, None) or ()
        for needed in named if isinstance(named, tuple) else [named]:
            if not (folder / needed).exists():
                pytest.skip(f"{needed} is not here")
    opened = config.data.open(folder)
    assert opened.test.any()
    assert opened.cohort.groups.shape[1] >= 1
    if "attack" in config.model_fields_set:
        assert config.attack.names
    if "encode" in config.model_fields_set:
        assert config.encode.n_patches(opened.shape) >= 16


@pytest.mark.parametrize("path", TRAININGS, ids=lambda p: p.name)
def test_training_is_valid(path, monkeypatch):
    monkeypatch.setenv("CONFIDE_DATA", str(DATA))
    config, folder = load_as(CodesConfig, path)
    for other in config.compare.records:
        encoded, _ = load(folder / other)
        assert "encode" in encoded.model_fields_set
        assert set(config.data.groups) <= set(encoded.encode.columns)


@pytest.mark.parametrize("path", MODELS, ids=lambda p: p.name)
def test_model_is_valid(path, monkeypatch):
    monkeypatch.setenv("CONFIDE_DATA", str(DATA))
    config, _ = load_as(ModelConfig, path)
    assert config.target.members is not None


def test_readme_has_the_two_commands():
    assert "make demo" in COMMANDS
    assert "make test" in COMMANDS


@pytest.mark.parametrize("line", [c for c in COMMANDS if c.startswith("make ")])
def test_make_target_exists(line):
    target = line.split()[1]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)


ATTACKS = [c for c in COMMANDS if c.startswith("confide attack ") or re.search(r"\bx\.key", c)]
ENCODING = [c for c in COMMANDS if c.split()[1] in ("key", "encode") and c not in ATTACKS]
RELEASED = [c for c in COMMANDS if "examples/model." in c]
SHARING = [c for c in COMMANDS if re.search(r"runs/early|--pdf|^confide figures", c)]
AUDITS = [
    c
    for c in COMMANDS
    if c.startswith("confide ") and c not in ENCODING + ATTACKS + RELEASED + SHARING
]
FIRST = next(c for c in AUDITS if c.endswith("--out runs/embedded"))
PROGRAM = next(c for c in AUDITS if c.startswith("confide audit scores "))
AUDITS = [c for c in AUDITS if c not in (FIRST, PROGRAM)]  # SHARING goes on from the first


def test_readme_encodes_and_trains(tmp_path):
    """The README's commands on codes run as written, one after the other, on smaller data."""
    (tmp_path / "examples").mkdir()
    for path in (ROOT / "examples").glob("phantom_*.yaml"):
        text = path.read_text(encoding="utf-8")
        smaller = {"n_patients": 150, "width": 32, "epochs": 2}
        for key, value in smaller.items():
            text = re.sub(rf"{key}: \d+", f"{key}: {value}", text)
        (tmp_path / "examples" / path.name).write_text(text)
    assert len(ENCODING) >= 8
    for line in ENCODING:
        done = run(shlex.split(line)[1:], tmp_path)
        assert done.exit_code == 0, (line, done.output)
    assert (tmp_path / "runs" / "codes" / "report.html").stat().st_size > 10_000
    assert "opacity against clear" in done.stdout


def test_readme_attacks_a_release(tmp_path):
    """The README's commands on attacks run as written, with two attacks and fewer patients."""
    (tmp_path / "examples").mkdir()
    path = ROOT / "examples" / "phantom_attack.yaml"
    text = re.sub("n_patients: 100", "n_patients: 60", path.read_text(encoding="utf-8"))
    text = text.replace("budget: quick", "budget: quick\n  attacks: [linkage, alignment]")
    (tmp_path / "examples" / path.name).write_text(text)
    assert [line.split()[1] for line in ATTACKS] == ["key", "encode", "attack", "attack"]
    for line in ATTACKS:
        done = run(shlex.split(line)[1:], tmp_path)
        # The gate is missed, as the README says.
        missed = line.startswith("confide attack run")
        assert done.exit_code == missed, (line, done.output)
        assert ("Gate missed" in done.stdout) == missed
    assert "alignment" in done.stdout
    assert (tmp_path / "runs" / "attack" / "report.html").stat().st_size > 10_000


def test_readme_audits_a_released_model(tmp_path):
    """The README's two commands run as written, one after the other."""
    (tmp_path / "examples").mkdir()
    for name in ("model.py", "model.yaml"):
        shutil.copy(ROOT / "examples" / name, tmp_path / "examples")
    assert [line.split()[0] for line in RELEASED] == ["python", "confide"]
    python(shlex.split(RELEASED[0])[1:], tmp_path)
    done = run(shlex.split(RELEASED[1])[1:], tmp_path)
    assert done.exit_code == 0, done.output
    assert "offline RMIA" in done.stdout
    assert "recipe unknown" not in done.stdout
    assert (tmp_path / "runs" / "model" / "report.html").stat().st_size > 10_000
    config, folder = load_as(ModelConfig, tmp_path / "examples" / "model.yaml")
    for one in (config.target, *config.references):
        assert open_model(folder / one.model).classes == ("benign", "malignant")


def test_readme_compares_and_shares(tmp_path):
    """The README's commands on two recipes run as written, after the first was audited."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    assert [c.split()[1] for c in SHARING] == ["audit", "compare", "audit", "figures"]
    for line in (FIRST, *SHARING):
        words = shlex.split(line)[1:]
        if "--pdf" in words and not Path("/usr/bin/chromium").exists():
            continue
        small(words, tmp_path)
        done = run(words, tmp_path)
        assert (done.exit_code, done.stderr) == (0, ""), line
        check_outputs(words, tmp_path)
    embedded = tmp_path / "runs" / "embedded"
    assert (embedded / "summary.md").read_text(encoding="utf-8").startswith("# ")
    assert len(list((embedded / "figures").glob("*.pdf"))) >= 2


@pytest.mark.parametrize("line", AUDITS)
def test_readme_command_runs(line, tmp_path, predictions, audited):
    """Every command of the README runs as written, in a folder that holds what it names."""
    words = shlex.split(line)[1:]
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "predictions.csv").write_bytes(predictions)
    if "logdir" in words:
        logs = make_logs(tmp_path, test=20)
        logs.frame.rename(columns={"pid": "patient_id"}).to_csv(logs.records, index=False)
    if words[1] in ("report", "erase"):  # the README runs them after `audit scores`
        shutil.copytree(audited, tmp_path / "runs" / "scores")
    small(words, tmp_path)
    done = run(words, tmp_path)
    assert done.exit_code == 0, done.output
    if words[1] == "erase":
        left = {path.name for path in (tmp_path / "runs" / "scores").iterdir()}
        assert {"report.html", "summary.json", "patients.parquet"} <= left
        assert not left & {"signals.zarr", "cohort.parquet"}
    check_outputs(words, tmp_path)


def test_a_command_runs_as_a_program(tmp_path, predictions):
    """In a process of its own, as in a terminal; the other commands run in this one."""
    (tmp_path / "predictions.csv").write_bytes(predictions)
    words = shlex.split(PROGRAM)[1:]
    python(["-c", "from confide.cli import main; main()", *words], tmp_path)
    check_outputs(words, tmp_path)


def check_outputs(words, folder):
    """A page and a summary lie where an audit or a comparison was told to write."""
    summary, size = ("compare.json", 10_000) if words[0] == "compare" else ("summary.json", 100_000)
    for flag, value in pairwise(words):
        if flag == "--out":
            assert (folder / value / "report.html").stat().st_size > size
            assert (folder / value / summary).is_file()


def small(words, folder):
    """Replace the example by the same configuration with fewer models, where it is trained."""
    if "run" not in words:
        return
    at = next(i for i, w in enumerate(words) if w.endswith(".yaml"))
    text = (ROOT / words[at]).read_text(encoding="utf-8")
    (folder / "small.yaml").write_text(re.sub(r"n_models: \d+", "n_models: 16", text))
    words[at] = "small.yaml"


def run(words, folder):
    """The command in this process, which has imported what each would import again."""
    with contextlib.chdir(folder):
        return CliRunner().invoke(app, words, catch_exceptions=False)


def python(words, folder):
    """A process of its own, which ends well and complains of nothing."""
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture(scope="module")
def predictions():
    """A small table of predictions as CSV."""
    lines = ["model,record,patient,member,label,logit_0"]
    for model in range(16):
        for patient in range(40):
            member = (model + patient) % 2
            lines += [
                f"{model},r{patient}-{i},p{patient},{member},{patient % 2},"
                f"{((model * 31 + patient * 17 + i * 13) % 101) / 25 - 2}"
                for i in range(2)
            ]
    return ("\n".join(lines) + "\n").encode()


@pytest.fixture(scope="module")
def audited(tmp_path_factory, predictions):
    """The folder of an audit of these predictions."""
    folder = tmp_path_factory.mktemp("audited")
    (folder / "predictions.csv").write_bytes(predictions)
    audit_scores(folder / "predictions.csv", folder / "out")
    return folder / "out"


def test_python_example_of_the_readme(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})  # noqa: S102
    assert any(tmp_path.rglob("report.html"))
