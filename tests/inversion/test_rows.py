import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from confide.encoders.settings import LinearSettings, NeuraCryptSettings
from confide.errors import ArgumentError
from confide.inversion import rows
from confide.inversion.base import Architecture, ArrayCodes, CodesOnly, Work
from inversion.worlds import phantom


def shuffled(codes, seed=0):
    """Codes with rows in random orders, and the position of each row."""
    rng = np.random.default_rng(seed)
    positions = np.array([rng.permutation(codes.shape[1]) for _ in codes])
    return np.take_along_axis(codes, positions[:, :, None], axis=1), positions


def share_in_place(order, positions):
    """Share of rows that stand where most rows of their position stand."""
    found = np.take_along_axis(positions, order.rows, axis=1)
    usual = np.array([np.bincount(column).argmax() for column in found.T])
    return (found == usual).mean()


def encoded(private_depth, width=128, n=40):
    records, _, _ = phantom(n, 7, size=(64, 64))
    settings = NeuraCryptSettings(patch=8, width=width, private_depth=private_depth)
    return Architecture(settings=settings, shape=records.shape[1:]).shadow(records, 1)(records)


@pytest.mark.parametrize("private_depth", [0, 4, 12])
def test_rows_are_put_in_one_order(private_depth):
    codes, positions = shuffled(encoded(private_depth))
    order = rows.in_order(ArrayCodes(codes), Work())
    assert not order.known
    assert np.array_equal(np.sort(order.rows, axis=1)[:, 0], np.zeros(len(codes)))
    assert share_in_place(order, positions) > 0.995


def test_the_mean_is_that_of_the_codes_in_order():
    codes, _ = shuffled(encoded(2))
    order = rows.in_order(ArrayCodes(codes), Work())
    expected = np.mean([c[r] for c, r in zip(codes, order.rows, strict=True)], axis=0)
    np.testing.assert_allclose(order.mean, expected, atol=1e-5)
    np.testing.assert_array_equal(
        order.read(ArrayCodes(codes), slice(3, 5)),
        [codes[3][order.rows[3]], codes[4][order.rows[4]]],
    )


def test_codes_that_are_read_in_parts_give_the_same(monkeypatch):
    codes = ArrayCodes(shuffled(encoded(2))[0])
    whole = rows.in_order(codes, Work())
    monkeypatch.setattr(rows, "NUMBERS_AT_ONCE", 3 * 64 * 128)
    assert len(rows.parts(codes)) > 10
    done = []
    in_parts = rows.in_order(codes, Work(progress=lambda *at: done.append(at)))
    np.testing.assert_array_equal(in_parts.rows, whole.rows)
    np.testing.assert_allclose(in_parts.mean, whole.mean, atol=1e-5)
    assert done == sorted(done)
    assert done[-1] == (codes.n_records, codes.n_records)


def test_more_codes_than_the_sample(monkeypatch):
    codes, positions = shuffled(encoded(4))
    monkeypatch.setattr(rows, "SAMPLE", 12)
    assert share_in_place(rows.in_order(ArrayCodes(codes), Work()), positions) > 0.99


def test_clashes_are_solved_exactly():
    import torch

    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.standard_normal((5, 30, 4)))
    mean = torch.from_numpy(rng.standard_normal((30, 4)))
    found = rows._nearest(x, mean, mean)
    for code, order in zip(x.numpy(), found, strict=True):
        costs = ((mean.numpy()[:, None] - code[None]) ** 2).sum(axis=2)
        best = linear_sum_assignment(costs)[1]
        assert costs[np.arange(30), order].sum() == pytest.approx(costs[np.arange(30), best].sum())


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_codes(n):
    codes, _ = shuffled(encoded(1)[:n])
    order = rows.in_order(ArrayCodes(codes), Work())
    np.testing.assert_array_equal(np.sort(order.rows, axis=1), np.tile(np.arange(64), (n, 1)))


def test_codes_that_are_all_the_same():
    codes = np.repeat(encoded(1)[:1], 5, axis=0)
    mixed, positions = shuffled(codes)
    assert share_in_place(rows.in_order(ArrayCodes(mixed), Work()), positions) == 1


def test_no_codes():
    with pytest.raises(ArgumentError, match="at least one code"):
        rows.in_order(ArrayCodes(np.empty((0, 4, 8), dtype=np.float32)), Work())


def test_rows_that_were_not_shuffled_stay():
    codes = encoded(1)[:6]
    architecture = Architecture(settings=LinearSettings(patch=8, width=128), shape=(1, 64, 64))
    known = CodesOnly(architecture=architecture, codes=ArrayCodes(codes))
    order = rows.order_of(known, Work())
    assert order.known
    np.testing.assert_allclose(order.mean, codes.mean(axis=0), atol=1e-6)
    np.testing.assert_array_equal(order.read(known.codes, slice(0, 2)), codes[:2])
    assert rows.has_positions(known)


def test_rows_without_a_position():
    for settings in (
        LinearSettings(shuffle=True),
        NeuraCryptSettings(position=False),
    ):
        architecture = Architecture(settings=settings, shape=(1, 64, 64))
        known = CodesOnly(
            architecture=architecture, codes=ArrayCodes(np.zeros((1, 16, 2048), "f4"))
        )
        assert not rows.has_positions(known)


@pytest.mark.slow
def test_real_radiographs_at_any_depth(real_data):
    images = np.load(real_data / "nih_cxr64" / "images.npz")["images"][:100, None]
    for private_depth in (0, 4, 44):
        settings = NeuraCryptSettings(patch=4, width=256, private_depth=private_depth)
        architecture = Architecture(settings=settings, shape=images.shape[1:])
        codes, positions = shuffled(architecture.shadow(images, 1)(images))
        order = rows.in_order(ArrayCodes(codes), Work())
        assert share_in_place(order, positions) > (0.98 if private_depth == 44 else 0.999)
