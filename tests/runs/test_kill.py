"""The command line, stopped at any instant, leaves a folder that resumes to the same numbers."""

import json
import subprocess
import sys

import numpy as np
import pytest

from confide.stores import AuditFolder, read_table

CONFIG = """
data: {name: embedded}
train: {model: {name: tabular_resnet, width: 16, depth: 1}, epochs: 4, batch_size: 64}
audit: {n_models: 48, attacks: [lira]}
performance: {models_at_once: 2, device: cpu}
"""

# Imports once and forks, so that a stop costs no start of an interpreter.  The parent itself
# computes nothing: threads do not survive a fork.
HARNESS = """
import json, os, random, shutil, signal, sys, time
import confide.runs, confide.training.trainer, confide.reports.html
import sklearn.datasets, torch._dynamo, zarr
from confide.cli import main

folder = sys.argv[1]
rng = random.Random(0)

def start(out):
    pid = os.fork()
    if pid:
        return pid
    for stream, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(f"{out}.{name}", os.O_CREAT | os.O_WRONLY | os.O_TRUNC), stream)
    sys.argv = ["confide", "audit", "run", f"{folder}/study one.yaml", "--out", out, "--json"]
    try:
        main()
    except SystemExit as stop:
        os._exit(stop.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(70)

def ended(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def alive(pid):
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

def n_done(out):
    try:
        return open(f"{out}/manifest.json").read().count('"done"')
    except FileNotFoundError:
        return 0

def stop(out, n_more, seconds, number):
    # Some time after so many more models are finished: instants in all stages of the work.
    wanted = n_done(out) + n_more
    pid = start(out)
    while n_done(out) < wanted and alive(pid):
        time.sleep(0.002)
    time.sleep(seconds)
    os.kill(pid, number)
    return ended(pid)

codes = [ended(start(f"{folder}/whole"))]
for i in range(10):
    n_more = rng.choice([0, 1])
    seconds = rng.uniform(0, 0.1) if n_more else rng.uniform(0, 1)
    codes.append(stop(f"{folder}/killed", n_more, seconds, signal.SIGKILL))
    if os.path.exists(f"{folder}/killed/manifest.json"):
        shutil.copytree(f"{folder}/killed", f"{folder}/after_{i}")
codes.append(ended(start(f"{folder}/killed")))
for number in (signal.SIGINT, signal.SIGTERM):
    codes.append(stop(f"{folder}/{number.name}", 1, 0, number))
print(json.dumps(codes))
"""


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kill")
    (folder / "study one.yaml").write_text(CONFIG)
    done = subprocess.run(
        [sys.executable, "-c", HARNESS, str(folder)], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout.splitlines()[-1])


def test_exit_codes(stopped):
    whole, *kills, resumed, interrupted, terminated = stopped[1]
    assert (whole, resumed) == (0, 0)
    assert kills.count(-9) >= 8, "too few were killed while at work"
    assert set(kills) <= {-9, 0}
    assert (interrupted, terminated) == (130, 130)


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
