"""Every member is seen as often as every other one, and nobody else at all."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch

from confide.training.stream import batches


def _draw(rows, size, n, seed=0):
    stream = batches(torch.as_tensor(rows), size, torch.Generator().manual_seed(seed))
    return torch.stack(list(islice(stream, n))).numpy()


@pytest.mark.parametrize(("n_members", "size"), [(10, 4), (7, 7), (5, 12), (1, 3), (100, 32)])
def test_members_are_seen_equally_often_and_nobody_else(n_members, size):
    rng = np.random.default_rng(n_members)
    rows = np.sort(rng.choice(1000, n_members, replace=False))
    drawn = _draw(rows, size, 40)
    assert drawn.shape == (40, size)
    for n in range(1, 41):  # at any moment, not only at the end
        seen, counts = np.unique(drawn[:n], return_counts=True)
        assert set(seen) <= set(rows)
        counts = np.concatenate([counts, np.zeros(n_members - len(seen))])
        assert counts.min() >= n * size // n_members
        assert counts.max() <= -(-n * size // n_members)


def test_permutations_follow_one_another():
    drawn = _draw(np.arange(6), 4, 9).reshape(-1, 6)
    assert (np.sort(drawn, axis=1) == np.arange(6)).all()
    assert len({tuple(row) for row in drawn}) == 6


def test_the_order_is_uniform():
    # which of 4 members comes first in 2,000 streams: 500 each, sd 19.4
    first = [_draw(np.arange(4), 1, 1, seed)[0, 0] for seed in range(2000)]
    assert np.abs(np.bincount(first) - 500).max() < 80


def test_the_order_depends_on_the_generator_alone():
    state = torch.get_rng_state()
    assert np.array_equal(_draw(np.arange(50), 8, 20, 3), _draw(np.arange(50), 8, 20, 3))
    assert not np.array_equal(_draw(np.arange(50), 8, 20, 3), _draw(np.arange(50), 8, 20, 4))
    assert torch.equal(state, torch.get_rng_state())
