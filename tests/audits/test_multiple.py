"""Corrections for many tests against scipy and plain loops."""

import numpy as np
import pytest
from scipy.stats import false_discovery_control

import oracles
from confide.audits.multiple import benjamini_hochberg, holm


@pytest.mark.parametrize("seed", range(5))
def test_against_scipy_and_loops(seed):
    p = np.round(np.random.default_rng(seed).random(30) ** 3, 2)  # with ties and zeros
    np.testing.assert_allclose(benjamini_hochberg(p), false_discovery_control(p, method="bh"))
    np.testing.assert_allclose(benjamini_hochberg(p), oracles.benjamini_hochberg(p))
    np.testing.assert_allclose(holm(p), oracles.holm(p))


def test_one_and_none():
    assert benjamini_hochberg(np.array([0.3])).tolist() == [0.3]
    assert holm(np.array([0.3])).tolist() == [0.3]
    assert len(benjamini_hochberg(np.array([]))) == len(holm(np.array([]))) == 0
