"""``confide audit verify``: is what an audit folder stores still as it was written?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from confide.cli import paths, show
from confide.cli.show import Json

if TYPE_CHECKING:
    from confide.runs.verified import Verified

_MOST_LINES = 20


def verify(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", callback=paths.wanted("audit"), help="An audit folder.")
    ],
    json: Json = False,
) -> None:
    """Read all that an audit folder stores; exit code 1 if anything is damaged or missing.

    Every stored signal is read and compared with its checksum, who was in which
    model with what the design draws, and the results with the signals. Nothing
    is written. What is damaged is named, with what mends it.
    """
    from confide.runs.verify import verify_audit

    show.elsewhere(folder)
    with show.progress("Verifying") as progress:
        found = verify_audit(folder, progress)
    if json:
        show.as_json(found.to_json())
    else:
        _show(found)
    if not found.sound:
        raise typer.Exit(1)


def _show(found: Verified) -> None:
    for damage in found.damage[:_MOST_LINES]:
        typer.echo(f"{damage.file}: {damage.what}")
    if len(found.damage) > _MOST_LINES:
        typer.echo(f"and {len(found.damage) - _MOST_LINES:,} more; --json lists all")
    for remedy in dict.fromkeys(one.remedy for one in found.damage):
        files = dict.fromkeys(one.file for one in found.damage if one.remedy == remedy)
        show.tables([f"{', '.join(files)}: {remedy}"])
    for one in (*(f"Warning: {warning}" for warning in found.warnings), *found.notes):
        show.tables([one])
    models = ""
    if found.n_models is not None:
        models = f" {found.n_finished:,} of {found.n_models:,} models are finished."
    if found.read:
        show.tables([f"Read: {'; '.join(found.read)}."])
    n = len(found.damage)
    what = "1 thing is" if n == 1 else f"{n:,} things are"
    verdict = "Sound" if found.sound else f"Damaged: {what} not as written"
    typer.echo(f"{verdict}.{models}")
