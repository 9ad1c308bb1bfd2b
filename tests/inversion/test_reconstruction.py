"""Images from codes and records of other patients."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from confide.encoders.settings import NeuraCryptSettings
from confide.errors import ArgumentError
from confide.inversion import base
from confide.inversion.reconstruction import Reconstruct, joined
from confide.inversion.scores import Truth, score
from confide.inversion.targets import encoded
from confide.models.patch_encoder import patches
from inversion.contract import InversionContract, a_world

WORK = base.Work(seed=3)


def correlation(w, finding):
    found = {s.name: s for s in score(finding, w.truth(base.Unpaired), seed=1)}
    return found["correlation"], found["first_rank"]


class TestReconstruct(InversionContract):
    attack = Reconstruct(components=8, patience=50)
    worlds = {"n_patients": 120, "patch": 4, "size": (24, 24), "width": 128}  # noqa: RUF012

    def test_it_reconstructs_a_release(self):
        w, finding = self.answer("release")
        found, first = correlation(w, finding)
        assert found.value > 0.5
        assert found.value > 3 * found.chance_high
        assert first.value > 0.8
        assert finding.notes == ()

    def test_records_are_on_the_scale_of_the_plaintexts(self):
        w, finding = self.answer("linear")
        assert finding.records.dtype == np.float32
        true = w.hidden.astype(np.float32)
        np.testing.assert_allclose(finding.records.mean(), true.mean(), rtol=0.1)
        np.testing.assert_allclose(finding.records.std(), true.std(), rtol=0.25)

    def test_orders_of_rows_and_of_codes_tell_it_nothing(self):
        w, finding = self.answer("release")
        chance = np.random.default_rng(1)
        order = chance.permutation(len(w.codes))
        codes = w.codes[order]
        for code in codes:
            chance.shuffle(code)
        known = replace(w.known(base.Unpaired), codes=base.ArrayCodes(codes))
        other = self.attack(known, WORK).records
        a, b = (x - x.mean(0) for x in (finding.records[order], other))
        assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.95

    def test_rows_without_positions_are_said_to_be_out_of_reach(self):
        w = self.world("release")
        settings = w.architecture.settings.model_copy(update={"position": False})
        architecture = base.Architecture(settings=settings, shape=w.architecture.shape)
        codes = base.ArrayCodes(encoded(architecture, w.hidden[:40], 4))
        known = base.Unpaired(architecture=architecture, codes=codes, plaintexts=w.public[:40])
        assert any("carry no position" in note for note in self.attack(known, WORK).notes)

    def test_too_few_codes_are_refused(self):
        w = self.world("release")
        known = replace(w.known(base.Unpaired), codes=base.ArrayCodes(w.codes[:1]))
        with pytest.raises(ArgumentError, match="at least 2 codes"):
            self.attack(known, WORK)

    def test_a_late_search_says_so(self):
        _, finding = self.answer("release", replace(WORK, seconds=0.0))
        assert any("time was over" in note for note in finding.notes)


@pytest.mark.parametrize("depth", [0, 4])
def test_signals_of_several_leads(depth):
    def signals(n, seed):
        rng = np.random.default_rng(seed)
        at = np.arange(128)
        # A beat at 40 whose height, width and tail vary, seen by two leads differently.
        height, width, tail = np.exp(0.4 * rng.standard_normal((3, n, 1)))
        beat = height * np.exp(-(((at - 40) / (4 * width)) ** 2))
        wave = tail * np.exp(-(((at - 90) / 12) ** 2))
        leads = np.stack([beat + wave, 0.5 * beat - wave], axis=1)
        return (leads + 0.05 * rng.standard_normal(leads.shape)).astype(np.float32)

    settings = NeuraCryptSettings(patch=8, width=256, private_depth=depth, shuffle=False)
    architecture = base.Architecture(settings=settings, shape=(2, 128))
    hidden, public = signals(200, 1), signals(200, 2)
    codes = base.ArrayCodes(encoded(architecture, hidden, 5))
    known = base.Unpaired(architecture=architecture, codes=codes, plaintexts=public)
    finding = Reconstruct()(known, WORK)
    truth = Truth(records=hidden, patient=np.arange(200), codes=codes)
    found = {s.name: s for s in score(finding, truth)}["correlation"]
    assert found.value > 0.6
    assert found.value > found.chance_high


def test_joined_is_the_inverse_of_patches():
    for shape, patch in (((3, 12, 8), 4), ((2, 20), 5)):
        x = np.random.default_rng(0).standard_normal((4, *shape)).astype(np.float32)
        rows = patches(torch.from_numpy(x), patch).numpy()
        np.testing.assert_array_equal(joined(rows, shape, patch), x)


def test_it_needs_no_code_in_memory():
    w = a_world("release", tuple(sorted(TestReconstruct.worlds.items())))

    class OnDisk(base.ArrayCodes):
        most = 0

        def codes(self, rows):
            out = super().codes(rows)
            OnDisk.most = max(OnDisk.most, len(out))
            return out

    from confide.inversion import kernel, rows

    one = w.codes[0].size
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(kernel, "SAMPLE", 60 * one)
        patched.setattr(kernel, "AT_ONCE", 10 * one)
        patched.setattr(rows, "NUMBERS_AT_ONCE", 10 * one)
        finding = TestReconstruct.attack(
            replace(w.known(base.Unpaired), codes=OnDisk(w.codes)), WORK
        )
    assert OnDisk.most <= 60
    assert correlation(w, finding)[0].value > 0.5


@pytest.mark.slow
@pytest.mark.parametrize(("depth", "least"), [(0, 0.9), (4, 0.85)])
def test_real_chest_films_of_other_patients(real_data, depth, least):
    folder = real_data / "nih_cxr64"
    if not folder.is_dir():
        pytest.skip("no nih_cxr64")
    images = np.load(folder / "images.npz", allow_pickle=False)["images"][:, None]
    import pandas as pd

    patient = pd.read_csv(folder / "metadata.csv")["patient_id"].to_numpy()
    everyone = np.random.default_rng(0).permutation(np.unique(patient))
    hidden = np.isin(patient, everyone[: len(everyone) // 2])
    architecture = base.Architecture(
        settings=NeuraCryptSettings(patch=4, width=1024, private_depth=depth), shape=(1, 64, 64)
    )
    codes = base.ArrayCodes(encoded(architecture, images[hidden], 999))
    known = base.Unpaired(architecture=architecture, codes=codes, plaintexts=images[~hidden])
    finding = Reconstruct.of("quick")(known, WORK)
    owner = np.unique(patient[hidden], return_inverse=True)[1]
    truth = Truth(records=images[hidden], patient=owner, codes=codes)
    found = {s.name: s for s in score(finding, truth)}
    assert found["correlation"].value > least
    assert found["first_rank"].value > 0.95
