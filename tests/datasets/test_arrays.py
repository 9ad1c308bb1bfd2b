"""Arrays on disk."""

import hashlib
import io
import struct
import tempfile
import tracemalloc
import zipfile

import numpy as np
import pytest

from confide.datasets import arrays
from confide.datasets.arrays import open_array
from confide.errors import ImageError, TableError

ARRAY = np.random.default_rng(0).integers(0, 256, (50, 7, 9), dtype=np.uint8)


def anything(what, shape, dtype):
    """A check that lets everything pass."""


def opened(path, key=None, **options):
    return open_array(path, key, anything, **options).array


@pytest.mark.parametrize("order", [np.ascontiguousarray, np.asfortranarray])
@pytest.mark.parametrize("dtype", [np.uint8, ">u2", np.float64])
def test_what_was_saved_is_opened(tmp_path, order, dtype):
    array = order(ARRAY.astype(dtype))
    np.savez(tmp_path / "a.npz", other=ARRAY, array=array)
    np.savez_compressed(tmp_path / "b.npz", array)
    np.save(tmp_path / "c.npy", array)
    (tmp_path / "c.npy").rename(tmp_path / "c.npz")  # recognised by content
    for found in (
        opened(tmp_path / "a.npz", "array"),
        opened(tmp_path / "b.npz"),
        opened(tmp_path / "c.npz"),
    ):
        assert found.dtype == array.dtype
        assert np.array_equal(found, array)
        assert not found.flags.writeable


def test_arrays_do_not_go_through_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "_PIECE", 2**18)
    np.savez_compressed(tmp_path / "a.npz", np.zeros((400, 200, 200), np.uint8))
    np.save(tmp_path / "b.npy", np.zeros((400, 200, 200), np.uint8))
    tracemalloc.start()
    try:
        for name in ("a.npz", "b.npy"):
            assert opened(tmp_path / name)[399].sum() == 0
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()


def test_nothing_is_left_behind(tmp_path, monkeypatch):
    np.savez(tmp_path / "a.npz", ARRAY)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "t"))
    (tmp_path / "t").mkdir()
    found = opened(tmp_path / "a.npz")
    assert list((tmp_path / "t").iterdir()) == []
    assert np.array_equal(found, ARRAY)


def saved(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def archive(path, content):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.npy", content)
    return path


def test_no_more_than_the_header_says_is_unpacked(tmp_path, monkeypatch):
    written = []
    append = arrays._append
    monkeypatch.setattr(arrays, "_append", lambda *a: (written.append(len(a[1])), append(*a)))
    path = archive(tmp_path / "x.npz", saved(ARRAY) + bytes(10**7))
    with pytest.raises(ImageError, match=r"'a' of .* is longer than it says"):
        opened(path)
    assert sum(written) == ARRAY.size
    path = archive(tmp_path / "x.npz", saved(ARRAY)[:-10])
    with pytest.raises(ImageError, match=r"'a' of .* lacks 10 bytes"):
        opened(path)


def test_checksums_are_checked(tmp_path):
    np.savez(tmp_path / "x.npz", ARRAY)
    content = bytearray((tmp_path / "x.npz").read_bytes())
    content[-400] ^= 1
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(ImageError, match=r"damaged or not an \.npz file .*CRC"):
        opened(tmp_path / "x.npz")


def test_plain_files_that_are_refused(tmp_path):
    whole = saved(ARRAY)
    path = tmp_path / "x.npy"
    path.write_bytes(whole[:-5])
    with pytest.raises(ImageError, match=r"x\.npy is damaged: 3,145 of 3,150 bytes are there"):
        opened(path)
    for content in (whole[:20], b"\x93NUMPY" + struct.pack("<HH", 9, 9)):
        path.write_bytes(content)
        with pytest.raises(ImageError, match=r"x\.npy is damaged"):
            opened(path)
    path.write_bytes(whole)
    with pytest.raises(ImageError, match="leave `array_key` out"):
        opened(path, "a")
    with pytest.raises(TableError, match="takes 3,150 bytes; expected 1 to 3,149"):
        opened(path, max_bytes=3149, error=TableError)


def test_a_full_disk_is_said(tmp_path, monkeypatch):
    np.savez(tmp_path / "x.npz", ARRAY)

    class Full(io.BytesIO):
        def write(self, piece, /):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", Full)
    with pytest.raises(ImageError, match=r"cannot be unpacked into .* \(No space left.*TMPDIR"):
        opened(tmp_path / "x.npz")


@pytest.mark.parametrize("save", [np.save, np.savez, np.savez_compressed])
def test_marks_change_with_the_content(tmp_path, save):
    marks = []
    path = tmp_path / ("x.npy" if save is np.save else "x.npz")
    for array in (
        ARRAY,
        ARRAY,
        ARRAY[::-1],
        255 - ARRAY,
        ARRAY.view(np.int8),
        np.asfortranarray(ARRAY),
    ):
        save(path, array)
        marks.append(open_array(path, None, anything).mark())
    assert marks[0] == marks[1]
    assert len(set(marks)) == 5
    assert marks[0][-1] == hashlib.sha256(ARRAY.tobytes()).hexdigest()


def test_marks_do_not_depend_on_the_folder_but_on_the_name(tmp_path):
    (tmp_path / "far").mkdir()
    np.savez(tmp_path / "x.npz", a=ARRAY, b=ARRAY)
    here = open_array(tmp_path / "x.npz", None, anything).mark()
    assert here[:2] == ("x.npz", "a")
    assert open_array(tmp_path / "x.npz", "b", anything).mark() != here
    (tmp_path / "x.npz").rename(tmp_path / "far" / "x.npz")
    assert open_array(tmp_path / "far" / "x.npz", None, anything).mark() == here


SHAPES = ["(2, True, 4)", "(2, -1, -4)", "(False,)", "(2, 2.0)", "('a',)", "7", "(2**3,)"]


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_of_anything_but_whole_numbers_are_refused(tmp_path, shape, version):
    path = tmp_path / "x.npy"
    path.write_bytes(
        header(f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}", version)
    )
    with pytest.raises(TableError, match=r"x\.npy is damaged"):
        opened(path, error=TableError)


def header(text, version=1):
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text.encode() + bytes(100)


STRANGE = [
    "{1: 2, 'a': 3}",
    "{[]: 1}",
    "-" * 9000 + "1",
    "(" * 9000,
    "[" * 150 + "]" * 150,
    "",
    "9" * 9000,
]


@pytest.mark.parametrize("text", STRANGE, ids=range(len(STRANGE)))
def test_headers_of_anything_are_refused(tmp_path, text):
    (tmp_path / "x.npy").write_bytes(header(text))
    with pytest.raises(ImageError, match=r"x\.npy is damaged"):
        opened(tmp_path / "x.npy")
