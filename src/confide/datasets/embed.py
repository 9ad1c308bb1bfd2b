"""EMBED: screening mammograms of Emory University, labelled with the density of the breast."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd

from confide._tables import text
from confide.datasets.base import Label, naming
from confide.datasets.images import Side
from confide.datasets.published import FILE, PATIENT, RECORD, Listed, PublishedImages, age_bands
from confide.datasets.published_words import counted, only_known, renamed

DENSITY = "density"
_EXAM = ["empi_anon", "acc_anon"]
_CLINICAL = [*_EXAM, "desc", "side", "tissueden", "GENDER_DESC"]
_METADATA = [*_EXAM, "anon_dicom_path", "FinalImageType", "ImageLateralityFinal", "ViewPosition"]
_COLUMNS = {"race": "RACE_DESC", "age": "age_at_study", "assessment": "asses"}

_DENSITIES = {1.0: "A", 2.0: "B", 3.0: "C", 4.0: "D"}
_VIEWS = {"MLO": "MLO", "CC": "CC"}
_RACES = {"caucasian or white": "White", "african american or black": "Black", "asian": "Asian"}
_NO_RACE = ("unknown, unavailable or unreported", "not recorded", "patient declines")
# Of several findings in a breast the last of these counts, as the exam is read by its worst.
_ASSESSMENTS = ("X", "N", "B", "P", "A", "S", "M", "K")
_LETTERS = {letter: letter for letter in _ASSESSMENTS}
_IMAGE_SIDES = {side: side for side in ("L", "R")}
_SIDES = {side: side for side in ("L", "R", "B")}  # the last is both


class Embed(PublishedImages):
    """The open part of EMBED, one record an image (Jeong et al. 2023).

    Below the folder, or below its folder ``tables``, stand ``EMBED_OpenData_clinical.csv`` and
    ``EMBED_OpenData_metadata.csv``, each whole or ``_reduced``, plain or gzipped.  Images lie in
    ``images``, or in the folder itself: as DICOM where the column anon_dicom_path says from
    ``cohort_`` on, or as ``EMPI_ANON/NAME.png``, with the DICOM file's name.

    Records are the 2D images (FinalImageType) of screening exams of women, found by `desc` and
    GENDER_DESC; the label `density` is the exam's tissueden, 1 to 4 as BI-RADS A to D.  The
    clinical table has a row a finding: an exam whose rows differ in density is left out.

    Groups: `race` is White, Black, Asian, or Other, missing where it was not told; `age` is that
    at the exam; `view` is MLO, CC or other; `assessment` is the letter of the BI-RADS category of
    the findings in the image's breast or in both, of several the last in the order X N B P A S M K.
    What is not named here is as in :class:`confide.datasets.published.PublishedImages`.

    Parameters
    ----------
    path : folder of the tables and images, or of ``tables`` and ``images``
    label : `density`
    groups : some of race, age, view and assessment; by default all that the tables give
    """

    description: ClassVar[str] = "EMBED, the open mammograms of Emory, with breast density"
    homepage: ClassVar[str] = "https://github.com/Emory-HITI/EMBED_Open_Data"
    labels: ClassVar[tuple[str, ...]] = (DENSITY,)
    all_groups: ClassVar[tuple[str, ...]] = ("race", "age", "view", "assessment")

    name: Literal["embed"] = "embed"
    label: Label = DENSITY
    size: tuple[Side, Side] = (64, 48)

    def listed(self, root: Path) -> Listed:
        """See :meth:`confide.datasets.published.Published.listed`."""
        path, findings = self.table(root, *_names("clinical"), columns=_CLINICAL)
        images_path, images = self.table(root, *_names("metadata"), columns=_METADATA)
        absent = {
            group: f"{path.name} has no column {column!r}"
            for group, column in _COLUMNS.items()
            if column not in findings
        }
        with naming(path):
            findings = _screening(findings, self.wants("assessment"))
        exams = findings.drop_duplicates("exam").set_index("exam")
        kinds = images["FinalImageType"].astype("string").str.strip().str.upper()
        flat = (kinds == "2D").fillna(False).to_numpy(bool)
        with naming(images_path):
            sides = only_known(images["ImageLateralityFinal"], _IMAGE_SIDES, refused=flat)
        frame = pd.DataFrame(
            {
                PATIENT: images["empi_anon"],
                "exam": _exam(images),
                "side": sides,
                "view": renamed(images["ViewPosition"], _VIEWS, "other"),
                "dicom": images["anon_dicom_path"],
                "2D": flat,
            }
        )
        frame, notes = self._kept(frame, findings, path.name)
        frame = frame.assign(**{g: frame["exam"].map(exams[g]) for g in ("race", "age")})
        frame["assessment"] = (
            _assessments(findings)
            .reindex(pd.MultiIndex.from_frame(frame[["exam", "side"]]))
            .to_numpy()
        )
        frame[RECORD], frame[FILE] = _files(root, frame)
        kept = [RECORD, PATIENT, FILE, *self.wanted_labels, *self.all_groups]
        return Listed(frame=frame[kept], absent=absent, notes=notes)

    def _kept(
        self, frame: pd.DataFrame, findings: pd.DataFrame, name: str
    ) -> tuple[pd.DataFrame, tuple[str, ...]]:
        """The images to use, with their density where it is wanted, and what was left out."""
        reasons = [
            (~frame["2D"], "not 2D (FFDM) but C-view or the like"),
            (
                ~frame["exam"].isin(findings["exam"]),
                f"no screening exam of a woman in {name}",
            ),
        ]
        if self.wanted_labels:
            density = findings.groupby("exam")["tissueden"].agg(["nunique", "first"])
            differing = density.index[density["nunique"] > 1]
            frame = frame.assign(density=frame["exam"].map(density["first"]).map(_DENSITIES))
            reasons += [
                (
                    frame["exam"].isin(differing),
                    "different densities in the findings of the exam ({n})",
                ),
                (frame[DENSITY].isna(), "no density from 1 to 4 of the exam"),
            ]
        notes, gone = [], np.zeros(len(frame), dtype=bool)
        for reason, why in reasons:
            new = reason.to_numpy() & ~gone
            if new.any():
                n_exams = counted(frame.loc[new, "exam"].nunique(), "exam", "exams")
                who = counted(int(new.sum()), "image is", "images are")
                notes.append(f"{who} left out: {why.format(n=n_exams)}.")
            gone |= new
        return frame[~gone].reset_index(drop=True), tuple(notes)


def _names(what: str) -> list[str]:
    # The reduced tables have every column that is read, and a fraction of the size.
    stems = (f"EMBED_OpenData_{what}_reduced.csv", f"EMBED_OpenData_{what}.csv")
    return [f"{place}{stem}" for stem in stems for place in ("tables/", "")]


def _exam(frame: pd.DataFrame) -> pd.Series[Any]:
    """Patient and exam as one text; a patient's exam is looked up under that patient alone."""
    patient, exam = (frame[name].map(text) for name in _EXAM)
    return patient + "/" + exam


