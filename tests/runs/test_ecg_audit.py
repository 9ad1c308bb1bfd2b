"""An audit of ECGs, from a configuration to its report."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from confide.config import parse
from confide.errors import ConfigError, MismatchError
from confide.runs import run_config


def _study(folder, n=24):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"patient": np.repeat(np.arange(n // 2), 2), "af": np.arange(n) % 2})
    frame.to_csv(folder / "ecg.csv", index=False)
    waves = rng.normal(size=(n, 64, 3)) * [1e-3, 1.0, 50.0]
    np.save(folder / "ecg.npy", waves.astype(np.float32))


def _config(**train):
    block = {
        "data": {
            "name": "ecg", "path": "ecg.csv", "array": "ecg.npy", "patient": "patient",
            "label": "af", "test": {"fraction": 0.25},
        },
        "train": {
            "preset": "nature-ptb-xl", "model": {"width": 8, "depth": 2}, "epochs": 2, **train
        },
        "audit": {"n_models": 4},
        "performance": {"device": "cpu"},
    }  # fmt: skip
    return parse(block)


def test_from_configuration_to_report(tmp_path):
    _study(tmp_path)
    found = run_config(_config(), tmp_path, tmp_path / "run")
    assert found.summary["n_models"] == 4
    assert found.summary["n_records"] == 18
    assert (tmp_path / "run" / "report.html").is_file()
    # a preset stands spelt out in the manifest, with what overrode it
    train = json.loads((tmp_path / "run" / "manifest.json").read_text())["config"]["train"]
    assert "preset" not in train
    assert train["model"] == {"name": "resnet1d", "width": 8, "depth": 2}
    assert (train["epochs"], train["ema"], train["optimizer"]["lr"]) == (2, 0.995, 0.25)
    with pytest.raises(MismatchError):
        run_config(_config(epochs=3), tmp_path, tmp_path / "run")


def test_augmentation_of_signals_is_refused():
    with pytest.raises(ConfigError, match="takes signals; set augment: none"):
        _config(augment="weak")
