"""Images that are read as others were before."""

import json
import math
import threading
import time

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from confide.datasets import Images
from confide.datasets.reading import Reading, each
from confide.errors import ArgumentError, ImageError, MismatchError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (8, 8), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8)
DARK = RNG.integers(0, 1000, (8, 8)).astype(np.uint16)  # of 10 bits
BRIGHT = (DARK * 60).astype(np.uint16)  # of 16 bits
ALL = np.arange(2)


def source(folder, name, *pictures, **changed):
    """A table of these images, as files."""
    for i, pixels in enumerate(pictures):
        Image.fromarray(pixels).save(folder / f"{name}{i}.png")
    names = [f"{name}{i}.png" for i in range(len(pictures))]
    ids = np.arange(len(names))
    frame = pd.DataFrame({"image": names, "patient": ids, "y": ids % 2})
    frame.to_csv(folder / f"{name}.csv", index=False)
    given = {"path": f"{name}.csv", "patient": "patient", "label": "y", "size": (8, 8)}
    return Images(**(given | changed))


def of_array(folder, name, *pictures, **changed):
    np.save(folder / f"{name}.npy", np.stack(pictures))
    made = source(folder, name, *pictures, **changed)
    return made.model_copy(update={"array": f"{name}.npy"})


@pytest.fixture(params=[source, of_array])
def made(request, tmp_path):
    def make(name, *pictures, **changed):
        pairs = [pictures[i % len(pictures)] for i in range(4)]
        return request.param(tmp_path, name, *pairs, **changed)

    return make


def test_the_same_image_beside_brighter_ones(made, tmp_path):
    alone, beside = made("a", DARK), made("b", DARK, BRIGHT)
    found = beside.open(tmp_path)
    wanted = np.round(DARK * (255 / 65535))
    assert np.array_equal(found.read(ALL)[0, 0], wanted)
    first = alone.open(tmp_path)
    assert np.array_equal(first.read(ALL)[0, 0], np.round(DARK * (255 / 1023)))

    stored = json.loads(json.dumps(found.reading))
    assert stored == {"scale": pytest.approx(255 / 65535), "channels": 1}
    same = alone.open(tmp_path, stored)
    assert np.array_equal(same.read(ALL)[0, 0], wanted)
    assert same.reading == found.reading
    assert "their values 0 to 65,535" in same.notes[0]
    assert same.fingerprint() != first.fingerprint()


def test_what_was_decided_gives_the_same_again(made, tmp_path):
    for pictures in ((GREY,), (DARK, BRIGHT), (DARK,)):
        settings = made("a", *pictures)
        first = settings.open(tmp_path)
        again = settings.open(tmp_path, first.reading)
        assert np.array_equal(again.read(ALL), first.read(ALL))
        assert again.reading == first.reading
        assert again.notes == first.notes
        assert again.fingerprint() == first.fingerprint()
        assert np.array_equal(settings.load(tmp_path).inputs[ALL], first.read(ALL))


def test_brighter_images_than_before_are_refused(made, tmp_path):
    stored = made("a", DARK).open(tmp_path).reading
    with pytest.raises(ImageError, match=r"^Row 1: .*b.* has the 16-bit value .*, brighter than"):
        made("b", DARK, BRIGHT).open(tmp_path, stored)
    edge = np.full((8, 8), 1023, np.uint16)
    assert (made("c", edge).open(tmp_path, stored).read(ALL) == 255).all()
    message = r"^Row 0: .*d.* value 1,024, .* calibrated with \(at most 1,023\); leave"
    with pytest.raises(ImageError, match=message):
        made("d", edge + np.uint16(1)).open(tmp_path, stored)
    with pytest.raises(ImageError, match="at most 255"):
        made("e", DARK).open(tmp_path, made("f", GREY).open(tmp_path).reading)


def test_files_that_became_brighter_are_refused_when_read(tmp_path):
    opened = source(tmp_path, "a", DARK, DARK).open(tmp_path)
    Image.fromarray(BRIGHT).save(tmp_path / "a1.png")
    with pytest.raises(ImageError, match=r"^Row 1: .*a1\.png has the 16-bit value"):
        opened.read(ALL)


def test_colour_where_grey_is_stored_and_grey_where_colour_is(made, tmp_path):
    grey, colour = made("a", GREY), made("b", COLOUR)
    assert grey.open(tmp_path).reading == {"scale": 1.0, "channels": 1}
    assert colour.open(tmp_path).reading == {"scale": 1.0, "channels": 3}
    turned = colour.open(tmp_path, grey.open(tmp_path).reading)
    assert turned.shape == (1, 8, 8)
    assert np.array_equal(
        turned.read(ALL), made("b", COLOUR, channels=1).load(tmp_path).inputs[ALL]
    )
    tripled = grey.open(tmp_path, colour.open(tmp_path).reading)
    assert tripled.shape == (3, 8, 8)
    assert np.array_equal(tripled.read(ALL)[0], np.stack([GREY] * 3))


def test_settings_that_contradict_what_was_decided(tmp_path):
    stored = {"scale": 1.0, "channels": 1}
    source(tmp_path, "a", GREY, GREY, channels=1).open(tmp_path, stored)
    with pytest.raises(MismatchError, match=r"channels: 3, the key .* channels: 1; write"):
        source(tmp_path, "a", GREY, GREY, channels=3).open(tmp_path, stored)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({}, "`scale` and `channels`"),
        ([], "`scale` and `channels`"),
        ({"scale": 1.0}, "`scale` and `channels`"),
        ({"scale": 1.0, "channels": 1, "x": 2}, "`scale` and `channels`"),
        *(
            ({"scale": bad, "channels": 1}, "Expected a scale of images from 0.003891 to 1, got")
            for bad in (0, -1.0, math.nan, math.inf, 1e-300, 1.01, 10**400, True, "1", None, [1])
        ),
        *(
            ({"scale": 1.0, "channels": bad}, "Expected 1 or 3 channels of images, got")
            for bad in (0, 2, 1.0, True, "1", None, [1])
        ),
    ],
)
def test_stored_values_are_not_trusted(tmp_path, raw, message):
    with pytest.raises(ArgumentError, match=message):
        source(tmp_path, "a", GREY, GREY).open(tmp_path, raw)


@pytest.mark.parametrize("bits", range(1, 17))
def test_every_scale_comes_back(bits):
    decided = Reading.of(2.0**bits - 1, coloured=False)
    assert decided.top == 2 ** max(bits, 8) - 1
    assert Reading.from_json(json.loads(json.dumps(decided.to_json())), "auto") == decided
    assert Reading.of(2.0**bits - 1.5, coloured=False) == decided


@pytest.mark.parametrize("rest", [0, 2e-4])
def test_results_come_in_the_order_of_the_rows(rest):
    """Of rows that are computed one after the other, and of those that all cores share."""
    asked = list(range(700, 0, -1))
    used = set()

    def computed(row):
        time.sleep(rest)
        used.add(threading.get_ident())
        return 2 * row

    assert list(each(computed, asked, per_core=60)) == [2 * row for row in asked]
    assert len(used) > 1 or not rest


@pytest.mark.parametrize("rest", [0, 2e-4])
def test_the_first_row_that_fails_is_named(rest):
    def computed(row):
        time.sleep(rest)
        if row in (5, 90, 91, 400):
            raise ArgumentError(str(row))
        return row

    for start, first in ((0, 5), (6, 90), (92, 400)):
        with pytest.raises(ArgumentError, match=f"^{first}$"):
            list(each(computed, range(start, 500)))
