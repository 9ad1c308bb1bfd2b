"""The block `privacy` of the training settings, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from confide.models.settings import Settings

_VOIDING: Mapping[str, tuple[Any, str]] = {
    "mixup": (0.0, "mixes records of several patients"),
    "balance": (False, "samples by the classes of the members"),
    "trace": (False, "gives away the loss of every record after every epoch"),
    "dropout": (0.0, "is not available together with privacy"),
}
"""Setting -> its value when it is off, and why it cannot be on."""


class Privacy(Settings):
    """Training with differential privacy: noisy gradient descent.

    Abadi et al., "Deep learning with differential privacy", CCS 2016, algorithm 1; by patient as
    McMahan et al., "Learning differentially private recurrent language models", ICLR 2018.  The
    noise follows from epsilon, delta, the batch size and the epochs; see
    :mod:`confide.training.accounting`.  It is drawn from the randomness of the operating system,
    not from the seed of the model.

    Parameters
    ----------
    unit : whose addition or removal is hidden: one "record", or one "patient" with all records.
        The gradients of a patient in a batch are added up, then clipped once
    epsilon, delta : of the guarantee for that unit.  delta should be well below one in the number
        of patients
    clip : largest norm of the gradient of one unit; longer ones are scaled down
    """

    unit: Literal["record", "patient"]
    epsilon: float = Field(gt=0, le=1000)
    delta: float = Field(default=1e-5, gt=0, lt=0.1)
    clip: float = Field(default=1.0, gt=0, lt=1e6)


def refuse_what_voids(train: Any) -> None:
    """Raise ValueError for settings of a training with privacy under which no guarantee holds."""
    for name, (off, why) in _VOIDING.items():
        value = getattr(train, name)
        if value != off:
            raise ValueError(
                f"privacy and {name}={value!r} cannot be together: it {why}; set {name}: "
                f"{str(off).lower() if isinstance(off, bool) else '0'} or privacy: null."
            )
