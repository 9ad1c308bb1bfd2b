"""What every attack promises; a test class inherits it and names its attack."""

import numpy as np
import pytest

from confide.attacks import base
from confide.errors import ArgumentError
from confide.masks import balanced
from oracles import left_out_pair


def study(seed, n_models=16, n_records=400, leak=0.0, shape=(), held=None):
    """Signals and membership of records, one a patient; `leak` in standard deviations."""
    rng = np.random.default_rng(seed)
    held = balanced(n_models, n_records, seed=seed) if held is None else held
    level = rng.normal(0.5, 1.0, (n_records, *shape))
    spread = np.exp(0.3 * rng.standard_normal((n_records, *shape)))
    shift = leak * held.reshape(*held.shape, *(1,) * len(shape))
    return level + spread * (rng.standard_normal((n_models, n_records, *shape)) + shift), held


def mean_auc(scores, held):
    """Mean over targets of the area over records."""
    areas = []
    for row, h in zip(scores, held, strict=True):
        known = ~np.isnan(row)
        ranks = row[known].argsort().argsort() + 1.0
        m, n = h[known].sum(), (~h[known]).sum()
        areas.append((ranks[h[known]].sum() - m * (m + 1) / 2) / (m * n))
    return float(np.mean(areas))


class Sliced:
    """An array that can only be sliced as signals[:, a:b]."""

    def __init__(self, values):
        self._values, self.shape = values, values.shape

    def __getitem__(self, key):
        models, records = key
        assert models == slice(None)
        assert isinstance(records, slice)
        return self._values[:, records].copy()


class AttackContract:
    attack = None
    uses_references = True

    def score_without_pair(self, signals, held, target, record, population=None):
        """score() with the target and its partner removed, of all records."""
        gone = left_out_pair(held, target, record)
        rest = [i for i in range(len(held)) if i not in gone]
        z = None if population is None else (population[target], np.delete(population, target, 0))
        return self.attack.score(signals[target], signals[rest], held[rest], z)

    def test_shape_and_finite(self):
        for shape in ((), (3,), (2, 3)):
            signals, held = study(0, shape=shape)
            scores = self.attack.leave_one_out(signals, held)
            assert scores.shape == held.shape
            assert np.isfinite(scores).all()
            one = self.attack.score(signals[0], signals[1:], held[1:])
            assert one.shape == held[0].shape
            assert np.isfinite(one).all()

    def test_members_score_higher(self):
        signals, held = study(1, leak=1.5)
        assert mean_auc(self.attack.leave_one_out(signals, held), held) > 0.65
        rest = self.attack.score(signals[0], signals[1:], held[1:])
        assert mean_auc(rest[None], held[:1]) > 0.6

    @pytest.mark.parametrize("n_models", [4, 8, 16, 64])
    @pytest.mark.parametrize("design", ["balanced", "coins", "missing"])
    def test_chance_without_a_leak(self, n_models, design):
        """Nor do the counts of models in and out tell members."""
        areas = []
        for seed in range(max(3, 48 // n_models)):
            rng = np.random.default_rng(seed)
            held = balanced(n_models, 500, seed=seed)
            if design == "coins":
                held = rng.random((n_models, 500)) < 0.5
            if design == "missing":
                held = balanced(n_models + 4, 500, seed=seed)[:n_models]
            signals, _ = study(seed + 100, n_models, 500, held=held)
            areas.append(mean_auc(self.attack.leave_one_out(signals, held), held))
        # Errors of targets are hardly correlated; 4.5 of them bound 60 such tests together.
        se = np.sqrt(501 / (12 * 250 * 250) / (n_models * len(areas)))
        assert abs(np.mean(areas) - 0.5) < 4.5 * 1.3 * se

    def test_records_in_any_order(self):
        signals, held = study(2, shape=(2,), leak=0.5)
        order = np.random.default_rng(0).permutation(held.shape[1])
        there = self.attack.leave_one_out(signals[:, order], held[:, order])
        back = self.attack.leave_one_out(signals, held)[:, order]
        np.testing.assert_allclose(there, back, rtol=1e-9, atol=1e-12)

    def test_references_in_any_order(self):
        signals, held = study(3, leak=0.5)
        if self.attack.name == "rmia_offline":
            pytest.skip("tunes on the first of its references")
        order = np.random.default_rng(0).permutation(15) + 1
        there = self.attack.score(signals[0], signals[order], held[order])
        back = self.attack.score(signals[0], signals[1:], held[1:])
        np.testing.assert_allclose(there, back, rtol=1e-9, atol=1e-12)

    def test_unknown_labels(self):
        signals, held = study(4, shape=(2, 3), leak=1.0)
        signals[:, :50, :, 1] = np.nan
        signals[:, 7] = np.nan
        scores = self.attack.leave_one_out(signals, held)
        assert np.isnan(scores[:, 7]).all()
        assert np.isfinite(np.delete(scores, 7, axis=1)).all()
        assert mean_auc(scores, held) > 0.6

    def test_an_identical_view_changes_nothing(self):
        signals, held = study(5, leak=0.5)
        twice = np.repeat(signals[:, :, None], 2, axis=2)
        np.testing.assert_allclose(
            self.attack.leave_one_out(twice, held),
            self.attack.leave_one_out(signals, held),
            rtol=1e-9,
            atol=1e-9,
        )

    def test_chunks_change_nothing(self, monkeypatch):
        signals, held = study(6, leak=0.5)
        held[0, :200] = True  # uneven counts in some chunks only
        population = study(7, n_records=60)[0]
        whole = self.attack.leave_one_out(signals, held, population)
        monkeypatch.setattr(base, "CHUNK_ELEMENTS", 16 * 37)
        np.testing.assert_allclose(
            self.attack.leave_one_out(Sliced(signals), held, population), whole, rtol=1e-10
        )

    def test_own_signals_never_enter_the_references(self):
        """Shifting the target alone moves its scores as score() says, and no reference of it."""
        if not self.uses_references:
            return
        signals, held = study(8, leak=0.5)
        changed = signals.copy()
        changed[3] += 5.0
        before = self.attack.leave_one_out(signals, held)
        after = self.attack.leave_one_out(changed, held)
        assert not np.allclose(before[3], after[3])
        # A pair of records with the same references differs by the target's signals alone.
        twin = signals.copy()
        twin[:, 1], held[:, 1] = twin[:, 0], held[:, 0]
        twin[3, 1] = 9.0
        scores = self.attack.leave_one_out(twin, held)
        same = twin.copy()
        same[3, 0] = 9.0
        again = self.attack.leave_one_out(same, held)
        np.testing.assert_allclose(again[3, 0], scores[3, 1], rtol=1e-9)

    def test_refuses_a_mask_that_does_not_fit(self):
        signals, held = study(9)
        for bad in (held[:, 1:], held.astype(float)):
            with pytest.raises(ArgumentError, match="bool membership"):
                self.attack.leave_one_out(signals, bad)

    def test_records_in_too_few_models_have_no_score(self):
        signals, held = study(10)
        held[:, 0] = np.arange(16) == 0
        held[:, 1] = True
        scores = self.attack.leave_one_out(signals, held)
        assert np.isfinite(scores[:, 2:]).all()
        if self.uses_references:
            assert np.isnan(scores[:, :2]).all()

    def test_constant_signals_are_chance(self):
        signals, held = np.zeros((8, 50)), balanced(8, 50, seed=0)
        scores = self.attack.leave_one_out(signals, held)
        assert np.ptp(scores) < 1e-12
