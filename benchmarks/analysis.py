"""Time and memory of an analysis of the size of a large study.

Prints seconds of wall clock and of processor for each part, the totals and the peak memory.

    python benchmarks/analysis.py
    python benchmarks/analysis.py --models 64 --records 20000 --patients 8000
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

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
    a = parser.parse_args()
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


if __name__ == "__main__":
    main()
