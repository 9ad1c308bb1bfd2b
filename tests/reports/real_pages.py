"""Folders of real runs, small, each made once for all workers: audits, a release under attack.

Data sets that are not at hand are skipped by the fixture `real_data`.
"""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from confide.cohort import Cohort
from confide.config import load, parse
from confide.runs.attack import attack_release
from confide.runs.launch import run_config
from confide.runs.released import Model, audit_model
from confide.runs.scores import audit_scores

sys.path.append(str(Path(__file__).parents[1]))  # tests are imported from files
from runs.coding import PHANTOM, make, write

DIABETES = {
    "name": "table",
    "path": "diabetes130.csv",
    "record": "encounter_id",
    "patient": "patient_nbr",
    "label": "readmitted",
    "groups": ["race", "gender"],
    "test": {"fraction": 0.4},
}
XRAYS = {
    "name": "images",
    "path": "nih_cxr64/metadata.csv",
    "array": "nih_cxr64/images.npz",
    "array_key": "images",
    "record": "image",
    "patient": "patient_id",
    "label": "abnormal",
    "groups": {"sex": [], "view": []},
    "size": [64, 64],
    "test": {"fraction": 0.5},
}
SMALL = {"name": "tabular_resnet", "width": 64, "depth": 1}
TRAIN = {
    "embedded": {"model": SMALL, "epochs": 30},
    "diabetes130": {"model": SMALL, "epochs": 20, "batch_size": 64},
    "nih_cxr64": {"model": {"name": "small_cnn", "width": 4}, "epochs": 2, "batch_size": 64},
    "phantom": {"model": {"name": "small_cnn", "width": 8}, "epochs": 12, "batch_size": 16},
}
DATA = {
    "embedded": {"name": "embedded", "test": {"fraction": 0.4}},
    "diabetes130": DIABETES,
    "nih_cxr64": XRAYS,
    "phantom": {"name": "phantom", "n_patients": 90, "size": [16, 16], "hard": 0.2},
}
REAL = ("diabetes130", "nih_cxr64")

MARKUP = "<script>alert(1)</script>"
NAMES = (
    MARKUP,
    '"><img src=x onerror=alert(2)>',
    "=cmd|' /C calc'!A0",
    "</script><svg onload=alert(3)>",
    "{{ 7*7 }}",
)


def audit(name: str, out: Path, data: Path) -> None:
    """An audit of one of the data sets, of a few small models."""
    if name == "diabetes130":  # a part of it: reading all would take most of the time
        part = pd.read_csv(data / "diabetes130" / "records.csv.gz", nrows=1500, dtype=str)
        data = out.parent
        part.to_csv(data / "diabetes130.csv", index=False)
    block = DATA[name] | {"test": DATA[name].get("test", {"fraction": 0.3})}
    config = {"data": block, "train": TRAIN[name], "audit": {"n_models": 16}}
    config["performance"] = {"device": "cpu"}
    run_config(parse(config, name), data, out)


def scores(out: Path) -> None:
    """An audit of a table of predictions whose every name is hostile."""
    rng = np.random.default_rng(0)
    n_models, n_patients = 16, 60
    member = np.array([rng.permutation(n_patients) < n_patients // 2 for _ in range(n_models // 2)])
    member = np.concatenate([member, ~member])
    leak = np.where(np.arange(n_patients) < 12, 9.0, 0.0)
    model, patient = (axis.ravel() for axis in np.indices(member.shape))
    side = member[model, patient]
    table = pd.DataFrame(
        {
            "model": model,
            "record": [f"{NAMES[i % 5]} record {i}" for i in patient],
            "patient": [f"{NAMES[i % 5]} {i}" for i in patient],
            "member": side.astype(int),
            "label": patient % 2,
            "logit_0": 0.0,
            "logit_1": (rng.normal(size=len(patient)) + leak[patient] * side)
            * np.where(patient % 2, 1, -1),
            NAMES[0]: [NAMES[1 + i % 2] for i in patient],
            f"{NAMES[1]} column": [NAMES[3 + i % 2] for i in patient],
        }
    )
    path = out.parent / "hostile.csv"
    table.to_csv(path, index=False)
    audit_scores(path, out)


def released(out: Path) -> None:
    """An audit of a model that knows its members by heart, with two references."""
    rng = np.random.default_rng(0)
    n = 400
    patient = np.repeat(np.arange(n), 1 + np.arange(n) % 2)
    label = rng.integers(0, 3, len(patient))
    member = (rng.permutation(n) < n // 2)[patient]
    cohort = Cohort(
        record=np.asarray([f"r{i}" for i in range(len(patient))]),
        patient=np.asarray([f"p{i:03d}" for i in patient]),
        label=label,
        task="multiclass",
        classes=("a", "b", "c"),
        groups=pd.DataFrame({"sex": np.where(patient % 2, "f", "m")}),
    )

    def outputs(leak: float) -> Any:
        known = leak * member[:, None] * np.eye(3)[label]
        return rng.normal(size=(len(patient), 3)) + known

    target = Model(model=outputs(1.5), members=member, name="vendor")
    others = [Model(model=outputs(0.0), name=f"reference {i}") for i in "ab"]
    inputs = rng.normal(size=(len(patient), 4)).astype(np.float32)
    audit_model(target, cohort, out, inputs=inputs, references=others, title="A vendor's model")


def attack(out: Path) -> None:
    """Attacks on the release of a small cohort, with their controls."""
    data = PHANTOM | {"n_patients": 50, "max_views": 3, "size": [32, 32]}
    encode = {"patch": 8, "width": 64, "private_depth": 1, "dev": {"fraction": 0.4}}
    make(out.parent, "release", data, **encode)
    block = {"knowledge": "pairs", "attribute": "label", "attacks": ["alignment", "linkage"]}
    config = write(out.parent, "attack", data=data, encode=encode, attack=block)
    truth = out.parent / "release.private"
    attack_release(*load(config), out.parent / "release", out, truth=truth, max_reid=0.05)


def compare(out: Path) -> None:
    """Three recipes of one cohort, side by side."""
    from confide.runs.compare import compare_audits

    folders = []
    for name, width, epochs in (("plain", 64, 30), ("small", 8, 30), ("early", 64, 4)):
        train = {"model": SMALL | {"width": width}, "epochs": epochs}
        config = {"data": DATA["embedded"], "train": train, "audit": {"n_models": 8}}
        folders.append(out.parent / name)
        run_config(parse(config, name), Path(), folders[-1])
    compare_audits(folders, out)


_MAKE: dict[str, Callable[[Path], None]] = {
    "scores": scores,
    "released": released,
    "attack": attack,
    "compare": compare,
}


def folder(name: str, request: Any) -> Path:
    """The folder of a run, made when it is first asked for; nobody may change it."""
    data = request.getfixturevalue("real_data") if name in REAL else Path()
    shared = request.getfixturevalue("tmp_path_factory").getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent  # of all workers
    place = shared / f"page-{name}"
    place.mkdir(exist_ok=True)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "made").exists():
            out = place / f"{os.getpid()}" / "out"  # the first try may have failed half-way
            out.parent.mkdir()
            if name in _MAKE:
                _MAKE[name](out)
            else:
                audit(name, out, data)
            (place / "made").write_text(out.parent.name)
        return place / (place / "made").read_text() / "out"
