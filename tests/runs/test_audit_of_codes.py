"""An audit of models that were trained on codes, beside one of the plain records."""

import json
import shutil

import pandas as pd
import pytest

from confide.config import parse
from confide.errors import MismatchError
from confide.runs import compare_audits, run_config
from runs.coding import PHANTOM, make

TEST = {"fraction": 0.3}
CODES = {"name": "release", "path": "a", "label": "label", "groups": ["sex"], "test": TEST}
VIT = {"name": "deep_vit", "heads": 2, "head_width": 8, "mlp": 1}


def config(data, model, **train):
    """Four models in seconds."""
    settings = {"epochs": 3, "batch_size": 8, "optimizer": {"name": "adamw", "lr": 1e-3}}
    return parse(
        {
            "data": data,
            "train": {"model": model} | settings | train,
            "audit": {"n_models": 4, "attacks": ["rmia"]},
            "performance": {"device": "cpu"},
        }
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audits")
    make(folder, "a", columns=["sex"])
    run_config(config(CODES, VIT), folder, folder / "codes")
    plain = PHANTOM | {"test": TEST}
    run_config(config(plain, {"name": "small_cnn", "width": 4}), folder, folder / "plain")
    return folder


def test_patients_are_those_of_the_plain_records(folder):
    codes, plain = (pd.read_parquet(folder / n / "patients.parquet") for n in ("codes", "plain"))
    assert codes["patient"].tolist() == plain["patient"].tolist()
    assert codes["n_records"].tolist() == plain["n_records"].tolist()
    assert codes["auc_joint"].notna().all()
    assert (folder / "codes" / "report.html").stat().st_size > 10_000


def test_codes_and_plain_are_compared_patient_by_patient(folder):
    found = compare_audits([folder / "plain", folder / "codes"], folder / "compare")
    (pair,) = found.summary["pairs"]
    assert pair["not_compared"] is None
    assert all(pair[key]["paired"] for key in ("attack_auc", "mean_auc", "auroc"))
    assert any("Models of “codes” were trained on codes" in w for w in found.summary["warnings"])
    areas = [
        json.loads((folder / name / "summary.json").read_text())["attacks"]["rmia"]["auc"]
        for name in ("plain", "codes")
    ]
    assert pair["attack_auc"]["value"] == pytest.approx(areas[0] - areas[1], abs=1e-9)


def test_a_release_that_changed_is_not_resumed(folder, tmp_path):
    shutil.copytree(folder / "codes", tmp_path / "codes")
    make(tmp_path, "a", PHANTOM | {"seed": 5}, columns=["sex"])
    with pytest.raises(MismatchError, match="fingerprint"):
        run_config(config(CODES, VIT), tmp_path, tmp_path / "codes")
