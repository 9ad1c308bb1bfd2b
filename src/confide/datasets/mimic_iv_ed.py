"""MIMIC-IV-ED: stays in an emergency department, as the table of a public benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd

from confide._tables import refuse_values
from confide.datasets.base import Data, Label, naming
from confide.datasets.features import feature_matrix
from confide.datasets.mimic_cxr import insurances, races
from confide.datasets.published import PATIENT, RECORD, Listed, Published, age_bands
from confide.datasets.published_words import counted
from confide.errors import MissingFileError

VITALS: dict[str, tuple[float, float, float, float]] = {
    "triage_temperature": (14.2, 26, 45, 47),  # degrees Celsius
    "triage_heartrate": (0, 0, 350, 390),
    "triage_resprate": (0, 0, 300, 330),
    "triage_o2sat": (0, 0, 100, 150),
    "triage_sbp": (0, 0, 375, 375),
    "triage_dbp": (0, 0, 375, 375),
    "triage_pain": (0, 0, 10, 10),
    "triage_acuity": (1, 1, 5, 5),
}
"""Vital signs.  A value below the first number or above the last is taken as unknown; one that is
outside the two inner ones becomes the nearest of them (the benchmark's own limits)."""

_VISITS = tuple(f"n_{what}_{days}d" for what in ("ed", "hosp", "icu") for days in (30, 90, 365))
_COMPLAINTS = tuple(
    f"chiefcom_{what}"
    for what in (
        *("chest_pain", "abdominal_pain", "headache", "shortness_of_breath", "back_pain"),
        *("cough", "nausea_vomiting", "fever_chills", "syncope", "dizziness"),
    )
)
_CHARLSON = tuple(
    f"cci_{what}"
    for what in (
        *("MI", "CHF", "PVD", "Stroke", "Dementia", "Pulmonary", "Rheumatic", "PUD", "Liver1"),
        *("DM1", "DM2", "Paralysis", "Renal", "Cancer1", "Liver2", "Cancer2", "HIV"),
    )
)
_ELIXHAUSER = tuple(
    f"eci_{what}"
    for what in (
        *("Arrhythmia", "Valvular", "PHTN", "HTN1", "HTN2", "NeuroOther", "Hypothyroid"),
        *("Lymphoma", "Coagulopathy", "Obesity", "WeightLoss", "FluidsLytes", "BloodLoss"),
        *("Anemia", "Alcohol", "Drugs", "Psychoses", "Depression"),
    )
)
FEATURES = ("age", "gender", *_VISITS, *VITALS, *_COMPLAINTS, *_CHARLSON, *_ELIXHAUSER)
"""The 64 columns from which the benchmark predicts hospitalisation and critical outcomes."""

CANCER = ("cci_Cancer1", "cci_Cancer2", "eci_Lymphoma", "eci_Tumor1", "eci_Tumor2")
"""Malignancy and metastatic solid tumour (Charlson); lymphoma, solid tumour without metastases,
and metastatic cancer (Elixhauser)."""

OUTCOMES = ("outcome_hospitalization", "outcome_critical", "outcome_ed_revisit_3d")

_TABLES = ("master_dataset.csv", "master_dataset.parquet")
_AGE = "age in years"  # the feature, beside the group of bands
_ADULT = 18
_TEMPERATURE = "triage_temperature"
_FAHRENHEIT = 60  # a greater median is in degrees Fahrenheit, a smaller one in Celsius
_TRUE_FALSE = {1: 1.0, 0: 0.0, "True": 1.0, "False": 0.0}  # 1 equals 1.0 and True


class MimicIvEd(Published):
    """Stays of MIMIC-IV-ED, as listed by the benchmark of Xie et al. (Scientific Data 2022).

    The benchmark's script ``extract_master_dataset.py`` makes ``master_dataset.csv`` of MIMIC-IV
    and MIMIC-IV-ED.  What its next script does is done here: stays of persons under 18 are left
    out, and impossible vital signs are taken as unknown.  The 64 features are standardised by the
    training pool; where one is unknown it becomes the mean, and is flagged by a further feature.

    Parameters
    ----------
    path : that table (CSV, gzipped CSV or Parquet), or the folder that it is in
    label : one outcome, or a list of outcomes (multilabel)
    groups : some of sex, age (band), race and insurance (as noted for the stay; insurance is
        noted for hospitalised stays alone), obesity (`eci_Obesity`) and cancer (any of `CANCER`)
    test : which patients are held out
    """

    description: ClassVar[str] = "MIMIC-IV-ED: emergency stays, 64 features of a public benchmark"
    homepage: ClassVar[str] = (
        "https://physionet.org/content/mimic-iv-ed/ through the scripts of "
        "https://github.com/nliulab/mimic4ed-benchmark"
    )
    labels: ClassVar[tuple[str, ...]] = OUTCOMES
    all_groups: ClassVar[tuple[str, ...]] = (
        *("sex", "age", "race", "insurance", "obesity", "cancer"),
    )

    name: Literal["mimic-iv-ed"] = "mimic-iv-ed"
    label: Label = "outcome_hospitalization"

    def load(self, folder: Path = Path()) -> Data:
        """See :meth:`Source.load`."""
        place = folder / self.path
        if not place.exists():
            raise MissingFileError(
                f"There is no {place}; the table of {self.name} is made from {self.homepage}."
            )
        listed, cohort, test = self.cohort(place if place.is_dir() else place.parent)
        with naming(place):
            columns = (_AGE, *FEATURES[1:])
            inputs, names, notes = feature_matrix(listed.frame, columns, ~test)
        return Data(
            cohort=cohort,
            inputs=inputs,
            test=test,
            feature_names=names,
            notes=(*self.notes(listed), *notes),
        )

    def listed(self, root: Path) -> Listed:
        """See :meth:`Published.listed`."""
        needed = ("stay_id", "subject_id", *FEATURES, *self.wanted_labels)
        path, table = self.table(root, *self._names(root), columns=needed)
        with naming(path):
            ids = {RECORD: table["stay_id"], PATIENT: table["subject_id"]}
            features, notes = _features(table)
            labels = {name: _truths(table[name]) for name in self.wanted_labels}
            groups, absent = _groups(table)
        frame = pd.concat([pd.DataFrame(ids | labels), features, groups], axis=1)
        young = (frame[_AGE] < _ADULT).to_numpy()
        if young.any():
            notes.append(
                f"{counted(int(young.sum()), 'stay is', 'stays are')} left out: the person is "
                f"under {_ADULT}."
            )
        return Listed(frame=frame[~young].reset_index(drop=True), absent=absent, notes=tuple(notes))

    def _names(self, root: Path) -> Sequence[str]:
        """Names of the table: as it was given, or as the benchmark calls it."""
        return (self.path.name,) if (root / self.path.name).is_file() else _TABLES


def _features(table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The 64 features as numbers, NaN where unknown, and what was decided."""
    vitals = pd.DataFrame({name: _coerced(table[name]) for name in VITALS})
    n_words = int((vitals.isna() & table[list(VITALS)].notna()).to_numpy().sum())
    notes = []
    if n_words:
        what = counted(n_words, "vital sign is a word", "vital signs are words")
        notes.append(f"{what}, and taken as unknown.")
    if vitals[_TEMPERATURE].median() > _FAHRENHEIT:
        vitals[_TEMPERATURE] = (vitals[_TEMPERATURE] - 32) * 5 / 9
    n_impossible = 0
    for name, (lowest, low, high, highest) in VITALS.items():
        impossible = (vitals[name] < lowest) | (vitals[name] > highest)
        n_impossible += int(impossible.sum())
        vitals[name] = vitals[name].mask(impossible).clip(low, high)
    if n_impossible:
        what = counted(n_impossible, "vital sign is", "vital signs are")
        notes.append(f"{what} impossible, and taken as unknown.")
    found = {
        _AGE: _numbers(table["age"]),
        "gender": _female(table["gender"]),
        **{name: _numbers(table[name]) for name in _VISITS},
        **vitals,
        **{name: _truths(table[name]) for name in _COMPLAINTS},
        **{name: _numbers(table[name]) for name in (*_CHARLSON, *_ELIXHAUSER)},
    }
    return pd.DataFrame(found), notes


def _groups(table: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, str]]:
    """The groups whose columns are there, and why the others are not."""
    groups = pd.DataFrame({"sex": table["gender"], "age": age_bands(table["age"])})
    absent = {}
    race = "race" if "race" in table else "ethnicity"  # the name in version 1.0
    if race in table:
        groups["race"] = races(table[race])
    else:
        absent["race"] = "the table has no column 'race' or 'ethnicity'"
    if "insurance" in table:
        groups["insurance"] = insurances(table["insurance"])
    else:
        absent["insurance"] = "the table has no column 'insurance'"
    groups["obesity"] = _any(table[["eci_Obesity"]])
    gone = [name for name in CANCER if name not in table]
    if gone:
        absent["cancer"] = f"the table has no column {gone[0]!r}"
    else:
        groups["cancer"] = _any(table[list(CANCER)])
    return groups, absent


def _any(table: pd.DataFrame) -> pd.Series[Any]:
    """Whether any column is above 0: yes, no, or missing where that is not known."""
    numbers = table.apply(_numbers)
    some = (numbers > 0).any(axis=1)
    said = some.map({True: "yes", False: "no"}).astype(object)
    return said.where(some | numbers.notna().all(axis=1), np.nan)


def _coerced(column: pd.Series[Any]) -> pd.Series[Any]:
    return pd.to_numeric(column, errors="coerce").astype(np.float64)


def _numbers(column: pd.Series[Any]) -> pd.Series[Any]:
    return _known(column, _coerced(column), "a number")


def _truths(column: pd.Series[Any]) -> pd.Series[Any]:
    return _known(column, column.astype(object).map(_TRUE_FALSE), "True or False")


def _female(column: pd.Series[Any]) -> pd.Series[Any]:
    return _known(column, column.map({"F": 1.0, "M": 0.0}), "F or M")


def _known(column: pd.Series[Any], found: pd.Series[Any], expected: str) -> pd.Series[Any]:
    """What was made of a column, if only gaps became gaps."""
    refuse_values(column, (column.notna() & found.isna()).to_numpy(), expected)
    return found.astype(np.float64)
