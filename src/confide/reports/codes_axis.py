"""Where an AUC and its interval stand on the axis of a figure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from confide.reports.figures import Mark


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A linear axis of AUCs in percent of its width.

    Attributes
    ----------
    ticks : (position, text)
    one : position of an AUC of 0.5, what guessing gives
    """

    low: float
    high: float

    @property
    def ticks(self) -> tuple[tuple[float, str], ...]:
        # Few enough for a narrow screen, and always one at 0.5.
        step = 0.1 if self.high - self.low < 0.45 else 0.25
        below, above = ((self.low - 0.5) / step, (self.high - 0.5) / step)
        marks = (
            0.5 + k * step for k in range(math.ceil(below - 1e-9), math.floor(above + 1e-9) + 1)
        )
        return tuple((self.place(mark), f"{mark:.3g}") for mark in marks)

    @property
    def one(self) -> float:
        return self.place(0.5)

    def place(self, auc: float) -> float:
        """Position of an AUC; the margins keep the text of the outer ticks whole."""
        return 5 + 90 * (auc - self.low) / (self.high - self.low)

    def mark(
        self, auc: float | None, low: float | None, high: float | None, *, label: str
    ) -> Mark | None:
        """Dot and interval of an AUC, the dot alone without an interval; None without an AUC."""
        if auc is None:
            return None
        left, right = (auc, auc) if low is None or high is None else (low, high)
        return Mark(
            dot=self.place(auc),
            left=self.place(left),
            right=self.place(right),
            cut_left=False,
            cut_right=False,
            label=label,
        )

    @classmethod
    def of(cls, figures: Iterable[float | None]) -> Axis:
        """From the lowest to the highest figure, in tenths, with 0.5 and 0.6 inside."""
        known = [value for value in figures if value is not None]
        return cls(
            low=math.floor(10 * min([0.5, *known]) + 1e-9) / 10,
            high=math.ceil(10 * max([0.6, *known]) - 1e-9) / 10,
        )
