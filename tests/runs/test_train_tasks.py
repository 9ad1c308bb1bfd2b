"""Patients that choose the epoch, and later settings, as an audit sees them."""

import json
import shutil

import numpy as np
import pytest

from confide.config import AuditBlock, parse
from confide.datasets import Embedded
from confide.errors import ArgumentError, ConfigError, MismatchError
from confide.runs import launch
from confide.runs.canaries import plant
from confide.runs.compare import compare_audits
from confide.runs.erase import erase_signals
from confide.runs.launch import run_config, run_source, set_apart
from confide.runs.planning import plan
from confide.stores import AuditFolder
from confide.training import TrainSettings
from confide.training.settings import Dev

TRAIN = {"model": {"width": 8, "depth": 1}, "epochs": 3}
DEV = TRAIN | {"dev": {"fraction": 0.25, "seed": 3}}


def config_of(train, **audit):
    blocks = {"data": {"name": "embedded"}, "train": train, "audit": {"n_models": 4} | audit}
    return parse(blocks, "a test")


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    out = tmp_path_factory.mktemp("dev") / "out"
    return out, run_config(config_of(DEV), out.parent, out)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    out = tmp_path_factory.mktemp("plain") / "out"
    run_config(config_of(TRAIN), out.parent, out)
    return out


@pytest.fixture
def trained_only(monkeypatch):
    """Models are trained and stored, and not analysed."""
    monkeypatch.setattr(launch, "analyse", lambda out: None)


def test_dev_patients_are_in_neither_the_audit_nor_the_test(audited):
    _, found = audited
    data = Embedded().load()
    kept, apart = set_apart(data, Dev(fraction=0.25, seed=3))
    n_free = len(np.unique(data.cohort.patient_index[~data.test]))
    assert apart.cohort.n_patients == round(0.25 * n_free)
    patients = [set(x.cohort.patients.tolist()) for x in (kept, apart)]
    assert not patients[0] & patients[1]
    assert patients[0] | patients[1] == set(data.cohort.patients.tolist())
    assert not apart.test.any()
    assert kept.test.sum() == data.test.sum()
    assert found.patients["patient"].tolist() == kept.cohort.select(~kept.test).patients.tolist()
    assert found.summary["n_heldout_records"] == data.test.sum()
    assert not set(found.patients["patient"]) & patients[1]


def test_the_folder_says_who_chose_and_which_epoch(audited):
    out, found = audited
    manifest = json.loads((out / "manifest.json").read_text())
    assert len(manifest["epochs"]) == 4
    assert set(manifest["epochs"]) <= {1, 2, 3}
    said = [w for w in found.summary["warnings"] if "set apart to choose the epoch" in w]
    assert len(said) == 1
    assert said[0].startswith("114 patients (114 records) ")
    assert "influence every model" in said[0]
    assert manifest["config"]["train"]["dev"]["fraction"] == 0.25
    assert manifest["trainer"]["settings"]["dev"] == manifest["config"]["train"]["dev"]
    assert "set apart to choose the epoch" in (out / "report.html").read_text()


def test_a_stopped_run_with_dev_patients_goes_on_with_the_same_numbers(
    audited, trained_only, tmp_path
):
    whole, _ = audited
    done = AuditFolder.read(whole)

    def stop(n_done, n_models):
        if n_done == 2:
            raise KeyboardInterrupt

    config = config_of(DEV)
    one = config.model_copy(
        update={"performance": config.performance.model_copy(update={"models_at_once": 2})}
    )
    with pytest.raises(KeyboardInterrupt):
        run_config(one, tmp_path, tmp_path / "out", progress=stop)
    epochs = json.loads((tmp_path / "out/manifest.json").read_text())["epochs"]
    assert None not in epochs[:2]
    assert epochs[2:] == [None, None]
    run_config(one, tmp_path, tmp_path / "out")
    found = AuditFolder.read(tmp_path / "out")
    assert found.manifest["epochs"] == done.manifest["epochs"]
    np.testing.assert_allclose(
        found.array("logits")[:], done.array("logits")[:], atol=1e-4, rtol=1e-4
    )


