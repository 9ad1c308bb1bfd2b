"""``confide data``: the data sets known, and what a cohort holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from confide.cli import choices, paths, show
from confide.cli.show import Json, as_json

if TYPE_CHECKING:
    from confide.datasets import Data

app = typer.Typer(
    help="Data sets known, and what a cohort holds.",
    epilog="Example: confide data describe embedded",
    no_args_is_help=True,
)


@app.command("list", epilog="Example: confide data list")
def list_sources(json: Json = False) -> None:
    """List the data sources that a configuration can name."""
    from confide.datasets import KNOWN

    known = {name: source.description for name, source in KNOWN.items()}
    if json:
        as_json(known)
        return
    width = max(map(len, known))
    for name, description in known.items():
        typer.echo(f"{name:<{width}}  {description}")


def _checked(context: typer.Context, parameter: typer.CallbackParam, what: str) -> str:
    if what not in choices.DATA:
        paths.wanted("configuration")(context, parameter, Path(what))
    return what


@app.command(epilog="Example: confide data describe embedded")
def describe(
    what: Annotated[
        str,
        typer.Argument(
            metavar="NAME|CONFIG",
            callback=_checked,
            autocompletion=choices.data,
            help="embedded, phantom, or a YAML file.",
        ),
    ],
    json: Json = False,
) -> None:
    """Describe a cohort: records, patients, labels, groups, gaps and duplicates."""
    from confide.datasets import describe as describe_data

    with show.waiting("Reading the records"):
        found = describe_data(_load(what))
    if json:
        as_json(found)
        return
    from confide.reports.cohort import renderables

    show.tables(renderables(found, title=what))


def _load(what: str) -> Data:
    from confide import config
    from confide._check import did_you_mean
    from confide.datasets import KNOWN
    from confide.errors import ConfigError, MissingFileError

    path = Path(what)
    if what in KNOWN and not path.is_file():
        needs = [name for name, field in KNOWN[what].model_fields.items() if field.is_required()]
        if needs:
            keys = ", ".join(f"data.{name}" for name in needs)
            raise ConfigError(
                f"The data source {what!r} reads files of yours: write a configuration with {keys} "
                "and describe that."
            )
        raw: dict[str, Any] = {"data": {"name": what}}
        return config.parse(raw, f"data source {what!r}").data.load()
    if not path.exists() and not path.suffix:
        raise MissingFileError(
            f"{what!r} is neither a data source nor a file.{did_you_mean(what, KNOWN)}"
        )
    settings, folder = config.load(path)
    return settings.data.load(folder)
