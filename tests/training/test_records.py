"""Records as networks read them: checked, and standardised by what all models share."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from confide.errors import ArgumentError
from confide.training import records
from confide.training.records import Records

CPU = torch.device("cpu")


def _on(inputs, n_audited=None, **changes):
    n = len(inputs) if n_audited is None else n_audited
    of = {"label": np.zeros(n, dtype=np.int64), "task": "binary", "n_classes": 2, **changes}
    return Records.on(CPU, inputs, n_audited=n, **of)


def _signals(n=50, seed=0):
    rng = np.random.default_rng(seed)
    # leads of very different units, one far from 0, one constant
    x = rng.normal(size=(n, 4, 33)) * np.array([1e-6, 1.0, 1e4, 0.0])[:, None]
    return (x + np.array([0.0, -3.0, 1e6, 0.3])[:, None]).astype(np.float32)


@pytest.mark.parametrize("at_once", [1, 300, 10**9])
def test_signals_are_standardised_by_lead_over_audited_records(monkeypatch, at_once):
    monkeypatch.setattr(records, "_NUMBERS_AT_ONCE", at_once)
    x = _signals()
    made = _on(x, n_audited=40)
    audited = x[:40].astype(np.float64)
    mean, sd = audited.mean(axis=(0, 2)), audited.std(axis=(0, 2))
    np.testing.assert_allclose(made.mean[:, 0], mean, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(made.scale[:3, 0], sd[:3], rtol=1e-6)
    z = made.standardised(slice(0, 40)).numpy()
    np.testing.assert_allclose(z.mean(axis=(0, 2))[:2], 0, atol=1e-5)
    np.testing.assert_allclose(z.std(axis=(0, 2))[:3], 1, rtol=1e-4)
    assert (z[:, 3] == 0).all()  # a constant lead
    rows = torch.tensor([45, 3])
    expected = (x[[45, 3]] - made.mean.numpy()) / made.scale.numpy()
    np.testing.assert_array_equal(made.standardised(rows).numpy(), expected)
    assert made.shape == (4, 33)
    assert made.inputs.dtype == torch.float32


def test_held_out_signals_change_no_statistic():
    x = _signals()
    other = x.copy()
    other[40:] = 7e5
    first, second = _on(x, n_audited=40), _on(other, n_audited=40)
    assert torch.equal(first.mean, second.mean)
    assert torch.equal(first.scale, second.scale)


def test_tables_stay_as_they_are():
    x = np.random.default_rng(0).normal(size=(9, 5)).astype(np.float32)
    made = _on(x)
    assert made.mean is made.scale is None
    np.testing.assert_array_equal(made.standardised(slice(0, 9)).numpy(), x)


def test_images_are_standardised_by_channel():
    x = np.random.default_rng(0).integers(0, 256, (20, 2, 16, 16), dtype=np.uint8)
    z = _on(x).standardised(slice(0, 20)).numpy()
    np.testing.assert_allclose(z.mean(axis=(0, 2, 3)), 0, atol=1e-6)
    np.testing.assert_allclose(z.std(axis=(0, 2, 3)), 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (np.zeros((4, 3, 20)), "got float64"),
        (np.zeros((4, 3, 20), np.int16), "got int16"),
        (np.zeros((4, 0, 20), np.float32), "none of them empty"),
        (np.zeros((4, 3, 8, 8), np.float32), "uint8"),
        (np.zeros((4, 2, 3, 8, 8), np.uint8), "uint8"),
    ],
)
def test_inputs_of_another_form_are_refused(inputs, words):
    with pytest.raises(ArgumentError, match=words):
        _on(inputs)


def test_signals_with_a_gap_are_refused():
    x = _signals()
    x[7, 2, 5] = np.nan
    with pytest.raises(ArgumentError, match=r"nan at index \(7, 2, 5\)"):
        _on(x)
