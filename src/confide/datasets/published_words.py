"""Words in a publisher's tables, and in the notes on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confide._tables import refuse_values


def only_known(
    column: pd.Series[Any],
    words: Mapping[str, str | float],
    *,
    refused: NDArray[np.bool_] | None = None,
) -> pd.Series[Any]:
    """Values of a publisher -> names of groups; a further value is refused, gaps stay gaps.

    Parameters
    ----------
    column : text
    words : {value: name of the group, or NaN for unknown}, compared without regard to case and
        outer blanks
    refused : (n_records,) bool, where a further value is refused, by default in every row; in the
        others it becomes a gap

    Raises
    ------
    TableError : a value is not one of the words; names column, row and value
    """
    plain_text = column.astype("string").str.strip().str.casefold()
    known = {value.casefold(): name for value, name in words.items()}
    bad = (column.notna() & ~plain_text.isin(list(known))).to_numpy(bool)
    expected = f"{', '.join(words)} or nothing"
    refuse_values(column, bad if refused is None else bad & refused, expected)
    return plain_text.astype(object).map(known).astype(object)


def counted(n: int, one: str, many: str) -> str:
    """A number with what it counts.

    >>> counted(1, "image is", "images are"), counted(2000, "image is", "images are")
    ('1 image is', '2,000 images are')
    """
    return f"{n:,} {one if n == 1 else many}"


def renamed(column: pd.Series[Any], words: Mapping[str, str], other: str) -> pd.Series[Any]:
    """Values of a publisher -> names of groups, `other` for any further value; gaps stay gaps.

    Parameters
    ----------
    column : text
    words : {value: name of the group}, compared without regard to case and outer blanks
    other : name of every value that is not named
    """
    known = {value.casefold(): name for value, name in words.items()}
    values = column.astype(object)
    said = [known.get(str(v).strip().casefold(), other) for v in values]
    return pd.Series(said, index=column.index, name=column.name, dtype=object).where(
        values.notna(), np.nan
    )
