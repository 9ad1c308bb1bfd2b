"""Plan, train, write, resume, analyse: the one place where the halves meet."""

from __future__ import annotations

from confide.runs.analysis import analyse
from confide.runs.launch import run, run_config
from confide.runs.models import train_models
from confide.runs.planning import plan
from confide.runs.scores import audit_scores

__all__ = ["analyse", "audit_scores", "plan", "run", "run_config", "train_models"]
