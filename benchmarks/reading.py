"""Time to read images, as a multiple of what the decoder alone needs, and the memory.

Chest radiographs as JPEG files of 390 x 320 pixels, as the small version of CheXpert has them, in a
temporary folder: real ones from the folder in the variable CONFIDE_DATA where there are any, else
drawings.  Each is read, checked and resized to 64 x 64.  "decoder" is Pillow alone, which opens and
decodes the same files in as many threads; "with resizing" adds Pillow's resizing of the whole
image.  The ways take turns, and the median of the ratios is given.

    python benchmarks/reading.py --images 2000 --rounds 5
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from confide.datasets.phantom import Phantom
from confide.datasets.pixels import open_files

SIZE, SHAPE = (64, 64), (390, 320)


def sources() -> tuple[str, list[Image.Image]]:
    """What the images are made of."""
    folder = Path(os.environ.get("CONFIDE_DATA", "")) / "cxr_open" / "images"
    if "CONFIDE_DATA" in os.environ and folder.is_dir():
        found = []
        for path in sorted(folder.iterdir()):
            with Image.open(path) as image:
                found.append(image.convert("L").resize(SHAPE))
        return "real", found
    drawn = Phantom(n_patients=100, size=SIZE).load().inputs[:, 0]
    return "drawn", [Image.fromarray(one).resize(SHAPE) for one in drawn]


def write(folder: Path, n: int) -> tuple[str, list[Path]]:
    """JPEG files, no two alike."""
    kind, images = sources()
    rng = np.random.default_rng(0)
    paths = []
    for i in range(n):
        pixels = np.asarray(images[i % len(images)], dtype=np.int16) + rng.integers(-20, 21)
        paths.append(folder / f"{i:06}.jpg")
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(paths[-1], quality=90)
    return kind, paths


def decode(path: Path) -> None:
    with Image.open(path, formats=("JPEG",)) as image:
        image.load()


def decode_and_resize(path: Path) -> None:
    with Image.open(path, formats=("JPEG",)) as image:
        np.asarray(image.resize(SIZE, Image.Resampling.BILINEAR))


def threaded(function: Callable[[Path], None], paths: list[Path]) -> Callable[[], None]:
    """On all cores, 32 files a task: tasks of one file each take a tenth longer."""

    def some(start: int) -> None:
        for path in paths[start : start + 32]:
            function(path)

    def run() -> None:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(some, range(0, len(paths), 32)))

    return run


def seconds(function: Callable[[], object]) -> float:
    begun = time.perf_counter()
    function()
    return time.perf_counter() - begun


def peak() -> float:
    """MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        kind, paths = write(folder, given.images)
        rows = np.arange(len(paths))
        size = sum(path.stat().st_size for path in paths) / len(paths)
        print(f"{len(paths):,} {kind} images of {size:,.0f} bytes, {os.cpu_count()} cores")
        before = peak()
        ways: dict[str, Callable[[], object]] = {
            "decoder": threaded(decode, paths),
            "with resizing": threaded(decode_and_resize, paths),
            "confide": lambda: open_files(paths, SIZE).read(rows),
        }
        times = {way: [] for way in ways}
        for _ in range(given.rounds):
            for way, function in ways.items():
                times[way].append(seconds(function))
        for way in ways:
            ratio = np.median(np.divide(times[way], times["decoder"]))
            each = np.median(times[way]) / len(paths) * 1e6
            print(f"{way:15} {each:6.0f} us an image, {ratio:.2f} of the decoder")
        cache = folder / "cache"
        first = seconds(lambda: open_files(paths, SIZE, cache=cache).read(rows))
        again = [
            seconds(lambda: open_files(paths, SIZE, cache=cache).read(rows))
            for _ in range(given.rounds)
        ]
        alone = np.median(times["decoder"])
        print(
            f"{'cache, filled':15} {first / len(paths) * 1e6:6.0f} us an image, "
            f"{first / alone:.2f} of the decoder"
        )
        print(
            f"{'cache, used':15} {np.median(again) / len(paths) * 1e6:6.0f} us an image, "
            f"{np.median(again) / alone:.3f} of the decoder"
        )
        result = len(paths) * SIZE[0] * SIZE[1] / 2**20
        print(f"memory grew by {peak() - before:,.0f} MiB, the result takes {result:,.0f}")


if __name__ == "__main__":
    main()
