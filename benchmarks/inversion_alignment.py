"""Success and time of the attacks by alignment, on chest radiographs and on phantoms.

Prints a line a setting: images, width, hidden layers; seconds by the clock and of the processors;
share of codes assigned to their image (images equal in all pixels count as one), share at first
rank.  For the unpaired attack: correlation of the maps with the expected ones, linkage, and share
of the positions whose energies agree best with those of the right patch.

    python benchmarks/inversion_alignment.py FOLDER
    python benchmarks/inversion_alignment.py FOLDER --only open
    python benchmarks/inversion_alignment.py FOLDER --only phantom --phantoms 5000

FOLDER has cxr_open/, cxr_nc/ and nih_cxr64/, each with a metadata.csv; codes are kept in memory, or
on disk in a temporary folder for phantoms.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import confide.training  # noqa: F401
from confide.datasets.phantom import Phantom
from confide.datasets.pixels import open_files
from confide.encoders.settings import NeuraCryptSettings
from confide.inversion.alignment import Alignment
from confide.inversion.assign import assign
from confide.inversion.base import Architecture, ArrayCodes, SameImages, Unpaired, Work
from confide.inversion.maps import UnpairedAlignment
from confide.inversion.statistics import standardised
from confide.inversion.targets import encoded


@dataclass(frozen=True)
class DiskCodes:
    """Codes in a file of numbers."""

    values: np.memmap

    @property
    def n_records(self):
        return len(self.values)

    @property
    def shape(self):
        return self.values.shape[1:]

    def codes(self, rows):
        return np.array(self.values[rows])


class Clock:
    """Seconds by the clock and of the processors since it was made."""

    def __init__(self):
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def __str__(self):
        wall, cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu
        return f"{wall:7.1f} s, {cpu:7.1f} s of processors"


def radiographs(folder, *names):
    parts = []
    for name in names:
        files = pd.read_csv(folder / name / "metadata.csv").image
        pictures = open_files([folder / name / "images" / file for file in files], (256, 256), 1)
        parts.append(pictures.read(np.arange(len(files))))
    return np.concatenate(parts)


def same_images(name, records, width, private_depth, attack, device, on_disk=None, made_on=None):
    settings = NeuraCryptSettings(
        patch=records.shape[-1] // 16, width=width, private_depth=private_depth
    )
    architecture = Architecture(settings=settings, shape=records.shape[1:])
    if on_disk is None:
        codes = ArrayCodes(encoded(architecture, records, 1, device=device))
    else:
        codes = DiskCodes(written(architecture, records, on_disk, made_on or device))
    order = np.random.default_rng(2).permutation(len(records))
    plaintexts = np.empty_like(records)
    plaintexts[order] = records
    clock = Clock()
    known = SameImages(architecture=architecture, codes=codes, plaintexts=plaintexts)
    finding = attack(known, Work(seed=3, device=device))
    took = str(clock)
    _, which = np.unique(records.reshape(len(records), -1), axis=0, return_inverse=True)
    group = np.empty_like(which)
    group[order] = which
    right = (group[finding.assigned] == which).mean()
    first = (group[finding.similarity.argmax(axis=1)] == which).mean()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{name:16s} n {len(records):5d}  width {width:5d}  depth {private_depth:3d}  {took}  "
        f"right {right:.4f}  first rank {first:.4f}  peak {memory:.1f} GiB so far",
        flush=True,
    )


def written(architecture, records, folder, device):
    """Codes of records in a file, some at a time, each with rows in an order of its own."""
    shape = (len(records), architecture.n_patches, architecture.settings.width)
    out = np.memmap(Path(folder) / "codes", dtype=np.float32, mode="w+", shape=shape)
    encoder = architecture.shadow(records[:256], 11, device=device)
    rng = np.random.default_rng(12)
    for start in range(0, len(records), 64):
        codes = encoder(records[start : start + 64])
        for code in codes:
            rng.shuffle(code)
        out[start : start + 64] = codes
    return out


def unpaired(folder, width, private_depth, attack, device, seed):
    images = np.load(folder / "nih_cxr64" / "images.npz")["images"][:, None]
    patient = pd.read_csv(folder / "nih_cxr64" / "metadata.csv").patient_id.to_numpy()
    people = np.random.default_rng(seed).permutation(np.unique(patient))
    is_hidden = np.isin(patient, people[::2])
    hidden, public = images[is_hidden], images[~is_hidden]
    settings = NeuraCryptSettings(patch=4, width=width, private_depth=private_depth)
    architecture = Architecture(settings=settings, shape=images.shape[1:])
    codes = ArrayCodes(encoded(architecture, hidden, seed, device=device))
    clock = Clock()
    known = Unpaired(architecture=architecture, codes=codes, plaintexts=public)
    finding = attack(known, Work(seed=3, device=device))
    took = str(clock)
    ours, theirs = standardised(finding.maps), standardised(finding.expected(hidden))
    distance = (
        (ours**2).sum(axis=1)[:, None] + (theirs**2).sum(axis=1) - 2 * ours @ theirs.T
    ) / ours.shape[1]
    beyond = [m - m.mean(axis=0) for m in (finding.maps, finding.expected(hidden))]
    alike = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(*beyond, strict=True)])
    own = np.arange(len(hidden))
    positions = np.arange(ours.shape[1])
    print(
        f"{'unpaired nih':16s} n {len(hidden)} + {len(public)}  width {width:5d}  depth "
        f"{private_depth:3d}  {took}  maps {alike:.3f}  first rank "
        f"{(distance.argmin(axis=1) == own).mean():.3f}  assigned "
        f"{(assign(distance) == own).mean():.3f}  positions "
        f"{(assign(-ours.T @ theirs) == positions).mean():.3f}",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", choices=("open", "all", "few", "unpaired", "phantom"))
    parser.add_argument("--depths", type=int, nargs="+", default=[0, 4])
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--phantoms", type=int, default=1000)
    parser.add_argument("--budget", default="quick")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--made-on", help="device that phantoms are encoded on, outside the time")
    args = parser.parse_args()
    device = torch.device(args.device)
    attack = Alignment.of(args.budget)
    real = None if args.only == "phantom" else radiographs(args.folder, "cxr_open", "cxr_nc")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {device}", flush=True)
    for depth in args.depths:
        if args.only in (None, "few"):
            same_images("60 of cxr_open", real[:192:3][:60], 1024, depth, attack, device)
        if args.only in (None, "open"):
            same_images("cxr_open", real[:192], args.width, depth, attack, device)
        if args.only in (None, "all"):
            same_images("cxr_open, cxr_nc", real, args.width, depth, attack, device)
        if args.only in (None, "unpaired"):
            for seed in (1, 2):
                maps = UnpairedAlignment.of(args.budget)
                unpaired(args.folder, min(args.width, 1024), depth, maps, device, seed)
    if args.only in (None, "phantom"):
        data = Phantom(n_patients=args.phantoms, max_views=1, size=(256, 256)).load()
        with tempfile.TemporaryDirectory() as folder:
            same_images("phantom", data.inputs, args.width, 4, attack, device, folder, args.made_on)


if __name__ == "__main__":
    main()
