"""Faults one after the other in one audit: nothing is lost, nothing damaged is used.

`benchmarks/faults.py` injects as many as are asked for, each into an audit of its own.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HARNESS = """
import errno, json, random, shutil, signal, sys, time
from pathlib import Path

sys.path.insert(0, sys.argv[1])
import confide.reports.html
import faults

faults.load()
# Drawing takes as long as all else; test_kill.py draws.
confide.reports.html.render = lambda *_, **__: "<html></html>"
bench = faults.Bench(Path(sys.argv[2]))
out, rng, found = bench.work / "out", random.Random(3), {}

def try_(name, act):
    try:
        act()
        found[name] = "sound"
    except faults.LostError as error:
        found[name] = str(error)

def stopped(number, n_groups):
    faults.interrupted(bench, out, rng, number, n_groups=n_groups)

def failing(code, words):
    ended = bench.run(out, prepare=faults.failing(code, rng.randrange(8)))
    faults.refused(bench, ended[0] or 70, words)

def jump():
    now = time.time
    time.time = lambda: now() + rng.uniform(-1, 1) * 1e9
    try:
        stopped(signal.SIGKILL, 0)
    finally:
        time.time = now

def cut_cohort():
    content = (out / "cohort.parquet").read_bytes()
    (out / "cohort.parquet").write_bytes(content[: rng.randrange(len(content))])
    bench.verify(out, (1,), naming="cohort.parquet: is damaged")

def lose_signals():
    lost = rng.choice([p for p in faults.chunks(out, "logits") if faults.model_of(p) == 1])
    faults.damage(lost, rng)
    bench.verify(out, (1,), naming="signals.zarr/logits: model 1, ")

try_("kill at the start", lambda: stopped(signal.SIGKILL, 0))
try_("SIGTERM", lambda: stopped(signal.SIGTERM, 1))
try_("full disk", lambda: failing(errno.ENOSPC, "full"))
try_("SIGINT", lambda: stopped(signal.SIGINT, 1))
try_("read-only", lambda: failing(errno.EROFS, "Read-only file system"))
try_("clock jump", jump)
try_("kill in training", lambda: stopped(signal.SIGKILL, 1))
try_("cut table", cut_cohort)
try_("lost signals", lose_signals)
try_("all the same", lambda: bench.finish(out, again=(0, 1)))

def put_back(name, damage, *verbs):
    content = (out / name).read_bytes()
    damage(out / name)
    bench.verify(out, (1,), naming="manifest.json" if "json" in name else "membership: model 4")
    faults.refused(bench, bench.run(out)[0] or 70, name.split("/c/")[0])
    (out / name).write_bytes(content)
    bench.same(out)

try_("lost masks", lambda: put_back("signals.zarr/membership/c/4/0", Path.unlink))
try_("cut manifest", lambda: put_back("manifest.json", lambda p: p.write_bytes(b'{"format": 1')))
print(json.dumps(found))
"""
FAULTS = (
    *("kill at the start", "SIGTERM", "full disk", "SIGINT", "read-only", "clock jump"),
    *("kill in training", "cut table", "lost signals", "all the same", "lost masks"),
    "cut manifest",
)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    benchmarks = Path(__file__).parents[2] / "benchmarks"
    done = subprocess.run(
        [sys.executable, "-c", HARNESS, benchmarks, tmp_path_factory.mktemp("faults")],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("fault", FAULTS)
def test_nothing_is_lost(found, fault):
    assert found[fault] == "sound"
