"""The attribute probe: what images show is learned from codes, and nothing from noise."""

from dataclasses import replace

import numpy as np
import pytest

from confide.errors import ArgumentError
from confide.inversion import base
from confide.inversion.attributes import AttributeProbe
from confide.inversion.ceiling import raw_architecture, raw_codes
from confide.inversion.scores import score
from inversion.contract import WORK, InversionContract


class TestAttributeProbe(InversionContract):
    attack = AttributeProbe()
    worlds = {"n_patients": 120}  # noqa: RUF012

    def test_codes_give_away_what_images_show(self):
        found = self.headline("release")
        assert found.value > 0.8
        assert found.beyond_chance

    def test_the_ceiling_is_near(self):
        w = self.world("release")
        known = w.known(base.KnownAttributes)
        raw = replace(
            known,
            codes=raw_codes(w.hidden, w.architecture),
            architecture=raw_architecture(w.architecture),
        )
        truth = w.truth(base.KnownAttributes)
        ceiling = score(self.attack(raw, WORK), truth, seed=1)[0]
        assert ceiling.value > self.headline("release").value - 0.1

    def test_shuffled_attributes_teach_nothing(self):
        w = self.world("release")
        known = w.known(base.KnownAttributes)
        told = np.flatnonzero(known.attribute >= 0)
        wrong = known.attribute.copy()
        wrong[told] = np.random.default_rng(0).permutation(wrong[told])
        found = score(self.attack(replace(known, attribute=wrong), WORK), w.truth(type(known)))[0]
        assert not found.beyond_chance

    def test_a_deadline_is_told(self):
        _, finding = self.answer("release", replace(WORK, seconds=0.0))
        assert "1 of 7 penalties" in finding.notes[0]

    def test_too_little_is_known(self):
        known = self.world("release").known(base.KnownAttributes)
        one = np.where(np.arange(len(known.attribute)) == 0, 1, 0)
        for attribute in (one, np.full(len(one), -1)):
            with pytest.raises(ArgumentError, match="at least 2 codes with either value"):
                self.attack(replace(known, attribute=attribute), WORK)
        with pytest.raises(ArgumentError, match="attribute"):
            self.attack(replace(known, attribute=one[1:]), WORK)

    def test_all_are_known(self):
        w = self.world("release")
        known = replace(w.known(base.KnownAttributes), attribute=w.positive)
        assert np.isnan(self.attack(known, WORK).scores).all()


def test_settings():
    with pytest.raises(ArgumentError, match="folds"):
        AttributeProbe(folds=1)
    with pytest.raises(ArgumentError, match="n_components"):
        AttributeProbe(n_components=0)
