"""MIMIC-CXR: chest radiographs from Beth Israel Deaconess Medical Center, and who is in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd

from confide._tables import plain
from confide.datasets.base import ByColumn, naming
from confide.datasets.published import FILE, PATIENT, RECORD, ChestFindings, Listed, age_bands
from confide.datasets.published_words import counted, only_known, renamed
from confide.errors import TableError

SUBJECT, STUDY, IMAGE, SPLIT = "subject_id", "study_id", "dicom_id", "split"

MIMIC_IV = "https://physionet.org/content/mimiciv/"

OTHER = "Other/Unknown"
_RACES = {"WHITE": "White", "BLACK": "Black", "ASIAN": "Asian", "HISPANIC": "Hispanic"}
_UNANSWERED = r"\s*(?:UNKNOWN|UNABLE TO OBTAIN|(?:PATIENT )?DECLINED)"
_SEXES = {"F": "F", "M": "M"}
_SPLITS = {split: split for split in ("train", "validate", "test")}
_VIEWS = {view: view for view in ("AP", "PA", "LATERAL", "LL")}
_OF_PATIENTS, _OF_ADMISSIONS = ("sex", "age"), ("race", "insurance")
_PATIENTS = ("patients.csv", "hosp/patients.csv")
_ADMISSIONS = ("admissions.csv", "hosp/admissions.csv")


class MimicCxr(ChestFindings):
    """MIMIC-CXR-JPG, or MIMIC-CXR with its DICOM files, one record an image (Johnson et al. 2019).

    Below the folder stand ``mimic-cxr-2.0.0-metadata.csv``, ``mimic-cxr-2.0.0-chexpert.csv`` or
    ``-negbio.csv``, for the publisher's split ``mimic-cxr-2.0.0-split.csv``, each plain or gzipped,
    and the images, ``files/p10/p10000032/s50414267/DICOM_ID.jpg`` or ``.dcm``.  Sex and age need
    MIMIC-IV's ``patients.csv``, race and insurance its ``admissions.csv``, in the same folder or in
    ``hosp`` below it.

    Groups: `sex` as in MIMIC-IV; `age` is the age at the patient's anchor year, one a patient and
    not that at the examination, and 91 stands for all above 89; `race` by the first word of MIMIC's
    names, so that WHITE - RUSSIAN is White, and Other/Unknown for every other answer, different
    ones at different admissions, or none at any; an admission without an answer (UNKNOWN, UNABLE
    TO OBTAIN, declined or blank) leaves the answers of the others; `view` is AP, PA, LATERAL, LL
    or other; `insurance` is that of the patient's first admission.  A patient who is not in those
    tables has no value.
    What is not named here is as in :class:`confide.datasets.published.ChestFindings`.

    Parameters
    ----------
    path : folder of the tables and of ``files``
    groups : some of sex, age, race, view and insurance; by default all that the files give
    test : the publisher's split is ``{column: split, value: test}``
    labeller : whose findings: CheXpert's labeller, or NegBio
    """

    description: ClassVar[str] = "MIMIC-CXR-JPG or MIMIC-CXR, with MIMIC-IV for the groups"
    homepage: ClassVar[str] = "https://physionet.org/content/mimic-cxr-jpg/"
    all_groups: ClassVar[tuple[str, ...]] = ("sex", "age", "race", "view", "insurance")

    name: Literal["mimic-cxr"] = "mimic-cxr"
    labeller: Literal["chexpert", "negbio"] = "chexpert"

    def listed(self, root: Path) -> Listed:
        """See :meth:`confide.datasets.published.Published.listed`."""
        _, images = self._keyed(root, "metadata", [IMAGE], [SUBJECT, STUDY, "ViewPosition"])
        frame = pd.DataFrame(
            {
                RECORD: images[IMAGE],
                PATIENT: images[SUBJECT],
                STUDY: images[STUDY],
                "view": renamed(images["ViewPosition"], _VIEWS, "other"),
            }
        )
        frame, notes = self._labelled(root, frame)
        if isinstance(self.test, ByColumn) and self.test.column == SPLIT:
            path, split = self._keyed(root, "split", [IMAGE], [SPLIT])
            with naming(path):
                sides = only_known(split[SPLIT], _SPLITS)
            frame[SPLIT] = frame[RECORD].map(sides.set_axis(split[IMAGE]))
        absent: dict[str, str] = {}
        for part in (self._patients(root, frame), self._admissions(root, frame)):
            frame = frame.assign(**part.frame)
            absent, notes = {**absent, **part.absent}, [*notes, *part.notes]
        if len(frame):
            frame[FILE] = _files(root, frame)
        return Listed(frame=frame, absent=absent, notes=tuple(notes))

    def _keyed(
        self, root: Path, what: str, key: list[str], columns: Sequence[str]
    ) -> tuple[Path, pd.DataFrame]:
        """One of the tables of MIMIC-CXR, with one row a key."""
        path, frame = self.table(
            root, f"mimic-cxr-2.0.0-{what}.csv", columns=list(dict.fromkeys([*key, *columns]))
        )
        _check_keys(path, frame, key)
        return path, frame

    def _labelled(self, root: Path, frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
        """The images whose study has findings, with these, and how many have none."""
        if not self.wanted_labels:
            return frame, []
        key = [SUBJECT, STUDY]
        path, table = self._keyed(root, self.labeller, key, self.wanted_labels)
        with naming(path):
            found = self.findings(table).set_index(pd.MultiIndex.from_frame(table[key]))
        wanted = pd.MultiIndex.from_frame(frame[[PATIENT, STUDY]])
        known = wanted.isin(found.index)
        labels = found.loc[wanted[known]].reset_index(drop=True)
        written = table[list(self.wanted_labels)].set_axis(found.index)
        notes = self.readings(written.loc[wanted[known]])
        kept = pd.concat([frame[known].reset_index(drop=True), labels], axis=1)
        if known.all():
            return kept, list(notes)
        n_studies = frame.loc[~known, STUDY].nunique()
        return kept, [
            f"{counted(int((~known).sum()), 'image is', 'images are')} left out: {path.name} has "
            f"no row for {counted(n_studies, 'study', 'studies')}.",
            *notes,
        ]

    def _patients(self, root: Path, frame: pd.DataFrame) -> Listed:
        """Sex and age of each image's patient."""
        if not any(map(self.wants, _OF_PATIENTS)):
            return Listed(frame=frame[[]])
        if self.find(root, *_PATIENTS) is None:
            return _absent(frame, _OF_PATIENTS, _PATIENTS)
        path, patients = self.table(root, *_PATIENTS, columns=[SUBJECT, "gender", "anchor_age"])
        _check_keys(path, patients, [SUBJECT])
        with naming(path):
            ages = age_bands(patients["anchor_age"])
            sexes = only_known(patients["gender"], _SEXES)
        known = pd.DataFrame({"sex": sexes, "age": ages})
        return Listed(frame=_of_each(frame, known.set_index(patients[SUBJECT])))

    def _admissions(self, root: Path, frame: pd.DataFrame) -> Listed:
        """Race and insurance of each image's patient."""
        if not any(map(self.wants, _OF_ADMISSIONS)):
            return Listed(frame=frame[[]])
        if self.find(root, *_ADMISSIONS) is None:
            return _absent(frame, _OF_ADMISSIONS, _ADMISSIONS)
        columns = [SUBJECT, "admittime", "insurance", "race"]
        path, stays = self.table(root, *_ADMISSIONS, columns=columns)
        _check_numbers(path, stays, [SUBJECT])
        # Times of one patient are written alike, year first, and sort as text.
        stays = stays[stays[SUBJECT].isin(frame[PATIENT])].sort_values("admittime", kind="stable")
        # One admission at which nobody could ask says nothing against the others.
        answers = races(stays["race"]).where(answered(stays["race"]))
        race = answers.groupby(stays[SUBJECT]).agg(["nunique", "first"])
        unclear = race["nunique"] > 1
        first = insurances(stays.drop_duplicates(SUBJECT).set_index(SUBJECT)["insurance"])
        known = pd.DataFrame(
            {"race": race["first"].mask(unclear).fillna(OTHER), "insurance": first}
        )
        notes = (
            f"{counted(int(unclear.sum()), 'patient has', 'patients have')} different races at "
            f"different admissions; the race is {OTHER}.",
        )
        return Listed(frame=_of_each(frame, known), notes=notes if unclear.any() else ())


