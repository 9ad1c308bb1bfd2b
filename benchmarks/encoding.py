"""Time and memory of encoding at the size of Yala et al.: 256 x 256, patch 16, width 2048, depth 4.

Prints a line a figure: what was measured, beside what it is measured against, and the ratio.
Medians over repetitions, warm-up apart; what is compared takes turns, so that a busy machine slows
both.

    python benchmarks/encoding.py
    python benchmarks/encoding.py --quick
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import results
from confide.encoders.base import Encoder, build, random_orders, reordered
from confide.encoders.derive import Chance
from confide.encoders.key import Key
from confide.encoders.settings import NeuraCryptSettings
from confide.training.allocator import keep_freed_memory
from confide.training.device import tensor_float32

SHAPE = (1, 256, 256)
P, C, N_INPUTS, DEPTH = 256, 2048, 256, 4
KEY = Key(bytes(range(32)))


def seconds(*works: Callable[[], object], repeat: int, cuda: bool = False) -> list[float]:
    """Median seconds of each piece of work, in turn."""
    found: list[list[float]] = [[] for _ in works]
    for turn in range(repeat + 1):
        for work, mine in zip(works, found, strict=True):
            start = time.perf_counter()
            work()
            if cuda:
                torch.cuda.synchronize()
            if turn:
                mine.append(time.perf_counter() - start)
    return [float(np.median(mine)) for mine in found]


FOUND: list[dict[str, object]] = []


def show(what: str, ms: float, against: str, other: float, ratio: str) -> None:
    FOUND.append(
        {"what": what, "ms": 1e3 * ms, "against": against, "its ms": 1e3 * other, "ratio": ratio}
    )
    print(
        f"{what:42s}{1e3 * ms:10.2f} ms  {against:34s}{1e3 * other:10.2f} ms  {ratio}", flush=True
    )


def encoder_of(**where: object) -> Encoder:
    encoder = build(NeuraCryptSettings(), SHAPE, KEY, **where)
    encoder.calibrate(images(4))
    return encoder


def images(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, *SHAPE), dtype=np.uint8)


def double_loop(codes: torch.Tensor) -> torch.Tensor:
    """Row by row, as the authors' code shuffles."""
    out = torch.zeros_like(codes)
    for i in range(len(codes)):
        for j, k in enumerate(torch.randperm(codes.shape[1], device=codes.device)):
            out[i, j] = codes[i, k]
    return out


def shuffling(device: str, repeat: int) -> None:
    """Row shuffles of 32 codes against the double loop, and what a shuffle costs an encoder."""
    device_ = torch.device(device)
    codes = torch.randn(32, P, C, device=device)
    patches = torch.randn(32, P, N_INPUTS, device=device)
    embedding = torch.randn(P, C, device=device)
    h, spare = torch.randn(2, 8 * P, C, device=device)
    chance = Chance()

    def as_encoders_do() -> None:
        """Order the patches, and look up the embedding of each row's position."""
        order = random_orders(32, P, chance, device_)
        reordered(patches, order)
        for rows in order.view(4, -1):
            h.add_(torch.index_select(embedding, 0, rows, out=spare))

    def unshuffled() -> None:
        for _ in range(4):
            h.view(8, P, C).add_(embedding)

    found = seconds(
        lambda: double_loop(codes),
        lambda: reordered(codes, random_orders(32, P, chance, device_)),
        lambda: codes.clone(),
        as_encoders_do,
        unshuffled,
        repeat=repeat,
        cuda=device == "cuda",
    )
    loop, fast, copy, ordered, plain = found
    show(f"shuffle 32 codes, {device}", fast, "double loop", loop, f"{loop / fast:.1f}x as fast")
    show("", fast, "one copy of the codes", copy, f"{fast / copy:.2f} of it")
    cost = max(ordered - plain, 1e-6)
    show("the shuffle inside an encoder", cost, "double loop", loop, f"{loop / cost:.1f}x as fast")


def products(n: int, device: str, dtype: torch.dtype) -> Callable[[], object]:
    """The matrix products of an encoding of n records, and nothing else."""
    x = torch.randn(n * P, N_INPUTS, device=device, dtype=dtype)
    first = torch.randn(C, N_INPUTS, device=device, dtype=dtype).t()
    weight = torch.randn(C, C, device=device, dtype=dtype).t() / C**0.5
    h, out = torch.empty(2, n * P, C, device=device, dtype=dtype)

    def work() -> None:
        torch.mm(x, first, out=h)
        for _ in range(DEPTH + 1):
            torch.mm(h, weight, out=out)

    return work


def encoding_on_cpu(n: int, repeat: int) -> None:
    encoder, chance, x = encoder_of(), Chance(), images(n)
    with torch.no_grad():
        whole, bare = seconds(
            lambda: encoder.encode(x, chance=chance),
            products(n, "cpu", torch.float32),
            repeat=repeat,
        )
    show(f"encode {n} records, CPU", whole, "their products", bare, f"{whole / bare:.2f} of them")


