"""The command line, stopped at any instant, leaves a folder that resumes to the same numbers."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from confide.stores import AuditFolder, read_table

CONFIG = """
data: {name: embedded}
train: {model: {name: tabular_resnet, width: 16, depth: 1}, epochs: 4, batch_size: 64}
audit: {n_models: 32, attacks: [lira]}
performance: {models_at_once: 2, device: cpu}
"""

HARNESS = """
import json, os, random, shutil, signal, sys
import confide.runs, confide.training.trainer, confide.reports.html
import sklearn.datasets, torch._dynamo, zarr

tests, folder, n_kills = sys.argv[1:]
sys.path.insert(0, tests)
from runs.stopping import call, ended, killed, start, stopped

def run(name):
    out = f"{folder}/{name}"
    return out, "audit", "run", f"{folder}/study one.yaml", "--out", out, "--json"

def n_done(name):
    try:
        return open(f"{folder}/{name}/manifest.json").read().count('"done"')
    except FileNotFoundError:
        return 0

code, seconds = ended(start(*run("whole")))
codes, died, rng = [code], [], random.Random(0)
for i in range(int(n_kills)):
    # At the start, some time after two more models are finished, and at last in the analysis.
    left = 32 - n_done("killed")
    n_more = left if i == int(n_kills) - 1 else 2 if i % 2 == 0 and left > 8 else 0
    share = rng.uniform(0, 0.02) if n_more == 2 else rng.uniform(0.02, 0.1)
    done = lambda: n_done("killed")
    died.append(killed(*run("killed"), done=done, n_more=n_more, seconds=share * seconds))
    if os.path.exists(f"{folder}/killed/manifest.json"):
        shutil.copytree(f"{folder}/killed", f"{folder}/after_{i:02d}")
codes.append(call(*run("killed")))
for number in (signal.SIGINT, signal.SIGTERM):
    done = lambda: n_done(number.name)
    codes.append(stopped(number, *run(number.name), done=done, n_more=2))
print(json.dumps([codes, died]))
"""


@pytest.fixture(scope="module", params=[6, pytest.param(24, marks=pytest.mark.slow)])
def stopped(tmp_path_factory, request):
    folder = tmp_path_factory.mktemp("kill")
    (folder / "study one.yaml").write_text(CONFIG)
    done = subprocess.run(
        [sys.executable, "-c", HARNESS, Path(__file__).parents[1], folder, str(request.param)],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout.splitlines()[-1])


def test_exit_codes(stopped):
    codes, died = stopped[1]
    assert codes == [0, 0, 130, 130]
    assert all(died), "some ended before the kill"


def test_killed_and_resumed_the_numbers_are_the_same(stopped):
    folder, _ = stopped
    whole, killed = (AuditFolder.read(folder / name) for name in ("whole", "killed"))
    assert killed.done.all()
    for name in ("logits", "heldout_logits", "membership"):
        one, other = (f.array(name)[:] for f in (whole, killed))
        assert one.tobytes() == other.tobytes()
    for name in ("summary.json", "records.parquet", "patients.parquet", "groups.parquet"):
        assert (folder / "killed" / name).read_bytes() == (folder / "whole" / name).read_bytes()
    assert not list((folder / "killed").rglob("*.partial"))


def test_after_a_kill_what_is_called_finished_is_there(stopped):
    folder, _ = stopped
    expected = AuditFolder.read(folder / "whole").array("logits")[:]
    n_done = []
    for path in sorted(folder.glob("after_*")):
        found = AuditFolder.read(path)
        n_done.append(int(found.done.sum()))
        if found.done.any():
            for name in ("logits", "heldout_logits", "membership"):
                found.check_complete(name)
            logits = found.array("logits")[:][found.done]
            np.testing.assert_array_equal(logits, expected[found.done])
            assert len(read_table(path / "cohort.parquet")) == 569
    assert n_done == sorted(n_done)
    assert len(set(n_done)) > 2, "the kills did not fall into the training"


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_stopped_by_hand_the_command_to_resume_is_said(stopped, name):
    folder, _ = stopped
    said = (folder / f"{name}.stderr").read_text().strip()
    again = f"confide audit run '{folder}/study one.yaml' --out {folder / name} --json"
    assert said == f"Stopped. What was finished is safe; resume with: {again}"
    assert (folder / f"{name}.stdout").read_text() == ""
    done = AuditFolder.read(folder / name).done
    assert done.any()
    assert not done.all()


def test_the_output_is_json_alone(stopped):
    folder, _ = stopped
    summary = json.loads((folder / "killed.stdout").read_text())
    assert summary == json.loads((folder / "killed" / "summary.json").read_text())
    assert (folder / "killed.stderr").read_text() == ""


def test_nobody_else_can_read_the_folder(stopped):
    folder, _ = stopped
    for path in [folder / "killed", *(folder / "killed").rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path
