"""From a configuration, or a trainer of one's own, to a finished audit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from confide import _check
from confide._objects import checked_url
from confide.attacks import require_inputs
from confide.audits.audit import AuditSettings
from confide.audits.result import AuditResult
from confide.cohort import Cohort
from confide.config import AuditBlock, Config
from confide.datasets import Data, Source
from confide.errors import ArgumentError, ConfigError
from confide.runs.analysis import analyse
from confide.runs.canaries import plant
from confide.runs.guards import data_warnings, designed
from confide.runs.looks import named
from confide.runs.models import Progress, silent
from confide.runs.study import Study
from confide.training.base import FunctionTrainer, Trainer
from confide.training.settings import Dev, Performance, TrainSettings

_PLACES = {"path", "images", "array"}
"""Where data lie; the fingerprint tells whether they are the same, so a folder can move."""


def run(
    cohort: Cohort,
    trainer: Trainer | Callable[..., Any],
    out: Path | str,
    *,
    test: NDArray[np.bool_] | None = None,
    heldout: Cohort | None = None,
    n_models: int = 64,
    fraction: float = 0.5,
    seed: int = 0,
    attacks: tuple[str, ...] = ("lira", "rmia"),
    fdr: float = 0.05,
    canary: NDArray[np.bool_] | None = None,
    until: str | None = None,
    signals: str | None = None,
    progress: Progress = silent,
    **about: Any,
) -> AuditResult:
    """Audit any trainer: train models on random halves of the patients, store, analyse, report.

    Parameters
    ----------
    cohort : the records
    trainer : what trains, or a function ``fit(train, query, seed)`` that fits a model on some
        records and returns logits of others, see :class:`confide.training.base.FunctionTrainer`
    out : the audit folder; the same call resumes what a kill interrupted, and with other attacks
        or another fdr it only analyses again.  The folder does not know the code: after a change
        of what is trained use another folder, or name settings in `config`, which are compared
    test : (n_records,) bool, records of `cohort` that no model is trained on, for utility and RMIA;
        all of a patient or none.  See :meth:`confide.Cohort.split`
    heldout : such records as a cohort of their own instead; their rows, and logits, come after
        those of `cohort`
    n_models, fraction, seed : the design, see :func:`confide.masks.balanced`.  With `until`
        the most models, a multiple of 16
    attacks, fdr : the analysis, see :class:`confide.audits.audit.AuditSettings`
    canary : (n_records,) bool, all records of the patients that were planted to be found, if any;
        they are trained on like the others and reported apart
    until : stop early, when it is enough: "stable" or "se=0.05", see :mod:`confide.runs.looks`; the
        list of patients then pays for every planned look
    signals : s3://BUCKET/PREFIX, an object store that keeps the arrays in place of `out`; its
        address and credentials are those of the environment.  A folder that was begun knows it
    progress : called with (models finished, models in all)
    about : `config`, `fingerprint`, `title`, `guards`, `warnings` for the manifest

    Raises
    ------
    As :func:`confide.runs.train_models` and :func:`confide.runs.analyse`; ArgumentError for
    attacks, fdr, until or signals out of their domain, and for a function or a `test` that cannot
    be used
    """
    study = _study(
        cohort,
        trainer,
        test=test,
        heldout=heldout,
        n_models=n_models,
        fraction=fraction,
        seed=seed,
        attacks=attacks,
        fdr=fdr,
        canary=canary,
        until=until,
        signals=signals,
        **about,
    )
    study.train(Path(out), progress)
    return analyse(Path(out))


def _study(
    cohort: Cohort,
    trainer: Trainer | Callable[..., Any],
    *,
    test: NDArray[np.bool_] | None = None,
    heldout: Cohort | None = None,
    n_models: int,
    fraction: float,
    seed: int,
    attacks: tuple[str, ...],
    fdr: float,
    canary: NDArray[np.bool_] | None,
    until: str | None,
    signals: str | None = None,
    config: dict[str, Any] | None = None,
    fingerprint: str | None = None,
    **about: Any,
) -> Study:
    """The models of :func:`run`, which says what the arguments are."""
    order = np.arange(cohort.n_records + (0 if heldout is None else heldout.n_records))
    if test is not None:
        if heldout is not None:
            raise ArgumentError(
                "Expected `test` or `heldout`, got both; one names who is held out."
            )
        cohort, heldout, order = _divided(cohort, test)
        canary = None if canary is None else canary[~test]
    if not isinstance(trainer, Trainer):
        trainer = FunctionTrainer(trainer)
    if isinstance(trainer, FunctionTrainer):
        n_logits = 1 if cohort.task == "binary" else len(cohort.classes)
        trainer = trainer.bound(order, n_logits)
    AuditSettings(attacks=attacks, fdr=fdr)  # refused before anything is trained
    require_inputs(attacks, trace=trainer.keeps_traces, population=heldout is not None)
    promised = {} if trainer.privacy is None else {"privacy": trainer.privacy}
    return Study(
        cohort=cohort,
        trainer=trainer,
        heldout=heldout,
        n_models=n_models,
        fraction=fraction,
        seed=seed,
        config=config,
        fingerprint=fingerprint,
        canary=canary,
        until=None if until is None else named(until),
        fdr=fdr,
        signals=signals,
        about={"audit": {"attacks": list(attacks), "fdr": fdr}, **promised, **about},
    )


def run_config(
    config: Config,
    folder: Path,
    out: Path,
    *,
    signals: str | None = None,
    progress: Progress = silent,
) -> AuditResult:
    """Audit what a configuration describes; see :func:`run`.

    Parameters
    ----------
    config, folder : from :func:`confide.config.load`
    out : the audit folder
    signals : where its arrays are kept, if not there
    """
    return run_source(
        config.data,
        out,
        folder=folder,
        train=config.train,
        audit=config.audit,
        performance=config.performance,
        signals=signals,
        progress=progress,
    )


def run_source(
    source: Source,
    out: Path | str,
    *,
    folder: Path = Path(),
    train: TrainSettings | None = None,
    audit: AuditBlock | None = None,
    performance: Performance | None = None,
    signals: str | None = None,
    progress: Progress = silent,
) -> AuditResult:
    """Audit confide's own training on any source of data, one of your own too; see :func:`run`.

    Parameters
    ----------
    source : the data; its settings are kept in the manifest and compared on resume
    out : the audit folder
    folder : relative paths of the source are relative to it
    train, audit, performance : the blocks of a configuration; defaults where not given
    signals : where the arrays are kept, if not in `out`
    """
    study = _study_of_source(source, folder, train, audit, performance, signals)
    study.train(Path(out), progress)
    return analyse(Path(out))


def study_of(config: Config, folder: Path, signals: str | None = None) -> Study:
    """The models that a configuration describes.

    Parameters
    ----------
    config, folder : from :func:`confide.config.load`
    signals : see :class:`confide.runs.study.Study`
    """
    return _study_of_source(
        config.data, folder, config.train, config.audit, config.performance, signals
    )


def _study_of_source(
    source: Source,
    folder: Path,
    train: TrainSettings | None,
    audit: AuditBlock | None,
    performance: Performance | None,
    signals: str | None,
) -> Study:
    if signals is not None:
        checked_url(signals)  # before the data are read
    train, audit = train or TrainSettings(), audit or AuditBlock()
    data = source.load(folder)
    fingerprint, guards = data.fingerprint(), designed(data)
    data, apart = set_apart(data, train.dev)
    planted, canary = plant(data, audit.canaries, audit.seed)
    audited, heldout = split(planted)
    asked = source.model_dump(mode="json")
    return _study(
        audited,
        _torch_trainer(planted, apart, train, performance, audit.fraction, folder=folder),
        heldout=heldout,
        n_models=audit.n_models,
        fraction=audit.fraction,
        seed=audit.seed,
        attacks=audit.attacks,
        fdr=audit.fdr,
        canary=canary[~planted.test],
        until=audit.until,
        signals=signals,
        config={
            "data": {k: v for k, v in asked.items() if k not in _PLACES},
            "train": train.model_dump(mode="json"),
        },
        fingerprint=fingerprint,
        title=_title(source),
        guards=guards,
        warnings=[*data_warnings(data), *_of_apart(apart, train.dev)],
        notes=list(data.notes),
    )


def split(data: Data) -> tuple[Cohort, Cohort | None]:
    """The audited records and the held-out ones."""
    held = data.cohort.select(data.test) if data.test.any() else None
    return data.cohort.select(~data.test), held


def set_apart(data: Data, dev: Dev | None) -> tuple[Data, Data | None]:
    """The data without the patients that choose the epoch, and the data of those.

    They influence every model, so they are neither audited nor test patients.  `keep: last` sets
    the same patients apart.

    Parameters
    ----------
    data : all records
    dev : `train.dev`; None leaves the data as they are

    Raises
    ------
    ConfigError : nobody would be left to audit, or the records set apart have one class alone, by
        which an epoch cannot be chosen
    """
    if dev is None:
        return data, None
    rows = np.flatnonzero(~data.test)
    cohort = data.cohort.select(rows)
    if cohort.n_patients < 2:
        raise ConfigError(
            "train.dev sets patients apart, but only one patient is not held out; leave it out."
        )
    chosen = rows[cohort.split(dev.fraction, dev.seed)[1]]
    apart = _selected(data, chosen)
    label = apart.cohort.label
    if apart.cohort.task != "multilabel" and len(np.unique(label)) < 2:
        raise ConfigError(
            f"The {apart.cohort.n_records:,} records that train.dev sets apart (fraction "
            f"{dev.fraction:g}, seed {dev.seed}) are all of the class "
            f"{data.cohort.classes[label[0]]!r}, so they cannot choose an epoch; set a larger "
            "fraction or another seed."
        )
    return _selected(data, np.setdiff1d(np.arange(data.cohort.n_records), chosen)), apart


def _selected(data: Data, rows: NDArray[np.intp]) -> Data:
    return replace(
        data, cohort=data.cohort.select(rows), inputs=data.inputs[rows], test=data.test[rows]
    )


def _of_apart(apart: Data | None, dev: Dev | None) -> list[str]:
    """What a reader must know of the patients that were set apart."""
    if apart is None or dev is None:
        return []
    patients = f"{apart.cohort.n_patients:,} patients ({apart.cohort.n_records:,} records)"
    if dev.keep == "last":
        return [
            f"{patients} were set apart by train.dev: no model saw them, and nobody audits them."
        ]
    return [
        f"{patients} were set apart to choose the epoch of each model (train.dev). They influence "
        "every model, so they are neither audited nor test patients, and nothing here says how "
        "much of them the models give away."
    ]


def trainer_of(
    config: Config,
    data: Data,
    expected_members: float | None = None,
    apart: Data | None = None,
    folder: Path = Path(),
) -> Trainer:
    """The PyTorch trainer of a configuration, with the data in its order: audited, held out.

    Parameters
    ----------
    config : its `train`, `performance` and `audit.fraction`
    data, apart : from :func:`set_apart`
    expected_members : records that train a model on average; the design's number by default
    folder : from :func:`confide.config.load`
    """
    return _torch_trainer(
        data,
        apart,
        config.train,
        config.performance,
        config.audit.fraction,
        expected_members,
        folder=folder,
    )


def _torch_trainer(
    data: Data,
    apart: Data | None,
    train: TrainSettings,
    performance: Performance | None,
    fraction: float,
    expected_members: float | None = None,
    *,
    folder: Path,
) -> Trainer:
    from confide.training.trainer import TorchTrainer

    cohort, order = data.cohort, _order(data.test)
    n_audited = int((~data.test).sum())
    chooses = apart is not None and train.dev is not None and train.dev.keep == "best"
    return TorchTrainer(
        inputs=data.inputs[order],
        label=cohort.label[order],
        task=cohort.task,
        n_classes=len(cohort.classes),
        n_audited=n_audited,
        expected_members=expected_members or fraction * n_audited,
        patient=cohort.patient_index[order][:n_audited],
        settings=train,
        performance=performance,
        dev=(apart.inputs, apart.cohort.label) if apart is not None and chooses else None,
        folder=folder,
    )


def _order(test: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(n_records,) row numbers, the held-out ones last."""
    return np.concatenate([np.flatnonzero(~test), np.flatnonzero(test)])


def _divided(
    cohort: Cohort, test: NDArray[np.bool_]
) -> tuple[Cohort, Cohort | None, NDArray[np.int64]]:
    """The audited records, the held-out ones, and the rows of both in this order."""
    test = np.asarray(test)
    _check.shape((cohort.n_records,), test=test)
    if test.dtype != bool or test.all():
        raise ArgumentError(
            f"Expected test of type bool with a record that is not held out, got {test.dtype} with "
            f"{int(np.count_nonzero(test))} of {len(test)} held out."
        )
    held = cohort.select(test) if test.any() else None
    return cohort.select(~test), held, _order(test)


def _title(source: Source) -> str:
    path = getattr(source, "path", None)
    if isinstance(path, tuple):
        return f"{source.name}: {', '.join(one.name for one in path)}"
    return f"{source.name}: {Path(path).name}" if path else source.name
