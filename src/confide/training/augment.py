"""Random changes of images, in batches on the device, as functions of uniform numbers.

Drawing (:func:`draw`, on the CPU) and changing (:func:`apply`) are apart, so that the same draw
gives the same change on every device and in every batch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from confide.training.settings import AUGMENT_STEPS, Augment

SHIFT = 0.125  # of the height and width, at most
DEGREES = 10.0  # of rotation, at most
CONTRAST = 0.25  # factor in [0.75, 1.25]
BRIGHTNESS = 0.25  # standard deviations of the pixels, at most

N_DRAWS = 6  # mirror, shift down, shift right, angle, contrast, brightness


def draw(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """(*shape, 6) float32 uniform in [0, 1), the chance of as many images."""
    return torch.rand((*shape, N_DRAWS), generator=generator)


def apply(images: Tensor, chance: Tensor, augment: Augment) -> Tensor:
    """Change each image by its own chance.

    The steps, in this order: `mirror` left and right with probability 1/2; `shift` by whole pixels,
    up to 12.5 % of height and width, the gap filled by reflection (the edge pixel is not repeated);
    `rotate` by up to 10 degrees (bilinear; 0 comes in from outside, which is the mean of the data);
    `contrast` around the mean of each channel by up to 25 %; `brightness` by up to 0.25.  Levels
    add up: trivial mirrors, weak also shifts, medium also rotates, strong does all.

    Parameters
    ----------
    images : (n, channels, height, width) float32, standardised
    chance : (n, 6) from :func:`draw`, on the device of `images`
    augment : a level, or the steps

    Returns
    -------
    (n, channels, height, width) float32
    """
    steps = AUGMENT_STEPS[augment] if isinstance(augment, str) else augment
    if "mirror" in steps:
        images = mirror(images, chance[:, 0] < 0.5)
    if "shift" in steps:
        height, width = images.shape[-2:]
        images = shift(images, _pixels(chance[:, 1], height), _pixels(chance[:, 2], width))
    if "rotate" in steps:
        images = rotate(images, DEGREES * (2 * chance[:, 3] - 1))
    if "contrast" in steps:
        images = contrast(images, 1 + CONTRAST * (2 * chance[:, 4] - 1))
    if "brightness" in steps:
        images = images + (BRIGHTNESS * (2 * chance[:, 5] - 1))[:, None, None, None]
    return images


def _pixels(chance: Tensor, size: int) -> Tensor:
    most = int(SHIFT * size)
    return (chance * (2 * most + 1)).long() - most


def mirror(images: Tensor, chosen: Tensor) -> Tensor:
    """Mirror the images that are `chosen`, (n,) bool, left and right."""
    return torch.where(chosen[:, None, None, None], images.flip(-1), images)


def shift(images: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Move image i by down[i] and right[i] whole pixels, less than its size; reflects at edges."""
    n, channels, height, width = images.shape
    rows = _reflected(height, down)[:, None, :, None].expand(n, channels, height, width)
    columns = _reflected(width, right)[:, None, None, :].expand(n, channels, height, width)
    return images.gather(2, rows).gather(3, columns)


def _reflected(size: int, move: Tensor) -> Tensor:
    """(n, size) the source of each pixel after a move of (n,) pixels."""
    source = (torch.arange(size, device=move.device) - move[:, None]).abs()
    return (size - 1) - ((size - 1) - source).abs()


def rotate(images: Tensor, degrees: Tensor) -> Tensor:
    """Rotate image i counter-clockwise by degrees[i] about its centre; zeros from outside."""
    height, width = images.shape[-2:]
    angle = degrees * (math.pi / 180)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    # affine_grid counts height and width as 2 each: the ratios undo that for oblong images.
    first = torch.stack([cos, -sin * (height / width), zero], dim=1)
    second = torch.stack([sin * (width / height), cos, zero], dim=1)
    grid = functional.affine_grid(
        torch.stack([first, second], dim=1), list(images.shape), align_corners=False
    )
    return functional.grid_sample(images, grid, padding_mode="zeros", align_corners=False)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Scale the differences from each channel's mean by factor[i]."""
    mean = images.mean(dim=(-2, -1), keepdim=True)
    return mean + factor[:, None, None, None] * (images - mean)
