"""The attack of Carlini et al., whole and in its steps."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from confide.encoders.settings import LinearSettings, NeuraCryptSettings
from confide.errors import ArgumentError
from confide.inversion import base, contrast
from confide.inversion.assignment import (
    NO_POSITIONS,
    Assignment,
    in_patches,
    matched,
    order_free,
    positions,
)
from confide.inversion.rows import Order
from confide.inversion.targets import encoded
from inversion.contract import InversionContract
from inversion.worlds import world

SMALL = Assignment(shadow_keys=2, steps=150, batch_size=256, lr=3e-3)
WORK = base.Work(seed=4)


class TestAssignment(InversionContract):
    attack = SMALL


class TestWithExtraction(InversionContract):
    attack = replace(SMALL, steps=100, extractions=1, extraction_steps=60)
    worlds = {"n_patients": 20, "width": 32}  # noqa: RUF012


def vectors(n, n_rows, seed, noise=0.0):
    """Unit vectors of patches: what a position has in common, what an image has, and noise."""
    rng = np.random.default_rng(7)
    x = rng.standard_normal((1, n_rows, 8)) + rng.standard_normal((n, n_rows, 8))
    x = x + noise * np.random.default_rng(seed).standard_normal(x.shape)
    x /= np.linalg.norm(x, axis=2, keepdims=True)
    return torch.from_numpy(x.astype(np.float32))


@pytest.fixture(scope="module")
def puzzle():
    """Images and codes of them in an unknown order, positions too."""
    rng = np.random.default_rng(1)
    order, patch = rng.permutation(50), rng.permutation(30)
    plain = vectors(50, 30, 1, noise=0.7)
    code = vectors(50, 30, 2, noise=0.7)[order][:, patch]
    return SimpleNamespace(plain=plain, code=code, order=order, patch=patch)


def test_images_and_positions_are_found_together(puzzle):
    patch, similarity, assigned = matched(puzzle.plain, puzzle.code, in_order=False)
    assert np.array_equal(patch, puzzle.patch)
    assert np.array_equal(assigned, puzzle.order)
    assert np.array_equal(similarity.argmax(axis=1), puzzle.order)
    assert np.abs(similarity).max() <= 1.0 + 1e-6


def test_a_few_images_give_the_positions(puzzle):
    some = np.where(np.arange(50) < 15, puzzle.order, -1)
    assert np.mean(positions(puzzle.plain, puzzle.code, some) == puzzle.patch) > 0.9


def test_positions_that_are_known_are_kept(puzzle):
    code = puzzle.code[:, np.argsort(puzzle.patch)]
    patch, _, assigned = matched(puzzle.plain, code, in_order=True)
    assert np.array_equal(patch, np.arange(30))
    assert np.array_equal(assigned, puzzle.order)


def test_more_plaintexts_than_codes(puzzle):
    _, similarity, assigned = matched(puzzle.plain, puzzle.code[:30], in_order=False)
    assert similarity.shape == (30, 50)
    assert np.array_equal(assigned, puzzle.order[:30])


def test_more_codes_than_plaintexts(puzzle):
    keep = puzzle.order < 40
    _, _, assigned = matched(puzzle.plain[:40], puzzle.code, in_order=False)
    assert (assigned >= 0).sum() == 40
    assert np.mean(assigned[keep] == puzzle.order[keep]) > 0.9


def test_unrelated_vectors_match_by_chance():
    torch.manual_seed(0)
    one, other = (torch.nn.functional.normalize(torch.randn(80, 20, 8), dim=2) for _ in "ab")
    _, _, assigned = matched(one, other, in_order=False)
    assert np.mean(assigned == np.arange(80)) < 0.1


def test_the_first_comparison_heeds_no_order(puzzle):
    moved = torch.stack([x[torch.from_numpy(np.random.default_rng(i).permutation(30))]
                         for i, x in enumerate(puzzle.code)])  # fmt: skip
    found = order_free(puzzle.plain, puzzle.code)
    np.testing.assert_allclose(order_free(puzzle.plain, moved), found, atol=1e-4)
    right = found[np.arange(50), puzzle.order]
    assert np.mean(right[:, None] >= found) > 0.9


def test_the_first_comparison_by_the_best_assignment():
    # The mean over directions of the distance of sorted numbers is at most that of the assignment.
    one, other = vectors(4, 32, 1), vectors(4, 32, 9, noise=0.5)
    found = order_free(one, other)
    from confide.inversion.assign import assign

    distance = torch.cdist(other[:, None].float(), one[None].float()).square()
    for i in range(4):
        for j in range(4):
            best = distance[i, j].numpy()
            cost = best[np.arange(32), assign(best)].mean()
            # 64 directions x 32 quantiles; along one direction, an eighth of a squared length.
            assert -found[i, j] / (64 * 32) <= 1.5 * cost / 8
            assert -found[i, j] / (64 * 32) >= 0.1 * cost / 8 * (i != j)


def test_rows_of_an_order_by_patches():
    rng = np.random.default_rng(2)
    patch = rng.permutation(5)
    rows = np.stack([rng.permutation(5) for _ in range(3)])
    mean = rng.standard_normal((5, 4), dtype=np.float32)
    found = in_patches(Order(rows=rows, mean=mean, known=False), patch)
    for position in range(5):
        assert np.array_equal(found.rows[:, patch[position]], rows[:, position])
        assert np.array_equal(found.mean[patch[position]], mean[position])
    known = Order(rows=rows, mean=mean, known=True)
    assert in_patches(known, np.arange(5)) is known


def share(attack, settings, *, seed=0, shape=None, n=50, **more):
    """Share of codes assigned to their plaintext, of a world of those settings."""
    w = world(n_patients=n, seed=seed, max_views=1)
    hidden, order = w.hidden, w.order
    if shape is not None:
        hidden = hidden.reshape(len(hidden), *shape)
    architecture = base.Architecture(settings=settings, shape=hidden.shape[1:])
    plaintexts = np.empty_like(hidden)
    plaintexts[order] = hidden
    codes = base.ArrayCodes(encoded(architecture, hidden, 5))
    known = base.SameImages(architecture=architecture, codes=codes, plaintexts=plaintexts)
    return np.mean(attack(known, replace(WORK, **more)).assigned == order)


@pytest.mark.slow
def test_an_encoder_on_the_matching_completes_it():
    w = world()
    known = w.known(base.SameImages)
    alone = Assignment(steps=500, batch_size=256)
    attack = replace(alone, extractions=3, extraction_steps=300)
    assert 0.1 < np.mean(alone(known, WORK).assigned == w.order) < 0.9
    assert np.mean(attack(known, WORK).assigned == w.order) > 0.95


def test_rows_that_were_not_shuffled():
    settings = NeuraCryptSettings(patch=8, width=256, private_depth=1, shuffle=False)
    assert share(SMALL, settings) > 0.9


def test_codes_that_depend_on_their_batch():
    settings = NeuraCryptSettings(patch=4, width=128, private_depth=1, norm="batch", batch_size=16)
    assert share(SMALL, settings) > 0.8


@pytest.mark.parametrize(("shape", "patch"), [((2, 512), 16), ((4, 16, 16), 4)])
def test_signals_and_several_channels(shape, patch):
    assert share(SMALL, LinearSettings(patch=patch, width=128), shape=shape) > 0.9


def test_rows_without_positions_are_told():
    settings = NeuraCryptSettings(patch=8, width=32, private_depth=0, position=False)
    w = world(n_patients=10)
    architecture = base.Architecture(settings=settings, shape=w.hidden.shape[1:])
    codes = base.ArrayCodes(encoded(architecture, w.hidden, 5))
    known = base.SameImages(architecture=architecture, codes=codes, plaintexts=w.plaintexts)
    found = replace(SMALL, steps=2)(known, WORK)
    assert found.notes == (NO_POSITIONS,)


def test_a_deadline_is_told():
    known = world(n_patients=10).known(base.SameImages)
    found = SMALL(known, replace(WORK, seconds=0.0))
    assert found.notes == (contrast.LATE,)
    assert np.isfinite(found.similarity).all()


def test_codes_of_another_architecture():
    known = world(n_patients=10).known(base.SameImages)
    fewer = base.ArrayCodes(known.codes.values[:, :, :-1])
    with pytest.raises(ArgumentError, match=r"codes of shape \(16, 64\) .* got \(16, 63\)"):
        SMALL(replace(known, codes=fewer), WORK)


@pytest.mark.parametrize(
    "wrong", [{"shadow_keys": 0}, {"shadow_images": 1}, {"steps": 0}, {"extractions": -1}]
)
def test_settings_out_of_range(wrong):
    with pytest.raises(ArgumentError, match=next(iter(wrong))):
        Assignment(**wrong)


def test_the_published_effort():
    paper = Assignment.of("paper")
    assert (paper.shadow_keys, paper.shadow_images) == (30, 100)
    assert (paper.steps, paper.batch_size, paper.lr) == (80_000, 4096, 1e-4)
    assert paper.extractions == 3


@pytest.mark.slow
@pytest.mark.parametrize("private_depth", [0, 4])
def test_x_rays(real_data, private_depth):
    files = sorted((real_data / "cxr_open" / "images").iterdir())
    chosen = np.random.default_rng(0).permutation(len(files))[:60]
    hidden = np.stack(
        [np.asarray(Image.open(files[i]).convert("L").resize((256, 256))) for i in chosen]
    )[:, None]
    settings = NeuraCryptSettings(width=512, private_depth=private_depth)
    architecture = base.Architecture(settings=settings, shape=hidden.shape[1:])
    order = np.random.default_rng(1).permutation(len(hidden))
    known = base.SameImages(
        architecture=architecture,
        codes=base.ArrayCodes(encoded(architecture, hidden, 5)),
        plaintexts=hidden[np.argsort(order)],
    )
    found = Assignment.of("quick")(known, WORK)
    assert np.mean(found.assigned == order) >= 0.95
