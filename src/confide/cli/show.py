"""Showing results: tables for people on stdout, JSON for machines, progress on stderr."""

from __future__ import annotations

import contextlib
import json
import shlex
import signal
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from confide.cli import choices, paths

if TYPE_CHECKING:
    from rich.console import RenderableType

    from confide.audits.result import AuditResult
    from confide.cli.bar import Bar

Json = Annotated[
    bool, typer.Option("--json", metavar="", help="Print the result as JSON on stdout.")
]

READING = "Reading images"

_WIDEST = 100
"""Columns; longer lines are hard to read."""


Pdf = Annotated[
    bool, typer.Option("--pdf", metavar="", help="Print report.html as report.pdf, by Chromium.")
]


def _known_guards(context: typer.Context, names: list[str] | None) -> list[str] | None:
    if not context.resilient_parsing:  # the shell completes a line
        from confide.audits.guards import check_accepted

        check_accepted(names or ())  # before anything is read or written
    return names


Accept = Annotated[
    list[str] | None,
    typer.Option(
        "--accept",
        metavar="GUARD",
        callback=_known_guards,
        autocompletion=choices.guards,
        help="Accept the result although this guard failed: blind or recipe. Can be repeated.",
    ),
]
"""Give it the default None."""


def elsewhere(folder: Path, signals: str | None = None) -> None:
    """Say where the signals are, if not in the folder: it will be asked over the network.

    Parameters
    ----------
    folder : an audit folder, or one that begins; its manifest may be a stranger's
    signals : where they are to be
    """
    from confide._objects import is_url

    url = signals or paths.content_of(folder / "manifest.json").get("signals")
    url = url.rstrip("/") if isinstance(url, str) else None
    if is_url(url):
        typer.echo(f"Signals are at {url}.", err=True)


def as_json(content: Any) -> None:
    """Print strict JSON."""
    from confide.stores import plain

    # A terminal or a file of another encoding could not hold all letters.
    ascii_only = not (sys.stdout.encoding or "").lower().startswith("utf")
    typer.echo(json.dumps(plain(content), indent=1, ensure_ascii=ascii_only, allow_nan=False))


def tables(parts: Iterable[RenderableType]) -> None:
    """Print tables and text for people on stdout, without blanks at the ends of lines."""
    from rich.console import Console

    console = Console(highlight=False)
    console.width = min(console.width, _WIDEST)
    with console.capture() as captured:
        for part in parts:
            console.print(part, markup=False)
    typer.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def written(**files: Path) -> None:
    """Name the files that were written, in lines that are not broken."""
    for what, path in files.items():
        typer.echo(f"{what[0].upper()}{what[1:]}: {path}")


def reports(out: Path) -> None:
    """Name what lies in a folder for people to read."""
    files = {"report": "report.html", "summary": "summary.md", "PDF": "report.pdf"}
    written(**{what: out / name for what, name in files.items() if (out / name).is_file()})


@contextlib.contextmanager
def printing(out: Path, wanted: bool) -> Iterator[None]:
    """Print the folder's report as PDF afterwards; where no browser is, refuse before."""
    if not wanted:
        yield
        return
    from confide.runs.pdf import find_browser, print_report

    find_browser()
    yield
    with waiting("Printing"):
        print_report(out)


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
    from confide.reports import released, text

    of_one_model = found.summary.get("kind") == "released_model"
    tables((released if of_one_model else text).renderables(found))
    reports(out)


@contextlib.contextmanager
def progress(what: str, *, then: str | None = None) -> Iterator[Bar]:
    """A bar with the time left, on a terminal only.

    Before the first step and, with `then`, after the last one stands what is done, with the time
    that it has taken.
    """
    from confide.cli.bar import Bar

    with Bar(what, then) as bar:
        yield bar


@contextlib.contextmanager
def waiting(what: str) -> Iterator[Bar]:
    """What is done, and the time that it has taken, on a terminal only."""
    from confide.cli.bar import Bar

    with Bar(what, what) as bar:
        yield bar


def _stopped(error: BaseException | None) -> bool:
    """Whether it is Ctrl-C, or what a library made of it where it came at a bad instant."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


@contextlib.contextmanager
def resumable() -> Iterator[None]:
    """Ctrl-C and a termination signal leave a folder that the same command resumes; say so."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except (KeyboardInterrupt, RuntimeError) as error:
        if not _stopped(error):
            raise
        again = shlex.join(["confide", *sys.argv[1:]])
        typer.echo(f"\nStopped. What was finished is safe; resume with: {again}", err=True)
        raise typer.Exit(130) from None
    finally:
        signal.signal(signal.SIGTERM, before)
