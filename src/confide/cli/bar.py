"""Progress on stderr: how far, how long still; silent when that is not a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Self

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.text import Text


class Bar:
    """Called with (steps finished, steps in all); shows the time left.

    Parameters
    ----------
    what : the steps
    then : what follows them, shown with the time that it has taken; None if nothing does
    """

    def __init__(self, what: str, then: str | None = None) -> None:
        self._what, self._then = what, then
        self._pace = _Pace()
        console = Console(stderr=True)
        # Colour may be forced where there is no terminal, as in logs of builds.
        shown = sys.stderr.isatty() and console.is_interactive
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            _Share(),
            _Steps(),
            _Time(),
            console=console,
            disable=not shown,
            refresh_per_second=2,  # the machine has other work
        )
        self._before = then if then == what else "Preparing"
        self._steps = self._waiting = self._progress.add_task(self._before, total=None)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        if not self._pace.begun or self._waiting != self._steps:
            self._progress.remove_task(self._waiting)  # what it waited for is over
        self._progress.stop()

    def __call__(self, done: int, total: int) -> None:
        """Show how far the steps are."""
        ends = self._pace.ends(done, total)
        self._progress.update(
            self._steps, description=self._what, completed=done, total=total, ends=ends
        )
        if done >= total and self._then is not None:
            self._waiting = self._progress.add_task(self._then, total=None)
            self._then = None

    def phase(self, what: str) -> Callable[[int, int], None]:
        """Steps of another kind, on a line of their own; they may begin anew.

        Parameters
        ----------
        what : these steps

        Returns
        -------
        called as the bar itself, before the steps that it was made for
        """
        line: TaskID | None = None
        pace, last = _Pace(), 0

        def told(done: int, total: int) -> None:
            nonlocal line, pace, last
            if line is None:
                line = self._progress.add_task(what, total=total)
                if not self._pace.begun:  # what comes after it stands below it
                    self._progress.remove_task(self._steps)
                    self._steps = self._progress.add_task(self._before, total=None)
                    self._waiting = self._steps
            if done < last:
                pace = _Pace()
                self._progress.reset(line)
            last = done
            ends = pace.ends(done, total)
            self._progress.update(line, completed=done, total=total, ends=ends)

        return told


class _Pace:
    """When steps will have ended, by the time that they took so far."""

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None

    @property
    def begun(self) -> bool:
        return self._first is not None

    def ends(self, done: int, total: int) -> float | None:
        """By :func:`time.monotonic`; None where it cannot be told."""
        now = time.monotonic()
        if self._first is None:
            self._first = now, done
        begun, before = self._first
        # Steps may be minutes apart, and some were there before: the mean since the first call.
        return now + (total - done) * (now - begun) / (done - before) if done > before else None


class _Share(ProgressColumn):
    def render(self, task: Task) -> RenderableType:
        # A bar that only moves would, without colour, read as a full one.
        return Text("") if task.total is None else BarColumn(bar_width=30).render(task)


class _Steps(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("" if task.total is None else f"{task.completed:,.0f}/{task.total:,.0f}")


class _Time(ProgressColumn):
    """The time left where it can be told, else the time taken."""

    def render(self, task: Task) -> Text:
        ends = task.fields.get("ends")
        if ends is None or task.finished:
            return Text(_clock(task.finished_time or task.elapsed or 0.0))
        return Text(f"{_clock(max(0.0, ends - time.monotonic()))} left")


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
