"""The two small audits of ``confide demo``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confide.audits.result import AuditResult
from confide.config import parse
from confide.runs.launch import run_config
from confide.runs.models import Progress


@dataclass(frozen=True, kw_only=True)
class Study:
    """One audit of the demo: where it goes below the demo's folder, and its configuration."""

    name: str
    title: str
    folder: str
    config: dict[str, Any]

    def run(self, out: Path, progress: Progress) -> AuditResult:
        """Train, store, analyse, report."""
        return run_config(parse(self.config, self.name), Path(), out, progress=progress)


STUDIES = (
    Study(
        name="embedded",
        title="Breast cancer Wisconsin (real data): 569 patients, one record each",
        folder=".",
        config={
            "data": {"name": "embedded"},
            "train": {"model": {"name": "tabular_resnet", "width": 64, "depth": 2}, "epochs": 30},
            "audit": {"n_models": 64},
        },
    ),
    Study(
        name="phantom",
        title="Phantom chest images (made up): several records per patient, planted leaks",
        folder="phantom",
        config={
            "data": {"name": "phantom", "n_patients": 180, "size": [32, 32], "hard": 0.1},
            "train": {
                "model": {"name": "small_cnn", "width": 8},
                "epochs": 45,
                "batch_size": 16,
                "optimizer": {"name": "adamw", "lr": 0.002},
                "ema": 0.98,
            },
            "audit": {"n_models": 24},
        },
    ),
)
