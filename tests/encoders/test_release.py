import json
import os
import shutil
import subprocess
import sys

import google_crc32c
import numpy as np
import pytest

from confide.encoders import manifest, shards
from confide.encoders.release import Damage, Release, verify
from confide.errors import ArgumentError, MissingFileError, ReleaseError
from encoders.releases import SHAPE, codes_of, forge, forge_file, publish

SHARD = "codes.zarr/codes/c/3/0/0"
ARRAY = "codes.zarr/codes/zarr.json"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("made") / "r"
    truth = publish(path)
    return path, truth


@pytest.fixture
def path(made, tmp_path):
    """A copy to damage."""
    shutil.copytree(made[0], tmp_path / "r")
    return tmp_path / "r"


def files(path):
    return sorted(str(p.relative_to(path)) for p in path.rglob("*") if p.is_file())


def flip(file, at, bit):
    raw = bytearray(file.read_bytes())
    raw[at] ^= 1 << bit
    file.write_bytes(raw)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("shard_bytes", [100, 400, 3000])
def test_codes_in_any_order(tmp_path, dtype, shard_bytes):
    truth = publish(tmp_path / "r", dtype, shard_bytes=shard_bytes)
    release = Release.read(tmp_path / "r")
    assert (release.n_records, release.shape, release.dtype) == (23, SHAPE, dtype)
    codes = codes_of(truth["row"])
    stored = shards._from_stored(shards._to_stored(codes, dtype), dtype)
    if dtype == "float32":
        np.testing.assert_array_equal(stored, codes)
    if dtype == "float16":
        np.testing.assert_array_equal(stored, codes.astype(np.float16))
    rng = np.random.default_rng(0)
    for rows in (
        rng.integers(0, 23, 60),
        rng.permutation(23).astype(np.uint8),
        [22],
        [],
        np.array([], np.int64),
        (5, 5, 0),
        range(20, 3, -4),
        iter([4, 3]),
    ):
        wanted = list(rows) if not isinstance(rows, np.ndarray) else rows
        found = release.codes(iter(wanted) if hasattr(rows, "__next__") else rows)
        assert (found.dtype, found.shape) == (np.float32, (len(wanted), *SHAPE))
        np.testing.assert_array_equal(found, stored[np.asarray(wanted, int)])
    for rows in (slice(None), slice(3, 17), slice(None, None, -3), slice(30, 40), slice(-2, None)):
        np.testing.assert_array_equal(release.codes(rows), stored[rows])


def test_one_code_costs_one_chunk(tmp_path, monkeypatch):
    publish(tmp_path / "r", n=40, shard_bytes=10_000)
    release = Release.read(tmp_path / "r")
    chunks = []
    read = shards._read_chunk
    monkeypatch.setattr(shards, "_read_chunk", lambda *a: chunks.append(a[-1]) or read(*a))
    release.codes([7, 30, 6, 7])
    assert chunks == [3, 15]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([23], r"rows in \[0, 22\], got 23"),
        ([0, -1], "got -1"),
        ([0.5], "whole numbers of shape .n,., got float64"),
        ([True], "got bool"),
        (np.zeros((2, 2), int), r"got int64 \(2, 2\)"),
        (["a"], "whole numbers"),
    ],
)
def test_rows_that_are_none(made, rows, message):
    with pytest.raises(ArgumentError, match=message):
        Release.read(made[0]).codes(rows)


def test_a_whole_release_has_no_damage(made):
    seen = []
    assert verify(made[0], lambda *done: seen.append(done)) == []
    assert seen == [(i, 9) for i in range(1, 10)]


def test_any_bit_of_any_file_is_found(path):
    rng = np.random.default_rng(0)
    for name in files(path):
        size = (path / name).stat().st_size
        for at in {0, size - 1, *rng.integers(size, size=15).tolist()}:
            bit = int(rng.integers(8))
            flip(path / name, at, bit)
            assert verify(path) == [Damage(name, "altered")], (at, bit)
            flip(path / name, at, bit)
    assert verify(path) == []


def test_any_byte_of_the_manifest_is_found(path):
    file = path / "release.json"
    whole = file.read_bytes()
    rng = np.random.default_rng(1)
    for at in range(len(whole)):
        raw = bytearray(whole)
        raw[at] ^= 1 << int(rng.integers(8))
        content = manifest._content(bytes(raw))
        assert content is None, (at, chr(raw[at]))
    assert manifest._content(whole) == json.loads(whole)
    for raw in (
        whole[:-1],
        whole + b" ",
        whole.replace(b"1", b"1.0", 1),
        b" " + whole,
        b"[" * 9999,
    ):
        assert manifest._content(raw) is None
    twice = whole.replace(b'"format": 1', b'"format": 1,\n "format": 1')
    assert twice != whole
    assert manifest._content(twice) is None


