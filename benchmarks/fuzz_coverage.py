"""Malformed files that are bred by the code that they reach, for one reader.

Where fuzz.py alters files blindly, this keeps what takes a new branch of the package and alters it
further.  Anything but an error of the package ends the run; the input is written as crash-*.  Needs
atheris (Linux, CPython 3.11 to 3.13), which confide does not install; options of libFuzzer follow
the name of the reader.

    python benchmarks/fuzz_coverage.py DICOM -max_total_time=60
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

ROOT = Path(__file__).parents[1]
sys.path[:1] = [str(ROOT / "tests"), str(ROOT / "src")]


def main() -> None:
    name, *options = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        # What is imported here is watched, also where a reader imports it at its first use.
        with atheris.instrument_imports(include=["confide"]):
            from fuzz import readers
            from fuzzing.reader import Bench

            (reader,) = [one for one in readers() if one.name == name]
            bench = Bench(reader, Path(folder) / "bench")
        valid = bench.folder / "valid"
        found = {str(p.relative_to(valid)) for one in reader.files for p in valid.glob(one)}
        names = sorted(found & bench.files.keys())
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        for i, one in enumerate(names):
            (corpus / str(i)).write_bytes(bytes([i % 256]) + bench.files[one])

        def attempt(data: bytes) -> None:
            if data:
                one = names[data[0] % len(names)]
                bench.attempt({one: data[1:]}, sealed=True)

        atheris.Setup([sys.argv[0], str(corpus), "-max_len=100000", *options], attempt)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
