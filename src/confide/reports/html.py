"""One HTML file that opens offline and asks nothing of any network."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from confide.audits.result import AuditResult
from confide.reports import (
    beside,
    epsilon_view,
    figures,
    groups_view,
    numbers,
    patients_view,
    privacy_view,
    thumbnails,
    view,
    wording,
)

_TEMPLATES = Path(__file__).parent / "templates"
_ROWS_SHOWN = 100  # patients in the HTML; a script pages the others
_MOST_CELLS = 100


def render(
    result: AuditResult,
    *,
    title: str,
    method: dict[str, Any],
    show_ids: bool = False,
    pictures: Mapping[int, str] | None = None,
) -> str:
    """Draw an audit as one HTML page.

    Parameters
    ----------
    result : what the audit found; nothing is computed from it, it is only written out
    title : heading of the page
    method : facts on how the audit was made (data, model, versions, ...), shown as a table; a
        nested dict becomes dotted names
    show_ids : call patients and records by their ids; otherwise P1, P2, ... in order of risk.
        Only the table of patients holds ids: `title`, `method` and the summary's texts are shown
        as they are
    pictures : row of the table of records -> data: URI of an image to show, see
        :mod:`confide.reports.thumbnails`; none by default

    Returns
    -------
    the page, a few MB because the drawing library is inside; figures of fewer than 10 patients
    are withheld, and a Content-Security-Policy forbids all network access
    """
    groups = groups_view.groups(result)
    pairs = groups_view.pairs(result)
    plots = {"roc": figures.roc(result.curves), "survival": figures.survival(result.curves)}
    drawn = {name: plot for name, plot in plots.items() if plot is not None}
    if plots["survival"] is not None:
        plots["survival"]["slider"] = figures.thresholds(result.curves, result.patients)
    # Only figures need the drawing library, which is most of the page.
    scripts = [*([_plotly(), *map(template_file, ("draw.js", "slider.js"))] if drawn else [])]
    listed = patients_view.patients_at_risk(result, show_ids=show_ids, pictures=pictures)
    utility, by_group = (
        groups_view.utility_overall(result.summary),
        groups_view.utility_by_group(result),
    )
    return page(
        "report.html.j2",
        title=title,
        method=method,
        scripts=[template_file("tables.js"), *scripts],
        data=Markup(figures.to_json(drawn)),  # noqa: S704 - escaped by to_json
        summary=result.summary,
        patients=view.part(result.summary, "patients"),
        verdict=wording.verdict(result.summary),
        wording=wording,
        alerts=view.alerts(result.summary),
        guards=view.guards(result.summary),
        warnings=view.warnings(result.summary),
        screens=view.screens(result.summary),
        attacks=view.attacks(result.summary),
        strongest=view.strongest(result.summary),
        prevalences=view.prevalences(result.summary),
        figures=plots,
        tails=view.tails(result.summary),
        groups=groups,
        pairs=pairs[:_MOST_CELLS],
        n_pairs=len(pairs),
        forest=figures.forest([*(group.cells for group in groups), pairs[:_MOST_CELLS]]),
        most_cells=_MOST_CELLS,
        listed=listed,
        rows_shown=_ROWS_SHOWN,
        more_rows=Markup(patients_view.to_rows(listed[_ROWS_SHOWN:])),  # noqa: S704 - as data
        show_ids=show_ids,
        shows_images=bool(pictures),
        most_images=thumbnails.MOST_RECORDS,
        utility=utility,
        utility_by_group=by_group,
        beside=beside.beside(by_group, utility),
        beside_form=beside,
        epsilon=epsilon_view.bounds(result.summary),
        lower_only=epsilon_view.LOWER_ONLY,
        promise=privacy_view.promise(result.summary),
        promise_meaning=privacy_view.MEANING,
        promise_outside=privacy_view.OUTSIDE,
    )


def page(
    template: str,
    *,
    title: str,
    method: Mapping[str, Any],
    scripts: Sequence[str] = (),
    **parts: Any,
) -> str:
    """Write one of our templates with what every page has: a policy, a style, a title, a method.

    `parts` are the names that the template asks for beside these.  They are escaped, and may come
    from anywhere; `scripts` are not, and must be files of ours or of a library.
    """
    return (
        _environment()
        .get_template(template)
        .render(
            policy=_policy(scripts),
            style=Markup(template_file("style.css")),  # noqa: S704 - our own file
            scripts=[Markup(script) for script in scripts],  # noqa: S704 - see above
            title=numbers.name(title),
            method=view.method_rows(method),
            **parts,
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "auc": numbers.auc,
        "count": numbers.count,
        "percent": numbers.percent,
        "rate": numbers.rate,
    }
    environment.globals["MISSING"] = numbers.MISSING
    environment.globals["SMALL_CELL"] = view.SMALL_CELL
    environment.globals["WITHHELD"] = view.WITHHELD
    return environment


@cache
def template_file(name: str) -> str:
    """The text of a file of the templates' folder."""
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def _plotly() -> str:
    # Importing plotly takes longer than drawing a report.
    from plotly.offline import get_plotlyjs

    script: str = get_plotlyjs()
    return script


def _policy(scripts: Sequence[str]) -> str:
    """Allow the page's own scripts by their hash, inline styles, and nothing else."""
    hashes = [
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        for script in scripts
    ]
    allowed = " ".join(hashes) or "'none'"
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {allowed}",
            "style-src 'unsafe-inline'",  # the drawing library styles its elements
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