def test_cut_missing_and_strange_files_are_found(path):
    for name in files(path):
        raw = (path / name).read_bytes()
        for cut in (raw[:-1], raw[: len(raw) // 2], b"", raw + b"\0"):
            (path / name).write_bytes(cut)
            assert verify(path) == [Damage(name, "altered")]
        (path / name).unlink()
        if name == "release.json":
            with pytest.raises(ReleaseError, match="is not finished"):
                verify(path)
        else:
            assert verify(path) == [Damage(name, "missing")]
        (path / name).write_bytes(raw)
    for name in ("notes.txt", ".hidden", "codes.zarr/codes/c/9/0/0"):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text("x")
        assert verify(path) == [Damage(name, "unexpected")]
        (path / name).unlink()
    assert verify(path) == [Damage("codes.zarr/codes/c/9/0/", "unexpected")]


def test_links_and_pipes_are_found_and_not_followed(path, tmp_path):
    (tmp_path / "copy").write_bytes((path / SHARD).read_bytes())
    (path / SHARD).unlink()
    (path / SHARD).symlink_to(tmp_path / "copy")
    assert verify(path) == [Damage(SHARD, "altered")]
    with pytest.raises(ReleaseError, match=f"{SHARD} is a symbolic link; a release holds files"):
        Release.read(path)
    (path / SHARD).unlink()
    os.mkfifo(path / SHARD)
    assert verify(path) == [Damage(SHARD, "altered")]
    with pytest.raises(ReleaseError, match=SHARD):
        Release.read(path)
    (path / SHARD).unlink()
    (path / SHARD).write_bytes((tmp_path / "copy").read_bytes())
    (path / "more").symlink_to("/")
    assert verify(path) == [Damage("more", "unexpected")]
    (path / "more").unlink()
    assert verify(path) == []
    (path / "release.json").rename(tmp_path / "release.json")
    (path / "release.json").symlink_to(tmp_path / "release.json")
    assert verify(path) == [Damage("release.json", "altered")]


def test_shards_that_changed_places_are_found(path):
    one, other = path / "codes.zarr/codes/c/1", path / SHARD
    raw = (one / "0" / "0").read_bytes()
    (one / "0" / "0").write_bytes(other.read_bytes())
    other.write_bytes(raw)
    assert verify(path) == [
        Damage("codes.zarr/codes/c/1/0/0", "altered"),
        Damage(SHARD, "altered"),
    ]


def test_a_damaged_shard_is_named_when_it_is_read(path):
    release = Release.read(path)
    size = (path / SHARD).stat().st_size
    whole = release.codes(slice(None))
    rng = np.random.default_rng(0)
    for at in {0, size - 1, *rng.integers(size, size=40).tolist()}:
        flip(path / SHARD, at, 3)
        with pytest.raises(ReleaseError, match=rf"{SHARD} is damaged: (its index|the checksum of)"):
            release.codes([0, 12, 13, 14, 15])
        np.testing.assert_array_equal(release.codes(range(12)), whole[:12])
        flip(path / SHARD, at, 3)
    os.truncate(path / SHARD, size - 1)
    with pytest.raises(ReleaseError, match=f"{SHARD} has 427 bytes, expected 428"):
        release.codes([13])
    with pytest.raises(ReleaseError, match=f"{SHARD} has 427 bytes, expected 428"):
        Release.read(path)
    (path / SHARD).unlink()
    with pytest.raises(ReleaseError, match=f"{SHARD} is missing"):
        Release.read(path)


@pytest.mark.parametrize("slots", [[2**64 - 1] * 4, [0, 196, 0, 196], [0, 2**60, 2**60, 2**60]])
def test_a_hostile_index_is_not_believed(path, slots):
    raw = (path / SHARD).read_bytes()
    index = np.array(slots, "<u8").tobytes()
    index += int(google_crc32c.value(index)).to_bytes(4, "little")
    forge_file(path, SHARD, raw[: -len(index)] + index)
    assert verify(path) == []
    with pytest.raises(ReleaseError, match=f"{SHARD} is damaged: its index is not that of shard 3"):
        Release.read(path).codes([13])


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [10**12, 4, 6]},
        {"data_type": "object"},
        {"data_type": "float64"},
        {"fill_value": 0.0},
        {"codecs": [{"name": "bytes"}, {"name": "zstd"}]},
        {"attributes": {"more": 1}},
        {"storage_transformers": [{"name": "x"}]},
    ],
)
def test_hostile_metadata_of_the_array_is_refused(path, change):
    forge_file(path, ARRAY, json.dumps(json.loads((path / ARRAY).read_text()) | change).encode())
    with pytest.raises(ReleaseError, match=f"{ARRAY} does not describe the codes of .*release.js"):
        Release.read(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "has format 2; this version of confide reads format 1. Use the version"),
        ({"format": None}, "has format None"),
        ({"release_id": "x"}, "'release_id': String should match"),
        ({"release_id": "ab" * 16 + "\n"}, "'release_id'"),
        ({"key_id": 3}, "'key_id': Input should be a valid string, found 3; it was not made by"),
        ({"encoder": []}, "'encoder'"),
        ({"n_records": 0}, "'n_records'.*greater than or equal to 1, found 0"),
        ({"n_records": -5}, "'n_records'"),
        ({"n_records": 10**30}, "'n_records'"),
        ({"n_records": 23.0}, "'n_records'"),
        ({"n_records": "23"}, "'n_records'"),
        ({"n_records": True}, "'n_records'"),
        ({"n_records": 10**12}, "lists 9 files that are not those of 1,000,000,000,000 codes"),
        ({"n_records": 24}, "zarr.json does not describe"),
        ({"n_records": 22}, "c/5/0/0 has 428 bytes, expected 232"),
        ({"n_records": 1}, "lists 9 files that are not those of 1 codes in 1 shards"),
        ({"shape": [4]}, "'shape"),
        ({"shape": [4, 6, 1]}, "'shape"),
        ({"shape": [2**39, 2**39]}, "c/0/0/0 has 428 bytes, expected"),
        ({"shape": [6, 4]}, "zarr.json does not describe"),
        ({"shape": [4, -6]}, "'shape.1'"),
        ({"dtype": "object"}, "'dtype'"),
        ({"dtype": "float16"}, "has 428 bytes, expected"),
        ({"codes_per_chunk": 3}, "left_over_of_codes_per_shard"),
        ({"codes_per_chunk": 10**9}, "left_over"),
        ({"codes_per_shard": 2**40}, "files that are not those of 23 codes in 1 shards"),
        ({"labels": "edema"}, "'labels'"),
        ({"labels": ["edema", "edema"]}, "names a column twice"),
        (
            {"labels": ["code"]},
            "names a column twice, or code or split or patient: .'code', 'view'",
        ),
        ({"labels": ["\x1b[2J"]}, r"the columns \['code', '.x1b\[2J', 'view'"),
        ({"columns": ["patient"]}, "or patient"),
        ({"columns": []}, "is not a plain table of 23 rows"),
        ({"columns": [""]}, "'columns.0'"),
        ({"pseudonyms": True}, "is not a plain table of 23 rows with the columns .*'patient'"),
        ({"pseudonyms": 1}, "'pseudonyms'"),
        ({"statement": "x" * 2000}, "'statement'"),
        ({"more": 1}, "'more': Extra inputs are not permitted"),
        ({"files": {}}, "lists 0 files"),
        ({"files": [1]}, "'files'"),
    ],
)
def test_hostile_manifests_are_refused(path, change, message):
    forge(path, **change)
    with pytest.raises(ReleaseError, match=message) as caught:
        Release.read(path)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("../secret", None),
        ("/etc/passwd", None),
        ("codes.zarr/../../secret", None),
        ("", None),
        ("\x1b[2J", None),
        ("release.json", None),
        (SHARD, {"bytes": -1, "sha256": "0" * 64}),
        (SHARD, {"bytes": 10**40, "sha256": "0" * 64}),
        (SHARD, {"bytes": 428, "sha256": "0" * 63}),
        (SHARD, {"bytes": 428, "sha256": "0" * 64, "path": "../x"}),
        (SHARD, {"bytes": 429, "sha256": "0" * 64}),
        ("records.parquet", {"bytes": 10**15, "sha256": "0" * 64}),
        ("records.parquet", {"bytes": 428, "sha256": "0" * 64}),
    ],
)
def test_hostile_lists_of_files_are_refused(path, name, entry):
    (path.parent / "secret").write_text("outside")
    content = json.loads((path / "release.json").read_text())["files"]
    if entry is None:
        entry = content.pop("records.parquet")
    forge(path, files=content | {name: entry})
    with pytest.raises(ReleaseError) as caught:
        Release.read(path)
    assert "\x1b" not in str(caught.value)
    if name != "records.parquet":
        with pytest.raises(ReleaseError):
            verify(path)


