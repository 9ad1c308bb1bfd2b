"""Does the list of patients tell the truth?  Simulations with known answers.

Without leakage: 3,000 patients with 1 to 20 records each and 100 models; the list should be empty
in 95 of 100 cohorts on average.  With leakage of two standard deviations planted in 2 % of the
patients: the share of them that is listed, and the share of the list that is false.

    python benchmarks/truth.py
    python benchmarks/truth.py --seeds 20 --patients 1000
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from confide.audits.patients import patient_risk
from confide.cohort import Cohort
from confide.masks import balanced


def study(
    seed: int, n_patients: int = 3000, n_models: int = 100, leak: float = 0.0, share: float = 0.02
) -> tuple[np.ndarray, np.ndarray, Cohort, np.ndarray]:
    """Signals, membership, cohort, and which patients leak.

    Records of a patient are correlated within each model, and differ in level and spread; `leak`
    is in standard deviations of a record, in all records of a leaking patient.
    """
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 21, n_patients)
    patient = np.repeat(np.arange(n_patients), sizes)
    n_records = len(patient)
    cohort = Cohort(
        record=np.arange(n_records),
        patient=patient,
        label=np.zeros(n_records, dtype=int),
        task="binary",
        classes=("no", "yes"),
    )
    membership = balanced(n_models, n_patients, seed=seed)
    leaking = rng.permutation(n_patients) < round(share * n_patients)
    signals = rng.standard_normal((n_models, n_records)) * np.sqrt(0.5)
    shared = rng.standard_normal((n_models, n_patients)) * np.sqrt(0.5)
    signals += cohort.expand(shared)
    signals += leak * cohort.expand(membership & leaking)
    level = rng.normal(0, 2, n_records)
    return (
        level + np.exp(0.5 * rng.standard_normal(n_records)) * signals,
        membership,
        cohort,
        leaking,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--patients", type=int, default=3000)
    parser.add_argument("--models", type=int, default=100)
    a = parser.parse_args()
    start, empty, recall, false = time.perf_counter(), [], [], []
    for seed in range(a.seeds):
        signals, membership, cohort, _ = study(seed, a.patients, a.models)
        empty.append(not patient_risk(signals, membership, cohort)[1].at_risk.any())
    print(f"no leakage: the list is empty in {sum(empty)} of {a.seeds} cohorts", flush=True)
    for seed in range(max(a.seeds // 10, 1)):
        signals, membership, cohort, leaking = study(seed, a.patients, a.models, leak=2.0)
        listed = patient_risk(signals, membership, cohort)[1].at_risk
        recall.append((listed & leaking).sum() / leaking.sum())
        false.append((listed & ~leaking).sum() / max(listed.sum(), 1))
    print(
        f"2 % of patients leak 2 sd: {np.mean(recall):.3f} of them are listed, "
        f"{np.mean(false):.3f} of the list is false, means of {len(recall)} cohorts"
    )
    print(f"{time.perf_counter() - start:.0f} seconds")


if __name__ == "__main__":
    main()
