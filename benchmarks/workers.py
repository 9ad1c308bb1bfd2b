"""Models a minute with so many worker processes, each with a GPU of its own where there are some.

Audits a configuration with each number of workers and prints the rate at which models were
finished, without the first, as many as there are workers, which pay for the start; writes
results/workers.json.  Models have to be trained in more groups than there are workers: see
performance.models_at_once.

    CONFIDE_DATA=FOLDER python benchmarks/workers.py examples/ham10000.yaml --workers 1 2
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import results
from confide.config import load
from confide.runs.engines import Processes, run_by


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--models", type=int, default=12)
    parser.add_argument("--epochs", type=int, help="instead of those of the configuration")
    parser.add_argument("--out", type=Path, help="folder of the results")
    a = parser.parse_args()
    config, folder = load(a.config)
    train = config.train
    if a.epochs:
        train = train.model_copy(update={"epochs": a.epochs})
    audit = config.audit.model_copy(update={"n_models": a.models})
    config = config.model_copy(update={"train": train, "audit": audit})
    found: dict[str, float] = {}
    for n in a.workers:
        stamps: list[tuple[int, float]] = []

        def note(done: int, _: int, stamps: list[tuple[int, float]] = stamps) -> None:
            stamps.append((done, time.perf_counter()))

        with tempfile.TemporaryDirectory() as out, Processes(n) as engine:
            run_by(engine, config, folder, Path(out) / "audit", progress=note)
        first, last = next(one for one in stamps if one[0] >= n), stamps[-1]
        if first[0] == last[0]:
            raise SystemExit("All models are one group a worker: set performance.models_at_once.")
        found[str(n)] = 60 * (last[0] - first[0]) / (last[1] - first[1])
        ratio = found[str(n)] / found[str(a.workers[0])]
        print(f"{n} workers: {found[str(n)]:.2f} models a minute, {ratio:.2f} x", flush=True)
        print([f"{done} {at - stamps[0][1]:.1f}" for done, at in stamps], flush=True)
    results.write("workers", found, a.out)


if __name__ == "__main__":
    main()
