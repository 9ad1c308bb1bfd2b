"""DICOM images against a slow reference of the standard's formulas, and hostile files."""

import contextlib
import io
import struct
import sys
import time
import tracemalloc
import warnings
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

from confide.datasets import Images
from confide.datasets import dicom as reader
from confide.datasets.dicom import look, read_dicom
from confide.datasets.pixels import open_files
from confide.errors import ImageError, MissingExtraError

sys.path.insert(0, str(Path(__file__).parent))  # tests are imported from files
from dicom_files import dataset, save, write
from read import read_files

RNG = np.random.default_rng(0)
DEEP = RNG.integers(0, 4096, (7, 9)).astype(np.uint16)
SIGNED = RNG.integers(-2000, 2000, (7, 9)).astype(np.int16)
BYTES = RNG.integers(0, 256, (7, 9), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)


def linear(x, c, w):
    """PS3.3 C.11.2.1.2.1, with the output range 0 to 255."""
    if x <= c - 0.5 - (w - 1) / 2:
        return 0
    if x > c - 0.5 + (w - 1) / 2:
        return 255
    return ((x - (c - 0.5)) / (w - 1) + 0.5) * 255


def linear_exact(x, c, w):
    """PS3.3 C.11.2.1.3.2."""
    if x <= c - w / 2:
        return 0
    return 255 if x > c + w / 2 else ((x - c) / w + 0.5) * 255


def sigmoid(x, c, w):
    """PS3.3 C.11.2.1.3.1."""
    return 255 / (1 + np.exp(-4 * (x - c) / w))


def slow(pixels, function):
    return np.array([[function(int(x)) for x in line] for line in pixels])


@pytest.mark.parametrize(
    ("pixels", "bits"), [(BYTES, 8), (DEEP, 12), (DEEP * 16, 16), (SIGNED, 13)]
)
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    ("function", "formula"),
    [(None, linear), ("LINEAR_EXACT", linear_exact), ("SIGMOID", sigmoid)],
)
@pytest.mark.parametrize(("slope", "intercept"), [(None, None), (0.5, -100.0)])
def test_windows_against_the_formulas(
    tmp_path, pixels, bits, photometric, function, formula, slope, intercept
):
    middle = round(float(pixels.mean()), 2)
    center, width = middle if slope is None else slope * middle + intercept, np.ptp(pixels) / 2
    path = write(
        tmp_path / "x",
        pixels,
        bits=bits,
        photometric=photometric,
        WindowCenter=[center, 1.0],
        WindowWidth=[float(width), 2.0],
        VOILUTFunction=function,
        RescaleSlope=slope,
        RescaleIntercept=intercept,
    )
    found = read_dicom(path)
    scaled = (lambda x: x) if slope is None else (lambda x: slope * x + intercept)
    expected = slow(pixels, lambda x: formula(scaled(x), center, width))
    expected = 255 - expected if photometric == "MONOCHROME1" else expected
    assert found.dtype == np.float32
    assert found.shape == pixels.shape
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert not look(path).bare
    assert 0 < np.median(expected) < 255


def test_a_window_of_one_is_a_threshold(tmp_path):
    path = write(tmp_path / "x", BYTES, WindowCenter=100, WindowWidth=1)
    np.testing.assert_allclose(read_dicom(path), slow(BYTES, lambda x: 255 * (x > 99.5)))


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {"WindowCenter": 100, "WindowWidth": 0},
        {"WindowCenter": 100},
        {"WindowCenter": 1, "WindowWidth": 0, "VOILUTFunction": "SIGMOID"},
    ],
)
def test_without_a_window_the_range_of_the_values(tmp_path, tags):
    for pixels in (BYTES, DEEP, SIGNED):
        path = write(tmp_path / "x", pixels, bits=13 if pixels is SIGNED else None, **tags)
        low, high = int(pixels.min()), int(pixels.max())
        expected = slow(pixels, lambda x, low=low, high=high: 255 * (x - low) / (high - low))
        np.testing.assert_allclose(read_dicom(path), expected, atol=1e-3)
        assert look(path).bare
    flat = write(tmp_path / "x", np.full((3, 3), 7, np.uint8), **tags)
    assert not read_dicom(flat).any()


def lut(values, first, bits):
    item = Dataset()
    item.LUTDescriptor = [len(values) % 2**16, first, bits]
    item["LUTDescriptor"].VR = "US" if first >= 0 else "SS"
    item.LUTData = [int(v) for v in values]
    item["LUTData"].VR = "US"
    return item


