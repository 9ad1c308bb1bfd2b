"""Image files and arrays."""

import contextlib
import hashlib
import io
import math
import struct
import sys
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pydantic
import pytest
from PIL import Image, PngImagePlugin

from confide.datasets import Images
from confide.datasets.image_files import Files
from confide.datasets.pixels import open_files, open_images
from confide.errors import ImageError, MissingFileError, TableError

sys.path.insert(0, str(Path(__file__).parent))  # tests are imported from files
from read import read_array, read_files

RNG = np.random.default_rng(0)


def png(pixels, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", **options)
    return buffer.getvalue()


def smooth(height, width, seed=0):
    """Grey pixels that survive resizing."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6), dtype=np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture
def folder(tmp_path):
    """Four grey images of three patients, one of them as JPEG."""
    (tmp_path / "pics" / "sub").mkdir(parents=True)
    names = ["a.png", "b.png", "sub/c.png", "d.jpg"]
    for seed, name in enumerate(names):
        Image.fromarray(smooth(40, 60, seed)).save(tmp_path / "pics" / name)
    pd.DataFrame(
        {
            "image": names,
            "patient_id": [1, 1, 2, 3],
            "view": ["AP", "PA", "AP", "PA"],
            "sex": ["f", "f", "m", None],
        }
    ).to_csv(tmp_path / "t.csv", index=False)
    return tmp_path


def images(**changed):
    given = {"path": "t.csv", "images": "pics", "patient": "patient_id", "label": "view"}
    return Images(**(given | changed))


def test_files_in_the_order_of_the_table(folder):
    data = images(size=(40, 60), groups=["sex"]).load(folder)
    assert data.inputs.shape == (4, 1, 40, 60)
    assert data.inputs.dtype == np.uint8
    for seed in range(3):
        assert np.array_equal(data.inputs[seed, 0], smooth(40, 60, seed))
    assert np.abs(data.inputs[3, 0].astype(int) - smooth(40, 60, 3)).mean() < 5  # JPEG
    assert data.cohort.classes == ("AP", "PA")
    assert data.cohort.groups["sex"].isna().tolist() == [False, False, False, True]
    assert data.feature_names == data.notes == ()


def test_size_is_height_and_width_and_shrinking_averages(folder):
    data = images().load(folder)
    assert data.inputs.shape == (4, 1, 64, 64)
    low = images(size=(10, 20)).load(folder).inputs[0, 0].astype(float)
    blocks = smooth(40, 60, 0).reshape(10, 4, 20, 3).mean((1, 3))
    assert np.abs(low - blocks).mean() < 4
    # Antialiasing: a fine checkerboard becomes grey.
    checks = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    (folder / "pics" / "a.png").write_bytes(png(checks))
    grey = images(size=(8, 8)).load(folder).inputs[0]
    assert grey.min() > 100
    assert grey.max() < 155


def test_the_folder_of_the_table_is_the_default(folder):
    names = pd.read_csv(folder / "t.csv")
    names["image"] = "pics/" + names["image"]
    names.to_csv(folder / "u.csv", index=False)
    source = Images(path="u.csv", patient="patient_id", label="view")
    assert source.load(folder).fingerprint() == images().load(folder).fingerprint()


def save(folder, *arrays, **options):
    paths = []
    for i, pixels in enumerate(arrays):
        paths.append(folder / f"{i}.png")
        Image.fromarray(pixels).save(paths[-1], **options)
    return paths


def test_colour_and_grey(tmp_path):
    grey = smooth(8, 8)
    equal = np.stack([grey] * 3, axis=-1)
    colour = RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    one, _ = read_files(save(tmp_path, grey, equal), (8, 8))
    assert np.array_equal(one, np.stack([grey, grey])[:, None])

    paths = save(tmp_path, grey, colour)
    three, _ = read_files(paths, (8, 8))
    assert np.array_equal(three[0], np.stack([grey] * 3))
    assert np.array_equal(three[1], np.moveaxis(colour, -1, 0))
    assert np.array_equal(read_files(paths[:1], (8, 8), 3)[0], three[:1])
    luminance = np.asarray(Image.fromarray(colour).convert("L"))
    assert np.array_equal(read_files(paths, (8, 8), 1)[0][1, 0], luminance)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_modes_of_png(tmp_path, mode):
    grey = Image.fromarray(smooth(8, 8))
    image = Image.fromarray(smooth(8, 8).astype(np.uint16)) if mode == "I;16" else grey
    image.convert(mode).save(tmp_path / "x.png")
    pixels, notes = read_files([tmp_path / "x.png"], (8, 8))
    assert pixels.shape == (1, 1, 8, 8)
    assert bool(notes) == (mode == "I;16")


def test_sixteen_bits_are_scaled_by_one_factor(tmp_path):
    deep = np.linspace(0, 4000, 64).reshape(8, 8).astype(np.uint16)
    paths = save(tmp_path, deep, deep // 2, smooth(8, 8))
    pixels, notes = read_files(paths, (8, 8))
    assert np.array_equal(pixels[0, 0], np.round(deep * (255 / 4095)))
    assert np.array_equal(pixels[1, 0], np.round(deep // 2 * (255 / 4095)))
    assert np.array_equal(pixels[2, 0], smooth(8, 8))
    assert notes == ("2 images have 16 bits; their values 0 to 4,095 became 0 to 255.",)
    full = np.array([[0, 65535]], dtype=np.uint16)
    assert read_files(save(tmp_path, full), (1, 2))[0].tolist() == [[[[0, 255]]]]


def chunk(kind, content):
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def large_png(width, height):
    """A few hundred bytes that claim to be a huge image."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


def animated():
    buffer = io.BytesIO()
    frames = [Image.fromarray(smooth(8, 8, seed)) for seed in range(2)]
    frames[0].save(buffer, "PNG", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def gif():
    buffer = io.BytesIO()
    Image.fromarray(smooth(8, 8)).save(buffer, "GIF")
    return buffer.getvalue()


def swollen_text():
    info = PngImagePlugin.PngInfo()
    info.add_text("note", "x" * 3_000_000, zip=True)
    return png(smooth(8, 8), pnginfo=info)


WHOLE = png(RNG.integers(0, 256, (40, 60), dtype=np.uint8))
BAD = {
    "truncated": (WHOLE[: len(WHOLE) // 2], "damaged"),
    "empty": (b"", r"is empty; get it again"),
    "text": (b"patient,label\n", "not a PNG, JPEG or TIFF"),
    "gif": (gif(), "not a PNG, JPEG or TIFF"),
    "wrong checksum": (WHOLE[:50] + b"\0\0" + WHOLE[52:], "damaged"),
    "frames": (animated(), "several frames"),
    "dicom": (bytes(128) + b"DICM" + bytes(100), "DICOM file"),
    "large": (large_png(10_000, 10_000), "more than 89,478,485 pixels"),
    "huge": (large_png(100_000, 100_000), "more than 89,478,485 pixels"),
    "swollen text": (swollen_text(), "damaged or cannot be read"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_image_is_refused_with_row_and_file(folder, kind):
    content, message = BAD[kind]
    (folder / "pics" / "sub" / "c.png").write_bytes(content)
    with pytest.raises(ImageError, match=rf"^Row 2: .*c\.png .*{message}"):
        images().load(folder)


def test_an_absent_image_is_named(folder):
    (folder / "pics" / "b.png").unlink()
    with pytest.raises(ImageError, match=r"^Row 1: There is no image .*b\.png"):
        images().load(folder)
    (folder / "pics" / "b.png").mkdir()
    with pytest.raises(ImageError, match=r"^Row 1: .*b\.png is damaged or cannot be read"):
        images().load(folder)
    with pytest.raises(MissingFileError, match=r"no folder of images .*pix"):
        images(images="pix").load(folder)


def with_name(folder, name):
    frame = pd.read_csv(folder / "t.csv")
    frame.loc[2, "image"] = name
    frame.to_parquet(folder / "n.parquet")
    return images(path="n.parquet")


@pytest.mark.parametrize("name", ["../t.csv", "/etc/hostname", "sub/../../t.csv", "out", "round"])
def test_a_path_that_leaves_the_folder_is_refused(folder, name):
    (folder / "pics" / "out").symlink_to(folder / "t.csv")
    (folder / "pics" / "round").symlink_to(folder / "pics" / "round")
    with pytest.raises(ImageError, match=f"Row 2: the file {name!r} is outside the folder"):
        with_name(folder, name).load(folder)


def test_names_of_files_inside_may_wander(folder):
    assert with_name(folder, "sub/../sub/c.png").load(folder).inputs.shape == (4, 1, 64, 64)
    for name in (None, "a\0b"):
        with pytest.raises(ImageError, match=r"Row 2 has .* for a file name"):
            with_name(folder, name).load(folder)
    with pytest.raises(ImageError, match=r"^Row 2"):
        with_name(folder, "x" * 5000).load(folder)


def test_random_damage_gives_an_image_or_an_image_error(tmp_path):
    rng = np.random.default_rng(0)
    jpeg = io.BytesIO()
    Image.fromarray(smooth(40, 60)).save(jpeg, "JPEG")
    for i in range(300):
        content = bytearray([WHOLE, jpeg.getvalue()][i % 2])
        content[rng.integers(len(content))] = rng.integers(256)
        (tmp_path / "x").write_bytes(content)
        with contextlib.suppress(ImageError):
            assert read_files([tmp_path / "x"], (8, 8))[0].shape[2:] == (8, 8)


# --- TIFF, and one array a file


GREY = RNG.integers(0, 256, (8, 6), dtype=np.uint8)
TAGS = {"width": 256, "height": 257, "bits": 258, "packed": 259, "photometric": 262}


@pytest.mark.parametrize("packed", [None, "packbits", "tiff_lzw", "tiff_adobe_deflate"])
def test_tiff(tmp_path, packed):
    deep = RNG.integers(0, 4096, (8, 6)).astype(np.uint16)
    colour = RNG.integers(0, 256, (8, 6, 3), dtype=np.uint8)
    options = {} if packed is None else {"compression": packed}
    paths = []
    for i, pixels in enumerate((GREY, deep, colour)):
        paths.append(tmp_path / f"{i}.png")  # by content, not by name
        Image.fromarray(pixels).save(paths[-1], "TIFF", **options)
    found, notes = read_files(paths, (8, 6))
    assert np.array_equal(found[0], np.stack([GREY] * 3))
    assert np.array_equal(found[1, 0], np.round(deep * np.float32(255 / 4095)))
    assert np.array_equal(found[2], np.moveaxis(colour, 2, 0))
    assert "4,095" in notes[0]
    small = np.asarray(Image.fromarray(GREY).resize((3, 4), Image.Resampling.BILINEAR))
    assert np.array_equal(read_files(paths[:1], (4, 3))[0][0, 0], small)


def tiff(pixels, order="<", **changed):
    """A file in one strip, written by hand; tags of None are left out."""
    height, width = pixels.shape[:2]
    bits = 8 * pixels.dtype.itemsize
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 273: 0, 277: 1, 278: height}
    content = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    tags[279] = len(content)
    tags |= {TAGS[name]: value for name, value in changed.items() if name in TAGS}
    tags |= changed.get("tags", {})
    tags = {k: v for k, v in sorted(tags.items()) if v is not None}
    tags[273] = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack(f"{order}HHLL", k, 4, 1, v) for k, v in tags.items())
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HL", 42, 8)
    after = struct.pack(f"{order}L", changed.get("next", 0))
    return head + struct.pack(f"{order}H", len(tags)) + entries + after + content


NAMES = ("8", "16", "inverted", "its own successor")
DEEP_TIFF = RNG.integers(0, 65536, (8, 6)).astype(np.uint16)


@pytest.mark.parametrize("order", ["<", ">"])
def test_tiff_by_its_layout(tmp_path, order):
    (tmp_path / "8").write_bytes(tiff(GREY, order))
    (tmp_path / "16").write_bytes(tiff(DEEP_TIFF, order))
    (tmp_path / "inverted").write_bytes(tiff(GREY, order, photometric=0))
    (tmp_path / "its own successor").write_bytes(tiff(GREY, order, next=8))
    found, _ = read_files([tmp_path / name for name in NAMES], (8, 6))
    assert np.array_equal(found[0, 0], GREY)
    assert np.array_equal(found[1, 0], np.round(DEEP_TIFF * np.float32(255 / 65535)))
    assert np.array_equal(found[2, 0], 255 - GREY)
    assert np.array_equal(found[3], found[0])


def pages():
    buffer = io.BytesIO()
    frames = [Image.fromarray(GREY)] * 3
    frames[0].save(buffer, "TIFF", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def packed(pixels, compression, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "TIFF", compression=compression, **options)
    return buffer.getvalue()


BAD_TIFF = {
    "pages": (pages(), "holds several frames"),
    "jpeg": (packed(GREY, "jpeg"), r"in a form that is not read \(L, 8 bits, jpeg\); save it"),
    "lzma or zstd": (tiff(GREY, packed=50000), "not read .*zstd"),
    "unknown packing": (tiff(GREY, packed=4711), "damaged|not a PNG"),
    "inverted 16 bits": (tiff(DEEP_TIFF, photometric=0), "not read .*16 bits"),
    "signed": (tiff(DEEP_TIFF, tags={339: 2}), "not read|not a PNG"),
    "float": (tiff(GREY.astype(np.float32), tags={339: 3}), "not read .*F, 32 bits"),
    "one bit": (packed(GREY > 99, None), "not read .*1 bits"),
    "32 bits": (tiff(GREY.astype(np.uint32)), "not read|not a PNG"),
    "bomb": (tiff(GREY, width=100_000, height=100_000), "more than 89,478,485 pixels"),
    "truncated": (tiff(DEEP_TIFF)[:-5], "damaged"),
    "strips that lack": (tiff(GREY, tags={278: 4}), "parts of its image are absent"),
}


@pytest.mark.parametrize("kind", BAD_TIFF)
def test_tiff_in_another_form_is_refused(folder, kind):
    content, message = BAD_TIFF[kind]
    (folder / "pics" / "sub" / "c.png").write_bytes(content)
    with pytest.raises(ImageError, match=rf"^Row 2: .*c\.png .*({message})"):
        images().load(folder)


def test_random_damage_to_tiff_and_arrays(tmp_path):
    rng = np.random.default_rng(0)
    for name, save_as in (("npy", np.save), ("npz", np.savez_compressed)):
        save_as(tmp_path / f"x.{name}", GREY)
    whole = [
        tiff(GREY),
        packed(DEEP_TIFF, "tiff_lzw"),
        packed(GREY, "tiff_adobe_deflate"),
        (tmp_path / "x.npy").read_bytes(),
        (tmp_path / "x.npz").read_bytes(),
    ]
    for i in range(400):
        content = bytearray(whole[i % 5])
        for _ in range(1 + i % 3):
            content[rng.integers(len(content))] = rng.integers(256)
        if i % 7 == 0:
            del content[rng.integers(len(content)) :]
        (tmp_path / "x").write_bytes(content)
        with contextlib.suppress(ImageError):
            assert read_files([tmp_path / "x"], (8, 8))[0].shape[2:] == (8, 8)


def test_one_array_a_file(tmp_path):
    colour = RNG.integers(0, 256, (8, 6, 3), dtype=np.uint8)
    deep = GREY.astype(np.uint16) * 3
    for i, pixels in enumerate((GREY, GREY[None], colour, np.moveaxis(colour, 2, 0), deep)):
        np.save(tmp_path / f"{i}.npy", pixels)
        np.savez(tmp_path / f"{i}.npz", other=np.array(["text"]), image=pixels)
    for name, key in (("npy", None), ("npz", "image")):
        paths = [tmp_path / f"{i}.{name}" for i in range(5)]
        found = open_files(paths, (8, 6), files=Files(key=key)).read(np.arange(5))
        assert np.array_equal(found[0], np.stack([GREY] * 3))
        assert np.array_equal(found[1], found[0])
        assert np.array_equal(found[2], np.moveaxis(colour, 2, 0))
        assert np.array_equal(found[3], found[2])
        assert np.array_equal(found[4, 0], np.round(deep * np.float32(255 / 1023)))
    with pytest.raises(
        ImageError, match=r"^Row 0: .*0\.npz has no array 'x'; its arrays are: other"
    ):
        open_files(paths, (8, 6), files=Files(key="x"))
    with pytest.raises(ImageError, match=r"^Row 0: Array 'other' of .* is of type <U4; expected"):
        open_files(paths, (8, 6))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((5, 8, 6), np.uint8), r"of shape \(5, 8, 6\) .* expected \(height, width\)"),
        (np.zeros((8, 6), np.int16), "of type int16; expected uint8 or uint16"),
        (np.zeros((8, 6, 3), np.uint16), "type uint16; expected"),
        (np.zeros(8, np.uint8), r"of shape \(8,\)"),
        (np.zeros((0, 6), np.uint8), "takes 0 bytes"),
        (np.array([[None]]), "of type object"),
    ],
)
def test_an_array_that_is_no_image_is_refused(folder, array, message):
    with (folder / "pics" / "b.png").open("wb") as file:
        np.save(file, array)
    with pytest.raises(ImageError, match=rf"^Row 1: The array of .*b\.png .*{message}"):
        images().load(folder)


def test_an_array_of_a_file_is_not_unpacked_before_its_size_is_known(tmp_path):
    header = "{'descr': '|u1', 'fortran_order': False, 'shape': (100000, 100000), }\n"
    npz(tmp_path / "x.npz", header)
    with pytest.raises(ImageError, match=r"^Row 0: .* has 100,000 x 100,000 pixels; expected at"):
        open_files([tmp_path / "x.npz"], (8, 8))


# --- arrays


def array_source(**changed):
    return Images(path="t.csv", array="x.npz", patient="patient_id", label="view", **changed)


STACK = RNG.integers(0, 256, (4, 8, 6), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (4, 8, 6, 3), dtype=np.uint8)


def test_an_array_in_the_order_of_the_table(folder):
    np.savez(folder / "x.npz", first=STACK, names=np.array(["a"] * 4), second=STACK[::-1])
    data = array_source(size=(8, 6)).load(folder)
    assert np.array_equal(data.inputs, STACK[:, None])
    second = array_source(size=(8, 6), array_key="second").load(folder)
    assert np.array_equal(second.inputs, STACK[::-1, None])
    assert array_source(size=(4, 4)).load(folder).inputs.shape == (4, 1, 4, 4)


@pytest.mark.parametrize("order", [lambda a: a, lambda a: np.moveaxis(a, 3, 1), np.asfortranarray])
def test_channels_last_or_first(tmp_path, order):
    np.savez_compressed(tmp_path / "x.npz", order(COLOUR), order(STACK[..., None]))
    found, _ = read_array(tmp_path / "x.npz", None, 4, (8, 6))
    assert np.array_equal(found, np.moveaxis(COLOUR, 3, 1))
    found, _ = read_array(tmp_path / "x.npz", "arr_1", 4, (8, 6))
    assert np.array_equal(found, STACK[:, None])


def test_an_array_of_sixteen_bits(tmp_path):
    np.savez(tmp_path / "x.npz", STACK.astype(np.uint16) * 16)
    found, notes = read_array(tmp_path / "x.npz", None, 4, (8, 6))
    assert np.array_equal(found[:, 0], np.round(STACK.astype(float) * 16 * 255 / 4095))
    assert "4,095" in notes[0]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (STACK[:3], "3 images for a table of 4 rows"),
        (STACK.astype(float), "of type float64"),
        (np.array([None] * 4, dtype=object), "of type object"),
        (STACK[..., 0], r"of shape \(4, 8\)"),
        (np.zeros((4, 8, 6, 2), np.uint8), r"of shape \(4, 8, 6, 2\)"),
        (COLOUR.astype(np.uint16), "type uint16; expected"),
        (np.zeros((4, 0, 6), np.uint8), "takes 0 bytes"),
    ],
)
def test_arrays_of_another_form_are_refused(folder, array, message):
    np.savez(folder / "x.npz", images=array)
    with pytest.raises(ImageError, match=rf"Array 'images' of .*x\.npz .*{message}"):
        array_source().load(folder)


