"""Fewer models, same map of risk: how near is the risk of patients from few models to the truth?

From each file some models are drawn; their measured areas ("raw") and the shrunken risk ("ours")
are compared with the areas over all other models of the file, whose own error is taken out of the
root mean square error and added to the intervals.

First make files of signals, one for each cohort:

    python benchmarks/signals.py benchmarks/cohorts/phantom.yaml --models 576 --out F/phantom.npz

    python benchmarks/efficiency.py F
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from confide.audits.mann_whitney import row_auc
from confide.audits.patients import joint_signal, patient_risk
from confide.audits.shrinkage import shrunken
from signals import Study, read

Floats = NDArray[np.float64]
TOP = 0.01


def measures(found: Floats, truth: Floats, truth_error: Floats) -> list[float]:
    """Rank correlation, root mean square error, precision of the top 1 % (which is its recall)."""
    n_top = max(1, round(TOP * len(truth)))
    top = set(np.argsort(-truth)[:n_top]) & set(np.argsort(-found)[:n_top])
    error = np.sqrt(max(np.mean((found - truth) ** 2) - np.mean(truth_error**2), 0.0))
    return [float(spearmanr(found, truth)[0]), float(error), len(top) / n_top]


def compare(study: Study, n_models: int, draws: int) -> tuple[Floats, Floats, Floats]:
    """(draws, 3) measures raw and ours, (draws, 2) coverage and width of the intervals."""
    signal, held = study.signals.mean(axis=-1), study.membership
    raw, ours, intervals = [], [], []
    for draw in range(draws):
        order = np.random.default_rng([n_models, draw]).permutation(len(signal))
        rows, others = order[:n_models], order[n_models:]
        joint = row_auc(joint_signal(signal[others], study.cohort), held[others])
        _, risk = patient_risk(signal[rows], held[rows], study.cohort)
        found = shrunken(signal[rows], held[rows], study.cohort, risk)
        known = ~np.isnan(found.risk)
        true, error = joint.auc[known], joint.se[known]
        raw.append(measures(risk.joint[known], true, error))
        ours.append(measures(found.risk[known], true, error))
        risk_, low, high = found.risk[known], found.low[known], found.high[known]
        below = np.sqrt((risk_ - low) ** 2 + (1.96 * error) ** 2)
        above = np.sqrt((high - risk_) ** 2 + (1.96 * error) ** 2)
        covered = (risk_ - below <= true) & (true <= risk_ + above)
        intervals.append([np.mean(covered), np.mean(high - low)])
    return np.asarray(raw), np.asarray(ours), np.asarray(intervals)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="of .npz files made by signals.py")
    parser.add_argument("--only", nargs="*", help="names of files, without .npz; default: all")
    parser.add_argument("--models", nargs="*", type=int, default=[16, 32, 50, 64, 128, 200])
    parser.add_argument("--draws", type=int, default=5)
    a = parser.parse_args()
    print(
        "| data set | models | rank correlation: raw | ours | error: raw | ours "
        "| top 1 %: raw | ours | coverage | width |\n|" + " --- |" * 10,
        flush=True,
    )
    for path in sorted(a.folder.glob("*.npz")):
        if a.only and path.stem not in a.only:
            continue
        study = read(path)
        for n in a.models:
            raw, ours, intervals = (v.mean(axis=0) for v in compare(study, n, a.draws))
            pairs = [f"{x:.3f} | {y:.3f}" for x, y in zip(raw, ours, strict=True)]
            width = " | ".join(f"{v:.3f}" for v in intervals)
            print(f"| {path.stem} | {n} | {' | '.join(pairs)} | {width} |", flush=True)


if __name__ == "__main__":
    main()
