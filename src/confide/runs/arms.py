"""What a training on codes compares: codes, codes of the linear encoder, and the plain records."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confide.config import CodesConfig, load
from confide.encoders.key import Key
from confide.encoders.publish import Beside, read_beside
from confide.encoders.release import Release
from confide.encoders.settings import LinearSettings
from confide.errors import MismatchError, MissingFileError, ReleaseError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from confide.training.inputs import Inputs

_AT_ONCE = 256
_IN_MEMORY = 4 * 2**30
"""Bytes of codes or records of one arm that are held in memory; more is read batch by batch."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Sites:
    """The releases of all sites, one record after the other, in the order of the releases.

    Attributes
    ----------
    names : of the sites
    releases : one a site
    records : the tables of the releases below each other, with `patient` (a number, that of the
        record where the release does not tell)
    site : (n_records,) number of each record's site
    beside : one a site, what RELEASE.private tells where it is at hand, else None
    units : "patients", or "records" where the patients are not known
    """

    names: tuple[str, ...]
    releases: tuple[Release, ...]
    records: pd.DataFrame
    site: NDArray[np.intp]
    beside: tuple[Beside | None, ...]
    units: str

    @classmethod
    def read(cls, names: tuple[str, ...], paths: list[Path]) -> Sites:
        """Read releases; the codes themselves are read later.

        Raises
        ------
        ReleaseError, MissingFileError : a release that cannot be used, or of another form of codes
            than the first
        MismatchError : the folder beside a release is that of another
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
        beside = tuple(read_beside(path, r.id) for path, r in zip(paths, releases, strict=True))
        tables = [release.records for release in releases]
        owners = [_owners(table, one) for table, one in zip(tables, beside, strict=True)]
        known = all(owner is not None for owner in owners)
        records = pd.concat(tables, ignore_index=True)
        # A patient of two sites is two: sites do not know each other's.
        ids = [f"{i}/{one}" for i, o in enumerate(owners) if o is not None for one in o]
        records["patient"] = pd.factorize(pd.Series(ids))[0] if known else np.arange(len(records))
        return cls(
            names=names,
            releases=releases,
            records=records,
            site=np.repeat(np.arange(len(tables)), [len(table) for table in tables]),
            beside=beside,
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
    MissingFileError : RELEASE.private is not beside a release, so nothing tells which code is of
        which record
    MismatchError : the records of a comparison are not those of the releases
    """
    from confide.models import build_code_classifier

    release = sites.releases[0]
    encoder = release.manifest.encoder
    # Rows of a linear code say nothing of their place, but may still stand in it.
    position = encoder.get("name") == "linear" and encoder.get("shuffle") is False

    def build(n_outputs: int) -> nn.Module:
        return build_code_classifier(
            config.train.model, release.shape, n_outputs, position=position
        )

    codes = Arm(
        name="codes",
        encoder=str(encoder.get("name")),
        inputs=_Codes(sites).inputs(device),
        build=build,
    )
    if not config.compare.records:
        return [codes]
    plain = _Plain.read(config, folder, sites)
    makers = {"plain": plain.arm, "linear": plain.linear}
    return [*(makers[name](device) for name in config.compare.arms), codes]


