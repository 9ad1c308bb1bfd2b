"""Patients with known true areas, and what models would measure of them."""

from types import SimpleNamespace

import numpy as np
from scipy.special import ndtr, ndtri

from confide.audits.mann_whitney import row_auc


def measured_risk(truth, n_in, n_out, rng, share_in=0.5, draw=None):
    """As much of a PatientRisk as the tail reads: normal signals, or drawn by `draw`."""
    draw = draw or (lambda shape: rng.standard_normal(shape, dtype=np.float32))
    held = np.arange(n_in + n_out)[:, None] < n_in
    parts = []
    for part in np.array_split(truth, max(1, len(truth) * (n_in + n_out) // 1_000_000)):
        signal = draw((n_in + n_out, len(part)))
        signal[:n_in] = np.sqrt(share_in) * signal[:n_in] + ndtri(part)
        signal[n_in:] *= np.sqrt(1 - share_in)
        parts.append(row_auc(signal, np.broadcast_to(held, signal.shape)))
    return SimpleNamespace(
        joint=np.concatenate([p.auc for p in parts]),
        se=np.concatenate([p.se for p in parts]),
        n_in=np.concatenate([p.n_in for p in parts]),
        n_out=np.concatenate([p.n_out for p in parts]),
    )


def published(n, rng):
    """Median .565, a fifth above .6, few in the tail: as published for chest radiographs."""
    far = np.where(rng.random(n) < 0.1, rng.exponential(0.2, n), 0.0)
    return ndtr(0.16 + 0.09 * rng.standard_normal(n) + far)


def sparse(n, rng, share=0.02):
    """Nothing but chance, except for a few who are given away more or less."""
    return np.where(rng.random(n) < share, rng.uniform(0.6, 0.95, n), 0.5)


def strong(n, rng):
    """Most leak, some nearly completely."""
    return np.minimum(ndtr(rng.gamma(1.2, 0.35, n)), 0.997)


def chance(n, rng):
    return np.full(n, 0.5)
