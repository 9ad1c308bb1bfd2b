"""``confide figures``: the plots of a report as vector graphics for papers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from confide.cli import choices, show
from confide.cli.show import Json


def figures(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="The folder of an audit, a comparison or an attack."),
    ],
    style: Annotated[
        str,
        typer.Option(
            "--style",
            metavar="NAME",
            help="How they look: nature or plain.",
            autocompletion=choices.styles,
        ),
    ] = "nature",
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Where they go; DIR/figures by default."),
    ] = None,
    kind: Annotated[
        str,
        typer.Option(
            "--format", metavar="FORMAT", help="pdf, svg or png.", autocompletion=choices.formats
        ),
    ] = "pdf",
    json: Json = False,
) -> None:
    r"""Draw the plots of a report for a paper: ROC, survival, groups, utility, frontier.

    Nothing is analysed again.  Needs matplotlib: pip install 'confide\[figures]'.
    """
    from confide.runs.figures import write_figures

    made = write_figures(folder, out, style=style, kind=kind)
    if json:
        show.as_json({"figures": [str(path) for path in made]})
        return
    for path in made:
        typer.echo(str(path))
