"""An attribute of records as 0 or 1, coded alike in the hidden records and in the attacker's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from confide._tables import text
from confide.datasets import Opened
from confide.errors import TableError
from confide.inversion.base import Integers


@dataclass(frozen=True, kw_only=True)
class Attribute:
    """A column, and which of its values count as 1.

    Attributes
    ----------
    name : of the column
    one : the value that counts as 1, as text; None for numbers above `above`
    zero : the value that counts as 0; None for all others
    above : the number above which a value counts as 1
    """

    name: str
    one: str | None = None
    zero: str | None = None
    above: float = 0.0

    @property
    def meaning(self) -> str:
        """What 1 means.

        >>> Attribute(name="sex", one="M", zero="F").meaning
        'sex is M rather than F'
        >>> Attribute(name="age", above=54.0).meaning
        'age is above 54'
        """
        if self.one is None:
            return f"{self.name} is above {self.above:g}"
        return f"{self.name} is {self.one}" + (f" rather than {self.zero}" if self.zero else "")

    @classmethod
    def of(cls, opened: Opened, name: str) -> Attribute:
        """Code a column: of two values the second is 1, of more the most common; numbers by median.

        Parameters
        ----------
        opened : the records
        name : a column of their table, a group, a label of several, or "label"

        Raises
        ------
        TableError : there is no such column, or it has one value
        """
        column = _column(opened, name)
        if column is None:
            known = ", ".join(sorted(_names(opened))) or "none"
            raise TableError(
                f"attack.attribute names {name!r}, which the records do not have; their columns "
                f"are {known}."
            )
        known_values = column.dropna()
        values = known_values.map(text)
        counts = values.value_counts()
        if len(counts) < 2:
            raise TableError(
                f"The column {name!r} has fewer than two values; choose another attack.attribute."
            )
        numbers = pd.to_numeric(known_values, errors="coerce")
        if len(counts) > 2 and numbers.notna().all():
            return cls(name=name, above=float(numbers.median()))
        if len(counts) == 2:
            zero, one = sorted(counts.index)
            return cls(name=name, one=str(one), zero=str(zero))
        return cls(name=name, one=str(sorted(counts[counts == counts.max()].index)[0]))

    def values(self, opened: Opened) -> Integers:
        """(n_records,) 0 or 1 of records; -1 where it is missing, or not in their table."""
        column = _column(opened, self.name)
        out = np.full(opened.cohort.n_records, -1, dtype=np.int64)
        if column is None:
            return out
        if self.one is None:
            numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)
            known = np.isfinite(numbers)
            out[known] = numbers[known] > self.above
            return out
        known = column.notna().to_numpy()
        values = column[known].map(text).to_numpy()
        coded = np.where(values == self.one, 1, 0 if self.zero is None else -1)
        coded[values == self.zero] = 0
        out[known] = coded
        return out


def _names(opened: Opened) -> set[str]:
    names = {str(name) for name in opened.cohort.groups.columns} | {"label"}
    return names | (set() if opened.frame is None else {str(n) for n in opened.frame.columns})


def _column(opened: Opened, name: str) -> pd.Series[Any] | None:
    """The values of a column of the table, of a group, or of the label, one a record."""
    if opened.frame is not None and name in opened.frame:
        return opened.frame[name].reset_index(drop=True)
    if name in opened.cohort.groups:
        return opened.cohort.groups[name].reset_index(drop=True)
    cohort = opened.cohort
    if cohort.task == "multilabel":
        if name in cohort.classes:
            return pd.Series(cohort.label[:, cohort.classes.index(name)])
        return None
    if name == "label":
        return pd.Series(np.array(cohort.classes, dtype=object)[cohort.label])
    return None
