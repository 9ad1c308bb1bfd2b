"""Faults, injected into a small audit that runs as a command in a process of its own.

After each the command is run again until it ends, and the folder must be that of an undisturbed
run, byte for byte: signals, tables, summary, report, manifest.  No finished model may be trained
again.  What was stored and is damaged must be named by ``confide audit verify`` (exit code 1), and
either mended by the same command or refused by name; never used.

Prints a line for each kind, and exits with 1 if anything was lost.

    python benchmarks/faults.py --faults 200
"""

from __future__ import annotations

import argparse
import errno
import filecmp
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from runs.stopping import ended, start

N_MODELS, AT_ONCE = 12, 2
CONFIG = f"""
data: {{name: embedded}}
train: {{model: {{name: tabular_resnet, width: 16, depth: 1}}, epochs: 2, batch_size: 64}}
audit: {{n_models: {N_MODELS}, attacks: [lira]}}
performance: {{models_at_once: {AT_ONCE}, device: cpu}}
"""
TABLES = ("records", "patients", "groups", "curves")
NOTICE = 30.0
"""Seconds that a scheduler waits after SIGTERM before it kills."""


class LostError(Exception):
    """Something was lost, used although it was damaged, or trained twice."""


def load():
    """Import all that the commands need, so that a fork starts at once; log what is trained."""
    import sklearn.datasets  # noqa: F401
    import torch._dynamo  # noqa: F401
    import zarr  # noqa: F401

    import confide.reports.html
    import confide.runs
    import confide.runs.verify  # noqa: F401
    from confide.training.trainer import TorchTrainer

    whole = TorchTrainer.fit_whole

    def logged(self, members, seeds):
        found = whole(self, members, seeds)
        with Path(os.environ["TRAINED"]).open("a") as file:
            file.write("".join(f"{seed}\n" for seed in seeds))
        return found

    TorchTrainer.fit_whole = logged


