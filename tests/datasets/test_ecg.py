"""ECGs from arrays."""

import math
import re

import numpy as np
import pandas as pd
import pytest

from confide.datasets import Ecg, describe
from confide.errors import MissingFileError, TableError

RNG = np.random.default_rng(0)
WAVES = RNG.normal(size=(6, 50, 3)).astype(np.float32)


@pytest.fixture
def folder(tmp_path):
    """Six ECGs of four patients."""
    pd.DataFrame(
        {
            "patient": ["a", "a", "b", "c", "d", "d"],
            "sinus": [0, 1, 0, 1, 0, 1],
            "sex": ["f", "f", "m", "m", "f", "f"],
        }
    ).to_csv(tmp_path / "t.csv", index=False)
    return tmp_path


def ecg(**changed):
    return Ecg(
        **({"path": "t.csv", "array": "x.npz", "patient": "patient", "label": "sinus"} | changed)
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16])
@pytest.mark.parametrize("plain", [True, False])
def test_records_by_lead(folder, dtype, plain):
    waves = (WAVES * 1000).astype(dtype)
    if plain:
        np.save(folder / "x.npy", waves)
    else:
        np.savez_compressed(folder / "x.npz", names=np.zeros(6), waves=waves)
    source = ecg(array="x.npy") if plain else ecg(array_key="waves")
    data = source.load(folder)
    assert data.inputs.dtype == np.float32
    assert np.array_equal(data.inputs, np.moveaxis(waves, 1, 2).astype(np.float32))
    opened = source.open(folder)
    assert opened.shape == (3, 50)
    rows = RNG.permutation(6)
    assert np.array_equal(opened.read(rows), data.inputs[rows])
    assert np.array_equal(opened.read(rows[:1]), data.inputs[rows[:1]])
    assert opened.reserved == ("patient",)
    assert list(opened.frame.columns) == ["patient", "sinus", "sex"]


def test_description(folder):
    np.savez(folder / "x.npz", np.concatenate([WAVES[:4], WAVES[:2]]))
    found = describe(ecg(groups=["sex"]).load(folder))
    assert found["inputs"] == [3, 50]
    assert found["duplicates_across_patients"]["sets"] == 2
    assert found["missing"] == {}


def test_fingerprint(folder):
    def fingerprint(waves, **changed):
        np.savez(folder / "x.npz", waves)
        return ecg(**changed).open(folder).fingerprint()

    first = fingerprint(WAVES)
    assert fingerprint(WAVES) == first
    others = [fingerprint(-WAVES), fingerprint(WAVES, groups=["sex"]), fingerprint(WAVES[:, :9])]
    assert len({first, *others}) == 4


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (WAVES[:5], "has 5 records for a table of 6 rows"),
        (WAVES[..., 0], r"of shape \(6, 50\); expected \(records, samples, leads\)"),
        (WAVES.astype(complex), "of type complex128; expected float32, float64 or int16"),
        (np.zeros((6, 0, 3), np.float32), "takes 0 bytes"),
    ],
)
def test_arrays_of_another_form_are_refused(folder, array, message):
    np.savez(folder / "x.npz", array)
    with pytest.raises(TableError, match=rf"^Array 'arr_0' of .*x\.npz .*{message}"):
        ecg().load(folder)


@pytest.mark.parametrize("value", [np.nan, -np.inf, 1e300])
def test_numbers_that_are_not_finite_are_named(folder, value):
    waves = WAVES.astype(np.float64)
    waves[4, 7, 2] = value
    np.savez(folder / "x.npz", waves)
    opened = ecg().open(folder)
    assert opened.read(np.array([0, 5])).shape == (2, 3, 50)
    expected = rf"x\.npz: row 4, sample 7, lead 2 is {re.escape(str(value))}; expected finite"
    with pytest.raises(TableError, match=expected):
        opened.read(np.array([1, 4]))


@pytest.mark.parametrize("shape", [(6, 100_000_001, 1), (6, 20_000, 5_001)])
def test_gigantic_records_are_refused(folder, shape):
    with (folder / "x.npy").open("wb") as file:  # with a hole for its content
        header = {"descr": "<i2", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + 2 * math.prod(shape))
    message = f"{shape[1]:,} samples x {shape[2]:,} leads; expected at most 100,000,000 numbers"
    with pytest.raises(TableError, match=message):
        ecg(array="x.npy").open(folder)


def test_how_others_were_read_has_no_meaning(folder):
    np.savez(folder / "x.npz", WAVES)
    opened = ecg().open(folder, {"scale": 1.0, "channels": 1})
    assert opened.reading == {}
    assert np.array_equal(opened.read(np.arange(6)), ecg().load(folder).inputs)


def test_files_that_are_not_there(folder):
    with pytest.raises(MissingFileError, match=r"no array .*x\.npz"):
        ecg().load(folder)
    (folder / "x.npz").write_bytes(b"text")
    with pytest.raises(TableError, match=r"x\.npz is damaged or not an \.npz file"):
        ecg().load(folder)
