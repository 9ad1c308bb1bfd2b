"""The command line: parse, build settings, call, show.  No logic lives here.

Exit codes: 0 finished, whatever was found; 1 a guard tripped, a gate was missed or a release is
damaged; 2 bad usage or bad input; 70 an error of this package; 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
import traceback
from typing import Annotated, NoReturn

import typer

from confide.cli import attack, audit, challenge, data, encode, key
from confide.cli.compare import compare
from confide.cli.demo import demo
from confide.cli.figures import figures

app = typer.Typer(
    name="confide",
    help="Patient confidentiality in medical AI: audit what a model gives away about the patients "
    "it was trained on; encode records before they leave, train on the codes, and attack them.",
    epilog="Start with: confide demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # a traceback with local values could show patients' data
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data.app, name="data")
app.add_typer(audit.app, name="audit")
app.add_typer(key.app, name="key")
app.add_typer(encode.app, name="encode")
app.add_typer(attack.app, name="attack")
app.add_typer(challenge.app, name="challenge")
app.command(name="demo", epilog="Example: confide demo --out demo")(demo)
app.command(name="figures", epilog="Example: confide figures runs/embedded --style nature")(figures)
app.command(
    name="compare",
    epilog="Example: confide compare runs/plain runs/small --out runs/compared",
)(compare)


def _show_version(wanted: bool) -> None:
    if wanted:
        from confide import __version__

        typer.echo(f"confide {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", metavar="", callback=_show_version, is_eager=True, help="Show version."
        ),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point: errors of this package become one line on stderr and an exit code."""
    from confide.errors import ConfideError, GuardError

    os.umask(0o077)  # what an audit writes tells who was in a training set
    if isinstance(sys.stdout, io.TextIOWrapper):  # names may hold letters that it cannot write
        with contextlib.suppress(OSError):
            sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app(prog_name="confide")
    except ConfideError as error:
        _fail(str(error), 1 if isinstance(error, GuardError) else 2)
    except MemoryError as error:
        _fail(f"This does not fit into memory ({error}); use smaller data.", 2)
    except OSError as error:
        if error.errno not in _OF_THE_SYSTEM:
            _crash()
        what, remedy = _OF_THE_SYSTEM[error.errno]
        where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        _fail(f"{where}{what}; {remedy}.", 2)
    except Exception:
        _crash()


_OF_THE_SYSTEM = {
    errno.EACCES: ("permission denied", "check who may read and write it"),
    errno.EPERM: ("not permitted", "check who may read and write it"),
    errno.EROFS: ("the file system cannot be written to", "choose another place"),
    errno.ENOSPC: ("the disk is full", "free some space and run the command again"),
    errno.EDQUOT: ("the quota of the disk is used up", "free some and run the command again"),
    errno.EFBIG: (
        "the file would be larger than is allowed",
        "raise the limit or use another disk",
    ),
    errno.EIO: ("the disk does not answer as it should", "check it, then run the command again"),
    errno.EMFILE: ("too many files are open", "raise the limit, for example with: ulimit -n 4096"),
    errno.ENAMETOOLONG: ("the name is too long", "choose a shorter one"),
    errno.ENOENT: ("there is no such file or folder", "check the path"),
    errno.ENOTDIR: ("a part of the path is a file, not a folder", "check the path"),
    errno.EISDIR: ("it is a folder, not a file", "check the path"),
    errno.ELOOP: ("its links lead in a circle", "check the path"),
}
"""Errors of the system that are about the user's disk and paths: what, and the remedy."""


def _fail(message: str, code: int) -> NoReturn:
    sys.stderr.write(f"Error: {message}\n")
    sys.exit(code)


def _crash() -> NoReturn:
    """An error of this package: in full, and with a code that is not one of a missed gate."""
    traceback.print_exc()
    sys.stderr.write("\nThis is an error of confide; please report it with the lines above.\n")
    sys.exit(70)
