"""Whether the fast training steps of a CUDA device change what is measured, on real images.

Audits the same patients with the same members and seeds twice: with recorded steps, own kernels and
bfloat16, and plainly (as written, TensorFloat32).  Prints both, their differences
with paired intervals, and writes results/equivalence.json.

    CONFIDE_DATA=FOLDER python benchmarks/equivalence.py examples/ham10000.yaml --models 16
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import confide
import results
from confide.config import load
from confide.models import layers, wrn
from confide.runs.launch import study_of

PLAIN = {"compiles": False, "replays": False, "half": False}


def arm(config: Any, folder: Path, out: Path, changes: dict[str, bool]) -> dict[str, Any]:
    """Train and analyse; the seconds of training, and the areas, accuracy and patients found."""
    study = study_of(config, folder)
    trainer: Any = study.trainer
    trainer._plan = dataclasses.replace(trainer._plan, **changes)
    if changes is PLAIN:
        layers.fuses = wrn.fuses = lambda x: False
    start = time.perf_counter()
    study.train(out)
    took = time.perf_counter() - start
    confide.analyse(out)
    summary = json.loads((out / "summary.json").read_text())
    keys = ("auc", "auc_low", "auc_high")
    return {
        "seconds": took,
        "attacks": {n: {k: one[k] for k in keys} for n, one in summary["attacks"].items()},
        "utility": {k: v for k, v in summary["utility"]["overall"].items() if k != "withheld"},
        "at risk": summary["patients"].get("n_at_risk"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--models", type=int, default=16)
    parser.add_argument("--epochs", type=int, help="instead of those of the configuration")
    parser.add_argument("--augment", help="instead of that of the configuration")
    parser.add_argument("--out", type=Path, help="folder of the results")
    a = parser.parse_args()
    config, folder = load(a.config)
    changes = {"epochs": a.epochs, "augment": a.augment}
    train = config.train.model_copy(update={k: v for k, v in changes.items() if v is not None})
    audit = config.audit.model_copy(update={"n_models": a.models})
    config = config.model_copy(update={"train": train, "audit": audit})
    with tempfile.TemporaryDirectory() as scratch:
        outs = [Path(scratch) / name for name in ("fast", "plain")]
        found: dict[str, Any] = {"train": train.model_dump(mode="json"), "models": a.models}
        for out, way in zip(outs, ({"half": True}, PLAIN), strict=True):
            found[out.name] = arm(config, folder, out, way)
            print(out.name, json.dumps(found[out.name]), flush=True)
        found["compared"] = confide.compare_audits(outs).summary
    print(json.dumps(found["compared"])[:6000])
    results.write("equivalence", found, a.out)


if __name__ == "__main__":
    main()
