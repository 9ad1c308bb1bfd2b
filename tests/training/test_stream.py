"""Every member is seen as often as every other one, and nobody else at all."""

from __future__ import annotations

import hashlib
from itertools import islice

import numpy as np
import pytest
import torch

from confide.training.stream import balanced_batches, batches


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


def _balanced(rows, label, size, n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    stream = balanced_batches(torch.as_tensor(rows), torch.as_tensor(label), size, generator)
    return torch.stack(list(islice(stream, n))).numpy()


@pytest.mark.parametrize("size", [1, 5, 8, 64])
@pytest.mark.parametrize("counts", [(30, 3, 7), (1, 40), (9,), (2, 0, 5)])
def test_classes_are_drawn_equally_often_and_members_within_them(counts, size):
    rng = np.random.default_rng(size)
    label = np.repeat(np.arange(len(counts)), counts)
    rows = rng.choice(1000, len(label), replace=False)
    order = rng.permutation(len(label))
    rows, label = rows[order], label[order]
    drawn = _balanced(rows, label, size, 30)
    assert drawn.shape == (30, size)
    class_of = dict(zip(rows.tolist(), label.tolist(), strict=True))
    n_classes = np.count_nonzero(counts)
    for n in (1, 2, 7, 30):
        seen = drawn[:n].ravel()
        per_class = np.bincount([class_of[i] for i in seen.tolist()], minlength=len(counts))
        present = per_class[np.array(counts) > 0]
        assert present.min() >= n * size // n_classes
        assert present.max() <= -(-n * size // n_classes)
        for k, of_class in enumerate(per_class):
            times = [np.count_nonzero(seen == i) for i, c in class_of.items() if c == k]
            if times:
                assert min(times) >= of_class // len(times)
                assert max(times) <= -(-of_class // len(times))


def test_places_of_classes_are_uniform():
    # of 4 classes the one that comes first in 400 streams: 100 each, sd 8.7
    first = [_balanced(np.arange(4), np.arange(4), 1, 1, seed)[0, 0] for seed in range(400)]
    assert np.abs(np.bincount(first) - 100).max() < 36


def test_balanced_order_depends_on_the_generator_alone():
    state = torch.get_rng_state()
    label = np.arange(50) % 3
    found = [_balanced(np.arange(50), label, 8, 20, seed) for seed in (3, 3, 4)]
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])
    assert torch.equal(state, torch.get_rng_state())


def test_the_order_of_before_is_unchanged():
    """SHA-256 of an order drawn before there were balanced batches."""
    generator = torch.Generator().manual_seed(3555316550)
    drawn = torch.stack(list(islice(batches(torch.arange(5, 48), 7, generator), 30)))
    digest = hashlib.sha256(drawn.numpy().astype("<i8").tobytes()).hexdigest()
    assert digest == "78914a5e02c39e6f9aad82f5ad68b53627f3942892cf5e36faf9f583abc26f2c"
