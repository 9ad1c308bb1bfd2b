"""An encoder trained on a matching knows the key well enough to mend the matching."""

import numpy as np
import pytest
import torch

from confide.errors import ArgumentError
from confide.inversion import base
from confide.inversion.extraction import Ordered, correlations, extract, nearness
from confide.inversion.rows import Order
from confide.inversion.substitute import LATE
from inversion.worlds import world

WORK = base.Work(seed=2)
EFFORT = {"steps": 150, "lr": 3e-3}


@pytest.fixture(scope="module")
def scene():
    """A release of which the key is known here: codes in order, and how they were shuffled."""
    w = world(n_patients=30, width=48)
    ordered = w.architecture.shadow(w.hidden, 77)(w.hidden)
    rng = np.random.default_rng(3)
    moved = np.stack([rng.permutation(ordered.shape[1]) for _ in ordered])
    codes = np.take_along_axis(ordered, moved[:, :, None], axis=1)
    order = Order(rows=np.argsort(moved, axis=1), mean=ordered.mean(axis=0), known=False)
    known = base.SameImages(
        architecture=w.architecture, codes=base.ArrayCodes(codes), plaintexts=w.plaintexts
    )
    return w, known, order, ordered


@pytest.fixture(scope="module")
def extracted(scene):
    w, known, order, _ = scene
    return extract(known, w.order, order, WORK, **EFFORT)


def test_codes_in_order(scene):
    _, known, order, ordered = scene
    codes = Ordered(of=known.codes, order=order)
    assert codes.n_records == len(ordered)
    assert codes.shape == ordered.shape[1:]
    assert np.array_equal(codes.codes(slice(3, 9)), ordered[3:9])
    assert np.array_equal(codes.codes(np.array([4, 0])), ordered[[4, 0]])


def test_it_predicts_codes(scene, extracted):
    w, _, _, ordered = scene
    rows = extracted.rows(w.hidden)
    assert rows.shape == ordered.shape
    assert rows.dtype == np.float32
    beyond = ordered - ordered.mean(axis=0)
    assert np.mean((rows - ordered) ** 2) < 0.8 * np.mean(beyond**2)
    np.testing.assert_allclose(extracted.means(w.hidden), rows.mean(axis=1), atol=1e-4)


def test_the_nearest_code_is_the_own(scene, extracted):
    w, known, order, _ = scene
    similarity = nearness(extracted, known, order, WORK)
    assert similarity.dtype == np.float32
    assert np.array_equal(similarity.argmax(axis=1), w.order)


def test_a_matching_that_is_partly_right_gets_better(scene):
    w, known, order, _ = scene
    wrong = w.order.copy()
    some = np.random.default_rng(1).permutation(len(wrong))[: len(wrong) // 3]
    wrong[some] = np.roll(wrong[some], 1)
    found = extract(known, wrong, order, WORK, **EFFORT)
    assert np.mean(nearness(found, known, order, WORK).argmax(axis=1) == w.order) > 0.9


def test_a_matching_that_is_wrong_finds_nothing(scene):
    w, known, order, _ = scene
    wrong = np.random.default_rng(8).permutation(len(w.order))
    found = extract(known, wrong, order, WORK, **EFFORT)
    assert np.mean(nearness(found, known, order, WORK).argmax(axis=1) == w.order) < 0.2


def test_codes_that_were_not_assigned_are_left_out(scene):
    w, known, order, _ = scene
    some = np.where(np.arange(len(w.order)) % 2, w.order, -1)
    found = extract(known, some, order, WORK, **EFFORT)
    assert np.mean(nearness(found, known, order, WORK).argmax(axis=1) == w.order) > 0.9


def test_a_sketch_keeps_distances(scene, extracted, monkeypatch):
    _, known, order, ordered = scene
    rows = extracted.rows(known.plaintexts)
    exact = correlations(*(torch.from_numpy(x).flatten(1) for x in (ordered, rows)))
    monkeypatch.setattr("confide.inversion.extraction.SKETCH", 16 * rows.shape[1])
    found = nearness(extracted, known, order, WORK)
    assert np.abs(found - exact).max() < 0.25
    assert np.corrcoef(found.ravel(), exact.ravel())[0, 1] > 0.95


def test_correlations():
    rng = np.random.default_rng(6)
    left, right = rng.standard_normal((2, 5, 40))
    found = correlations(*(torch.from_numpy(x) for x in (left, right)))
    a, b = left - left.mean(axis=0), right - right.mean(axis=0)
    wanted = (a @ b.T) / np.outer(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1))
    np.testing.assert_allclose(found, wanted)


def test_repeats_itself(scene, extracted):
    w, known, order, _ = scene
    again = extract(known, w.order, order, WORK, **EFFORT)
    np.testing.assert_allclose(again.rows(w.hidden[:3]), extracted.rows(w.hidden[:3]), atol=1e-5)


def test_deadline(scene):
    w, known, order, _ = scene
    found = extract(known, w.order, order, base.Work(seconds=0.0), **EFFORT)
    assert found.notes == (LATE,)
    assert np.isfinite(found.means(w.hidden[:2])).all()


def test_too_few_pairs(scene):
    w, known, order, _ = scene
    with pytest.raises(ArgumentError, match="at least 2 pairs, got 1"):
        extract(known, np.where(w.order == 0, 0, -1), order, WORK)
