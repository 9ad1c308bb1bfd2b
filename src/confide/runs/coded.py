"""From releases of one or several sites to classifiers, and how good they are."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confide._tables import label_columns
from confide.config import CodesConfig
from confide.encoders.release import verify
from confide.errors import ReleaseError, TableError
from confide.runs.arms import Arm, Sites, arms_of
from confide.runs.compared import ALL_SITES, N_RESAMPLES, Scores, compare
from confide.runs.fits import FitFolder
from confide.runs.models import Progress, silent
from confide.stores import write_bytes, write_json, write_table


@dataclass(frozen=True, kw_only=True, eq=False)
class CodesResult:
    """What a training on codes found.

    Attributes
    ----------
    table : one row an AUC: label, arm, model, tested_on, group, value, auc, low, high, n_records,
        n_patients, n_positive
    summary : the same in short, as plain values
    """

    table: pd.DataFrame
    summary: dict[str, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """One label: which records have it, and what they are."""

    name: str
    classes: tuple[str, str]
    label: NDArray[np.int64]
    known: NDArray[np.bool_]


def train_on_codes(
    config: CodesConfig, folder: Path, out: Path, *, progress: Progress = silent
) -> CodesResult:
    """Train one model of all sites and one of each, on codes and on what they are compared with.

    Models that are finished are not trained again, so the same call resumes.

    Parameters
    ----------
    config, folder : from :func:`confide.config.load_as`
    out : the folder for tables, models and report
    progress : called with (epochs finished, epochs in all)

    Raises
    ------
    ReleaseError, MissingFileError, MismatchError : releases that cannot be used
    TableError : a label that is no label of two values, or a site without both
    """
    from confide.training.device import device_of

    paths = [folder / path for path in config.data.path]
    sites = Sites.read(config.data.sites, paths)
    _refuse_damage(paths)
    tasks = [task_of(sites, name, several=len(config.data.label) > 1) for name in config.data.label]
    groups = _groups(sites, config.data.groups)
    with FitFolder.open(out, _asked(config, sites)) as fits:
        arms = arms_of(config, folder, sites, device_of(config.performance))
        plan = [(task, arm, who) for task in tasks for arm in arms for who in _models(sites)]
        scores = {task.name: Scores(sites, task.label, task.known) for task in tasks}
        total = len(plan) * config.train.epochs
        for i, (task, arm, who) in enumerate(plan):
            done = i * config.train.epochs
            epoch = partial(_epoch, progress, done, total)
            train = partial(_train, config, sites, task, arm, who, epoch)
            n_test = len(scores[task.name].rows)
            found = fits.fit(_name(task, arm, who, sites), train, n_test)
            scores[task.name].add(arm.name, who, found.logits, found.best_epoch)
            progress(done + config.train.epochs, total)
        parts = {task.name: compare(scores[task.name], groups, task.name) for task in tasks}
        table = pd.concat([part.table for part in parts.values()], ignore_index=True)
        summary = _summary(config, sites, tasks, arms, parts)
        _store(out, config, sites, tasks, table, summary)
    return CodesResult(table=table, summary=summary)


def _refuse_damage(paths: list[Path]) -> None:
    for path in paths:
        damage = verify(path)
        if damage:
            raise ReleaseError(
                f"{path} is not as it was made: {damage[0].file} is {damage[0].what} "
                f"({len(damage)} file(s) in all); get it again from the site that made it."
            )


def task_of(sites: Sites, name: str, *, several: bool) -> Task:
    """The label of that name, in all sites alike.

    Raises
    ------
    TableError : no such label, not two values, or a site where one of them is missing in a split
    """
    for site, release in zip(sites.names, sites.releases, strict=True):
        if name not in release.manifest.labels:
            there = ", ".join(release.manifest.labels)
            raise TableError(
                f"The release of site {site!r} has no label {name!r}; its labels are {there}."
            )
    column = sites.records[name]
    if several or (column.isna().any() and set(column.dropna()) <= {0, 1}):
        values, _, _ = label_columns(sites.records, [name])
        known = ~np.isnan(values[:, 0])
        label = np.where(known, values[:, 0], 0).astype(np.int64)
        classes = (f"no {name}", name)
    else:
        codes, task, names = label_columns(sites.records, name)
        if task != "binary":
            raise TableError(
                f"Label {name!r} has the values {', '.join(names)}; a training on codes tells two "
                "apart. Give one column of 1 and 0 for each value."
            )
        label, known = codes.astype(np.int64), np.ones(len(codes), dtype=bool)
        classes = (names[0], names[1])
    task_ = Task(name=name, classes=classes, label=label, known=known)
    _check_sides(sites, task_)
    return task_


def _check_sides(sites: Sites, task: Task) -> None:
    for i, site in enumerate(sites.names):
        for split in ("train", "dev", "test"):
            rows = rows_of(sites, task, split, i)
            n_values = len(np.unique(task.label[rows]))
            if n_values < 2:
                raise TableError(
                    f"Label {task.name!r} has {n_values} of its two values in the {split} records "
                    f"of site {site!r} ({len(rows)} records); choose another label, or "
                    "encode with other shares or seeds for `test` and `dev`."
                )


def _models(sites: Sites) -> list[int | None]:
    """None for the model of all sites, and the number of each site; one site has one model."""
    n = len(sites.names)
    return [0] if n == 1 else [None, *range(n)]


def _train(
    config: CodesConfig, sites: Sites, task: Task, arm: Arm, who: int | None, progress: Progress
) -> tuple[dict[str, Any], int, NDArray[np.float32]]:
    """(weights, best epoch, logits of the test records of all sites)."""
    from confide.training.codes import fit, predict

    rows = {split: rows_of(sites, task, split, who) for split in ("train", "dev")}
    test = rows_of(sites, task, "test", None)
    network = arm.build(1)
    fitted = fit(
        network,
        arm.inputs,
        task.label,
        rows["train"],
        rows["dev"],
        config.train,
        config.performance,
        progress=progress,
    )
    logits = predict(network, arm.inputs, test, config.performance)
    return fitted.weights, fitted.best_epoch, logits[:, 0]


def rows_of(sites: Sites, task: Task, split: str, who: int | None) -> NDArray[np.intp]:
    """Records of a split with a known label, of one site or of all."""
    chosen = (sites.records["split"] == split).to_numpy() & task.known
    if who is not None:
        chosen &= sites.site == who
    return np.flatnonzero(chosen)


def _epoch(progress: Progress, done: int, total: int, epoch: int, _: int) -> None:
    progress(done + epoch, total)


def _name(task: Task, arm: Arm, who: int | None, sites: Sites) -> dict[str, str]:
    model = ALL_SITES if who is None else sites.names[who]
    return {"label": task.name, "arm": arm.name, "model": model}


def _groups(sites: Sites, names: tuple[str, ...]) -> pd.DataFrame:
    known = sorted(set.intersection(*(set(r.manifest.columns) for r in sites.releases)))
    for name in names:
        if name not in known:
            raise TableError(
                f"data.groups names {name!r}, which is no public column of all releases; these "
                f"are {', '.join(known) or 'none'}."
            )
    return sites.records[list(names)]


def _asked(config: CodesConfig, sites: Sites) -> dict[str, Any]:
    asked = config.model_dump(mode="json", include={"train", "compare"})
    asked["precision"] = config.performance.precision
    asked["releases"] = {
        name: release.manifest.digest
        for name, release in zip(sites.names, sites.releases, strict=True)
    }
    return asked


def _summary(
    config: CodesConfig, sites: Sites, tasks: list[Task], arms: list[Arm], parts: dict[str, Any]
) -> dict[str, Any]:
    labels = {}
    for task in tasks:
        found = parts[task.name].summary
        for arm in arms:
            found["arms"][arm.name]["encoder"] = arm.encoder
        labels[task.name] = {"positive": task.classes[1], "negative": task.classes[0], **found}
    return {
        "labels": labels,
        "sites": [_site(sites, i) for i in range(len(sites.names))],
        "units": sites.units,
        "n_resamples": N_RESAMPLES,
        "statement": sites.releases[0].manifest.statement,
        "warnings": _warnings(sites),
    }


def _site(sites: Sites, i: int) -> dict[str, Any]:
    records = sites.records[sites.site == i]
    counts = records["split"].value_counts()
    return {
        "site": sites.names[i],
        "release_id": sites.releases[i].id,
        "key_id": sites.releases[i].key_id,
        "digest": sites.releases[i].manifest.digest,
        "n_records": len(records),
        "n_train": int(counts.get("train", 0)),
        "n_dev": int(counts.get("dev", 0)),
        "n_test": int(counts.get("test", 0)),
        "n_patients": int(records["patient"].nunique()) if sites.units == "patients" else None,
    }


def _warnings(sites: Sites) -> list[str]:
    warnings = []
    if sites.units == "records":
        warnings.append(
            "The releases do not tell which codes are of one patient, so intervals treat records "
            "as independent; where patients have several, they are too narrow. Publish pseudonyms "
            "(encode.pseudonyms: true) for intervals by patient."
        )
    keys = [release.key_id for release in sites.releases]
    if len(set(keys)) < len(keys):
        warnings.append(
            "Two sites used one key: each can undo the codes of the other, and equal images have "
            "codes that can be recognised as equal."
        )
    return warnings


def _store(
    out: Path,
    config: CodesConfig,
    sites: Sites,
    tasks: list[Task],
    table: pd.DataFrame,
    summary: dict[str, Any],
) -> None:
    from confide.reports.codes import render_codes

    model = {
        "model": config.train.model.model_dump(mode="json"),
        "encoder": sites.releases[0].manifest.encoder,
        "shape": list(sites.releases[0].shape),
        "keys": {
            name: release.key_id for name, release in zip(sites.names, sites.releases, strict=True)
        },
        "digests": {
            name: release.manifest.digest
            for name, release in zip(sites.names, sites.releases, strict=True)
        },
        "labels": {task.name: list(task.classes) for task in tasks},
    }
    method = {
        "sites": ", ".join(sites.names),
        "encoder": sites.releases[0].manifest.encoder,
        "train": config.train.model_dump(mode="json"),
        "versions": {name: version(name) for name in ("confide", "numpy", "torch")}
        | {"python": platform.python_version()},
    }
    write_json(out / "model.json", model)
    write_table(out / "results.parquet", table)
    write_json(out / "summary.json", summary)
    title = f"Training on codes: {', '.join(task.name for task in tasks)}"
    page = render_codes(table, summary, title=title, method=method)
    write_bytes(out / "report.html", page.encode())
