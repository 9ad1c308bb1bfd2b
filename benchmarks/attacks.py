"""Compare attacks on signals of real models, by number of reference models.

Prints a Markdown table: the area under the ROC curve, and the share of members found at 1 % and
.1 % false alarms where at least 10 false alarms are expected, of records and of patients (a
patient's score is the sum of the scores of the patient's records; the stack learns that sum anew).
Targets are disjoint from the references; they and the references are drawn anew for each split.
After +-: the standard error over targets and splits, the larger of that over all targets and that
over splits.  The last column is the area of the stack minus that of the better of the others,
target by target.

First make files of signals, one for each cohort:

    python benchmarks/signals.py benchmarks/cohorts/phantom.yaml --models 576 --out F/phantom.npz

    python benchmarks/attacks.py F
    python benchmarks/attacks.py F --only phantom nih_cxr64 --references 8 64 --null

With `--more` other attacks join, among them those that need no references: the files have to be
made with `signals.py --trace`.  With `--null` every patient is given the membership of another, so
that nothing can be found: areas must be .5.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from confide.attacks import (
    RMIA,
    Attack,
    CalibratedLoss,
    LiRA,
    LossThreshold,
    LossTraceIQR,
    OfflineLiRA,
    OfflineRMIA,
    PerRecord,
    QuantileRegression,
)
from confide.attacks.stacked import Stacked
from signals import Study, read

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Rows = NDArray[np.intp]
ATTACKS: dict[str, Attack] = {
    "RMIA": RMIA(),
    "LiRA, per record": LiRA(PerRecord()),
    "LiRA, moderated": LiRA(),
    "stacked": Stacked(),
}
MORE: dict[str, Attack] = {
    "loss threshold": LossThreshold(),
    "difficulty-calibrated loss": CalibratedLoss(),
    "LiRA, offline": OfflineLiRA(),
    "RMIA, offline": OfflineRMIA(),
    "quantile regression": QuantileRegression(),
    "LT-IQR": LossTraceIQR(),
}
RATES = (0.01, 0.001)
MEASURES = [(level, rate) for level in ("records", "patients") for rate in (None, *RATES)]


def area(score: Floats, member: Bools) -> float:
    """Area under the ROC curve, ties half."""
    n_in = int(member.sum())
    ranks = rankdata(score)
    return float((ranks[member].sum() - n_in * (n_in + 1) / 2) / (n_in * (len(member) - n_in)))


def found(score: Floats, member: Bools, rate: float) -> float:
    """Share of members above the threshold; NaN below 10 expected false alarms."""
    others = np.sort(score[~member])[::-1]
    k = int(rate * len(others))
    return float((score[member] > others[k - 1]).mean()) if k >= 10 else np.nan


def measures(score: Floats, member: Bools) -> list[float]:
    """The area and the shares found."""
    return [area(score, member), *(found(score, member, rate) for rate in RATES)]


def of_records(score: Floats, member: Bools) -> list[float]:
    """Measures over records."""
    known = np.isfinite(score)
    return measures(score[known], member[known])


def of_patients(score: Floats, member: Bools, patient: Rows) -> list[float]:
    """Measures over patients, by the sums of their records' scores."""
    known = np.isfinite(score)
    _, first, index = np.unique(patient[known], return_index=True, return_inverse=True)
    return measures(np.bincount(index, score[known]), member[known][first])


def scores_of(
    attack: Attack, study: Study, targets: Rows, references: Rows, member: Bools, some: Bools
) -> Floats:
    """(n_targets, n_records) scores of some records."""
    given = study.signals[targets][:, some], study.signals[references][:, some]
    held = member[references][:, some]
    if isinstance(attack, Stacked):
        return attack.score_all(*given, held)
    if isinstance(attack, LossTraceIQR):
        traces = np.asarray(study.trace, dtype=np.float64)[:, some]
        return np.stack([attack.score(traces[t], traces[references], held) for t in targets])
    if isinstance(attack, QuantileRegression):
        features = tuple(
            pd.DataFrame({"label": label.astype(object)})
            for label in (study.cohort.label[some], np.asarray(study.population_label))
        )
        z = study.population
        return np.stack(
            [
                attack.score(row, given[1], held, (z[t], z[references]), features=features)
                for row, t in zip(given[0], targets, strict=True)
            ]
        )
    return np.stack([attack.score(target, given[1], held) for target in given[0]])


