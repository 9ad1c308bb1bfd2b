"""Comparisons without any model: arms and erased folders from made-up results."""

import copy

import numpy as np
import pandas as pd

from confide.audits.comparison import Arm, Measured, compare
from confide.audits.differences import OverModels, PatientAreas
from confide.stores import write_json, write_table

N = 300
SIZES = {"sex": {"Female": 200, "Male": 100}, "race": {"White": 285, "Black": 15}}


def arm(make, name, *, auc=0.6, auroc=0.9, recipe=None, measured=True, masks="m", **summary):
    """One audit of `N` patients, its attack and utility as given."""
    result = make(N, groups=copy.deepcopy(SIZES), guards=[], **summary)
    whole = result.summary
    shift = auc - whole["attacks"]["lira"]["auc"]
    for found in whole["attacks"].values():
        for key in ("auc", "auc_low", "auc_high"):
            found[key] += shift
    whole["utility"]["overall"] |= {"auroc": auroc, "low": auroc - 0.01, "high": auroc + 0.01}
    patients = result.patients.sort_values("patient", ignore_index=True)
    sex, race = (np.repeat(list(v), list(v.values())) for v in SIZES.values())
    patients["group_sex"], patients["group_race"] = sex, race
    patients["auc_joint"] += shift
    return Arm(
        name=name,
        recipe=recipe or {},
        summary=whole,
        patients=patients,
        groups=result.groups.assign(withheld=False),
        fraction=0.5,
        erased=not measured,
        measured=_measured(auc, auroc, masks) if measured else None,
    )


def _measured(auc, auroc, masks, n_models=16):
    rng = np.random.default_rng(int(1e4 * auc))

    def over_models(value, shared):
        influence = rng.normal(0, 0.15 / N, (n_models, N))
        influence -= influence.mean(axis=1, keepdims=True)
        values = value + rng.normal(0, 0.004, n_models)
        return OverModels(
            values=values - values.mean() + value,
            influence=influence.astype(np.float32),
            shared=shared,
        )

    return Measured(
        attack=over_models(auc, True),
        areas=PatientAreas(
            areas=auc + rng.normal(0, 0.05, N),
            cells=rng.normal(0, 0.02, (n_models, N)).astype(np.float32),
        ),
        auroc=over_models(auroc, False),
        masks=masks,
    )


def three(make, names=("plain", "small", "early")):
    """One audit that gives away much, and two alike of which one has the higher utility."""
    return compare(
        [
            arm(make, names[0], auc=0.8, auroc=0.85, recipe={"train.epochs": 14}),
            arm(make, names[1], auc=0.6, auroc=0.88, recipe={"train.epochs": 3}),
            arm(make, names[2], auc=0.601, auroc=0.91, recipe={"train.epochs": 1}),
        ],
        "lira",
    )


def erased_folder(make, path, *, auc, auroc, epochs=14):
    """An audit folder as erasing leaves it."""
    one = arm(make, path.name, auc=auc, auroc=auroc, measured=False)
    path.mkdir(parents=True)
    write_json(
        path / "manifest.json",
        {
            "format": "erased on 2026-01-01",
            "config": {"train": {"epochs": epochs}},
            "design": {"n_models": 64, "fraction": 0.5},
            "fingerprint": "ab" * 32,
        },
    )
    write_json(path / "summary.json", one.summary)
    write_table(path / "patients.parquet", one.patients)
    write_table(path / "groups.parquet", one.groups)
    records = pd.DataFrame({"record": np.arange(N), "patient": one.patients["patient"], "label": 1})
    write_table(path / "records.parquet", records)
    return path
