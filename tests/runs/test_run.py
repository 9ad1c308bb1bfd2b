import errno
import json
import os

import numpy as np
import pandas as pd
import pytest

import confide
from confide import masks
from confide.cohort import Cohort
from confide.errors import (
    ArgumentError,
    FolderError,
    MismatchError,
    SignalError,
    TrainingError,
)
from confide.runs import analyse, train_models
from confide.runs.models import cohort_fingerprint, cohort_from_table, cohort_table, model_seeds
from confide.stores import AuditFolder
from confide.training.base import FunctionTrainer

N_PATIENTS, N_HELDOUT = 60, 20


def make_cohort(n_patients, seed=0, name="p"):
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(n_patients), 1 + np.arange(n_patients) % 2)
    n = len(patient)
    return Cohort(
        record=np.array([f"{name}{i:03d}" for i in range(n)], dtype=object),
        patient=np.array([f"{name}-{i}" for i in patient], dtype=object),
        label=rng.integers(0, 2, n),
        task="binary",
        classes=("well", "ill"),
        groups=pd.DataFrame({"sex": np.where(patient % 2, "f", "m")}, dtype=object),
    )


@pytest.fixture
def cohort():
    return make_cohort(N_PATIENTS)


@pytest.fixture
def heldout():
    return make_cohort(N_HELDOUT, seed=1, name="q")


@pytest.fixture
def logistic(cohort, heldout):
    """Ridge logistic regression by Newton steps, with more features than it should have."""
    rng = np.random.default_rng(2)
    label = np.concatenate([cohort.label, heldout.label])
    x = rng.normal(size=(len(label), 25)) + 0.4 * label[:, None]
    calls = []

    def fit(members, seed):
        calls.append(seed)
        w = np.zeros(25)
        for _ in range(6):
            z = x[members] @ w
            p = 1 / (1 + np.exp(-z))
            hessian = (x[members] * (p * (1 - p))[:, None]).T @ x[members] + 0.1 * np.eye(25)
            w -= np.linalg.solve(hessian, x[members].T @ (p - label[members]) + 0.1 * w)
        return (x @ w)[:, None]

    fit.calls = calls
    return fit


def logits(out):
    return AuditFolder.read(out).array("logits")[:]


def test_a_function_of_ones_own_is_audited(cohort, heldout, logistic, tmp_path):
    seen = []
    result = confide.run(
        cohort,
        FunctionTrainer(logistic, "logistic"),
        tmp_path / "out",
        heldout=heldout,
        n_models=16,
        seed=3,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(i, 16) for i in range(17)]
    assert logistic.calls == model_seeds(3, 16)
    assert result.records["record"].tolist() == cohort.record.tolist()
    assert result.patients["n_records"].tolist() == cohort.records_per_patient.tolist()
    # It overfits, so its members are found; and it has learnt something.
    assert result.summary["attacks"]["lira"]["auc_low"] > 0.6
    assert result.summary["utility"]["overall"]["auroc"] > 0.7
    assert result.records["auc"].mean() > 0.57
    folder = AuditFolder.read(tmp_path / "out")
    expected = masks.balanced(16, N_PATIENTS, seed=3)
    np.testing.assert_array_equal(folder.array("membership")[:], expected)
    rows = np.flatnonzero(cohort.expand(expected)[5])
    np.testing.assert_allclose(
        logits(tmp_path / "out")[5, :, 0], logistic(rows, 0)[: cohort.n_records], rtol=1e-6
    )
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["trainer"] == {"trainer": "logistic"}
    assert manifest["seeds"] == model_seeds(3, 16)
    assert result.summary["version"] == confide.__version__


