"""``confide demo``: the main job on data that are already here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from confide.cli import paths, show
from confide.cli.show import Json


def demo(
    out: Annotated[
        Path,
        typer.Option(
            "--out", metavar="DIR", callback=paths.out("audit"), help="Where the reports go."
        ),
    ] = Path("demo"),
    json: Json = False,
) -> None:
    """Audit two small cohorts, in under three minutes on two cores.

    First real data that ship with scikit-learn (569 patients with a breast
    mass), then made-up chest images of patients with several records, some of
    them planted to leak.
    """
    from confide.runs.demo import STUDIES

    found = {}
    for study in STUDIES:
        folder = out / study.folder
        if not json:
            typer.echo(f"\n{study.title}\n{'=' * len(study.title)}")
        with (
            show.resumable(),
            show.progress("Training models", then="Analysing and drawing") as progress,
        ):
            result = study.run(folder, progress)
        found[study.name] = result.summary
        if not json:
            show.result(result, folder, json_wanted=False)
    if json:
        show.as_json(found)
