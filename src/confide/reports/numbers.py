"""Figures and names as text: one rule for each kind, for the page and the terminal alike.

A figure that was not measured is ``n/a``, never a blank and never a zero.
"""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

MISSING = "n/a"
# Joiners that change how letters of a word connect; every other format character is hidden text.
_JOINERS = "\u200c\u200d"


class Written(str):
    """A figure as text that keeps the number behind it, for sorting and for downloads.

    Attributes
    ----------
    value : the number with six significant digits, empty where there is none
    low, high : of an interval, the same of its bounds
    """

    value: str
    low: str
    high: str

    def __new__(cls, text: str, value: Any = None, low: str = "", high: str = "") -> Written:
        written = super().__new__(cls, text)
        x = number(value)
        whole = x is not None and x.is_integer()
        written.value = (
            "" if x is None or not math.isfinite(x) else f"{x:.0f}" if whole else f"{x:.6g}"
        )
        written.low, written.high = low, high
        return written


def number(value: Any) -> float | None:
    """The value as a float, None where it was not measured (None, NaN or NA)."""
    return None if value is None or pd.isna(value) else float(value)


def auc(value: Any) -> Written:
    """An AUC or another share in [0, 1] with three decimals.

    >>> auc(0.61), auc(None)
    ('0.610', 'n/a')
    """
    x = number(value)
    return Written(MISSING if x is None else f"{x:.3f}", x)


def ratio(value: Any) -> Written:
    """A ratio with two decimals.

    >>> ratio(1.815), ratio(12.3)
    ('1.81', '12.30')
    """
    x = number(value)
    return Written(MISSING if x is None else f"{x:.2f}", x)


def count(value: Any) -> Written:
    """A count with thousands separators.

    >>> count(30000)
    '30,000'
    """
    x = number(value)
    return Written(MISSING if x is None else f"{x:,.0f}", x)


def percent(value: Any, like: Any = None) -> Written:
    """A share as percent: one decimal, or two significant digits below 1 %.

    With `like`, as many decimals as that share would have, so that an interval lines up.

    >>> percent(0.05), percent(0.00123), percent(0.0004, like=0.05), percent(0), percent(1e-9)
    ('5.0%', '0.12%', '0.0%', '0.0%', '<0.001%')
    >>> percent(0.09, like=1e-14)
    '9.000%'
    """
    x = number(value)
    if x is None:
        return Written(MISSING)
    if 0 < x < 1e-5:
        return Written("<0.001%", x)
    # Rounded first, so that 0.996 % is written as 1.0 % and not as 1.00 %.
    scale = float(f"{abs(100 * (number(like) or x)):.1e}")
    scale = scale and max(scale, 0.01)  # never more than three decimals
    decimals = 1 if scale == 0 else max(1, 1 - math.floor(math.log10(scale)))
    return Written(f"{100 * x:.{decimals}f}%", x)


def rate(value: Any) -> Written:
    """A chosen share, such as a false-positive rate, without decimals that say nothing.

    >>> rate("0.1"), rate("0.001"), rate(0.05)
    ('10%', '0.1%', '5%')
    """
    x = number(value)
    return Written(MISSING if x is None else f"{100 * x:.10g}%", x)


def p_value(value: Any) -> Written:
    """A p- or q-value with two significant digits.

    >>> p_value(0.2), p_value(0.0123), p_value(0.00001), p_value(1.0), p_value(None)
    ('.20', '.012', '< .001', '1.0', 'n/a')
    """
    x = number(value)
    if x is None:
        return Written(MISSING)
    if x < 0.001:
        return Written("< .001", x)
    if x >= 0.995:
        return Written("1.0", x)
    return Written(f"{x:.{1 - math.floor(math.log10(x))}f}".removeprefix("0"), x)


def interval(low: str, high: str) -> Written:
    """Two written bounds as one text.

    >>> interval("0.590", "0.630")
    '0.590 to 0.630'
    """
    if MISSING in (low, high):
        return Written(MISSING)
    ends = (getattr(end, "value", "") for end in (low, high))
    return Written(f"{low} to {high}", None, *ends)


def with_interval(middle: str, bounds: str) -> str:
    """An estimate and its interval; the estimate alone where there is no interval.

    >>> with_interval("0.610", "0.590 to 0.630")
    '0.610 (0.590 to 0.630)'
    """
    return middle if MISSING in (middle, bounds) else f"{middle} ({bounds})"


def name(value: Any) -> str:
    """A name from the user's data as one line of visible text.

    Control and other invisible characters, which could move a terminal's cursor or turn the
    direction of the text around it, become U+FFFD.

    >>> name(None), name("a\\x1b[2Jb")
    ('missing', 'a�[2Jb')
    """
    if value is None or (pd.api.types.is_scalar(value) and pd.isna(value)):
        return "missing"
    text = "".join(
        c if c.isprintable() or c in _JOINERS else " " if c.isspace() else "\ufffd"
        for c in str(value)
    )
    return text.strip() or "(blank)"


_ATTACKS = {
    "lira": "LiRA",
    "lira_offline": "offline LiRA",
    "rmia": "RMIA",
    "rmia_offline": "offline RMIA",
    "loss": "loss threshold",
    "calibrated_loss": "difficulty-calibrated loss",
    "quantile": "quantile regression",
    "lt_iqr": "LT-IQR (screen)",
    "stacked": "stacked",
}


def attack(value: Any) -> str:
    """The name of an attack as its authors write it.

    >>> attack("lira"), attack("mine")
    ('LiRA', 'mine')
    """
    return _ATTACKS.get(str(value), name(value))
