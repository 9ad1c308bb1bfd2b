"""What the files of a log directory say about how its runs were made."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

_MAX_DRAWS = 2000
"""Most masks that are drawn again; each takes 16 bytes a patient."""

_FIELDS = {
    "epochs": ("epochs",),
    "augmentation": ("augment",),
    "architecture": ("model", "dropout", "img_size"),
    "optimizer": (
        *("lr", "momentum", "weight_decay", "batch_size", "lr_schedule", "lr_warmup"),
        *("decay_steps", "ema", "ema_decay", "grad_accum_steps", "epsilon", "clipping_norm"),
    ),
    "share": ("subset_ratio",),
}
"""Field of a recipe -> what ``info.json`` calls its parts."""


def recipe_of(info: dict[str, Any]) -> dict[str, Any]:
    """A recipe from what ``info.json`` states of the training: plain values, and short ones."""
    stated = _stated(info)
    short = {
        key: str(value)[:80] if isinstance(value, str | list) else value
        for key, value in stated.items()
        if isinstance(value, str | list | int | float)
    }
    # One table of records with one set of labels, which all runs were checked against.
    recipe: dict[str, Any] = {"source": "the table of records"}
    for field, keys in _FIELDS.items():
        parts = {key: short[key] for key in keys if key in short}
        if parts:
            recipe[field] = parts[keys[0]] if len(keys) == 1 else parts
    return recipe


def _stated(info: dict[str, Any]) -> dict[str, Any]:
    found = info.get("wandb_config")
    return found if isinstance(found, dict) else {}


def drawn_as_published(membership: NDArray[np.bool_], info: dict[str, Any]) -> bool:
    """Whether the masks are among those that the published code draws from the stated seed.

    Parameters
    ----------
    membership : (n_runs, n_patients) bool
    info : what ``info.json`` states: seed, number of runs and share of the patients

    Notes
    -----
    ``generate_masks`` of med_leak and leakoscope: for each patient the argsort, over runs, of
    uniforms; in are the entries below share x runs.  Each choice of runs is equally likely.
    """
    stated = _stated(info)
    seed, n_runs, share = (stated.get(key) for key in ("seed", "n_runs", "subset_ratio"))
    if type(seed) is not int or type(n_runs) is not int or not isinstance(share, int | float):
        return False
    if not (0 <= seed < 2**32 and len(membership) <= n_runs <= _MAX_DRAWS and 0 < share < 1):
        return False
    # The old generator of NumPy, because the masks to compare with came from it.
    uniform = np.random.RandomState(seed).uniform(size=(n_runs, membership.shape[1]))
    drawn = uniform.argsort(axis=0) < int(share * n_runs)
    known = {row.tobytes() for row in np.packbits(drawn, axis=1)}
    return all(row.tobytes() in known for row in np.packbits(membership, axis=1))


def order_guard(frame: pd.DataFrame, label: NDArray[np.float64]) -> dict[str, str]:
    """A guard: are the rows of the table those of the logits, in their order?

    A column of few values, each of which goes with one value of a label, shows that they are.
    """
    of_label = [y for y in label.T if len(np.unique(y)) > 1]
    for name in frame.columns:
        try:
            codes, values = pd.factorize(frame[name], use_na_sentinel=False)
        except TypeError:
            continue
        # Many values would each go with one label by chance.
        if not 2 <= len(values) <= min(50, len(frame) // 10):
            continue
        for y in of_label:
            pairs = np.unique(codes * 3 + np.nan_to_num(y, nan=2).astype(np.int64))
            if len(pairs) == len(values):
                return {
                    "name": "order",
                    "status": "passed",
                    "message": f"Column {name!r} of the table goes with the labels of the runs in "
                    f"all {len(frame):,} rows, so that both are in one order, up to rows of one "
                    "value.",
                }
    return {
        "name": "order",
        "status": "unknown",
        "message": "No column of the table goes with the labels of the runs, so that it cannot be "
        "checked that rows and logits are in one order. If they are not, patients are mixed up and "
        "the figures mean nothing.",
    }
