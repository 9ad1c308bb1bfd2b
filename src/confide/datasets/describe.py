"""What a cohort holds, in plain numbers."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import Any

import numpy as np

from confide._tables import plain
from confide.cohort import Cohort
from confide.datasets.base import Data
from confide.datasets.near_duplicates import near_duplicates

_N_EXAMPLES = 5


def describe(data: Data) -> dict[str, Any]:
    """Count records, patients, labels, groups, gaps and duplicates; plain JSON.

    Returns
    -------
    records, patients, test_records, test_patients : counts
    inputs : shape of one record: features; leads and samples; or channels, height and width
    records_per_patient : min, median, max, and counts: {records: patients that have so many}
    task : "binary", "multiclass" or "multilabel"
    labels : {class: records}, or {label: {positive, negative, unknown}} for multilabel
    groups : {group: {values: {value: {patients, records}}, missing: {patients, records},
        conflicting_patients}}; a patient counts under the value of the first record, and
        conflicts when the records disagree
    missing : {feature: records without a value}, where there are any in the training pool; the
        notes tell of features that are missing in held-out records alone
    duplicates_across_patients : records whose inputs equal those of another patient's record:
        how many, in how many sets, and a few examples
    near_duplicates_across_patients : images that are almost those of another patient, in the same
        form, and how many images were not compared because they are blank or crowded, see
        :mod:`confide.datasets.near_duplicates`; None for other inputs than images
    notes : what the loader decided and left out
    """
    cohort = data.cohort
    per_patient = cohort.records_per_patient
    sizes, n_patients = np.unique(per_patient, return_counts=True)
    return {
        "records": cohort.n_records,
        "patients": cohort.n_patients,
        "test_records": int(data.test.sum()),
        "test_patients": len(np.unique(cohort.patient_index[data.test])),
        "inputs": list(data.inputs.shape[1:]),
        "records_per_patient": {
            "min": int(per_patient.min()),
            "median": float(np.median(per_patient)),
            "max": int(per_patient.max()),
            "counts": {str(k): int(n) for k, n in zip(sizes, n_patients, strict=True)},
        },
        "task": cohort.task,
        "labels": _labels(cohort),
        "groups": _groups(cohort),
        "missing": _missing(data),
        "duplicates_across_patients": _duplicates(data),
        "near_duplicates_across_patients": _near_duplicates(data),
        "notes": list(data.notes),
    }


def _labels(cohort: Cohort) -> dict[str, Any]:
    if cohort.task == "multilabel":
        return {
            name: {
                "positive": int((column == 1).sum()),
                "negative": int((column == 0).sum()),
                "unknown": int(np.isnan(column).sum()),
            }
            for name, column in zip(cohort.classes, cohort.label.T, strict=True)
        }
    counts = np.bincount(cohort.label, minlength=len(cohort.classes))
    return {name: int(n) for name, n in zip(cohort.classes, counts, strict=True)}


def _groups(cohort: Cohort) -> dict[str, Any]:
    of_patients, conflicts = cohort.patient_groups()
    result = {}
    for name, column in cohort.groups.items():
        records, patients = column.value_counts(), of_patients[name].value_counts()
        result[str(name)] = {
            "values": {
                str(value): {"patients": int(patients.get(value, 0)), "records": int(n)}
                for value, n in records.items()
            },
            "missing": {
                "patients": int(of_patients[name].isna().sum()),
                "records": int(column.isna().sum()),
            },
            "conflicting_patients": conflicts[str(name)],
        }
    return result


def _missing(data: Data) -> dict[str, int]:
    suffix = " is missing"
    return {
        name.removesuffix(suffix): int(data.inputs[:, i].sum())
        for i, name in enumerate(data.feature_names)
        if name.endswith(suffix)
    }


def _duplicates(data: Data) -> dict[str, Any]:
    same: defaultdict[bytes, list[int]] = defaultdict(list)
    for row, values in enumerate(data.inputs):
        same[hashlib.sha256(values.tobytes()).digest()].append(row)
    owner = data.cohort.patient_index
    sets = [rows for rows in same.values() if len(set(owner[rows])) > 1]
    return _shown(sets, data.cohort)


def _near_duplicates(data: Data) -> dict[str, Any] | None:
    if data.inputs.ndim != 4:
        return None
    found = near_duplicates(data.inputs, data.cohort.patient_index)
    sets = [rows.tolist() for rows in found.sets]
    left = {"blank": found.n_blank, "crowded": found.n_crowded}
    return _shown(sets, data.cohort) | left


def _shown(sets: list[list[int]], cohort: Cohort) -> dict[str, Any]:
    """How many records in how many sets, and a few examples."""
    examples = [
        [
            {"record": plain(cohort.record[row]), "patient": plain(cohort.patient[row])}
            for row in rows[:_N_EXAMPLES]
        ]
        for rows in sets[:_N_EXAMPLES]
    ]
    return {
        "records": sum(len(rows) for rows in sets),
        "sets": len(sets),
        "examples": examples,
    }
