"""Maximum mean discrepancy, and the substitute encoder that makes it small."""

import math

import numpy as np
import pytest
import torch

from confide.inversion import base, similarity
from confide.inversion.mmd import MMD, FromNoise, mmd2
from confide.inversion.scores import score
from inversion.contract import InversionContract


def samples(n, m, d, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return (
        scale * torch.randn(n, d, generator=generator),
        scale * (torch.randn(m, d, generator=generator) + 0.3),
    )


def slow(real, made):
    """Pair by pair, as the definition has it."""

    def k(a, b):
        return sum(
            math.exp(-sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) / (2 * w))
            for w in similarity.MMD_WIDTHS
        )

    def mean(left, right):
        return sum(k(a, b) for a in left for b in right) / (len(left) * len(right))

    real, made = real.double().tolist(), made.double().tolist()
    return mean(real, real) + mean(made, made) - 2 * mean(real, made)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
def test_mmd_is_that_of_a_double_loop(scale):
    real, made = samples(7, 5, 3, scale=scale)
    assert float(mmd2(real, made)) == pytest.approx(slow(real, made), rel=1e-5, abs=1e-9)


def test_mmd_of_equal_samples_is_zero_wherever_they_lie():
    real, _ = samples(6, 1, 4)
    for x in (real, 1e4 + real, 1e-4 * real):
        assert float(mmd2(x, x[torch.tensor([3, 1, 0, 5, 4, 2])])) == pytest.approx(0, abs=1e-6)


def test_mmd_of_two_points_far_apart():
    """No kernel but those wider than the distance sees both: 2 * (19 - those)."""
    real, made = torch.zeros(1, 2), torch.full((1, 2), 1e3)
    left = sum(math.exp(-2e6 / (2 * w)) for w in similarity.MMD_WIDTHS)
    assert float(mmd2(real, made)) == pytest.approx(2 * (19 - left), rel=1e-6)


def test_mmd_grows_with_the_difference():
    real, made = samples(60, 60, 4)
    found = [float(mmd2(real, made + shift)) for shift in (-0.3, 0.2, 1.0, 3.0)]
    assert found == sorted(found)


def test_gradient_is_that_of_differences():
    real, made = (x.double() for x in samples(5, 4, 3))
    made.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: mmd2(real, x), made, atol=1e-4)


class TestMMD(InversionContract):
    attack = MMD(steps=250, batch_size=64, lr=1e-2)
    worlds = {"width": 16}  # noqa: RUF012

    def test_given_the_same_images_it_recovers_the_linear_encoder(self):
        w = self.world("linear")
        known = w.known(base.SameImages)
        finding = self.attack(known, base.Work(seed=1))
        found = {s.name: s.value for s in score(finding, w.truth(base.Unpaired))}
        assert found["challenge2"] == found["challenge2_reverse"] == 1.0
        assert found["mse_ratio"] < 0.01

    def test_a_release_is_attacked_by_mean_rows_whose_order_does_not_matter(self):
        w = self.world("release")
        known = w.known(base.Unpaired)
        attack = MMD(steps=20)
        first = attack(known, base.Work()).means(w.hidden)
        rng = np.random.default_rng(0)
        other = np.stack([rng.permutation(code) for code in w.codes])
        again = attack(
            base.Unpaired(
                architecture=known.architecture,
                codes=base.ArrayCodes(other),
                plaintexts=known.plaintexts,
            ),
            base.Work(),
        )
        np.testing.assert_allclose(again.means(w.hidden), first, rtol=1e-3, atol=1e-4)


class TestFromNoise(InversionContract):
    attack = FromNoise(steps=80, batch_size=64, lr=1e-2)
    worlds = {"width": 16}  # noqa: RUF012

    def test_it_breaks_the_positive_control(self):
        """It must not: it has nothing to break it with."""
        found = self.headline("linear")
        assert found.value <= found.chance_high < self.attack.breaks_at

    def test_it_does_not_look_at_the_plaintexts(self):
        """Beyond their mean and spread, in which records are standardised."""
        w = self.world("release")
        known = w.known(base.Unpaired)
        turned = base.Unpaired(
            architecture=known.architecture,
            codes=known.codes,
            plaintexts=known.plaintexts[::-1, :, ::-1].copy(),
        )
        a, b = (self.attack(k, base.Work()).means(w.hidden[:3]) for k in (known, turned))
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_the_score_and_the_loss_are_one_statistic():
    rng = np.random.default_rng(8)
    a, b = rng.normal(size=(30, 4)), rng.normal(0.3, 1.0, size=(25, 4))
    ours = mmd2(torch.from_numpy(a), torch.from_numpy(b)).item()
    assert similarity.mmd2(a, b) == pytest.approx(ours, rel=1e-6)