def npz(path, header):
    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", content)


def test_the_size_of_an_array_is_checked_before_it_is_read(tmp_path):
    path = tmp_path / "x.npz"
    npz(path, "{'descr': '|u1', 'fortran_order': False, 'shape': (4000, 5000, 2000), }\n")
    with pytest.raises(ImageError, match=r"takes 40,000,000,000 bytes; expected 1 to 8,589"):
        read_array(path, None, 4000, (8, 8))
    npz(path, "{'descr': '|u1', 'fortran_order': False, 'shape': (4, 8, 6), }\n")
    with pytest.raises(ImageError, match="damaged"):
        read_array(path, None, 4, (8, 8))
    np.savez_compressed(path, images=np.zeros((4, 100, 100), np.uint8))
    assert read_array(path, None, 4, (8, 8), max_bytes=40_000)[0].shape == (4, 1, 8, 8)
    with pytest.raises(ImageError, match="expected 1 to 39,999"):
        read_array(path, None, 4, (8, 8), max_bytes=39_999)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((4, 2_000_000_000, 1), "2,000,000,000 x 1 pixels; expected at most 89,478,485"),
        ((4, 10_000, 10_000, 1), "10,000 x 10,000 pixels"),
        ((4, 3, 9_000, 9_950), "9,000 x 9,950 pixels"),
        ((4, 3, 30_000_000, 3), "3 x 30,000,000 pixels"),
    ],
)
def test_an_array_of_gigantic_images_is_refused(folder, shape, message):
    with (folder / "x.npz").open("wb") as file:  # a plain array with a hole for its content
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + math.prod(shape))
    with pytest.raises(ImageError, match=f"has images of {message}"):
        array_source().open(folder)


