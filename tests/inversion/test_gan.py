"""A substitute encoder trained against a discriminator."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from confide.inversion import base, substitute
from confide.inversion.gan import Discriminator, _scale
from confide.inversion.scores import score
from confide.training.inputs import ArrayInputs
from inversion.contract import InversionContract

TINY = {"heads": 2, "head_width": 8}


class TestDiscriminator(InversionContract):
    attack = Discriminator(steps=30, **TINY)
    worlds = {"width": 16}  # noqa: RUF012

    def test_it_breaks_the_positive_control(self):
        """In 30 steps it comes nearer; the slow test below breaks it."""
        w = self.world("linear")
        known = replace(w.known(base.Unpaired), plaintexts=w.hidden)
        error = [
            {s.name: s.value for s in score(attack(known, base.Work()), w.truth(base.Unpaired))}
            for attack in (Discriminator(steps=0, **TINY), Discriminator(steps=100, **TINY))
        ]
        assert error[1]["mse_ratio"] < 0.75 * error[0]["mse_ratio"]

    @pytest.mark.slow
    def test_it_breaks_the_positive_control_given_the_same_images(self):
        w = self.world("linear")
        known = replace(w.known(base.Unpaired), plaintexts=w.plaintexts)
        finding = Discriminator(steps=800, heads=4, head_width=16)(known, base.Work(seed=3))
        found = {s.name: s for s in score(finding, w.truth(base.Unpaired))}["challenge2"]
        assert found.value >= self.attack.breaks_at
        assert found.value > found.chance_high

    def test_its_loss_is_the_errors_and_the_slope(self):
        """Of a linear judge the slope is known: R1 is half the square of its weights."""
        judge = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(6, 1))
        judge.requires_grad_(False)
        judge[1].weight.copy_(torch.arange(6.0))
        judge[1].bias.zero_()
        real = torch.zeros(5, 2, 3, requires_grad=True)
        loss = Discriminator(penalty=3.0)._judged(judge, real, torch.zeros(4, 2, 3)).detach()
        assert float(loss) == pytest.approx(2 * np.log(2) + 1.5 * 55, rel=1e-5)

    def test_codes_are_judged_on_the_scale_of_the_release(self, monkeypatch):
        monkeypatch.setattr(substitute, "AT_ONCE", 1)
        values = 5 + 3 * np.random.default_rng(0).standard_normal((50, 4, 8)).astype(np.float32)
        values += np.arange(8, dtype=np.float32)
        middle, scale = _scale(ArrayInputs(values, torch.device("cpu")))
        np.testing.assert_allclose(middle, values.mean(axis=(0, 1)), rtol=1e-5)
        assert float(scale) == pytest.approx((values - values.mean(axis=(0, 1))).std(), rel=1e-4)
