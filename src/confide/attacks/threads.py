"""Work on parts of the records, or on models, in a few threads at a time."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
_MOST = 4
"""Each thread holds a part of its own in memory, and more threads hardly save time."""


def n_threads() -> int:
    """One a core, at most four; no more than OMP_NUM_THREADS, where it is set."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(cores or 1, _MOST, int(asked) if asked.isdecimal() else _MOST))


def in_threads(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """``map(work, items)``, several items at a time: NumPy lets other threads work beside it.

    Results come in the order of the items, so that sums over them do not depend on the threads.
    Items are taken by the caller's thread, one after the other and no further ahead than there are
    threads: they may be read from a disk.
    """
    n = n_threads()
    if n == 1:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(n) as pool:
        waiting: deque[Future[Result]] = deque()
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > n:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