@pytest.mark.parametrize("as_words", [False, True])
@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian])
def test_voi_luts(tmp_path, as_words, syntax):
    entries = np.sort(RNG.integers(0, 1024, 300)).astype(np.uint16)
    item = lut(entries, 1000, 10)
    if as_words:
        del item.LUTData
        item.add_new("LUTData", "OW", entries.tobytes())
    path = write(
        tmp_path / "x",
        DEEP,
        bits=12,
        syntax=syntax,
        VOILUTSequence=[item],
        WindowCenter=5,
        WindowWidth=10,
    )
    expected = slow(DEEP, lambda x: int(entries[min(max(x - 1000, 0), 299)]) * 255 / 1023)
    np.testing.assert_allclose(read_dicom(path), expected, atol=1e-3)


def test_modality_luts_against_pydicom(tmp_path):
    entries = RNG.integers(0, 65536, 4000)
    made = dataset(
        DEEP,
        bits=12,
        ModalityLUTSequence=[lut(entries, 50, 16)],
        WindowCenter=30000,
        WindowWidth=40000,
    )
    stages = apply_voi_lut(apply_modality_lut(DEEP, made), made)
    found = read_dicom(save(tmp_path / "x", made))
    np.testing.assert_allclose(found, stages * (255 / 65535), atol=1e-3)


def test_padding_is_black_and_no_part_of_the_range(tmp_path):
    pixels = SIGNED.copy()
    pixels[:2] = -2048
    pixels[2] = -2040
    tags = {"PixelPaddingValue": -2048, "PixelPaddingRangeLimit": -2035}
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        path = write(tmp_path / "x", pixels, bits=13, photometric=photometric, **tags)
        found = read_dicom(path)
        assert not found[:3].any()
        rest = pixels[3:].astype(float)
        expected = 255 * (rest - rest.min()) / np.ptp(rest)
        expected = 255 - expected if photometric == "MONOCHROME1" else expected
        np.testing.assert_allclose(found[3:], expected, atol=1e-3)
    everything = write(tmp_path / "x", np.full((2, 2), 3, np.uint8), PixelPaddingValue=3)
    assert not read_dicom(everything).any()


def test_the_same_bits_with_and_without_sign(tmp_path):
    made = dataset(SIGNED, bits=16, PixelPaddingValue=63488)
    made["PixelPaddingValue"].VR = "US"
    made.PixelData = np.full(SIGNED.shape, -2048, "<i2").tobytes()
    assert not read_dicom(save(tmp_path / "x", made)).any()


@pytest.mark.parametrize("syntax", [uid.ExplicitVRBigEndian, uid.ImplicitVRLittleEndian])
@pytest.mark.parametrize("pixels", [DEEP, SIGNED, BYTES[:6]])
def test_orders_of_bytes(tmp_path, syntax, pixels):
    plain = write(tmp_path / "a", pixels)
    other = write(tmp_path / "b", pixels, syntax=syntax)
    assert np.array_equal(read_dicom(plain), read_dicom(other))


def test_run_lengths(tmp_path):
    for pixels in (DEEP, COLOUR):
        photometric = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
        made = dataset(pixels, photometric=photometric)
        plain = read_dicom(save(tmp_path / "a", made))
        made.compress(uid.RLELossless, generate_instance_uid=False)
        assert np.array_equal(read_dicom(save(tmp_path / "b", made)), plain)


def compressed(pixels, syntax, *, size=None, **options):
    """A data set whose pixels Pillow compressed; `size` of another image in the codestream."""
    image = Image.fromarray(pixels if size is None else np.zeros(size, pixels.dtype))
    buffer = io.BytesIO()
    if syntax in (uid.JPEG2000, uid.JPEG2000Lossless):
        image.save(buffer, "JPEG2000", no_jp2=True, irreversible=False, mct=0)
    else:
        image.save(buffer, "JPEG", quality=95, **options)
    made = dataset(pixels, photometric="MONOCHROME2" if pixels.ndim == 2 else "YBR_FULL_422")
    made.file_meta.TransferSyntaxUID = syntax
    made.PixelData = encapsulate([buffer.getvalue()])
    made["PixelData"].VR = "OB"
    made["PixelData"].is_undefined_length = True
    return made


