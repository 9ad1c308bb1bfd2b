from dataclasses import replace

import numpy as np
import pytest

from confide.encoders.settings import LinearSettings, NeuraCryptSettings
from confide.inversion.alignment import Alignment
from confide.inversion.base import Architecture, ArrayCodes, SameImages, Work
from confide.inversion.targets import encoded
from inversion.contract import InversionContract
from inversion.worlds import phantom, world

SMALL = Alignment(keys=2, records=60, patience=100)


class TestAlignment(InversionContract):
    attack = SMALL
    worlds = {"n_patients": 40, "size": (64, 64), "width": 128, "private_depth": 2}  # noqa: RUF012


def right(finding, order):
    return (finding.assigned == order).mean()


@pytest.mark.parametrize("private_depth", [0, 4])
def test_all_codes_are_matched(private_depth):
    w = world(n_patients=50, size=(64, 64), width=256, private_depth=private_depth)
    finding = SMALL(w.known(SameImages), Work(seed=1))
    assert right(finding, w.order) > 0.97
    assert (finding.similarity.argmax(axis=1) == w.order).mean() > 0.9
    assert finding.notes == ()


def test_more_plaintexts_than_codes():
    w = world(n_patients=50, size=(64, 64), width=256)
    known = w.known(SameImages)
    known = replace(known, codes=ArrayCodes(w.codes[:40]))
    finding = SMALL(known, Work())
    assert finding.similarity.shape == (40, len(w.hidden))
    assert right(finding, w.order[:40]) > 0.9


def test_fewer_plaintexts_than_codes():
    w = world(n_patients=50, size=(64, 64), width=256)
    known = replace(w.known(SameImages), plaintexts=w.plaintexts[:30])
    finding = SMALL(known, Work())
    assert (finding.assigned >= 0).sum() == 30


def test_norms_of_the_batch():
    records, _, _ = phantom(50, 1, size=(64, 64))
    settings = NeuraCryptSettings(patch=8, width=128, private_depth=2, norm="batch", batch_size=32)
    architecture = Architecture(settings=settings, shape=records.shape[1:])
    known = SameImages(
        architecture=architecture,
        codes=ArrayCodes(encoded(architecture, records, 3)),
        plaintexts=records,
    )
    assert right(SMALL(known, Work()), np.arange(len(records))) > 0.9


def test_rows_without_positions_are_said_to_be_so():
    records, _, _ = phantom(12, 1)
    settings = LinearSettings(patch=8, width=64, shuffle=True)
    architecture = Architecture(settings=settings, shape=records.shape[1:])
    known = SameImages(
        architecture=architecture,
        codes=ArrayCodes(encoded(architecture, records, 3)),
        plaintexts=records,
    )
    (note,) = SMALL(known, Work()).notes
    assert "carry no position" in note


def test_the_time_is_over():
    w = world(n_patients=10)
    (note,) = SMALL(w.known(SameImages), Work(seconds=0.0)).notes
    assert "after 1 of 2 keys" in note


def test_its_curve_is_that_of_the_keys():
    (points,) = SMALL.curves().values()
    assert {k: one.keys for k, one in points.items()} == {1: 1, 2: 2, 3: 3, 5: 5}


def test_signals():
    rng = np.random.default_rng(0)
    # Random walks, each with a spread of its own along the time.
    steps = rng.standard_normal((60, 2, 128)) * rng.gamma(1, 1, (60, 1, 16)).repeat(8, axis=2)
    records = steps.cumsum(axis=2).astype(np.float32)
    settings = NeuraCryptSettings(patch=8, width=128, private_depth=1)
    architecture = Architecture(settings=settings, shape=records.shape[1:])
    known = SameImages(
        architecture=architecture,
        codes=ArrayCodes(encoded(architecture, records, 3)),
        plaintexts=records,
    )
    assert right(SMALL(known, Work()), np.arange(60)) > 0.7


@pytest.mark.slow
@pytest.mark.parametrize("private_depth", [0, 4])
def test_real_radiographs(real_data, private_depth):
    images = np.load(real_data / "nih_cxr64" / "images.npz")["images"][:200, None]
    settings = NeuraCryptSettings(patch=4, width=512, private_depth=private_depth)
    architecture = Architecture(settings=settings, shape=images.shape[1:])
    known = SameImages(
        architecture=architecture,
        codes=ArrayCodes(encoded(architecture, images, 3)),
        plaintexts=images[::-1].copy(),
    )
    finding = Alignment.of("quick")(known, Work())
    assert right(finding, np.arange(200)[::-1]) > 0.97
