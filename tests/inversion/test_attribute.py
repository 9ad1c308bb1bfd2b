"""Attributes mean the same in the hidden records and in those of the attacker."""

import numpy as np
import pandas as pd
import pytest

from confide.cohort import Cohort
from confide.datasets.base import Opened
from confide.datasets.phantom import Phantom
from confide.errors import TableError
from confide.inversion.attribute import Attribute


def table(**columns):
    """Records that are read from a table."""
    n = len(next(iter(columns.values())))
    frame = pd.DataFrame({"pid": range(n), "y": np.arange(n) % 2, **columns})
    return Opened(
        cohort=Cohort.from_frame(frame, patient="pid", label="y"),
        test=np.zeros(n, dtype=bool),
        frame=frame,
        reserved=(),
        shape=(1, 8),
        read=lambda rows: np.zeros((len(rows), 1, 8), dtype=np.float32),
        fingerprint=str,
    )


def test_two_values():
    opened = table(sex=["M", "F", None, "M"])
    found = Attribute.of(opened, "sex")
    assert found.meaning == "sex is M rather than F"
    assert found.values(opened).tolist() == [1, 0, -1, 1]


def test_other_peoples_values_are_coded_alike():
    found = Attribute.of(table(sex=["M", "F", "F", "F"]), "sex")
    other = table(sex=["F", "X", "M", None])
    assert found.values(other).tolist() == [0, -1, 1, -1]
    assert found.values(table(age=[1, 2, 3, 4])).tolist() == [-1] * 4


def test_numbers_are_cut_at_their_median():
    opened = table(age=[30, 50, 70, None, 90])
    found = Attribute.of(opened, "age")
    assert found.meaning == "age is above 60"
    assert found.values(opened).tolist() == [0, 0, 1, -1, 1]
    assert found.values(table(age=[60, 61, 20, 80])).tolist() == [0, 1, 0, 1]


def test_of_many_values_the_most_common():
    opened = table(view=["AP", "PA", "PA", "L", None])
    found = Attribute.of(opened, "view")
    assert found.meaning == "view is PA"
    assert found.values(opened).tolist() == [0, 1, 1, 0, -1]


def test_groups_and_labels_of_made_up_data():
    opened = Phantom(n_patients=20, max_views=1, size=(16, 16)).open()
    for name in ("label", "sex", "planted"):
        found = Attribute.of(opened, name)
        assert set(found.values(opened)) == {0, 1}
        assert found.meaning.startswith(f"{name} is")


def test_numbers_of_two_values_need_no_median():
    opened = table(icu=[1.0, 0.0, None, 0.0])
    assert Attribute.of(opened, "icu").values(opened).tolist() == [1, 0, -1, 0]


def test_what_cannot_be_asked_for():
    opened = table(one=["a", "a", "a", None])
    with pytest.raises(
        TableError, match=r"'sexx', which the records do not have; .* are label, one, pid, y"
    ):
        Attribute.of(opened, "sexx")
    with pytest.raises(TableError, match="'one' has fewer than two values"):
        Attribute.of(opened, "one")
