"""Plan, train, write, resume, analyse: the one place where the halves meet."""

from __future__ import annotations

from confide.runs.analysis import analyse
from confide.runs.compare import compare_audits
from confide.runs.erase import erase_signals
from confide.runs.launch import run, run_config, run_source
from confide.runs.logdir import audit_logdir
from confide.runs.planning import plan
from confide.runs.released import Model, audit_model
from confide.runs.scores import audit_scores
from confide.runs.study import train_models

__all__ = [
    "Model",
    "analyse",
    "audit_logdir",
    "audit_model",
    "audit_scores",
    "compare_audits",
    "erase_signals",
    "plan",
    "run",
    "run_config",
    "run_source",
    "train_models",
]
