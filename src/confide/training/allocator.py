"""Keep freed memory: without it, large activations return to the kernel at every step."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # from glibc's malloc.h
_LARGEST_INT = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell glibc to keep up to 2 GiB of freed memory for the next request.

    By default every block of some megabytes is mapped afresh, zeroed by the kernel and given back,
    at each step of a training.  Holds for the whole process until its end; elsewhere than on
    Linux with glibc nothing is done.

    Returns
    -------
    whether the allocator took the settings
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    wanted = {
        _MMAP_THRESHOLD: _LARGEST_INT,
        _TRIM_THRESHOLD: _LARGEST_INT,
        _TOP_PAD: 64 * 2**20,
    }
    return all(mallopt(option, value) == 1 for option, value in wanted.items())
