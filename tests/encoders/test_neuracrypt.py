import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.spatial.distance import cdist
from torch import nn

from confide.datasets.phantom import Phantom
from confide.encoders import neuracrypt
from confide.encoders.base import Calibration, build
from confide.encoders.derive import Chance
from confide.encoders.key import Key
from confide.encoders.settings import NeuraCryptSettings
from confide.errors import ArgumentError
from confide.training.device import tensor_float32
from encoders.slow import slow_codes

KEY = Key(bytes(range(32)), created="2030-01-31T12:00:00+00:00")
SHAPES = {"grey": (1, 8, 12), "colour": (3, 8, 4), "signal": (2, 20)}


def encoder_of(shape, key=KEY, where=None, **settings):
    defaults = {"patch": 4, "width": 7, "shuffle": False}
    return build(NeuraCryptSettings(**{**defaults, **settings}), shape, key, **(where or {}))


def records_of(shape, n=5, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def calibrated(shape, records, **settings):
    encoder = encoder_of(shape, **settings)
    encoder.calibrate(records)
    return encoder


# ---- Against two other implementations.


@pytest.mark.parametrize("position", [True, False])
@pytest.mark.parametrize("depth", [0, 1, 4])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_codes_are_those_of_the_slow_reference(shape, depth, position):
    records = records_of(shape)
    expected, norms = slow_codes(KEY, records, patch=4, width=7, depth=depth, position=position)
    for norm in ("frozen", "batch"):
        encoder = encoder_of(shape, private_depth=depth, norm=norm, position=position)
        calibration = encoder.calibrate(records)
        found = encoder(records)
        assert found.dtype == np.float32
        assert found.shape == expected.shape == (5, encoder.n_patches, 7)
        np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)
        # All patches calibrate it, so that its statistics are those of the batch.
        if norm == "frozen":
            np.testing.assert_allclose(
                np.array(calibration.norms).reshape(depth, 2, 7),
                np.array(norms).reshape(depth, 2, 7),
                atol=1e-5,
            )
        else:
            assert calibration.norms == ()


