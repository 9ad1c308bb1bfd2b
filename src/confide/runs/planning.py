"""What a budget of models buys, before anything is trained."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from confide import masks
from confide.audits.mann_whitney import null_se
from confide.audits.patients import smallest_detectable_auc
from confide.audits.power import detectable_auc
from confide.config import AuditBlock, Config
from confide.datasets import Data
from confide.runs.canaries import plant
from confide.runs.launch import set_apart, split, trainer_of
from confide.runs.looks import BLOCK, StandardError, named, planned

_BUDGETS = (16, 32, 64, 128, 256)
_TO_HALF_WIDTH = 1.96


def plan(config: Config, folder: Path, *, measure: bool = True) -> dict[str, Any]:
    """Models, time, disk and resolution of the audit that a configuration describes.

    Parameters
    ----------
    config, folder : from :func:`confide.config.load`
    measure : train a few steps to estimate the time

    Returns
    -------
    plain JSON: n_models, n_patients and n_records (without canaries), n_canaries (patients),
    n_heldout_records (without canaries), n_dev_patients (set apart by `train.dev`), models_at_once,
    disk_bytes, seconds (None when not measured), budgets, until (None without it); of n_models and
    their time and disk, with `until` these are the most, and so is the time with `dev.patience`.

    `budgets`: for several numbers of models, all in one block, `se` (standard error of a patient's
    AUC without a leak), `half_width` of a 95 % interval there, `smallest_detectable_auc` (the
    smallest measured AUC at which a patient alone would be listed; None: no patient alone can be),
    `n_perfect_needed` (patients with perfect separation that it takes for any to be listed),
    `detectable_auc` (the true AUC at which a patient alone is listed in 80 % of audits; None as
    above), `seconds`, `disk_bytes`.

    `until`: `rule`; `fdr` of all looks and `fdr_of_look`; `looks`, each with `n_models`, `se`,
    `smallest_detectable_auc` and `n_perfect_needed` of its list, and the
    `smallest_detectable_auc_without_looks` of one block at the whole rate; for a standard error
    `n_models_needed`, the models that reach it without a leak, and `stops_at_most_at`, the look
    from then on (None: the run may end before).  The posterior standard error that the rule reads
    is smaller than that of the measured AUC, and a leak makes both smaller, so it is hardly ever
    later.
    """
    audit = config.audit
    block = BLOCK if audit.until else None
    # Refused early.
    masks.balanced(audit.n_models, 1, fraction=audit.fraction, block=block)
    data, apart = set_apart(config.data.load(folder), config.train.dev)
    cohort, _ = split(data)
    planted, canary = plant(data, audit.canaries, audit.seed)
    _, heldout = split(planted)
    n_canaries = len(np.unique(data.cohort.patient_index[canary]))
    n_outputs = 1 if cohort.task == "binary" else len(cohort.classes)
    stored = len(data.test) * config.train.views * n_outputs * 4 + cohort.n_patients + n_canaries
    if config.train.trace:
        stored += 4 * int((~planted.test).sum())
    seconds = _seconds(config, planted, apart, folder) if measure else None
    return {
        "n_models": audit.n_models,
        "n_patients": cohort.n_patients,
        "n_records": cohort.n_records,
        "n_canaries": n_canaries,
        "n_heldout_records": 0 if heldout is None else heldout.n_records,
        "n_dev_patients": 0 if apart is None else apart.cohort.n_patients,
        "models_at_once": trainer_of(config, planted, apart=apart, folder=folder).models_at_once,
        "disk_bytes": audit.n_models * stored,
        "seconds": seconds,
        "budgets": [
            _budget(n, n_in, cohort.records_per_patient, audit)
            | {
                "seconds": None if seconds is None else seconds * n / audit.n_models,
                "disk_bytes": n * stored,
            }
            for n in sorted({*_BUDGETS, audit.n_models})
            if 0 < (n_in := round(audit.fraction * n)) < n
        ],
        "until": _until(cohort.records_per_patient, audit) if audit.until else None,
    }


def _budget(
    n_models: int, n_in: int, sizes: NDArray[np.int64], audit: AuditBlock
) -> dict[str, Any]:
    sides = np.full(len(sizes), n_in), np.full(len(sizes), n_models - n_in)
    smallest, needed = smallest_detectable_auc(*sides, sizes, fdr=audit.fdr)
    se = null_se(n_in, n_models - n_in)
    return {
        "n_models": n_models,
        "se": se,
        "half_width": _TO_HALF_WIDTH * se,
        "smallest_detectable_auc": smallest,
        "n_perfect_needed": needed,
        "detectable_auc": detectable_auc(*sides, sizes, fdr=audit.fdr),
    }


def _until(sizes: NDArray[np.int64], audit: AuditBlock) -> dict[str, Any]:
    looks, rule = planned(audit.n_models), named(audit.until or "")
    share = audit.fdr / len(looks)
    in_block = round(audit.fraction * BLOCK)
    rows = []
    for n in looks:
        n_in = in_block * n // BLOCK
        sides = np.full(len(sizes), n_in), np.full(len(sizes), n - n_in)
        smallest, needed = smallest_detectable_auc(*sides, sizes, fdr=share, n_blocks=n // BLOCK)
        rows.append(
            {
                "n_models": n,
                "se": null_se(n_in, n - n_in),
                "smallest_detectable_auc": smallest,
                "n_perfect_needed": needed,
                "smallest_detectable_auc_without_looks": smallest_detectable_auc(
                    *sides, sizes, fdr=audit.fdr
                )[0],
            }
        )
    found: dict[str, Any] = {
        "rule": rule.text,
        "fdr": audit.fdr,
        "fdr_of_look": share,
        "looks": rows,
    }
    if isinstance(rule, StandardError):
        n = models_for(rule.at_most, in_block / BLOCK)
        found["n_models_needed"] = n
        found["stops_at_most_at"] = next((look for look in looks if look >= n), None)
    return found


def models_for(se: float, fraction: float) -> int:
    """Models, in whole blocks, from which a patient's AUC has this standard error without a leak.

    Solves ``se**2 = (n + 1) / (12 f (1 - f) n**2)``, which is
    :func:`confide.audits.mann_whitney.null_se`, for n.

    >>> models_for(0.05, 0.5)
    144
    """
    c = 12.0 * fraction * (1.0 - fraction) * se**2
    n = (1.0 + math.sqrt(1.0 + 4.0 * c)) / (2.0 * c)
    return BLOCK * math.ceil(n / BLOCK - 1e-9)


def _seconds(config: Config, data: Data, apart: Data | None, folder: Path) -> float:
    """Extrapolated from short trainings of one group of models on this machine, of all epochs."""
    cohort, _ = split(data)
    expected = config.audit.fraction * cohort.n_records
    batch = min(config.train.batch_size, max(1, round(expected)))
    few = min(expected, 4.0 * batch)  # members of the trial: at most four steps an epoch
    took = []
    for epochs in (1, 3):
        train = config.train.model_copy(update={"epochs": epochs})
        trainer = trainer_of(config.model_copy(update={"train": train}), data, few, apart, folder)
        size = min(trainer.models_at_once, config.audit.n_models)
        members = cohort.expand(masks.balanced(max(size, 4), cohort.n_patients))[:size]
        trainer.fit(members, list(range(size)))  # what is made once for all groups
        start = time.perf_counter()
        trainer.fit(members, list(range(size)))
        took.append(time.perf_counter() - start)
    epoch = max((took[1] - took[0]) / 2, 0.0)
    fixed = max(took[0] - epoch, 0.0)
    scale = max(1, round(expected / batch)) / max(1, round(few / batch))
    groups = -(-config.audit.n_models // size)
    return float(groups * (fixed + config.train.epochs * epoch * scale))