def test_an_array_of_large_images_is_not_refused(monkeypatch, folder):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 48)
    for array in (STACK, COLOUR, np.moveaxis(COLOUR, 3, 1)):
        np.savez(folder / "x.npz", array)
        assert array_source().open(folder).read(np.arange(4)).shape[0] == 4
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 47)
        with pytest.raises(ImageError, match="images of 8 x 6 pixels; expected at most 47"):
            array_source().open(folder)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 48)


def test_what_is_no_npz_file_is_refused(folder):
    np.savez(folder / "x.npz", images=STACK)
    with pytest.raises(ImageError, match=r"no array 'image'; its arrays are: images\."):
        array_source(array_key="image").load(folder)
    whole = (folder / "x.npz").read_bytes()
    for content in (b"", b"text", whole[:100], whole[:70] + b"\xff" * 40 + whole[110:]):
        (folder / "x.npz").write_bytes(content)
        with pytest.raises(ImageError, match=r"x\.npz is damaged or not an \.npz file"):
            array_source().load(folder)
    (folder / "x.npz").unlink()
    with pytest.raises(MissingFileError, match=r"no array .*x\.npz"):
        array_source().load(folder)


def test_files_or_array_not_both(folder):
    with pytest.raises(pydantic.ValidationError, match="not both"):
        array_source(images="pics")
    with pytest.raises(pydantic.ValidationError, match="array_key"):
        images(array_key="x")
    for size in ((0, 8), (8,), (8, 100_000)):
        with pytest.raises(pydantic.ValidationError):
            images(size=size)
    with pytest.raises(TableError, match="no column 'file'"):
        images(image="file").load(folder)


