"""What a training on codes hands to its report, read: rows of the table, and what holds for all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from confide.reports import numbers
from confide.reports.codes_axis import Axis
from confide.reports.view import SMALL_CELL, part

ALL_SITES, OWN_SITE, ONE_SITE, MEAN = "all sites", "own site", "one site", "mean over sites"
MODEL_OF = "model of {}"
"""The model of a named site, which is tested at every site."""

ONE_FOR_ALL = "one for all"
"""The mean of the models of one site, each tested at all sites; the table has no row of it."""

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Rows of the table, the summary, and what holds for all of it.

    Attributes
    ----------
    rows : of all models but those of a named site, whose mean (ONE_FOR_ALL) stands for them
    where : rows over all records of a site by label, arm, model and site
    units : what was resampled, "patients", or "records" where patients are unknown
    axis : holds every figure that may be shown in a figure
    """

    rows: list[Row]
    where: Mapping[tuple[str, str, str, str], Row]
    summary: Mapping[str, Any]
    sites: tuple[str, ...]
    units: str
    axis: Axis

    @property
    def one_site(self) -> bool:
        return len(self.sites) < 2

    def is_small(self, row: Row) -> bool:
        """Whether the figures of a row are withheld."""
        return _is_small(row, self.units)

    def is_overall(self, row: Row) -> bool:
        """Whether a row is about all test records, as against those of one of several sites."""
        return self.one_site or row["tested_on"] not in self.sites


def read(table: pd.DataFrame, summary: Mapping[str, Any]) -> Source:
    """For the arguments see :func:`confide.reports.codes.render_codes`."""
    rows: list[Row] = [
        {str(k): v for k, v in row.items()}
        | {"group": "" if pd.isna(row["group"]) else row["group"]}
        for row in table.to_dict("records")
    ]
    sites = tuple(str(site.get("site")) for site in summary.get("sites") or [])
    units = "records" if summary.get("units") == "records" else "patients"
    of_a_site = {MODEL_OF.format(site) for site in sites}
    shown = [row for row in rows if row["model"] not in of_a_site]
    shown += _one_for_all(shown, summary)
    return Source(
        rows=shown,
        where={
            (str(row["label"]), str(row["arm"]), row["model"], row["tested_on"]): row
            for row in rows
            if not row["group"] and row["tested_on"] in sites
        },
        summary=summary,
        sites=sites,
        units=units,
        axis=Axis.of(
            numbers.number(row[key])
            for row in shown
            if not _is_small(row, units)
            for key in ("auc", "low", "high")
        ),
    )


def _one_for_all(rows: list[Row], summary: Mapping[str, Any]) -> Iterator[Row]:
    """A row for each arm, of the same test records as that of the models at their own site."""
    for row in rows:
        if (row["model"], row["tested_on"]) == (OWN_SITE, MEAN) and not row["group"]:
            arm = part(summary, "labels", str(row["label"]), "arms", str(row["arm"]))
            area = part(arm, "one_for_all")
            figures = {key: area.get(key) for key in ("auc", "low", "high")}
            yield {**row, "model": ONE_FOR_ALL, **figures}


def _is_small(row: Row, units: str) -> bool:
    patients, records = numbers.number(row["n_patients"]), numbers.number(row["n_records"])
    size = records if patients is None and units == "records" else patients
    return size is None or size < SMALL_CELL  # a cell of unknown size is treated as a small one
