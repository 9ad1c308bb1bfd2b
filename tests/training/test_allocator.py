"""The allocator keeps large blocks."""

from __future__ import annotations

import subprocess
import sys

import pytest

from confide.training.allocator import keep_freed_memory

CODE = """
import resource, sys
import numpy as np
from confide.training.allocator import keep_freed_memory
if sys.argv[1] == "kept" and not keep_freed_memory():
    sys.exit(3)
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    np.ones(2**23, dtype=np.uint8)
before = faults()
for _ in range(10):
    np.ones(2**23, dtype=np.uint8)
print(faults() - before)
"""


def test_does_nothing_elsewhere(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_freed_memory() is False


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_large_blocks_are_not_mapped_again():
    def faults(how):
        done = subprocess.run(
            [sys.executable, "-c", CODE, how], capture_output=True, text=True, check=False
        )
        if done.returncode == 3:
            pytest.skip("another C library")
        return int(done.stdout)

    # ten blocks of 2,048 pages
    assert faults("kept") < 100
