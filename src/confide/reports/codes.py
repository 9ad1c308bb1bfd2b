"""The report of a training on codes: one HTML file that opens offline, and its words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from confide.reports import codes_view, html, numbers
from confide.reports.codes_tables import OTHER_KEYS
from confide.reports.view import SMALL_CELL, WITHHELD, part

_ENCODERS = {
    "neuracrypt": "codes of a NeuraCrypt encoder with a secret key",
    "linear": "codes of a linear encoder, a weak baseline",
    None: "the records themselves, with a trainable encoder in front of the same network",
}

AUC = (
    "AUC: the chance that a random positive record scores higher than a random negative one; 0.5 "
    "is guessing, 1 is certainty."
)
NO_PRIVACY = "These figures say how well models do their task; they say nothing about privacy."

REFERENCES = (
    "Yala et al. NeuraCrypt: hiding private health data via random neural networks for public "
    "training. arXiv:2106.02484, 2021. (the encoder and the classifier)",
    "Field, Welsh. Bootstrapping clustered data. Journal of the Royal Statistical Society B "
    "69:369-390, 2007. (intervals by resampling patients)",
)
"""The papers whose methods a training on codes uses."""


def render_codes(
    table: pd.DataFrame, summary: Mapping[str, Any], *, title: str, method: Mapping[str, Any]
) -> str:
    """Draw what was measured of classifiers of codes as one HTML page.

    Parameters
    ----------
    table : one row for each measured AUC: `label`, `arm`, `model` ("all sites", "own site" and
        "model of SITE"; with one site "one site"), `tested_on` ("all sites", "mean over sites" or
        a site), `group` and `value` (empty over all records), `auc`, `low`, `high` (NaN where not
        estimable), `n_records`, `n_patients` (NaN where unknown), `n_positive`
    summary : "labels" (of each its "arms" and their "differences"), "sites", "units" (what was
        resampled: "patients" or "records"), "n_resamples", "statement" and "warnings".  The
        "encoder" of an arm is None where it was trained on the records themselves.  Gains (means
        over sites: the model of all sites less the models of one site, each tested at its own
        site or at all sites) and differences are written as they are given
    title : heading of the page
    method : facts on how the figures were made, shown as a table; a nested dict becomes dotted
        names

    Returns
    -------
    the page, which says everything without its script (sorting, filter and downloads of tables)
    and asks nothing of any network; figures of fewer than 10 patients are withheld (of fewer than
    10 records, where patients are unknown)
    """
    view = codes_view.read(table, summary)
    return html.page(
        "codes.html.j2",
        title=title,
        method=method,
        scripts=[html.template_file("tables.js")],
        statement=statement(summary),
        warnings=warnings(summary),
        arms=arms(summary),
        labels=view.labels,
        full_rows=view.rows,
        places=view.sites,
        forest=view.axis,
        sites=_sites(summary),
        n_records=_total(summary, "n_records"),
        n_test=_total(summary, "n_test"),
        one_site=view.one_site,
        units=view.units,
        n_resamples=numbers.count(summary.get("n_resamples")),
        most_values=codes_view.MOST_VALUES,
        auc_words=AUC,
        other_keys=OTHER_KEYS,
        references=REFERENCES,
    )


def statement(summary: Mapping[str, Any]) -> list[str]:
    """What the codes are, as the summary has it, and what no figure here is about."""
    text = summary.get("statement")
    return [*([numbers.name(text)] if text else []), NO_PRIVACY]


def warnings(summary: Mapping[str, Any]) -> list[str]:
    """The warnings of a training on codes."""
    return [numbers.name(line) for line in summary.get("warnings") or []]


def arms(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Every arm of any label and what its network is given."""
    found: dict[str, str] = {}
    for label in part(summary, "labels"):
        for arm in part(summary, "labels", label, "arms"):
            encoder = part(summary, "labels", label, "arms", arm).get("encoder")
            words = _ENCODERS.get(encoder) or f"codes of the encoder {numbers.name(encoder)}"
            found.setdefault(numbers.name(arm), words)
    return list(found.items())


def _sites(summary: Mapping[str, Any]) -> list[dict[str, str]]:
    return [
        {key: numbers.name(site.get(key)) for key in ("site", "release_id", "key_id")}
        | {key: numbers.count(site.get(key)) for key in ("n_records", "n_train", "n_dev", "n_test")}
        | {"n_patients": _few(site.get("n_patients"))}
        for site in summary.get("sites") or []
    ]


def _few(n: Any) -> str:
    known = numbers.number(n)
    return WITHHELD if known is not None and known < SMALL_CELL else numbers.count(n)


def _total(summary: Mapping[str, Any], key: str) -> str:
    found = [numbers.number(site.get(key)) for site in summary.get("sites") or []]
    known = [n for n in found if n is not None]
    return numbers.count(sum(known) if len(known) == len(found) else None)
