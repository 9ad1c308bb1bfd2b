"""A Ray cluster of three nodes on this machine, while its nodes are killed."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import yaml

from confide.config import load
from confide.errors import ConfideError
from confide.runs import run_config
from confide.stores import AuditFolder

pytest.importorskip("ray")
pytestmark = pytest.mark.slow

CONFIG = {
    "data": {"name": "embedded"},
    "train": {"model": {"name": "tabular_resnet", "width": 16, "depth": 2}, "epochs": 2},
    "audit": {"n_models": 16},
    "performance": {"models_at_once": 1, "device": "cpu"},
}
# The first node leads and trains nothing; a node is killed after the second, sixth and tenth model.
PROGRAM = """
import sys
from pathlib import Path

from ray.cluster_utils import Cluster

from confide.config import load
from confide.errors import TrainingError
from confide.runs.engines import Ray, run_by

config, folder = load(Path(sys.argv[1]))
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
seen = []


def progress(done, total):
    seen.append(done)
    if done in (2, 6, 10):
        cluster.remove_node(nodes.pop(0), allow_graceful=False)
        nodes.append(cluster.add_node(num_cpus=1))


with Ray(cluster.address) as engine:
    run_by(engine, config, folder, Path(sys.argv[2]), progress=progress)
    broken = config.model_copy(update={"audit": config.audit.model_copy(update={"seed": 1})})
    try:
        run_by(engine, broken, folder, Path(sys.argv[2]))
    except Exception as error:
        print(type(error).__name__, str(error).rpartition("was begun")[2])
print(seen)
cluster.shutdown()
"""


def test_nodes_are_killed_and_nothing_is_lost(tmp_path):
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(CONFIG))
    config, folder = load(tmp_path / "study.yaml")
    whole = run_config(config, folder, tmp_path / "whole")
    (tmp_path / "program.py").write_text(PROGRAM)
    ran = subprocess.run(
        [sys.executable, tmp_path / "program.py", tmp_path / "study.yaml", tmp_path / "parts"],
        env=os.environ | {"RAY_AUTH_MODE": "disabled"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert ran.returncode == 0, ran.stderr
    said = ran.stdout.splitlines()
    assert str(list(range(17))) in said
    assert any(line.startswith("MismatchError  with audit.seed = 0; it is 1 now.") for line in said)
    assert json.loads((tmp_path / "parts" / "summary.json").read_text()) == json.loads(
        (tmp_path / "whole" / "summary.json").read_text()
    )
    assert whole.summary["n_models"] == 16
    for name in ("logits", "heldout_logits", "membership"):
        one, other = (AuditFolder.read(tmp_path / f).array(name)[:] for f in ("whole", "parts"))
        assert one.tobytes() == other.tobytes()


# A cluster that stays until its standard input is closed.
CLUSTER = """
import sys

from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
cluster.add_node(num_cpus=1)
print(cluster.address, cluster.head_node.all_processes["gcs_server"][0].process.pid, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


def _done(out):
    try:
        return int(AuditFolder.read(out).done.sum())
    except ConfideError:
        return 0


def _begun(config, out, address, env):
    command = [sys.executable, "-m", "confide", "audit", "run", config, "--out", out]
    command += ["--ray", address] if address else []
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def _until(process, out, n):
    """Wait until so many models are finished, and that the command still runs."""
    while _done(out) < n:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def test_the_command_that_leads_is_killed_and_then_the_head_of_the_cluster(tmp_path):
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(CONFIG))
    config, folder = load(tmp_path / "study.yaml")
    run_config(config, folder, tmp_path / "whole")
    env = os.environ | {"RAY_AUTH_MODE": "disabled"}
    out, command = tmp_path / "parts", [sys.executable, "-c", CLUSTER]
    with subprocess.Popen(
        command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as cluster:
        line = next(line for line in cluster.stdout if line.rpartition(" ")[2].strip().isdigit())
        address, _, head = line.rpartition(" ")
        leads = _begun(tmp_path / "study.yaml", out, address, env)
        _until(leads, out, 3)
        leads.kill()
        leads.communicate()
        assert 3 <= _done(out) < 16
        again = _begun(tmp_path / "study.yaml", out, address, env)
        _until(again, out, 6)
        os.kill(int(head), signal.SIGKILL)
        again.communicate(timeout=300)  # workers that it has go on, so that it may even finish
        cluster.kill()
    assert _done(out) >= 6
    alone = _begun(tmp_path / "study.yaml", out, None, env)
    said = alone.communicate(timeout=300)
    assert alone.returncode == 0, said
    assert (out / "summary.json").read_bytes() == (tmp_path / "whole/summary.json").read_bytes()
    for name in ("logits", "heldout_logits", "membership"):
        one, other = (AuditFolder.read(tmp_path / f).array(name)[:] for f in ("whole", "parts"))
        assert one.tobytes() == other.tobytes()


def test_no_cluster_there(tmp_path):
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(CONFIG))
    command = [sys.executable, "-m", "confide", "audit", "run", tmp_path / "study.yaml"]
    ran = subprocess.run(
        [*command, "--out", tmp_path / "out", "--ray", "127.0.0.1:1"],
        env=os.environ | {"RAY_AUTH_MODE": "disabled"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert ran.returncode == 2
    assert "No Ray cluster answers at '127.0.0.1:1'" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert not (tmp_path / "out").exists()
