"""Tables of predictions; loaded before torch, so that its threads wait politely."""

import numpy as np
import pandas as pd
import pytest

import confide.training  # noqa: F401
from confide import masks


def make_table(n_models=16, n_patients=40, kind="logits", n_classes=2, n_views=1, seed=0):
    """Predictions of models that know their members a little, one row per model and record."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(n_patients), 1 + np.arange(n_patients) % 3)
    n_records = len(patient)
    label = rng.integers(0, n_classes, n_records)
    member = masks.balanced(n_models, n_patients, seed=seed)[:, patient]
    shape = (n_models, n_records, n_views)
    z = rng.normal(size=(*shape, n_classes))
    z += 1.5 * member[:, :, None, None] * np.eye(n_classes)[label][None, :, None]
    model, record, view = (axis.ravel() for axis in np.indices(shape))
    frame = pd.DataFrame(
        {
            "model": model,
            "record": [f"{i:05d}" for i in record],  # leading zeros
            "patient": [f"{i:03d}" for i in patient[record]],
            "member": member[model, record].astype(int),
            "label": label[record],
            "sex": np.where(patient[record] % 2, "f", "m"),
        }
    )
    if n_views > 1:
        frame["view"] = view
    z = z.reshape(-1, n_classes)
    if kind == "one_logit":
        frame["logit_0"] = z[:, 1] - z[:, 0]
    elif kind == "signal":
        others = np.exp(z).sum(axis=1) - np.exp(z[np.arange(len(z)), frame["label"]])
        frame["signal"] = z[np.arange(len(z)), frame["label"]] - np.log(others)
    else:
        p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
        for i in range(n_classes):
            frame[f"{'prob' if kind == 'probs' else 'logit'}_{i}"] = (
                p[:, i] if kind == "probs" else z[:, i]
            )
    return frame


@pytest.fixture
def table():
    """A function that makes a table of predictions."""
    return make_table