class Bench:
    """A folder of work: the undisturbed run, and one audit folder for each fault."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.config = work / "study.yaml"
        self.config.write_text(CONFIG)
        self.log, self.signalled = work / "trained", work / "signalled"
        os.environ["TRAINED"] = str(self.log)
        self.whole = work / "whole"
        code, self.seconds = self.run(self.whole)
        if code != 0:
            raise LostError(f"the undisturbed run ended with {code}: {self.said()}")

    def command(self, out, *, verb="run"):
        where = (str(self.config), "--out", str(out)) if verb == "run" else (str(out),)
        return str(self.work / "said"), "audit", verb, *where

    def run(self, out, *, verb="run", prepare=lambda: None, again=frozenset()):
        """Exit code and seconds of processor; no finished model but `again` is trained again."""
        finished = self.done(out) - set(again)
        self.log.write_text("")
        code, seconds = ended(start(*self.command(out, verb=verb), prepare=prepare))
        if twice := finished & set(self.trained(out)):
            raise LostError(f"finished models {twice} were trained again")
        return code, seconds

    def trained(self, out):
        """Numbers of the models whose training ended in the last run, in its order."""
        found = [int(seed) for seed in self.log.read_text().split()]
        if not found:
            return []
        seeds = json.loads((out / "manifest.json").read_text())["seeds"]
        return [seeds.index(seed) for seed in found]

    def said(self):
        return (self.work / "said.stderr").read_text().strip()

    def verify(self, out, expected, *, naming=""):
        code, _ = self.run(out, verb="verify")
        text = (self.work / "said.stdout").read_text() + self.said()
        if code not in expected or naming not in text:
            raise LostError(f"verify ended with {code}, expected {expected} and {naming!r}: {text}")
        return code

    def done(self, out):
        """Numbers of the finished models; none where there is no manifest, or a damaged one."""
        try:
            models = json.loads((out / "manifest.json").read_text())["models"]
        except (FileNotFoundError, ValueError):
            return set()
        return {i for i, state in enumerate(models) if state == "done"}

    def finish(self, out, *, again=frozenset(), prepare=lambda: None):
        """Run until it ends; nothing that is finished is trained again but `again`."""
        code, _ = self.run(out, prepare=prepare, again=again)
        if code != 0:
            raise LostError(f"run again, it ended with {code}: {self.said()}")
        self.same(out)
        self.verify(out, (0,))

    def same(self, out):
        """The folder holds what the undisturbed one does."""
        names = [
            sorted(p.relative_to(f) for f in [one] for p in f.rglob("*") if p.is_file())
            for one in (self.whole, out)
        ]
        if names[0] != names[1]:
            raise LostError(f"other files: {sorted(set(names[0]) ^ set(names[1]))[:5]}")
        other = filecmp.cmpfiles(self.whole, out, names[0], shallow=False)[1:]
        if any(other):
            raise LostError(f"other content: {[str(p) for part in other for p in part][:5]}")

    def copy(self, out):
        shutil.copytree(self.whole, out)


def after(bench, out, n_groups, act):
    """Act in the child when so many more groups are finished."""
    from runs.stopping import _after

    wanted = n_groups * AT_ONCE
    return lambda: _after(wanted, lambda: len(bench.done(out)), act)


def soon(bench, seconds, number):
    """Send this process a signal after so many more seconds of its processor; note when."""

    def now(*_):
        bench.signalled.write_text(str(time.monotonic()))
        os.kill(os.getpid(), number)

    def act():
        if number == signal.SIGKILL:
            signal.signal(signal.SIGPROF, signal.SIG_DFL)  # ends it in the middle of anything
        else:
            signal.signal(signal.SIGPROF, now)
        signal.setitimer(signal.ITIMER_PROF, max(seconds, 1e-4))

    return act


def interrupted(bench, out, rng, number, *, n_groups=None):
    """Stop a run at a random instant: at its start, in the training, or in the analysis."""
    if n_groups is None:
        n_groups = rng.randrange(N_MODELS // AT_ONCE + 1)
    most = 0.8 if n_groups == N_MODELS // AT_ONCE else 0.1
    seconds = rng.uniform(0, most) * bench.seconds
    bench.signalled.unlink(missing_ok=True)
    act = soon(bench, seconds, number)
    before = bench.done(out)
    code, _ = bench.run(out, prepare=after(bench, out, n_groups, act))
    if not out.exists() or (code == -number and bench.done(out) == before):
        return code  # before the command had begun, or could tell what to do
    if number != signal.SIGKILL:
        if bench.signalled.exists() and slow(bench.signalled):
            raise LostError("it takes too long to stop")
        if code not in (0, 130):
            raise LostError(f"stopped, it ended with {code}: {bench.said()}")
        if code == 130 and "resume with: confide audit run" not in bench.said():
            raise LostError(f"the command to resume was not said: {bench.said()}")
    if (out / "manifest.json").exists():
        bench.verify(out, (0,))
    return code


def slow(signalled):
    return time.monotonic() - float(signalled.read_text()) > NOTICE


def kill(bench, out, rng):
    interrupted(bench, out, rng, signal.SIGKILL)
    bench.finish(out)


def kill_in_analysis(bench, out, rng):
    """The models are there; the tables and the report are being written, for the second time."""
    bench.copy(out)
    seconds = rng.uniform(0.3, 1) * bench.seconds * 0.8
    ended(start(*bench.command(out), prepare=soon(bench, seconds, signal.SIGKILL)))
    bench.verify(out, (0,))
    bench.finish(out)


def terminate(bench, out, rng):
    """As a scheduler does: SIGTERM, and SIGKILL 30 s later."""
    interrupted(bench, out, rng, signal.SIGTERM)
    bench.finish(out)


def interrupt(bench, out, rng):
    interrupted(bench, out, rng, signal.SIGINT)
    bench.finish(out)


def stop_twice(bench, out, rng):
    """A second fault before the first is recovered from."""
    interrupted(bench, out, rng, signal.SIGKILL)
    interrupted(bench, out, rng, rng.choice((signal.SIGTERM, signal.SIGKILL)))
    bench.finish(out)


def failing(code, n):
    """From the n-th on, no file can be put in its place."""
    replace, count = os.replace, iter(range(n))

    def fail(*arguments, **named):
        if next(count, None) is None:
            raise OSError(code, os.strerror(code))
        return replace(*arguments, **named)

    def prepare():
        os.replace = fail

    return prepare


N_WRITES = 75  # more than a run puts in place: some faults come too late


def disk_full(bench, out, rng):
    """Writing fails from a random write on."""
    code, _ = bench.run(out, prepare=failing(errno.ENOSPC, rng.randrange(N_WRITES)))
    refused(bench, code, "full")
    bench.finish(out)


def refused(bench, code, naming):
    if code == 0:
        return
    said = bench.said()
    if code != 2 or naming not in said or "Traceback" in said or len(said.splitlines()) > 1:
        raise LostError(f"expected one error with {naming!r}, got {code}: {said}")


def disk_unwritable(bench, out, rng):
    """The file system becomes read-only at a random write."""
    code, _ = bench.run(out, prepare=failing(errno.EROFS, rng.randrange(N_WRITES)))
    refused(bench, code, "Read-only file system")
    bench.finish(out)


class Mounted:
    """A small file system in memory."""

    def __init__(self, at, size):
        self.at = at
        at.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "none", at], check=True)

    def again(self, options):
        subprocess.run(["mount", "-o", f"remount,{options}", self.at], check=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        subprocess.run(["umount", "-l", self.at], check=True)


def small_disk(bench, out, rng):
    """A real file system that is too small for the folder."""
    size = rng.choice((rng.randrange(40, 600, 4), rng.randrange(600, 5400, 4)))
    with Mounted(out, size) as disk:
        code, _ = bench.run(out / "audit")
        refused(bench, code, "is full")
        if (out / "audit" / "manifest.json").exists():
            bench.verify(out / "audit", (0,))
        disk.again("size=64m")
        bench.finish(out / "audit")


def read_only_disk(bench, out, rng):
    """A real file system that cannot be written to when the run is resumed."""
    with Mounted(out, 65536) as disk:
        interrupted(bench, out / "audit", rng, signal.SIGKILL)
        disk.again("ro")
        code, _ = bench.run(out / "audit")
        if code == 0:
            raise LostError("a run on a read-only disk ended with 0")
        refused(bench, code, "Read-only file system")
        disk.again("rw")
        bench.finish(out / "audit")


def chunks(out, name="*"):
    found = (out / "signals.zarr").glob(f"{name}/c/**/*")
    return sorted(p for p in found if p.is_file())


def damage(path, rng):
    """Truncate a file, alter a byte of it, or remove it; says which."""
    content = bytearray(path.read_bytes())
    how = rng.choice(("truncated", "altered", "deleted"))
    if how == "truncated":
        path.write_bytes(content[: rng.randrange(len(content))])
    elif how == "altered":
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
    else:
        path.unlink()
    return how


def damaged_signals(bench, out, rng):
    """A chunk of what models said, of a finished or of an unfinished audit: trained again."""
    if rng.random() < 0.5:
        bench.copy(out)
    else:
        interrupted(bench, out, rng, signal.SIGKILL)
    stored = [p for p in chunks(out, "*logits") if model_of(p) in bench.done(out)]
    if not stored:
        bench.finish(out)
        return
    path = rng.choice(stored)
    how = damage(path, rng)
    model = model_of(path)
    what = "missing" if how == "deleted" else "damaged"
    bench.verify(out, (1,), naming=f"{path.parts[-6]}: model {model}, ")
    bench.verify(out, (1,), naming=what)
    if len(bench.done(out)) == N_MODELS:
        code, _ = bench.run(out, verb="report")
        refused(bench, code or 70, f"signals.zarr/{path.parts[-6]}")
    first = model // AT_ONCE * AT_ONCE
    bench.finish(out, again=range(first, first + AT_ONCE))


def model_of(chunk):
    parts = chunk.parts
    return int(parts[len(parts) - parts[::-1].index("c")])


def damaged_masks(bench, out, rng):
    """A chunk of membership: refused by name, nothing is trained."""
    bench.copy(out)
    path = rng.choice(chunks(out, "membership"))
    damage(path, rng)
    bench.verify(out, (1,), naming=f"signals.zarr/membership: model {model_of(path)}, ")
    for verb in ("report", "run"):
        code, _ = bench.run(out, verb=verb)
        refused(bench, code or 70, "signals.zarr/membership")
    shutil.copy(bench.whole / path.relative_to(out), path)  # the remedy that is named: a copy
    bench.finish(out)


def damaged_cohort(bench, out, rng):
    bench.copy(out)
    damage(out / "cohort.parquet", rng)
    bench.verify(out, (1,), naming="cohort.parquet")
    code, _ = bench.run(out, verb="report")
    refused(bench, code or 70, "cohort.parquet")
    bench.finish(out)


def damaged_results(bench, out, rng):
    """A truncated or lost table, summary or page is written again."""
    bench.copy(out)
    name = rng.choice([*(f"{t}.parquet" for t in TABLES), "summary.json", "report.html"])
    path = out / name
    if name != "report.html" and rng.random() < 0.3:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size - 8)])
    bench.verify(out, (1,), naming=name)
    bench.finish(out)


def damaged_manifest(bench, out, rng):
    """Truncated, emptied or no longer JSON: named and refused; a copy mends it."""
    bench.copy(out)
    path = out / "manifest.json"
    content = path.read_bytes()
    cut = rng.randrange(len(content) - 2)
    at = rng.randrange(len(content))
    path.write_bytes(rng.choice((b"", content[:cut], content[:at] + b"\xff" + content[at + 1 :])))
    bench.verify(out, (1,), naming="manifest.json")
    code, _ = bench.run(out)
    refused(bench, code or 70, "manifest.json")
    path.write_bytes(content)
    bench.finish(out)


def clock_jump(bench, out, rng):
    """Files come from the future or the past, and the clock jumps while the run is resumed."""
    interrupted(bench, out, rng, signal.SIGKILL)
    if out.exists():
        for path in out.rglob("*"):
            then = time.time() + rng.uniform(-1, 1) * 1e9
            os.utime(path, (then, then))
    now, jumps = time.time, random.Random(rng.random())  # noqa: S311

    def prepare():
        time.time = lambda: now() + jumps.uniform(-1, 1) * 1e9

    bench.finish(out, prepare=prepare)


def two_writers(bench, out, rng):
    """Two of the same command on one folder: one is refused, or both end well."""
    name = str(bench.work / "other")
    bench.log.write_text("")
    first = start(*bench.command(out))
    time.sleep(rng.uniform(0, 1.0))
    second = start(name, *bench.command(out)[1:])
    codes = [ended(pid)[0] for pid in (first, second)]
    said = bench.said() + Path(f"{name}.stderr").read_text()
    if sorted(codes) not in ([0, 0], [0, 2]) or (2 in codes and "is in use by another" not in said):
        raise LostError(f"two writers ended with {codes}: {said}")
    trained = bench.trained(out)
    if len(set(trained)) < len(trained):
        raise LostError(f"two writers trained {trained}")
    bench.finish(out)


KINDS = {
    "kill -9, any instant": kill,
    "kill -9 in the analysis": kill_in_analysis,
    "SIGTERM (30 s notice)": terminate,
    "SIGINT": interrupt,
    "two faults in a row": stop_twice,
    "full disk, any write": disk_full,
    "read-only, any write": disk_unwritable,
    "small disk (tmpfs)": small_disk,
    "read-only disk (tmpfs)": read_only_disk,
    "damaged chunk of signals": damaged_signals,
    "damaged chunk of masks": damaged_masks,
    "damaged cohort.parquet": damaged_cohort,
    "damaged table or page": damaged_results,
    "damaged manifest": damaged_manifest,
    "clock jump": clock_jump,
    "two writers": two_writers,
}
NEED_MOUNT = ("small disk (tmpfs)", "read-only disk (tmpfs)")


def seeded(seed, number):
    return random.Random(f"{seed} {number}")  # noqa: S311


def can_mount(work):
    with suppress(OSError, subprocess.CalledProcessError), Mounted(work / "mount", 64):
        return True
    return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-mount", action="store_true", help="leave out what needs a mount")
    options = parser.parse_args()
    load()
    counts, lost = defaultdict(int), []
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        bench = Bench(work)
        mounts = not options.no_mount and can_mount(work)
        kinds = {name: f for name, f in KINDS.items() if mounts or name not in NEED_MOUNT}
        for number in range(options.faults):
            name = list(kinds)[number % len(kinds)]
            out = work / f"fault {number}"
            try:
                kinds[name](bench, out, seeded(options.seed, number))
            except LostError as error:
                lost.append(name)
                print(f"LOST: fault {number}, {name}: {error}", flush=True)
            counts[name] += 1
            shutil.rmtree(out, ignore_errors=True)
    for name, n in counts.items():
        print(f"{name:26} {n:4} injected {lost.count(name):4} lost")
    print(f"{sum(counts.values())} faults, {len(lost)} lost, {time.monotonic() - begun:.0f} s")
    return bool(lost)


if __name__ == "__main__":
    sys.exit(main())
