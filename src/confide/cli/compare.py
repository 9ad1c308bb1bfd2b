"""``confide compare``: several audits side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from confide.cli import show
from confide.cli.show import Json


def compare(
    folders: Annotated[
        list[Path], typer.Argument(metavar="DIR DIR...", help="Two audit folders or more.")
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="The folder for figures and page.")
    ],
    name: Annotated[
        list[str] | None,
        typer.Option(
            "--name",
            metavar="NAME",
            help="What an audit is called, once for each folder in their order; by default the "
            "folders' own names.",
        ),
    ] = None,
    pdf: show.Pdf = False,
    json: Json = False,
) -> None:
    """Compare recipes that were audited on the same patients: risk against utility.

    Nothing is trained: stored signals are analysed together, patient by patient,
    so that differences have intervals.  Of erased audits the tables are used.
    """
    from confide.runs.compare import compare_audits

    for folder in folders:
        show.elsewhere(folder)
    with show.printing(out, pdf), show.progress("Reading audits") as progress:
        found = compare_audits(folders, out, names=name or (), progress=progress)
    if json:
        show.as_json(found.summary)
        return
    from confide.reports.compare_text import renderables

    show.tables(renderables(found))
    show.reports(out)
