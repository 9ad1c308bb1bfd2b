"""The two networks learn which patch and row belong together, from what they are shown alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from confide.errors import TrainingError
from confide.inversion import base
from confide.inversion.contrast import LATE, trained
from confide.inversion.moments import N_FEATURES

WORK = base.Work(seed=1)
SIZES = {"steps": 150, "batch_size": 128, "lr": 2e-3, "seed": 5}


def pairs(n, seed, *, related=True):
    """Patches, and rows that are another function of what is behind both."""
    rng = np.random.default_rng(seed)
    hidden = rng.standard_normal((n, 3))
    other = hidden if related else rng.standard_normal((n, 3))
    mixes = np.random.default_rng(99).standard_normal((2, 3, N_FEATURES))
    plain = np.tanh(hidden @ mixes[0]) + 0.05 * rng.standard_normal((n, N_FEATURES))
    code = np.tanh(other @ mixes[1]) + 0.05 * rng.standard_normal((n, N_FEATURES))
    return (torch.from_numpy(x.astype(np.float32)) for x in (plain, code))


def found(towers, plain, code):
    """Share of new rows whose own patch, of all, is the most similar."""
    left = towers.of(towers.plain, plain[None])[0]
    right = towers.of(towers.code, code[None])[0]
    return float((right @ left.T).argmax(dim=1).eq(torch.arange(len(plain))).float().mean())


def test_it_learns():
    towers, notes = trained(*pairs(4000, 1), WORK, **SIZES)
    assert notes == ()
    assert found(towers, *pairs(100, 2)) > 0.6
    assert found(towers, *pairs(100, 2, related=False)) < 0.1


def test_it_learns_nothing_of_what_is_unrelated():
    towers, _ = trained(*pairs(4000, 1, related=False), WORK, **SIZES)
    assert found(towers, *pairs(100, 2)) < 0.1


def test_vectors_have_length_one():
    towers, _ = trained(*pairs(50, 1), WORK, **SIZES | {"steps": 1})
    plain, _ = pairs(60, 3)
    vectors = towers.of(towers.plain, plain.view(6, 10, -1))
    assert vectors.shape == (6, 10, 8)
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(6, 10))


def test_the_loss_by_hand():
    towers, _ = trained(*pairs(50, 1), WORK, **SIZES | {"steps": 3})
    plain, code = pairs(7, 4)
    products = towers.plain(plain) @ towers.code(code).T * torch.exp(towers.scale)
    own = products.diagonal() - torch.logsumexp(products, dim=1)
    torch.testing.assert_close(towers.loss(plain, code), -own.mean())


def test_repeats_itself_and_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    one, two = (trained(*pairs(200, 1), WORK, **SIZES | {"steps": 20})[0] for _ in range(2))
    assert torch.equal(state, torch.get_rng_state())
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_progress_and_deadline():
    seen = []
    work = replace(WORK, progress=lambda *at: seen.append(at))
    trained(*pairs(200, 1), work, **SIZES | {"steps": 20})
    assert seen == [(i, 20) for i in range(20)]
    _, notes = trained(*pairs(200, 1), replace(WORK, seconds=0.0), **SIZES)
    assert notes == (LATE,)


def test_numbers_that_are_not_finite():
    plain, code = pairs(200, 1)
    with pytest.raises(TrainingError, match="contrastive loss is nan at step 0"):
        trained(plain * torch.nan, code, WORK, **SIZES)
