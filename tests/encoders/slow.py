"""NeuraCrypt as slow as it is plain: loops over patches and channels, in float64."""

import math

import numpy as np


def slow_patches(record, patch):
    """Patches of (channels, *sides) in row-major order, each flattened channel by channel."""
    channels, *sides = record.shape
    rows = []
    for corner in np.ndindex(*[side // patch for side in sides]):
        values = []
        for channel in range(channels):
            for inside in np.ndindex(*[patch] * len(sides)):
                at = [c * patch + i for c, i in zip(corner, inside, strict=True)]
                values.append(record[channel, *at])
        rows.append(values)
    return np.array(rows, dtype=np.float64)


def slow_linear(key, name, rows, width):
    n_inputs = rows.shape[-1]
    weight = key.uniform(f"{name}.weight", (width, n_inputs), 1 / math.sqrt(n_inputs))
    bias = key.uniform(f"{name}.bias", (width,), 1 / math.sqrt(n_inputs))
    out = np.empty((len(rows), width))
    for i, row in enumerate(rows):
        for j in range(width):
            out[i, j] = math.fsum(row * weight[j].astype(np.float64)) + float(bias[j])
    return out


def slow_codes(key, records, *, patch, width, depth, position=True, norms=None):
    """(n, P, width) codes, unshuffled, and the mean and variance of each hidden layer.

    `norms` None: those of these records; records are standardised by their own mean and standard
    deviation of each channel.
    """
    x = np.asarray(records, dtype=np.float64)
    axes = (0, *range(2, x.ndim))
    x = (x - x.mean(axis=axes, keepdims=True)) / x.std(axis=axes, keepdims=True)
    n, found = len(x), []
    h = np.concatenate([slow_patches(record, patch) for record in x])
    h = np.maximum(slow_linear(key, "patch", h, width), 0)
    for i in range(depth):
        h = slow_linear(key, f"hidden.{i}", h, width)
        found.append((h.mean(axis=0), h.var(axis=0)))
        mean, variance = found[i] if norms is None else norms[i]
        h = np.maximum((h - mean) / np.sqrt(variance + 1e-5), 0)
    n_patches = len(h) // n
    if position:
        h += np.tile(key.normal("position", (n_patches, width)), (n, 1))
    codes = slow_linear(key, "mixer", np.maximum(h, 0), width)
    return codes.reshape(n, n_patches, width), found
