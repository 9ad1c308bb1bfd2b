import math

import numpy as np
import pytest

from confide import signals as s
from confide.errors import ArgumentError, SignalError

LONG = np.longdouble


def slow_multiclass(z, y):
    """logit(p_y) from long doubles, one number at a time."""
    others = [LONG(v) for i, v in enumerate(z) if i != y]
    top = max(others)
    return float(LONG(z[y]) - (top + np.log(sum(np.exp(v - top) for v in others))))


def slow_log_sigmoid(z):
    z = LONG(z)
    return float(-np.log1p(np.exp(-z)) if z > 0 else z - np.log1p(np.exp(z)))


def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("scale", [1, 30, 800])
@pytest.mark.parametrize("n_classes", [2, 3, 10])
def test_multiclass_is_the_logit_of_the_true_class(scale, n_classes):
    z = rng().uniform(-scale, scale, (3, 5, 2, n_classes))
    label = rng().integers(0, n_classes, 5)
    found = s.signals(z, label, "multiclass")
    assert found.shape == (3, 5, 2)
    for m, r, v in np.ndindex(found.shape):
        expected = slow_multiclass(z[m, r, v], label[r])
        assert found[m, r, v] == pytest.approx(expected, rel=1e-13, abs=1e-12)


def test_multiclass_does_not_saturate_in_the_tails():
    z = np.array([[800.0, -800.0, -800.0], [-800.0, 800.0, 0.0], [800.0, 800.0, 800.0]])
    found = s.multiclass(z, np.array([0, 0, 0]))
    assert found.tolist() == pytest.approx([1600 - math.log(2), -1600, -math.log(2)], rel=1e-15)


def test_multiclass_in_float32_is_computed_in_float64():
    z = np.array([[[[20.0, 0.0, -20.0]]]], dtype=np.float32)
    expected = slow_multiclass([20.0, 0.0, -20.0], 0)
    assert s.signals(z, np.array([0]), "multiclass").item() == pytest.approx(expected, rel=1e-14)


def test_multiclass_is_the_same_after_a_shift_of_all_logits():
    z = rng().normal(size=(1, 4, 1, 5))
    label = np.array([0, 1, 4, 2])
    shifted = s.signals(z + 1000, label, "multiclass")
    np.testing.assert_allclose(shifted, s.signals(z, label, "multiclass"), atol=1e-11)


def test_binary_is_the_logit_of_the_true_side():
    z = np.array([800.0, -800.0, 1.5, -1.5])[None, :, None, None]
    found = s.signals(z, np.array([1, 1, 0, 0]), "binary")
    assert found[0, :, 0].tolist() == [800.0, -800.0, -1.5, 1.5]


def test_two_logits_and_their_difference_say_the_same():
    z = rng().normal(scale=50, size=(2, 6, 1, 2))
    label = rng().integers(0, 2, 6)
    difference = z[..., 1:] - z[..., :1]
    np.testing.assert_allclose(
        s.signals(z, label, "multiclass"), s.signals(difference, label, "binary"), rtol=1e-14
    )


def test_multilabel_is_binary_for_each_known_label():
    z = np.array([[1.0, -2.0, 3.0], [4.0, 5.0, -6.0]])[None, :, None, :]
    label = np.array([[1, 0, np.nan], [0, np.nan, 1]])
    found = s.signals(z, label, "multilabel")
    assert found.shape == (1, 2, 1, 3)
    np.testing.assert_array_equal(found[0, :, 0], [[1, 2, np.nan], [-4, np.nan, -6]])


def test_channels_adds_axes_of_length_one():
    assert s.channels(np.zeros((2, 3))).shape == (2, 3, 1, 1)
    assert s.channels(np.zeros((2, 3, 4, 5))).shape == (2, 3, 4, 5)
    with pytest.raises(ArgumentError, match=r"\(3,\)"):
        s.channels(np.zeros(3))


def test_scalar_is_the_mean_over_known_labels_then_views():
    values = rng().normal(size=(2, 3, 4, 5))
    values[:, 0, :, 1:3] = np.nan
    values[:, 2] = np.nan
    found = s.scalar(values)
    for m, r in np.ndindex(2, 2):
        views = [np.mean([x for x in view if not np.isnan(x)]) for view in values[m, r]]
        assert found[m, r] == pytest.approx(np.mean(views), rel=1e-14)
    assert np.isnan(found[:, 2]).all()


def test_scalar_of_one_view_is_the_signal_itself():
    values = rng().normal(size=(2, 3))
    np.testing.assert_array_equal(s.scalar(values), values)


def test_log_probability_is_the_mean_probability_over_views():
    values = rng().uniform(-30, 30, size=(2, 3, 4))
    found = s.log_probability(values)
    for m, r in np.ndindex(2, 3):
        p = [np.exp(LONG(slow_log_sigmoid(x))) for x in values[m, r]]
        assert found[m, r] == pytest.approx(float(np.log(sum(p) / 4)), rel=1e-12)


def test_log_probability_of_a_multiclass_signal_is_log_softmax():
    z = rng().normal(scale=5, size=(1, 7, 1, 4))
    label = rng().integers(0, 4, 7)
    found = s.log_probability(s.signals(z, label, "multiclass"))[0]
    p = np.exp(z[0, :, 0]) / np.exp(z[0, :, 0]).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found, np.log(p[np.arange(7), label]), rtol=1e-12)


def test_log_probability_is_finite_in_the_far_tails():
    found = s.log_probability(np.array([[800.0, -800.0]]))
    assert found[0, 0] == pytest.approx(-math.exp(-800), abs=1e-300)
    assert found[0, 1] == -800.0


def test_log_probability_of_labels_is_the_geometric_mean_of_the_known():
    values = np.array([1.0, -2.0, np.nan])[None, None, None]
    expected = (slow_log_sigmoid(1.0) + slow_log_sigmoid(-2.0)) / 2
    assert s.log_probability(values).item() == pytest.approx(expected, rel=1e-14)
    assert np.isnan(s.log_probability(np.full((1, 1, 2, 3), np.nan))).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_logit_that_is_not_finite_names_model_and_record(bad):
    z = np.zeros((3, 4, 2, 5))
    z[2, 1, 1, 3] = bad
    with pytest.raises(SignalError, match=rf"model 2, record 1 \(view 1, class 3\) is {bad}"):
        s.signals(z, np.zeros(4, dtype=int), "multiclass")


@pytest.mark.parametrize(
    ("shape", "label", "task", "message"),
    [
        ((2, 3, 1, 4), np.zeros(5, int), "multiclass", r"\(..., 5, n_views, n_classes\)"),
        ((3, 4), np.zeros(3, int), "multiclass", "n_views, n_classes"),
        ((2, 3, 1, 2), np.zeros(3, int), "binary", "has 1 logits a record, got 2"),
        ((2, 3, 1, 2), np.zeros((3, 4)), "multilabel", "has 4 logits a record, got 2"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(shape, label, task, message):
    with pytest.raises(ArgumentError, match=message):
        s.signals(np.zeros(shape), label, task)
