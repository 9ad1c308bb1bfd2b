"""Files that may come from anybody: every damage is an error that names the file."""

import io
import json
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from confide.errors import ConfideError, FolderError, MissingFileError, ReleaseError, TableError
from confide.inversion.challenge_files import (
    Names,
    array_names,
    bare,
    fresh_folder,
    mean_row,
    read_array,
    read_pairs,
    read_texts,
    write_array,
)

CODE = np.arange(12, dtype=np.float32).reshape(3, 4)


def saved(values, **more):
    stream = io.BytesIO()
    np.save(stream, values, **more)
    return stream.getvalue()


def header(text, version=1):
    size = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + size + text


def stating(shape, descr="<f4", order=False):
    return header(f"{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}}}\n".encode())


class TestArrays:
    def test_there_and_back(self, tmp_path):
        file = tmp_path / "0.npy"
        write_array(file, CODE)
        np.testing.assert_array_equal(np.load(file, allow_pickle=False), CODE)
        found = read_array(file, (2,))
        np.testing.assert_array_equal(found, CODE)
        file.write_bytes(saved(np.asfortranarray(CODE)))
        np.testing.assert_array_equal(read_array(file, (2,)), CODE)
        np.testing.assert_array_equal(mean_row(file), CODE.mean(axis=0))
        write_array(file, CODE[0])
        np.testing.assert_array_equal(mean_row(file, 4), CODE[0])
        with pytest.raises(ReleaseError, match="4 numbers, expected 5"):
            mean_row(file, 5)

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b"", "no .npy file"),
            (b"\x93NUMPY", "no .npy file"),
            (b"\x93NUMPY\x09\x00rest", "no .npy file"),
            (pickle.dumps({"a": 1}), "no .npy file"),
            (saved(np.array([{}, 1], dtype=object), allow_pickle=True), "holds '.O'"),
            (saved(CODE.astype(np.float64)), "holds '<f8'"),
            (saved(CODE.astype(">f4")), "holds '>f4'"),
            (saved(CODE.astype(np.int32)), "holds '<i4'"),
            (saved(np.zeros(3, dtype=[("a", "<f4")])), "no .npy file"),
            (saved(CODE[0]), "expected .P, C."),
            (saved(CODE[None]), "expected .P, C."),
            (saved(CODE[:0]), "expected .P, C."),
            (saved(CODE)[:-1], "damaged"),
            (saved(CODE) + b"\0", "damaged"),
            (stating((2**40, 2**40)), "damaged"),
            (stating((2**59, 2**59)) + CODE.tobytes(), "damaged"),
            (stating((2**64 + 3, 4)) + CODE.tobytes(), "no .npy file"),
            (stating("(-3, -4)") + CODE.tobytes(), "no .npy file"),
            (stating("(3.0, 4)") + CODE.tobytes(), "no .npy file"),
            (stating("__import__('os')"), "no .npy file"),
            (header(b"{" * 3000 + b"\n"), "no .npy file"),
            (header(b"(" * 60_000 + b"\n"), "no .npy file"),
            (header(b" " * 2**20, version=2), "no .npy file"),
            (b"\x93NUMPY\x02\x00\xff\xff\xff\xff", "no .npy file"),
            (saved(CODE * np.float32(np.nan)), "not finite"),
            (saved(np.full((3, 4), np.inf, dtype=np.float32)), "not finite"),
        ],
    )
    def test_hostile_ones(self, tmp_path, content, words):
        file = tmp_path / "0.npy"
        file.write_bytes(content)
        with pytest.raises(ReleaseError, match=words) as error:
            read_array(file, (2,))
        assert str(file) in str(error.value)

    def test_any_damaged_byte_is_an_error_or_another_number(self, tmp_path):
        file, whole = tmp_path / "0.npy", saved(CODE)
        rng = np.random.default_rng(0)
        for _ in range(600):
            content = bytearray(whole)
            for at in rng.integers(len(content), size=rng.integers(1, 5)):
                content[at] = rng.integers(256)
            file.write_bytes(
                content[: rng.integers(len(content) + 1)] if rng.random() < 0.3 else content
            )
            try:
                found = read_array(file, (1, 2))
            except ReleaseError:
                continue
            assert found.size == 12
            assert np.isfinite(found).all()

    def test_missing_and_no_file(self, tmp_path):
        with pytest.raises(MissingFileError, match=r"0\.npy"):
            read_array(tmp_path / "0.npy", (2,))
        with pytest.raises(ReleaseError, match="no file"):
            read_array(tmp_path, (2,))


