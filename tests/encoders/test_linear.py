import numpy as np
import pytest

from confide.encoders.base import build
from confide.encoders.key import Key
from confide.encoders.settings import LinearSettings
from encoders.slow import slow_linear, slow_patches

KEY = Key(bytes(range(32)))


@pytest.mark.parametrize("shape", [(1, 8, 12), (3, 8, 4), (2, 20)])
def test_codes_are_those_of_the_slow_reference(shape):
    records = np.random.default_rng(0).normal(3, 2, (4, *shape)).astype(np.float32)
    encoder = build(LinearSettings(patch=4, width=9), shape, KEY)
    encoder.calibrate(records)
    axes = (0, *range(2, records.ndim))
    x = records.astype(np.float64)
    x = (x - x.mean(axis=axes, keepdims=True)) / x.std(axis=axes, keepdims=True)
    expected = [slow_linear(KEY, "patch", slow_patches(one, 4), 9) for one in x]
    codes = encoder(records)
    np.testing.assert_allclose(codes, expected, atol=1e-5)
    # A code is a function of its record, and its rows keep their order unless asked.
    np.testing.assert_allclose(encoder(records[2:3])[0], codes[2], atol=1e-6)
    mixed = build(LinearSettings(patch=4, width=9, shuffle=True), shape, KEY)
    mixed.use(encoder.calibration)
    shuffled = mixed(records)
    assert not np.allclose(shuffled, codes)
    for code, other in zip(codes, shuffled, strict=True):
        order, of = np.argsort(code[:, 0]), np.argsort(other[:, 0])
        np.testing.assert_allclose(other[of], code[order], atol=1e-6)


def test_codes_are_linear_in_the_record():
    rng = np.random.default_rng(1)
    records = rng.normal(size=(6, 1, 8, 8)).astype(np.float32)
    encoder = build(LinearSettings(patch=4, width=5), (1, 8, 8), KEY)
    encoder.calibrate(records)
    a, b, middle = encoder(np.stack([records[0], records[1], (records[0] + records[1]) / 2]))
    np.testing.assert_allclose(middle, (a + b) / 2, atol=1e-6)


def test_vector():
    records = (np.arange(2 * 64) * 37 % 251).astype(np.uint8).reshape(2, 1, 8, 8)
    encoder = build(LinearSettings(patch=4, width=5), (1, 8, 8), KEY)
    encoder.calibrate(records)
    codes = encoder(records)
    found = [codes[0, 0, 0], codes[1, 3, 4], np.abs(codes).sum()]
    np.testing.assert_allclose(found, [0.3271402, 0.9263338, 14.694439], rtol=1e-5)
