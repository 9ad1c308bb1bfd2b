"""From a configuration, or a trainer of one's own, to a finished audit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from confide.attacks import require_inputs
from confide.audits.audit import AuditSettings
from confide.audits.result import AuditResult
from confide.cohort import Cohort
from confide.config import Config
from confide.datasets import Data
from confide.runs.analysis import analyse
from confide.runs.canaries import plant
from confide.runs.guards import data_warnings, designed
from confide.runs.looks import named
from confide.runs.models import Progress, silent, train_models
from confide.training.base import Trainer

_PLACES = {"path", "images", "array"}
"""Where data lie; the fingerprint tells whether they are the same, so a folder can move."""


def run(
    cohort: Cohort,
    trainer: Trainer,
    out: Path | str,
    *,
    heldout: Cohort | None = None,
    n_models: int = 64,
    fraction: float = 0.5,
    seed: int = 0,
    attacks: tuple[str, ...] = ("lira", "rmia"),
    fdr: float = 0.05,
    canary: NDArray[np.bool_] | None = None,
    until: str | None = None,
    progress: Progress = silent,
    **about: Any,
) -> AuditResult:
    """Audit any trainer: train models on random halves of the patients, store, analyse, report.

    Parameters
    ----------
    cohort : the audited records
    trainer : what trains; wrap a function of your own in
        :class:`confide.training.base.FunctionTrainer`
    out : the audit folder; the same call resumes what a kill interrupted, and with other attacks
        or another fdr it only analyses again
    heldout : records that no model is trained on, for utility and RMIA; the trainer returns their
        logits after those of `cohort`
    n_models, fraction, seed : the design, see :func:`confide.masks.balanced`.  With `until`
        the most models, a multiple of 16
    attacks, fdr : the analysis, see :class:`confide.audits.audit.AuditSettings`
    canary : (n_records,) bool, all records of the patients that were planted to be found, if any;
        they are trained on like the others and reported apart
    until : stop early, when it is enough: "stable" or "se=0.05", see :mod:`confide.runs.looks`; the
        list of patients then pays for every planned look
    progress : called with (models finished, models in all)
    about : `config`, `fingerprint`, `title`, `guards`, `warnings` for the manifest

    Raises
    ------
    As :func:`confide.runs.train_models` and :func:`confide.runs.analyse`; ArgumentError for
    attacks, fdr or until out of their domain
    """
    AuditSettings(attacks=attacks, fdr=fdr)  # refused before anything is trained
    require_inputs(attacks, trace=trainer.keeps_traces, population=heldout is not None)
    rule = None if until is None else named(until)
    settings = {"attacks": list(attacks), "fdr": fdr}
    train_models(
        cohort,
        trainer,
        Path(out),
        n_models=n_models,
        fraction=fraction,
        seed=seed,
        heldout=heldout,
        config=about.pop("config", None),
        fingerprint=about.pop("fingerprint", None),
        canary=canary,
        until=rule,
        fdr=fdr,
        progress=progress,
        about={"audit": settings, **about},
    )
    return analyse(Path(out))


def run_config(
    config: Config, folder: Path, out: Path, *, progress: Progress = silent
) -> AuditResult:
    """Audit what a configuration describes; see :func:`run`.

    Parameters
    ----------
    config, folder : from :func:`confide.config.load`
    out : the audit folder
    """
    data = config.data.load(folder)
    planted, canary = plant(data, config.audit.canaries, config.audit.seed)
    audited, heldout = split(planted)
    asked = config.model_dump(mode="json")
    compared = {
        "data": {k: v for k, v in asked["data"].items() if k not in _PLACES},
        "train": asked["train"],
    }
    return run(
        audited,
        trainer_of(config, planted),
        out,
        heldout=heldout,
        n_models=config.audit.n_models,
        fraction=config.audit.fraction,
        seed=config.audit.seed,
        attacks=config.audit.attacks,
        fdr=config.audit.fdr,
        canary=canary[~planted.test],
        until=config.audit.until,
        progress=progress,
        config=compared,
        fingerprint=data.fingerprint(),
        title=_title(config),
        guards=designed(data),
        warnings=data_warnings(data),
        notes=list(data.notes),
    )


def split(data: Data) -> tuple[Cohort, Cohort | None]:
    """The audited records and the held-out ones."""
    held = data.cohort.select(data.test) if data.test.any() else None
    return data.cohort.select(~data.test), held


def trainer_of(config: Config, data: Data, expected_members: float | None = None) -> Trainer:
    """The PyTorch trainer of a configuration, with the data in its order: audited, held out.

    `expected_members` records train a model on average; the design's number by default.
    """
    from confide.training.trainer import TorchTrainer

    order = np.concatenate([np.flatnonzero(~data.test), np.flatnonzero(data.test)])
    cohort = data.cohort
    n_audited = int((~data.test).sum())
    return TorchTrainer(
        inputs=data.inputs[order],
        label=cohort.label[order],
        task=cohort.task,
        n_classes=len(cohort.classes),
        n_audited=n_audited,
        expected_members=expected_members or config.audit.fraction * n_audited,
        settings=config.train,
        performance=config.performance,
    )


def _title(config: Config) -> str:
    path = getattr(config.data, "path", None)
    return f"{config.data.name}: {Path(path).name}" if path else config.data.name
