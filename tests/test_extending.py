"""The examples of docs/extending run, keep the contracts, and can be registered as they say."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import confide.training  # before torch, whose threads then wait politely
from attacks.contract import AttackContract
from confide.attacks import KNOWN
from confide.encoders.key import Key
from confide.stores import AuditFolder
from inversion.contract import InversionContract

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs" / "extending").glob("*.md"))
LONGEST = 40  # lines of an example


def blocks(name, language="python"):
    text = (ROOT / "docs" / "extending" / f"{name}.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def defined(name, n_blocks=1):
    """What the first blocks of a page define."""
    space = {"__name__": f"page_{name}"}
    for block in blocks(name)[:n_blocks]:
        exec(compile(block, f"{name}.md", "exec"), space)  # noqa: S102
    return space


EXAMPLES = {page.stem: blocks(page.stem) for page in PAGES}


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_are_short(name):
    assert EXAMPLES[name] or name == "index"
    for block in EXAMPLES[name]:
        assert len([line for line in block.splitlines() if line.strip()]) < LONGEST
        assert max(map(len, block.splitlines())) <= 100


def test_the_index_names_every_page():
    text = (ROOT / "docs" / "extending" / "index.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\]\((\w+)\.md\)", text))
    assert named == set(EXAMPLES) - {"index"}
    for path in re.findall(r"`(tests/[\w./]*)`", text):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name != "index"])
def test_the_examples_of_a_page_run(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT / "tests")])
    space = defined(name, len(EXAMPLES[name]))
    said = capsys.readouterr().out
    if name == "attack":
        assert 0.6 < float(said) < 0.9
    if name == "dataset":
        assert float(said.split()[1]) > 0.7
    if name == "inversion":
        assert float(said) > 0.5
    if name == "encoder":
        assert space["codes"].shape == (20, 16, 64)
    if name == "trainer":
        assert len(said) > 50
        stack_of_models_is_right(space["ridge"], AuditFolder.read(Path("runs/ridge")))
        assert space["found"].summary["utility"]["overall"]["auroc"] > 0.95


class TestMidpoint(AttackContract):
    attack = defined("attack")["Midpoint"]()


class TestStrength(InversionContract):
    attack = defined("inversion")["Strength"]()
    worlds = {"n_patients": 60}  # noqa: RUF012


def test_an_attack_is_named_after_it_was_registered_at_run_time(tmp_path, monkeypatch):
    midpoint = defined("attack")["Midpoint"]
    monkeypatch.setitem(KNOWN, "midpoint", midpoint)
    n = 60
    cohort = confide.Cohort(
        record=np.arange(n),
        patient=np.arange(n),
        label=np.arange(n) % 2,
        task="binary",
        classes=("no", "yes"),
    )

    def fit(train, query, seed):
        noise = np.random.default_rng(seed).normal(size=len(query))
        return noise + np.isin(query, train) * (2.0 * cohort.label[query] - 1)

    found = confide.run(cohort, fit, tmp_path, n_models=16, attacks=("lira", "midpoint"))
    assert found.summary["attacks"]["midpoint"]["auc_low"] > 0.6
    assert "midpoint" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert confide.analyse(tmp_path).summary == found.summary


def stack_of_models_is_right(ridge, folder):
    """Neighbours in the stack do not matter, nor do others' records."""
    held = folder.array("membership")[:]
    alone = np.concatenate([ridge.fit(held[i : i + 1], [0]) for i in range(3)])
    np.testing.assert_allclose(alone[:, : held.shape[1]], folder.array("logits")[:3], rtol=1e-3)
    x, y = ridge._x[: held.shape[1]][held[0]], ridge._y[held[0]]
    penalty = np.sqrt(0.1) * np.eye(x.shape[1])
    left, right = np.vstack([x, penalty]), np.concatenate([y, np.zeros(x.shape[1])])
    weights = np.linalg.lstsq(left, right, rcond=None)[0]
    np.testing.assert_allclose(alone[0, :, 0, 0], ridge._x @ weights, rtol=1e-3, atol=1e-4)


