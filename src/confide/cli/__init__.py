"""The command line: parse, build settings, call, show.  No logic lives here.

Exit codes: 0 finished, whatever was found; 1 a guard tripped, a gate was missed or a release is
damaged; 2 bad usage or bad input.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from confide.cli import attack, audit, challenge, data, encode, key
from confide.cli.demo import demo

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


def _show_version(wanted: bool) -> None:
    if wanted:
        from confide import __version__

        typer.echo(f"confide {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point: errors of this package become one line on stderr and an exit code."""
    from confide.errors import ConfideError, GuardError

    os.umask(0o077)  # what an audit writes tells who was in a training set
    try:
        app(prog_name="confide")
    except ConfideError as error:
        sys.stderr.write(f"Error: {error}\n")
        sys.exit(1 if isinstance(error, GuardError) else 2)
    except MemoryError as error:
        sys.stderr.write(f"Error: This does not fit into memory ({error}); use smaller data.\n")
        sys.exit(2)
