"""How much of hidden chest films comes back from their codes, with films of other patients.

Half of the patients of nih_cxr64 (64 x 64) are hidden, the films of the others are public.  Prints
a row a target: median correlation of reconstruction and truth beyond the mean over films, with its
95 % interval and the range that chance leaves once in a thousand; share of reconstructions that are
nearest to their own film; seconds, of the attack alone.  Above them stands what the same score is
for the principal components of the public films, fitted to the truth, and for the public film
nearest to the truth: no attack, but what to compare with.

    python benchmarks/inversion_reconstruction.py DATA_FOLDER
    python benchmarks/inversion_reconstruction.py DATA_FOLDER --depths 4 --components 12
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from confide.encoders.settings import NeuraCryptSettings
from confide.inversion.base import Architecture, ArrayCodes, Floats, Unpaired, Work
from confide.inversion.reconstruction import Reconstruct
from confide.inversion.scores import Truth, score
from confide.inversion.similarity import correlations
from confide.inversion.targets import encoded, negative_control, positive_control

SHAPE, PATCH = (1, 64, 64), 4
Images = np.ndarray


def films(folder: Path, seed: int) -> tuple[Images, Images, np.ndarray]:
    """Hidden films, public ones, and the patients of the hidden."""
    images = np.load(folder / "images.npz", allow_pickle=False)["images"][:, None]
    patient = pd.read_csv(folder / "metadata.csv")["patient_id"].to_numpy()
    everyone = np.random.default_rng(seed).permutation(np.unique(patient))
    hidden = np.isin(patient, everyone[: len(everyone) // 2])
    owner = np.unique(patient[hidden], return_inverse=True)[1]
    return images[hidden], images[~hidden], owner


def of_truth(name: str, found: Floats, hidden: Images) -> None:
    show(name, float(np.median(correlations(found, hidden).diagonal())))


def comparisons(hidden: Images, public: Images) -> None:
    """Principal components and nearest public film of the truth."""
    mean = public.mean(axis=0, dtype=np.float64)
    rest, theirs = ((x - mean).reshape(len(x), -1) for x in (hidden, public))
    directions = np.linalg.svd(theirs, full_matrices=False)[2]
    for k in (20, 100):
        v = directions[:k]
        of_truth(f"truth, {k} principal components", rest @ v.T @ v, hidden)
    units = [x - x.mean(axis=1, keepdims=True) for x in (rest, theirs)]
    units = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in units]
    nearest = (units[0] @ units[1].T).argmax(axis=1)
    show("truth, nearest public film", float(np.median((units[0] @ units[1].T).max(axis=1))))
    of_truth("the same, beyond the mean of those", public[nearest], hidden)


def show(name: str, value: float, more: str = "") -> None:
    print(f"{name:36s}{value:7.3f}  {more}", flush=True)


def attacked(
    name: str, attack: Reconstruct, known: Unpaired, hidden: Images, owner: np.ndarray, seed: int
) -> None:
    start = time.perf_counter()
    finding = attack(known, Work(seed=seed))
    seconds = time.perf_counter() - start
    truth = Truth(records=hidden, patient=owner, codes=known.codes)
    found = {s.name: s for s in score(finding, truth)}
    value, first = found["correlation"], found["first_rank"]
    show(
        name,
        value.value,
        f"[{value.low:.3f}, {value.high:.3f}]  chance [{value.chance_low:6.3f}, "
        f"{value.chance_high:.3f}]  nearest {first.value:.3f} (chance {first.chance:.3f})  "
        f"mse {found['mse_ratio'].value:.3f}  {seconds:5.0f} s  {' '.join(finding.notes)}",
    )


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("data", type=Path, help="folder that holds nih_cxr64")
    ask.add_argument("--depths", type=int, nargs="*", default=[0, 4])
    ask.add_argument("--width", type=int, default=1024)
    ask.add_argument("--components", type=int, nargs="*", default=[Reconstruct.components])
    ask.add_argument("--budget", default="quick")
    ask.add_argument("--seeds", type=int, nargs="*", default=[0])
    ask.add_argument("--no-controls", action="store_true")
    asked = ask.parse_args()
    budget = Reconstruct.of(asked.budget)
    for seed in asked.seeds:
        hidden, public, owner = films(asked.data / "nih_cxr64", seed)
        print(f"{len(hidden)} hidden films, {len(public)} public films, split and keys {seed}")
        comparisons(hidden, public)
        for depth in asked.depths:
            settings = NeuraCryptSettings(patch=PATCH, width=asked.width, private_depth=depth)
            architecture = Architecture(settings=settings, shape=SHAPE)
            codes = ArrayCodes(encoded(architecture, hidden, 1000 + seed))
            known = Unpaired(architecture=architecture, codes=codes, plaintexts=public)
            for k in asked.components:
                attack = replace(budget, components=k)
                attacked(
                    f"private depth {depth}, {k} components", attack, known, hidden, owner, seed
                )
        if asked.no_controls:
            continue
        weak = positive_control(architecture, hidden, 2000 + seed)
        nothing = negative_control(architecture, hidden, 3000 + seed)
        for target in (weak, nothing):
            known = Unpaired(
                architecture=target.architecture, codes=target.codes, plaintexts=public
            )
            attacked(f"control: {target.kind}", budget, known, hidden, owner, seed)


if __name__ == "__main__":
    main()
