"""One idiom for checking arguments: the name comes from the keyword.

>>> in_range(0, 1, fraction=0.5)
0.5
>>> in_range(0, 1, fraction=1.2)
Traceback (most recent call last):
    ...
confide.errors.ArgumentError: Expected fraction=1.2 in [0, 1].
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

import numpy as np

from confide.errors import ArgumentError, ConfideError


def _one(named: dict[str, Any]) -> tuple[str, Any]:
    ((name, value),) = named.items()
    return name, value


def in_range(low: float, high: float, **named: float) -> float:
    """Return the one named number if ``low <= number <= high``, else raise ArgumentError."""
    name, value = _one(named)
    if not low <= value <= high:  # also refuses NaN
        raise ArgumentError(f"Expected {name}={value!r} in [{low:g}, {high:g}].")
    return float(value)


def at_least(low: float, **named: float) -> float:
    """Return the one named number if it is at least `low`, else raise ArgumentError."""
    name, value = _one(named)
    if not value >= low:
        raise ArgumentError(f"Expected {name}={value!r} to be at least {low:g}.")
    return value


def shape(wanted: tuple[int | None, ...], **named: np.ndarray) -> np.ndarray:
    """Return the one named array if its shape is `wanted` (None: any size), else raise."""
    name, value = _one(named)
    fits = len(value.shape) == len(wanted) and all(
        w is None or w == n for w, n in zip(wanted, value.shape, strict=True)
    )
    if not fits:
        sizes = ", ".join("any" if w is None else str(w) for w in wanted)
        raise ArgumentError(f"Expected {name} of shape ({sizes}), got {value.shape}.")
    return value


def one_of(choices: Iterable[str], **named: str) -> str:
    """Return the one named string if it is a choice, else raise and name the nearest one."""
    name, value = _one(named)
    options = list(choices)
    if value not in options:
        raise ArgumentError(f"Unknown {name}={value!r}.{did_you_mean(value, options)}")
    return value


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """' Did you mean ...?' for the nearest option, followed by all of them.

    >>> did_you_mean("lirra", ["lira", "rmia"])
    " Did you mean 'lira'? Known: lira, rmia."
    """
    known = [_short(one) for one in sorted(options)]
    # difflib sees swapped letters as two mistakes.
    near = [one for one in known if sorted(one) == sorted(str(word))]
    near = near or difflib.get_close_matches(str(word), known, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    shown = known if len(known) <= 40 else [*known[:40], f"... ({len(known)} in all)"]
    return f"{hint} Known: {', '.join(shown)}."


def _short(name: str) -> str:
    """A name from a file may be of any length."""
    return name if len(name) <= 80 else f"{name[:77]}..."


def finite(error: type[ConfideError] = ArgumentError, **named: np.ndarray) -> np.ndarray:
    """Return the one named array if every element is finite, else name the first that is not."""
    name, value = _one(named)
    ok = np.isfinite(value)
    if not ok.all():
        at = tuple(int(i) for i in np.argwhere(~ok)[0])
        raise error(f"{name} holds {value[at]} at index {at}; expected finite numbers.")
    return value
