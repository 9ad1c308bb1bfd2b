"""Time of a training step, models one by one against stacked.

Prints milliseconds a model-step: the median and the least over steps, warm-up steps apart, and
the peak memory of the process (CPU) or the device (CUDA).  Every line is measured in a process of
its own.

    python benchmarks/training.py --device cpu
    python benchmarks/training.py --cases tiny table --stacks 1 16 --malloc default kept
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

import results
from confide.training.settings import TrainSettings

# name: (train settings, shape of a record, records a model)
CASES = {
    "table": ({"model": {"width": 128, "depth": 3}}, (200,), 32_500),
    "tiny": ({"model": {"width": 128, "depth": 3}}, (30,), 228),
    "nature": ({}, (64,), 80_000),
    "small_cnn": ({"model": {"name": "small_cnn"}, "batch_size": 256}, (1, 28, 28), 4_000),
    "small_cnn_64": ({"model": {"name": "small_cnn"}, "batch_size": 64}, (1, 64, 64), 4_000),
    "wrn": ({"model": {"name": "wrn"}, "batch_size": 32}, (1, 64, 64), 4_000),
    "wrn_256": ({"model": {"name": "wrn"}, "batch_size": 256}, (1, 64, 64), 4_000),
}


def measure(
    case: str, stack: int, device: str, n_steps: int, kept: bool, threads: int, fuse: bool
) -> tuple[float, float, float]:
    """Median and least milliseconds a model-step, and peak memory in MiB."""
    import torch

    from confide.models import build
    from confide.training import loop
    from confide.training.allocator import keep_freed_memory
    from confide.training.forward import compiled, loss_function
    from confide.training.plan import Plan
    from confide.training.records import Records
    from confide.training.settings import Performance

    if threads:
        torch.set_num_threads(threads)
    if kept:
        keep_freed_memory()
    block, shape, n_members = CASES[case]
    settings = TrainSettings.model_validate(block)
    rng = np.random.default_rng(0)
    n_all = 2 * min(n_members, 10_000)
    inputs = rng.integers(0, 256, (n_all, *shape), dtype=np.uint8)
    if len(shape) == 1:
        inputs = rng.standard_normal((n_all, *shape)).astype(np.float32)
    where = torch.device(device)
    records = Records.on(where, inputs, rng.integers(0, 2, n_all), "binary", 2, n_all)
    network = build(settings.model, shape, 1)
    n_parameters = sum(p.numel() for p in network.parameters())
    performance = Performance(models_at_once=stack, compile=fuse)
    plan = Plan.of(settings, performance, device, shape, n_all / 2, n_parameters)
    settings = settings.model_copy(update={"epochs": -(-n_steps // plan.steps_per_epoch)})

    loss_of = loss_function(network, "binary", half=plan.half)
    if fuse:
        weights = {
            name: torch.zeros((stack, *w.shape), device=where, requires_grad=True)
            for name, w in network.named_parameters()
        }
        x = torch.zeros((stack, plan.batch, *shape), device=where)
        y = torch.zeros((stack, plan.batch), device=where, dtype=torch.int64)
        loss_of = compiled(loss_of, weights, x, y)
    stamps: list[float] = []

    def timed(weights, x, y):
        if device == "cuda":
            torch.cuda.synchronize()
        stamps.append(time.perf_counter())
        return loss_of(weights, x, y)

    members = [torch.arange(i, n_all, 2) for i in range(2)] * stack
    torch.set_float32_matmul_precision("high" if device == "cuda" else "highest")
    loop.train(network, timed, records, members[:stack], range(stack), settings, plan)
    steps = 1e3 * np.diff(stamps)[3:] / stack
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    if device == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**20
    return float(np.median(steps)), float(steps.min()), peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES)[:4])
    parser.add_argument("--stacks", nargs="+", type=int, default=[1, 4, 16])
    parser.add_argument("--steps", type=int, default=20, help="timed steps, at least")
    parser.add_argument("--malloc", nargs="+", choices=["default", "kept"], default=["kept"])
    parser.add_argument("--threads", type=int, default=0, help="0: torch's choice")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--out", type=Path, help="folder of the results")
    args = parser.parse_args()
    found = []
    print(f"{'case':14}{'stack':>6}{'freed':>9}{'median ms':>11}{'least ms':>10}{'peak MiB':>10}")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as pool:
        for case in args.cases:
            for malloc in args.malloc:
                for stack in args.stacks:
                    figures = pool.submit(
                        measure,
                        case,
                        stack,
                        args.device,
                        args.steps + 4,
                        malloc == "kept",
                        args.threads,
                        args.compile,
                    ).result()
                    median, least, peak = figures
                    one = {"case": case, "models at once": stack, "freed memory": malloc}
                    one |= {"ms": median, "least ms": least, "peak MiB": peak}
                    found.append(one)
                    print(
                        f"{case:14}{stack:6d}{malloc:>9}{median:11.2f}{least:10.2f}{peak:10.0f}",
                        flush=True,
                    )
    results.write("training", found, args.out)


if __name__ == "__main__":
    main()
