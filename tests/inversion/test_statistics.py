import numpy as np
import pytest

from confide.encoders.settings import NeuraCryptSettings
from confide.inversion import statistics
from confide.inversion.base import Architecture, ArrayCodes, Work
from confide.inversion.rows import as_given
from inversion.worlds import phantom


def summary_of(codes):
    codes = ArrayCodes(codes)
    return statistics.summary(codes, as_given(codes, Work()), Work())


@pytest.fixture(scope="module")
def records():
    return phantom(60, 3, size=(64, 64))[0]


def architecture(private_depth=4, width=256, shape=(1, 64, 64), **more):
    settings = NeuraCryptSettings(patch=8, width=width, private_depth=private_depth, **more)
    return Architecture(settings=settings, shape=shape)


def test_a_summary_is_what_it_says():
    codes = np.random.default_rng(0).standard_normal((7, 5, 11)).astype(np.float32)
    codes[2, 3] = codes[:, 3].mean(axis=0)  # a row near the mean
    rest = codes - codes.mean(axis=0)
    squares = (rest**2).sum(axis=2)
    found = summary_of(codes)
    expected = np.log(squares / squares.mean() + statistics.FLOOR**2) / 2
    np.testing.assert_allclose(found.energy, expected, atol=1e-5)
    products = np.mean([r @ r.T for r in rest], axis=0)
    np.testing.assert_allclose(found.products, products, atol=1e-5)


def test_a_scale_does_not_matter_to_energies():
    codes = np.random.default_rng(1).standard_normal((7, 5, 11)).astype(np.float32)
    np.testing.assert_allclose(summary_of(codes).energy, summary_of(1e3 * codes).energy, atol=1e-4)


def test_codes_that_are_all_the_same_have_finite_statistics():
    codes = np.ones((4, 6, 3), dtype=np.float32)
    found = summary_of(codes)
    problem = statistics.problem(found, [found])
    assert np.isfinite(problem.gain(np.eye(6))).all()


def test_two_keys_give_nearly_the_same(records):
    first, second = (
        statistics.shadow_summary(architecture(), records, seed, Work()) for seed in (1, 2)
    )
    a, b = (statistics.standardised(s.energy) for s in (first, second))
    assert (a * b).mean() > 0.7
    off = ~np.eye(64, dtype=bool)
    assert np.corrcoef(first.products[off], second.products[off])[0, 1] > 0.9


@pytest.mark.parametrize("private_depth", [0, 4])
def test_energies_are_predicted_under_a_key_not_seen(records, private_depth):
    here = architecture(private_depth)
    shadows = statistics.Shadows(keys=2, records=40).encode(here, records, Work(seed=5))
    assert [len(x) for x, _ in shadows] == [40, 40]
    plain = statistics.Plain.of(records, 8)
    predict = statistics.EnergyMap.fitted(plain, [(x, s.energy) for x, s in shadows])
    truth = statistics.shadow_summary(here, records, 99, Work()).energy
    a, b = statistics.standardised(predict(records)), statistics.standardised(truth)
    found = (a * b).mean(axis=0)
    assert found.mean() > 0.75
    assert np.abs(predict.certainty - found).mean() < 0.1


def test_the_regression_is_that_of_the_closed_form(records):
    plain = statistics.Plain.of(records, 8)
    x = plain.features(records).flatten(0, 1).double().numpy()
    rng = np.random.default_rng(0)
    y = rng.standard_normal((len(records), 64)).astype(np.float32)
    found = statistics.EnergyMap.fitted(plain, [(records[:50], y[:50]), (records[50:], y[50:])])
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    ridge = np.linalg.solve(
        z.T @ z + statistics.RIDGE * len(z) * np.eye(z.shape[1]), z.T @ (y.ravel() - y.mean())
    )
    expected = (z @ ridge + y.mean()).reshape(y.shape)
    np.testing.assert_allclose(found(records), expected, atol=1e-3)


def test_contrast_is_the_distance_from_the_mean_record(records):
    plain = statistics.Plain.of(records, 8)
    found = plain.contrast(records)
    rest = records[:, 0].astype(np.float64) - records[:, 0].mean(axis=0)
    i, (row, column) = 4, (3, 5)
    patch = rest[i, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
    floor = (statistics.FLOOR * np.sqrt((rest**2).mean())) ** 2
    assert found[i, 8 * row + column] == pytest.approx(
        np.log((patch**2).mean() + floor) / 2, abs=1e-4
    )


def test_features_in_parts_are_the_same(records, monkeypatch):
    plain = statistics.Plain.of(records, 8)
    whole = plain.contrast(records)
    monkeypatch.setattr(statistics, "FEATURES_AT_ONCE", 5 * 64 * 64)
    np.testing.assert_allclose(statistics.Plain.of(records, 8).mean, plain.mean, atol=1e-4)
    np.testing.assert_allclose(plain.contrast(records), whole, atol=1e-6)


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 64)])
def test_colours_and_signals(shape):
    values = np.random.default_rng(0).standard_normal((12, *shape)).astype(np.float32)
    settings = NeuraCryptSettings(patch=8, width=32, private_depth=1, norm="batch", batch_size=5)
    here = Architecture(settings=settings, shape=shape)
    shadows = statistics.Shadows(keys=1, records=10).encode(here, values, Work())
    plain = statistics.Plain.of(values, 8)
    predict = statistics.EnergyMap.fitted(plain, [(x, s.energy) for x, s in shadows])
    assert predict(values).shape == (12, here.n_patches)
    assert np.isfinite(predict(values)).all()


def test_memory_bounds_the_shadows(records, monkeypatch):
    monkeypatch.setattr(statistics, "NUMBERS", 7 * 64 * 256)
    shadows = statistics.Shadows(keys=2, records=40).encode(architecture(1), records, Work())
    assert [len(x) for x, _ in shadows] == [7, 7]
    late = statistics.Shadows(keys=2, records=4).encode(architecture(1), records, Work(seconds=0.0))
    assert len(late) == 1
