"""What chance alone would show: survival curves of patient risk without any leak."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from confide.attacks.threads import in_threads
from confide.audits.mann_whitney import survival
from confide.cohort import Cohort

Floats = NDArray[np.float64]
_CHUNK_ELEMENTS = 5_000_000


def joint_survival(n_in: NDArray[np.int64], n_out: NDArray[np.int64], thresholds: Floats) -> Floats:
    """Expected share of patients with joint area >= each threshold by chance, exact.

    `n_in`, `n_out` (n_patients,) models with and without each patient; returns
    (n_thresholds,).  Ties between signals would make the true share smaller.
    """
    total = np.zeros(len(thresholds))
    sides, counts = np.unique(np.stack([n_in, n_out], axis=1), axis=0, return_counts=True)
    for (a, b), count in zip(sides, counts, strict=True):
        # The smallest U whose area reaches the threshold; the nudge undoes rounding of a ratio.
        u = np.ceil(thresholds * a * b - 1e-9).astype(np.int64)
        total += count * survival(int(a), int(b), u)
    return total / max(len(n_in), 1)


def max_survival(
    signal: Floats,
    membership: NDArray[np.bool_],
    cohort: Cohort,
    thresholds: Floats,
    *,
    n_permutations: int = 1000,
    seed: int = 0,
    block: NDArray[np.int64] | None = None,
) -> Floats:
    """Expected share of patients with max area >= each threshold by chance.

    The patient's membership column is redrawn (same number of models in, in each block) and the
    area of each of the patient's records computed again from the same signals, so the correlation
    between the records of a patient is kept.  One matrix product a chunk: permuted masks times
    ranks.

    Parameters
    ----------
    signal : (n_models, n_records)
    membership : (n_models, n_patients) bool
    thresholds : (n_thresholds,)
    block : (n_models,) the blocks within which membership was drawn; None for a single one

    Returns
    -------
    (n_thresholds,) mean over permutations and patients with a known label
    """
    rng = np.random.default_rng(seed)
    n_models = len(signal)
    blocks = np.zeros(n_models, dtype=np.int64) if block is None else block
    counts = np.stack([membership[blocks == b].sum(axis=0) for b in np.unique(blocks)])
    kinds, kind = np.unique(counts, axis=1, return_inverse=True)
    by_patient = np.argsort(cohort.patient_index, kind="stable")
    sizes = cohort.records_per_patient
    starts = np.cumsum(sizes) - sizes
    survived, n_drawn = np.zeros(len(thresholds)), 0
    step = max(1, _CHUNK_ELEMENTS // n_permutations)
    for i, in_each in enumerate(kinds.T):
        n_in = int(in_each.sum())
        if not 0 < n_in < n_models:
            continue
        masks = _random_masks(rng, n_permutations, blocks, in_each)
        least = n_in * (n_in + 1) / 2.0
        pairs = float(n_in * (n_models - n_in))
        patients = np.flatnonzero(kind.ravel() == i)
        patients = patients[np.argsort(-sizes[patients], kind="stable")]

        def drawn(
            group: NDArray[np.intp],
            masks: NDArray[np.float32] = masks,
            least: float = least,
            pairs: float = pairs,
        ) -> NDArray[np.float32]:
            """Sorted largest areas of the patients of a group, in all permutations."""
            rows = [by_patient[starts[some] + k] for k, some in enumerate(_kth(group, sizes))]
            # Largest sums of ranks are largest areas.
            best = (_largest(masks, signal, rows) - least) / pairs
            best = best[~np.isnan(best)]
            best.sort()
            return best

        for best in in_threads(drawn, _split(patients, sizes[patients], step)):
            # float32 products of half-integers below 2**23 are exact; the division is not.
            n_drawn += len(best)
            survived += len(best) - np.searchsorted(best, thresholds - 1e-6, side="left")
    return survived / max(n_drawn, 1)


def _kth(group: NDArray[np.intp], sizes: NDArray[np.int64]) -> list[NDArray[np.intp]]:
    """The patients with more than k records, k = 0, 1, ...; `group` has the largest first."""
    own = sizes[group]
    return [group[: np.searchsorted(-own, -k, side="left")] for k in range(int(own[0]))]


def _largest(
    masks: NDArray[np.float32], signal: Floats, rows: list[NDArray[np.intp]]
) -> NDArray[np.float32]:
    """Largest sum of ranks of each patient's records: (n_permutations, n_patients).

    `rows` are the first, second, ... records of the patients, those with most records first.
    """
    ends = np.cumsum([len(some) for some in rows])
    ranks = _ranks(signal[:, np.concatenate(rows)])
    best: NDArray[np.float32] = masks @ ranks[:, : ends[0]]
    for start, stop in pairwise(ends):
        have = best[:, : stop - start]
        np.fmax(have, masks @ ranks[:, start:stop], out=have)
    return best


def _split(
    patients: NDArray[np.intp], sizes: NDArray[np.int64], step: int
) -> list[NDArray[np.intp]]:
    """Groups of patients with about `step` records each."""
    group = np.cumsum(sizes) // step
    return np.split(patients, np.flatnonzero(np.diff(group)) + 1) if len(patients) else []


def _random_masks(
    rng: np.random.Generator,
    n_permutations: int,
    blocks: NDArray[np.int64],
    in_each: NDArray[np.int64],
) -> NDArray[np.float32]:
    masks = np.zeros((n_permutations, len(blocks)), dtype=np.float32)
    for block, n_in in zip(np.unique(blocks), in_each, strict=True):
        models = np.flatnonzero(blocks == block)
        order = np.argsort(rng.random((n_permutations, len(models)), dtype=np.float32), axis=1)
        np.put_along_axis(masks, models[order[:, :n_in]], 1.0, axis=1)
    return masks


def _ranks(signal: Floats) -> NDArray[np.float32]:
    """Ranks over models, ties averaged: (n_models, n) -> float32; NaN columns stay NaN."""
    columns = np.ascontiguousarray(signal.T)
    order = np.argsort(columns, axis=1)
    ordered = np.take_along_axis(columns, order, axis=1)
    place = np.broadcast_to(np.arange(1, len(signal) + 1, dtype=np.float32), columns.shape)
    if (ordered[:, 1:] == ordered[:, :-1]).any():
        from scipy.stats import rankdata

        ranks = rankdata(columns, axis=1).astype(np.float32)
    else:
        ranks = np.empty(columns.shape, dtype=np.float32)
        np.put_along_axis(ranks, order, place, axis=1)
    ranks[np.isnan(columns).any(axis=1)] = np.nan
    return np.ascontiguousarray(ranks.T)
