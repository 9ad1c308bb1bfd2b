"""Malformed inputs for every reader: none may end in anything but an error of this package.

Each input follows from its reader and a number, so that it can be made again; one that a reader
cannot take is written to a folder, with what happened.  Readers run in a process of their own,
whose memory is limited: a crash, a hang or a process that was killed counts as one of its input.

    python benchmarks/fuzz.py --inputs 100000 --jobs 2
    python benchmarks/fuzz.py --reader DICOM --first 4711 --inputs 1
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:1] = [str(ROOT / "tests"), str(ROOT / "src")]

HEADROOM = 4 * 2**30
"""Bytes of address space that a process may take beyond what it has when its files are made."""
PATIENCE = 120  # seconds without an input finished
PART = 6000  # inputs that one process takes


def readers():
    from fuzzing import audit_readers, code_readers, data_readers

    return [*data_readers.READERS, *code_readers.READERS, *audit_readers.READERS]


def child(name, first, n, into):
    """Try inputs `first` to `first + n`; tell of each in lines of JSON."""
    import torch  # before the limit, since it maps much that it does not use

    from fuzzing.reader import Bench

    torch.set_num_threads(1)
    (reader,) = [one for one in readers() if one.name == name]
    with tempfile.TemporaryDirectory() as folder, into.open("a") as told:
        bench = Bench(reader, Path(folder) / "bench")
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + HEADROOM,) * 2)
        for number in range(first, first + n):
            print(json.dumps({"began": number}), file=told, flush=True)
            changes, sealed = bench.number(number)
            said = {"number": number}
            try:
                said["refused"], said["grown"] = bench.attempt(changes, sealed)
            except Exception as error:
                place = [
                    f for f in traceback.extract_tb(error.__traceback__) if "confide" in f.filename
                ]
                said["crash"] = f"{type(error).__name__}: {error}"[:500]
                said["where"] = f"{place[-1].filename}:{place[-1].lineno}" if place else ""
                said["trace"] = traceback.format_exc()[-4000:]
            print(json.dumps(said), file=told, flush=True)


def run(name, first, n, folder):
    """Try the inputs in processes; returns what is told of each, and of those that ended one."""
    told, stop = [], first + n
    while first < stop:
        into = Path(folder) / f"{name.replace('/', '_')}-{first}.jsonl"
        process = subprocess.Popen(
            [
                sys.executable,
                __file__,
                "--child",
                name,
                str(first),
                str(min(PART, stop - first)),
                into,
            ],
            env={**os.environ, "OMP_NUM_THREADS": "1", "CONFIDE_DATA": "data"},
        )
        how = waited(process, into)
        lines = [json.loads(line) for line in into.read_text().splitlines() if line.endswith("}")]
        told += [line for line in lines if "number" in line]
        begun = [line["began"] for line in lines if "began" in line]
        done = {line["number"] for line in lines if "number" in line}
        if how != 0 and (not begun or begun[-1] in done):
            raise SystemExit(f"the files of {name!r} were not made, or not read ({how})")
        if how != 0:
            told.append(
                {"number": begun[-1], "crash": f"the process ended with {how}", "where": ""}
            )
        first = begun[-1] + 1
    return told


def waited(process, into):
    """The exit code of a process, or "no answer" of one that hangs and was ended."""
    size, since = -1, time.monotonic()
    while process.poll() is None:
        time.sleep(0.2)
        now = into.stat().st_size if into.exists() else 0
        if now != size:
            size, since = now, time.monotonic()
        if time.monotonic() - since > PATIENCE:
            process.kill()
            process.wait()
            return "no answer"
    return process.returncode


def keep(name, line, crashes):
    """Write an input that a reader could not take to a folder of its own."""
    from fuzzing.reader import Bench

    place = crashes / f"{name.replace('/', '_').replace(' ', '_')}-{line['number']}"
    place.mkdir(parents=True, exist_ok=True)
    (place / "what.json").write_text(json.dumps({"reader": name, **line}, indent=1))
    (reader,) = [one for one in readers() if one.name == name]
    with tempfile.TemporaryDirectory() as folder:
        changes, sealed = Bench(reader, Path(folder) / "bench").number(line["number"])
    for i, (file, content) in enumerate(changes.items()):
        raw = content if isinstance(content, bytes) else str(content).encode()
        (place / f"{i}-{Path(file).name}").write_bytes(raw)
    (place / "files.json").write_text(json.dumps({"files": list(changes), "sealed": sealed}))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=100_000, help="over all readers")
    parser.add_argument("--first", type=int, default=0, help="number of the first input of each")
    parser.add_argument("--reader", action="append", help="only this one; may be repeated")
    parser.add_argument("--crashes", type=Path, default=Path("crashes"))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        name, first, n, into = asked.child
        child(name, int(first), int(n), Path(into))
        return 0
    chosen = [one for one in readers() if not asked.reader or one.name in asked.reader]
    total = sum(one.weight for one in chosen)
    shares = {one.name: max(1, round(asked.inputs * one.weight / total)) for one in chosen}
    return report(shares, asked)


def report(shares, asked):
    from concurrent.futures import ThreadPoolExecutor

    n_all, n_crashes, begun = 0, 0, time.monotonic()
    print(f"{'reader':<28}{'inputs':>8}{'refused':>9}{'read':>7}{'crashes':>9}{'MB grown':>10}")
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(asked.jobs) as pool:
        jobs = [(name, asked.first, n, folder) for name, n in shares.items()]
        for name, told in zip(shares, pool.map(lambda job: run(*job), jobs), strict=True):
            bad = [line for line in told if "crash" in line]
            refused = sum(line.get("refused", False) for line in told)
            grown = max((line.get("grown", 0) for line in told), default=0) / 1e6
            n_read = len(told) - refused - len(bad)
            print(
                f"{name:<28}{len(told):>8}{refused:>9}{n_read:>7}{len(bad):>9}{grown:>10.0f}",
                flush=True,
            )
            seen = set()
            for line in bad:
                kind = (line.get("where"), line["crash"].split(":")[0])
                if kind not in seen:
                    seen.add(kind)
                    print(f"    {line['number']}: {line['crash'][:200]} {line.get('where', '')}")
                    keep(name, line, asked.crashes)
            n_all, n_crashes = n_all + len(told), n_crashes + len(bad)
    print(f"{n_all:,} inputs, {n_crashes:,} crashes, {time.monotonic() - begun:.0f} s")
    return 1 if n_crashes else 0


if __name__ == "__main__":
    sys.exit(main())
