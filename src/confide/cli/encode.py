"""``confide encode``: releases of codes, and classifiers trained on them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from confide.cli import paths, show
from confide.cli.show import Json

app = typer.Typer(
    help="Encode records with a secret random network, and train on the codes.\n\n"
    "The codes are compatible with NeuraCrypt; how much they give away is what the attack suite "
    "measures.",
    epilog="Example: confide encode run examples/phantom_site_a.yaml --key a.key --out codes/a",
    no_args_is_help=True,
)

ConfigPath = Annotated[
    Path,
    typer.Argument(
        metavar="CONFIG", callback=paths.wanted("configuration"), help="A YAML configuration."
    ),
]
KeyPath = Annotated[
    Path,
    typer.Option(
        "--key",
        metavar="FILE",
        callback=paths.wanted("key"),
        help="The key file; see: confide key new.",
    ),
]


@app.command(
    epilog="Example: confide encode run examples/phantom_site_a.yaml --key a.key --out codes/a"
)
def run(
    config: ConfigPath,
    key: KeyPath,
    out: Annotated[
        Path,
        typer.Option(
            "--out", metavar="RELEASE", callback=paths.out("release"), help="The release."
        ),
    ],
    reuse_key: Annotated[
        bool,
        typer.Option(
            "--reuse-key", metavar="", help="Make it although another was made with the key."
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Encode a cohort into a release, a folder that may leave; run again to resume.

    Beside it, RELEASE.private says which code is whose. It stays, and so does
    the key. Codes are compatible with NeuraCrypt; how much they give away is
    what the attack suite measures.
    """
    with show.resumable():
        from confide.cli.key import unlock
        from confide.config import load
        from confide.runs.encode import encode

        settings, folder = load(config)
        with show.progress("Encoding") as progress:
            data = settings.data.telling(progress.phase(show.READING))
            settings = settings.model_copy(update={"data": data})
            found = encode(
                settings,
                folder,
                key,
                out,
                unlock=unlock,
                reuse_key=reuse_key,
                progress=progress,
            )
        if json:
            show.as_json(found)
            return
        from confide.reports.release import renderables

        show.tables(renderables(found, out))


@app.command(epilog="Example: confide encode verify codes/a")
def verify(
    release: Annotated[
        Path,
        typer.Argument(
            metavar="RELEASE", callback=paths.wanted("release", "empty"), help="A release."
        ),
    ],
    json: Json = False,
) -> None:
    """Read every byte of a release again; exit code 1 if any was altered or is missing.

    That a release is intact says nothing of what it gives away: that is what
    the attack suite measures.
    """
    from confide.encoders.release import Release
    from confide.encoders.release import verify as find_damage
    from confide.errors import UnfinishedError

    with show.progress("Verifying") as progress:
        try:
            damage = find_damage(release, progress)
        except UnfinishedError as error:
            typer.echo(f"Error: {error}", err=True)
            raise typer.Exit(1) from None
    if json:
        found = [{"file": one.file, "what": one.what} for one in damage]
        show.as_json({"intact": not damage, "damage": found})
    else:
        for one in damage:
            typer.echo(f"{one.what}: {one.file!r}")
        digest = "" if damage else f" Digest: {Release.read(release).manifest.digest}"
        files = "1 file is" if len(damage) == 1 else f"{len(damage)} files are"
        typer.echo(f"{files} not as written." if damage else f"Intact.{digest}")
    if damage:
        raise typer.Exit(1)


@app.command(epilog="Example: confide encode train examples/phantom_train.yaml --out runs/codes")
def train(
    config: ConfigPath,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="DIR",
            callback=paths.out("training"),
            help="The folder for models and report.",
        ),
    ],
    json: Json = False,
) -> None:
    """Train classifiers on the releases of one or more sites; run again to resume.

    One model of all sites and one of each; and, where the configuration asks
    for it, the same on codes of the linear encoder and on the plain records.
    Codes are compatible with NeuraCrypt; how much they give away is what the
    attack suite measures.
    """
    with show.resumable():
        from confide.config import CodesConfig, load_as
        from confide.runs.coded import train_on_codes

        settings, folder = load_as(CodesConfig, config)
        with show.progress("Training (epochs)", then="Measuring and drawing") as progress:
            found = train_on_codes(settings, folder, out, progress=progress)
        if json:
            show.as_json(found.summary)
            return
        from confide.reports.codes_text import renderables

        show.tables(renderables(found.table, found.summary))
        show.written(report=out / "report.html")


@app.command(epilog="Example: confide encode predict runs/codes new.yaml --key a.key --out new.csv")
def predict(
    trained: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", callback=paths.wanted("training"), help="The folder of a training."
        ),
    ],
    config: ConfigPath,
    key: KeyPath,
    out: Annotated[Path, typer.Option("--out", metavar="TABLE", help="The table, CSV or Parquet.")],
    json: Json = False,
) -> None:
    """Classify new records at the site that holds the key; their codes are not kept.

    Labels and groups of the configuration are not read. With norm "batch" a
    code, and so a prediction, depends on the records beside it. Codes are
    compatible with NeuraCrypt; how much they give away is what the attack suite
    measures.
    """
    from confide.cli.key import unlock
    from confide.config import load
    from confide.runs.predict import predict as classify

    settings, folder = load(config)
    with show.progress("Classifying") as progress:
        table = classify(trained, settings, folder, key, out, unlock=unlock, progress=progress)
    if json:
        show.as_json(table.to_dict(orient="list"))
    else:
        typer.echo(f"{len(table):,} records: {out}")
