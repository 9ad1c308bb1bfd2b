"""Cohorts and signals that the tests of audits share."""

import numpy as np

from confide.cohort import Cohort
from confide.masks import balanced


def cohort_of(patient, groups=None, label=None):
    n = len(patient)
    given = {} if groups is None else {"groups": groups}
    return Cohort(
        record=np.arange(n),
        patient=np.asarray(patient),
        label=np.arange(n) % 2 if label is None else label,
        task="binary",
        classes=("no", "yes"),
        **given,
    )


def study(seed, n_patients=60, n_models=16, most=5, leak=0.0, share=1.0, between=0.0):
    """Correlated records of patients; `leak` sd in a share of the patients, models vary."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(n_patients), rng.integers(1, most + 1, n_patients))
    cohort = cohort_of(patient)
    held = balanced(n_models, n_patients, seed=seed)
    noise = rng.standard_normal((n_models, n_patients))[:, patient]
    noise = np.sqrt(0.5) * (noise + rng.standard_normal((n_models, len(patient))))
    strength = leak * np.exp(between * rng.standard_normal(n_models))[:, None]
    leaking = rng.random(n_patients) < share
    signal = noise + strength * (held & leaking)[:, patient]
    spread = np.exp(0.4 * rng.standard_normal(len(patient)))
    return rng.standard_normal(len(patient)) + spread * signal, held, cohort
