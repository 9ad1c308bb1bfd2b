"""Training on a CUDA device: ours against plain loops and, where installed, Keras on JAX.

Prints medians of milliseconds a model-step, warm-up apart, with their ratio to ours, and seconds of
whole models; writes them to results/gpu.json.  Data are drawn; steps take augmentation, the
optimizer and the weight average with them, those of Keras no augmentation.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --parts steps whole --cases wrn
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import results
from confide.models import layers, wrn
from confide.training import TorchTrainer, TrainSettings
from confide.training.device import tensor_float32
from confide.training.loop import Dice, drawn
from confide.training.regularise import Chances
from confide.training.settings import Performance

FUSES = layers.fuses
WRN = {
    "model": {"name": "wrn"},
    "batch_size": 256,
    "optimizer": {"name": "sgd", "lr": 0.005, "weight_decay": 1e-4},
    "ema": 0.99,
    "augment": "medium",
}
# name: (train settings, shape of a record, steps an epoch, models at once)
CASES: dict[str, tuple[dict[str, Any], tuple[int, ...], int, tuple[int, ...]]] = {
    "wrn": (WRN, (3, 64, 64), 25, (1,)),
    "table": ({"batch_size": 512}, (64,), 50, (1, 16, 128)),
    "small_cnn": ({"model": {"name": "small_cnn"}, "batch_size": 256}, (1, 28, 28), 25, (1, 32)),
}
# How a step is taken: what differs from the plan; with kernels of our own where it is ours.
WAYS: dict[str, dict[str, bool]] = {
    "ours": {},
    "ours, bfloat16": {"half": True},
    "as written, TensorFloat32": {"compiles": False, "replays": False, "half": False},
    "torch.compile, TensorFloat32": {"compiles": True, "replays": False, "half": False},
    "torch.compile, bfloat16": {"compiles": True, "replays": False, "half": True},
}


def trainer_of(
    block: dict[str, Any], shape: tuple[int, ...], n: int, members: int, at_once: int
) -> TorchTrainer:
    """Of drawn records, two classes."""
    rng = np.random.default_rng(0)
    if len(shape) == 1:
        inputs: Any = rng.standard_normal((n, *shape), dtype=np.float32)
    else:
        inputs = rng.integers(0, 256, (n, *shape), dtype=np.uint8)
    return TorchTrainer(
        inputs,
        rng.integers(0, 2, n),
        task="binary",
        n_classes=2,
        n_audited=n,
        expected_members=members,
        settings=TrainSettings.model_validate(block),
        performance=Performance(device="cuda", models_at_once=at_once),
    )


def step_time(case: str, at_once: int, name: str) -> dict[str, float]:
    """Milliseconds a model-step, and seconds until the first one ended."""
    block, shape, n_steps, _ = CASES[case]
    members = n_steps * int(block["batch_size"])
    epochs = -(-2000 // n_steps)  # as many steps as make a plan compile
    trainer = trainer_of(block | {"epochs": epochs}, shape, 2 * members, members, at_once)
    trainer._plan = dataclasses.replace(trainer._plan, **WAYS[name])
    layers.fuses = wrn.fuses = FUSES if name.startswith("ours") else lambda x: False
    plan, settings = trainer._plan, trainer._settings
    torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    with tensor_float32(True):
        step = trainer._step_of(at_once)
        step.begin(drawn(trainer._network, [Dice.of(i) for i in range(at_once)]))
        rows = torch.randint(2 * members, (at_once, n_steps, plan.batch))
        chance = None
        if settings.augment != "none":
            chance = torch.rand((*rows.shape, 6))
        draws = Chances(settings, [], [], (plan.batch, 0), torch.device("cuda"))
        took = []
        for epoch in range(8):
            torch.cuda.synchronize()
            start = time.perf_counter()
            step.epoch(rows, chance, draws)
            torch.cuda.synchronize()
            took.append((time.perf_counter() - start) / n_steps / at_once)
            if epoch == 0:
                ready = time.perf_counter() - began
    return {
        "ms": 1e3 * statistics.median(took[2:]),
        "least ms": 1e3 * min(took[2:]),
        "seconds to begin": ready,
        "peak GiB": torch.cuda.max_memory_allocated() / 2**30,
    }


def steps(cases: list[str]) -> list[dict[str, Any]]:
    """All ways for all cases."""
    found: list[dict[str, Any]] = []
    for case in cases:
        for at_once in CASES[case][3]:
            ours = 0.0
            for name in WAYS:
                one = {"case": case, "models at once": at_once, "way": name}
                one |= step_time(case, at_once, name)
                ours = ours or one["ms"]
                one["times ours"] = one["ms"] / ours
                found.append(one)
                print(
                    f"{case:10} x{at_once:<4} {name:30} {one['ms']:8.3f} ms  "
                    f"{one['times ours']:5.2f} x  begins in {one['seconds to begin']:5.1f} s  "
                    f"{one['peak GiB']:5.1f} GiB",
                    flush=True,
                )
    return found


def whole() -> dict[str, float]:
    """A model of about the size of the published one for Fitzpatrick17k, in bfloat16."""
    layers.fuses = wrn.fuses = FUSES
    block = WRN | {"epochs": 100, "views": 16}
    trainer = trainer_of(block, (3, 64, 64), 13_000, 6_605, 1)
    trainer._plan = dataclasses.replace(trainer._plan, half=True)
    rng = np.random.default_rng(0)
    took = []
    for seed in range(2):
        members = np.zeros((1, 13_000), dtype=bool)
        members[0, rng.permutation(13_000)[:6_605]] = True
        start = time.perf_counter()
        trainer.fit(members, [seed])
        took.append(time.perf_counter() - start)
        print(f"whole model {seed}: {took[-1]:.1f} s", flush=True)
    return {"steps": trainer._plan.steps, "first s": took[0], "next s": took[1]}


def peer() -> dict[str, Any]:
    """What benchmarks/gpu_keras.py measured, in a process of its own; nothing without Keras."""
    script = Path(__file__).with_name("gpu_keras.py")
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False
    )
    print(done.stdout or done.stderr[-2000:], flush=True)
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--parts", nargs="+", default=["steps", "whole", "peer"], choices=["steps", "whole", "peer"]
    )
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--out", type=Path, help="folder of the results")
    a = parser.parse_args()
    found: dict[str, Any] = {}
    if "peer" in a.parts:
        found["peer"] = peer()
    if "steps" in a.parts:
        found["steps"] = steps(a.cases)
    if "whole" in a.parts:
        found["whole"] = whole()
    results.write("gpu", found, a.out)


if __name__ == "__main__":
    main()
