"""Are some groups of patients more at risk than others?

Patients are the unit, never records: many records of one patient are one observation.  Three
answers stand side by side for each group value, and for each pair of values of two groups:

- its share of the tail, the share `top` of patients with the least likely `joint` areas, over its
  share of all patients, with an exact test and an exact interval (:mod:`confide.audits.shares`);
- the difference between its mean area and that of all other patients;
- the same at equal numbers of records and rarity of classes (:mod:`confide.audits.adjusted`).

The number of records is a confounder of `max`: under pure noise the largest of many areas is
larger, so groups with more records would seem more at risk where nobody is.  Of `joint` it is
not: its law by chance is the same for all patients in equally many models.  Where patients are in
different numbers of models, or their signals are tied between models, areas spread differently by
chance; so the tail is taken by p-values, with ties broken at random, that are uniform for all.
Yet a leak from many records adds up, so where there is a leak, patients with more records are
more at risk, and are found more often.  That is no artefact, and the unadjusted figures show it;
the adjusted difference says how much is left of it among patients with equally many records.

Given the signals, and where membership has no effect, the patients' areas are independent,
because the membership of each was drawn by itself.  Under a leak that differs from model to model
patients of a group share a part of their risk: intervals then speak of these models.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confide import _check
from confide.audits.adjusted import Difference, Regression
from confide.audits.multiple import benjamini_hochberg, holm
from confide.audits.shares import chi_square, in_tail, ratio_interval, two_sided_hypergeometric
from confide.audits.suppression import coarser, jointly_withheld, shown_intersections, withheld
from confide.errors import ArgumentError

Floats = NDArray[np.float64]
MISSING = "(missing)"
JOINER = " & "
COLUMNS = [
    "group",
    "value",
    "n_patients",
    "share_of_tail",
    "ratio",
    "ratio_low",
    "ratio_high",
    "p_value",
    "q_value",
    "mean_auc",
    "p_holm",
    "mean_difference",
    "mean_difference_low",
    "mean_difference_high",
    "adjusted_difference",
    "adjusted_difference_low",
    "adjusted_difference_high",
    "withheld",
]
_MOST_CELLS = 100  # of an intersection; finer ones say little and take long


@dataclass(frozen=True, kw_only=True)
class _Group:
    """The value of each patient: `labels[codes]`; `rows` are the values to be compared."""

    name: str
    codes: NDArray[np.intp]
    labels: list[str]
    rows: NDArray[np.intp]

    @property
    def size(self) -> NDArray[np.int64]:
        return np.bincount(self.codes, minlength=len(self.labels))


def group_table(
    risk: Floats,
    groups: pd.DataFrame,
    *,
    order: Floats | None = None,
    top: float = 0.01,
    seed: int = 0,
    covariates: Floats | None = None,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Share of each group in the tail of risk, and differences in mean risk.

    Parameters
    ----------
    risk : (n_patients,) larger is more at risk; NaN leaves a patient out
    groups : (n_patients, n_groups), one column a group; missing values are a group of their own,
        and a column with a single value is left out
    order : (n_patients,) what the tail is taken by, larger first, with one law for all patients
        where nothing leaks, such as :func:`confide.audits.mann_whitney.randomised_p_value` from 1;
        `risk` where not given, which has such a law for equal numbers of models and no ties
    top : share of patients in the tail; the tail has at least 20 patients (or half of them all)
    seed : breaks ties in risk and drives the Monte-Carlo test
    covariates : (n_patients, n_covariates) what differences are adjusted for, see
        :func:`confide.audits.adjusted.covariates`; without them nothing is adjusted

    Returns
    -------
    table : one row a value of a group, then one row a pair of values of two groups ("race & sex",
        "Black & F") where such a cell may be shown beside the two groups and the pair has no more
        than 100 cells.  `ratio` is the share of the tail over the share of the patients with its
        exact interval, `p_value` the two-sided exact (hypergeometric) test of ratio 1,
        `p_holm` and `q_value` (Benjamini-Hochberg) correct it over all rows of the table.
        `mean_difference` and `adjusted_difference` are the mean risk of these patients minus that
        of all others.  Each 95 % interval speaks for its row alone; NaN where there is none.
        `withheld` are the values that must not be shown, see
        :func:`confide.audits.suppression.jointly_withheld`
    overall : for each group `p_value`, a Monte-Carlo chi-square test of its values in the tail,
        and `p_adjusted`, a test that all adjusted differences are zero (Bonferroni over its
        values), None without one; both Holm-corrected over all tests of all groups; and `n_tail`

    Raises
    ------
    ArgumentError : `top` outside [0, 1], or lengths that differ
    """
    _check.in_range(0, 1, top=top)
    if not groups.shape[1]:
        return pd.DataFrame(columns=COLUMNS), {}
    if len(groups) != len(risk):
        raise ArgumentError(f"Expected {len(risk)} rows of groups, got {len(groups)}.")
    if covariates is not None:
        _check.shape((len(risk), None), covariates=covariates)
    rng = np.random.default_rng(seed)
    known = np.flatnonzero(~np.isnan(risk))
    parts = _groups(groups.iloc[known]) if len(known) else []
    if not parts:
        return pd.DataFrame(columns=COLUMNS), {}
    values = risk[known]
    tail = in_tail(values if order is None else order[known], top, rng)
    plain = Regression(values)
    adjusted = None if covariates is None else Regression(values, covariates[known])
    rows: list[dict[str, Any]] = []
    overall: dict[str, dict[str, Any]] = {}
    for group in parts:
        found, p_values = _compare(group, values, tail, plain, adjusted)
        rows += found
        hits = np.bincount(group.codes[tail], minlength=len(group.labels))
        overall[group.name] = {
            "p_value": chi_square(hits, group.size, rng),
            "p_adjusted": _bonferroni(p_values, len(group.labels)),
            "n_tail": int(tail.sum()),
        }
    names = {group.name for group in parts}
    hidden = jointly_withheld([group.codes for group in parts])
    for group in _intersections(parts, hidden):
        if group.name not in names:
            rows += _compare(group, values, tail, plain, adjusted)[0]
    table = pd.DataFrame(rows)
    gone = np.concatenate(hidden)
    table["withheld"] = np.pad(gone, (0, len(table) - len(gone)))
    table["p_holm"] = holm(table["p_value"].to_numpy())
    table["q_value"] = benjamini_hochberg(table["p_value"].to_numpy())
    _correct(overall)
    return table[COLUMNS], overall


