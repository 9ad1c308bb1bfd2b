"""What a budget of models buys, before anything is trained."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from confide import masks
from confide.audits.mann_whitney import null_se
from confide.audits.patients import smallest_detectable_auc
from confide.config import Config
from confide.datasets import Data
from confide.runs.launch import split, trainer_of

_BUDGETS = (16, 32, 64, 128, 256)


def plan(config: Config, folder: Path, *, measure: bool = True) -> dict[str, Any]:
    """Models, time, disk and resolution of the audit that a configuration describes.

    Parameters
    ----------
    config, folder : from :func:`confide.config.load`
    measure : train a few steps to estimate the time

    Returns
    -------
    plain JSON: n_models, n_patients, n_records, disk_bytes, seconds (None when not measured),
    models_at_once, `budgets`: for several numbers of models the standard error of a patient's AUC
    without a leak, and the smallest AUC at which a patient alone would be listed (None: no patient
    alone can be) or how many patients with perfect separation it takes
    """
    masks.balanced(config.audit.n_models, 1, fraction=config.audit.fraction)  # refused early
    data = config.data.load(folder)
    cohort, heldout = split(data)
    trainer = trainer_of(config, data)
    n_outputs = 1 if cohort.task == "binary" else len(cohort.classes)
    stored = len(data.test) * config.train.views * n_outputs * 4 + cohort.n_patients
    result: dict[str, Any] = {
        "n_models": config.audit.n_models,
        "n_patients": cohort.n_patients,
        "n_records": cohort.n_records,
        "n_heldout_records": 0 if heldout is None else heldout.n_records,
        "models_at_once": trainer.models_at_once,
        "disk_bytes": config.audit.n_models * stored,
        "seconds": _seconds(config, data) if measure else None,
        "budgets": [],
    }
    sizes = cohort.records_per_patient
    for n in sorted({*_BUDGETS, config.audit.n_models}):
        n_in = round(config.audit.fraction * n)
        if not 0 < n_in < n:
            continue
        sides = (np.full(cohort.n_patients, n_in), np.full(cohort.n_patients, n - n_in))
        smallest, needed = smallest_detectable_auc(*sides, sizes, fdr=config.audit.fdr)
        result["budgets"].append(
            {
                "n_models": n,
                "se": null_se(n_in, n - n_in),
                "smallest_detectable_auc": smallest,
                "n_perfect_needed": needed,
            }
        )
    return result


def _seconds(config: Config, data: Data) -> float:
    """Extrapolated from short trainings of one group of models on this machine."""
    cohort, _ = split(data)
    expected = config.audit.fraction * cohort.n_records
    batch = min(config.train.batch_size, max(1, round(expected)))
    few = min(expected, 4.0 * batch)  # members of the trial: at most four steps an epoch
    took = []
    for epochs in (1, 1, 3):  # the first warms up
        train = config.train.model_copy(update={"epochs": epochs})
        trainer = trainer_of(config.model_copy(update={"train": train}), data, few)
        size = min(trainer.models_at_once, config.audit.n_models)
        members = cohort.expand(masks.balanced(max(size, 4), cohort.n_patients))[:size]
        start = time.perf_counter()
        trainer.fit(members, list(range(size)))
        took.append(time.perf_counter() - start)
    epoch = max((took[2] - took[1]) / 2, 0.0)
    fixed = max(took[1] - epoch, 0.0)
    scale = max(1, round(expected / batch)) / max(1, round(few / batch))
    groups = -(-config.audit.n_models // size)
    return float(groups * (fixed + config.train.epochs * epoch * scale))
