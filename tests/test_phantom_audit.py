"""The audit of the phantom finds the patients that were made hard to fit."""

from pathlib import Path

import pytest
from sklearn.metrics import roc_auc_score

from confide.config import load
from confide.runs import run_config
from confide.runs.demo import STUDIES

EXAMPLE = Path(__file__).parents[1] / "examples" / "phantom.yaml"


def planted_auc(result):
    hard = result.patients["group_planted"] == "hard"
    assert hard.sum() >= 10
    return roc_auc_score(hard, result.patients["auc_joint"])


def test_planted_patients_rank_far_above_the_rest(tmp_path):
    (study,) = (s for s in STUDIES if s.name == "phantom")
    result = study.run(tmp_path, lambda done, total: None)
    assert planted_auc(result) > 0.8
    hard = result.groups.query("group == 'planted' and value == 'hard'").iloc[0]
    assert hard["ratio_low"] > 1
    assert result.summary["verdict"]["status"] == "at_risk"
    assert result.summary["utility"]["overall"]["auroc"] > 0.75


@pytest.mark.slow
def test_example(tmp_path):
    config, folder = load(EXAMPLE)
    assert planted_auc(run_config(config, folder, tmp_path)) > 0.9
