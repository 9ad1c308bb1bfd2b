"""Augmentations against slow references at fixed parameters."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy import ndimage

from confide.training import augment
from confide.training.settings import AUGMENT_STEPS, TrainSettings

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(6, 2, 16, 24)).astype(np.float32)
TENSOR = torch.from_numpy(IMAGES)
CHANCE = augment.draw((6,), torch.Generator().manual_seed(0))


def test_mirror():
    chosen = np.array([True, False, True, True, False, False])
    expected = np.where(chosen[:, None, None, None], IMAGES[..., ::-1], IMAGES)
    assert np.array_equal(augment.mirror(TENSOR, torch.from_numpy(chosen)).numpy(), expected)


def test_shift():
    down, right = np.array([0, 1, -2, 2, 0, -1]), np.array([3, 0, -3, 1, -1, 2])
    got = augment.shift(TENSOR, torch.from_numpy(down), torch.from_numpy(right)).numpy()
    for image, moved, d, r in zip(IMAGES, got, down, right, strict=True):
        padded = np.pad(image, [(0, 0), (3, 3), (3, 3)], mode="reflect")
        assert np.array_equal(moved, padded[:, 3 - d : 19 - d, 3 - r : 27 - r])


@pytest.mark.parametrize("shape", [(16, 24), (24, 16), (17, 17)])
def test_rotate(shape):
    images = RNG.normal(size=(4, 2, *shape)).astype(np.float32)
    degrees = np.array([10.0, -10.0, 3.7, 0.0], dtype=np.float32)
    got = augment.rotate(torch.from_numpy(images), torch.from_numpy(degrees)).numpy()
    expected = [
        # scipy turns the first axis towards the second: the other way round
        ndimage.rotate(
            image, float(d), axes=(1, 2), reshape=False, order=1, mode="grid-constant", cval=0.0
        )
        for image, d in zip(images, degrees, strict=True)
    ]
    np.testing.assert_allclose(got, expected, atol=2e-5)


def test_contrast():
    factor = np.linspace(0.75, 1.25, 6, dtype=np.float32)
    mean = IMAGES.mean(axis=(2, 3), keepdims=True)
    expected = mean + factor[:, None, None, None] * (IMAGES - mean)
    got = augment.contrast(TENSOR, torch.from_numpy(factor)).numpy()
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_levels_add_up():
    def at(level):
        return augment.apply(TENSOR, CHANCE, level)

    assert torch.equal(at("none"), TENSOR)
    mirrored = augment.mirror(TENSOR, CHANCE[:, 0] < 0.5)
    assert torch.equal(at("trivial"), mirrored)
    # 12.5 % of 16 and of 24 pixels
    down = (CHANCE[:, 1] * 5).floor().long() - 2
    right = (CHANCE[:, 2] * 7).floor().long() - 3
    shifted = augment.shift(mirrored, down, right)
    assert torch.equal(at("weak"), shifted)
    rotated = augment.rotate(shifted, 20 * CHANCE[:, 3] - 10)
    torch.testing.assert_close(at("medium"), rotated)
    strong = augment.contrast(rotated, 0.75 + 0.5 * CHANCE[:, 4])
    strong = strong + (0.5 * CHANCE[:, 5] - 0.25)[:, None, None, None]
    torch.testing.assert_close(at("strong"), strong)


def test_steps_by_name():
    changed = augment.contrast(TENSOR, 0.75 + 0.5 * CHANCE[:, 4])
    changed = changed + (0.5 * CHANCE[:, 5] - 0.25)[:, None, None, None]
    torch.testing.assert_close(augment.apply(TENSOR, CHANCE, ("contrast", "brightness")), changed)
    rotated = augment.rotate(TENSOR, 20 * CHANCE[:, 3] - 10)
    torch.testing.assert_close(augment.apply(TENSOR, CHANCE, ("rotate",)), rotated)
    for level, steps in AUGMENT_STEPS.items():
        same = augment.apply(TENSOR, CHANCE, steps)
        assert torch.equal(augment.apply(TENSOR, CHANCE, level), same)


@pytest.mark.parametrize("steps", [["rotate", "mirror"], ["brightness"], ["contrast", "shift"]])
def test_a_list_of_steps_is_put_in_order(steps):
    settings = TrainSettings.model_validate({"model": {"name": "wrn"}, "augment": steps})
    assert settings.augment == tuple(s for s in AUGMENT_STEPS["strong"] if s in steps)
    assert TrainSettings.model_validate_json(settings.model_dump_json()) == settings


@pytest.mark.parametrize("steps", [[], ["shift", "shift"], ["flip"], "flip"])
def test_steps_that_are_refused(steps):
    with pytest.raises(ValidationError, match="augment"):
        TrainSettings.model_validate({"model": {"name": "wrn"}, "augment": steps})


def test_the_extremes_of_the_chance_stay_in_range():
    top = np.nextafter(np.float32(1), np.float32(0))
    for value in (0.0, float(top)):
        chance = torch.full((6, augment.N_DRAWS), value)
        assert augment.apply(TENSOR, chance, "strong").isfinite().all()


@pytest.mark.parametrize("level", ["trivial", "weak", "medium", "strong"])
def test_an_image_is_changed_by_its_own_chance_alone(level):
    whole = augment.apply(TENSOR, CHANCE, level)
    for i in range(6):
        alone = augment.apply(TENSOR[i : i + 1], CHANCE[i : i + 1], level)
        torch.testing.assert_close(whole[i : i + 1], alone, atol=1e-6, rtol=1e-5)


def test_chance_is_uniform():
    drawn = augment.draw((4000,), torch.Generator().manual_seed(1)).numpy()
    assert drawn.shape == (4000, 6)
    assert drawn.min() >= 0
    assert drawn.max() < 1
    np.testing.assert_allclose(drawn.mean(axis=0), 0.5, atol=0.02)
