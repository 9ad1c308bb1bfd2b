"""``confide data``: the data sets known, and what a cohort holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from confide.cli import choices, paths, show
from confide.cli.show import Json, as_json

if TYPE_CHECKING:
    from confide.datasets import Source

_RELEASE = "release"

app = typer.Typer(
    help="Data sets known, and what a cohort holds.",
    epilog="Example: confide data describe embedded",
    no_args_is_help=True,
)


@app.command("list", epilog="Example: confide data list")
def list_sources(json: Json = False) -> None:
    """List the data sources that a configuration can name, and where to get published ones."""
    known = {
        name: {"description": source.description, "homepage": getattr(source, "homepage", None)}
        for name, source in _sources().items()
    }
    if json:
        as_json(known)
        return
    width = max(map(len, known))
    for name, about in known.items():
        where = f" ({about['homepage']})" if about["homepage"] else ""
        typer.echo(f"{name:<{width}}  {about['description']}{where}")


def _sources() -> dict[str, type[Source]]:
    """All that `data.name` can say: releases of codes are read by the encoders."""
    from confide.datasets import KNOWN
    from confide.encoders.source import ReleasedCodes

    return {**KNOWN, _RELEASE: ReleasedCodes}


def _checked(context: typer.Context, parameter: typer.CallbackParam, what: str) -> str:
    if what not in (*choices.DATA, _RELEASE):
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
            help="A data source, or a YAML file.",
        ),
    ],
    path: Annotated[
        Path | None,
        typer.Option(
            "--path",
            metavar="FOLDER",
            help="Where a published data set lies, as its publisher lays it out.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Describe a cohort: records, patients, labels, groups, gaps and duplicates."""
    from confide.datasets import describe as describe_data

    with show.waiting("Reading the records") as bar:
        source, folder = _source(what, path)
        found = describe_data(source.telling(bar.phase(show.READING)).load(folder))
    if json:
        as_json(found)
        return
    from confide.reports.cohort import renderables

    show.tables(renderables(found, title=what))


def _source(what: str, place: Path | None) -> tuple[Source, Path]:
    """The source, and the folder that its paths are relative to."""
    from confide import config
    from confide._check import did_you_mean
    from confide.errors import ArgumentError, MissingFileError

    path, known = Path(what), _sources()
    if what in known and not path.is_file():
        return _known(what, place), Path()
    if place is not None:
        raise ArgumentError(
            f"--path goes with the name of a data source, and {what!r} is none."
            f"{did_you_mean(what, known)}"
        )
    if not path.exists() and not path.suffix:
        raise MissingFileError(
            f"{what!r} is neither a data source nor a file.{did_you_mean(what, known)}"
        )
    settings, folder = config.load(path)
    return settings.data, folder


def _known(name: str, place: Path | None) -> Source:
    from confide import config
    from confide.errors import ArgumentError, ConfigError

    source = _sources()[name]
    if place is not None and "path" not in source.model_fields:
        raise ArgumentError(f"The data source {name!r} reads no files; leave --path out.")
    given = {"name": name} | ({} if place is None else {"path": str(place)})
    needs = [key for key, field in source.model_fields.items() if field.is_required()]
    if needs == ["path"] and place is None:
        where = getattr(source, "homepage", None)
        raise ConfigError(
            f"The data source {name!r} reads files of yours: say where they are by --path, or "
            "write a configuration with data.path and describe that."
            + (f" They are to be had from {where}." if where else "")
        )
    if not set(needs) <= set(given):
        keys = ", ".join(f"data.{key}" for key in needs)
        raise ConfigError(
            f"The data source {name!r} reads files of yours: write a configuration with {keys} "
            "and describe that."
        )
    raw: dict[str, Any] = {"data": given}
    return config.parse(raw, f"data source {name!r}").data
