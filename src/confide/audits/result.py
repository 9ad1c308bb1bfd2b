"""What an audit found: four tables and a summary, the form in which it is stored and drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd


@dataclass(frozen=True, kw_only=True, eq=False)
class AuditResult:
    """The result of an audit.

    Attributes
    ----------
    records : one row a record, in the order of the cohort: record, patient, label, group_*,
        auc, auc_se (AUC over models of the record's signal, in against out; DeLong error)
    patients : one row a patient: patient, n_records, group_*, auc_joint, auc_max, auc_se,
        p_joint, p_max, p_value, q_value, at_risk; risk, risk_low, risk_high (the area with less
        noise, see :mod:`confide.audits.shrinkage`, and its 95 % credible interval), local_fdr
    groups : one row a group value: group, value, n_patients, share_of_tail, ratio, ratio_low,
        ratio_high, p_value, q_value, mean_auc, and more; see :mod:`confide.audits.groups`
    curves : points to draw: curve, series, x, y, low, high.
        curve "roc": series is the attack, x the false and y the true positive rate, mean over
        target models.
        curve "survival": x an AUC, y the share of patients at or above it; series "joint" and
        "max" as measured, "joint_null" and "max_null" as expected by chance (low and high of
        "joint_null": where chance puts the share of so many patients), "joint_corrected" of true
        areas
    summary : plain JSON: n_models, n_patients, n_records, models_missing, attacks, patients,
        groups, utility, epsilon, guards, warnings, verdict
    """

    records: pd.DataFrame
    patients: pd.DataFrame
    groups: pd.DataFrame
    curves: pd.DataFrame
    summary: dict[str, Any]
