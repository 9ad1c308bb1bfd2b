"""Linkage: same patients are found, within a release and across, and nothing in noise."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
import pytest

from confide.encoders.settings import LinearSettings, NeuraCryptSettings
from confide.errors import ArgumentError
from confide.inversion import base
from confide.inversion.ceiling import raw_architecture, raw_codes
from confide.inversion.linkage import Linkage, OneKeyLinkage, TwoKeysLinkage
from confide.inversion.scores import Truth, score
from confide.inversion.targets import encoded
from inversion.contract import InversionContract
from inversion.worlds import phantom

WORK = base.Work(seed=3)


class TestLinkage(InversionContract):
    attack = Linkage()
    worlds = {"n_patients": 60, "max_views": 3}  # noqa: RUF012

    def test_similarities_are_symmetric_cosines(self):
        _, finding = self.answer("release")
        table = finding.similarity
        assert np.isnan(table.diagonal()).all()
        away = ~np.eye(len(table), dtype=bool)
        assert (np.abs(table[away]) <= 1 + 1e-5).all()
        np.testing.assert_allclose(table, table.T, atol=1e-6)

    def test_a_release_of_shuffled_codes_is_linked(self):
        assert self.headline("release").value > 0.7

    def test_the_order_of_rows_does_not_matter(self):
        w = self.world("release")
        known = w.known(base.CodesOnly)
        shuffled = known.codes.values.copy()
        for code in shuffled:
            np.random.default_rng(9).shuffle(code)
        again = base.CodesOnly(architecture=known.architecture, codes=base.ArrayCodes(shuffled))
        first, second = (self.attack(k, WORK).similarity for k in (known, again))
        np.testing.assert_allclose(first, second, atol=1e-3)

    def test_one_code(self):
        known = self.world("release").known(base.CodesOnly)
        one = base.CodesOnly(
            architecture=known.architecture, codes=base.ArrayCodes(known.codes.values[:1])
        )
        with pytest.raises(ArgumentError, match="at least 2 codes"):
            self.attack(one, WORK)


@dataclass(frozen=True, kw_only=True, eq=False)
class TwoWorlds:
    """Two releases of the same patients, in different records."""

    architecture: base.Architecture
    hidden: np.ndarray
    patient: np.ndarray
    other_patient: np.ndarray
    codes: np.ndarray
    other: np.ndarray

    def known(self, kind):
        return kind(
            architecture=self.architecture,
            codes=base.ArrayCodes(self.codes),
            other=base.ArrayCodes(self.other),
        )

    def truth(self, kind):
        return Truth(
            records=self.hidden,
            patient=self.patient,
            codes=base.ArrayCodes(self.codes),
            other_patient=self.other_patient,
        )


@cache
def two_worlds(kind, keys, n_patients=60):
    records, patient, _ = phantom(n_patients, 7, max_views=4)
    number = np.arange(len(patient)) - np.searchsorted(patient, patient)
    first, second = np.flatnonzero(number % 2 == 0), np.flatnonzero(number % 2 == 1)
    settings = NeuraCryptSettings(patch=8, width=64, private_depth=1)
    if kind == "linear":
        settings = LinearSettings(patch=8, width=64, shuffle=False)
    architecture = base.Architecture(settings=settings, shape=records.shape[1:])
    source = records
    if kind == "noise":
        source = np.random.default_rng(0).standard_normal(records.shape, dtype=np.float32)
    codes, other = (
        encoded(architecture, source[rows], 5 + key, orders=i, calibration=source[first])
        for i, (rows, key) in enumerate(((first, 0), (second, keys - 1)))
    )
    return TwoWorlds(
        architecture=architecture,
        hidden=records[first],
        patient=patient[first],
        other_patient=patient[second],
        codes=codes,
        other=other,
    )


class TestOneKeyLinkage(InversionContract):
    attack = OneKeyLinkage()

    def world(self, kind):
        return two_worlds(kind, 1)

    def test_a_release_of_shuffled_codes_is_linked(self):
        assert self.headline("release").value > 0.7

    def test_a_release_of_another_key_is_not(self):
        w = two_worlds("release", 2)
        finding = self.attack(w.known(base.OneKey), WORK)
        found = score(finding, w.truth(base.OneKey))[0]
        assert not found.beyond_chance

    def test_releases_that_differ(self):
        w = two_worlds("release", 1)
        known = base.OneKey(
            architecture=w.architecture,
            codes=base.ArrayCodes(w.codes),
            other=base.ArrayCodes(w.other[:, :, 1:]),
        )
        with pytest.raises(ArgumentError, match="one architecture"):
            self.attack(known, WORK)


class TestTwoKeysLinkage(InversionContract):
    attack = TwoKeysLinkage()

    def world(self, kind):
        return two_worlds(kind, 2, 120)

    def test_the_same_records_are_found_in_both(self):
        records, _, _ = phantom(60, 7, max_views=1)
        settings = NeuraCryptSettings(patch=8, width=256, private_depth=1)
        architecture = base.Architecture(settings=settings, shape=records.shape[1:])
        codes, other = (base.ArrayCodes(encoded(architecture, records, key)) for key in (1, 2))
        known = base.TwoKeys(architecture=architecture, codes=codes, other=other)
        truth = Truth(
            records=records, patient=np.arange(60), codes=codes, other_patient=np.arange(60)
        )
        auc, _ = score(self.attack(known, WORK), truth)
        assert auc.value > 0.7
        assert auc.beyond_chance


def test_real_images_link_nearly_as_well_from_codes(real_data):
    images = np.load(real_data / "nih_cxr64" / "images.npz")["images"][:, None]
    table = pd.read_csv(real_data / "nih_cxr64" / "metadata.csv")
    rows = np.flatnonzero(table.groupby("patient_id").cumcount() < 3)[:240]
    records, patient = images[rows], pd.factorize(table.patient_id.iloc[rows])[0]
    settings = NeuraCryptSettings(patch=8, width=128, private_depth=0)
    architecture = base.Architecture(settings=settings, shape=records.shape[1:])
    found = {}
    for name, codes, made in (
        ("codes", base.ArrayCodes(encoded(architecture, records, 1)), architecture),
        ("raw", raw_codes(records, architecture), raw_architecture(architecture)),
    ):
        finding = Linkage()(base.CodesOnly(architecture=made, codes=codes), WORK)
        truth = Truth(records=records, patient=patient, codes=codes)
        found[name] = score(finding, truth)[0]
    assert found["codes"].beyond_chance
    assert found["raw"].value > 0.7
    assert found["codes"].value > 0.65


@pytest.mark.parametrize("attack", [Linkage, OneKeyLinkage, TwoKeysLinkage])
def test_settings(attack):
    with pytest.raises(ArgumentError, match="n_components"):
        attack(n_components=0)
