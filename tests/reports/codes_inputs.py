"""What a training on codes hands to its report: realistic in form and size, drawn from a seed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

ENCODERS = {"plain": None, "codes": "neuracrypt", "linear": "linear"}
GROUPS = {"sex": {"Female": 92, "Male": 88}, "age band": {"18 to 40": 41, "41 to 65": 130, "x": 9}}
STATEMENT = (
    "The codes are compatible with NeuraCrypt (Yala et al., 2021); how much they give away is "
    "what the attack suite measures."
)

NOT_OF_ONE_SITE = ("all_sites", "mean_over_sites", "gain", "one_for_all", "gain_for_all")


def _auc(center: float, n_patients: int) -> dict[str, float]:
    half = 0.4 / np.sqrt(n_patients)
    return {"auc": center, "low": max(center - half, 0.0), "high": min(center + 0.9 * half, 1.0)}


def make(
    *,
    labels: tuple[str, ...] = ("opacity", "effusion"),
    arms: tuple[str, ...] = ("plain", "codes", "linear"),
    sites: dict[str, int] | None = None,
    groups: dict[str, dict[str, int]] | None = None,
    encoders: dict[str, str | None] = ENCODERS,
    **summary: Any,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Table and summary; `sites` gives the test patients of each, `summary` replaces its keys."""
    sites = {"a": 84, "b": 60, "c": 36} if sites is None else sites
    groups = GROUPS if groups is None else groups
    n_all = sum(sites.values())
    rows: list[dict[str, Any]] = []
    found: dict[str, Any] = {}

    def add(center: float, n: int, **where: str) -> dict[str, float]:
        area = _auc(center, n)
        counts = {"n_records": 3 * n, "n_patients": n, "n_positive": n}
        rows.append({"group": "", "value": "", **where, **area, **counts})
        return area

    for i, label in enumerate(labels):
        measured = {}
        for j, arm in enumerate(arms):
            where = {"label": label, "arm": arm}
            top = 0.87 - 0.012 * j - 0.05 * i
            if len(sites) > 1:
                one = {**where, "model": "all sites"}
                own = {**where, "model": "own site"}
                measured[arm] = {
                    "all_sites": add(top, n_all, **one, tested_on="all sites"),
                    "mean_over_sites": add(top - 0.011, n_all, **one, tested_on="mean over sites"),
                    "own_site": add(top - 0.034, n_all, **own, tested_on="mean over sites"),
                    "gain": {"value": 0.023, "low": 0.004 - 0.01 * j, "high": 0.041},
                    "one_for_all": _auc(0.62 - 0.01 * j, n_all),
                    "gain_for_all": {"value": 0.239 - 0.002 * j, "low": 0.21, "high": 0.26},
                }
                for k, (site, n) in enumerate(sites.items()):
                    add(top - 0.01 * k, n, **one, tested_on=site)
                    add(top - 0.03 - 0.02 * k, n, **own, tested_on=site)
                    of = {**where, "model": f"model of {site}"}
                    add(0.53 + 0.001 * k, n_all, **of, tested_on="all sites")
                    add(0.62 + 0.001 * k, n_all, **of, tested_on="mean over sites")
                    for m, (other, n_other) in enumerate(sites.items()):
                        reads = other == site or encoders[arm] is None
                        read = top - 0.03 - 0.02 * k if reads else 0.5 + 0.01 * (k - m)
                        add(read, n_other, **of, tested_on=other)
                models = ["all sites", *sites]
            else:
                one = {**where, "model": "one site"}
                area = add(top, n_all, **one, tested_on=next(iter(sites)))
                measured[arm] = dict.fromkeys(NOT_OF_ONE_SITE)
                measured[arm]["own_site"] = area
                models = list(sites)
            for group, values in groups.items():
                for k, (value, n) in enumerate(values.items()):
                    tested = "all sites" if len(sites) > 1 else next(iter(sites))
                    add(top - 0.02 * k, n, **one, tested_on=tested, group=group, value=value)
            measured[arm]["encoder"] = encoders[arm]
            measured[arm]["best_epoch"] = {model: 7 + j + k for k, model in enumerate(models)}
        others = [arm for arm in arms if arm != "codes"] if "codes" in arms else []
        compared = [("all sites", 0.0), ("own site", -0.1)] if len(sites) > 1 else [("one site", 0)]
        found[label] = {
            "positive": label,
            "negative": "clear",
            "arms": measured,
            "differences": [
                {**pair, "model": model, "value": value - 0.012 * j, "low": -0.03, "high": high}
                for j, (arm, high) in enumerate(zip(others, (0.004, -0.003), strict=False), 1)
                for pair in [{"arm": "codes", "against": arm}]
                for model, value in compared
            ],
        }
    whole: dict[str, Any] = {
        "labels": found,
        "sites": [
            {
                "site": site,
                "release_id": f"{k + 1:x}" * 32,
                "key_id": f"{k + 10:x}" * 32,
                "n_records": 15 * n,
                "n_train": 10 * n,
                "n_dev": 2 * n,
                "n_test": 3 * n,
                "n_patients": 5 * n,
            }
            for k, (site, n) in enumerate(sites.items())
        ],
        "units": "patients",
        "statement": STATEMENT,
        "warnings": [],
        "n_resamples": 2000,
    }
    return pd.DataFrame(rows), whole | summary


METHOD = {
    "confide": "0.2.0",
    "torch": "2.13.0",
    "train": {
        "model": {"name": "deep_vit", "dim": 2048, "depth": 1, "heads": 8},
        "epochs": 25,
        "batch_size": 128,
        "optimizer": {"name": "adam", "lr": 1e-4, "weight_decay": 1e-3},
        "balance": True,
        "seed": 0,
    },
    "device": "cpu",
}
