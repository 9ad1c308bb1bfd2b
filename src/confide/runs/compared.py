"""Areas under the ROC curve of classifiers on codes, with intervals, and their differences."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confide.audits.bootstrap import Areas, patient_bootstrap
from confide.audits.clustered import Interval
from confide.runs.arms import Sites

N_RESAMPLES = 2000
_SEED = 20210604
"""Of the resamples: one constant, so that the same scores have the same intervals."""

_NO_GAP = dict.fromkeys(("value", "low", "high"))

ALL_SITES, OWN_SITE, ONE_SITE, MEAN = "all sites", "own site", "one site", "mean over sites"
MODEL_OF = "model of {}"


@dataclass(eq=False)
class Scores:
    """Logits of the test records of one label: of the model of all sites, and of the own site's.

    Parameters
    ----------
    sites : the releases
    label : (n_records,) 0 or 1
    known : (n_records,) whether it is known
    """

    sites: Sites
    label: NDArray[np.int64]
    known: NDArray[np.bool_]
    rows: NDArray[np.intp] = field(init=False)
    values: dict[tuple[str, str], NDArray[np.float32]] = field(default_factory=dict)
    epochs: dict[str, dict[str, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        test = (self.sites.records["split"] == "test").to_numpy()
        self.rows = np.flatnonzero(test & self.known)

    def add(self, arm: str, who: int | None, logits: NDArray[np.float32], best_epoch: int) -> None:
        """Take the logits of all test records: by the model of all sites, or (`who`) of one."""
        names = self.sites.names
        name = ALL_SITES if who is None else names[who]
        self.epochs.setdefault(arm, {})[name] = best_epoch
        if who is None:
            self.values[arm, ALL_SITES] = logits
            return
        if len(names) > 1:
            self.values[arm, MODEL_OF.format(name)] = logits
        here = self.sites.site[self.rows] == who
        scores = self.values.setdefault((arm, self.own), np.zeros(len(self.rows), np.float32))
        scores[here] = logits[here]

    @property
    def own(self) -> str:
        """What a model of one site is called."""
        return ONE_SITE if len(self.sites.names) == 1 else OWN_SITE


@dataclass(frozen=True, kw_only=True, eq=False)
class Compared:
    """Rows of the table of results, and what the summary says of the label."""

    table: pd.DataFrame
    summary: dict[str, Any]


def compare(scores: Scores, groups: pd.DataFrame, label: str) -> Compared:
    """All areas of one label.

    Models of single sites are compared by the mean over sites of the area within the site, because
    their scores have no common scale.
    """
    models = list(scores.values)
    several = len(scores.sites.names) > 1
    whole = _Part.of(scores, np.ones(len(scores.rows), dtype=bool))
    rows = []
    for i, (arm, model) in enumerate(models):
        pooled = model != OWN_SITE
        if pooled:
            rows.append(whole.row(arm, model, ALL_SITES if several else ONE_SITE, whole.areas, i))
        if several:
            rows.append(whole.row(arm, model, MEAN, whole.mean, i))
            for j, site in enumerate(scores.sites.names):
                rows.append(whole.row(arm, model, site, whole.by_site[j], i, site=j))
    for name in groups.columns:
        rows += _by_group(scores, groups[name], str(name), several)
    table = pd.DataFrame(rows)
    table.insert(0, "label", label)
    return Compared(table=table, summary=_summary(scores, whole, models, several))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Part:
    """Some of the test records, and the areas of all models on them."""

    areas: Areas
    mean: Areas
    by_site: tuple[Areas, ...]
    positive: NDArray[np.bool_]
    patient: NDArray[np.intp]
    site: NDArray[np.intp]

    @classmethod
    def of(cls, scores: Scores, chosen: NDArray[np.bool_]) -> _Part:
        rows = scores.rows[chosen]
        patient = pd.factorize(scores.sites.records["patient"].to_numpy()[rows])[0]
        site = pd.factorize(scores.sites.site[rows], sort=True)[0]
        stratum = np.zeros(patient.max() + 1, dtype=np.intp)
        stratum[patient] = site
        positive = scores.label[rows] == 1
        found = patient_bootstrap(
            np.stack([values[chosen] for values in scores.values.values()]),
            positive,
            patient,
            stratum=stratum,
            n_resamples=N_RESAMPLES,
            seed=_SEED,
        )
        return cls(
            areas=found.pooled,
            mean=found.mean_over_strata(),
            by_site=found.by_stratum,
            positive=positive,
            patient=patient,
            site=site,
        )

    def row(
        self,
        arm: str,
        model: str,
        tested_on: str,
        areas: Areas,
        i: int,
        *,
        site: int | None = None,
        group: tuple[str, str] = ("", ""),
    ) -> dict[str, Any]:
        """A row of the table."""
        chosen = np.ones(len(self.site), dtype=bool) if site is None else self.site == site
        found = areas.interval(i)
        return {
            "arm": arm,
            "model": model,
            "tested_on": tested_on,
            "group": group[0],
            "value": group[1],
            "auc": found.value if found else float(areas.value[i]),
            "low": found.low if found else np.nan,
            "high": found.high if found else np.nan,
            "n_records": int(chosen.sum()),
            "n_patients": len(np.unique(self.patient[chosen])),
            "n_positive": int(self.positive[chosen].sum()),
        }


def _by_group(
    scores: Scores, column: pd.Series[Any], name: str, several: bool
) -> list[dict[str, Any]]:
    """Areas within each group, over the records of all sites.

    Scores of models of single sites have no common scale, so with several sites only the model of
    all sites is looked at.
    """
    values = column.astype(object).where(column.notna(), "missing").astype(str)
    of_test = values.to_numpy()[scores.rows]
    rows = []
    for value in sorted(set(of_test)):
        part = _Part.of(scores, of_test == value)
        for i, (arm, model) in enumerate(scores.values):
            if model not in (ALL_SITES, ONE_SITE):
                continue
            tested_on = ALL_SITES if several else ONE_SITE
            rows.append(part.row(arm, model, tested_on, part.areas, i, group=(name, value)))
    return rows


def _summary(
    scores: Scores, whole: _Part, models: list[tuple[str, str]], several: bool
) -> dict[str, Any]:
    place = {model: i for i, model in enumerate(models)}
    areas = whole.mean if several else whole.areas
    arms: dict[str, Any] = {}
    for arm in dict.fromkeys(arm for arm, _ in models):
        own = place[arm, scores.own]
        found: dict[str, Any] = dict.fromkeys(
            ("all_sites", "mean_over_sites", "gain", "one_for_all", "gain_for_all")
        )
        if several:
            everyone = place[arm, ALL_SITES]
            # The mean of the sites' models, each tested on the records of all sites.
            each = np.zeros(len(models))
            each[[place[arm, MODEL_OF.format(site)] for site in scores.sites.names]] = 1
            each /= each.sum()
            joint = np.eye(len(models))[everyone]
            found |= {
                "all_sites": _area(whole.areas.interval(everyone)),
                "mean_over_sites": _area(areas.interval(everyone)),
                "gain": _gap(areas.difference(everyone, own)),
                "one_for_all": _area(areas.combination(each)),
                "gain_for_all": _gap(areas.combination(joint - each)),
            }
        found |= {"own_site": _area(areas.interval(own)), "best_epoch": scores.epochs[arm]}
        arms[arm] = found
    differences = [
        {
            "arm": "codes",
            "against": arm,
            "model": model,
            **(_gap(areas.difference(place["codes", model], place[arm, model])) or _NO_GAP),
        }
        for arm in arms
        if arm != "codes"
        for model in ((ALL_SITES, OWN_SITE) if several else (ONE_SITE,))
    ]
    return {"arms": arms, "differences": differences}


def _area(found: Interval | None) -> dict[str, float] | None:
    return None if found is None else {"auc": found.value, "low": found.low, "high": found.high}


def _gap(found: Interval | None) -> dict[str, float] | None:
    return None if found is None else {"value": found.value, "low": found.low, "high": found.high}
