import numpy as np
import pytest

from confide import _check
from confide.errors import ArgumentError, SignalError


def test_a_number_in_range_comes_back():
    assert _check.in_range(0, 1, fraction=0) == 0.0
    assert _check.in_range(0, 1, fraction=1) == 1.0
    assert _check.at_least(2, n=2) == 2


@pytest.mark.parametrize("value", [-0.1, 1.2, float("nan"), float("inf")])
def test_a_number_out_of_range_is_refused_by_name(value):
    with pytest.raises(ArgumentError, match=rf"Expected fraction={value!r} in \[0, 1\]"):
        _check.in_range(0, 1, fraction=value)


@pytest.mark.parametrize("value", [1, float("nan")])
def test_a_number_too_small_is_refused_by_name(value):
    with pytest.raises(ArgumentError, match=f"n_models={value!r} to be at least 2"):
        _check.at_least(2, n_models=value)


def test_shapes():
    array = np.zeros((2, 3))
    assert _check.shape((None, 3), a=array) is array
    for wanted in ((2, 4), (2,), (None, 3, 1)):
        with pytest.raises(ArgumentError, match=r"Expected a of shape .* got \(2, 3\)"):
            _check.shape(wanted, a=array)


def test_a_choice_names_the_nearest():
    assert _check.one_of(["lira", "rmia"], attack="lira") == "lira"
    with pytest.raises(ArgumentError, match=r"attack='lirra'\. Did you mean 'lira'\? Known: lira"):
        _check.one_of(["lira", "rmia"], attack="lirra")


def test_a_hint_without_a_near_name_lists_the_known_ones_only():
    assert _check.did_you_mean("zzz", ["b", "a"]) == " Known: a, b."


def test_a_hint_among_many_names_is_short():
    hint = _check.did_you_mean("name_7x", [f"name_{i}" for i in range(1000)])
    assert "Did you mean 'name_7'?" in hint
    assert hint.endswith("... (1000 in all).")


def test_a_hint_cuts_long_names():
    assert len(_check.did_you_mean("column", ["x" * 70_000, "columns"])) < 200


def test_finite():
    array = np.zeros((2, 2))
    assert _check.finite(a=array) is array
    array[1, 0] = np.inf
    with pytest.raises(SignalError, match=r"a holds inf at index \(1, 0\)"):
        _check.finite(SignalError, a=array)
