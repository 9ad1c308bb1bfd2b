"""``confide attack``: what an attacker recovers from a release."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from confide.cli import paths, show
from confide.cli.show import Json

app = typer.Typer(
    help="What does an attacker recover from a release of codes?",
    epilog="Example: confide attack run codes/a examples/phantom_attack.yaml "
    "--truth codes/a.private --out runs/attack",
    no_args_is_help=True,
)


@app.command(
    epilog="Example: confide attack run codes/a examples/phantom_attack.yaml "
    "--truth codes/a.private --out runs/attack --max-reid 0.05"
)
def run(
    release: Annotated[
        Path,
        typer.Argument(
            metavar="RELEASE",
            callback=paths.wanted("release", "challenge"),
            help="A release, or a challenge.",
        ),
    ],
    config: Annotated[
        Path,
        typer.Argument(
            metavar="CONFIG", callback=paths.wanted("configuration"), help="A YAML configuration."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="DIR",
            callback=paths.out("attack"),
            help="The folder for findings and certificate.",
        ),
    ],
    truth: Annotated[
        Path | None,
        typer.Option(
            "--truth",
            metavar="DIR",
            callback=paths.wanted("truth"),
            help="RELEASE.private, to score by; no attack sees it.",
        ),
    ] = None,
    max_reid: Annotated[
        float | None,
        typer.Option(
            "--max-reid",
            metavar="SHARE",
            min=0,
            max=1,
            help="Gate: share of records singled out.",
        ),
    ] = None,
    show_images: Annotated[
        bool,
        typer.Option("--show-images", metavar="", help="Show what was recovered of a few records."),
    ] = False,
    pdf: show.Pdf = False,
    json: Json = False,
) -> None:
    """Attack a release, with controls, and certify what leaks; run again to resume.

    Exit code 1 if the release does not meet its gate: re-identification above
    it, or controls that failed, so that nothing was established.
    """
    with show.resumable():
        from confide.config import load
        from confide.runs.attack import attack_release

        settings, folder = load(config)
        with (
            show.printing(out, pdf),
            show.progress("Attacking", then="Scoring and drawing") as progress,
        ):
            found = attack_release(
                settings,
                folder,
                release,
                out,
                truth=truth,
                max_reid=max_reid,
                show_images=show_images,
                progress=progress,
            )
        if json:
            show.as_json(found)
        else:
            from confide.reports.certificate_text import renderables

            show.tables(renderables(found))
            show.written(certificate=out / "certificate.json")
            show.reports(out)
    if found["gate"] is not None and not found["gate"]["met"]:
        raise typer.Exit(1)


@app.command(name="list", epilog="Example: confide attack list")
def list_(json: Json = False) -> None:
    """The attacks, and what their attacker knows."""
    from confide.inversion.settings import NEEDS
    from confide.inversion.suite import KNOWN

    attacks = [
        {"name": name, "knowledge": NEEDS[name], "about": one.about, "source": one.source}
        for name, one in KNOWN.items()
    ]
    if json:
        show.as_json(attacks)
        return
    from confide.reports.attack_text import renderables

    show.tables(renderables(attacks))
