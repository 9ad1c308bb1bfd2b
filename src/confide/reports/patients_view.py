"""Patients at risk and their records, as rows of written text for the page.

Pseudonymised: patients are P1, P2, ... in order of risk, the records of each R1, R2, ... in order
of theirs.  What somebody may know of a patient is left out, because it tells which row is whose:
groups, labels of records, and numbers of records that few patients have.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confide.audits.result import AuditResult
from confide.audits.suppression import SMALL_CELL
from confide.reports import numbers
from confide.reports.figures import to_json
from confide.reports.view import auc_interval, rows

MOST_PATIENTS = 5000
"""Patients of a report; the table of the audit holds all."""
MOST_RECORDS = 10
"""Records of a patient in a report, those most at risk."""
_LABEL = "label"


@dataclass(frozen=True, kw_only=True)
class Record:
    """One record of a patient: its name, what is told of it, and a picture (data: URI) or none."""

    name: str
    text: str
    picture: str = ""


@dataclass(frozen=True, kw_only=True)
class Patient:
    """One patient at risk; `note` says how many records are left out."""

    name: str
    n_records: str
    auc_joint: str
    auc_se: str
    auc_max: str
    risk: str
    risk_interval: str
    local_fdr: str
    p_value: str
    q_value: str
    records: tuple[Record, ...] = ()
    note: str = ""

    @property
    def cells(self) -> tuple[tuple[str, str], ...]:
        """The columns after the name, each as (text, text of its interval)."""
        return (
            (self.n_records, ""),
            (self.auc_joint, ""),
            (self.auc_se, ""),
            (self.risk, self.risk_interval),
            (self.local_fdr, ""),
            (self.auc_max, ""),
            (self.p_value, ""),
            (self.q_value, ""),
        )


def at_risk(result: AuditResult, limit: int) -> pd.DataFrame:
    """Rows of the table of patients that are at risk, the most certain first."""
    table = result.patients
    if not len(table) or "at_risk" not in table:
        return table.iloc[:0]
    listed = table[table["at_risk"].eq(True).to_numpy(dtype=bool, na_value=False)]
    # Many share a p-value.  In the order of the user's table their pseudonyms would tell it; so
    # they are shuffled first, the same way whenever the page is drawn.
    measured = listed[["p_value", "auc_joint"]].to_numpy(dtype=float, na_value=np.nan)
    digest = hashlib.sha256(table["auc_joint"].to_numpy(dtype=float, na_value=np.nan).tobytes())
    digest.update(measured.tobytes())
    rng = np.random.default_rng(int.from_bytes(digest.digest()[:16], "little"))
    return (
        listed.iloc[rng.permutation(len(listed))]
        .sort_values(
            ["p_value", "auc_joint"], ascending=[True, False], kind="stable", na_position="last"
        )
        .head(limit)
    )


def records_of(result: AuditResult, patients: pd.Series[Any]) -> dict[Any, list[int]]:
    """Rows of the table of records of some patients, those most at risk first.

    Returns
    -------
    patient -> all of the patient's rows, by falling AUC; empty where the audit has no such table
    """
    table = result.records
    if not {"patient", "auc"} <= set(table.columns):
        return {}
    mine = np.flatnonzero(table["patient"].isin(patients).to_numpy())
    auc = table["auc"].to_numpy(dtype=float, na_value=np.nan)[mine]
    order = mine[np.argsort(-auc, kind="stable")]  # NaN last
    found: dict[Any, list[int]] = {}
    for row, patient in zip(order.tolist(), table["patient"].iloc[order], strict=True):
        found.setdefault(patient, []).append(row)
    return found


def patients_at_risk(
    result: AuditResult,
    *,
    limit: int = MOST_PATIENTS,
    show_ids: bool = False,
    pictures: Mapping[int, str] | None = None,
) -> list[Patient]:
    """The first `limit` patients at risk, the most certain first, with their records.

    Parameters
    ----------
    result : of an audit
    limit : patients at most
    show_ids : call patients and records by their ids, tell labels and how many records there are;
        otherwise no id is in the result
    pictures : row of the table of records -> data: URI
    """
    listed = at_risk(result, limit)
    owned = records_of(result, listed["patient"]) if len(listed) else {}
    told = _Records(result.records, show_ids, pictures or {})
    several = None if show_ids else numbers_told_up_to(result.patients)
    return [
        Patient(
            name=numbers.name(row["patient"]) if show_ids else f"P{i}",
            n_records=f"{several} or more" if many else numbers.count(row.get("n_records")),
            auc_joint=numbers.auc(row.get("auc_joint")),
            auc_se=numbers.auc(row.get("auc_se")),
            auc_max=numbers.auc(row.get("auc_max")),
            risk=numbers.auc(row.get("risk")),
            risk_interval=auc_interval(row, "risk_low", "risk_high"),
            local_fdr=numbers.p_value(row.get("local_fdr")),
            p_value=numbers.p_value(row.get("p_value")),
            q_value=numbers.p_value(row.get("q_value")),
            records=told.of(
                mine[: min(MOST_RECORDS, several or MOST_RECORDS) if many else MOST_RECORDS]
            ),
            note=_ALL if many else _left_out(len(mine)),
        )
        for i, row in enumerate(rows(listed), start=1)
        for mine in [owned.get(row["patient"], [])]
        for many in [several is not None and _at_least(row.get("n_records"), several)]
    ]


_ALL = "Perhaps more, less at risk; the audit's table of records holds all."


def _left_out(n: int) -> str:
    more = n - MOST_RECORDS
    return f"{more:,} more, less at risk; the audit's table of records holds all." * (more > 0)


def numbers_told_up_to(table: pd.DataFrame) -> int | None:
    """The number of records from which on it is not told, None where all may be.

    Fewer than 10 patients of the cohort have one of these numbers, and at least 10 have one of
    them together.
    """
    if "n_records" not in table:
        return None
    values, counts = np.unique(table["n_records"].dropna().to_numpy(), return_counts=True)
    rare = np.flatnonzero(counts < SMALL_CELL)
    if not len(rare):
        return None
    first = int(rare[0])
    while first and counts[first:].sum() < SMALL_CELL:
        first -= 1
    return int(values[first])


def _at_least(value: Any, several: int) -> bool:
    found = numbers.number(value)
    return found is not None and found >= several


class _Records:
    """What is told of records."""

    def __init__(self, table: pd.DataFrame, show_ids: bool, pictures: Mapping[int, str]) -> None:
        self._pictures = pictures
        self._id = table["record"].tolist() if show_ids and "record" in table else None
        self._auc, self._se = (
            table[key].tolist() if key in table else [None] * len(table)
            for key in ("auc", "auc_se")
        )
        self._label = _labels(table) if show_ids else None

    def of(self, records: list[int]) -> tuple[Record, ...]:
        return tuple(
            Record(
                name=f"R{i}" if self._id is None else numbers.name(self._id[row]),
                text=self._text(row),
                picture=self._pictures.get(row, ""),
            )
            for i, row in enumerate(records, start=1)
        )

    def _text(self, row: int) -> str:
        auc, se = numbers.auc(self._auc[row]), numbers.auc(self._se[row])
        error = "" if se == numbers.MISSING else f", standard error {se}"
        label = "" if self._label is None else f"; label {self._label.of(row)}"
        return f"AUC {auc}{error}{label}"


@dataclass(frozen=True)
class _Labels:
    """The label of each record as the number of its name."""

    number: NDArray[np.intp]
    names: list[str]

    def of(self, row: int) -> str:
        return self.names[self.number[row]]


def _labels(table: pd.DataFrame) -> _Labels | None:
    """Labels of records; of several labels all that a record has are one name."""
    if _LABEL in table:
        number, values = pd.factorize(table[_LABEL], use_na_sentinel=False)
        return _Labels(number, [numbers.name(value) for value in values])
    several = [str(name) for name in table.columns if str(name).startswith(f"{_LABEL}_")]
    if not several:
        return None
    has = table[several].apply(pd.to_numeric, errors="coerce").eq(1).to_numpy()
    kinds, number = np.unique(has, axis=0, return_inverse=True)
    names = [numbers.name(name.removeprefix(f"{_LABEL}_")) for name in several]
    joined = [
        ", ".join(name for name, one in zip(names, kind, strict=True) if one) for kind in kinds
    ]
    return _Labels(number.ravel(), [text or "none" for text in joined])


def to_rows(patients: list[Patient]) -> str:
    """Patients as JSON for tables.js, safe inside a script element.

    Each is [cells, records, note]: a cell is its text, or [text, number, interval, low, high];
    a record [name, text].

    >>> to_rows([])
    '[]'
    """
    data = [
        [
            [patient.name, *(_cell(text, bounds) for text, bounds in patient.cells)],
            [[record.name, record.text] for record in patient.records],
            patient.note,
        ]
        for patient in patients
    ]
    return to_json(data)


def _cell(text: str, bounds: str) -> Any:
    value = getattr(text, "value", "")
    if not bounds or bounds == numbers.MISSING:
        return [text, value] if value else text
    return [text, value, bounds, getattr(bounds, "low", ""), getattr(bounds, "high", "")]
