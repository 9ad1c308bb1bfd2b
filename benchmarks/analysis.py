"""Time and memory of an analysis of the size of a large study.

Prints seconds of wall clock and of processor for each part, the totals and the peak memory.

    python benchmarks/analysis.py
    python benchmarks/analysis.py --models 64 --records 20000 --patients 8000
    python benchmarks/analysis.py --from-disk --records 377110 --patients 65379
    python benchmarks/analysis.py --from-disk --classes 2 --records 1000000 --patients 300000
    python benchmarks/analysis.py --published 20000 --records 377110 --patients 65379

`--from-disk` writes an audit folder of logits (multiclass, four group columns, held-out patients)
into a temporary folder and analyses it as the command line does, in a process of its own, so that
the peak memory is that of the analysis.  A million records of two classes take 1.7 GB of disk.

`--published` times what the published analyses do, in plain NumPy written for this comparison
(loops over records, an index matrix for RMIA), on so many of the records, and scales the seconds
up to all records.  Their cost is linear in records and in targets.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm, trim_mean

from confide.attacks import named
from confide.audits.aggregate import evaluate
from confide.audits.audit import AuditSettings, audit
from confide.audits.control import planted_control
from confide.audits.groups import group_table
from confide.audits.null import max_survival
from confide.audits.patients import patient_risk
from confide.cohort import Cohort
from confide.masks import balanced


def study(
    n_models: int, n_records: int, n_patients: int, n_population: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, Cohort, np.ndarray]:
    """Signals, membership, cohort and population signals; a leak that differs by record."""
    rng = np.random.default_rng(seed)
    extra = rng.integers(0, n_patients, n_records - n_patients)
    patient = rng.permutation(np.concatenate([np.arange(n_patients), extra]))
    cohort = Cohort(
        record=np.arange(n_records),
        patient=patient,
        label=rng.integers(0, 2, n_records),
        task="binary",
        classes=("no", "yes"),
        groups=pd.DataFrame({"site": np.array(["a", "b", "c"])[patient % 3]}),
    )
    membership = balanced(n_models, n_patients, seed=seed)
    difficulty = rng.normal(1.0, 1.5, n_records)
    leak = 0.3 * rng.exponential(1.0, n_records)
    signals = rng.standard_normal((n_models, n_records))
    signals += difficulty
    for row, held in zip(signals, membership, strict=True):
        row += leak * cohort.expand(held)
    population = rng.normal(1.0, 1.8, (n_models, n_population))
    return signals, membership, cohort, population


def timed(name: str, work: Callable[[], Any]) -> tuple[float, float]:
    """Run a piece of work, print and return its seconds of wall clock and of processor."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"{name:28s} {wall:8.1f} {cpu:8.1f}", flush=True)
    return wall, cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (
        ("models", 200),
        ("records", 100_000),
        ("patients", 30_000),
        ("population", 20_000),
        ("permutations", 1_000),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--parts", action="store_true", help="each part apart, before the whole")
    parser.add_argument("--from-disk", action="store_true", help="of an audit folder of logits")
    parser.add_argument("--classes", type=int, default=14, help="of the logits on disk")
    parser.add_argument("--scratch", type=Path, help="where the audit folder is written")
    parser.add_argument("--published", type=int, default=0, help="records of the published forms")
    a = parser.parse_args()
    if a.from_disk:
        from_disk(a)
        return
    if a.published:
        published(a)
        return
    signals, membership, cohort, population = study(a.models, a.records, a.patients, a.population)
    print(f"{a.models} models, {a.records:,} records, {a.patients:,} patients")
    print(f"{'part':28s} {'seconds':>8s} {'cpu':>8s}")
    if a.parts:
        parts(signals, membership, cohort, population, a.permutations)
    settings = AuditSettings(n_permutations=a.permutations)
    timed(
        "whole audit",
        lambda: audit(signals, membership, cohort, population=population, settings=settings),
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory {peak:.2f} GiB, of which signals {signals.nbytes / 2**30:.2f} GiB")


def parts(
    signals: np.ndarray,
    membership: np.ndarray,
    cohort: Cohort,
    population: np.ndarray,
    n_permutations: int,
) -> None:
    """Time each part of an audit apart."""
    p_value = np.ones(cohort.n_patients)
    timed("patients", lambda: patient_risk(signals, membership, cohort))
    timed(
        "null of max",
        lambda: max_survival(
            signals, membership, cohort, np.linspace(0.5, 1, 101), n_permutations=n_permutations
        ),
    )
    timed(
        "control",
        lambda: planted_control(signals, membership, cohort, p_value, fdr=0.05, seed=0),
    )
    groups, _ = cohort.patient_groups()
    timed("groups", lambda: group_table(np.arange(cohort.n_patients, dtype=float), groups))
    by_record = cohort.expand(membership)
    for attack in named(["lira", "rmia"]):
        scores: list[np.ndarray] = []

        def score(attack: Any = attack, scores: list[np.ndarray] = scores) -> None:
            scores.append(attack.leave_one_out(signals, by_record, population))

        timed(f"{attack.name}: scores", score)
        timed(f"{attack.name}: measures", lambda s=scores: evaluate(s[0], membership, cohort))


def from_disk(a: argparse.Namespace) -> None:
    """Write an audit folder and analyse it in a process of its own."""
    scratch = Path(tempfile.mkdtemp(dir=a.scratch))
    try:
        out = scratch / "audit"
        print(f"{a.models} models, {a.records:,} records, {a.patients:,} patients, on disk")
        print(f"{'part':28s} {'seconds':>8s} {'cpu':>8s}")
        timed("(writing the folder)", lambda: write_folder(out, a))
        worker = multiprocessing.get_context("spawn").Process(target=analysed, args=(str(out),))
        worker.start()
        worker.join()
    finally:
        shutil.rmtree(scratch)


def write_folder(out: Path, a: argparse.Namespace) -> None:
    """An audit folder with logits of `a.models` models; each learns its own patients a little."""
    from confide.runs.models import cohort_table, environment
    from confide.stores import AuditFolder, write_table

    rng = np.random.default_rng(0)
    cohort = cohort_on_disk(a.records, a.patients, a.classes, rng, "p")
    heldout = cohort_on_disk(a.population, max(a.population // 5, 1), a.classes, rng, "h")
    membership = balanced(a.models, cohort.n_patients, seed=0)
    leak = (0.3 * rng.exponential(1.0, a.records)).astype(np.float32)
    manifest = {
        "models": ["done"] * a.models,
        "task": "multiclass",
        "classes": list(cohort.classes),
        "design": {"n_models": a.models, "fraction": 0.5, "seed": 0},
    } | environment()
    with AuditFolder.open(out, lambda: manifest) as folder:
        write_table(out / "cohort.parquet", cohort_table(cohort, heldout))
        folder.create_array("membership", membership.shape, np.bool_)
        folder.array("membership")[:] = membership
        for name, part, given in (
            ("logits", cohort, leak[None] * cohort.expand(membership)),
            ("heldout_logits", heldout, np.zeros((a.models, heldout.n_records), np.float32)),
        ):
            folder.create_array(name, (a.models, part.n_records, 1, a.classes), np.float32)
            array, rows = folder.array(name), np.arange(part.n_records)
            hard = rng.standard_normal((part.n_records, a.classes), dtype=np.float32)
            hard[rows, part.label] += 2.0
            for model in range(a.models):
                logits = rng.standard_normal(hard.shape, dtype=np.float32)
                logits += hard
                logits[rows, part.label] += given[model]
                array[model] = logits[:, None]


def cohort_on_disk(
    n_records: int, n_patients: int, n_classes: int, rng: np.random.Generator, prefix: str
) -> Cohort:
    """Records of patients with four groups of 2, 4, 5 and 7 values."""
    extra = rng.integers(0, n_patients, n_records - n_patients)
    patient = rng.permutation(np.concatenate([np.arange(n_patients), extra]))
    groups = {
        name: np.array([f"{name} {i}" for i in range(n)])[rng.integers(0, n, n_patients)][patient]
        for name, n in (("sex", 2), ("insurance", 4), ("age", 5), ("race", 7))
    }
    return Cohort(
        record=np.array([f"{prefix}r{i}" for i in range(n_records)]),
        patient=np.array([f"{prefix}{i}" for i in patient]),
        label=rng.integers(0, n_classes, n_records),
        task="multiclass",
        classes=tuple(f"class {i}" for i in range(n_classes)),
        groups=pd.DataFrame(groups),
    )


def analysed(out: str) -> None:
    """Analyse a folder and print what it took; a process of its own runs this."""
    from confide.runs import analyse

    timed("whole analysis", lambda: analyse(Path(out)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    found = json.loads((Path(out) / "summary.json").read_text())
    print(f"peak memory {peak:.2f} GiB; LiRA's area {found['attacks']['lira']['auc']:.4f}")


def published(a: argparse.Namespace) -> None:
    """Time plain forms of the published analyses on some records, scaled up to all."""
    n_some = min(a.published, a.records)
    n_patients = max(a.patients * n_some // a.records, 1)
    signals, membership, cohort, _ = study(a.models, n_some, n_patients, 1)
    held, p = cohort.expand(membership), 1.0 / (1.0 + np.exp(-signals))
    scale = a.records / n_some
    print(f"{n_some:,} of {a.records:,} records; seconds of the processor, scaled to all records")
    rng = np.random.default_rng(0)
    _, cpu = timed("areas by record", lambda: published_areas(signals, held))
    print(f"  all records: {cpu * scale:.0f} s")
    for targets in (1, 10):
        _, cpu = timed(
            f"LiRA, {targets} targets", lambda t=targets: published_lira(signals, held, t)
        )
        print(f"  all records: {cpu * scale:.0f} s")
    _, indices = timed("RMIA, index matrix", lambda: index_matrix(n_some, 500, rng))
    indices, drawn = indices * scale, index_matrix(n_some, 500, rng)
    seconds = [
        timed(f"RMIA, {t} targets", lambda t=t: published_rmia(p, held, t, drawn))[1]
        for t in (1, 3)
    ]
    each = (seconds[1] - seconds[0]) / 2
    for targets in (10, a.models):
        total = indices + (seconds[0] + (targets - 1) * each) * scale
        print(f"  all records, {targets} targets: {total:.0f} s")


def in_and_out(values: np.ndarray, held: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Signals with and without each record, record by record, cut to the same number for all."""
    inside = [values[held[:, j], j] for j in range(values.shape[1])]
    outside = [values[~held[:, j], j] for j in range(values.shape[1])]
    n_in, n_out = min(map(len, inside)), min(map(len, outside))
    return np.stack([x[:n_in] for x in inside], 1), np.stack([x[:n_out] for x in outside], 1)


def published_areas(values: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Binormal area of each record over models with Hanley and McNeil's error: (2, n_records)."""
    inside, outside = in_and_out(values, held)
    spread = np.sqrt(inside.std(axis=0) ** 2 + outside.std(axis=0) ** 2)
    area = np.clip(norm.cdf((inside.mean(axis=0) - outside.mean(axis=0)) / spread), 0.5, 1 - 1e-10)
    n_in, n_out = len(inside), len(outside)
    one, two = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area) + (n_in - 1) * (one - area**2) + (n_out - 1) * (two - area**2)
    return np.stack([area, np.sqrt(variance / (n_in * n_out))])


def published_lira(values: np.ndarray, held: np.ndarray, n_targets: int) -> np.ndarray:
    """Likelihood ratios of the last models, the others their references."""
    inside, outside = in_and_out(values[:-n_targets], held[:-n_targets])
    sides = [(np.median(x, axis=0), x.std(axis=0) + 1e-12) for x in (inside, outside)]
    return np.stack(
        [norm.logpdf(row, *sides[0]) - norm.logpdf(row, *sides[1]) for row in values[-n_targets:]]
    )


def index_matrix(n_records: int, n_population: int, rng: np.random.Generator) -> np.ndarray:
    """(n_records, n_population) other records to compare each record with, from 2,500."""
    pool = rng.choice(n_records, 5 * n_population, replace=False)
    return np.stack(
        [rng.choice(pool[pool != i], n_population, replace=False) for i in range(n_records)]
    )


def published_rmia(
    p: np.ndarray, held: np.ndarray, n_targets: int, indices: np.ndarray
) -> np.ndarray:
    """Share of 500 records that each record's ratio dominates: all pairs, for the last models."""
    inside, outside = in_and_out(p[:-n_targets], held[:-n_targets])
    mean_out = trim_mean(outside, 0.01, axis=0)
    mean = 0.5 * (trim_mean(inside, 0.01, axis=0) + mean_out)
    return np.stack(
        [
            ((row / mean)[:, None] * (mean_out / row)[indices] > 1.0).mean(axis=1)
            for row in p[-n_targets:]
        ]
    )


if __name__ == "__main__":
    main()
