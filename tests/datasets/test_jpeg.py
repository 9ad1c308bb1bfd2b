"""JPEG files: decoded smaller where that is enough, and headers that need no decoder."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from confide.datasets import image_files
from confide.datasets.image_files import Files, look
from confide.datasets.pixels import open_files
from confide.errors import ImageError

sys.path.insert(0, str(Path(__file__).parent))  # tests are imported from files
from read import read_files

RNG = np.random.default_rng(0)
BILINEAR = Image.Resampling.BILINEAR


def drawing(width, height, channels=1):
    """Soft shapes, and noise."""
    shape = (9, 9) if channels == 1 else (9, 9, channels)
    coarse = Image.fromarray(RNG.integers(30, 226, shape, dtype=np.uint8))
    soft = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=float)
    return np.clip(soft + RNG.normal(0, 6, soft.shape), 0, 255).round().astype(np.uint8)


def saved(path, pixels, **options):
    Image.fromarray(pixels).save(path, "JPEG", **({"quality": 90} | options))
    return path


def fully(path, size):
    """Decoded as it is, then resized; (height, width, ...)."""
    with Image.open(path) as image:
        return np.asarray(image.resize(size[::-1], BILINEAR)).astype(int)


SIDES = [(390, 320), (391, 317), (523, 1030), (1272, 1528), (128, 128), (129, 257)]


@pytest.mark.parametrize(("width", "height"), SIDES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("progressive", [False, True])
def test_close_to_full_decoding(tmp_path, width, height, channels, progressive):
    path = saved(tmp_path / "x.jpg", drawing(width, height, channels), progressive=progressive)
    found = np.moveaxis(read_files([path], (64, 64))[0][0], 0, -1).squeeze().astype(int)
    off = np.abs(found - fully(path, (64, 64)))
    assert off.mean() < 1
    assert off.max() <= 12


@pytest.mark.parametrize("side", [320, 389, 390, 391, 397])
def test_edges_stay_where_they_are(tmp_path, side):
    """Of 389 pixels at 1/4 there are 97.25; counted as 98, a ramp would be off by 2 levels."""
    ramp = np.linspace(0, 255, side).round().astype(np.uint8)
    path = saved(tmp_path / "x.jpg", np.tile(ramp, (side, 1)), quality=100)
    found = read_files([path], (40, 40))[0][0, 0]
    centres = (np.arange(40) + 0.5) / 40 * side - 0.5
    expected = centres * 255 / (side - 1)
    inner = slice(1, -1)
    assert np.abs(found[:, inner].mean(0) - expected[inner]).max() < 0.8
    assert abs((found.mean(0) - expected)[inner].mean()) < 0.3


@pytest.mark.parametrize(("width", "height"), [(255, 400), (100, 100), (64, 64), (20, 30)])
def test_small_images_are_decoded_as_they_are(tmp_path, width, height):
    path = saved(tmp_path / "x.jpg", drawing(width, height))
    assert np.array_equal(read_files([path], (128, 128))[0][0, 0], fully(path, (128, 128)))


def test_other_kinds_are_decoded_as_they_are(tmp_path):
    for kind in ("PNG", "TIFF"):
        path = tmp_path / kind
        Image.fromarray(drawing(390, 320)).save(path, kind)
        assert np.array_equal(read_files([path], (64, 64))[0][0, 0], fully(path, (64, 64)))


def heads(tmp_path):
    """JPEG files in many forms, and the kind of each."""
    grey, colour = drawing(40, 24), drawing(40, 24, 3)
    exif = Image.Exif()
    exif[0x010E] = "a description"
    yield saved(tmp_path / "grey", grey), "grey"
    yield saved(tmp_path / "colour", colour), "colour"
    yield saved(tmp_path / "progressive", colour, progressive=True), "colour"
    yield saved(tmp_path / "restarts", grey, restart_marker_blocks=1), "grey"
    yield saved(tmp_path / "exif", grey, exif=exif), "grey"
    yield saved(tmp_path / "comment", grey, comment=b"x" * 70), "grey"
    yield saved(tmp_path / "profile", colour, icc_profile=bytes(30_000)), "colour"
    cmyk = Image.fromarray(colour).convert("CMYK")
    cmyk.save(tmp_path / "cmyk", "JPEG")
    yield tmp_path / "cmyk", "colour"


def test_headers(tmp_path):
    quick = set()
    for path, kind in heads(tmp_path):
        assert look(path) == (kind, False, False)
        with path.open("rb") as file:
            told = image_files._plain_jpeg(file)
            assert file.tell() == 0
        assert told in (kind, None)
        quick |= {path.name} if told else set()
    assert quick == {"grey", "colour", "progressive", "restarts", "comment"}


def test_headers_that_end_early_or_are_damaged(tmp_path):
    """What is told of a file without Pillow is what Pillow tells, or Pillow is asked."""
    whole = saved(tmp_path / "x.jpg", drawing(40, 24)).read_bytes()
    end = whole.index(b"\xff\xda") + 10

    def asked(content):
        return image_files._plain_jpeg(io.BytesIO(content))

    assert asked(whole) == "grey"
    assert {asked(whole[:cut]) for cut in range(end)} == {None}
    for cut in (0, 3, 30, end - 12):
        (tmp_path / "x.jpg").write_bytes(whole[:cut])
        with pytest.raises(ImageError, match=r"^Row 0: "):
            open_files([tmp_path / "x.jpg"], (8, 8))
    for _ in range(300):
        harmed = bytearray(whole)
        for place in RNG.integers(0, end, 3):
            harmed[place] = RNG.integers(0, 256)
        assert asked(bytes(harmed)) in (None, "grey", "colour")
    frame = whole.index(b"\xff\xc0")
    empty = whole[: frame + 5] + bytes(4) + whole[frame + 9 :]
    assert asked(empty) is None


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    path = saved(tmp_path / "x.jpg", drawing(40, 24))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40 * 24 - 1)
    monkeypatch.setattr(Files, "decoded", None)
    with pytest.raises(ImageError, match=r"^Row 0: .*x\.jpg has more than 959 pixels"):
        open_files([path], (8, 8))


@pytest.mark.parametrize("name", ["cxr_open", "cxr_nc"])
def test_real_radiographs(real_data, tmp_path, name):
    """As docs/datasets.md says: at the size of CheXpert's small version, a quarter of a level."""
    mean, largest = [], 0
    for i, path in enumerate(sorted((real_data / name / "images").iterdir())[:40]):
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("L").resize((390, 320), Image.Resampling.LANCZOS))
        one = saved(tmp_path / f"{i}.jpg", pixels)
        off = np.abs(read_files([one], (64, 64))[0][0, 0] - fully(one, (64, 64)))
        mean.append(off.mean())
        largest = max(largest, off.max())
    assert 0.1 < np.mean(mean) < 0.3
    assert largest <= 7
