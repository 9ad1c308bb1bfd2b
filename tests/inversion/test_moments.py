"""Features beyond the mean: by SciPy, by hand, and unchanged by what a key changes."""

import numpy as np
import pytest
import scipy.stats
import torch

from confide.encoders.settings import NeuraCryptSettings
from confide.inversion import base
from confide.inversion.moments import (
    N_FEATURES,
    moments,
    of_codes,
    of_records,
    of_shadow,
    standardised,
)
from confide.inversion.rows import Order, as_given
from confide.inversion.substitute import standardiser
from confide.models.patch_encoder import patches
from inversion.worlds import phantom

CPU = torch.device("cpu")


def by_scipy(rows):
    rows = rows.astype(np.float64)
    roots = [
        np.abs(scipy.stats.moment(rows, order, axis=-1)) ** (1 / order) for order in range(2, 15)
    ]
    return np.stack([rows.mean(axis=-1), *roots], axis=-1)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("n_inputs", [4, 256, 2048])
def test_as_scipy(scale, n_inputs):
    rng = np.random.default_rng(n_inputs)
    rows = (scale * (rng.standard_normal((6, n_inputs)) ** 3 + 0.3)).astype(np.float32)
    found = moments(torch.from_numpy(rows)).numpy()
    assert found.shape == (6, N_FEATURES)
    # A root of a moment near zero has the error of the moment, many times.
    np.testing.assert_allclose(found, by_scipy(rows), rtol=2e-3, atol=2e-3 * scale)
    np.testing.assert_allclose(found[:, 1::2], by_scipy(rows)[:, 1::2], rtol=1e-4)


def test_an_outlier_does_not_overflow():
    row = torch.zeros(1, 65536)
    row[0, 7] = 1e15
    found = moments(row)
    assert torch.isfinite(found).all()
    # The i-th moment of one value among n is about value^i / n.
    assert float(found[0, -1]) == pytest.approx(1e15 * 65536 ** (-1 / 14), rel=1e-3)


def test_a_constant_row():
    assert moments(torch.full((2, 5), 3.0)).tolist() == [[3.0, *[0.0] * 13]] * 2


def test_in_proportion_to_the_row():
    rows = torch.from_numpy(np.random.default_rng(0).standard_normal((3, 100), dtype=np.float32))
    torch.testing.assert_close(moments(-5 * rows)[:, 1:], 5 * moments(rows)[:, 1:])


@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 32, 32), (2, 96)])
def test_of_records(shape):
    rng = np.random.default_rng(1)
    records = (40 * rng.standard_normal((5, *shape)) + 100).astype(np.float32)
    found = of_records(standardiser(records, CPU)(records), 8)
    axes = (0, *range(2, records.ndim))
    plain = (records - records.mean(axis=axes, keepdims=True)[0]) / records.std(
        axis=axes, keepdims=True
    )[0]
    plain = patches(torch.from_numpy(plain), 8).numpy()
    wanted = by_scipy(plain - plain.mean(axis=0))
    np.testing.assert_allclose(found.numpy(), wanted, rtol=2e-2, atol=2e-2)
    np.testing.assert_allclose(found.numpy()[..., 1::2], wanted[..., 1::2], rtol=1e-3)


def test_of_codes_in_their_order():
    rng = np.random.default_rng(2)
    codes = rng.standard_normal((7, 5, 40), dtype=np.float32)
    rows = np.stack([rng.permutation(5) for _ in codes])
    ordered = np.stack([code[row] for code, row in zip(codes, rows, strict=True)])
    order = Order(rows=rows, mean=ordered.mean(axis=0), known=False)
    found = of_codes(base.ArrayCodes(codes), order, base.Work()).numpy()
    wanted = by_scipy(ordered - ordered.mean(axis=0))
    np.testing.assert_allclose(found[..., 1::2], wanted[..., 1::2], rtol=1e-3)


@pytest.mark.parametrize("norm", ["frozen", "batch"])
def test_of_a_shadow(norm):
    records, _, _ = phantom(6, 0)
    architecture = base.Architecture(
        settings=NeuraCryptSettings(patch=8, width=32, private_depth=1, norm=norm, batch_size=4),
        shape=records.shape[1:],
    )
    codes = base.ArrayCodes(architecture.shadow(records, 9)(records))
    wanted = of_codes(codes, as_given(codes, base.Work()), base.Work())
    found = of_shadow(architecture, records, 9, base.Work())
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)


def test_standardised():
    rng = np.random.default_rng(3)
    features = torch.from_numpy(rng.lognormal(0, 2, (20, 9, N_FEATURES)).astype(np.float32))
    found = standardised(features)
    flat = found.flatten(0, 1)
    torch.testing.assert_close(flat.mean(dim=0), torch.zeros(N_FEATURES), atol=1e-5, rtol=0)
    torch.testing.assert_close(flat.std(dim=0), torch.ones(N_FEATURES))
    torch.testing.assert_close(standardised(1000 * features), found, rtol=1e-3, atol=1e-3)


def test_features_that_do_not_vary_are_zero():
    assert not standardised(torch.zeros(4, 3, N_FEATURES)).any()
    assert not standardised(torch.full((4, 3, N_FEATURES), 2.0)).any()