def _groups(columns: pd.DataFrame) -> list[_Group]:
    """The groups with two values or more, each value as text."""
    found = []
    for name in columns.columns:
        values = columns[name].astype(object).where(columns[name].notna(), MISSING)
        codes, labels = pd.factorize(values.astype(str).to_numpy(), sort=True)
        if len(labels) > 1:  # else everyone: nothing to compare
            rows = np.arange(len(labels), dtype=np.intp)
            found.append(
                _Group(name=str(name), codes=codes, labels=[str(x) for x in labels], rows=rows)
            )
    return found


def _intersections(parts: list[_Group], hidden: list[NDArray[np.bool_]]) -> Iterator[_Group]:
    """Pairs of groups, with the cells that may be shown beside the margins not `hidden`.

    None of a group that is a function of a finer one, nor of one that loses values for another's
    sake: the cells of two such groups with a third would tell of each other.
    """
    nested = coarser([group.codes for group in parts])
    alone = [
        (group, gone)
        for group, gone, within in zip(parts, hidden, nested, strict=True)
        if not within and (gone == withheld(group.size)).all()
    ]
    for (one, rows), (other, columns) in combinations(alone, 2):
        shape = (len(one.labels), len(other.labels))
        if shape[0] * shape[1] > _MOST_CELLS:
            continue
        codes = one.codes * shape[1] + other.codes
        sizes = np.bincount(codes, minlength=shape[0] * shape[1]).reshape(shape)
        # A cell that is its whole row or column is no intersection: it stands in the table already.
        whole = (sizes == one.size[:, None]) | (sizes == other.size[None, :])
        yield _Group(
            name=f"{one.name}{JOINER}{other.name}",
            codes=codes,
            labels=[f"{a}{JOINER}{b}" for a in one.labels for b in other.labels],
            rows=np.flatnonzero(shown_intersections(sizes, rows, columns) & ~whole),
        )


def _compare(
    group: _Group,
    risk: Floats,
    tail: NDArray[np.bool_],
    plain: Regression,
    adjusted: Regression | None,
) -> tuple[list[dict[str, Any]], list[float]]:
    """Rows of the table, and the p-values of the adjusted differences that have one."""
    size = group.size
    hits = np.bincount(group.codes[tail], minlength=len(size))
    total = np.bincount(group.codes, weights=risk, minlength=len(size))
    rows, p_values = [], []
    for i in group.rows:
        inside = group.codes == i
        at_equal = None if adjusted is None else adjusted.difference(inside)
        if at_equal is not None and np.isfinite(at_equal.p_value):
            p_values.append(at_equal.p_value)
        rows.append(
            {
                "group": group.name,
                "value": group.labels[i],
                "n_patients": int(size[i]),
                "mean_auc": float(total[i] / size[i]),
            }
            | _share(int(hits[i]), int(size[i]), int(tail.sum()), len(risk))
            | _difference("mean", plain.difference(inside))
            | _difference("adjusted", at_equal)
        )
    return rows, p_values


def _share(hits: int, size: int, n_tail: int, n_patients: int) -> dict[str, Any]:
    low, high = ratio_interval(hits, n_patients, size, n_tail)
    return {
        "share_of_tail": hits / n_tail,
        "ratio": hits / n_tail * n_patients / size,
        "ratio_low": low,
        "ratio_high": high,
        "p_value": two_sided_hypergeometric(hits, n_patients, size, n_tail),
    }


def _difference(kind: str, found: Difference | None) -> dict[str, float]:
    name = f"{kind}_difference"
    if found is None:
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"), np.nan)
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}


def _bonferroni(p_values: list[float], n_values: int) -> float | None:
    """One p-value of the tests of a group's values; those of two values are one test."""
    n_tests = 1 if n_values == 2 else len(p_values)
    return min(1.0, n_tests * min(p_values)) if p_values else None


def _correct(overall: dict[str, dict[str, Any]]) -> None:
    """Holm's correction over both tests of all groups, in place."""
    made = [
        (entry, key)
        for entry in overall.values()
        for key in ("p_value", "p_adjusted")
        if entry[key] is not None
    ]
    corrected = holm(np.asarray([entry[key] for entry, key in made]))
    for (entry, key), p in zip(made, corrected, strict=True):
        entry[key] = float(p)