def test_jpeg_and_jpeg_2000(tmp_path):
    smooth = np.add.outer(np.arange(32), np.arange(48)).astype(np.uint8) * 3
    window = {"WindowCenter": 128, "WindowWidth": 256}
    for syntax, error in ((uid.JPEG2000Lossless, 0.01), (uid.JPEGBaseline8Bit, 3)):
        made = compressed(smooth, syntax)
        made.update(window)
        for name, value in window.items():
            setattr(made, name, value)
        found = read_dicom(save(tmp_path / "x", made))
        assert np.abs(found - smooth).max() <= error
    rgb = np.stack([smooth, smooth[::-1], smooth // 2], axis=-1)
    found = read_dicom(save(tmp_path / "x", compressed(rgb, uid.JPEGBaseline8Bit, subsampling=0)))
    assert found.shape == rgb.shape
    assert np.abs(found.astype(int) - rgb).mean() < 3


def test_colours(tmp_path):
    assert np.array_equal(read_dicom(write(tmp_path / "x", COLOUR, photometric="RGB")), COLOUR)
    assert look(tmp_path / "x") == (True, False, False)
    ybr = np.asarray(Image.fromarray(COLOUR).convert("YCbCr"))
    found = read_dicom(write(tmp_path / "x", ybr, photometric="YBR_FULL"))
    assert np.abs(found.astype(int) - COLOUR).max() <= 3
    deep = COLOUR.astype(np.uint16) * 16
    found = read_dicom(write(tmp_path / "x", deep, photometric="RGB", bits=12))
    assert np.array_equal(found, np.round(deep * (255 / 4095)).astype(np.uint8))


@pytest.mark.parametrize("bits", [8, 16])
def test_palettes(tmp_path, bits):
    tables = RNG.integers(0, 2**bits, (3, 200)).astype(f"<u{bits // 8}")
    tags = {}
    for colour, table in zip(("Red", "Green", "Blue"), tables, strict=True):
        tags[f"{colour}PaletteColorLookupTableDescriptor"] = [200, 10, bits]
        tags[f"{colour}PaletteColorLookupTableData"] = table.tobytes()
    path = write(tmp_path / "x", BYTES, photometric="PALETTE COLOR", **tags)
    index = np.clip(BYTES.astype(int) - 10, 0, 199)
    expected = np.round(np.moveaxis(tables[:, index], 0, -1) * (255 / (2**bits - 1)))
    assert np.array_equal(read_dicom(path), expected)
    tags.pop("BluePaletteColorLookupTableData")
    with pytest.raises(ImageError, match="no plain table of its palette"):
        read_dicom(write(path, BYTES, photometric="PALETTE COLOR", **tags))


# --- among other images


def test_dicom_by_content_among_other_files(tmp_path):
    write(tmp_path / "a.png", DEEP, bits=12, WindowCenter=2048, WindowWidth=4096)
    write(tmp_path / "b", BYTES)
    Image.fromarray(BYTES).save(tmp_path / "c.dcm", "PNG")
    write(tmp_path / "d.dcm", BYTES, BurnedInAnnotation="YES")
    Image.fromarray(DEEP).save(tmp_path / "e.png")
    paths = [tmp_path / name for name in ("a.png", "b", "c.dcm", "d.dcm", "e.png")]
    found, notes = read_files(paths, (7, 9))
    assert found.shape == (5, 1, 7, 9)
    assert np.array_equal(found[0, 0], np.round(read_dicom(paths[0])))
    assert np.array_equal(found[1], found[3])
    assert np.array_equal(found[2, 0], BYTES)
    assert np.array_equal(found[4, 0], np.round(DEEP * np.float32(255 / 4095)))
    assert notes == (
        "1 images have 16 bits; their values 0 to 4,095 became 0 to 255.",
        "2 DICOM images have no window; each was scaled from its own smallest to its largest "
        "value.",
        "1 images say that they have burned-in annotations (names may be readable in the pixels).",
    )
    # Resized as other images are.
    small = read_files(paths[1:2], (3, 4))[0][0, 0]
    image = Image.fromarray(read_dicom(paths[1])).resize((4, 3), Image.Resampling.BILINEAR)
    assert np.array_equal(small, np.round(np.asarray(image)))


def test_one_coloured_dicom_makes_all_rgb(tmp_path):
    grey = write(tmp_path / "a", BYTES)
    equal = write(tmp_path / "b", np.stack([BYTES] * 3, axis=-1), photometric="RGB")
    colour = write(tmp_path / "c", COLOUR, photometric="RGB")
    assert open_files([grey, equal], (7, 9)).shape == (1, 7, 9)
    found = read_files([grey, equal, colour], (6, 8))[0]
    assert found.shape == (3, 3, 6, 8)
    assert np.array_equal(found[2], np.moveaxis(COLOUR, -1, 0))
    assert open_files([colour], (6, 8), 1).shape == (1, 6, 8)


# --- what is refused


def of(**tags):
    return dataset(BYTES, **tags)


def of_syntax(syntax):
    made = dataset(BYTES)
    made.file_meta.TransferSyntaxUID = uid.UID(syntax)
    if syntax.startswith("1.2.840.10008.1.2.4"):
        made.PixelData = encapsulate([made.PixelData])
    return made


def without_pixels():
    made = dataset(BYTES)
    del made.PixelData
    return made


def waveform():
    made = without_pixels()
    for name in ("Rows", "Columns"):
        delattr(made, name)
    made.SOPClassUID = uid.UID("1.2.840.10008.5.1.4.1.1.9.1.1")
    return made


def no_syntax():
    made = dataset(BYTES)
    del made.file_meta.TransferSyntaxUID
    return made


def short(made):
    made.PixelData = made.PixelData[:20]
    return made


def jp2(made):
    # A box of no length, over which a parser may go round for ever.
    made.PixelData = encapsulate([b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100)])
    made["PixelData"].VR = "OB"
    return made


BAD = {
    "ECG": (waveform, "has no image; it holds 12-lead ECG Waveform Storage"),
    "no pixels": (without_pixels, "the pixels are absent"),
    "frames": (lambda: of(NumberOfFrames=3), r"several frames \(3\)"),
    "huge": (lambda: of(Rows=60000, Columns=60000), "more than 89,478,485 pixels"),
    "truncated": (lambda: short(dataset(DEEP)), "damaged DICOM file"),
    "bits stored": (lambda: of(BitsStored=12), "BitsStored is 12"),
    "no bits": (lambda: of(BitsStored=0), "BitsStored is 0"),
    "bits allocated": (lambda: of(BitsAllocated=32), "BitsAllocated is 32"),
    "no rows": (lambda: of(Rows=0), "Rows is 0"),
    "two columns": (lambda: of(Columns=[7, 9]), r"Columns is \[7, 9\]"),
    "samples": (lambda: of(SamplesPerPixel=3), "SamplesPerPixel is 3"),
    "photometric": (lambda: of(photometric="HSV"), "interpretation 'HSV', which is not"),
    "no syntax": (no_syntax, "does not say its transfer syntax"),
    "deflated": (lambda: of_syntax("1.2.840.10008.1.2.1.99"), "Deflated.*1.2.840.10008.1.2.1.99"),
    "JPEG-LS": (lambda: of_syntax("1.2.840.10008.1.2.4.80"), r"JPEG-LS.*\(1.2.840.10008.1.2.4.80"),
    "JPEG lossless": (
        lambda: of_syntax("1.2.840.10008.1.2.4.70"),
        r"JPEG Lossless.*\(1.2.840.10008.1.2.4.70\)",
    ),
    "own syntax": (lambda: of_syntax("1.2.3.4.5"), r"unknown \(1.2.3.4.5\)"),
    "another JPEG": (
        lambda: compressed(BYTES, uid.JPEGBaseline8Bit, size=(900, 900)),
        "header says 7 x 9 pixels, its compressed image 900 x 900",
    ),
    "another JPEG 2000": (
        lambda: compressed(BYTES, uid.JPEG2000, size=(900, 700)),
        "header says 7 x 9 pixels, its compressed image 900 x 700",
    ),
    "JP2": (lambda: jp2(compressed(BYTES, uid.JPEG2000)), "no JPEG 2000 codestream"),
    "function": (lambda: of(VOILUTFunction="CUBIC"), "VOILUTFunction is 'CUBIC'"),
    "LUT": (
        lambda: of(VOILUTSequence=[lut([1, 2], 0, 40)]),
        "entries of 40 bits",
    ),
    "short LUT": (
        lambda: of(
            RedPaletteColorLookupTableDescriptor=[100, 0, 8],
            RedPaletteColorLookupTableData=b"ab",
            photometric="PALETTE COLOR",
        ),
        "2 of 100 entries",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_refusals_name_row_and_file(tmp_path, kind):
    make, message = BAD[kind]
    good = write(tmp_path / "good", BYTES)
    bad = save(tmp_path / "bad.dcm", make())
    with pytest.raises(ImageError, match=rf"^Row 1: .*bad\.dcm .*{message}"):
        read_files([good, bad], (8, 8))


def test_names_of_files_come_from_the_table(tmp_path):
    save(tmp_path / "w.dcm", waveform())
    pd.DataFrame({"image": ["w.dcm"] * 2, "p": [1, 2], "y": [0, 1]}).to_csv(tmp_path / "t.csv")
    with pytest.raises(ImageError, match=r"^Row 0: .*w\.dcm has no image"):
        Images(path="t.csv", patient="p", label="y").load(tmp_path)


def test_large_files_are_not_read(tmp_path, monkeypatch):
    path = write(tmp_path / "x", BYTES)
    monkeypatch.setattr(reader, "MAX_FILE_BYTES", 100)
    with pytest.raises(ImageError, match="at most 100 are read"):
        look(path)


def element(group, number, vr, value, length=None):
    length = len(value) if length is None else length
    return struct.pack("<HH2sHL", group, number, vr, 0, length) + value


def test_lengths_that_are_not_there(tmp_path):
    whole = write(tmp_path / "x", DEEP).read_bytes()
    at = whole.index(struct.pack("<HH", 0x0010, 0x0010))  # the patient's name
    tag = whole[:at]
    for length in (2**32 - 1, 2**32 - 2, 2**31):
        hostile = tag + element(0x0010, 0x0010, b"UN", b"abc", length) + whole[at:]
        (tmp_path / "x").write_bytes(hostile)
        with pytest.raises(ImageError, match=r"x (has no image|is a damaged DICOM file)"):
            read_dicom(tmp_path / "x")


def test_headers_without_end_are_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "_MAX_READS", 1000)
    whole = write(tmp_path / "x", DEEP).read_bytes()
    at = whole.index(struct.pack("<HH", 0x0010, 0x0010))
    many = element(0x0009, 0x1001, b"UN", b"") * 2000
    nested = element(0x0009, 0x1001, b"SQ", b"", 2**32 - 1) + struct.pack(
        "<HHL", 0xFFFE, 0xE000, 2**32 - 1
    )
    meta = element(0x0002, 0x0102, b"OB", b"") * 2000
    contents = [whole[:at] + m + whole[at:] for m in (many, nested * 200, nested * 5000)]
    for content in (*contents, whole[:132] + meta + whole[132:]):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(ImageError, match="damaged DICOM file"):
            read_dicom(tmp_path / "x")


def test_a_deflated_bomb_is_not_inflated(tmp_path):
    made = of_syntax("1.2.840.10008.1.2.1.99")
    whole = save(tmp_path / "x", made).read_bytes()
    body = zlib.compress(bytes(2**26), 9)[2:-4]
    at = whole.index(b"1.2.840.10008.1.2.1.99") + 22
    (tmp_path / "x").write_bytes(whole[:at] + body)
    tracemalloc.start()
    try:
        with pytest.raises(ImageError, match="Deflated"):
            read_dicom(tmp_path / "x")
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()


def test_a_long_table_is_refused_before_it_is_parsed(tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "_MAX_LUT_BYTES", 100)
    path = write(tmp_path / "x", DEEP, VOILUTSequence=[lut(range(300), 0, 16)])
    with pytest.raises(ImageError, match="too long"):
        read_dicom(path)


def test_random_damage_gives_an_image_or_an_image_error(tmp_path):
    rng = np.random.default_rng(1)
    contents = [
        write(tmp_path / "a", DEEP, VOILUTSequence=[lut(range(300), 0, 16)]).read_bytes(),
        write(tmp_path / "b", SIGNED, syntax=uid.ImplicitVRLittleEndian).read_bytes(),
        save(tmp_path / "c", compressed(BYTES, uid.JPEG2000)).read_bytes(),
        save(tmp_path / "d", compressed(COLOUR, uid.JPEGBaseline8Bit)).read_bytes(),
    ]
    start, n_images = time.monotonic(), 0
    for i in range(300):
        content = bytearray(contents[i % 4])
        if i % 5 == 0:
            del content[rng.integers(132, len(content)) :]
        for _ in range(rng.integers(1, 4)):
            content[rng.integers(132, len(content))] = rng.integers(256)
        (tmp_path / "x").write_bytes(content)
        with contextlib.suppress(ImageError), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            assert read_dicom(tmp_path / "x").ndim in (2, 3)
            n_images += 1
    assert n_images > 30
    assert time.monotonic() - start < 30


def test_without_pydicom_the_extra_is_named(tmp_path, monkeypatch):
    path = write(tmp_path / "x.dcm", BYTES)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(MissingExtraError, match=r'x\.dcm .*pip install "confide\[dicom\]"'):
        read_files([path], (8, 8))


def test_metadata_are_not_complained_about(tmp_path):
    made = dataset(BYTES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made.StudyDate = "not a date"
        made.WindowCenter = 100
        made.WindowWidth = 50
        made.PatientAge = "very old"
    assert read_files([save(tmp_path / "x", made)], (8, 8))[0].shape == (1, 1, 8, 8)


def test_meta_information_alone(tmp_path):
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    made = Dataset()
    made.file_meta = meta
    with pytest.raises(ImageError, match=r"has no image; it holds \?"):
        read_dicom(save(tmp_path / "x", made))