def test_the_encoder_keeps_what_an_encoder_promises():
    space = defined("encoder")
    images = np.random.default_rng(0).integers(0, 256, (9, 3, 16, 24), dtype=np.uint8)

    def made(secret, **more):
        settings = space["RectifiedSettings"](patch=8, width=16, **{"shuffle": False, **more})
        encoder = space["Rectified"](settings, images.shape[1:], Key(bytes([secret]) * 32))
        encoder.calibrate(images)
        return encoder(images), encoder

    codes, encoder = made(1)
    assert codes.shape == (9, 6, 16)
    assert (codes >= 0).all()
    np.testing.assert_allclose(encoder(images[4:5])[0], codes[4], atol=1e-6)
    np.testing.assert_array_equal(made(1)[0], codes)
    assert not np.allclose(made(2)[0], codes)
    shuffled = made(1, shuffle=True)[0]
    np.testing.assert_allclose(np.sort(shuffled, axis=1), np.sort(codes, axis=1), atol=1e-6)


def registered(text, diff):
    """A file with a diff of a page: parts, divided by lines of three dots."""
    for part in diff.split("...\n"):
        lines = part.splitlines()
        assert all(line[:1] in (" ", "-", "+") for line in lines), part
        old = "".join(line[1:] + "\n" for line in lines if line[0] != "+")
        new = "".join(line[1:] + "\n" for line in lines if line[0] != "-")
        if text.count(old) != 1:
            raise AssertionError(f"stands {text.count(old)} times in the source:\n{old}")
        text = text.replace(old, new)
    return text


FILES = {
    "attack": "attacks/midpoint.py",
    "dataset": "datasets/progression.py",
    "model": "models/mlp.py",
    "inversion": "inversion/strength.py",
    "encoder": "encoders/rectified.py",
}

CHECKS = """
import json, sys
from pathlib import Path
import numpy as np
import confide
assert Path(confide.__file__).is_relative_to(Path.cwd()), confide.__file__
from confide.config import parse
from confide.runs import run_config
from confide.encoders.key import Key, unlock
from confide.encoders.base import Encoder
from confide.inversion.settings import NEEDS
from confide.inversion.suite import KNOWN
from confide.runs.encode import encode

small = {"n_models": 4, "attacks": ["midpoint"]}
train = {"model": {"name": "mlp", "width": 8}, "epochs": 3}
config = parse({"data": {"name": "progression"}, "train": train, "audit": small})
found = run_config(config, Path(), Path("run"))
assert list(found.summary["attacks"]) == ["midpoint"]
assert json.loads(Path("run/manifest.json").read_text())["config"]["train"]["model"]["depth"] == 2

assert set(KNOWN) == set(NEEDS)
data = {"name": "phantom", "n_patients": 20, "size": [16, 16]}
block = {"name": "rectified", "patch": 8, "width": 16}
attack = {"attacks": ["strength"]}
config = parse({"data": data, "encode": block, "attack": attack})
Key.new().save(Path("a.key"))
encode(config, Path(), Path("a.key"), Path("codes"), unlock=unlock)
assert type(Encoder.from_key(Path("a.key"))).__name__ == "Rectified"

sys.path.append(sys.argv[1])
import torch
from models import test_models as suite
from confide.models import MLPSettings
of = (MLPSettings(width=12, depth=2), (7,))
for n_outputs in (1, 5):
    suite.test_output_shape(*of, n_outputs)
suite.test_a_record_does_not_see_the_rest_of_its_batch(*of)
suite.test_every_parameter_gets_a_gradient(*of)
suite.test_weights_come_from_the_generator_alone(*of)
print("registered")
"""


def test_the_diffs_of_the_pages_register_the_examples(tmp_path):
    """In a copy of the source, a configuration can name what the pages add."""
    source = tmp_path / "confide"
    shutil.copytree(ROOT / "src" / "confide", source, ignore=shutil.ignore_patterns("__pycache__"))
    for name, file in FILES.items():
        code = blocks(name)[0]
        if name == "encoder":  # its settings stand in a file of all settings
            start, end = code.index("class RectifiedSettings"), code.index("class Rectified(")
            code = code[:start] + code[end:]
            code = code.replace("import Shape, _Encode", "import RectifiedSettings")
        (source / file).write_text(code, encoding="utf-8")
        for block in blocks(name, "diff"):
            first, rest = block.split("\n", 1)
            path = source / first.removeprefix("# src/confide/")
            path.write_text(registered(path.read_text(encoding="utf-8"), rest), encoding="utf-8")
    (tmp_path / "checks.py").write_text(CHECKS, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", "checks.py", str(ROOT / "tests")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.stdout.strip().endswith("registered"), done.stderr[-3000:]
