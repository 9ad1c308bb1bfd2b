"""Work in threads is the work of one, in the same order."""

import threading
import time

import numpy as np
import pytest

from attacks.contract import study
from confide.attacks import RMIA, LiRA, threads
from confide.attacks.base import CHUNK_ELEMENTS


@pytest.fixture
def cores(monkeypatch):
    def use(n):
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        monkeypatch.setattr(threads.os, "sched_getaffinity", lambda _: range(n), raising=False)

    return use


def test_results_come_in_the_order_of_the_items(cores):
    cores(3)
    waits = [0.03, 0.0, 0.02, 0.0, 0.0, 0.01]

    def work(i):
        time.sleep(waits[i])
        return i, threading.get_ident()

    found, who = zip(*threads.in_threads(work, range(6)), strict=True)
    assert found == tuple(range(6))
    assert threading.get_ident() not in who


def test_items_are_not_read_far_ahead(cores):
    cores(2)
    read, finished = [], []

    def items():
        for i in range(50):
            read.append(i)
            assert len(read) - len(finished) <= 4  # in both threads, waiting, and this one
            yield i

    for one in threads.in_threads(lambda i: i, items()):
        finished.append(one)
    assert finished == read == list(range(50))


def test_an_error_is_the_callers(cores):
    cores(2)
    with pytest.raises(ZeroDivisionError):
        list(threads.in_threads(lambda i: 1 // i, [1, 0, 1]))


@pytest.mark.parametrize(
    ("n_cores", "asked", "expected"),
    [(2, None, 2), (64, None, 4), (8, "1", 1), (2, "16", 2), (2, "0", 1), (2, "two", 2)],
)
def test_threads_are_as_many_as_cores_and_no_more_than_asked(
    cores, monkeypatch, n_cores, asked, expected
):
    cores(n_cores)
    if asked is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert threads.n_threads() == expected


@pytest.mark.parametrize("attack", [LiRA(), RMIA()], ids=lambda a: a.name)
def test_scores_do_not_depend_on_threads(attack, cores):
    n_records = 3 * CHUNK_ELEMENTS // 16
    signals, held = study(0, n_models=16, n_records=n_records, leak=1.0)
    population = np.random.default_rng(1).standard_normal((16, 500))
    cores(1)
    alone = attack.leave_one_out(signals, held, population)
    cores(3)
    np.testing.assert_array_equal(attack.leave_one_out(signals, held, population), alone)
