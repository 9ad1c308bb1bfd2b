"""What is trained on whom, and the folder that it is kept in; run again to resume."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from confide import _check, masks
from confide._objects import checked_url, new_id
from confide.audits.guards import refuse_shared_patients
from confide.cohort import Cohort
from confide.errors import ArgumentError
from confide.runs.looks import BLOCK, Rule, Until, planned, train_until
from confide.runs.models import (
    Progress,
    begin_again,
    cohort_fingerprint,
    cohort_table,
    environment,
    fit_group,
    groups_of,
    mark_done,
    model_seeds,
    silent,
    store_fit,
)
from confide.stores import AuditFolder, claimed, owners_alone
from confide.training.base import Trainer

_PATIENCE = 600.0  # seconds that one of several writers waits for the others' short turns


@dataclass(frozen=True, kw_only=True, eq=False)
class Study:
    """The models of an audit, drawn alike by every process that trains some of them.

    Parameters
    ----------
    cohort : the audited records
    trainer : what trains; see :class:`confide.training.base.Trainer`
    n_models, fraction, seed : the design; see :func:`confide.masks.balanced`.  With `until`
        the most models, a multiple of 16
    heldout : records that no model is trained on; the trainer returns their logits after those of
        `cohort`
    config : what changes the answer, kept in the manifest and compared on resume
    fingerprint : of the data; computed from the cohort when not given
    canary : (n_records,) bool, the records of `cohort` that were planted, if any
    until : stop early, when this rule says that it is enough; see :mod:`confide.runs.looks`
    fdr : of the list of patients, which `until` looks at; that of the first call counts
    signals : s3://BUCKET/PREFIX, where the arrays are kept in place of the audit folder; None where
        the folder says
    about : more facts for the manifest, not compared; those of the last call count

    Raises
    ------
    ArgumentError : fewer than four models, with `until` another number than a multiple of 16,
        patients on both sides, or no such URL
    MissingExtraError : what talks to an object store is not installed
    """

    cohort: Cohort
    trainer: Trainer
    n_models: int = 64
    fraction: float = 0.5
    seed: int = 0
    heldout: Cohort | None = None
    config: dict[str, Any] | None = None
    fingerprint: str | None = None
    canary: NDArray[np.bool_] | None = None
    until: Rule | None = None
    fdr: float = 0.05
    signals: str | None = None
    about: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check.at_least(4, n_models=self.n_models)
        if self.heldout is not None:
            refuse_shared_patients(self.cohort, self.heldout)
        if self.until is not None:
            planned(self.n_models)
        if self.signals is not None:
            checked_url(self.signals)

    @cached_property
    def membership(self) -> NDArray[np.bool_]:
        """(n_models, n_patients) whose records train each model."""
        return masks.balanced(
            self.n_models,
            self.cohort.n_patients,
            fraction=self.fraction,
            seed=self.seed,
            block=None if self.until is None else BLOCK,
        )

    @cached_property
    def _wanted(self) -> dict[str, Any]:
        """What must be the same in a folder that is resumed, in the order of comparison."""
        design: dict[str, Any] = {
            "n_models": self.n_models,
            "fraction": self.fraction,
            "seed": self.seed,
        }
        if self.canary is not None and self.canary.any():
            planted = self.cohort.patient_index[self.canary]
            design |= {"canaries": len(np.unique(planted))}
        if self.until is not None:
            design |= {"block": BLOCK, "until": self.until.text}
        return {
            "config": self.config or {},
            "design": design,
            "fingerprint": self.fingerprint or cohort_fingerprint(self.cohort, self.heldout),
            # Last: what the trainer says of itself may follow from the rest.
            "trainer": self.trainer.describe(),
        }

    def _first_manifest(self) -> dict[str, Any]:
        more: dict[str, Any] = {}
        if self.signals is not None:
            more |= {"signals": checked_url(self.signals), "signals_id": new_id()}
        if self.until is not None:
            until = Until(rule=self.until.text, looks=planned(self.n_models), fdr=self.fdr)
            more["until"] = until.to_json()
        return (
            self._wanted
            | {
                "models_at_once": self.trainer.models_at_once,
                "models": ["pending"] * self.n_models,
            }
            | environment()
            | {"task": self.cohort.task, "classes": list(self.cohort.classes)}
            | {"seeds": model_seeds(self.seed, self.n_models)}
            | more
        )

    @contextlib.contextmanager
    def opened(self, out: Path, *, wait: float | None = None) -> Iterator[AuditFolder]:
        """The folder, begun or found to be of this study, and nobody else's meanwhile.

        Parameters
        ----------
        out : the audit folder
        wait : as in :meth:`confide.stores.AuditFolder.open`

        Raises
        ------
        MismatchError : it was begun with another configuration or other data
        FolderError : it is in use or cannot be written
        StoreError : the object store that holds its arrays cannot be used
        """
        wanted = self._wanted
        _ = self.membership  # a design that cannot be drawn leaves no folder
        with AuditFolder.open(out, self._first_manifest, wait=wait) as folder:
            # Before the rest of the design, which follows from it.
            stored = folder.manifest.get("design", {})
            folder.require_same({"design": stored | {"until": wanted["design"].get("until")}})
            folder.require_same(wanted)
            if self.signals is not None:
                folder.require_same({"signals": checked_url(self.signals)})
            folder.manifest |= self.about
            folder.save()
            self._lay_out(folder)
            yield folder

    def _lay_out(self, folder: AuditFolder) -> None:
        """The table of records and the arrays, where they are not there yet."""
        if not (folder.path / "cohort.parquet").exists():
            folder.write_cohort(cohort_table(self.cohort, self.heldout, self.canary))
        absent = not folder.has_array("membership")
        if absent:
            folder.create_array("membership", self.membership.shape, np.bool_)
        if absent or not folder.done.any():
            folder.array("membership")[:] = self.membership
        n, shape = self.cohort.n_records, self.trainer.logits_shape
        sizes: dict[str, tuple[int, tuple[int, ...] | None]] = {"logits": (n, shape)}
        if self.heldout is not None:
            sizes["heldout_logits"] = (self.heldout.n_records, shape)
        if self.trainer.keeps_traces:
            sizes["trace"] = (n, ())
        for name, (n_records, rest) in sizes.items():
            if folder.has_array(name):
                continue
            if folder.done.any():
                begin_again(folder, name)
            if rest is not None:  # else it is made for the first models
                folder.create_array(name, (self.n_models, n_records, *rest), np.float32)

    def fit(self, folder: AuditFolder, group: slice) -> list[int] | None:
        """Train a group of models and put what they say into signals.zarr; mark nothing done.

        Returns
        -------
        the epoch, counted from 1, whose weights each model kept; None where all kept the last
        """
        folder.signals.claim(begun=True)  # before hours of work for what cannot be stored
        members = self.cohort.expand(self.membership[group])
        found = fit_group(self.trainer, members, folder, group)
        store_fit(folder, group, found, self.cohort, self.heldout)
        return None if found.epochs is None else [int(epoch) for epoch in found.epochs]

    def train(self, out: Path, progress: Progress = silent) -> None:
        """Train all models in this process; see :func:`train_models`."""
        with self.opened(out) as folder:

            def train(first: int, last: int) -> None:
                for group in groups_of(folder, first, last):
                    mark_done(folder, group, self.fit(folder, group))
                    progress(int(folder.done.sum()), self.n_models)

            progress(int(folder.done.sum()), self.n_models)
            if self.until is None:
                train(0, self.n_models)
            else:
                train_until(folder, self.cohort, self.canary, train)

    def train_some(self, out: Path, first: int, last: int, progress: Progress = silent) -> int:
        """Train the models first to last - 1 while other processes train others.

        What another process trains is left to it.

        Parameters
        ----------
        out : the audit folder
        first, last : from one border to another of the groups that train together
        progress : called with (models finished of these, last - first)

        Returns
        -------
        number of models, of all, that are finished now

        Raises
        ------
        ArgumentError : no such range, one that parts a group, or a run with `until`
        Also as :func:`train_models`
        """
        if self.until is not None:
            raise ArgumentError(
                "A run that stops when it is enough trains no range of models; leave `until` out."
            )
        if self.trainer.logits_shape is None:
            raise ArgumentError(
                f"{type(self.trainer).__name__} does not say the shape of its logits, so that "
                "arrays cannot be made for several processes; set its logits_shape."
            )
        with self.opened(out, wait=_PATIENCE) as folder:
            _check_range(first, last, folder)
            todo = list(groups_of(folder, first, last))
        for group in todo:
            with claimed(out, group, wait=_PATIENCE) as ours:
                if ours:
                    self._train_one(out, group)
            progress(int(AuditFolder.read(out).done[first:last].sum()), last - first)
        return int(AuditFolder.read(out).done.sum())

    def _train_one(self, out: Path, group: slice) -> None:
        folder = AuditFolder.read(out)
        if folder.done[group].all():
            return
        with owners_alone():
            epochs = self.fit(folder, group)
        with self.opened(out, wait=_PATIENCE) as folder:
            mark_done(folder, group, epochs)


def _check_range(first: int, last: int, folder: AuditFolder) -> None:
    n_models, size = len(folder.manifest["models"]), int(folder.manifest["models_at_once"])
    if not 0 <= first < last <= n_models:
        raise ArgumentError(
            f"Expected models A:B with 0 <= A < B <= {n_models}, got {first}:{last}."
        )
    low, high = first // size * size, min(-(-last // size) * size, n_models)
    if (first, last) != (low, high):
        raise ArgumentError(
            f"Models {first}:{last} part a group of {size} models that train together on this "
            f"device; use {low}:{high}."
        )


def train_models(
    cohort: Cohort, trainer: Trainer, out: Path, *, progress: Progress = silent, **design: Any
) -> None:
    """Train models on random halves of the patients and store their logits.

    A kill at any instant loses at most the models in training; the same call resumes and gives
    the same numbers as an undisturbed run.

    Parameters
    ----------
    cohort, trainer, design : see :class:`Study`
    out : the audit folder
    progress : called after each finished group of models

    Raises
    ------
    ArgumentError : a design that cannot be drawn
    MismatchError : the folder was begun with another configuration or other data
    TrainingError, SignalError : a model could not be trained; what was finished stays
    FolderError : the folder is in use or cannot be written
    StoreError : the object store that holds its arrays cannot be used
    """
    Study(cohort=cohort, trainer=trainer, **design).train(out, progress)