def test_recipes_with_the_same_dev_patients_are_compared(audited, plain, tmp_path):
    out, _ = audited
    last = tmp_path / "last"
    run_config(config_of(TRAIN | {"dev": DEV["dev"] | {"keep": "last"}}), tmp_path, last)
    manifest = json.loads((last / "manifest.json").read_text())
    assert "epochs" not in manifest
    assert any("set apart by train.dev" in w for w in manifest["warnings"])
    found = compare_audits([out, last])
    assert [arm["recipe"] for arm in found.summary["arms"]] == [
        {"train.dev.keep": "best"},
        {"train.dev.keep": "last"},
    ]
    with pytest.raises(MismatchError, match="n_patients is"):
        compare_audits([out, plain], names=["dev", "plain"])


def test_canaries_and_dev_patients_are_different_people():
    data = Embedded().load()
    kept, apart = set_apart(data, Dev(fraction=0.25, seed=3))
    planted, canary = plant(kept, 20, seed=0)
    canaries = set(planted.cohort.select(canary).patients.tolist())
    assert len(canaries) == 20
    assert not canaries & set(apart.cohort.patients.tolist())


def test_the_plan_knows_of_dev_patients(tmp_path):
    with_dev, without = (plan(config_of(t), tmp_path, measure=False) for t in (DEV, TRAIN))
    assert with_dev["n_dev_patients"] == 114
    assert without["n_dev_patients"] == 0
    assert with_dev["n_patients"] == without["n_patients"] - 114
    assert with_dev["n_heldout_records"] == without["n_heldout_records"]


def test_dev_patients_that_cannot_choose_are_refused():
    data = Embedded().load()
    with pytest.raises(ConfigError, match=r"1 records .*fraction 0\.001, seed 0\) are all of"):
        set_apart(data, Dev(fraction=0.001))
    rows = np.append(np.flatnonzero(data.test), np.flatnonzero(~data.test)[0])
    with pytest.raises(ConfigError, match="only one patient is not held out"):
        set_apart(launch._selected(data, rows), Dev())
    assert set_apart(data, None) == (data, None)


def test_what_does_not_fit_is_refused_before_a_folder_is_made(tmp_path):
    train = TrainSettings.model_validate(TRAIN | {"mixup": 1.0, "batch_size": 1})
    with pytest.raises(ArgumentError, match=r"train\.mixup mixes"):
        run_source(Embedded(), tmp_path / "out", train=train, audit=AuditBlock(n_models=4))
    assert not (tmp_path / "out").exists()


def test_later_settings_are_compared_on_resume_and_old_folders_go_on(plain, trained_only, tmp_path):
    manifest = json.loads((plain / "manifest.json").read_text())
    # The form in which a version without these settings wrote them.
    assert manifest["config"]["train"] == {
        "model": {"name": "tabular_resnet", "width": 8, "depth": 1},
        "epochs": 3,
        "batch_size": 512,
        "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-07},
        "schedule": {"name": "cosine", "warmup": 0.05},
        "ema": 0.995,
        "augment": "none",
        "views": 1,
        "trace": False,
        "privacy": None,
    }
    assert manifest["trainer"]["settings"] == manifest["config"]["train"]
    run_config(config_of(TRAIN | {"mixup": 0.0, "dropout": 0.0, "balance": False}), tmp_path, plain)
    for name, value in (("dropout", 0.1), ("mixup", 0.2), ("balance", True)):
        with pytest.raises(MismatchError, match=rf"train\.{name} = None; it is {value} now"):
            run_config(config_of(TRAIN | {name: value}), tmp_path, plain)


def test_an_erased_audit_tells_no_seed_of_dev_patients(audited, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(audited[0], out)
    erase_signals(out)
    assert "seed" not in json.loads((out / "manifest.json").read_text())["config"]["train"]["dev"]
