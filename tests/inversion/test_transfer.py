"""A classifier of substitute codes, applied to a release."""

from dataclasses import replace

import numpy as np
import pytest

from confide.errors import ArgumentError
from confide.inversion import base
from confide.inversion.mmd import MMD
from confide.inversion.transfer import Transfer
from inversion.contract import InversionContract


class TestTransfer(InversionContract):
    attack = Transfer(
        substitute=MMD(steps=200, batch_size=64, lr=1e-2),
        epochs=30,
        lr=3e-3,
        heads=4,
        head_width=16,
    )
    worlds = {"width": 16}  # noqa: RUF012
    # The label is hard to learn from few records, even on the true codes.
    positive = {"n_patients": 300, "width": 32}  # noqa: RUF012

    @pytest.mark.parametrize("values", [[0, 1, -1], [0, 0, 0], [1, 1, 2]])
    def test_an_attribute_that_is_not_two_values(self, values):
        known = self.world("release").known(base.LabelledPlaintexts)
        attribute = np.resize(values, len(known.plaintexts))
        with pytest.raises(ArgumentError, match="0 for some and 1 for the others"):
            self.attack(replace(known, attribute=attribute), base.Work())

    def test_an_attribute_of_other_records(self):
        known = self.world("release").known(base.LabelledPlaintexts)
        with pytest.raises(ArgumentError, match="attribute of shape"):
            self.attack(replace(known, attribute=known.attribute[:-1]), base.Work())
