import io
import json

import numpy as np
import pytest
import zarr

from confide.encoders.release import Release
from confide.encoders.shards import Layout, _from_stored, _to_stored, write_shard
from confide.errors import ArgumentError, ReleaseError
from encoders.releases import SHAPE, codes_of, publish


def nearest_bfloat16(value):
    """The slow way: the nearer of the two neighbours, of equally near ones the even."""
    low = int(np.float32(value).view(np.uint32)) >> 16
    around = np.array([low, low + 1], np.uint32)
    stored = (around << 16).view(np.float32).astype(np.float64)
    distance = np.abs(stored - np.float64(value))
    if distance[0] == distance[1]:
        return int(around[around % 2 == 0][0])
    return int(around[np.argmin(distance)])


def test_bfloat16_rounds_to_nearest_even():
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, 20_000, dtype=np.uint32)
    bits[:2000] = (bits[:2000] & 0xFFFF0000) | 0x8000  # halfway
    values = bits.view(np.float32)
    values = values[np.abs(values) < 3e38]
    expected = [nearest_bfloat16(v) for v in values]
    np.testing.assert_array_equal(_to_stored(values, "bfloat16"), expected)


def test_bfloat16_comes_back():
    every = np.arange(2**16, dtype="<u2")
    values = _from_stored(every, "bfloat16")
    finite = np.isfinite(values)
    assert finite.sum() == 2**16 - 2 * 2**7
    np.testing.assert_array_equal(_to_stored(values[finite], "bfloat16"), every[finite])


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_any_reader_of_zarr_opens_the_codes(tmp_path, dtype):
    truth = publish(tmp_path / "r", dtype)
    group = zarr.open_group(tmp_path / "r" / "codes.zarr", mode="r")
    array = group["codes"]
    assert array.shape == (23, *SHAPE)
    assert array.metadata.dimension_names == ("code", "row", "channel")
    codes = codes_of(truth["row"])
    if dtype == "bfloat16":
        assert array.dtype == np.uint16
        assert "bits of a bfloat16" in array.attrs["values"]
        expected = [nearest_bfloat16(v) for v in codes.ravel()]
        np.testing.assert_array_equal(array[:].ravel(), expected)
    else:
        assert array.dtype == dtype
        np.testing.assert_array_equal(array[:], codes.astype(dtype))
    np.testing.assert_array_equal(
        Release.read(tmp_path / "r").codes(slice(None)), _from_stored(array[:], dtype)
    )


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("n", [1, 2, 3, 8, 9])
def test_a_lost_shard_reads_as_no_numbers_elsewhere_and_is_refused_here(tmp_path, dtype, n):
    publish(tmp_path / "r", dtype, n=n)
    release = Release.read(tmp_path / "r")
    assert np.isfinite(release.codes(slice(None))).all()
    shard = tmp_path / "r" / "codes.zarr" / "codes" / "c" / "0" / "0" / "0"
    shard.unlink()
    stored = zarr.open_array(tmp_path / "r" / "codes.zarr" / "codes", mode="r")[0]
    assert np.isnan(_from_stored(stored, dtype)).all()
    with pytest.raises(ReleaseError, match=r"codes/c/0/0/0 cannot be read \(No such file"):
        release.codes([0])


def test_the_paper_code_has_a_chunk_of_its_own_and_small_codes_share_one():
    paper = Layout.plan(1000, (256, 2048), "float16")
    assert (paper.codes_per_chunk, paper.codes_per_shard, paper.n_shards) == (1, 61, 17)
    small = Layout.plan(1_000_000, (16, 64), "float32")
    assert (small.codes_per_chunk, small.codes_per_shard) == (16, 15_616)
    large = Layout.plan(3, (10_000, 10_000), "float32")
    assert (large.codes_per_chunk, large.codes_per_shard, large.n_shards) == (1, 1, 3)
    few = Layout.plan(3, (16, 64), "float32")
    assert (few.codes_per_chunk, few.codes_per_shard, few.n_shards) == (16, 16, 1)


@pytest.mark.parametrize("n", [1, 15, 16, 17, 40])
def test_the_size_of_a_file_is_known_beforehand(n):
    layout = Layout(
        n_records=n, shape=(2, 3), dtype="float16", codes_per_chunk=4, codes_per_shard=16
    )
    total = 0
    for shard in range(layout.n_shards):
        file = io.BytesIO()
        rows = layout.rows(shard)
        write_shard(file, layout, shard, np.zeros((rows.stop - rows.start, 2, 3), np.float32))
        assert len(file.getvalue()) == layout.file_bytes(shard)
        total += rows.stop - rows.start
    assert total == n


def test_only_codecs_that_cannot_blow_up_are_named():
    raw = Layout.plan(9, SHAPE, "float32").documents()["codes.zarr/codes/zarr.json"]
    (codec,) = json.loads(raw)["codecs"]
    inside = codec["configuration"]
    names = [c["name"] for key in ("codecs", "index_codecs") for c in inside[key]]
    assert (codec["name"], set(names)) == ("sharding_indexed", {"bytes", "crc32c"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_records": 0}, "n_records=0 to be at least 1"),
        ({"shape": (0, 3)}, "rows=0"),
        ({"shape": (3, -1)}, "channels=-1"),
        ({"dtype": "object"}, "Unknown dtype='object'"),
        ({"codes_per_chunk": 0}, "codes_per_chunk=0"),
        ({"codes_per_shard": 0}, "codes_per_shard=0"),
        ({"codes_per_shard": 17}, "left_over_of_codes_per_shard=1"),
    ],
)
def test_layouts_that_cannot_be(changes, message):
    sound = {
        "n_records": 5,
        "shape": (2, 3),
        "dtype": "float16",
        "codes_per_chunk": 4,
        "codes_per_shard": 16,
    }
    with pytest.raises(ArgumentError, match=message):
        Layout(**{**sound, **changes})
