"""Time of a training step with differential privacy against a plain one.

Prints medians of milliseconds a model-step, warm-up apart, their ratio to the plain step, and peak
memory: of the process (CPU, with what it loaded) or of the device (CUDA).  Every line is measured
in a process of its own, the plain one eagerly and, with --compile, compiled too.

    python benchmarks/private.py --device cpu --stacks 1 4
    python benchmarks/private.py --device cuda --stacks 1 16 128 --compile
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np

N, FEATURES, PER_PATIENT = 40_000, 64, 1.4


def measure(
    unit: str, stack: int, device: str, n_steps: int, batch: int, fuse: bool
) -> tuple[float, float]:
    """Median milliseconds a model-step, and peak memory in MiB."""
    import torch

    from confide.training import TorchTrainer, TrainSettings, loop, private, step
    from confide.training.settings import Performance

    rng = np.random.default_rng(0)
    block = {"model": {"width": 300, "depth": 6}, "batch_size": batch, "epochs": 1}
    # Some patients have many records, as in a hospital.
    sizes = rng.geometric(1 / PER_PATIENT, N)
    patient = np.repeat(np.arange(N), sizes)[:N]
    trainer = TorchTrainer(
        rng.standard_normal((N, FEATURES)).astype(np.float32),
        rng.integers(0, 2, N),
        task="binary",
        n_classes=2,
        n_audited=N,
        expected_members=batch * n_steps,
        settings=TrainSettings.model_validate(block),
        performance=Performance(device=device, models_at_once=stack, compile=fuse),
    )
    members = [torch.from_numpy(np.sort(rng.permutation(N)[: batch * n_steps]))] * stack
    stamps: list[float] = []
    follow = step.follow

    def timed(*arguments):
        follow(*arguments)
        if device == "cuda":
            torch.cuda.synchronize()
        stamps.append(time.perf_counter())

    step.follow = private.follow = timed
    torch.set_float32_matmul_precision("high" if device == "cuda" else "highest")
    settings, plan = trainer._settings, trainer._plan
    if unit == "plain":
        loss_of = trainer._loss_of(stack)
        network, records = trainer._network, trainer._records
        loop.train(network, loss_of, records, members, range(stack), settings, plan)
    else:
        noise = private.Noise(
            clip=1.0,
            scale=1.0,
            rate=1 / n_steps,
            expected=batch,
            patient=patient if unit == "patient" else None,
        )
        private.train_private(
            trainer._network,
            trainer._records,
            members,
            range(stack),
            settings,
            plan,
            noise,
            tf32=device == "cuda",
        )
    steps = 1e3 * np.diff(stamps)[5:] / stack
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    if device == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**20
    return float(np.median(steps)), peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--stacks", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--compile", action="store_true", help="the plain step compiled too")
    args = parser.parse_args()
    print(f"{'unit':16}{'stack':>6}{'median ms':>11}{'ratio':>8}{'peak MiB':>10}")
    lines = [("plain", False), ("record", False), ("patient", False)]
    lines += [("plain", True)] * args.compile
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as pool:
        for stack in args.stacks:
            plain = 0.0
            for unit, fuse in lines:
                given = (unit, stack, args.device, args.steps, args.batch, fuse)
                median, peak = pool.submit(measure, *given).result()
                plain = plain or median
                name = f"{unit}, compiled" if fuse else unit
                ratio = median / plain
                print(f"{name:16}{stack:6d}{median:11.2f}{ratio:8.2f}{peak:10.0f}", flush=True)


if __name__ == "__main__":
    main()
