"""What every attack on a release promises; a test class inherits it and names its attack."""

import json
from dataclasses import FrozenInstanceError, fields, replace
from functools import cache
from typing import get_args

import numpy as np
import pytest
import torch

from confide.errors import ArgumentError
from confide.inversion import base
from confide.inversion.scores import score
from inversion.worlds import world

WORK = base.Work(seed=3)


@cache
def a_world(kind, items):
    return world(kind, **dict(items))


def arrays(known):
    found = [known.codes.values]
    for name in ("plaintexts", "attribute", "pairs"):
        if hasattr(known, name):
            found.append(getattr(known, name))
    return found


def numbers_of(finding, world):
    """All that a finding says, as arrays."""
    out = []
    for f in fields(finding):
        value = getattr(finding, f.name)
        if isinstance(value, np.ndarray):
            out.append(value)
        elif callable(value):
            out.append(value(world.hidden[:5]))
    return out


class InversionContract:
    attack = None
    worlds = {}  # noqa: RUF012 (arguments of `world`, by target if they differ)
    # What the positive and the negative control are made of, where one world does not fit all.
    positive = {}  # noqa: RUF012
    negative = {}  # noqa: RUF012
    needs_plaintexts = 2

    def world(self, kind):
        more = {"linear": self.positive, "noise": self.negative}.get(kind, {})
        return a_world(kind, tuple(sorted((self.worlds | more).items())))

    def answer(self, kind, work=WORK):
        w = self.world(kind)
        return w, self.attack(w.known(self.attack.knowledge), work)

    def headline(self, kind):
        w, finding = self.answer(kind)
        scores = {s.name: s for s in score(finding, w.truth(self.attack.knowledge), seed=1)}
        return scores[self.attack.headline]

    def test_the_type_says_what_is_known_and_returned(self):
        attack = type(self.attack)
        parents = [b for c in attack.__mro__ for b in getattr(c, "__orig_bases__", ())]
        bound = [get_args(b) for b in parents if len(get_args(b)) == 2]
        assert (attack.knowledge, attack.finding) in bound
        assert issubclass(attack.knowledge, base.CodesOnly)
        assert issubclass(attack.finding, base.Finding)
        assert attack.name == attack.name.lower()
        assert attack.about.endswith(".")
        assert attack.source

    def test_settings_are_plain_and_fixed(self):
        settings = self.attack.settings()
        assert json.loads(json.dumps(settings)) == settings
        for budget in ("quick", "standard", "paper"):
            assert isinstance(type(self.attack).of(budget), type(self.attack))
        for name in settings:
            with pytest.raises(FrozenInstanceError):
                setattr(self.attack, name, 1)
            break

    def test_variants_are_attacks_of_the_same_kind(self):
        for axis, points in self.attack.curves().items():
            assert axis
            assert len(points) > 1
            assert all(type(one) is type(self.attack) for one in points.values())

    def test_it_answers_for_each_code_and_repeats_itself(self):
        w, first = self.answer("release")
        assert isinstance(first, self.attack.finding)
        state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
        known = w.known(self.attack.knowledge)
        for array in arrays(known):
            array.setflags(write=False)
        try:
            second = self.attack(known, WORK)
        finally:
            for array in arrays(known):
                array.setflags(write=True)
        assert torch.equal(state[0], torch.get_rng_state())
        assert np.array_equal(state[1], np.random.get_state()[1])  # noqa: NPY002
        for a, b in zip(numbers_of(first, w), numbers_of(second, w), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
        n = known.codes.n_records
        if isinstance(first, base.Matching):
            assert first.similarity.shape == (n, len(known.plaintexts))
            assert first.similarity.dtype == np.float32
            assert np.isfinite(first.similarity).all()
            assert first.assigned.shape == (n,)
            taken = first.assigned[first.assigned >= 0]
            assert len(np.unique(taken)) == len(taken)
            assert (taken < len(known.plaintexts)).all()
        if isinstance(first, base.Attributes):
            unknown = getattr(known, "attribute", np.full(n, -1)) == -1
            if isinstance(known, base.LabelledPlaintexts):
                unknown = np.ones(n, dtype=bool)
            assert np.isfinite(first.scores[unknown]).all()
            assert np.isnan(first.scores[~unknown]).all()
        if isinstance(first, base.Maps):
            assert first.maps.shape == (n, known.architecture.n_patches)
        if isinstance(first, base.Reconstruction):
            assert first.records.shape == (n, *known.architecture.shape)

    def test_it_breaks_the_positive_control(self):
        found = self.headline("linear")
        assert found.value >= self.attack.breaks_at
        assert found.value > found.chance_high

    def test_it_finds_nothing_in_noise(self):
        found = self.headline("noise")
        assert found.chance_low <= found.value <= found.chance_high

    def test_progress_only_goes_on(self):
        seen = []
        self.answer("release", replace(WORK, progress=lambda *at: seen.append(at)))
        assert seen
        done, total = zip(*seen, strict=True)
        assert len(set(total)) == 1
        assert list(done) == sorted(done)
        assert done[-1] <= total[-1]

    def test_a_deadline_stops_it_or_it_ends(self):
        _, finding = self.answer("release", replace(WORK, seconds=0.0))
        assert isinstance(finding, self.attack.finding)

    def test_plaintexts_that_do_not_fit(self):
        kind = self.attack.knowledge
        if not issubclass(kind, base.Unpaired):
            pytest.skip("it is given none")
        known = self.world("release").known(kind)
        with pytest.raises(ArgumentError, match="plaintexts"):
            self.attack(replace(known, plaintexts=known.plaintexts[:, :, :-8]), WORK)