# --- some rows at a time


def same_as_loaded(source, folder):
    """Any rows, in any order and number, are those of all images."""
    data, opened = source.load(folder), source.open(folder)
    n = len(data.inputs)
    assert opened.shape == data.inputs.shape[1:]
    assert opened.notes == data.notes
    assert np.array_equal(opened.test, data.test)
    rng = np.random.default_rng(0)
    for rows in (np.arange(n), rng.permutation(n), rng.integers(0, n, 7), np.array([n - 1])):
        found = opened.read(rows)
        assert found.dtype == np.uint8
        assert np.array_equal(found, data.inputs[rows])
    assert opened.read(np.array([], dtype=np.intp)).shape == (0, *opened.shape)
    return opened


DEEP = (smooth(40, 60, 9).astype(np.uint16) * 13).clip(0, 3000)
PAINTED = np.stack([smooth(40, 60, seed) for seed in (4, 5, 6)], axis=-1)
KINDS = {
    "grey": {},
    "deep": {"a.png": DEEP, "sub/c.png": DEEP // 3},
    "equal channels": {"a.png": np.stack([smooth(40, 60)] * 3, axis=-1)},
    "colour": {"b.png": PAINTED},
    "all": {"a.png": DEEP, "b.png": PAINTED, "sub/c.png": np.stack([smooth(40, 60)] * 3, -1)},
}


@pytest.mark.parametrize("channels", ["auto", 1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_files_are_opened_as_they_are_loaded(folder, kind, channels):
    for name, pixels in KINDS[kind].items():
        Image.fromarray(pixels).save(folder / "pics" / name)
    source = images(size=(20, 30), channels=channels, record="image", groups=["sex"])
    opened = same_as_loaded(source, folder)
    expected = {"auto": 3 if kind in ("colour", "all") else 1}.get(channels, channels)
    assert opened.shape == (expected, 20, 30)
    assert bool(opened.notes) == (kind in ("deep", "all"))
    assert opened.reserved == ("patient_id", "image")
    assert list(opened.frame.columns) == ["image", "patient_id", "view", "sex"]


@pytest.mark.parametrize("channels", ["auto", 1, 3])
@pytest.mark.parametrize("saved", ["x.npz", "x.npy"])
@pytest.mark.parametrize("kind", ["grey", "deep", "colour", "channels first", "equal channels"])
def test_arrays_are_opened_as_they_are_loaded(folder, kind, saved, channels):
    array = {
        "grey": STACK,
        "deep": STACK.astype(np.uint16) * 7,
        "colour": COLOUR,
        "channels first": np.asfortranarray(np.moveaxis(COLOUR, 3, 1)),
        "equal channels": np.stack([STACK] * 3, axis=-1),
    }[kind]
    (np.save if saved == "x.npy" else np.savez_compressed)(folder / saved, array)
    source = array_source(size=(5, 4), channels=channels).model_copy(update={"array": saved})
    opened = same_as_loaded(source, folder)
    if channels == "auto":
        assert opened.shape[0] == (3 if kind in ("colour", "channels first") else 1)


def test_nothing_is_decoded_before_it_is_read(folder):
    # A truncated image has a whole header.
    whole = (folder / "pics" / "sub" / "c.png").read_bytes()
    (folder / "pics" / "sub" / "c.png").write_bytes(whole[: len(whole) // 2])
    opened = images().open(folder)
    assert opened.read(np.array([3, 1])).shape == (2, 1, 64, 64)
    with pytest.raises(ImageError, match=r"^Row 2: .*c\.png is damaged"):
        opened.read(np.array([1, 3, 2]))


def test_of_coloured_files_the_first_is_decoded(tmp_path):
    paths = save(tmp_path, *[PAINTED] * 60)
    for path in paths[40:]:
        path.write_bytes(path.read_bytes()[:-300])
    assert open_files(paths, (8, 8)).shape == (3, 8, 8)
    with pytest.raises(ImageError, match="Row 40: "):
        read_files(paths, (8, 8))


def test_memory_does_not_grow_with_the_number_of_images(tmp_path, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    n = 300
    Image.fromarray(smooth(100, 100).astype(np.uint16) * 200).save(tmp_path / "x.png")
    np.savez_compressed(tmp_path / "x.npz", np.full((n, 100, 100), 9, np.uint16))
    opened = open_files([tmp_path / "x.png"] * 2, (100, 100))  # imports what is needed
    tracemalloc.start()
    try:
        opened = open_files([tmp_path / "x.png"] * n, (100, 100))
        opened.read(np.arange(3))
        of_files = tracemalloc.get_traced_memory()[1]
        assert of_files < n * 100 * 100 * 4 / 2
        tracemalloc.reset_peak()
        opened = open_images(tmp_path / "x.npz", None, n, (100, 100))
        assert opened.read(np.array([5, 290])).shape == (2, 1, 100, 100)
    finally:
        tracemalloc.stop()


def fingerprint(folder, **changed):
    return images(**changed).open(folder).fingerprint()


def test_fingerprints_of_files(folder):
    first = fingerprint(folder)
    assert fingerprint(folder) == first
    others = [
        fingerprint(folder, size=(10, 10)),
        fingerprint(folder, channels=3),
        fingerprint(folder, groups=["sex"]),
        fingerprint(folder, test={"fraction": 0.5}),
    ]
    (folder / "pics" / "b.png").write_bytes(png(smooth(41, 60, 1)))
    others.append(fingerprint(folder))
    (folder / "pics" / "b.png").rename(folder / "pics" / "B.png")
    frame = pd.read_csv(folder / "t.csv").replace("b.png", "B.png")
    frame.to_csv(folder / "t.csv", index=False)
    others.append(fingerprint(folder))
    (folder / "pics").rename(folder / "moved")
    assert fingerprint(folder, images="moved") == others[-1]
    assert len({first, *others}) == 7


def test_files_replaced_by_others_of_the_same_size_have_another_fingerprint(folder):
    path = folder / "pics" / "b.png"
    path.write_bytes(png(smooth(40, 60, 1), compress_level=0))
    first, size = fingerprint(folder), path.stat().st_size
    path.write_bytes(png(255 - smooth(40, 60, 1), compress_level=0))
    assert path.stat().st_size == size
    second = fingerprint(folder)
    path.write_bytes(png(smooth(40, 60, 1), compress_level=0))
    assert fingerprint(folder) == first != second


def test_a_file_that_is_gone_when_the_fingerprint_is_asked_for_is_named(folder):
    opened = images().open(folder)
    (folder / "pics" / "b.png").unlink()
    with pytest.raises(ImageError, match=r"^Row 1: There is no image .*b\.png"):
        opened.fingerprint()


def test_fingerprints_do_not_hold_the_files_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    path = tmp_path / "x.png"
    path.write_bytes(png(RNG.integers(0, 256, (2000, 2000), dtype=np.uint8)))
    np.save(tmp_path / "x.npy", np.zeros((9, 2000, 2000), np.uint8))
    found = open_files([path] * 9, (8, 8)), open_images(tmp_path / "x.npy", None, 9, (8, 8))
    tracemalloc.start()
    try:
        marks = [one.mark() for one in found]
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()
    assert marks[0] == (hashlib.sha256(path.read_bytes()).hexdigest(),) * 9
    assert marks[1][-1] == hashlib.sha256(bytes(9 * 2000 * 2000)).hexdigest()


def test_fingerprints_of_plain_arrays(folder):
    prints, source = [], array_source().model_copy(update={"array": "x.npy"})
    for array in (STACK, 255 - STACK, STACK.reshape(4, 6, 8), STACK):
        np.save(folder / "x.npy", array)
        prints.append(source.open(folder).fingerprint())
    assert prints[0] == prints[3]
    assert len(set(prints)) == 3
    (folder / "far").mkdir()
    for name in ("x.npy", "t.csv"):
        (folder / name).rename(folder / "far" / name)
    assert source.open(folder / "far").fingerprint() == prints[0]


def test_fingerprints_of_arrays(folder):
    prints = []
    for array in (STACK, STACK, STACK[::-1]):
        np.savez(folder / "x.npz", array)
        prints.append(array_source().open(folder).fingerprint())
    assert prints[0] == prints[1] != prints[2]
    assert array_source().open(folder).reserved == ("patient_id", "image")
