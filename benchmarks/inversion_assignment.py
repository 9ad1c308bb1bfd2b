"""The assignment attack at the size of Yala et al., and the solver beneath it.

A release of 256 x 256 images, patch 16, width 2048, of X-rays from a folder and of phantoms; prints
a line a figure and the same as JSON.  The codes are made here, with a key that the attack never
sees; their making is not in the time.

    python benchmarks/inversion_assignment.py
    python benchmarks/inversion_assignment.py --folder DATA --phantoms 250 500 1000 2000
    python benchmarks/inversion_assignment.py --folder DATA --images 60 --budget quick --phantoms

DATA holds cxr_open/images and, unless left out, cxr_nc/images.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from confide.datasets.phantom import Phantom
from confide.encoders.settings import NeuraCryptSettings
from confide.inversion.assign import assign
from confide.inversion.assignment import Assignment
from confide.inversion.base import Architecture, ArrayCodes, SameImages, Work
from confide.inversion.targets import encoded

SIDE = 256


def show(**figures: object) -> None:
    print("  ".join(f"{name} {value}" for name, value in figures.items()))
    print(json.dumps(figures), flush=True)


def x_rays(folder: Path) -> np.ndarray:
    from PIL import Image

    files = [
        file
        for name in ("cxr_open", "cxr_nc")
        if (folder / name).is_dir()
        for file in sorted((folder / name / "images").iterdir())
    ]
    size = (SIDE, SIDE)
    return np.stack(
        [np.asarray(Image.open(file).convert("L").resize(size, Image.BILINEAR)) for file in files]
    )[:, None]


def phantoms(n: int) -> np.ndarray:
    return Phantom(n_patients=n, max_views=1, size=(SIDE, SIDE), seed=3).load().inputs


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    x = rng.standard_normal(shape, dtype=np.float32)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def solver(n_problems: int) -> None:
    """Many problems of 256 x 256, and one of 2,000 x 2,000, against scipy one by one."""
    rng = np.random.default_rng(0)
    rows = unit(rng, n_problems, 256, 8)
    unrelated = -rows @ unit(rng, n_problems, 256, 8).transpose(0, 2, 1)
    noise = 0.5 * rng.standard_normal(rows.shape, dtype=np.float32)
    related = -rows @ (rows + noise).transpose(0, 2, 1)
    one = unit(rng, 1, 2000, 32)
    large = -one @ (one + 2 * unit(rng, 1, 2000, 32)).transpose(0, 2, 1)
    problems = {"unrelated": unrelated, "related": related, "one large": large}
    for name, costs in problems.items():
        start = time.perf_counter()
        plain = np.stack([linear_sum_assignment(cost)[1] for cost in costs])
        middle = time.perf_counter()
        found = assign(costs)
        end = time.perf_counter()
        exact = costs.astype(np.float64)
        sums = [
            np.take_along_axis(exact, columns[:, :, None], axis=2).sum()
            for columns in (plain, found)
        ]
        show(
            solver=name,
            n_problems=len(costs),
            size=costs.shape[1],
            threads=torch.get_num_threads(),
            scipy_ms=round(1e3 * (middle - start) / len(costs), 2),
            ours_ms=round(1e3 * (end - middle) / len(costs), 2),
            cost_above_least=float(sums[1] - sums[0]),
        )


def attacked(name: str, hidden: np.ndarray, depth: int, arguments: argparse.Namespace) -> None:
    """Release records, attack, and compare with the truth."""
    device = torch.device(arguments.device)
    settings = NeuraCryptSettings(width=arguments.width, private_depth=depth)
    architecture = Architecture(settings=settings, shape=hidden.shape[1:])
    codes = encoded(architecture, hidden, 1, device=device)
    order = np.random.default_rng(7).permutation(len(hidden))
    plaintexts = np.empty_like(hidden)
    plaintexts[order] = hidden
    _, kind = np.unique(plaintexts.reshape(len(hidden), -1), axis=0, return_inverse=True)
    attack = Assignment.of(arguments.budget)
    if arguments.extractions is not None:
        attack = replace(attack, extractions=arguments.extractions)
    known = SameImages(architecture=architecture, codes=ArrayCodes(codes), plaintexts=plaintexts)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    found = attack(known, Work(seed=3, device=device))
    seconds = time.perf_counter() - start
    right = found.assigned == order
    memory = torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
    show(
        images=name,
        n=len(hidden),
        width=arguments.width,
        private_depth=depth,
        budget=arguments.budget,
        extractions=attack.extractions,
        reidentified=round(float(right.mean()), 4),
        up_to_identical=round(float((kind[found.assigned] == kind[order]).mean()), 4),
        first_rank=round(float((found.similarity.argmax(axis=1) == order).mean()), 4),
        seconds=round(seconds, 1),
        device=device.type,
        device_gib=round(memory / 2**30, 2),
        host_gib=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        notes=list(found.notes),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="of X-rays")
    parser.add_argument("--images", type=int, help="X-rays at most; all by default")
    parser.add_argument("--phantoms", type=int, nargs="*", default=[250, 500, 1000, 2000])
    parser.add_argument("--depths", type=int, nargs="*", default=[4])
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--budget", choices=["quick", "standard", "paper"], default="standard")
    parser.add_argument("--extractions", type=int, help="instead of those of the budget")
    parser.add_argument("--problems", type=int, default=200, help="for the solver")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    solver(arguments.problems)
    for depth in arguments.depths:
        if arguments.folder:
            hidden = x_rays(arguments.folder)
            chosen = np.random.default_rng(0).permutation(len(hidden))[: arguments.images]
            attacked("x-rays", hidden[chosen], depth, arguments)
        for n in arguments.phantoms:
            attacked("phantoms", phantoms(n), depth, arguments)


if __name__ == "__main__":
    main()