def compare(
    study: Study,
    attacks: dict[str, Attack],
    n_references: int,
    n_targets: int,
    splits: int,
    null: bool,
) -> dict[str, Floats]:
    """Attack -> (splits, n_targets, len(MEASURES))."""
    patient = study.cohort.patient_index
    result: dict[str, list[list[list[float]]]] = {name: [] for name in attacks}
    for split in range(splits):
        rng = np.random.default_rng(split)  # the same targets whatever the number of references
        order = rng.permutation(len(study.signals))
        targets, references = order[:n_targets], order[n_targets : n_targets + n_references]
        columns = np.arange(study.membership.shape[1])
        member = study.membership[:, rng.permutation(columns) if null else columns][:, patient]
        # Every attack on the same records: those with references of both kinds, two of each.
        n_in = member[references].sum(axis=0)
        some = (n_in >= 2) & (n_references - n_in >= 2)
        for name, attack in attacks.items():
            scores = scores_of(attack, study, targets, references, member, some)
            sums = scores
            if isinstance(attack, Stacked):  # it can learn what to add up
                attack = Stacked(patient[some])
                sums = scores_of(attack, study, targets, references, member, some)
            result[name].append(
                [
                    of_records(one, member[t, some])
                    + of_patients(two, member[t, some], patient[some])
                    for one, two, t in zip(scores, sums, targets, strict=True)
                ]
            )
    return {name: np.asarray(values) for name, values in result.items()}


def standard_error(values: Floats) -> float:
    """Of the mean of (splits, n_targets) values; targets of a split share their references."""
    over_targets = values.std(ddof=1) / np.sqrt(values.size)
    over_splits = values.mean(axis=1).std(ddof=1) / np.sqrt(len(values))
    return float(max(over_targets, over_splits))


def cell(values: Floats, rate: float | None) -> str:
    """Mean and standard error; areas as they are, shares in percent."""
    if np.isnan(values).any():
        return "-"
    mean, error = values.mean(), standard_error(values)
    if rate is None:
        return f"{mean:.4f} +-{error:.4f}"
    return f"{100 * mean:.2f} +-{100 * error:.2f}"


def rows(name: str, n_references: int, values: dict[str, Floats]) -> list[str]:
    """Lines of the table: one an attack."""
    others = [v for k, v in values.items() if k != "stacked"]
    lines = []
    for attack, of_attack in values.items():
        cells = [cell(of_attack[..., i], rate) for i, (_, rate) in enumerate(MEASURES)]
        gain = ""
        if attack == "stacked":
            best = max(others, key=lambda v: float(v[..., 0].mean()))
            gain = cell(of_attack[..., 0] - best[..., 0], None)
        lines.append(" | ".join(["", name, str(n_references), attack, *cells, gain, ""]).strip())
    return lines


def header() -> list[str]:
    """First two lines of the table."""
    names = [f"{w}: {'AUC' if r is None else f'TPR {100 * r:g} %'}" for w, r in MEASURES]
    titles = ["data set", "references", "attack", *names, "gain in AUC"]
    return ["| " + " | ".join(titles) + " |", "|" + " --- |" * len(titles)]


def short(lines: Sequence[str]) -> list[str]:
    """The same lines with the attacks side by side: RMIA / LiRA (moderated) / stacked."""
    cells = [[c.strip() for c in line.strip("| ").split("|")] for line in lines]
    found: dict[tuple[str, str], dict[str, list[str]]] = {}
    for name, n, attack, *rest in cells:
        found.setdefault((name, n), {})[attack] = [c.split(" +-")[0] for c in rest[:6]] + rest[6:]
    result = [
        "| data set | references | AUC | gain of stacked | TPR at 1 % "
        "| patients: AUC | TPR at 1 % |",
        "|" + " --- |" * 7,
    ]
    for (name, n), one in sorted(found.items(), key=lambda x: (x[0][0], int(x[0][1]))):
        three = [one[k] for k in ("RMIA", "LiRA, moderated", "stacked")]
        places = [" / ".join(t[i] for t in three) for i in (0, 1, 3, 4)]
        places = ["-" if "-" in p.split(" / ") else p for p in places]
        gain = three[2][6].replace("+-", "±")
        result.append(
            f"| {name} | {n} | {places[0]} | {gain} | {places[1]} | {places[2]} | {places[3]} |"
        )
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="of .npz files made by signals.py")
    parser.add_argument("--only", nargs="*", help="names of files, without .npz; default: all")
    parser.add_argument("--references", nargs="*", type=int, default=[8, 16, 32, 64, 128, 256, 512])
    parser.add_argument("--targets", type=int, default=16)
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--more", action="store_true")
    parser.add_argument("--short", type=Path, help="print a table of this script, in a short form")
    parser.add_argument("--null", action="store_true")
    a = parser.parse_args(arguments)
    if a.short:
        lines = a.short.read_text().splitlines()
        print("\n".join(short([x for x in lines if x.startswith("|") and " AUC " not in x[:99]])))
        return
    attacks = ATTACKS | (MORE if a.more else {})
    print("\n".join(header()), flush=True)
    for path in sorted(a.folder.glob("*.npz")):
        if a.only and path.stem not in a.only:
            continue
        study = read(path)
        for n in a.references:
            if n + a.targets <= len(study.signals):
                values = compare(study, attacks, n, a.targets, a.splits, a.null)
                print("\n".join(rows(path.stem, n, values)), flush=True)


if __name__ == "__main__":
    main()
