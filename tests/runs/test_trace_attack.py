"""Attacks that read more than signals, from a configuration to a report."""

import pytest

import confide
from confide.config import parse
from confide.errors import ArgumentError
from confide.runs import analyse
from confide.runs.launch import run_config
from confide.runs.scores import audit_scores
from confide.training.base import FunctionTrainer
from runs.conftest import make_table
from runs.test_run import make_cohort
from runs.test_trace import CONFIG


def test_every_attack_from_a_configuration(tmp_path):
    names = ["lira", "lt_iqr", "quantile", "calibrated_loss"]
    config = parse(CONFIG | {"audit": {"n_models": 6, "attacks": names}})
    found = run_config(config, tmp_path, tmp_path / "out")
    assert list(found.summary["attacks"]) == names
    again = analyse(tmp_path / "out")
    assert again.summary["attacks"] == found.summary["attacks"]
    assert "LT-IQR" in (tmp_path / "out" / "report.html").read_text()


def test_what_an_attack_lacks_is_said_before_anything_is_trained(tmp_path):
    cohort = make_cohort(10)
    trainer = FunctionTrainer(lambda members, seed: pytest.fail("trained"), "f")
    for name, words in (("lt_iqr", "reads loss traces"), ("quantile", "hold some patients out")):
        with pytest.raises(ArgumentError, match=words):
            confide.run(cohort, trainer, tmp_path / name, n_models=4, attacks=(name,))
        assert not (tmp_path / name).exists()
        table = tmp_path / "table.csv"
        make_table().to_csv(table, index=False)
        with pytest.raises(ArgumentError, match=words):
            audit_scores(table, tmp_path / name, attacks=(name,))
        assert not (tmp_path / name).exists()
