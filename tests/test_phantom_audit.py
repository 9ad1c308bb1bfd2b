"""The audit of the phantom finds the patients that were made hard to fit."""

from pathlib import Path

import pytest
from sklearn.metrics import roc_auc_score

from confide.config import load, parse
from confide.runs import run_config
from confide.runs.demo import STUDIES

EXAMPLE = Path(__file__).parents[1] / "examples" / "phantom.yaml"
(STUDY,) = (study for study in STUDIES if study.name == "phantom")

# The demo's study in seconds: plainer images, larger steps, and more planted patients.
SMALLER = {
    "data": {"n_patients": 120, "size": [16, 16], "opacity": 1.0, "hard": 0.15},
    "train": {
        "epochs": 20,
        "batch_size": 32,
        "optimizer": {"name": "adamw", "lr": 0.004},
        "ema": 0.9,
    },
    "audit": {"n_models": 16},
    "performance": {"device": "cpu", "models_at_once": 16},
}


def planted_auc(result):
    hard = result.patients["group_planted"] == "hard"
    assert hard.sum() >= 10
    return roc_auc_score(hard, result.patients["auc_joint"])


def check(result):
    assert planted_auc(result) > 0.8
    hard = result.groups.query("group == 'planted' and value == 'hard'").iloc[0]
    assert hard["ratio_low"] > 1
    assert result.summary["verdict"]["status"] == "at_risk"
    assert result.summary["utility"]["overall"]["auroc"] > 0.75


def test_planted_patients_rank_far_above_the_rest(tmp_path):
    config = {name: STUDY.config.get(name, {}) | block for name, block in SMALLER.items()}
    check(run_config(parse(config, "smaller"), Path(), tmp_path))


@pytest.mark.slow
def test_the_demo(tmp_path):
    check(STUDY.run(tmp_path, lambda done, total: None))


@pytest.mark.slow
def test_example(tmp_path):
    config, folder = load(EXAMPLE)
    assert planted_auc(run_config(config, folder, tmp_path)) > 0.9
