"""Canaries of a run: held-out patients that are trained on with wrong labels, to be found.

A canary patient is a held-out patient who is moved into the audited records with wrong labels and
is then in half of the models like everyone.  The models learn it by heart or not at all, so an
audit that works lists it.  Nobody else's records are copied or changed, and canaries count among
no patients, groups or utility.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confide.attacks.base import Signals, chunks
from confide.audits.canaries import canaries_found, epsilon_bounds
from confide.audits.patients import patient_risk
from confide.audits.result import AuditResult
from confide.audits.verdict import verdict
from confide.cohort import Cohort
from confide.datasets import Data
from confide.errors import ConfigError
from confide.signals import scalar

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


def plant(data: Data, n_canaries: int, seed: int) -> tuple[Data, Mask]:
    """Make canaries of some held-out patients.

    Wrong labels: another class, the same number of classes further on for all records of a
    canary; for multilabel tasks every known finding is turned round, and unknown ones stay so.

    Parameters
    ----------
    data : the records, some of them held out
    n_canaries : patients, at most half of the held-out ones
    seed : chooses them and their labels

    Returns
    -------
    the data with canaries among the audited records, and (n_records,) bool: which they are

    Raises
    ------
    ConfigError : too few held-out patients with a known label
    """
    cohort = data.cohort
    if not n_canaries:
        return data, np.zeros(cohort.n_records, dtype=bool)
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(2,)))
    known = ~np.isnan(cohort.label).all(axis=1) if cohort.label.ndim == 2 else True
    held_out = np.unique(cohort.patient_index[data.test & known])
    n_held_out = len(np.unique(cohort.patient_index[data.test]))
    if n_canaries > min(len(held_out), n_held_out // 2):
        raise ConfigError(
            f"audit.canaries = {n_canaries} takes that many of the held-out patients, at most "
            f"half; there are {n_held_out}. Hold out more under data.test, or plant fewer."
        )
    patients = rng.permutation(held_out)[:n_canaries]
    canary = np.isin(cohort.patient_index, patients)
    label = cohort.label.copy()
    if cohort.task == "multilabel":
        label[canary] = 1.0 - label[canary]
    else:
        n_classes = len(cohort.classes)
        shift = np.zeros(cohort.n_patients, dtype=np.int64)
        shift[patients] = rng.integers(1, n_classes, n_canaries)
        label = (label + shift[cohort.patient_index]) % n_classes
    planted = replace(data, cohort=replace(cohort, label=label), test=data.test & ~canary)
    return planted, canary


class SomeRecords:
    """A view of signals with some of their records: slices as :class:`Signals` do.

    Parameters
    ----------
    signals : of all records
    chosen : (n_records,) bool
    """

    def __init__(self, signals: Signals, chosen: Mask) -> None:
        self._signals, self._rows = signals, np.flatnonzero(chosen)
        self.shape: tuple[int, ...] = (signals.shape[0], len(self._rows), *signals.shape[2:])

    def __getitem__(self, key: Any) -> Floats:
        """``signals[:, a:b]``: all models, some of the chosen records."""
        models, records = key
        rows = self._rows[records]
        if not len(rows):
            return np.empty((self.shape[0], 0, *self.shape[2:]))[models]
        first, last = int(rows[0]), int(rows[-1])
        return self._signals[:, first : last + 1][:, rows - first][models]


def without_canaries(
    signals: Signals, membership: Mask, cohort: Cohort, canary: Mask
) -> tuple[Signals, Mask, Cohort]:
    """Signals, masks and records of the real patients alone; arguments as in `with_canaries`."""
    if not canary.any():
        return signals, membership, cohort
    real = np.ones(cohort.n_patients, dtype=bool)
    real[cohort.patient_index[canary]] = False
    return SomeRecords(signals, ~canary), membership[:, real], cohort.select(~canary)


def canary_records(table: pd.DataFrame) -> Mask:
    """(n_records,) which audited records of a stored cohort.parquet are canaries."""
    audited = table[~table["heldout"].to_numpy(dtype=bool)]
    if "canary" not in audited:
        return np.zeros(len(audited), dtype=bool)
    return audited["canary"].to_numpy(dtype=bool)


def with_canaries(
    result: AuditResult,
    signals: Signals,
    membership: Mask,
    cohort: Cohort,
    canary: Mask,
    *,
    fdr: float,
    block: NDArray[np.int64] | None = None,
) -> AuditResult:
    """The result of the real patients, with what became of the canaries.

    Adds ``patients.canaries`` {"planted", "found"}, the canaries' bounds of epsilon, and a
    warning that the models saw them; the verdict is made again, with the canaries.

    Parameters
    ----------
    result : of the real patients alone
    signals : (n_models, n_records[, n_views[, n_labels]]) of real records and canaries
    membership : (n_models, n_patients) bool, of both
    cohort, canary : both, and which records are canaries
    fdr : what the list is made at
    block : (n_models,) the blocks within which membership was drawn; None for a single one
    """
    if not canary.any():
        return result
    part = cohort.select(canary)
    columns = cohort.patient_index[canary][np.unique(part.patient_index, return_index=True)[1]]
    signal, held = _read(signals, canary), membership[:, columns]
    _, risk = patient_risk(signal, held, part, fdr=fdr, block=block)
    found = canaries_found(result.patients["p_value"].to_numpy(), risk.p_value, fdr=fdr)
    summary = dict(result.summary)
    summary["patients"] = summary["patients"] | {"canaries": found}
    summary["epsilon"] = [
        *summary["epsilon"],
        *epsilon_bounds(signal, held, part, whose="canaries", block=block),
    ]
    summary["warnings"] = [
        *summary["warnings"],
        f"{part.n_patients:,} held-out patients were trained on with wrong labels as canaries, "
        "each in its share of the models. They count among no patients, groups or utility, but "
        "the models saw them.",
    ]
    summary["verdict"] = verdict(summary)
    return replace(result, summary=summary)


def _read(signals: Signals, chosen: Mask) -> Floats:
    """(n_models, n_chosen) one number a record; only parts with chosen records are read."""
    parts = [
        scalar(signals[:, part][:, chosen[part]]) for part in chunks(signals) if chosen[part].any()
    ]
    return np.concatenate(parts, axis=1)
