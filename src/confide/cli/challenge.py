"""``confide challenge``: the files of the NeuraCrypt challenge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from confide.cli import choices, paths, show
from confide.cli.show import Json

app = typer.Typer(
    help="The NeuraCrypt challenge: export one, submit to one, score what was submitted.\n\n"
    "Its files are those of github.com/yala/NeuraCrypt-Challenge; pickles are never opened.",
    epilog="Example: confide challenge score submission --encoded challenge",
    no_args_is_help=True,
)

Encoded = Annotated[
    Path,
    typer.Option(
        "--encoded", metavar="DIR", callback=paths.wanted("challenge"), help="The challenge."
    ),
]


@app.command(
    epilog="Example: confide challenge export examples/phantom_attack.yaml --key c.key "
    "--out challenge"
)
def export(
    config: Annotated[
        Path,
        typer.Argument(
            metavar="CONFIG", callback=paths.wanted("configuration"), help="A YAML configuration."
        ),
    ],
    key: Annotated[
        Path,
        typer.Option(
            "--key",
            metavar="FILE",
            callback=paths.wanted("key"),
            help="The key file; see: confide key new.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", metavar="DIR", callback=paths.out("challenge"), help="The challenge."
        ),
    ],
    reuse_key: Annotated[
        bool,
        typer.Option(
            "--reuse-key", metavar="", help="Make it although something was made with the key."
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Make a challenge of a cohort; records held out are those of challenge 2.

    OUT is given away; OUT.private, beside it, answers the challenge and stays.
    """
    from confide.cli.key import unlock
    from confide.config import load
    from confide.runs.challenge import export_challenge

    settings, folder = load(config)
    with show.progress("Encoding") as progress:
        found = export_challenge(
            settings, folder, key, out, unlock=unlock, reuse_key=reuse_key, progress=progress
        )
    if json:
        show.as_json(found)
        return
    typer.echo(
        f"{found['n_codes']:,} codes and the names of their images, in no order, in {out}; "
        f"{found['n_targets']:,} images of challenge 2. The answers are in {out}.private, which "
        "stays."
    )


@app.command(
    epilog="Example: confide challenge submit runs/solved --encoded challenge --out submission"
)
def submit(
    result: Annotated[
        Path,
        typer.Argument(
            metavar="RESULT", callback=paths.wanted("attack"), help="The folder of an attack run."
        ),
    ],
    encoded: Encoded,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The submission.")],
    attack: Annotated[
        str | None,
        typer.Option(
            "--attack",
            metavar="NAME",
            autocompletion=choices.inversion_attacks,
            help="Whose findings, if there are several.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Turn the findings of an attack run on a challenge into a submission."""
    from confide.runs.challenge import submit as write

    found = write(result, encoded, out, attack)
    if json:
        show.as_json(found)
        return
    typer.echo(
        f"{found['n_predictions']:,} codes of {found['attack']} for challenge 1 and "
        f"{found['n_targets']:,} of challenge 2: {out}"
    )
    if not found["n_targets"]:
        typer.echo(
            "Challenge 2 is not answered; attacks that train a substitute encoder (mmd, "
            "discriminator) answer it."
        )


@app.command(epilog="Example: confide challenge score submission --encoded challenge")
def score(
    submission: Annotated[Path, typer.Argument(metavar="SUBMISSION", help="A submission.")],
    encoded: Encoded,
    json: Json = False,
) -> None:
    """Score a submission; needs the private folder of the challenge.

    What is missing counts as wrong, and coverage says how much is there.
    Challenge 2 is scored in both directions.
    """
    from confide.runs.challenge import score as scored

    found = scored(submission, encoded)
    if json:
        show.as_json(found)
        return
    from confide.reports.attack_text import scores

    show.tables(scores(found))
