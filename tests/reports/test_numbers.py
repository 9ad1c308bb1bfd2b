import math

import pandas as pd
import pytest

from confide.reports import numbers


@pytest.mark.parametrize("missing", [None, math.nan, pd.NA])
def test_what_was_not_measured_is_never_a_figure(missing):
    for write in (
        numbers.auc,
        numbers.ratio,
        numbers.count,
        numbers.percent,
        numbers.rate,
        numbers.p_value,
    ):
        assert write(missing) == "n/a"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "< .001"),
        (0.000999, "< .001"),
        (0.001, ".0010"),
        (0.0049, ".0049"),
        (0.05, ".050"),
        (0.994, ".99"),
        (0.995, "1.0"),
        (1.0, "1.0"),
    ],
)
def test_p_values(value, text):
    assert numbers.p_value(value) == text


def test_an_interval_has_the_decimals_of_its_estimate():
    assert numbers.percent(0.00123) == "0.12%"
    assert numbers.percent(0.00996) == "1.0%"
    assert numbers.percent(0.1, like=0.00123) == "10.00%"
    assert numbers.percent(0.0004, like=0.0) == "0.040%"  # nothing to line up with


def test_a_figure_without_bounds_stands_alone():
    assert numbers.interval("n/a", "0.6") == "n/a"
    assert numbers.with_interval("0.610", "n/a") == "0.610"


def test_names_are_one_line_of_visible_text():
    assert numbers.name("a\nb\tc") == "a b c"
    assert numbers.name("\u202egnp.exe") == "\ufffdgnp.exe"
    assert numbers.name("👩\u200d⚕️") == "👩\u200d⚕️"
    assert numbers.name("  ") == "(blank)"
    assert numbers.name(3) == "3"


def test_written_figures_keep_their_number():
    assert numbers.percent(0.0523).value == "0.0523"
    assert numbers.count(30000).value == "30000"
    assert numbers.p_value(1.23456789e-7) == "< .001"
    assert numbers.p_value(1.23456789e-7).value == "1.23457e-07"
    assert numbers.auc(None).value == ""
    bounds = numbers.interval(numbers.auc(0.5901), numbers.auc(0.63))
    assert (bounds, bounds.low, bounds.high) == ("0.590 to 0.630", "0.5901", "0.63")
    assert numbers.interval(numbers.auc(None), numbers.auc(0.6)).low == ""
    assert numbers.ratio(float("inf")).value == ""