def test_a_failure_is_resumed_with_the_same_numbers(cohort, logistic, heldout, tmp_path):
    arguments = {"heldout": heldout, "n_models": 8}
    whole = confide.run(cohort, FunctionTrainer(logistic, "f"), tmp_path / "whole", **arguments)
    n_calls = 0

    def fails_in_the_fifth(members, seed):
        nonlocal n_calls
        n_calls += 1
        if n_calls == 5:
            raise TrainingError("The device is gone.")
        return logistic(members, seed)

    with pytest.raises(TrainingError, match=r"Model 4: The device is gone\. Finished models"):
        confide.run(cohort, FunctionTrainer(fails_in_the_fifth, "f"), tmp_path / "out", **arguments)
    assert AuditFolder.read(tmp_path / "out").done.tolist() == [True] * 4 + [False] * 4
    half = analyse(tmp_path / "out")
    assert half.summary["models_missing"] == [4, 5, 6, 7]
    assert "4 of 8 models are not finished." in half.summary["warnings"]
    logistic.calls.clear()
    found = confide.run(cohort, FunctionTrainer(logistic, "f"), tmp_path / "out", **arguments)
    assert len(logistic.calls) == 4
    np.testing.assert_array_equal(logits(tmp_path / "out"), logits(tmp_path / "whole"))
    assert found.summary == whole.summary


def test_a_full_disk_is_resumed(cohort, logistic, heldout, tmp_path, monkeypatch):
    n_writes = 0
    sync = os.fsync

    def full_at_the_sixth(handle):
        nonlocal n_writes
        n_writes += 1
        if n_writes >= 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(handle)

    arguments = {"heldout": heldout, "n_models": 8}
    monkeypatch.setattr(os, "fsync", full_at_the_sixth)
    with pytest.raises(FolderError, match=r"is full\. What was finished is safe"):
        confide.run(cohort, FunctionTrainer(logistic, "f"), tmp_path / "out", **arguments)
    n_done = AuditFolder.read(tmp_path / "out").done.sum()
    assert 0 < n_done < 8
    monkeypatch.undo()
    logistic.calls.clear()
    result = confide.run(cohort, FunctionTrainer(logistic, "f"), tmp_path / "out", **arguments)
    assert len(logistic.calls) == 8 - n_done
    assert result.summary["models_missing"] == []


def test_other_attacks_only_analyse_again(cohort, logistic, heldout, tmp_path):
    def audit(**settings):
        trainer = FunctionTrainer(logistic, "f")
        return confide.run(
            cohort, trainer, tmp_path, heldout=heldout, n_models=8, **settings
        ).summary

    first = audit()
    assert (list(first["attacks"]), first["patients"]["fdr"]) == (["lira", "rmia"], 0.05)
    logistic.calls.clear()
    second = audit(attacks=("loss",), fdr=0.3)
    assert (list(second["attacks"]), second["patients"]["fdr"]) == (["loss"], 0.3)
    assert not logistic.calls
    # It stays so when analysed alone.
    assert analyse(tmp_path).summary == second


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"seed": 1}, "audit.seed = 0; it is 1"),
        ({"n_models": 5}, "audit.n_models = 4; it is 5"),
        ({"fraction": 0.25}, "audit.fraction = 0.5; it is 0.25"),
        ({"config": {"train": {"epochs": 9}}}, "train.epochs = 3; it is 9"),
        ({"fingerprint": "b"}, "fingerprint = 'a'; it is 'b'"),
        ({"name": "other"}, "trainer.trainer = 'f'; it is 'other'"),
    ],
)
def test_another_configuration_or_other_data_are_refused(
    cohort, logistic, heldout, tmp_path, change, field
):
    def train(name="f", **changed):
        arguments = {"n_models": 4, "config": {"train": {"epochs": 3}}, "fingerprint": "a"}
        trainer = FunctionTrainer(logistic, name)
        train_models(cohort, trainer, tmp_path, heldout=heldout, **(arguments | changed))

    train()
    before = (tmp_path / "manifest.json").read_bytes()
    with pytest.raises(MismatchError) as caught:
        train(**change)
    assert field in str(caught.value)
    assert "to resume, or another --out" in str(caught.value)
    assert (tmp_path / "manifest.json").read_bytes() == before


def test_settings_are_refused_before_anything_is_trained(cohort, logistic, tmp_path):
    for bad in ({"attacks": ("lirra",)}, {"fdr": 2.0}, {"n_models": 3}, {"fraction": 1.5}):
        with pytest.raises(ArgumentError):
            confide.run(cohort, FunctionTrainer(logistic), tmp_path / "out", **bad)
    assert not logistic.calls


