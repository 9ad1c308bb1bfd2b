"""Training of many models on many subsets of the records.

`TorchTrainer` is imported when it is first used, because it brings torch with it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from confide.training.base import FunctionTrainer, Trainer
from confide.training.settings import Performance, TrainSettings

# Read when torch is loaded.  Threads that wait by spinning take the processor from those that
# work where cores are shared: 130 s instead of 4 for one small network on a busy machine; on idle
# cores no difference was measured.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from confide.training.trainer import TorchTrainer

__all__ = ["FunctionTrainer", "Performance", "TorchTrainer", "TrainSettings", "Trainer"]


def __getattr__(name: str) -> Any:
    if name == "TorchTrainer":
        from confide.training.trainer import TorchTrainer

        return TorchTrainer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
