"""Malformed input is read, or refused by an error of this package; nothing else happens.

`benchmarks/fuzz.py` tries the same readers with as many inputs as are asked for.
"""

import socket

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from confide.datasets.image_files import naming
from confide.errors import ArgumentError, ImageError
from fuzzing import audit_readers, code_readers, data_readers
from fuzzing.reader import Bench, Reader
from fuzzing.sandbox import BrokenError

READERS = [*data_readers.READERS, *code_readers.READERS, *audit_readers.READERS]
SAME = settings(
    derandomize=True,  # the same inputs in every run
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize(
    "reader",
    [
        pytest.param(one, id=one.name, marks=[] if one.tries else [pytest.mark.slow])
        for one in READERS
    ],
)
def test_malformed_input_is_read_or_refused(reader, tmp_path):
    bench = Bench(reader, tmp_path / "bench")
    refused = []

    @settings(SAME, max_examples=reader.tries or 10)
    @given(st.randoms(use_true_random=False))
    def attempt(rng):
        changes, sealed = bench.input(rng)
        refused.append(bench.attempt(changes, sealed)[0])

    attempt()
    assert len(refused) >= (reader.tries or 10) // 2


FAULTS = {
    "another error": lambda folder: 1 // 0,
    "an error without words": lambda folder: fail(""),
    "an error of a million characters": lambda folder: fail("x" * 10**6),
    "a file elsewhere": lambda folder: (folder.parent / "elsewhere").write_text("x"),
    "a connection": lambda folder: socket.socket(socket.AF_INET).close(),
    "a file behind a link": lambda folder: (folder.parent / "outside" / "a.csv").read_bytes(),
}


def fail(words):
    raise ArgumentError(words)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_reader_that_does_what_none_may_is_found(fault, tmp_path):
    faulty = []
    reader = Reader(
        name="faulty",
        make=lambda folder: (folder / "a.csv").write_text("a\n1\n"),
        read=lambda folder: faulty and FAULTS[fault](folder),
        closed=True,
    )
    bench = Bench(reader, tmp_path / "bench")
    assert bench.attempt({"a.csv": b"b"}, False)[0] is False
    faulty.append(True)
    with pytest.raises((BrokenError, ZeroDivisionError)):
        bench.attempt({"a.csv": b"b"}, False)


def test_every_reader_has_a_name_of_its_own():
    names = [one.name for one in READERS]
    assert len(set(names)) == len(names)
    assert sum(one.tries for one in READERS) > 300


def test_memory_that_a_picture_asks_for_and_does_not_get(tmp_path):
    with pytest.raises(ImageError, match=r"Row 3: .* is damaged"), naming(3, tmp_path / "a.png"):
        raise MemoryError