def races(column: pd.Series[Any]) -> pd.Series[Any]:
    """MIMIC's names -> White, Black, Asian, Hispanic, Other/Unknown, by their first word."""
    first = column.astype("string").str.upper().str.extract(r"^\s*([A-Z]+)")[0]
    return renamed(first.fillna("").astype(object), _RACES, OTHER)


def insurances(column: pd.Series[Any]) -> pd.Series[Any]:
    """MIMIC's names of insurances, such as Medicare and No charge, each written in one way."""
    said = column.astype("string").str.strip().str.capitalize()
    return said.astype(object).where(said.notna() & (said != ""), np.nan)


def answered(column: pd.Series[Any]) -> pd.Series[bool]:
    """Whether each of MIMIC's names of races is an answer, and not UNKNOWN or the like."""
    none = column.astype("string").str.match(_UNANSWERED, case=False)
    return ~none.fillna(True).astype(bool)


def _of_each(frame: pd.DataFrame, known: pd.DataFrame) -> pd.DataFrame:
    """Values by patient -> by image, missing where the patient is not known."""
    return known.reindex(frame[PATIENT]).set_axis(frame.index)


def _absent(frame: pd.DataFrame, groups: Sequence[str], files: Sequence[str]) -> Listed:
    why = f"it needs {' or '.join(files)} of MIMIC-IV ({MIMIC_IV}) in the folder"
    return Listed(frame=frame[[]], absent=dict.fromkeys(groups, why))


def _check_keys(path: Path, frame: pd.DataFrame, key: list[str]) -> None:
    """Refuse ids that are no ids, and a key that is given twice."""
    _check_numbers(path, frame, [name for name in (SUBJECT, STUDY) if name in frame])
    twice = frame.duplicated(key).to_numpy()
    if twice.any():
        row = int(twice.argmax())
        values = ", ".join(f"{name} {plain(frame[name].iloc[row])}" for name in key)
        raise TableError(f"{path}: {values} (row {row}) is given twice; keep one row of it.")


def _check_numbers(path: Path, frame: pd.DataFrame, names: Sequence[str]) -> None:
    for name in names:
        if not pd.api.types.is_integer_dtype(frame[name]):
            raise TableError(
                f"{path}: column {name!r} is missing in some row or no whole number; take the "
                "table as it was published."
            )


def _files(root: Path, frame: pd.DataFrame) -> list[str]:
    """Names of the files, all JPEG or all DICOM, as the first one is."""
    stems = [
        f"files/p{str(patient)[:2]}/p{patient}/s{study}/{image}"
        for patient, study, image in zip(frame[PATIENT], frame[STUDY], frame[RECORD], strict=True)
    ]
    kinds = [kind for kind in (".jpg", ".dcm") if (root / f"{stems[0]}{kind}").is_file()]
    kind = kinds[0] if kinds else ".jpg"
    return [stem + kind for stem in stems]
