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


def _known_guards(names: list[str] | None) -> list[str] | None:
    from confide.audits.guards import check_accepted

    check_accepted(names or ())  # before anything is read or written
    return names


Accept = Annotated[
    list[str] | None,
    typer.Option(
        "--accept",
        metavar="GUARD",
        callback=_known_guards,
        help="Accept the result although this guard failed: blind or recipe. Can be repeated.",
    ),
]
"""Give it the default None."""


def as_json(content: Any) -> None:
    """Print strict JSON."""
    from confide.stores import plain

    typer.echo(json.dumps(plain(content), indent=1, ensure_ascii=False, allow_nan=False))


def result(found: AuditResult, out: Path, *, json_wanted: bool) -> None:
    """Show the result of an audit and where it lies.

    Raises
    ------
    GuardError : a guard refuses the result and was not accepted by name; all is shown before
    """
    from confide.audits.guards import refusal
    from confide.errors import GuardError

    _show(found, out, json_wanted=json_wanted)
    if why := refusal(found.summary["guards"]):
        raise GuardError(why)


def _show(found: AuditResult, out: Path, *, json_wanted: bool) -> None:
    if json_wanted:
        as_json(found.summary)
        return
    from rich.console import Console

    from confide.reports import released, text

    of_one_model = found.summary.get("kind") == "released_model"
    console = Console(highlight=False)
    for part in (released if of_one_model else text).renderables(found):
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
