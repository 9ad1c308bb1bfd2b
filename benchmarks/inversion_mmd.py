"""Substitute encoders by MMD, and by known pairs, on the chest radiographs of `nih_cxr64`.

The figure is that of challenge 2 of the authors: the share of hidden images whose mean row is
nearest to the predicted one of the same image, and the other way round; beside it the squared error
over that of a constant.

    python benchmarks/inversion_mmd.py FOLDER            with a GPU, minutes
    python benchmarks/inversion_mmd.py FOLDER --quick    one line, to try it
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from confide.datasets.phantom import Phantom
from confide.encoders.settings import EncodeSettings, LinearSettings, NeuraCryptSettings
from confide.inversion.base import Architecture, ArrayCodes, KnownPairs, Unpaired, Work
from confide.inversion.gan import Discriminator
from confide.inversion.mmd import MMD
from confide.inversion.plaintext import Plaintext
from confide.inversion.targets import encoded


def radiographs(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """(n, 1, 64, 64) uint8, and the patient of each."""
    with np.load(folder / "images.npz") as file:
        images = file["images"][:, None]
    with (folder / "metadata.csv").open(encoding="utf-8") as file:
        patient = np.array([row["patient_id"] for row in csv.DictReader(file)])
    return images, patient


def phantoms(n_patients: int, seed: int) -> np.ndarray:
    """(n, 1, 64, 64) uint8, an image a patient."""
    return Phantom(n_patients=n_patients, max_views=1, seed=seed).load().inputs


def half(patient: np.ndarray) -> np.ndarray:
    """Rows of about half of the records, whole patients."""
    each, number = np.unique(patient, return_inverse=True)
    order = np.random.default_rng(0).permutation(len(each))
    share = np.bincount(number)[order].cumsum() / len(patient)
    return np.isin(number, order[share <= 0.5])


def nearest(true: np.ndarray, made: np.ndarray) -> tuple[float, float]:
    """Share whose own is nearest, among those made and among those true."""
    a, b = torch.from_numpy(true).double(), torch.from_numpy(made).double()
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    own = torch.arange(len(a))
    return tuple(float((squares.argmin(dim) == own).double().mean()) for dim in (1, 0))


class Bench:
    def __init__(self, device: str) -> None:
        self.device = torch.device(device)

    def show(self, attack, what, settings: EncodeSettings, hidden, public, pairs=None) -> None:
        """Attack codes of `hidden` and print one line."""
        architecture = Architecture(settings=settings, shape=hidden.shape[1:])
        codes = encoded(architecture, hidden, 7, device=self.device)
        facts = {
            "architecture": architecture,
            "codes": ArrayCodes(codes),
            "plaintexts": public,
        }
        known = Unpaired(**facts) if pairs is None else KnownPairs(**facts, pairs=pairs)
        scored = np.arange(len(hidden))
        if pairs is not None and len(pairs) < len(hidden):
            scored = np.setdiff1d(scored, pairs[:, 0])
        start = time.perf_counter()
        finding = attack(known, Work(seed=1, device=self.device))
        seconds = time.perf_counter() - start
        true, made = codes[scored].mean(axis=1), finding.means(hidden[scored])
        forward, backward = nearest(true, made)
        ratio = float(((true - made) ** 2).mean() / true.var(axis=0).mean())
        depth = getattr(settings, "private_depth", None)
        line = {
            "attack": attack.name,
            "encoder": settings.name if depth is None else f"{settings.name} {depth}",
            "shuffled": settings.shuffle,
            "plaintexts": what,
            "n_scored": len(scored),
            "n_plaintexts": len(public),
            "patch": settings.patch,
            "width": settings.width,
            "steps": attack.steps,
            "batch_size": attack.batch_size,
            "lr": attack.lr,
            "true_to_predicted": round(forward, 4),
            "predicted_to_true": round(backward, 4),
            "mse_ratio": round(ratio, 5),
            "seconds": round(seconds, 1),
        }
        print(json.dumps(line), flush=True)


def matching(bench: Bench, images: np.ndarray, patient: np.ndarray, steps: int) -> None:
    """MMD on the linear encoder, which it must recover, and on NeuraCrypt, as it is."""
    n, part = len(images), half(patient)
    hidden, public = phantoms(n, 1), phantoms(n, 2)
    linear = LinearSettings(patch=4, width=256)
    shuffled = LinearSettings(patch=4, width=256, shuffle=True)
    deep = NeuraCryptSettings(patch=4, width=256)
    ordered = NeuraCryptSettings(patch=4, width=256, shuffle=False)
    large = MMD(steps=steps, batch_size=512)
    mmd = replace(large, batch_size=256)
    bench.show(mmd, "the same", linear, images, images)
    bench.show(mmd, "other patients", linear, images[part], images[~part])
    bench.show(mmd, "phantoms, the same", linear, hidden, hidden)
    bench.show(mmd, "phantoms, other patients", linear, hidden, public)
    bench.show(replace(large, batch_size=n, lr=3e-2), "the same", shuffled, images, images)
    bench.show(large, "the same", deep, images, images)
    bench.show(large, "other patients", deep, images[part], images[~part])
    bench.show(large, "phantoms, other patients", deep, hidden, public)
    bench.show(mmd, "the same", ordered, images, images)


def pairs(bench: Bench, images: np.ndarray, steps: int) -> None:
    """Known pairs of a half, scored on the others; and the discriminator on the linear encoder."""
    deep = NeuraCryptSettings(patch=4, width=256)
    half_known = np.random.default_rng(0).permutation(len(images))[: len(images) // 2]
    known = np.column_stack([half_known, half_known])
    for share in (0.0, 0.125, 1.0):
        attack = Plaintext(steps=steps, share=share)
        bench.show(attack, f"pairs of {share:g} of a half", deep, images, images, known)
    bench.show(
        Discriminator(steps=steps), "the same", LinearSettings(patch=4, width=256), images, images
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="nih_cxr64: images.npz and metadata.csv")
    parser.add_argument("--part", choices=["matching", "pairs", "both"], default="both")
    parser.add_argument("--quick", action="store_true", help="60 images and 20 steps")
    arguments = parser.parse_args()
    images, patient = radiographs(arguments.folder)
    steps = 3000
    if arguments.quick:
        images, patient, steps = images[:60], patient[:60], 20
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(f"torch {torch.__version__}, {device}, {len(images)} images", file=sys.stderr)
    bench = Bench(device)
    if arguments.part != "pairs":
        matching(bench, images, patient, steps)
    if arguments.part != "matching":
        pairs(bench, images, steps)


if __name__ == "__main__":
    main()
