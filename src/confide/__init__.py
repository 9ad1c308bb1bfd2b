"""confide: patient confidentiality in medical AI.

The public names; each is imported when it is first used, so that ``import confide`` is quick and
needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from confide.audits.audit import AuditSettings, audit
    from confide.audits.result import AuditResult
    from confide.cohort import Cohort
    from confide.errors import ConfideError
    from confide.runs import (
        Model,
        analyse,
        audit_logdir,
        audit_model,
        audit_scores,
        compare_audits,
        run,
        run_config,
        run_source,
    )
    from confide.training.base import FunctionTrainer, Trainer

    __version__: str

_WHERE = {
    "AuditResult": "confide.audits.result",
    "AuditSettings": "confide.audits.audit",
    "Cohort": "confide.cohort",
    "ConfideError": "confide.errors",
    "FunctionTrainer": "confide.training.base",
    "Trainer": "confide.training.base",
    "analyse": "confide.runs",
    "audit": "confide.audits.audit",
    "Model": "confide.runs",
    "audit_logdir": "confide.runs",
    "audit_model": "confide.runs",
    "audit_scores": "confide.runs",
    "compare_audits": "confide.runs",
    "run": "confide.runs",
    "run_config": "confide.runs",
    "run_source": "confide.runs",
}

__all__ = [
    "AuditResult",
    "AuditSettings",
    "Cohort",
    "ConfideError",
    "FunctionTrainer",
    "Model",
    "Trainer",
    "__version__",
    "analyse",
    "audit",
    "audit_logdir",
    "audit_model",
    "audit_scores",
    "compare_audits",
    "run",
    "run_config",
    "run_source",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("confide")
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'confide' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
