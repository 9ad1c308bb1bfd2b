"""What a training on codes compares: codes, codes of the linear encoder, and the plain records."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confide.config import CodesConfig, load
from confide.encoders.publish import TRUTH
from confide.encoders.release import Release
from confide.errors import MismatchError, MissingFileError, ReleaseError
from confide.stores import read_table

if TYPE_CHECKING:
    import torch
    from torch import nn

    from confide.training.inputs import Inputs

_IN_MEMORY = 4 * 2**30
"""Bytes of codes or records of one arm that are held in memory; more is read batch by batch."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Sites:
    """The releases of all sites, one record after the other, in the order of the releases.

    Attributes
    ----------
    names : of the sites
    releases : one a site
    records : the tables of the releases below each other, with `site` (its number) and `patient`
        (a number, or -1 where the release does not tell)
    truths : one a site, the owners of the codes where RELEASE.private is at hand, else None
    units : "patients", or "records" where the patients are not known
    """

    names: tuple[str, ...]
    releases: tuple[Release, ...]
    records: pd.DataFrame
    truths: tuple[pd.DataFrame | None, ...]
    units: str

    @classmethod
    def read(cls, names: tuple[str, ...], paths: list[Path]) -> Sites:
        """Read releases; the codes themselves are read later.

        Raises
        ------
        ReleaseError, MissingFileError : a release that cannot be used, or of another form of codes
            than the first
        """
        releases = tuple(Release.read(path) for path in paths)
        first = releases[0]
        for path, release in zip(paths, releases, strict=True):
            if release.shape != first.shape or _kind(release) != _kind(first):
                raise ReleaseError(
                    f"{path} has codes {release.shape} of {_kind(release)}, {paths[0]} "
                    f"{first.shape} of {_kind(first)}; sites that train together use one encoder "
                    "with the same settings."
                )
        truths = tuple(_truth(path) for path in paths)
        tables = [release.records.assign(site=i) for i, release in enumerate(releases)]
        owners = [_owners(t, truth) for t, truth in zip(tables, truths, strict=True)]
        known = all(owner is not None for owner in owners)
        records = pd.concat(tables, ignore_index=True)
        # A patient of two sites is two: sites do not know each other's.
        ids = [f"{i}/{one}" for i, o in enumerate(owners) if o is not None for one in o]
        records["patient"] = pd.factorize(pd.Series(ids))[0] if known else np.arange(len(records))
        return cls(
            names=names,
            releases=releases,
            records=records,
            truths=truths,
            units="patients" if known else "records",
        )

    @property
    def offsets(self) -> NDArray[np.intp]:
        """(n_sites + 1,) first record of each site, and the number of all."""
        return np.cumsum([0, *(release.n_records for release in self.releases)])


@dataclass(frozen=True, kw_only=True, eq=False)
class Arm:
    """One way to see the records: what a network is given, and which network.

    Attributes
    ----------
    name : codes, linear or plain
    encoder : name of the encoder, None for plain records
    inputs : all records of all sites, in the order of :class:`Sites`
    build : number of outputs -> the network
    """

    name: str
    encoder: str | None
    inputs: Inputs
    build: Any


def arms_of(config: CodesConfig, folder: Path, sites: Sites, device: torch.device) -> list[Arm]:
    """The arms of a configuration: plain and linear where they are asked for, and codes.

    Raises
    ------
    MissingFileError : RELEASE.private is not beside a release, so nothing tells which records of
        another arm are the same
    MismatchError : the records of another arm are not those of the releases
    """
    arms = []
    if config.compare.plain:
        arms.append(_plain(config, folder, sites, device))
    if config.compare.linear:
        paths = [folder / path for path in config.compare.linear]
        other = Sites.read(sites.names, paths)
        order = [_matched(sites, other, i) for i in range(len(paths))]
        arms.append(_coded("linear", config, other, order, device))
    order = [np.arange(release.n_records) for release in sites.releases]
    return [*arms, _coded("codes", config, sites, order, device)]


def _coded(
    name: str,
    config: CodesConfig,
    sites: Sites,
    order: list[NDArray[np.intp]],
    device: torch.device,
) -> Arm:
    from confide.models import build_code_classifier

    shape = sites.releases[0].shape
    encoder = sites.releases[0].manifest.encoder
    # Rows of a linear code say nothing of their place, but may still stand in it.
    position = encoder.get("name") == "linear" and encoder.get("shuffle") is False

    def build(n_outputs: int) -> nn.Module:
        return build_code_classifier(config.train.model, shape, n_outputs, position=position)

    reading = _Reading(sites, order)
    return Arm(
        name=name,
        encoder=str(encoder.get("name")),
        inputs=reading.inputs(shape, device),
        build=build,
    )