def _screening(findings: pd.DataFrame, assessed: bool) -> pd.DataFrame:
    """The findings in screening exams of women: exam, side, asses, tissueden, race and age.

    Parameters
    ----------
    findings : the publisher's clinical table
    assessed : whether the assessments are wanted; sides and assessments are refused only then

    Raises
    ------
    TableError : an age is no number of years, or a side or assessment is none of the publisher's
    """
    screening = findings["desc"].astype("string").str.contains("screen", case=False)
    female = findings["GENDER_DESC"].astype("string").str.strip().str.casefold() == "female"
    kept = (screening & female).fillna(False).to_numpy(bool)
    nothing = pd.Series(np.nan, index=findings.index, dtype=object)
    columns = {group: findings.get(column, nothing) for group, column in _COLUMNS.items()}
    chosen = pd.DataFrame(
        {
            "exam": _exam(findings),
            "side": only_known(findings["side"], _SIDES, refused=kept & assessed),
            "tissueden": pd.to_numeric(findings["tissueden"], errors="coerce"),
            "asses": only_known(columns["assessment"], _LETTERS, refused=kept & assessed),
            "race": _races(columns["race"]),
            "age": age_bands(columns["age"]),
        }
    )
    return chosen[kept]


def _races(column: pd.Series[Any]) -> pd.Series[Any]:
    # The publisher writes "African American  or Black", with two blanks.
    plain = column.astype("string").str.split().str.join(" ").str.casefold()
    return renamed(plain.astype(object).mask(plain.isin(_NO_RACE)), _RACES, "Other")


def _assessments(findings: pd.DataFrame) -> pd.Series[Any]:
    """(exam, side) -> the worst assessment in that breast; a finding without side is in both."""
    rank = {letter: i for i, letter in enumerate(_ASSESSMENTS)}
    known = findings[findings["asses"].notna()]
    known = known.assign(rank=known["asses"].map(rank))
    known = known.sort_values("rank", kind="stable")
    by_side = [
        known[known["side"] != other].assign(side=side).drop_duplicates("exam", keep="last")
        for side, other in (("L", "R"), ("R", "L"))
    ]
    return pd.concat(by_side).set_index(["exam", "side"])["asses"]


def _files(root: Path, frame: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Ids of the images, and their files: all DICOM or all PNG, as the first one is."""
    place = "images/" if (root / "images").is_dir() else ""
    paths = [PurePosixPath(_from_cohort(str(name))) for name in frame["dicom"]]
    ids = [path.stem for path in paths]
    pngs = [
        f"{place}{text(patient)}/{name}.png"
        for patient, name in zip(frame[PATIENT], ids, strict=True)
    ]
    if pngs and (root / pngs[0]).is_file():
        return ids, pngs
    return ids, [f"{place}{path}" for path in paths]


def _from_cohort(name: str) -> str:
    """The end of a path that is the same in every copy of the data set."""
    at = name.find("cohort_")
    return name[at:] if at >= 0 else name
