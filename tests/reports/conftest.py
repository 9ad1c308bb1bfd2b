"""An audit result as audits make them: realistic in form and size, drawn from a seed."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import pytest

from confide.audits.groups import COLUMNS
from confide.audits.result import AuditResult

HOSTILE = (
    "<script>alert(1)</script>",
    "</script><script>alert(2)</script>",
    '"><img src=x onerror=alert(3)>',
    "{{ 7*7 }}{% raw %}",
    "<a href='javascript:alert(4)'>click</a>",
    "Ärztin 👩‍⚕️ \u202egnihtemos\u202c",
    "[bold red]loud[/] \x1b[2J\x07",
    "a" * 150,
)
THRESHOLDS = (0.6, 0.7, 0.8, 0.9)


def _groups(rng: np.random.Generator, groups: dict[str, dict[str, int]]) -> pd.DataFrame:
    rows = []
    for group, sizes in groups.items():
        for value, n in sizes.items():
            ratio = float(np.exp(rng.normal(0, 0.5)))
            width = float(np.exp(8 / np.sqrt(n)))
            rows.append(
                {
                    "group": group,
                    "value": value,
                    "n_patients": n,
                    "share_of_tail": ratio * n / sum(sizes.values()) / 2,
                    "ratio": ratio,
                    "ratio_low": ratio / width,
                    "ratio_high": ratio * width,
                    "p_value": float(rng.uniform()),
                    "q_value": float(rng.uniform()),
                    "mean_auc": 0.5 + float(rng.uniform(0, 0.1)),
                    "p_holm": float(rng.uniform()),
                    "mean_difference": 0.02,
                    "mean_difference_low": -0.01,
                    "mean_difference_high": 0.05,
                    "adjusted_difference": -0.004,
                    "adjusted_difference_low": -0.03,
                    "adjusted_difference_high": 0.022,
                }
            )
    return pd.DataFrame(rows, columns=COLUMNS)


def _curves(auc_joint: np.ndarray, attacks: tuple[str, ...]) -> pd.DataFrame:
    rows: list[tuple[str, str, float, float, float, float]] = []
    for i, attack in enumerate(attacks):
        for x in np.logspace(-4, 0, 150):
            y = x ** (0.75 - 0.04 * i)
            rows.append(("roc", attack, x, y, y * 0.85, min(1.0, y * 1.15)))
    grid = np.linspace(0, 1, 201)
    for name, shift in (("joint", 0.0), ("max", 0.03)):
        for x in grid:
            y = float(np.mean(auc_joint + shift >= x))
            error = 2 * np.sqrt(y * (1 - y) / len(auc_joint))
            rows.append(("survival", name, x, y, max(y - error, 0), min(y + error, 1)))
            z = (x - 0.5 - shift / 2) / 0.07
            chance = 0.5 * (1 - np.tanh(0.8 * z))
            band = (chance * 0.7, chance * 1.3) if name == "joint" else (np.nan, np.nan)
            rows.append(("survival", f"{name}_null", x, chance, *band))
    for x in grid[::10]:
        y = float(np.mean(auc_joint >= x)) * 0.8
        rows.append(("survival", "joint_corrected", x, y, y * 0.3, min(y * 2 + 0.01, 1)))
    return pd.DataFrame(rows, columns=["curve", "series", "x", "y", "low", "high"])


def _attack(auc: float) -> dict[str, Any]:
    def rate(fpr: float, tpr: float) -> dict[str, Any]:
        ppv = {str(p): tpr * p / (tpr * p + fpr * (1 - p)) for p in (0.5, 0.1, 0.01)}
        return {
            "tpr": tpr,
            "low": tpr * 0.8,
            "high": tpr * 1.2,
            "n_false_positives": round(fpr * 14200),
            "ppv": ppv,
        }

    return {
        "auc": auc,
        "auc_low": auc - 0.02,
        "auc_high": auc + 0.02,
        "balanced_accuracy": 0.5 + (auc - 0.5) * 0.7,
        "tpr_at_fpr": {
            "0.1": rate(0.1, 0.21),
            "0.01": rate(0.01, 0.05),
            "0.001": rate(0.001, 0.0123),
            "0.0001": None,
        },
    }


def _utility(n: int, auroc: float) -> dict[str, Any]:
    return {
        "auroc": auroc,
        "low": auroc - 0.01,
        "high": auroc + 0.01,
        "accuracy": auroc - 0.05,
        "accuracy_low": auroc - 0.07,
        "accuracy_high": auroc - 0.03,
        "n_patients": n,
    }


def make(
    n_patients: int = 455,
    *,
    status: str = "at_risk",
    n_at_risk: int = 12,
    groups: dict[str, dict[str, int]] | None = None,
    attacks: tuple[str, ...] = ("lira", "rmia"),
    seed: int = 0,
    **summary: Any,
) -> AuditResult:
    """A result with `n_at_risk` patients at risk; `summary` replaces keys of the summary."""
    rng = np.random.default_rng(seed)
    if groups is None:
        groups = {
            "sex": {"Female": n_patients // 2, "Male": n_patients - n_patients // 2},
            "race": {"White": n_patients - 58, "Black": 30, "Asian": 21, "Other": 7},
            "age band": {"18 to 40": 101, "41 to 65": 203, "over 65": n_patients - 304},
        }
    patient = np.array([f"MRN-{i:07d}" for i in rng.permutation(n_patients)])
    auc_joint = np.clip(0.51 + 0.075 * rng.standard_normal(n_patients), 0, 1)
    auc_joint[:n_at_risk] = np.linspace(0.99, 0.85, n_at_risk)
    p_value = np.where(np.arange(n_patients) < n_at_risk, 1e-6, rng.uniform(0.05, 1, n_patients))
    p_value[:n_at_risk] *= np.arange(1, n_at_risk + 1)
    table = pd.DataFrame(
        {
            "patient": patient,
            "n_records": rng.integers(1, 6, n_patients),
            "auc_joint": auc_joint,
            "auc_max": np.clip(auc_joint + 0.02, 0, 1),
            "auc_se": 0.04,
            "p_joint": p_value,
            "p_max": p_value,
            "p_value": p_value,
            "q_value": np.minimum(p_value * 30, 1),
            "at_risk": np.arange(n_patients) < n_at_risk,
            "risk": 0.5 + (auc_joint - 0.5) * 0.8,
            "risk_low": 0.45 + (auc_joint - 0.5) * 0.8,
            "risk_high": 0.55 + (auc_joint - 0.5) * 0.8,
            "local_fdr": np.minimum(p_value * 50, 1),
        }
    ).sample(frac=1, random_state=seed, ignore_index=True)
    tail = {
        str(t): {
            "raw": float(np.mean(auc_joint >= t)),
            "raw_low": float(np.mean(auc_joint >= t)) * 0.8,
            "raw_high": float(np.mean(auc_joint >= t)) * 1.2,
            "null": float(0.5 * (1 - np.tanh(0.8 * (t - 0.5) / 0.07))),
            "null_low": 0.0,
            "null_high": float(0.7 * (1 - np.tanh(0.8 * (t - 0.5) / 0.07))),
            "corrected": float(np.mean(auc_joint >= t)) * 0.7,
            "low": float(np.mean(auc_joint >= t)) * 0.3,
            "high": float(np.mean(auc_joint >= t)) * 1.5,
        }
        for t in THRESHOLDS
    }
    whole: dict[str, Any] = {
        "version": "0.1.0",
        "n_models": 64,
        "n_patients": n_patients,
        "n_records": int(table["n_records"].sum()),
        "n_heldout_records": 114,
        "models_missing": [],
        "task": "binary",
        "verdict": {"status": status, "text": "Sentences that the audit wrote."},
        "attacks": {name: _attack(0.61 + 0.017 * i) for i, name in enumerate(attacks)},
        "patients": {
            "n_at_risk": n_at_risk,
            "fdr": 0.05,
            "looks": 1,
            "smallest_detectable_auc": 0.742,
            "detectable_auc_80": 0.781,
            "tail": tail,
            "control": {"planted": 20, "found": 19, "auc": 0.953},
        },
        "groups": {
            name: {
                "p_value": 0.0421,
                "p_adjusted": 0.314,
                "n_tail": 20,
                "n_conflicts": 95 if i else 3,
            }
            for i, name in enumerate(groups)
        },
        "utility": {
            "overall": _utility(114, 0.951),
            "by_group": {
                name: {
                    value: _utility(max(n // 4, 3), 0.93 + 0.003 * i)
                    for i, (value, n) in enumerate(values.items())
                }
                for name, values in groups.items()
            },
        },
        "epsilon": [],
        "guards": [
            {"name": "blind", "status": "passed", "message": "AUC 0.503 (0.468 to 0.538)."},
            {"name": "recipe", "status": "unknown", "message": "The target states no recipe."},
        ],
        "warnings": [],
    }
    records = pd.DataFrame({"record": np.arange(n_patients), "patient": table["patient"]})
    return AuditResult(
        records=records,
        patients=table,
        groups=_groups(rng, groups),
        curves=_curves(auc_joint, attacks),
        summary=whole | summary,
    )


def bound(method: str = "one_run", **more: Any) -> dict[str, Any]:
    """A lower bound of epsilon as audits give it."""
    common = {
        "method": method,
        "unit": "patient",
        "whose": "patients",
        "epsilon": 0.6479,
        "delta": 1e-5,
        "confidence": 0.95,
        "attack": "lira",
        "n_patients": 200,
        "n_in": 292,
        "n_out": 347,
        "assumes": f"What {method} assumes.",
    }
    counts = {"n_guesses": 39, "n_correct": 33} if method == "one_run" else {"n_patients": 1}
    return common | counts | ({"mu": 1.239} if method == "gdp" else {}) | more


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "browser: opens the report in chromium")


@pytest.fixture(scope="session")
def make_result() -> Any:
    """The function :func:`make`."""
    return make


def with_records(result: AuditResult) -> AuditResult:
    """The result with two records a patient, rec-0, rec-1, ..., of labels a and b."""
    patient = result.patients["patient"].repeat(2).to_numpy()
    records = pd.DataFrame(
        {
            "record": [f"rec-{i}" for i in range(len(patient))],
            "patient": patient,
            "label": np.tile(["a", "b"], len(patient) // 2),
            "auc": np.tile([0.99, 0.7], len(patient) // 2),
            "auc_se": 0.03,
        }
    )
    return dataclasses.replace(result, records=records)


@pytest.fixture(scope="session")
def make_records() -> Any:
    """The function :func:`with_records`."""
    return with_records


@pytest.fixture(scope="session")
def hostile() -> tuple[str, ...]:
    """Names that try to be more than names."""
    return HOSTILE


@pytest.fixture(scope="session")
def make_bound() -> Any:
    """The function :func:`bound`."""
    return bound
