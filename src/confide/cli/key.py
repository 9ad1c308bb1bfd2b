"""``confide key``: make a key, and show what can be known about one."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from confide.cli import paths
from confide.cli.show import Json, as_json

if TYPE_CHECKING:
    from confide.encoders.key import Key

app = typer.Typer(
    help="Keys: the secrets that determine encoders.",
    epilog="Example: confide key new site-a.key",
    no_args_is_help=True,
)

WARNING = (
    "Whoever holds this file can undo the encoding: keep it inside, and back it up with {state}, "
    "which its first use makes; a code is compatible with NeuraCrypt, and its leakage is what the "
    "attack suite measures."
)
KeyPath = Annotated[
    Path, typer.Argument(metavar="FILE", callback=paths.wanted("key"), help="The key file.")
]


@app.command(epilog="Example: confide key new site-a.key --note 'chest X-rays, site A'")
def new(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where the key goes; a new file.")],
    passphrase: Annotated[
        bool,
        typer.Option(
            "--passphrase",
            metavar="",
            help="Encrypt the key; asks, or takes CONFIDE_PASSPHRASE if it is set.",
        ),
    ] = False,
    note: Annotated[
        str, typer.Option("--note", metavar="TEXT", help="A line of text to tell keys apart.")
    ] = "",
    json: Json = False,
) -> None:
    """Make a key: 256 random bits in a file that its owner alone can read."""
    from confide.encoders.key import Key

    key = Key.new(note)
    key.save(file, _choose_passphrase() if passphrase else None)
    found = {
        "key_id": key.id,
        "path": str(file),
        "mode": _mode(file),
        "created": key.created,
        "note": key.note,
        "protected": passphrase,
    }
    if json:
        as_json(found)
        return
    _print({"key": key.id, "file": file, "mode": _mode(file), "passphrase": _yes(passphrase)})
    typer.echo("\n" + _wrapped(WARNING.format(state=f"{file.name}.state.json")))


@app.command(epilog="Example: confide key show site-a.key")
def show(file: KeyPath, json: Json = False) -> None:
    """Show what a key is and was used for; its secret is never shown.

    Needs no passphrase.  With one the file cannot be checked, unless
    CONFIDE_PASSPHRASE is set.
    """
    from confide.encoders.key import Header
    from confide.encoders.key_file import ENVIRONMENT
    from confide.encoders.state import KeyState

    header = Header.read(file, os.environ.get(ENVIRONMENT))
    state = KeyState.of(file, header.key_id)
    architecture = state.binding["architecture"] if state.binding else None
    found = {
        "key_id": header.key_id,
        "path": str(file),
        "mode": _mode(file),
        "created": header.created,
        "note": header.note,
        "protected": header.protected,
        "checked": header.checked,
        "architecture": architecture,
        "releases": state.releases,
    }
    if json:
        as_json(found)
        return
    settings = ", ".join(f"{name}={value}" for name, value in (architecture or {}).items())
    _print(
        {
            "key": header.key_id,
            "file": file,
            "mode": _mode(file),
            "created": header.created,
            "note": header.note or "none",
            "passphrase": _yes(header.protected),
            "integrity": "checked" if header.checked else "not checked: protected by a passphrase",
            "bound to": settings or "nothing yet: not used",
            "releases": len(state.releases) or "none",
        }
    )
    for entry in state.releases:
        done = "finished" if entry["finished"] else "not finished"
        forced = ", key used again" if entry["forced"] else ""
        typer.echo(f"  {entry['release_id']}  {_visible(entry['path'])} ({done}{forced})")


def unlock(file: Path) -> Key:
    """Load a key for another command, asking for its passphrase if there is a terminal."""
    from confide.encoders.key import unlock as unlock_key

    return unlock_key(file, (lambda: _ask("Passphrase of the key")) if _terminal() else None)


def _choose_passphrase() -> str:
    from confide.encoders.key_file import ENVIRONMENT
    from confide.errors import KeyFileError

    given = os.environ.get(ENVIRONMENT)
    if given is not None:
        return given
    if not _terminal():
        raise KeyFileError(
            f"There is no terminal to ask for a passphrase: set {ENVIRONMENT}, or leave out "
            "--passphrase."
        )
    return _ask("Passphrase for the key", confirm=True)


def _ask(prompt: str, *, confirm: bool = False) -> str:
    try:
        # On stderr: stdout is for the result.
        return str(typer.prompt(prompt, hide_input=True, confirmation_prompt=confirm, err=True))
    except typer.Abort:
        typer.echo("\nStopped; nothing was changed.", err=True)
        raise typer.Exit(130) from None


def _terminal() -> bool:
    return sys.stdin.isatty()


def _mode(file: Path) -> str:
    return f"{file.stat().st_mode & 0o7777:04o}"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _print(lines: dict[str, Any]) -> None:
    width = max(map(len, lines))
    for name, value in lines.items():
        typer.echo(_wrapped(f"{name:<{width}}  {_visible(value)}", indent=width + 2))


def _visible(value: Any) -> str:
    from confide.reports.numbers import name

    return name(str(value))


def _wrapped(text: str, indent: int = 0) -> str:
    import textwrap

    return textwrap.fill(
        text,
        80,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