@pytest.mark.parametrize(
    "raw",
    [b"", b"[]", b"{}", b"null", b"NaN", b'{"n": NaN}', b"[" * 100_000, b"\xff\xfe", b"1" * 9999],
)
def test_what_is_no_manifest_is_damage(path, raw):
    (path / "release.json").write_bytes(raw)
    assert verify(path) == [Damage("release.json", "altered")]
    with pytest.raises(ReleaseError, match=r"release.json is damaged or was altered"):
        Release.read(path)


def test_a_manifest_of_endless_size_is_not_read(path):
    with (path / "release.json").open("wb") as file:
        file.truncate(2**40)
    assert verify(path) == [Damage("release.json", "altered")]


def test_a_damaged_table_is_named(path):
    flip(path / "records.parquet", 50, 1)
    with pytest.raises(ReleaseError, match=r"records.parquet is damaged, its checksum differs"):
        Release.read(path)


def test_what_is_no_release(tmp_path):
    for call in (Release.read, verify):
        with pytest.raises(MissingFileError, match=r"There is no release at .*nowhere"):
            call(tmp_path / "nowhere")
        with pytest.raises(MissingFileError, match=r"release.json is missing; is .* a release\?"):
            call(tmp_path)


def test_reading_needs_no_torch_and_no_zarr(made):
    code = (
        "import sys; from pathlib import Path; from confide.encoders.release import Release;"
        "Release.read(Path(sys.argv[1])).codes([1]);"
        "assert not {'torch', 'zarr'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(made[0])], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
