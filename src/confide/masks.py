"""Balanced membership masks: who is in the training data of which model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from confide import _check
from confide.errors import ArgumentError


def balanced(
    n_models: int,
    n_patients: int,
    *,
    fraction: float = 0.5,
    seed: int = 0,
    block: int | None = None,
) -> NDArray[np.bool_]:
    """Draw masks in which every patient is in the same number of models.

    Down each column the `round(fraction * n)` smallest of n uniforms are in, so that which models
    hold a patient is uniform over all choices and independent between patients.  That makes the
    membership column of a patient exchangeable, on which every exact p-value of an audit rests.

    Parameters
    ----------
    n_models, n_patients : sizes
    fraction : share of the models that hold each patient
    seed : one seed; the same masks on every machine
    block : models per balanced block, at least 16; None for a single block.  With blocks, later
        models can be added without changing earlier rows, and column exchangeability holds within
        blocks only (see :func:`block_of`).

    Returns
    -------
    (n_models, n_patients) bool
    """
    _check.at_least(2, n_models=n_models)
    _check.at_least(1, n_patients=n_patients)
    _check.in_range(0, 1, fraction=fraction)
    size = _block_size(n_models, block)
    # One child seed per block: block i is the same whatever the number of blocks.
    children = np.random.SeedSequence(seed).spawn(-(-n_models // size))
    rows = []
    for i, child in enumerate(children):
        n = min(size, n_models - i * size)
        n_in = round(fraction * n)
        if not 0 < n_in < n:
            raise ArgumentError(
                f"With fraction={fraction:g} a block of {n} models has {n_in} models that hold "
                "a patient; every patient must be in and out at least once. Use more models."
            )
        rows.append(_one_block(np.random.default_rng(child), n, n_patients, n_in))
    return np.concatenate(rows)


def _one_block(
    rng: np.random.Generator, n_models: int, n_patients: int, n_in: int
) -> NDArray[np.bool_]:
    order = np.argsort(rng.random((n_patients, n_models), dtype=np.float32), axis=1, kind="stable")
    mask = np.zeros((n_patients, n_models), dtype=bool)
    np.put_along_axis(mask, order[:, :n_in], True, axis=1)
    return np.ascontiguousarray(mask.T)


def _block_size(n_models: int, block: int | None) -> int:
    if block is None:
        return n_models
    if block < 16:
        raise ArgumentError(f"Expected block={block} to be at least 16 models, or None.")
    if n_models % block:
        raise ArgumentError(f"Expected n_models={n_models} to be a multiple of block={block}.")
    return block


def block_of(n_models: int, block: int | None = None) -> NDArray[np.int64]:
    """(n_models,) the balanced block of each model, for nulls that permute within blocks."""
    return np.arange(n_models) // _block_size(n_models, block)
