"""A substitute encoder from known pairs, and the control that is told wrong ones."""

from dataclasses import replace

import numpy as np
import pytest

from confide.errors import ArgumentError
from confide.inversion import base
from confide.inversion.plaintext import Plaintext, WronglyPaired
from confide.inversion.scores import Truth, score
from inversion.contract import InversionContract
from inversion.worlds import world

QUICK = {"steps": 300, "lr": 3e-3}


def scores(attack, w, known_share=0.5, seed=1):
    """Of the codes whose pair is not known."""
    n = len(w.hidden)
    order = np.random.default_rng(9).permutation(n)
    told, asked = np.split(order, [round(known_share * n)])
    known = w.known(base.SameImages)
    known = base.KnownPairs(
        architecture=known.architecture,
        codes=known.codes,
        plaintexts=known.plaintexts,
        pairs=np.column_stack([told, w.order[told]]),
    )
    finding = attack(known, base.Work(seed=seed))
    truth = Truth(
        records=w.hidden[asked],
        patient=w.patient[asked],
        codes=base.ArrayCodes(w.codes[asked]),
    )
    return {s.name: s for s in score(finding, truth)}


@pytest.fixture(scope="module")
def release():
    return world(n_patients=150, width=32)


class TestPlaintext(InversionContract):
    attack = Plaintext(steps=200, lr=3e-3)
    worlds = {"width": 16}  # noqa: RUF012

    def test_it_finds_nothing_in_noise(self):
        """Of the codes whose pair it was not told; what it was told it can learn by heart."""
        found = scores(self.attack, self.world("noise"))["challenge2"]
        assert found.chance_low <= found.value <= found.chance_high

    @pytest.mark.parametrize("loss", ["mse", "l1"])
    def test_known_pairs_give_the_others_away(self, release, loss):
        found = scores(Plaintext(**QUICK, loss=loss), release)
        assert found["challenge2"].value > 0.3
        assert found["challenge2"].low > found["challenge2"].chance_high

    def test_more_pairs_give_more_away(self, release):
        found = [
            scores(Plaintext(**QUICK, share=share), release)["challenge2"].value
            for share in (0.0, 0.25, 1.0)
        ]
        assert found == sorted(found)
        assert found[2] > found[1] + 0.1

    def test_without_pairs_it_is_at_chance(self, release):
        found = scores(Plaintext(**QUICK, share=0.0), release)["challenge2"]
        assert found.chance_low <= found.value <= found.chance_high

    def test_a_perfect_attacker_has_no_error(self):
        """Of shuffled codes too: given all pairs of linear codes the error goes to zero."""
        w = world("linear", width=16, patch=16)
        settings = w.architecture.settings.model_copy(update={"shuffle": True})
        rng = np.random.default_rng(0)
        shuffled = np.stack([rng.permutation(code) for code in w.codes])
        known = replace(
            w.known(base.KnownPairs),
            architecture=replace(w.architecture, settings=settings),
            codes=base.ArrayCodes(shuffled),
        )
        finding = Plaintext(steps=600, lr=1e-2)(known, base.Work())
        error = np.mean((finding.means(w.hidden) - w.codes.mean(axis=1)) ** 2)
        assert error < 1e-2 * w.codes.mean(axis=1).var(axis=0).mean()

    def test_the_curve_goes_from_no_pair_to_all(self):
        ((axis, points),) = self.attack.curves().items()
        assert axis == "known pairs"
        assert {x: one.share for x, one in points.items()} == {
            0.0: 0.0,
            0.125: 0.125,
            0.25: 0.25,
            0.5: 0.5,
            1.0: 1.0,
        }

    @pytest.mark.parametrize("pair", [(-1, 0), (0, -1), (10_000, 0), (0, 10_000)])
    def test_pairs_that_do_not_exist(self, pair):
        known = replace(self.world("release").known(base.KnownPairs), pairs=np.array([pair]))
        with pytest.raises(ArgumentError, match="Expected pairs of a code in"):
            self.attack(known, base.Work())

    def test_pairs_of_another_shape(self):
        known = replace(self.world("release").known(base.KnownPairs), pairs=np.arange(3))
        with pytest.raises(ArgumentError, match="pairs of shape"):
            self.attack(known, base.Work())

    def test_settings_out_of_range(self):
        with pytest.raises(ArgumentError, match=r"share=1\.5"):
            Plaintext(share=1.5)
        with pytest.raises(ArgumentError, match="loss"):
            Plaintext(loss="huber")


class TestWronglyPaired(InversionContract):
    attack = WronglyPaired(steps=200, lr=3e-3)
    worlds = {"width": 16}  # noqa: RUF012

    def test_no_pair_is_right(self):
        known = self.world("release").known(base.KnownPairs)
        used = self.attack._used(known)
        assert not (used == known.pairs).all(axis=1).any()
        assert sorted(used[:, 1]) == sorted(known.pairs[:, 1])

    def test_it_breaks_the_positive_control(self):
        """It must not; where rows are in order the means of positions alone tell a little."""
        found = scores(self.attack, self.world("linear"))["challenge2"].value
        right = scores(Plaintext(steps=200, lr=3e-3), self.world("linear"))["challenge2"].value
        assert found < right - 0.4

    def test_it_stays_at_chance_on_a_release(self, release):
        found = scores(WronglyPaired(**QUICK), release)["challenge2"]
        assert found.chance_low <= found.value <= found.chance_high
