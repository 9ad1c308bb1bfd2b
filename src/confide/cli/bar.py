"""Progress on stderr: how far, how long still; silent when that is not a terminal."""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from typing import Self

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
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
        self._first: tuple[float, int] | None = None
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
        self._steps = self._waiting = self._progress.add_task(
            then if then == what else "Preparing", total=None
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._first is None or self._waiting != self._steps:
            self._progress.remove_task(self._waiting)  # what it waited for is over
        self._progress.stop()

    def __call__(self, done: int, total: int) -> None:
        """Show how far the steps are."""
        now = time.monotonic()
        if self._first is None:
            self._first = now, done
        begun, before = self._first
        # Steps may be minutes apart, and some were there before: the mean since the first call.
        left = (total - done) * (now - begun) / (done - before) if done > before else None
        ends = None if left is None else now + left
        self._progress.update(
            self._steps, description=self._what, completed=done, total=total, ends=ends
        )
        if done >= total and self._then is not None:
            self._waiting = self._progress.add_task(self._then, total=None)
            self._then = None


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
