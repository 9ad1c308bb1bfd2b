"""The tables of an audit's result, and what is to be said with them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confide.attacks import Attack
from confide.audits.mann_whitney import RowAuc
from confide.audits.patients import PatientRisk
from confide.audits.shrinkage import Shrunken
from confide.audits.suppression import told
from confide.audits.tail import Tail
from confide.cohort import Cohort

Floats = NDArray[np.float64]


def warnings(
    membership: NDArray[np.bool_],
    risk: PatientRisk,
    attacks: Sequence[Attack],
    conflicts: dict[str, int],
    *,
    population: Floats | None,
) -> list[str]:
    """What the reader of the numbers has to know.  No small number of patients is told exactly."""
    found = []
    few = int((np.minimum(risk.n_in, risk.n_out) < 2).sum())
    if few:
        found.append(
            f"{_patients(few)} in or out of fewer than two models; the attacks leave their "
            "records out, and their risk has no standard error."
        )
    unknown = int(np.isnan(risk.joint).sum())
    if unknown:
        found.append(f"{_patients(unknown)} without a known label; they have no risk.")
    if population is None and any(a.name.startswith("rmia") for a in attacks):
        found.append(
            "No population records were given: RMIA orders the records of each target by their "
            "likelihood ratio, and its scores are not comparable between targets."
        )
    if risk.n_in.max() > 2 * max(risk.n_in.min(), 1):
        found.append(
            "Some patients are in more than twice as many models as others; the corrected shares "
            "and local false discovery rates assume that risk has nothing to do with that."
        )
    if len(membership) < 16:
        found.append(
            f"{len(membership)} models are few: the risk of single patients is hardly resolved."
        )
    return found + [
        f"Group {name!r} differs between the records of {told(n)} patients; the first record's "
        "value is used."
        for name, n in conflicts.items()
        if n
    ]


def _patients(n: int) -> str:
    text = told(n)
    return f"{text[0].upper()}{text[1:]} patients are"


def record_table(records: RowAuc, cohort: Cohort) -> pd.DataFrame:
    """One row a record, in the order of the cohort; see :class:`AuditResult`."""
    label: dict[str, Any] = {}
    if cohort.task == "multilabel":
        label = {f"label_{name}": cohort.label[:, i] for i, name in enumerate(cohort.classes)}
    else:
        names: Any = np.asarray(cohort.classes, dtype=object)
        if all(re.fullmatch(r"0|-?[1-9]\d{0,17}", name) for name in cohort.classes):
            names = names.astype(np.int64)  # numbers in the user's table stay numbers
        label = {"label": names[cohort.label]}
    return pd.DataFrame(
        {"record": cohort.record, "patient": cohort.patient}
        | label
        | {f"group_{name}": cohort.groups[name].to_numpy() for name in cohort.groups.columns}
        | {"auc": records.auc, "auc_se": records.se}
    )


def patient_table(
    risk: PatientRisk, less_noise: Shrunken, corrected: Tail, cohort: Cohort, groups: pd.DataFrame
) -> pd.DataFrame:
    """One row a patient; see :class:`AuditResult`.

    Where there are too few patients or models to shrink towards covariates, `risk` is shrunken
    towards the distribution of all areas.
    """
    covered = ~np.isnan(less_noise.risk)
    return pd.DataFrame(
        {"patient": cohort.patients, "n_records": cohort.records_per_patient}
        | {f"group_{name}": groups[name].to_numpy() for name in groups.columns}
        | {
            "auc_joint": risk.joint,
            "auc_max": risk.maximum,
            "auc_se": risk.se,
            "p_joint": risk.p_joint,
            "p_max": risk.p_max,
            "p_value": risk.p_value,
            "q_value": risk.q_value,
            "at_risk": risk.at_risk,
            "risk": np.where(covered, less_noise.risk, corrected.risk),
            "risk_low": np.where(covered, less_noise.low, corrected.risk_low),
            "risk_high": np.where(covered, less_noise.high, corrected.risk_high),
            "local_fdr": corrected.local_fdr,
        }
    )
