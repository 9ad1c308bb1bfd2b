"""Any table: CSV or Parquet, one row per record."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from confide._tables import group_columns, read_table, require_columns
from confide.cohort import Cohort
from confide.datasets.base import ByColumn, ByFraction, Data, Label, Source, naming
from confide.datasets.features import default_features, feature_matrix

Cut = Annotated[
    dict[str, Annotated[list[float], Field(min_length=1)]], Field(min_length=1, max_length=1)
]
"""A number, and the edges between its classes."""


class Table(Source):
    """A CSV or Parquet file with one row per record.

    Parameters
    ----------
    path : the file
    patient : column of the patient ids
    label : column of classes, a list of columns of 1, 0 and missing (multilabel), or
        {column: edges} to cut a number into classes, in the same way as groups
    features : columns to train on; by default every column without another use that does not
        look like an identifier (see :func:`confide.datasets.features.looks_like_identifier`)
    groups : columns of groups, or {column: edges} to cut a number into bands
    record : column of the record ids; row numbers by default
    test : which patients are held out
    """

    description: ClassVar[str] = "any table: CSV or Parquet, one row per record"

    name: Literal["table"] = "table"
    path: Path
    patient: str
    label: Label | Cut
    features: tuple[str, ...] | None = None
    groups: tuple[str, ...] | dict[str, list[float]] = ()
    record: str | None = None
    test: ByFraction | ByColumn = ByFraction()

    def load(self, folder: Path = Path()) -> Data:
        """See :meth:`Source.load`."""
        path = folder / self.path
        frame = read_table(path)
        with naming(path):
            frame, label = self._labelled(frame)
            cohort = Cohort.from_frame(
                frame,
                patient=self.patient,
                label=label,
                record=self.record,
                groups=self.groups,
            )
            test = self.test.mask(cohort, frame)
            columns, left_out = self._features(frame, label)
            told = _giveaways(frame, columns, cohort)
            if self.features is None:
                columns = [name for name in columns if name not in told]
            inputs, names, notes = feature_matrix(frame, columns, ~test)
            advice = (
                "it was left out; name it under `features` to train on it"
                if self.features is None
                else "leave it out unless that is meant"
            )
            says = [
                f"Feature {name} tells {what} exactly; {advice}." for name, what in told.items()
            ]
            notes = (*left_out, *notes, *says)
            return Data(cohort=cohort, inputs=inputs, test=test, feature_names=names, notes=notes)

    def _labelled(self, frame: pd.DataFrame) -> tuple[pd.DataFrame, Label]:
        """The table, with a number that is a label cut into its classes, and the label's name."""
        if not isinstance(self.label, dict):
            return frame, self.label
        ((name, _),) = self.label.items()
        return frame.assign(**group_columns(frame, self.label)), name

    def _features(self, frame: pd.DataFrame, label: Label) -> tuple[list[str], tuple[str, ...]]:
        if self.features is not None:
            require_columns(frame, self.features)
            return list(self.features), ()
        labels = [label] if isinstance(label, str) else label
        split = [self.test.column] if isinstance(self.test, ByColumn) else []
        taken = {self.patient, self.record, *labels, *self.groups, *split}
        return default_features(frame, taken)


def _giveaways(frame: pd.DataFrame, columns: list[str], cohort: Cohort) -> dict[str, str]:
    """Features that are a label, or the patient, under another name, and what they tell."""
    known = {"the patient": cohort.patient_index}
    if cohort.task == "multilabel":
        known |= {f"label {c}": cohort.label[:, i] for i, c in enumerate(cohort.classes)}
    else:
        known["the label"] = cohort.label
    # Codes count in order of first appearance: equal codes, equal columns but for the names.
    wanted = {what: pd.factorize(values)[0] for what, values in known.items()}
    told = {}
    for name in columns:
        codes = pd.factorize(frame[name])[0]
        # A measurement differs between any two patients without naming them.
        measured = pd.api.types.is_float_dtype(frame[name])
        for what, truth in wanted.items():
            if np.array_equal(codes, truth) and not (measured and what == "the patient"):
                told[name] = what
    return told
