"""Summaries of codes: closed forms, invariances, and few codes at a time."""

import numpy as np
import pytest

from confide.encoders.settings import LinearSettings, NeuraCryptSettings
from confide.inversion import summaries
from confide.inversion.base import Architecture, ArrayCodes, Work

WORK = Work(seed=1)
SHUFFLED = Architecture(
    settings=NeuraCryptSettings(patch=8, width=6, private_depth=0), shape=(1, 16, 24)
)
ORDERED = Architecture(settings=LinearSettings(patch=8, width=6), shape=(1, 16, 24))


def codes(n=9, rows=6, width=6, seed=0):
    return np.random.default_rng(seed).standard_normal((n, rows, width)).astype(np.float32)


def test_channels_of_shuffled_rows():
    x = codes()
    found = summaries.of_one_key(ArrayCodes(x), SHUFFLED, WORK)
    np.testing.assert_allclose(found[:, :6], x.mean(axis=1), atol=1e-6)
    np.testing.assert_allclose(found[:, 6:], np.log(x.var(axis=1)), atol=1e-5)


def test_rows_in_order_are_kept_or_projected():
    x = codes()
    np.testing.assert_array_equal(
        summaries.of_one_key(ArrayCodes(x), ORDERED, WORK), x.reshape(9, -1)
    )
    large = codes(12, 8, 2048)
    found = summaries.of_one_key(ArrayCodes(large), ORDERED, WORK)
    assert found.shape == (12, 4096)
    # Random projections keep lengths and angles.
    wanted = large.reshape(12, -1) @ large.reshape(12, -1).T
    np.testing.assert_allclose(
        found @ found.T / wanted.diagonal()[:, None], wanted / wanted.diagonal()[:, None], atol=0.12
    )


@pytest.mark.parametrize("architecture", [SHUFFLED, ORDERED])
@pytest.mark.parametrize("summary", [summaries.of_one_key, summaries.of_any_key])
def test_a_few_codes_at_a_time(monkeypatch, architecture, summary):
    x = ArrayCodes(codes())
    whole = summary(x, architecture, WORK)
    monkeypatch.setattr(summaries, "_NUMBERS_AT_ONCE", 80)
    np.testing.assert_allclose(summary(x, architecture, WORK), whole, atol=1e-5)
    assert whole.dtype == np.float32


@pytest.mark.parametrize("summary", [summaries.of_one_key, summaries.of_any_key])
def test_the_order_of_shuffled_rows_is_lost(summary):
    x = codes()
    moved = x[:, np.random.default_rng(0).permutation(6)]
    a, b = (summary(ArrayCodes(one), SHUFFLED, WORK) for one in (x, moved))
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_inner_products_do_not_see_a_rotation():
    x = codes()
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((6, 6)))[0].astype(np.float32)
    for architecture in (SHUFFLED, ORDERED):
        a, b = (summaries.of_any_key(ArrayCodes(one), architecture, WORK) for one in (x, x @ turn))
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_quantiles_of_inner_products():
    x = codes()
    found = summaries.of_any_key(ArrayCodes(x), SHUFFLED, WORK)
    rows = x[4] - x.mean(axis=(0, 1))
    inner = np.sort((rows @ rows.T / 6).ravel())
    np.testing.assert_allclose(found[4, [0, -1]], inner[[0, -1]], rtol=1e-4)


def test_standardised():
    x = np.column_stack([np.arange(5.0), np.full(5, 0.1), [1e8 + i for i in range(5)]])
    found = summaries.standardised(x.astype(np.float64))
    np.testing.assert_allclose(found[:, 0].std(), 1, rtol=1e-6)
    assert (found[:, 1] == 0).all()
    assert np.isfinite(found).all()


@pytest.mark.parametrize("power", [0.0, 0.25, 1.0])
def test_components_are_those_of_the_exact_decomposition(power):
    x = codes(40, 1, 12)[:, 0] * np.arange(1, 13, dtype=np.float32)
    left, values, _ = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    wanted = left[:, :5] * values[:5] ** power
    wanted /= np.sqrt(np.mean(wanted**2))
    found = summaries.components(x, 5, power, 0)
    np.testing.assert_allclose(found @ found.T, wanted @ wanted.T, atol=2e-2)
    assert summaries.components(x, 500, power, 0).shape[1] <= 12


def test_components_of_constants():
    assert np.isfinite(summaries.components(np.ones((4, 3), dtype=np.float32), 2, 0.5, 0)).all()


def test_cosines():
    a, b = codes(3, 1, 4)[:, 0], codes(2, 1, 4, seed=1)[:, 0]
    a[0] = 0
    found = summaries.cosines(a, b)
    assert (found[0] == 0).all()
    wanted = a[1] @ b[1] / np.linalg.norm(a[1]) / np.linalg.norm(b[1])
    assert found[1, 1] == pytest.approx(wanted, rel=1e-5)
