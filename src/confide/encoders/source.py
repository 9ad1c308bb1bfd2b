"""Releases as the data of an audit: who was in the training of a model of codes?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, model_validator

from confide.cohort import Cohort
from confide.datasets.base import (
    ByColumn,
    ByFraction,
    Data,
    Label,
    Opened,
    Source,
    fingerprint_of_files,
    naming,
)
from confide.encoders.publish import read_beside
from confide.encoders.release import Release
from confide.errors import ReleaseError

_RECORD, _PATIENT = " record", " patient"  # no label or public column begins with a space


def listed(value: Any) -> Any:
    """One path or name is a list of one."""
    return [value] if isinstance(value, str | Path) else value


def sites_of(path: Sequence[Path], site: Sequence[str]) -> tuple[str, ...]:
    """Name of each release's site, by default that of its folder.

    Raises
    ------
    ValueError : not one name each, or the same name twice
    """
    sites = tuple(site) or tuple(one.name for one in path)
    if len(sites) != len(path) or len(set(sites)) < len(sites):
        raise ValueError(
            f"{len(path)} releases need as many different names under `site`, got "
            f"{', '.join(sites)}"
        )
    return sites


class ReleasedCodes(Source):
    """The codes of one or more sites, each release a folder of `confide encode run`.

    Patients and records are those of RELEASE.private, where that folder lies beside every release;
    the records then stand in the order of the tables that were encoded, so that an audit of codes
    and one of the plain records can be compared patient by patient.  Without it the pseudonyms of
    a release are its patients.

    Parameters
    ----------
    path : releases, one a site
    site : their names; by default those of the folders.  With several sites they stand before the
        ids of patients and records: a patient of two sites counts as two
    label : a label of the releases, or several of 1, 0 and missing
    groups : public columns
    test : who is held out; by default those whom the sites encoded for a test
    """

    description: ClassVar[str] = "releases of `confide encode run`: codes in place of records"

    name: Literal["release"] = "release"
    path: Annotated[tuple[Path, ...], BeforeValidator(listed)] = Field(min_length=1)
    site: tuple[str, ...] = ()
    label: Label
    groups: tuple[str, ...] = ()
    test: ByFraction | ByColumn = ByColumn(column="split", value="test")

    @model_validator(mode="after")
    def _one_name_each(self) -> Self:
        sites_of(self.path, self.site)
        return self

    def load(self, folder: Path = Path()) -> Data:
        """See :meth:`Source.load`."""
        return self.open(folder).load()

    def open(self, folder: Path = Path(), reading: Mapping[str, Any] | None = None) -> Opened:
        """See :meth:`Source.open`; codes are (rows, channels) float32, and checked when read.

        Raises
        ------
        MissingFileError, ReleaseError, MismatchError : a release that cannot be used, releases of
            unlike codes, or nothing that tells which codes are of one patient
        """
        paths = [folder / path for path in self.path]
        codes = _Codes.of(paths, sites_of(self.path, self.site))
        with naming(paths[0]):
            cohort = Cohort.from_frame(
                codes.table,
                patient=_PATIENT,
                record=_RECORD,
                label=self.label,
                groups=self.groups,
            )
            test = self.test.mask(cohort, codes.table)
        digests = [release.manifest.digest for release in codes.releases]
        return Opened(
            cohort=cohort,
            test=test,
            frame=codes.table,
            reserved=(_PATIENT, _RECORD),
            shape=codes.releases[0].shape,
            read=codes.read,
            notes=codes.notes,
            fingerprint=lambda: fingerprint_of_files(
                cohort, test, digests, codes.table["code"].tolist()
            ),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Codes:
    """The codes of all sites, one site after the other.

    `table` has a row a record: what was released, " record", " patient"; `site` is the number of
    each record's release.
    """

    releases: tuple[Release, ...]
    table: pd.DataFrame
    site: NDArray[np.intp]
    notes: tuple[str, ...]

    @classmethod
    def of(cls, paths: list[Path], sites: tuple[str, ...]) -> Self:
        releases = tuple(Release.read(path) for path in paths)
        _refuse_unlike(paths, releases)
        beside = [read_beside(path, r.id) for path, r in zip(paths, releases, strict=True)]
        truths = [None if one is None else one.truth for one in beside]
        known = all(truth is not None for truth in truths)
        tables = [
            _with_patients(path, release, truth if known else None)
            for path, release, truth in zip(paths, releases, truths, strict=True)
        ]
        if len(sites) > 1:
            for site, table in zip(sites, tables, strict=True):
                for column in (_RECORD, _PATIENT):
                    table[column] = f"{site}/" + table[column].astype(str)
        note = (
            "Patients and records are those of RELEASE.private."
            if known
            else "Patients are the pseudonyms of the releases, records the numbers of the codes."
        )
        asked = "Models are trained on codes and asked with codes, so that an attacker has them."
        return cls(
            releases=releases,
            table=pd.concat(tables, ignore_index=True),
            site=np.repeat(np.arange(len(tables)), [len(table) for table in tables]),
            notes=(note, asked),
        )

    def read(self, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """(n, rows of a code, channels) float32."""
        out = np.empty((len(rows), *self.releases[0].shape), dtype=np.float32)
        code = self.table["code"].to_numpy()
        for i, release in enumerate(self.releases):
            chosen = np.flatnonzero(self.site[rows] == i)
            if len(chosen):
                out[chosen] = release.codes(code[rows[chosen]])
        return out


def _refuse_unlike(paths: list[Path], releases: tuple[Release, ...]) -> None:
    first = releases[0]
    for path, release in zip(paths, releases, strict=True):
        if release.shape != first.shape:
            raise ReleaseError(
                f"{path} has codes of shape {release.shape}, {paths[0]} of {first.shape}; sites "
                "that train together encode with the same settings."
            )


def _with_patients(path: Path, release: Release, truth: pd.DataFrame | None) -> pd.DataFrame:
    """The table of a release with who is who, in the order of the site's table where known."""
    table = release.records.copy()
    if truth is not None:
        table[_RECORD], table[_PATIENT] = truth["record"].array, truth["patient"].array
        order = np.argsort(truth["row"].to_numpy(), kind="stable")
        return table.iloc[order].reset_index(drop=True)
    if "patient" not in table:
        raise ReleaseError(
            f"Nothing tells which codes of {path} are of one patient, and patients are what is "
            f"audited; put {path.name}.private beside it, or encode with `pseudonyms: true`."
        )
    table[_RECORD], table[_PATIENT] = table["code"].array, table["patient"].array
    return table