class TestJson:
    @pytest.mark.parametrize(
        ("content", "error", "words"),
        [
            ("", ReleaseError, "not valid JSON"),
            ("{", ReleaseError, "not valid JSON"),
            ("[" * 100_000, ReleaseError, "not valid JSON"),
            ('{"a": "b", "a": "c"}', TableError, "'a' more than once"),
            ('{"a": 1}', TableError, "'a' is 1"),
            ('{"a": null}', TableError, "'a' is None"),
            ('{"a": ["b"]}', TableError, "expected a string"),
            ('{"a": ""}', TableError, "expected a string"),
            ('{"": "a"}', TableError, "expected a string"),
            ('["a"]', TableError, "a list, expected an object"),
            ('"a"', TableError, "a string, expected"),
            ("NaN", TableError, "a number, expected"),
        ],
    )
    def test_pairs(self, tmp_path, content, error, words):
        file = tmp_path / "a.json"
        file.write_text(content)
        with pytest.raises(error, match=words) as found:
            read_pairs(file)
        assert str(file) in str(found.value)

    @pytest.mark.parametrize(
        ("content", "words"),
        [('["a", "b", "a"]', "more than once"), ('["a", 2]', "entry 1 is 2"), ("{}", "a list of")],
    )
    def test_texts(self, tmp_path, content, words):
        file = tmp_path / "a.json"
        file.write_text(content)
        with pytest.raises(TableError, match=words):
            read_texts(file)

    def test_sizes_are_limited(self, tmp_path, monkeypatch):
        monkeypatch.setattr("confide.inversion.challenge_files._LARGEST_JSON", 10)
        file = tmp_path / "a.json"
        file.write_text(json.dumps(["a" * 20]))
        with pytest.raises(ReleaseError, match="24 bytes, more than the 10"):
            read_texts(file)

    def test_not_text_and_links(self, tmp_path):
        file = tmp_path / "a.json"
        file.write_bytes(b'["\xff"]')
        with pytest.raises(ReleaseError, match="not valid JSON"):
            read_texts(file)
        link = tmp_path / "b.json"
        link.symlink_to(file)
        with pytest.raises(ReleaseError, match="symbolic link"):
            read_texts(link)

    def test_random_text_is_never_a_crash(self, tmp_path):
        file, rng = tmp_path / "a.json", np.random.default_rng(0)
        pieces = ['{"', '":"', '"}', "[", "]", ",", "a", "b", "1", "null", "\\u0000", "\\", " "]
        for _ in range(300):
            file.write_text("".join(rng.choice(pieces, rng.integers(1, 12))))
            for read in (read_pairs, read_texts):
                try:
                    found = read(file)
                except ConfideError:
                    continue
                assert all(isinstance(one, str) for one in found)


class TestNames:
    @pytest.mark.parametrize(
        "given", ["12.npy", "/a/b/12.npy", "private_encoded_dataset/12.npy", "D:\\codes\\12.npy"]
    )
    def test_folders_before_a_code_do_not_matter(self, given):
        assert bare(given, Path("f.json")) == "12.npy"

    @pytest.mark.parametrize(
        "given",
        ["../12.npy", "a/../../12.npy", "a\\..\\12.npy", "12", "model.p", ".npy", "a/", "12.npy/",
         "a\0.npy", "..", "/"],
    )  # fmt: skip
    def test_names_of_no_code(self, given):
        with pytest.raises(TableError, match=r"f\.json"):
            bare(given, Path("f.json"))

    def test_images_by_their_ends(self):
        names = Names(["train/p1/v1.png", "train/p2/v1.png", "q.png"])
        assert names.find("train/p1/v1.png") == "train/p1/v1.png"
        assert names.find("/x/y/train/p2/v1.png") == "train/p2/v1.png"
        assert names.find("p2/v1.png") == "train/p2/v1.png"
        assert names.find("/z/q.png") == "q.png"
        for unknown in ("v1.png", "test/p1/v1.png", "", "png"):
            assert names.find(unknown) is None

    def test_three_that_end_alike(self):
        assert Names(["a/x", "b/x", "c/x"]).find("x") is None

    def test_order_of_files(self, tmp_path):
        for name in ("10.npy", "9.npy", "b.npy", "1.txt", "image_means.npy", "٣.npy"):
            (tmp_path / name).touch()
        assert array_names(tmp_path) == ("9.npy", "10.npy", "b.npy", "٣.npy")
        with pytest.raises(MissingFileError):
            array_names(tmp_path / "none")
        (tmp_path / "link").symlink_to(tmp_path)
        with pytest.raises(ReleaseError, match="symbolic link"):
            array_names(tmp_path / "link")
        (tmp_path / "4.npy").mkdir()
        with pytest.raises(ReleaseError, match=r"4\.npy"):
            array_names(tmp_path)


def test_folders_are_made_or_empty(tmp_path):
    fresh_folder(tmp_path / "a" / "b", mode=0o700)
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    fresh_folder(tmp_path / "a" / "b")
    with pytest.raises(FolderError, match="not empty"):
        fresh_folder(tmp_path / "a")
    (tmp_path / "file").touch()
    with pytest.raises(FolderError):
        fresh_folder(tmp_path / "file")
