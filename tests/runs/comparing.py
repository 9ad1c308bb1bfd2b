"""Small audits of several recipes on the same patients, for tests of comparisons."""

import numpy as np
import pandas as pd

from confide.cohort import Cohort
from confide.runs import run
from confide.training.base import FunctionTrainer


def cohort(first, n_patients):
    """Patients of one or two records each."""
    patient = np.repeat(np.arange(first, first + n_patients), 1 + np.arange(n_patients) % 2)
    return Cohort(
        record=first * 2 + np.arange(len(patient)),
        patient=patient,
        label=np.arange(len(patient)) % 2,
        task="binary",
        classes=("no", "yes"),
        groups=pd.DataFrame({"sex": np.where(patient % 2, "f", "m")}),
    )


def make(out, *, leak, seed=0, n_models=16):
    """An audit of a recipe that leaks so much."""
    audited, held = cohort(0, 48), cohort(1000, 40)
    n = audited.n_records
    truth = np.concatenate([audited.label, held.label])
    hard = np.random.default_rng(11).normal(size=len(truth))

    def fit(rows, model_seed):
        rng = np.random.default_rng([model_seed, int(1000 * leak)])
        side = 2.0 * truth - 1
        logits = side + hard + rng.normal(size=len(truth))
        logits[:n] += leak * side[:n] * np.isin(np.arange(n), rows)
        return logits[:, None]

    config = {"data": {"name": "made"}, "train": {"leak": leak, "epochs": 3}}
    return run(
        audited,
        FunctionTrainer(fit),
        out,
        heldout=held,
        n_models=n_models,
        seed=seed,
        config=config,
    )