def constant(value):
    return lambda members, seed: value


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (np.zeros((5, 1)), r"logits of shape \(1, 5, 1, 1\); expected \(1, 90, n_views, n_classes"),
        (np.zeros((90, 3)), "returned 3 logits a record; a binary task has 1"),
        (np.zeros(90), r"mine returned an array of shape \(90,\)"),
        (np.zeros((90, 1, 1, 1)), r"mine returned an array of shape \(90, 1, 1, 1\)"),
    ],
)
def test_logits_of_a_wrong_shape_are_refused(cohort, tmp_path, returned, message):
    with pytest.raises(TrainingError, match=message):
        confide.run(cohort, FunctionTrainer(constant(returned), "mine"), tmp_path, n_models=4)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_not_finite_name_model_and_record(cohort, heldout, tmp_path, bad):
    n_calls = 0

    def diverges(members, seed):
        nonlocal n_calls
        n_calls += 1
        values = np.zeros((120, 1))
        values[(n_calls == 3) * 7] = bad if n_calls == 3 else 0
        return values

    with pytest.raises(SignalError, match="Model 2 gives record p007 a logit that is not finite"):
        confide.run(cohort, FunctionTrainer(diverges), tmp_path, heldout=heldout, n_models=4)
    assert AuditFolder.read(tmp_path).done.tolist() == [True, True, False, False]


def test_a_held_out_record_that_is_not_finite_is_named(cohort, heldout, tmp_path):
    values = np.zeros((120, 1))
    values[90 + 4] = np.nan
    with pytest.raises(SignalError, match="Model 0 gives record q004"):
        confide.run(cohort, FunctionTrainer(constant(values)), tmp_path, heldout=heldout)


def test_too_few_finished_models_are_no_audit(cohort, logistic, heldout, tmp_path):
    train_models(cohort, FunctionTrainer(logistic), tmp_path, n_models=4, heldout=heldout)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["models"][0] = "pending"
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(FolderError, match="holds 3 finished models of 4; an audit needs at least"):
        analyse(tmp_path)


@pytest.mark.parametrize("name", ["membership", "logits", "heldout_logits"])
def test_signals_that_were_lost_or_altered_are_no_audit(cohort, logistic, heldout, tmp_path, name):
    train_models(cohort, FunctionTrainer(logistic), tmp_path, n_models=4, heldout=heldout)
    chunk = next(
        p for p in (tmp_path / "signals.zarr" / name / "c" / "2").rglob("*") if p.is_file()
    )
    content = chunk.read_bytes()
    chunk.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(FolderError, match=f"{name} is damaged"):
        analyse(tmp_path)
    chunk.unlink()
    with pytest.raises(FolderError, match=f"1 stored chunk.*{name} are missing"):
        analyse(tmp_path)


def test_a_cohort_survives_its_table(cohort, heldout):
    found, held = cohort_from_table(cohort_table(cohort, heldout), "binary", ["well", "ill"])
    for one, other in ((found, cohort), (held, heldout)):
        np.testing.assert_array_equal(one.record, other.record)
        np.testing.assert_array_equal(one.patient, other.patient)
        np.testing.assert_array_equal(one.label, other.label)
        pd.testing.assert_frame_equal(one.groups, other.groups, check_dtype=False)
    assert cohort_from_table(cohort_table(cohort, None), "binary", ["a", "b"])[1] is None


def test_a_multilabel_cohort_survives_its_table(cohort):
    label = np.array([[1, np.nan, 0]] * cohort.n_records)
    several = Cohort(
        record=cohort.record,
        patient=cohort.patient,
        label=label,
        task="multilabel",
        classes=("a", "b", "c"),
    )
    found, _ = cohort_from_table(cohort_table(several, None), "multilabel", ["a", "b", "c"])
    np.testing.assert_array_equal(found.label, label)


def test_the_fingerprint_depends_on_everything(cohort, heldout):
    one = cohort_fingerprint(cohort, heldout)
    assert one == cohort_fingerprint(make_cohort(N_PATIENTS), heldout)
    assert one != cohort_fingerprint(cohort, None)
    assert one != cohort_fingerprint(make_cohort(N_PATIENTS, seed=5), heldout)


def test_seeds_of_models_do_not_depend_on_their_number():
    assert model_seeds(0, 4) == model_seeds(0, 8)[:4]
    assert len(set(model_seeds(0, 1000)) | set(model_seeds(1, 1000))) == 2000
    assert all(0 <= seed < 2**63 for seed in model_seeds(0, 1000))