def authors_network(key, shape, patch, width, depth, dtype):
    """The layers of the authors' code, with the weights of a key."""
    channels, *sides = shape
    conv, batch_norm = (
        (nn.Conv2d, nn.BatchNorm2d) if len(sides) == 2 else (nn.Conv1d, nn.BatchNorm1d)
    )
    layers = [conv(channels, width, kernel_size=patch, stride=patch), nn.ReLU()]
    for _ in range(depth):
        layers += [
            conv(width, width, kernel_size=1),
            batch_norm(width, track_running_stats=False),
            nn.ReLU(),
        ]
    mixer = nn.Sequential(nn.ReLU(), nn.Linear(width, width))
    body = nn.Sequential(*layers)
    names = ["patch", *[f"hidden.{i}" for i in range(depth)], "mixer"]
    linear = [m for m in [*body, *mixer] if isinstance(m, conv | nn.Linear)]
    for name, module in zip(names, linear, strict=True):
        bound = 1 / math.sqrt(module.weight[0].numel())
        out, n_inputs = len(module.weight), module.weight[0].numel()
        weight = torch.from_numpy(key.uniform(f"{name}.weight", (out, n_inputs), bound))
        module.weight.data = weight.view(module.weight.shape)
        module.bias.data = torch.from_numpy(key.uniform(f"{name}.bias", (out,), bound))
    n_patches = math.prod(side // patch for side in sides)
    position = torch.from_numpy(key.normal("position", (1, n_patches, width))).to(dtype)
    body.to(dtype)
    mixer.to(dtype)

    def forward(x):
        with torch.no_grad():
            return mixer(body(x.to(dtype)).flatten(2).transpose(1, 2) + position).numpy()

    return forward


@pytest.mark.parametrize("shape", [(1, 32, 48), (3, 32, 32), (12, 64)])
@pytest.mark.parametrize("depth", [0, 4, 44])
def test_codes_are_those_of_the_authors_layers(shape, depth):
    records = records_of(shape, n=6)
    x = torch.from_numpy(records).double()
    axes = (0, *range(2, x.ndim))
    x = (x - x.mean(dim=axes, keepdim=True)) / x.std(dim=axes, keepdim=True, correction=0)
    of = (KEY, shape, 8, 64, depth)
    expected = authors_network(*of, torch.float64)(x)
    for norm in ("frozen", "batch"):
        settings = {"patch": 8, "width": 64, "private_depth": depth, "norm": norm}
        error = calibrated(shape, records, **settings)(records) - expected
        if depth < 44:
            assert np.abs(error).max() < 1e-5
        else:
            # Rounding grows from layer to layer: torch's own layers in float32 are as far off, by
            # up to .01 in single numbers, depending on the number of threads.
            assert np.sqrt(np.mean(error**2) / np.var(expected)) < 1e-2


def test_parts_do_not_change_codes(monkeypatch):
    shape, records = (1, 8, 12), records_of((1, 8, 12), n=9)
    for norm in ("frozen", "batch"):
        whole = calibrated(shape, records, norm=norm)(records)
        with monkeypatch.context() as patch:
            patch.setattr(neuracrypt, "BLOCK", 2 * 6 * 7)  # two records
            encoder = calibrated(shape, records, norm=norm)
            assert len(encoder._parts(9 * 6, 6)) == 5
            np.testing.assert_allclose(encoder(records), whole, atol=1e-6)


def test_few_patches_of_many_records_calibrate(monkeypatch):
    rng = np.random.default_rng(0)
    shape = (1, 16, 16)
    records = rng.integers(0, 256, (200, *shape), dtype=np.uint8)
    full = calibrated(shape, records, width=16, private_depth=1).calibration
    # Five of sixteen patches of each record.
    monkeypatch.setattr(neuracrypt, "CALIBRATION", 5 * 200 * 16)
    part = calibrated(shape, records, width=16, private_depth=1).calibration
    sd = np.sqrt(full.norms[0][1])
    assert 0 < np.abs((part.norms[0][0] - full.norms[0][0]) / sd).max() < 0.1
    assert np.abs(part.norms[0][1] / full.norms[0][1] - 1).max() < 0.2


# ---- What a code depends on.


def test_a_frozen_code_is_a_function_of_its_record():
    shape, records = (1, 16, 16), records_of((1, 16, 16), n=12)
    encoder = calibrated(shape, records, width=32, private_depth=4)
    codes = encoder(records)
    np.testing.assert_allclose(encoder(records[3:4])[0], codes[3], atol=1e-5)
    np.testing.assert_allclose(encoder(records[::-1])[::-1], codes, atol=1e-5)


def test_a_batch_code_depends_on_the_others():
    shape, records = (1, 16, 16), records_of((1, 16, 16), n=12)
    encoder = calibrated(shape, records, width=32, private_depth=4, norm="batch")
    codes = encoder(records)
    other = encoder(records[:6])
    assert np.linalg.norm(other - codes[:6]) > 0.05 * np.linalg.norm(codes[:6])
    # The order of a batch changes nothing, and a record alone has statistics of its own.
    np.testing.assert_allclose(encoder(records[::-1])[::-1], codes, atol=1e-5)
    alone = encoder(records[:1])
    assert np.isfinite(alone).all()
    assert np.linalg.norm(alone - codes[:1]) > 0.05 * np.linalg.norm(codes[:1])


def test_batches_are_as_even_as_can_be_and_as_asked_for():
    encoder = encoder_of((1, 8, 12), norm="batch", batch_size=10)
    sizes = [part.stop - part.start for part in encoder.batches(31)]
    assert (len(sizes), min(sizes), max(sizes), sum(sizes)) == (4, 7, 8, 31)
    assert encoder.batches(10) == [slice(0, 10)]
    # Whatever the memory: 128 codes of the paper's size are 2**26 numbers.
    large = build(NeuraCryptSettings(norm="batch"), (1, 256, 256), KEY)
    assert [p.stop - p.start for p in large.batches(256)] == [128, 128]
    frozen = build(NeuraCryptSettings(), (1, 256, 256), KEY)
    assert [p.stop - p.start for p in frozen.batches(128)] == [64, 64]


def test_a_call_is_its_batches():
    shape, records = (1, 8, 12), records_of((1, 8, 12), n=7)
    encoder = calibrated(shape, records, norm="batch", batch_size=4)
    codes = encoder(records)
    a, b = encoder.batches(7)
    for part in (a, b):
        alone = encoder.encode(records[part], chance=Chance()).numpy()
        assert np.array_equal(alone, codes[part])


def test_another_key_gives_other_codes():
    shape, records = (1, 8, 12), records_of((1, 8, 12))
    codes = calibrated(shape, records, width=64)(records)
    other = calibrated(shape, records, width=64, key=Key(bytes(32)))(records)
    mean, other_mean = codes.mean(axis=(0, 1)), other.mean(axis=(0, 1))
    assert abs(np.corrcoef((codes - mean).ravel(), (other - other_mean).ravel())[0, 1]) < 0.1


def test_a_calibration_gives_the_same_encoder():
    shape, records = (3, 8, 4), records_of((3, 8, 4))
    encoder = calibrated(shape, records)
    content = encoder.calibration.to_json()
    other = encoder_of(shape)
    other.use(Calibration.from_json(content))
    assert np.array_equal(other(records), encoder(records))
    # Again with other records, then back: nothing of one calibration stays in the next.
    codes = encoder(records)
    encoder.calibrate(records_of(shape, seed=1))
    assert not np.allclose(encoder(records), codes, atol=1e-3)
    encoder.use(Calibration.from_json(content))
    assert np.array_equal(encoder(records), codes)


def test_wrong_calibrations_are_refused():
    shape, records = (1, 8, 12), records_of((1, 8, 12))
    two = calibrated(shape, records, private_depth=2).calibration
    with pytest.raises(ArgumentError, match="statistics of 2 hidden layers, this encoder needs 4"):
        encoder_of(shape, private_depth=4).use(two)
    with pytest.raises(ArgumentError, match="this encoder needs 0; calibrate it with records"):
        encoder_of(shape, private_depth=2, norm="batch").use(two)
    with pytest.raises(ArgumentError, match=r"Expected norms of shape \(2, 9\), got \(2, 7\)"):
        encoder_of(shape, private_depth=2, width=9).use(two)


def test_bfloat16_changes_codes_by_a_percent():
    shape, records = (1, 32, 32), records_of((1, 32, 32), n=8)
    for norm in ("frozen", "batch"):
        settings = {"width": 256, "patch": 8, "private_depth": 4, "norm": norm}
        exact = calibrated(shape, records, **settings)
        rough = encoder_of(shape, where={"precision": "bfloat16"}, **settings)
        calibration = rough.calibrate(records)
        for one, other in zip(calibration.norms, exact.calibration.norms, strict=True):
            assert np.array_equal(one, other)
        codes = exact(records)
        error = np.linalg.norm(rough(records) - codes) / np.linalg.norm(codes)
        assert 1e-4 < error < 0.01


# ---- Order of rows.


@pytest.mark.parametrize("norm", ["frozen", "batch"])
def test_shuffled_codes_hold_the_same_rows(norm):
    shape, records = (1, 16, 16), records_of((1, 16, 16), n=6)
    plain = calibrated(shape, records, norm=norm)(records)
    encoder = calibrated(shape, records, norm=norm, shuffle=True)
    first, second = encoder(records), encoder(records)
    orders = []
    for codes in (first, second):
        for code, unshuffled in zip(codes, plain, strict=True):
            distances = np.abs(code[:, None] - unshuffled[None]).max(axis=2)
            order = distances.argmin(axis=1)
            assert distances.min(axis=1).max() < 1e-5
            assert sorted(order) == list(range(16))
            orders.append(tuple(order))
    # Fresh for each record and call: two of 12 are equal with probability 3e-12.
    assert len(set(orders)) == 12


# ---- The same everywhere.

VECTORS = {
    "frozen": [-1.727737e-01, -2.948166e-02, 2.811262e-01, 7.947046e01],
    "batch": [-1.727736e-01, -2.948155e-02, 2.811266e-01, 7.947046e01],
}


def vector_codes(norm):
    """A few codes of records and a key that need no random generator."""
    records = (np.arange(3 * 2 * 8 * 8) * 37 % 251).astype(np.uint8).reshape(3, 2, 8, 8)
    key = Key(bytes(range(32)))
    return calibrated((2, 8, 8), records, key=key, width=16, private_depth=3, norm=norm)(records)


@pytest.mark.parametrize("norm", VECTORS)
def test_vectors(norm):
    codes = vector_codes(norm)
    found = [codes[0, 0, 0], codes[1, 2, 5], codes[2, 3, 15], np.abs(codes).sum()]
    np.testing.assert_allclose(found, VECTORS[norm], rtol=1e-5, atol=3e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("norm", ["frozen", "batch"])
def test_a_cuda_device_gives_the_codes_of_the_cpu(norm):
    records = records_of((1, 64, 64), n=6)
    settings = {"patch": 8, "width": 256, "private_depth": 4, "norm": norm}
    calibration = calibrated((1, 64, 64), records, **settings).calibration
    found = []
    for where in ("cpu", "cuda"):
        encoder = encoder_of((1, 64, 64), where={"device": where}, **settings)
        encoder.use(calibration)
        with tensor_float32(False):
            found.append(encoder(records))
    np.testing.assert_allclose(found[1], found[0], atol=2e-5)
    shuffling = encoder_of((1, 64, 64), where={"device": "cuda"}, shuffle=True, **settings)
    shuffling.use(calibration)
    with tensor_float32(False):
        codes = shuffling(records)
    for one, other in zip(codes, found[0], strict=True):
        # The position makes every row different, so the nearest row is the same one.
        order = cdist(one, other).argmin(axis=1)
        assert sorted(order) == list(range(64))
        np.testing.assert_allclose(one, other[order], atol=2e-5)


def test_a_fresh_process_makes_the_same_codes():
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from encoders.test_neuracrypt import vector_codes\n"
        "print(vector_codes('frozen').tobytes().hex())"
    )
    found = subprocess.run(
        [sys.executable, "-c", program, str(Path(__file__).parents[1])],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    other = np.frombuffer(bytes.fromhex(found), np.float32).reshape(3, 4, 16)
    np.testing.assert_allclose(other, vector_codes("frozen"), atol=1e-6)


# ---- What is known of the authors' codes.


def shares_and_changes(images, depth):
    """Share of the variance of codes that positions explain, and change between batches.

    The share: variance over positions of the mean over images, by the whole variance, both about
    the mean of each channel.  The change: of the code of one image in two batches of 16 that have
    nothing else in common, by the deviation of its rows from their mean; both squared and summed
    over 16 images, then the root.
    """
    encoder = calibrated(
        images.shape[1:], images, patch=16, width=256, private_depth=depth, norm="batch"
    )

    def codes(rows):
        return encoder.encode(images[rows], chance=Chance()).numpy()

    z = codes(slice(0, 32))
    mean = z.mean(axis=(0, 1))
    share = ((z.mean(axis=0) - mean) ** 2).mean() / ((z - mean) ** 2).mean()
    changed = spread = 0.0
    for i in range(16):
        others = np.random.default_rng(i).permutation(np.delete(np.arange(len(images)), i))
        a, b = (codes([i, *part])[0] for part in (others[:15], others[15:30]))
        changed += ((a - b) ** 2).sum()
        spread += ((a - a.mean(axis=0)) ** 2).sum()
    return share, np.sqrt(changed / spread)


@pytest.fixture(scope="module")
def radiographs(real_data):
    """(n, 1, 128, 128) one image of each patient."""
    folder = real_data / "cxr_open"
    table = pd.read_csv(folder / "metadata.csv").groupby("patient_id").head(1)
    images = []
    for name in table["image"]:
        with Image.open(folder / "images" / name) as image:
            images.append(np.asarray(image.convert("L").resize((128, 128))))
    return np.stack(images)[:, None]


# Measured on 55 radiographs at 256 x 256 and width 2048, with the authors' own layers.
KNOWN = [(0, 0.90, 0), (4, 0.68, 0.21), (44, 0.54, 0.84)]


@pytest.mark.parametrize(("depth", "share", "change"), KNOWN)
def test_radiographs(radiographs, depth, share, change):
    found = shares_and_changes(radiographs, depth)
    assert found[0] == pytest.approx(share, abs=0.05)
    assert found[1] == pytest.approx(change, abs=0.05 if change else 1e-5)


def test_phantoms():
    images = Phantom(n_patients=40, max_views=1, size=(128, 128)).load().inputs
    found = [shares_and_changes(images, depth) for depth in (0, 4, 44)]
    shares, changes = zip(*found, strict=True)
    # Drawings are more alike than radiographs.
    assert shares == pytest.approx((0.92, 0.72, 0.60), abs=0.05)
    assert changes == pytest.approx((0, 0.14, 0.84), abs=0.05)
