from dataclasses import replace

import numpy as np
import pytest

from confide.encoders.settings import NeuraCryptSettings
from confide.inversion.base import Architecture, ArrayCodes, Unpaired, Work
from confide.inversion.maps import UnpairedAlignment
from confide.inversion.statistics import Plain
from confide.inversion.targets import encoded
from inversion.contract import InversionContract
from inversion.worlds import world

SMALL = UnpairedAlignment(keys=2, records=100, patience=100)


class TestUnpairedAlignment(InversionContract):
    attack = SMALL
    worlds = {"n_patients": 60, "size": (64, 64), "width": 128, "private_depth": 1}  # noqa: RUF012


def correlations(a, b):
    """Of each row beyond the mean row."""
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    return np.array([np.corrcoef(x, y)[0, 1] for x, y in zip(a, b, strict=True)])


def test_maps_look_like_the_hidden_records():
    w = world(n_patients=100, size=(64, 64), width=256, private_depth=2)
    finding = SMALL(w.known(Unpaired), Work())
    expected = finding.expected(w.hidden)
    found = correlations(finding.maps, expected)
    assert found.mean() > 0.6
    # They are of this record, not of any.
    assert correlations(finding.maps, np.roll(expected, 7, axis=0)).mean() < 0.2


def test_maps_are_on_the_scale_of_the_contrast():
    w = world("linear", n_patients=60, size=(64, 64), width=256)
    finding = SMALL(w.known(Unpaired), Work())
    contrast = Plain.of(w.public, 8).contrast(w.hidden)
    assert correlations(finding.maps, contrast).mean() > 0.9
    assert np.abs(finding.maps - contrast).mean() < 0.2
    assert finding.maps.dtype == np.float32


def test_the_time_is_over():
    w = world(n_patients=10)
    (note,) = SMALL(w.known(Unpaired), Work(seconds=0.0)).notes
    assert "after 1 of 2 keys" in note


def test_plaintexts_are_not_changed_by_a_scale_of_their_own():
    w = world("linear", n_patients=40, size=(64, 64), width=128)
    known = w.known(Unpaired)
    brighter = replace(known, plaintexts=known.plaintexts.astype(np.float32) * 10)
    a, b = (SMALL(k, Work()).maps for k in (known, brighter))
    np.testing.assert_allclose(b - a, np.log(10), atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("private_depth", [0, 4])
def test_real_radiographs_of_other_patients(real_data, private_depth):
    import pandas as pd

    folder = real_data / "nih_cxr64"
    images = np.load(folder / "images.npz")["images"][:, None]
    patient = pd.read_csv(folder / "metadata.csv").patient_id.to_numpy()
    people = np.random.default_rng(0).permutation(np.unique(patient))
    hidden = np.isin(patient, people[::2])
    settings = NeuraCryptSettings(patch=4, width=512, private_depth=private_depth)
    architecture = Architecture(settings=settings, shape=images.shape[1:])
    known = Unpaired(
        architecture=architecture,
        codes=ArrayCodes(encoded(architecture, images[hidden], 3)),
        plaintexts=images[~hidden],
    )
    finding = UnpairedAlignment.of("quick")(known, Work())
    assert correlations(finding.maps, finding.expected(images[hidden])).mean() > 0.8
