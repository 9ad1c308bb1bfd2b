import copy
import pickle
import tracemalloc

import numpy as np
import pytest
import torch
from scipy import stats

from confide.encoders import base
from confide.encoders.base import Calibration, Encoder, build, random_orders, reordered
from confide.encoders.derive import Chance
from confide.encoders.key import Key
from confide.encoders.linear import Linear
from confide.encoders.neuracrypt import NeuraCrypt
from confide.encoders.settings import LinearSettings, NeuraCryptSettings
from confide.encoders.state import KeyState
from confide.errors import ArgumentError, KeyFileError, MissingFileError

SECRET = bytes(range(100, 132))
SHAPE = (1, 8, 8)
CPU = torch.device("cpu")


def encoder_of(shape=SHAPE, **settings):
    settings = {"patch": 4, "width": 6, "private_depth": 1, **settings}
    return build(NeuraCryptSettings(**settings), shape, Key(SECRET))


def records_of(n=5, shape=SHAPE, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def test_build_makes_what_the_settings_name():
    assert type(encoder_of()) is NeuraCrypt
    assert type(build(LinearSettings(), (1, 32, 32), Key(SECRET))) is Linear
    with pytest.raises(ArgumentError, match="multiples of patch=16"):
        build(LinearSettings(), (1, 32, 30), Key(SECRET))
    with pytest.raises(ArgumentError, match="Unknown precision='float16'"):
        build(LinearSettings(), (1, 32, 32), Key(SECRET), precision="float16")


# ---- Secrets.


def test_repr_tells_the_architecture_and_no_secret():
    encoder = encoder_of()
    encoder.calibrate(records_of())
    text = repr(encoder)
    assert text == (
        "NeuraCrypt(patch=4, width=6, private_depth=1, norm='frozen', position=True, "
        "shape=[1, 8, 8])"
    )
    assert SECRET.hex() not in text


def test_encoders_are_neither_pickled_nor_copied():
    encoder = encoder_of()
    encoder.calibrate(records_of())
    for spread in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(KeyFileError, match="neither copied nor pickled"):
            spread(encoder)


# ---- Keys that are bound to an encoder.


def saved(tmp_path, encoder, passphrase=None):
    path = tmp_path / "site.key"
    Key(SECRET).save(path, passphrase)
    state = KeyState.of(path, Key(SECRET).id)
    state.bind(encoder.settings.architecture(encoder.shape), encoder.calibration.to_json())
    return path


@pytest.mark.parametrize(
    "settings",
    [
        NeuraCryptSettings(patch=4, width=6, private_depth=2),
        NeuraCryptSettings(patch=4, width=6, norm="batch", position=False, private_depth=0),
        LinearSettings(patch=2, width=3),
    ],
    ids=["frozen", "batch", "linear"],
)
def test_a_key_file_gives_its_encoder_back(tmp_path, settings):
    plain = settings.model_copy(update={"shuffle": False})
    encoder = build(plain, SHAPE, Key(SECRET))
    encoder.calibrate(records_of())
    again = Encoder.from_key(saved(tmp_path, encoder))
    assert type(again) is type(encoder)
    assert again.settings.architecture(again.shape) == settings.architecture(SHAPE)
    again.settings = plain
    assert np.array_equal(again(records_of(seed=1)), encoder(records_of(seed=1)))


def test_a_passphrase_is_given_or_taken_from_the_environment(tmp_path, monkeypatch):
    encoder = encoder_of()
    encoder.calibrate(records_of())
    path = saved(tmp_path, encoder, "correct horse")
    monkeypatch.delenv("CONFIDE_PASSPHRASE", raising=False)
    with pytest.raises(KeyFileError, match="passphrase"):
        Encoder.from_key(path)
    with pytest.raises(KeyFileError, match="passphrase"):
        Encoder.from_key(path, "wrong")
    assert Encoder.from_key(str(path), "correct horse").calibration is not None
    monkeypatch.setenv("CONFIDE_PASSPHRASE", "correct horse")
    assert Encoder.from_key(path).calibration is not None


def test_keys_that_give_no_encoder_are_refused(tmp_path):
    path = tmp_path / "new.key"
    with pytest.raises(MissingFileError, match=r"new\.key"):
        Encoder.from_key(path)
    Key(SECRET).save(path)
    with pytest.raises(KeyFileError, match="was not used yet, so it is bound to no architecture"):
        Encoder.from_key(path)
    calibration = Calibration(mean=np.zeros(1, np.float32), scale=np.ones(1, np.float32))
    state = KeyState.of(path, Key(SECRET).id)
    state.bind({"name": "enigma", "shape": [1, 8, 8]}, calibration.to_json())
    with pytest.raises(KeyFileError, match="bound to an architecture that this version"):
        Encoder.from_key(path)


def test_a_damaged_calibration_is_refused():
    encoder = encoder_of()
    encoder.calibrate(records_of())
    content = encoder.calibration.to_json()
    again = Calibration.from_json(content)
    assert np.array_equal(again.norms[0], encoder.calibration.norms[0])
    assert again.n_records == 5
    for broken in ({}, {**content, "norms": None}, {**content, "n_records": "many"}):
        with pytest.raises(KeyFileError, match="calibration stored with the key is damaged"):
            Calibration.from_json(broken)


# ---- Calibration.


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int16])
def test_channels_are_standardised_by_their_mean_and_deviation(dtype):
    records = records_of(9, (3, 8, 4)).astype(dtype) // [[[[1]], [[2]], [[5]]]]
    records = records.astype(dtype)
    calibration = encoder_of((3, 8, 4)).calibrate(records)
    values = records.astype(np.float64)
    np.testing.assert_allclose(calibration.mean, values.mean(axis=(0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(calibration.scale, values.std(axis=(0, 2, 3)), rtol=1e-6)
    assert calibration.n_records == 9
    assert calibration.mean.dtype == calibration.scale.dtype == np.float32


def test_a_constant_channel_is_divided_by_one():
    records = np.full((50, 2, 8), 0.1, dtype=np.float32)
    records[:, 1] = np.random.default_rng(0).normal(size=(50, 8))
    encoder = encoder_of((2, 8))
    calibration = encoder.calibrate(records)
    assert calibration.scale[0] == 1
    assert calibration.scale[1] < 2
    assert np.isfinite(encoder(records)).all()


def test_calibration_makes_no_copy_of_all_records():
    records = records_of(300, (1, 128, 128))
    encoder_of((1, 128, 128)).calibrate(records[:1])  # what is loaded once
    tracemalloc.start()
    base._mean_and_scale(records)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * records.nbytes


def test_large_offsets_do_not_cancel():
    rng = np.random.default_rng(0)
    records = (1e4 + rng.normal(size=(40, 1, 16))).astype(np.float32)
    calibration = encoder_of((1, 16)).calibrate(records)
    assert calibration.scale[0] == pytest.approx(records.astype(np.float64).std(), rel=1e-6)


# ---- Calls.


def test_uncalibrated_encoders_are_refused():
    with pytest.raises(ArgumentError, match="no calibration yet; call calibrate"):
        encoder_of()(records_of())


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (records_of(0), "at least one record to encode, got none"),
        (records_of()[:, 0], r"Expected records of shape \(any, 1, 8, 8\), got \(5, 8, 8\)"),
        (records_of().astype(complex), "Expected records as uint8 or float32, got complex128"),
        (records_of().astype(str), "Expected records as uint8 or float32, got <U"),
        (np.full((2, 1, 8, 8), np.nan, np.float32), r"records holds nan at index \(0, 0, 0, 0\)"),
        (np.full((2, 1, 8, 8), 1e300), r"records holds inf at index \(0, 0, 0, 0\)"),
    ],
)
def test_bad_records_are_refused(records, message):
    encoder = encoder_of()
    encoder.calibrate(records_of())
    for work in (encoder, encoder.calibrate, lambda x: encoder.encode(x, chance=Chance())):
        with pytest.raises(ArgumentError, match=message):
            work(records)


def test_records_may_be_read_only_strided_and_of_either_byte_order():
    encoder = encoder_of(shuffle=False)
    records = records_of(6)
    encoder.calibrate(records)
    codes = encoder(records)
    fixed = records.copy()
    fixed.flags.writeable = False
    assert np.array_equal(encoder(fixed), codes)
    strided = np.repeat(records, 2, axis=0)[::2]
    assert np.array_equal(encoder(strided), codes)
    assert np.array_equal(encoder(records.astype(">f4")), codes)
    assert np.array_equal(encoder(records.astype(np.float64)), codes)


def test_a_call_is_made_of_parts_that_fit_the_memory(monkeypatch):
    encoder = encoder_of(shuffle=False)
    records = records_of(11)
    encoder.calibrate(records)
    codes = encoder(records)
    assert encoder.batches(11) == [slice(0, 11)]
    monkeypatch.setattr(base, "NUMBERS_AT_ONCE", 3 * 4 * 6)
    sizes = [part.stop - part.start for part in encoder.batches(11)]
    assert (sum(sizes), max(sizes), min(sizes)) == (11, 3, 2)
    np.testing.assert_allclose(encoder(records), codes, atol=1e-6)


def test_codes_can_be_trained_with():
    encoder = encoder_of()
    encoder.calibrate(records_of())
    codes = encoder.encode(records_of(), chance=Chance())
    weight = torch.ones(6, requires_grad=True)
    ((codes * weight) ** 2).sum().backward()
    assert weight.grad is not None


# ---- Order of rows.


def test_shuffled_is_the_double_loop():
    codes = torch.randn(7, 12, 5, generator=torch.Generator().manual_seed(0))
    order = random_orders(7, 12, Chance(), CPU)
    expected = torch.zeros_like(codes)
    for i in range(7):
        for j, k in enumerate(order[i]):
            expected[i, j] = codes[i, k]
    assert torch.equal(reordered(codes, order), expected)
    mixed = reordered(codes, random_orders(*codes.shape[:2], Chance(), codes.device))
    assert not torch.equal(mixed, codes)
    for code, other in zip(codes, mixed, strict=True):
        assert sorted(map(tuple, code.tolist())) == sorted(map(tuple, other.tolist()))


def test_orders_are_uniform():
    chance = Chance()
    orders = random_orders(24_000, 4, chance, CPU).numpy()
    assert (np.sort(orders, axis=1) == np.arange(4)).all()
    _, counts = np.unique(orders @ [64, 16, 4, 1], return_counts=True)
    assert len(counts) == 24
    # Fails by chance once in a million runs.
    assert stats.chisquare(counts).pvalue > 1e-6


def test_orders_are_fresh_for_each_record_and_call():
    chance = Chance()
    orders = torch.cat([random_orders(50, 30, chance, CPU), random_orders(50, 30, Chance(), CPU)])
    assert len({tuple(order) for order in orders.tolist()}) == 100
