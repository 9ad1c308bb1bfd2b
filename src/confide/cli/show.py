"""Showing results: tables for people on stdout, JSON for machines, progress on stderr."""

from __future__ import annotations

import contextlib
import json
import shlex
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from confide.audits.result import AuditResult

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]


def as_json(content: Any) -> None:
    """Print strict JSON."""
    from confide.stores import plain

    typer.echo(json.dumps(plain(content), indent=1, ensure_ascii=False, allow_nan=False))


def result(found: AuditResult, out: Path, *, json_wanted: bool) -> None:
    """Show the result of an audit and where it lies."""
    if json_wanted:
        as_json(found.summary)
        return
    from rich.console import Console

    from confide.reports.text import renderables

    console = Console(highlight=False)
    for part in renderables(found):
        console.print(part)
    console.print(f"Report: {out / 'report.html'}", soft_wrap=True, markup=False)


@contextlib.contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar with the time left, on a terminal only."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Remaining(),
        console=console,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextlib.contextmanager
def resumable(*command: str | Path) -> Iterator[None]:
    """Ctrl-C and a termination signal leave a folder that the same command resumes; say so."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        again = shlex.join(["confide", *map(str, command)])
        typer.echo(f"\nStopped. What was finished is safe; resume with: {again}", err=True)
        raise typer.Exit(130) from None
    finally:
        signal.signal(signal.SIGTERM, before)
