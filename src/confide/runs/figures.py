"""Figures for papers, from what lies in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from confide import _check as check
from confide.audits.result import AuditResult
from confide.errors import FolderError, MissingFileError
from confide.reports.paper import draw
from confide.reports.paper_other import draw_certificate, draw_comparison
from confide.reports.paper_style import FORMATS, Format, Style, style_named
from confide.stores import disk_errors, owners_alone, read_json, read_table, write_bytes

_TABLES = ("records", "patients", "groups", "curves")


def write_figures(
    folder: Path, out: Path | None = None, *, style: str = "nature", kind: str = "pdf"
) -> list[Path]:
    """Draw the figures of an audit, of a comparison or of an attack on a release.

    Nothing is analysed again: what is drawn are the summary and the tables, so that an audit whose
    signals were erased can be drawn too.

    Parameters
    ----------
    folder : of an audit, a comparison or an attack
    out : where the figures go; `figures` in the folder by default
    style : "nature" or "plain"
    kind : "pdf" or "svg", which are vector graphics with letters as letters, or "png"

    Returns
    -------
    the files, in the order in which the report shows them

    Raises
    ------
    ArgumentError : there is no such style or kind
    MissingExtraError : matplotlib is not installed
    MissingFileError, FolderError : nothing that can be drawn, or it is damaged
    """
    look = style_named(style)
    kind = check.one_of(FORMATS, format=kind)
    form: Format = next(one for one in FORMATS if one == kind)
    try:
        made = _drawn(folder, look, form)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, FolderError | MissingFileError):
            raise
        raise FolderError(
            f"What lies in {folder} is damaged or of another version ({type(error).__name__}); "
            "run `confide audit report` on it first."
        ) from error
    if not made:
        why = "nothing of it was measured"
        if (folder / "compare.json").is_file():
            why = "no audit of it measured utility, which the frontier needs"
        raise FolderError(f"{folder} holds no figure to draw: {why}.")
    place = folder / "figures" if out is None else out
    with owners_alone():
        with disk_errors(place):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, content in made.items():
            write_bytes(place / f"{name}.{form}", content)
    return [place / f"{name}.{form}" for name in made]


def _drawn(folder: Path, style: Style, kind: Format) -> dict[str, bytes]:
    if (folder / "compare.json").is_file():
        return draw_comparison(_content(folder / "compare.json"), style=style, kind=kind)
    if (folder / "certificate.json").is_file():
        return draw_certificate(_content(folder / "certificate.json"), style=style, kind=kind)
    if not (folder / "summary.json").is_file() or not (folder / "curves.parquet").is_file():
        raise MissingFileError(
            f"{folder} holds no finished audit, comparison or attack; nothing can be drawn."
        )
    tables = {name: read_table(folder / f"{name}.parquet") for name in _TABLES}
    result = AuditResult(summary=_content(folder / "summary.json"), **tables)
    return draw(result, style=style, kind=kind)


def _content(path: Path) -> dict[str, Any]:
    found = read_json(path)
    if not isinstance(found, dict):
        raise FolderError(f"{path} is damaged, it holds no object; restore it from a copy.")
    return found
