"""Risk and utility by group, several audits side by side; what one withholds, all withhold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import stdtrit

from confide.audits.clustered import LEVEL
from confide.audits.groups import MISSING
from confide.audits.suppression import withheld

COLUMNS = [
    "arm",
    "group",
    "value",
    "withheld",
    "n_patients",
    "mean_auc",
    "mean_auc_low",
    "mean_auc_high",
    "utility_withheld",
    "n_heldout_patients",
    "auroc",
    "auroc_low",
    "auroc_high",
]


class HasGroups(Protocol):
    """What is read of an audit; see :class:`confide.audits.comparison.Arm`."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def summary(self) -> Mapping[str, Any]:
        """Its summary.json."""

    @property
    def patients(self) -> pd.DataFrame:
        """One row a patient."""

    @property
    def groups(self) -> pd.DataFrame:
        """One row a group value."""


def group_table(arms: Sequence[HasGroups]) -> tuple[pd.DataFrame, list[str]]:
    """One row an audit and value of a group that all audits have alike.

    Returns
    -------
    table : arm, group, value; n_patients and mean_auc, the mean area of these patients, with a 95 %
        interval that covers patients alone; n_heldout_patients and auroc with its interval.
        Withheld rows hold no figure: what one audit withholds, of its patients or of the held-out
        ones, is withheld of all.  What no audit measured is missing, and not withheld
    dropped : sentences on groups that are left out
    """
    columns = [
        [str(c).removeprefix("group_") for c in arm.patients if str(c).startswith("group_")]
        for arm in arms
    ]
    common = [name for name in columns[0] if all(name in others for others in columns)]
    different = [
        name
        for name in common
        if any(not _values(arm, name).equals(_values(arms[0], name)) for arm in arms)
    ]
    shown = [name for name in common if name not in different]
    left_out = sorted({name for names in columns for name in names} - set(shown))
    rows = [row for name in shown for row in _rows(arms, name)]
    dropped = [
        f"Group {name!r} is left out: not all audits have it with the same values."
        for name in left_out
    ]
    return pd.DataFrame(rows, columns=COLUMNS), dropped


def _values(arm: HasGroups, group: str) -> pd.Series[Any]:
    column = arm.patients[f"group_{group}"].astype(object)
    return column.where(column.notna(), MISSING).astype(str).reset_index(drop=True)


def _rows(arms: Sequence[HasGroups], group: str) -> list[dict[str, Any]]:
    codes, labels = pd.factorize(_values(arms[0], group).to_numpy(), sort=True)
    names = [str(label) for label in labels]
    sizes = np.bincount(codes, minlength=len(names))
    utility = [_by_value(arm, group) for arm in arms]
    gone = _withheld(arms, group, names, sizes)
    held = np.array([max(int(u.get(v, {}).get("n_patients") or 0) for u in utility) for v in names])
    hidden = np.zeros(len(names), dtype=bool)
    if any(utility):
        hidden = gone | withheld(held)
    for found in utility:
        hidden |= [found.get(value, {}).get("withheld") is True for value in names]
    return [
        {"arm": arm.name, "group": group, "value": value, "withheld": bool(gone[i])}
        | ({} if gone[i] else _risk(arm, codes == i))
        | {"utility_withheld": bool(hidden[i])}
        | ({} if hidden[i] else _utility(found.get(value, {})))
        for i, value in enumerate(names)
        for arm, found in zip(arms, utility, strict=True)
    ]


def _by_value(arm: HasGroups, group: str) -> Mapping[str, Any]:
    by_group = (arm.summary.get("utility") or {}).get("by_group") or {}
    found: Mapping[str, Any] = by_group.get(group) or {}
    return found


def _withheld(
    arms: Sequence[HasGroups], group: str, names: Sequence[str], sizes: NDArray[np.int64]
) -> NDArray[np.bool_]:
    hidden = withheld(sizes)
    for arm in arms:
        if "withheld" in arm.groups:
            rows = arm.groups[arm.groups["group"].astype(str) == group]
            flagged = set(rows.loc[rows["withheld"].eq(True), "value"].astype(str))
            hidden = hidden | [name in flagged for name in names]
    return hidden


def _risk(arm: HasGroups, chosen: NDArray[np.bool_]) -> dict[str, Any]:
    areas = arm.patients["auc_joint"].to_numpy(dtype=np.float64, na_value=np.nan)[chosen]
    areas = areas[~np.isnan(areas)]
    n = len(areas)
    mean = float(areas.mean()) if n else np.nan
    half = np.nan
    if n > 1:
        half = float(stdtrit(n - 1, (1 + LEVEL) / 2) * areas.std(ddof=1) / np.sqrt(n))
    return {
        "n_patients": int(chosen.sum()),
        "mean_auc": mean,
        "mean_auc_low": mean - half,
        "mean_auc_high": mean + half,
    }


def _utility(found: Mapping[str, Any]) -> dict[str, Any]:
    if not found:
        return {}
    return {
        "n_heldout_patients": found.get("n_patients"),
        "auroc": found.get("auroc"),
        "auroc_low": found.get("low"),
        "auroc_high": found.get("high"),
    }