class _Reading:
    """Codes of several releases as one array."""

    def __init__(self, sites: Sites, order: list[NDArray[np.intp]]) -> None:
        self._releases = sites.releases
        self._first = np.cumsum([0, *map(len, order)])
        self._row = np.concatenate(order)

    def __call__(self, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        site = np.searchsorted(self._first, rows, side="right") - 1
        out = np.empty((len(rows), *self._releases[0].shape), dtype=np.float32)
        for i in np.unique(site):
            here = site == i
            out[here] = self._releases[i].codes(self._row[rows[here]])
        return out

    def inputs(self, shape: tuple[int, int], device: torch.device) -> Inputs:
        from confide.training.inputs import ArrayInputs, StreamInputs

        n = len(self._row)
        half = self._releases[0].dtype == "float16"
        dtype = np.dtype(np.float16 if half else np.float32)
        if n * int(np.prod(shape)) * dtype.itemsize > _IN_MEMORY:
            return StreamInputs(self, n, shape, device)
        array = np.empty((n, *shape), dtype=dtype)
        for start in range(0, n, 256):
            rows = np.arange(start, min(start + 256, n))
            array[rows] = self(rows)
        return ArrayInputs(array, device)


def _plain(config: CodesConfig, folder: Path, sites: Sites, device: torch.device) -> Arm:
    from confide.models import build_plain_classifier
    from confide.training.inputs import ArrayInputs

    parts = []
    for i, path in enumerate(config.compare.plain):
        settings, place = load(folder / path)
        opened = settings.data.open(place)
        truth = _needed(sites, i)
        rows = truth["row"].to_numpy()
        same = rows.max(initial=-1) < opened.cohort.n_records and np.array_equal(
            opened.cohort.record[rows].astype(str), truth["record"].to_numpy().astype(str)
        )
        if not same:
            raise MismatchError(
                f"The records of {folder / path} are not those of the release of site "
                f"{sites.names[i]!r}; name the configuration that the release was made from."
            )
        parts.append(opened.read(rows))
    x = np.concatenate(parts)
    encoder = sites.releases[0].manifest.encoder
    train = (sites.records["split"] == "train").to_numpy()
    mean, scale = _statistics(x, np.flatnonzero(train))

    def build(n_outputs: int) -> nn.Module:
        return build_plain_classifier(
            config.train.model,
            x.shape[1:],
            n_outputs,
            patch=encoder["patch"],
            width=encoder["width"],
            private_depth=encoder.get("private_depth", 0),
        )

    inputs = ArrayInputs(x, device, mean=mean, scale=scale)
    return Arm(name="plain", encoder=None, inputs=inputs, build=build)


def _statistics(
    x: NDArray[Any], rows: NDArray[np.intp]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation of each channel over some records."""
    axes = (0, *range(2, x.ndim))
    total = np.zeros(x.shape[1])
    squares = np.zeros(x.shape[1])
    for start in range(0, len(rows), 1024):
        part = x[rows[start : start + 1024]].astype(np.float64)
        total += part.sum(axis=axes)
        squares += np.square(part).sum(axis=axes)
    n = len(rows) * int(np.prod(x.shape[2:]))
    sd = np.sqrt(np.maximum(squares / n - np.square(total / n), 0))
    return (total / n).astype(np.float32), np.where(sd > 0, sd, 1).astype(np.float32)


def _kind(release: Release) -> dict[str, Any]:
    return release.manifest.encoder


def _truth(path: Path) -> pd.DataFrame | None:
    file = path.with_name(f"{path.name}.private") / TRUTH
    return read_table(file) if file.is_file() else None


def _owners(table: pd.DataFrame, truth: pd.DataFrame | None) -> NDArray[Any] | None:
    if truth is not None and len(truth) == len(table):
        return truth["patient"].to_numpy()
    return table["patient"].to_numpy() if "patient" in table else None


def _needed(sites: Sites, i: int) -> pd.DataFrame:
    truth = sites.truths[i]
    if truth is None:
        raise MissingFileError(
            f"A comparison needs the folder RELEASE.private beside the release of site "
            f"{sites.names[i]!r}, which tells which code is of which record; without it leave out "
            "`compare`."
        )
    return truth


def _matched(sites: Sites, other: Sites, i: int) -> NDArray[np.intp]:
    """Codes of another release in the order of the records of the first."""
    wanted, found = _needed(sites, i), _needed(other, i)
    ids = [truth["record"].astype(str) for truth in (wanted, found)]
    place = pd.Series(np.arange(len(found)), index=ids[1])
    rows = place.reindex(ids[0]).to_numpy()
    if np.isnan(rows).any() or len(wanted) != len(found):
        raise MismatchError(
            f"The two releases of site {sites.names[i]!r} are not of the same records "
            f"({len(wanted):,} and {len(found):,}); encode both from the same configuration."
        )
    return rows.astype(np.intp)
