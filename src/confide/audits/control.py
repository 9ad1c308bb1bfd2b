"""The positive control: would this audit have listed a patient who is given away?

An audit that finds nothing must show that it could have found something.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from confide.audits.multiple import benjamini_hochberg
from confide.audits.patients import patient_risk
from confide.cohort import Cohort

Floats = NDArray[np.float64]
PLANTED_AUC = 0.95
_N_PLANTED = 20


def planted_control(
    signal: Floats,
    membership: NDArray[np.bool_],
    cohort: Cohort,
    p_value: Floats,
    *,
    fdr: float,
    seed: int,
    block: NDArray[np.int64] | None = None,
) -> dict[str, Any]:
    """Plant leaking patients in the analysis and count how many it lists.

    Copies of up to 20 patients get a fresh random membership column, unrelated to any training,
    and a shift of all their signals in the models that "hold" them, of the size that gives one
    record an area of .95.  They pass through the same tests and the same correction, beside all
    real patients.

    Parameters
    ----------
    signal : (n_models, n_records)
    membership : (n_models, n_patients) bool
    cohort : whose records they are
    p_value : (n_patients,) of the real patients
    fdr : of the list
    seed : chooses patients and columns
    block : (n_models,) the blocks within which membership was drawn; None for a single one

    Returns
    -------
    {"planted": number, "found": number listed, "auc": .95}
    """
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(cohort.n_patients)[:_N_PLANTED]
    rows = np.isin(cohort.patient_index, chosen)
    part = cohort.select(rows)
    # select keeps the order of first appearance; find each planted patient's old column.
    old = cohort.patient_index[rows][np.unique(part.patient_index, return_index=True)[1]]
    column = membership[:, old]
    blocks = np.zeros(len(column), dtype=np.int64) if block is None else block
    for one in np.unique(blocks):
        column[blocks == one] = rng.permuted(column[blocks == one], axis=0)
    values = signal[:, rows]
    spread = _spread_within(values, membership[:, cohort.patient_index[rows]])
    shift = np.sqrt(2.0) * ndtri(PLANTED_AUC) * spread
    shifted = values + shift * part.expand(column)
    _, risk = patient_risk(shifted, column, part, fdr=fdr, block=block)
    q = benjamini_hochberg(np.concatenate([p_value, risk.p_value]))[len(p_value) :]
    return {"planted": len(chosen), "found": int((q <= fdr).sum()), "auc": PLANTED_AUC}


def _spread_within(values: Floats, held: NDArray[np.bool_]) -> Floats:
    """Standard deviation of each record's signals about its in and out means: (n_records,)."""
    n_in = np.maximum(held.sum(axis=0), 1)
    n_out = np.maximum((~held).sum(axis=0), 1)
    mean_in = np.where(held, values, 0.0).sum(axis=0) / n_in
    mean_out = np.where(held, 0.0, values).sum(axis=0) / n_out
    return (values - np.where(held, mean_in, mean_out)).std(axis=0)
