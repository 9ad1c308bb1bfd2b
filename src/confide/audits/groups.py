"""Are some groups of patients over-represented among those most at risk?

Patients are the unit.  The tail is the share `top` of patients with the largest `joint` areas,
whose spread by chance is the same for all patients whatever the number of their records.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import hypergeom

from confide import _check
from confide.audits.clustered import clopper_pearson
from confide.audits.multiple import benjamini_hochberg, holm

Floats = NDArray[np.float64]
MISSING = "(missing)"
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
]
_LEAST_TAIL = 20
_N_MONTE_CARLO = 9_999


def group_table(
    risk: Floats, groups: pd.DataFrame, *, top: float = 0.01, seed: int = 0
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Share of each group in the tail of risk, against its share of the patients.

    Parameters
    ----------
    risk : (n_patients,) larger is more at risk; NaN leaves a patient out
    groups : (n_patients, n_groups), one column a group; missing values are a group of their own,
        and a column with a single value is left out
    top : share of patients in the tail; the tail has at least 20 patients (or half of them all)
    seed : breaks ties in risk and drives the Monte-Carlo test

    Returns
    -------
    table : one row a group value; `ratio` is the share of the tail over the share of the cohort,
        with a 95 % Clopper-Pearson interval; `p_value` the two-sided exact (hypergeometric) test
        of ratio 1; `q_value` Benjamini-Hochberg over all rows
    overall : for each group `p_value`, a Monte-Carlo chi-square test of all its values at once,
        Holm-corrected over groups, and `n_tail`
    """
    _check.in_range(0, 1, top=top)
    rng = np.random.default_rng(seed)
    known = np.flatnonzero(~np.isnan(risk))
    if not len(known) or not groups.shape[1]:
        return pd.DataFrame(columns=COLUMNS), {}
    n_tail = min(max(int(np.ceil(top * len(known))), _LEAST_TAIL), max(len(known) // 2, 1))
    order = np.lexsort((rng.random(len(known)), -risk[known]))
    in_tail = np.zeros(len(known), dtype=bool)
    in_tail[order[:n_tail]] = True
    rows, overall = [], {}
    for name in groups.columns:
        values = groups[name].astype(object).where(groups[name].notna(), MISSING).to_numpy()[known]
        codes, labels = pd.factorize(pd.Series(values).astype(str), sort=True)
        if len(labels) < 2:
            continue  # everyone: nothing to compare
        size = np.bincount(codes, minlength=len(labels))
        hits = np.bincount(codes[in_tail], minlength=len(labels))
        mean = np.bincount(codes, weights=risk[known], minlength=len(labels)) / size
        rows += [
            {"group": str(name), "value": str(label), "mean_auc": float(mean[i])}
            | _row(int(hits[i]), int(size[i]), n_tail, len(known))
            for i, label in enumerate(labels)
        ]
        overall[str(name)] = {"p_value": _chi_square(hits, size, rng), "n_tail": n_tail}
    if not rows:
        return pd.DataFrame(columns=COLUMNS), {}
    table = pd.DataFrame(rows)
    table["q_value"] = benjamini_hochberg(table["p_value"].to_numpy())
    adjusted = holm(np.asarray([entry["p_value"] for entry in overall.values()]))
    for entry, p in zip(overall.values(), adjusted, strict=True):
        entry["p_value"] = float(p)
    return table[COLUMNS], overall


def _row(hits: int, size: int, n_tail: int, n_patients: int) -> dict[str, Any]:
    expected = size / n_patients
    low, high = clopper_pearson(hits, n_tail)
    return {
        "n_patients": size,
        "share_of_tail": hits / n_tail,
        "ratio": hits / n_tail / expected,
        "ratio_low": low / expected,
        "ratio_high": high / expected,
        "p_value": two_sided_hypergeometric(hits, n_patients, size, n_tail),
    }


def two_sided_hypergeometric(hits: int, n: int, size: int, draws: int) -> float:
    """Exact two-sided p-value: twice the smaller tail, at most 1.

    `hits` of a group of `size` among `draws` of `n` patients, drawn by chance.
    """
    law = hypergeom(n, size, draws)
    return float(min(1.0, 2.0 * min(law.cdf(hits), law.sf(hits - 1))))


def _chi_square(
    hits: NDArray[np.int64], size: NDArray[np.int64], rng: np.random.Generator
) -> float:
    """Monte-Carlo p-value of the chi-square statistic of tail counts, sizes given."""
    if len(size) < 2:
        return 1.0
    expected = size * hits.sum() / size.sum()
    drawn = rng.multivariate_hypergeometric(
        size, int(hits.sum()), size=_N_MONTE_CARLO, method="marginals"
    )
    null = ((drawn - expected) ** 2 / expected).sum(axis=1)
    observed = ((hits - expected) ** 2 / expected).sum()
    return float((1 + (null >= observed - 1e-9).sum()) / (1 + _N_MONTE_CARLO))
