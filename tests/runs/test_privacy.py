"""A promise of differential privacy in an audit, kept and broken."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from confide import Cohort
from confide.audits.guards import refusal
from confide.errors import MismatchError
from confide.runs import run
from confide.training.base import Trainer

PROMISE = {
    "unit": "patient",
    "epsilon": 1.0,
    "delta": 1e-5,
    "clip": 1.0,
    "noise": 2.0,
    "rate": 0.1,
    "steps": 10,
    "adjacency": "add or remove one",
    "accountant": "by hand",
    "by_unit": {"patient": {"epsilon": 1.0, "curve": {"epsilon": [1.0], "delta": [1e-5]}}},
    "warnings": ["Mind the delta."],
}


class Promising(Trainer):
    """Says that it is private, and gives away its members as much as `leak` says."""

    def __init__(self, leak):
        self._leak, self.privacy = leak, PROMISE

    def fit(self, members, seeds):
        noise = np.stack([np.random.default_rng(s).normal(size=members.shape[1]) for s in seeds])
        return (noise + self._leak * members).astype(np.float32)[:, :, None, None]


@pytest.fixture
def cohort():
    n = 60
    return Cohort(
        record=np.arange(n),
        patient=np.arange(n),
        label=np.ones(n, dtype=np.int64),
        task="binary",
        classes=("no", "yes"),
        groups=pd.DataFrame(index=range(n)),
    )


def _training(patient, **changes):
    pytest.importorskip("dp_accounting")
    from confide.training import Performance, TorchTrainer, TrainSettings

    privacy = {"unit": "record", "epsilon": 8.0, "delta": 1e-3}
    settings = {"model": {"width": 4, "depth": 1}, "epochs": 1, "batch_size": 10}
    return TorchTrainer(
        np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32),
        np.arange(60) % 2,
        task="binary",
        n_classes=2,
        n_audited=60,
        settings=TrainSettings.model_validate(settings | {"privacy": privacy}),
        performance=Performance(device="cpu"),
        patient=patient,
        **{"expected_members": 30} | changes,
    )


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"patient": np.arange(60) // 2}, "privacy"),
        ({"patient": np.roll(np.arange(60), 1)}, "patient_sha256"),
        ({"expected_members": 20}, "expected_members"),
    ],
)
def test_a_folder_is_not_resumed_under_another_guarantee(cohort, tmp_path, change, field):
    from confide.runs import train_models

    first = _training(np.arange(60))
    train_models(cohort, first, tmp_path, n_models=4, about={"privacy": first.privacy})
    before = (tmp_path / "manifest.json").read_bytes()
    other = _training(**{"patient": np.arange(60)} | change)
    with pytest.raises(MismatchError, match=field):
        train_models(cohort, other, tmp_path, n_models=4, about={"privacy": other.privacy})
    assert (tmp_path / "manifest.json").read_bytes() == before


@pytest.mark.parametrize(
    ("leak", "status"), [pytest.param(0.0, "passed", marks=pytest.mark.slow), (10.0, "failed")]
)
def test_an_attack_that_refutes_the_promise_fails_the_audit(cohort, tmp_path, leak, status):
    found = run(cohort, Promising(leak), tmp_path / "out", n_models=16, attacks=("lira",))
    guard = next(g for g in found.summary["guards"] if g["name"] == "accounting")
    assert guard["status"] == status
    assert (refusal(found.summary["guards"]) is None) == (status == "passed")
    assert "Mind the delta." in found.summary["warnings"]
    assert found.summary["epsilon"]  # the evidence stays
    stored = json.loads((tmp_path / "out" / "summary.json").read_text())["privacy"]
    assert stored["by_unit"]["patient"]["auc"] == pytest.approx(np.e / (1 + np.e), abs=1e-4)
    assert "What differential privacy promises" in (tmp_path / "out" / "report.html").read_text()
