"""What the analysis of an audit costs, by the number of models, records and patients.

Writes audit folders of drawn logits (two classes, one view, 20,000 held-out records), analyses each
as the command line does, in a process of its own, and prints seconds and peak memory; writes
results/analysis.json.

    python benchmarks/cost.py
    python benchmarks/cost.py --sizes 200x1000000x300000 --scratch /tmp
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import shutil
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import results
from analysis import write_folder

SIZES = ["16x20000x6000", "64x20000x6000", "64x20000x18000", "64x80000x24000", "256x80000x24000"]


def analysed(out: Path) -> tuple[float, float]:
    """Seconds and peak GiB of the analysis of a folder."""
    from confide.runs import analyse

    start = time.perf_counter()
    analyse(out)
    took = time.perf_counter() - start
    return took, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=SIZES, help="MODELSxRECORDSxPATIENTS")
    parser.add_argument("--scratch", type=Path, help="where the audit folders are written")
    parser.add_argument("--out", type=Path, help="folder of the results")
    a = parser.parse_args()
    found = []
    context = multiprocessing.get_context("spawn")
    print(f"{'models':>7}{'records':>11}{'patients':>10}{'seconds':>9}{'GiB':>6}")
    for size in a.sizes:
        models, records, patients = map(int, size.split("x"))
        one = {"models": models, "records": records, "patients": patients}
        scratch = Path(tempfile.mkdtemp(dir=a.scratch))
        try:
            write_folder(scratch / "audit", SimpleNamespace(**one, classes=2, population=20_000))
            with ProcessPoolExecutor(1, mp_context=context) as pool:
                took, peak = pool.submit(analysed, scratch / "audit").result()
        finally:
            shutil.rmtree(scratch)
        found.append(one | {"seconds": took, "peak GiB": peak})
        print(f"{models:7}{records:11,}{patients:10,}{took:9.1f}{peak:6.2f}", flush=True)
    results.write("analysis", found, a.out)


if __name__ == "__main__":
    main()