class _Codes:
    """Codes of several releases as one array."""

    def __init__(self, sites: Sites) -> None:
        self._releases, self._first = sites.releases, sites.offsets

    def __call__(self, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        site = np.searchsorted(self._first, rows, side="right") - 1
        out = np.empty((len(rows), *self._releases[0].shape), dtype=np.float32)
        for i in np.unique(site):
            here = site == i
            out[here] = self._releases[i].codes(rows[here] - self._first[i])
        return out

    def inputs(self, device: torch.device) -> Inputs:
        """The codes in memory where they fit, else read batch by batch."""
        from confide.training.inputs import ArrayInputs, StreamInputs

        n, shape = int(self._first[-1]), self._releases[0].shape
        half = self._releases[0].dtype == "float16"
        dtype = np.dtype(np.float16 if half else np.float32)
        if n * int(np.prod(shape)) * dtype.itemsize > _IN_MEMORY:
            return StreamInputs(self, n, shape, device)
        array = np.empty((n, *shape), dtype=dtype)
        for start in range(0, n, _AT_ONCE):
            rows = np.arange(start, min(start + _AT_ONCE, n))
            array[rows] = self(rows)
        return ArrayInputs(array, device)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Plain:
    """The records themselves, in the order of the codes."""

    config: CodesConfig
    sites: Sites
    x: NDArray[Any]

    @classmethod
    def read(cls, config: CodesConfig, folder: Path, sites: Sites) -> _Plain:
        parts = []
        for i, path in enumerate(config.compare.records):
            settings, place = load(folder / path)
            opened = settings.data.open(place)
            beside = _needed(sites, i)
            encoded = (
                sites.releases[i].manifest.encoder.get("shape"),
                beside.asked.get("fingerprint of the data"),
            )
            if encoded != (list(opened.shape), opened.fingerprint()):
                raise MismatchError(
                    f"The records of {folder / path} are not those of the release of site "
                    f"{sites.names[i]!r}; name the configuration that the release was made from, "
                    "in the order of the releases."
                )
            parts.append(opened.read(beside.truth["row"].to_numpy()))
        return cls(config=config, sites=sites, x=np.concatenate(parts))

    @property
    def encoder(self) -> dict[str, Any]:
        """The architecture of the releases' encoder."""
        return self.sites.releases[0].manifest.encoder

    def inputs(self, device: torch.device) -> Inputs:
        """The records, standardised by the training records of their own site, as codes are."""
        import torch

        from confide.training.inputs import ArrayInputs, MappedInputs

        train = (self.sites.records["split"] == "train").to_numpy()
        n_sites = len(self.sites.names)
        found = [
            _statistics(self.x, np.flatnonzero(train & (self.sites.site == i)))
            for i in range(n_sites)
        ]
        sides = (1,) * (self.x.ndim - 2)
        mean, scale = (
            torch.from_numpy(np.stack(one)).to(device).view(n_sites, -1, *sides)
            for one in zip(*found, strict=True)
        )

        def standardise(rows: NDArray[np.intp], x: torch.Tensor) -> torch.Tensor:
            site = torch.from_numpy(self.sites.site[rows]).to(device)
            return (x - mean[site]) / scale[site]

        return MappedInputs(ArrayInputs(self.x, device), standardise, self.x.shape[1:])

    def arm(self, device: torch.device) -> Arm:
        """The same network with a trainable encoder in front."""
        from confide.models import build_plain_classifier

        def build(n_outputs: int) -> nn.Module:
            return build_plain_classifier(
                self.config.train.model,
                self.x.shape[1:],
                n_outputs,
                patch=self.encoder["patch"],
                width=self.encoder["width"],
                private_depth=self.encoder.get("private_depth", 0),
            )

        return Arm(name="plain", encoder=None, inputs=self.inputs(device), build=build)

    def linear(self, device: torch.device) -> Arm:
        """Codes of the linear encoder, made batch by batch and written nowhere."""
        from torch import float32

        from confide.encoders.layer import Layer
        from confide.models import build_code_classifier
        from confide.models.patch_encoder import patches
        from confide.training.inputs import MappedInputs

        settings = LinearSettings(patch=self.encoder["patch"], width=self.encoder["width"])
        shape = self.x.shape[1:]
        n_inputs = shape[0] * settings.patch ** (len(shape) - 1)
        layers = [
            Layer.derived(self._key(i), "patch", settings.width, n_inputs).on(device, float32)
            for i in range(len(self.sites.names))
        ]
        offsets = self.sites.offsets

        def encode(rows: NDArray[np.intp], x: torch.Tensor) -> torch.Tensor:
            site = np.searchsorted(offsets, rows, side="right") - 1
            out = x.new_empty(len(x), *code_shape)
            for i in np.unique(site):
                here = np.flatnonzero(site == i)
                rows_here = patches(x[here], settings.patch).flatten(0, 1)
                codes = x.new_empty(len(rows_here), settings.width)
                out[here] = layers[i](rows_here, out=codes).view(-1, *code_shape)
            return out

        code_shape = (settings.n_patches(shape), settings.width)

        def build(n_outputs: int) -> nn.Module:
            model = self.config.train.model
            return build_code_classifier(model, code_shape, n_outputs, position=True)

        inputs = MappedInputs(self.inputs(device), encode, code_shape)
        return Arm(name="linear", encoder="linear", inputs=inputs, build=build)

    def _key(self, site: int) -> Key:
        # These codes never leave the process, so that a secret is not needed but the same result
        # after a resume is.
        text = f"linear codes for comparison, seed {self.config.train.seed}, site {site}"
        return Key(hashlib.sha256(text.encode()).digest())


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


def _owners(table: pd.DataFrame, beside: Beside | None) -> NDArray[Any] | None:
    if beside is not None:
        return beside.truth["patient"].to_numpy()
    return table["patient"].to_numpy() if "patient" in table else None


def _needed(sites: Sites, i: int) -> Beside:
    beside = sites.beside[i]
    if beside is None:
        raise MissingFileError(
            f"A comparison needs the folder RELEASE.private beside the release of site "
            f"{sites.names[i]!r}, which tells which code is of which record; without it leave out "
            "`compare`."
        )
    return beside
