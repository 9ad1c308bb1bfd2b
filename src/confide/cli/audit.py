"""``confide audit``: plan, run, analyse again, and audit predictions made elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from confide.cli import show
from confide.cli.show import Json

app = typer.Typer(
    help="Can an attacker tell, patient by patient, who was in the training data?",
    epilog="Example: confide audit run examples/embedded.yaml --out runs/embedded",
    no_args_is_help=True,
)

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="A YAML configuration.")]
Out = Annotated[Path, typer.Option("--out", help="The audit folder.")]
Fdr = Annotated[float, typer.Option("--fdr", help="False discovery rate of the list of patients.")]


@app.command(epilog="Example: confide audit plan examples/embedded.yaml")
def plan(config: ConfigPath, json: Json = False) -> None:
    """Say what an audit costs and what it can find, before anything is trained."""
    from confide.config import load
    from confide.runs import plan as make_plan

    found = make_plan(*load(config))
    if json:
        show.as_json(found)
        return
    from rich.console import Console

    from confide.reports.plan import renderables

    console = Console(highlight=False)
    for part in renderables(found):
        console.print(part)


@app.command(epilog="Example: confide audit run examples/embedded.yaml --out runs/embedded")
def run(config: ConfigPath, out: Out, json: Json = False) -> None:
    """Train models, store their signals, analyse and report; run again to resume."""
    with show.resumable("audit", "run", config, "--out", out):
        from confide.config import load
        from confide.runs import run_config

        settings, folder = load(config)
        with show.progress("Training models") as progress:
            found = run_config(settings, folder, out, progress=progress)
        show.result(found, out, json_wanted=json)


@app.command(epilog="Example: confide audit scores predictions.csv --out runs/scores")
def scores(
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="CSV or Parquet of predictions.")],
    out: Out,
    attacks: Annotated[str, typer.Option(help="Attacks, separated by commas.")] = "lira,rmia",
    fdr: Fdr = 0.05,
    json: Json = False,
) -> None:
    """Audit predictions that were made elsewhere: one row per model and record.

    The columns are model, record, patient, member (0 or 1), label, and either
    logit_0, logit_1, ... or prob_0, prob_1, ... or signal; view and population,
    if there are any.  Every other column is a group.
    """
    with show.resumable("audit", "scores", table, "--out", out):
        from confide.runs import audit_scores

        names = tuple(name.strip() for name in attacks.split(",") if name.strip())
        found = audit_scores(table, out, attacks=names, fdr=fdr)
        show.result(found, out, json_wanted=json)


@app.command(epilog="Example: confide audit report runs/embedded")
def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="An audit folder.")],
    json: Json = False,
) -> None:
    """Analyse and draw again from what is stored."""
    with show.resumable("audit", "report", folder):
        from confide.runs import analyse

        show.result(analyse(folder), folder, json_wanted=json)