def encoding_on_gpu(repeat: int) -> None:
    """Batches of 128 against the arithmetic floor, at the speed of a product of 8192^3."""
    flops = 2 * 128 * P * C * (N_INPUTS + (DEPTH + 1) * C)
    chance, x = Chance(), images(128)
    cases = [
        ("bfloat16", torch.bfloat16, False),
        ("float32", torch.float32, False),
        ("float32", torch.float32, True),
    ]
    for precision, dtype, tf32 in cases:
        with tensor_float32(tf32), torch.no_grad():
            encoder = encoder_of(device="cuda", precision=precision)
            a, b, out = torch.randn(3, 8192, 8192, device="cuda", dtype=dtype)

            def stream(encoder: Encoder = encoder) -> None:
                for _ in range(10):
                    encoder.encode(x, chance=chance)

            one, ten, product, bare = seconds(
                lambda: encoder.encode(x, chance=chance),  # noqa: B023
                stream,
                lambda: torch.mm(a, b, out=out),  # noqa: B023
                products(128, "cuda", dtype),
                repeat=repeat,
                cuda=True,
            )
            rate = 2 * 8192**3 / product
            floor = flops / rate
            name = "TensorFloat32" if tf32 else precision
            print(f"{name}: {rate / 1e12:.0f} TFLOP/s in a product of 8192^3")
            show("  one batch of 128", one, "arithmetic floor", floor, f"{floor / one:.2f} of it")
            show("  ... in a row", ten / 10, "arithmetic floor", floor, f"{10 * floor / ten:.2f}")
            show("  ... in a row", ten / 10, "its products", bare, f"{ten / 10 / bare:.2f} of them")


def agreement() -> None:
    """Codes of a GPU against those of the CPU, in float32."""
    settings = NeuraCryptSettings(shuffle=False)
    x, codes = images(8), []
    calibration = encoder_of().calibration
    assert calibration is not None
    with tensor_float32(False):
        for device in ("cpu", "cuda"):
            encoder = build(settings, SHAPE, KEY, device=device)
            encoder.use(calibration)
            codes.append(encoder(x))
    largest = np.abs(codes[1] - codes[0]).max() / np.abs(codes[0]).max()
    print(f"GPU against CPU, float32: largest difference {largest:.1e} of the largest value")


def memory(n_records: int, norm: str = "frozen") -> None:
    """Peak memory of `confide encode run` on phantom images, on two cores."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "encode.yaml").write_text(
            f"data: {{name: phantom, n_patients: {n_records}, max_views: 1, size: [256, 256]}}\n"
            f"encode: {{name: neuracrypt, norm: {norm}, dtype: float16}}\n"
        )
        confide = [sys.executable, "-m", "confide"]
        key, release = folder / "site.key", folder / "release"
        subprocess.run([*confide, "key", "new", key], check=True, capture_output=True)
        command = ["encode", "run", folder / "encode.yaml", "--key", key, "--out", release]
        start = time.perf_counter()
        subprocess.run([*confide, *map(str, command)], check=True, capture_output=True)
        wall = time.perf_counter() - start
        n_bytes = sum(file.stat().st_size for file in release.rglob("*") if file.is_file())
        disk = writing(folder / "plain", n_bytes)
    # Of the largest child so far: call with rising numbers of records.
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(
        f"encode run, {n_records} records, {norm}: peak {peak:.2f} GiB, {wall:.0f} s for "
        f"{n_bytes / 1e6:.0f} MB, which the disk takes in {disk:.1f} s "
        f"({n_bytes / disk / 1e6:.0f} MB/s)",
        flush=True,
    )


def writing(path: Path, n_bytes: int) -> float:
    """Seconds to write and sync a file of as many random bytes."""
    block = np.random.default_rng(0).bytes(2**24)
    start = time.perf_counter()
    with path.open("wb") as file:
        for i in range(0, n_bytes, len(block)):
            file.write(block[: n_bytes - i])
        file.flush()
        os.fsync(file.fileno())
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="without the runs from end to end")
    parser.add_argument("--records", type=int, default=16, help="a batch on the CPU")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--out", type=Path, help="folder of the results")
    parser.add_argument("--threads", type=int, default=0, help="0: torch's choice")
    a = parser.parse_args()
    if a.threads:
        torch.set_num_threads(a.threads)
    keep_freed_memory()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    shuffling("cpu", a.repeat)
    encoding_on_cpu(a.records, a.repeat)
    if torch.cuda.is_available():
        print(torch.cuda.get_device_name())
        shuffling("cuda", a.repeat)
        encoding_on_gpu(4 * a.repeat)
        agreement()
    if not a.quick:
        for n_records in (200, 800):
            memory(n_records)
    results.write("encoding", FOUND, a.out)


if __name__ == "__main__":
    main()
