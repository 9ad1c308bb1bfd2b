"""CheXpert (Irvin et al. 2019): 224,316 chest radiographs of 65,240 patients, as published."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd

from confide._tables import refuse_values
from confide.datasets.base import naming
from confide.datasets.published import FILE, PATIENT, RECORD, ChestFindings, Listed, age_bands
from confide.datasets.published_words import counted, only_known
from confide.errors import TableError

_FOLDERS = ("", "CheXpert-v1.0", "CheXpert-v1.0-small")
_PATH = r"^(?:CheXpert-v1\.0[^/]*/)?((?:train|valid)/(patient[0-9]+)/study[0-9]+/[^/]+)$"
_DEMO = ("CHEXPERT_DEMO.csv", "CHEXPERT DEMO.csv")
_DEMO_PAGE = "https://stanfordaimi.azurewebsites.net/datasets/192ada7c-4d43-466e-b8bb-b81992bb80cf"
_SEXES: dict[str, str | float] = {"Male": "Male", "Female": "Female", "Unknown": np.nan}
_VIEWS = {"AP": "AP", "PA": "PA", "LL": "other", "RL": "other"}
_RACES = ("White", "Black", "Asian")
_UNKNOWN_RACES = ("unknown", "race and ethnicity unknown", "patient refused")


class CheXpert(ChestFindings):
    """CheXpert in its publisher's layout, CheXpert-v1.0 or CheXpert-v1.0-small.

    One record is one image, of `train.csv` and `valid.csv` together.  The column `split` says
    which, so that ``test: {column: split, value: valid}`` holds the publisher's 200 patients out.
    Race is that of the publisher's table of demographics, which must lie in the folder as
    ``CHEXPERT_DEMO.csv``.  What is not named here is as in
    :class:`confide.datasets.published.ChestFindings`.

    Parameters
    ----------
    path : folder of train.csv and valid.csv, or the one above it
    groups : some of sex, age, race and view; by default all that the files give
    """

    description: ClassVar[str] = "CheXpert as published: chest radiographs, 14 findings"
    homepage: ClassVar[str] = "https://stanfordmlgroup.github.io/competitions/chexpert/"
    all_groups: ClassVar[tuple[str, ...]] = ("sex", "age", "race", "view")

    name: Literal["chexpert"] = "chexpert"

    def listed(self, root: Path) -> Listed:
        """See :meth:`confide.datasets.published.Published.listed`."""
        place = next((name for name in _FOLDERS if self.find(root / name, "train.csv")), "")
        parts = [self._part(root, place, split) for split in ("train", "valid")]
        frame, written = (pd.concat(part, ignore_index=True) for part in zip(*parts, strict=True))
        read = self.readings(written)
        if not self.wants("race"):
            return Listed(frame=frame, notes=read)
        demo = next((f for f in (root / place, root) if self.find(f, *_DEMO)), None)
        if demo is None:
            why = f"{root / place} has no {_DEMO[0]}, which is to be had from {_DEMO_PAGE}"
            return Listed(frame=frame, absent={"race": why}, notes=read)
        race, notes = self._races(demo, frame[PATIENT])
        return Listed(frame=frame.assign(race=race), notes=(*read, *notes))

    def _part(self, root: Path, place: str, split: str) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The records of `train.csv` or `valid.csv`, and their findings as they are written."""
        columns = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA")
        path, table = self.table(root / place, f"{split}.csv", columns=columns)
        with naming(path):
            parts = table["Path"].astype("string").str.extract(_PATH)
            expected = "CheXpert-v1.0/train/patientNNNNN/studyN/IMAGE.jpg"
            refuse_values(table["Path"], parts[0].isna().to_numpy(), expected)
            image = parts[0].astype(object)
            given = {
                RECORD: image,
                PATIENT: parts[1].astype(object),
                FILE: f"{place}/" + image if place else image,
                "split": split,
                "sex": only_known(table["Sex"], _SEXES),
                "age": age_bands(table["Age"]),
                "view": only_known(table["AP/PA"], _VIEWS).fillna("other"),
            }
            frame = pd.DataFrame(given).join(self.findings(table))
        return frame, table[list(self.wanted_labels)]

    def _races(
        self, folder: Path, patient: pd.Series[str]
    ) -> tuple[pd.Series[str], tuple[str, ...]]:
        """The race of each record's patient, missing where it is unknown or contradictory."""
        path, table = self.table(folder, *_DEMO, columns=("PATIENT", "PRIMARY_RACE"))
        with naming(path):
            known = pd.DataFrame(
                {"patient": table["PATIENT"], "race": table["PRIMARY_RACE"].map(_race)}
            )
            if not patient.isin(known["patient"]).any():
                raise TableError(
                    "Column 'PATIENT' has none of the patients of train.csv and valid.csv; "
                    f"expected ids such as {patient.iloc[0]}."
                )
        n_absent = patient[~patient.isin(known["patient"])].nunique()
        known = known[known["patient"].isin(patient)].dropna().drop_duplicates()
        several = known["patient"].duplicated(keep=False)
        n_several = known["patient"][several].nunique()
        notes = []
        if n_several:
            who = counted(n_several, "patient has", "patients have")
            notes.append(f"{who} two races in {path.name}; the race is left unknown.")
        if n_absent:
            who = counted(n_absent, "patient has", "patients have")
            notes.append(f"{who} no row in {path.name}; the race is left unknown.")
        return patient.map(known[~several].set_index("patient")["race"]), tuple(notes)


def _race(value: Any) -> str | None:
    """White, Black, Asian or Other, of values such as "White, non-Hispanic"; None for unknown."""
    words = str(value).strip().casefold()
    if pd.isna(value) or words in _UNKNOWN_RACES:
        return None
    return next((race for race in _RACES if words.startswith(race.casefold())), "Other")
