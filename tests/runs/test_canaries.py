import numpy as np
import pandas as pd
import pytest

from confide import config
from confide.audits.audit import audit
from confide.audits.verdict import verdict
from confide.cohort import Cohort
from confide.datasets.base import Data
from confide.errors import ConfigError, MismatchError
from confide.runs import analyse, run, run_config
from confide.runs.canaries import SomeRecords, plant
from confide.stores import AuditFolder, read_table
from confide.training.base import FunctionTrainer

N, N_TEST = 60, 24


def make_data(task="multiclass", seed=0):
    """Patients with one, two or three records, the last ones held out."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(N + N_TEST), 1 + np.arange(N + N_TEST) % 3)
    n = len(patient)
    classes = ("a", "b", "c") if task != "binary" else ("no", "yes")
    label = rng.integers(0, len(classes), n)
    if task == "multilabel":
        label = rng.integers(0, 2, (n, 3)).astype(float)
        label[rng.random((n, 3)) < 0.3] = np.nan
    cohort = Cohort(
        record=np.arange(n),
        patient=patient,
        label=label,
        task=task,
        classes=classes,
        groups=pd.DataFrame({"sex": np.where(patient % 2, "f", "m")}, dtype=object),
    )
    return Data(
        cohort=cohort,
        inputs=rng.normal(size=(n, 5)).astype(np.float32),
        test=patient >= N,
        feature_names=tuple("abcde"),
    )


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
def test_canaries_are_held_out_patients_with_wrong_labels(task):
    data = make_data(task)
    planted, canary = plant(data, 5, seed=1)
    patient = data.cohort.patient
    assert len(np.unique(patient[canary])) == 5
    assert data.test[canary].all()
    assert (planted.test == (data.test & ~canary)).all()
    assert planted.inputs is data.inputs
    before, after = data.cohort.label, planted.cohort.label
    known = ~np.isnan(before[canary])
    assert (before[canary][known] != after[canary][known]).all()
    assert np.array_equal(before[~canary], after[~canary], equal_nan=True)
    assert np.array_equal(np.isnan(before), np.isnan(after))
    again, same = plant(data, 5, seed=1)
    assert (same == canary).all()
    assert np.array_equal(again.cohort.label, after, equal_nan=True)
    assert (plant(data, 5, seed=2)[1] != canary).any()


def test_no_canaries_change_nothing():
    data = make_data()
    planted, canary = plant(data, 0, seed=1)
    assert planted is data
    assert not canary.any()


def test_too_many_canaries_are_refused():
    with pytest.raises(ConfigError, match=r"audit\.canaries = 13 .* there are 24"):
        plant(make_data(), 13, seed=0)
    data = make_data("multilabel")
    data.cohort.label[data.test] = np.nan
    with pytest.raises(ConfigError, match="canaries = 1 "):
        plant(data, 1, seed=0)
    with pytest.raises(ConfigError, match=r"audit\.canaries"):
        config.parse({"data": {"name": "embedded"}, "audit": {"canaries": -1}})


def test_some_records_slice_like_an_array():
    values = np.random.default_rng(0).normal(size=(4, 30, 2))
    chosen = np.arange(30) % 3 != 1
    some = SomeRecords(values, chosen)
    assert some.shape == (4, 20, 2)
    for a, b in [(0, 20), (3, 11), (19, 20), (5, 5), (0, 1)]:
        assert np.array_equal(some[:, a:b], values[:, chosen][:, a:b])


def memoriser(data):
    """A trainer that knows its members by heart, their labels as it was given them."""
    order = np.concatenate([np.flatnonzero(~data.test), np.flatnonzero(data.test)])
    label = data.cohort.label[order]

    def fit(members, seed):
        rng = np.random.default_rng(seed)
        logits = rng.normal(size=(len(label), 3))
        logits[members, label[members]] += 2.5
        return logits

    return FunctionTrainer(fit)


def audited(data, out, canary, **given):
    real = data.cohort.select(~data.test)
    held = data.cohort.select(data.test)
    trainer = memoriser(data)
    mine = None if canary is None else canary[~data.test]
    return run(real, trainer, out, heldout=held, n_models=48, canary=mine, **given)


def test_canaries_are_reported_apart(tmp_path):
    planted, canary = plant(make_data(), 6, seed=1)
    found = audited(planted, tmp_path / "run", canary)
    assert found.summary["patients"]["canaries"] == {"planted": 6, "found": 6}
    assert found.summary["verdict"] == verdict(found.summary)
    assert found.summary["n_patients"] == N
    assert len(found.patients) == N
    assert set(found.records["patient"]) == set(range(N))
    assert "6 held-out patients were trained on" in " ".join(found.summary["warnings"])
    bounds = [b for b in found.summary["epsilon"] if b["whose"] == "canaries"]
    one_run = next(b for b in bounds if b["method"] == "one_run" and b["unit"] == "patient")
    assert one_run["epsilon"] > 0.5
    # 12 pairs of models, 6 canaries, each in exactly one model of about half of the pairs.
    assert 20 < one_run["n_in"] + one_run["n_out"] < 55
    table = read_table(tmp_path / "run" / "cohort.parquet")
    assert table["canary"].sum() == canary.sum()
    assert not table["canary"][table["heldout"]].any()
    held_out = len(np.unique(planted.cohort.patient[planted.test]))
    assert held_out == N_TEST - 6
    assert analyse(tmp_path / "run").summary == found.summary


def test_real_patients_are_audited_as_if_by_themselves(tmp_path):
    planted, canary = plant(make_data(), 6, seed=1)
    found = audited(planted, tmp_path / "run", canary)
    folder = AuditFolder.read(tmp_path / "run")
    mine = canary[~planted.test]
    both = planted.cohort.select(~planted.test)
    real = np.isin(both.patients, both.patient[~mine])
    held = planted.cohort.select(planted.test)
    from confide.signals import signals

    alone = audit(
        signals(folder.array("logits")[:][:, ~mine], both.label[~mine], "multiclass"),
        folder.array("membership")[:][:, real],
        both.select(~mine),
        population=signals(folder.array("heldout_logits")[:], held.label, "multiclass"),
    )
    pd.testing.assert_frame_equal(found.patients, alone.patients)
    pd.testing.assert_frame_equal(found.records, alone.records)
    pd.testing.assert_frame_equal(found.groups, alone.groups)
    assert found.summary["attacks"] == alone.summary["attacks"]


def test_a_canary_more_is_another_run(tmp_path):
    planted, canary = plant(make_data(), 4, seed=1)
    fingerprint = {"fingerprint": "x"}
    audited(planted, tmp_path / "run", canary, **fingerprint)
    with pytest.raises(MismatchError, match=r"audit\.canaries = 4; it is None"):
        audited(planted, tmp_path / "run", None, **fingerprint)


def test_from_a_configuration(tmp_path):
    settings = config.parse(
        {
            "data": {"name": "embedded"},
            "train": {"model": {"name": "tabular_resnet", "width": 32, "depth": 1}, "epochs": 3},
            "audit": {"n_models": 8, "canaries": 3, "attacks": ["lira"]},
        }
    )
    found = run_config(settings, tmp_path, tmp_path / "run")
    plain = settings.data.load(tmp_path)
    assert found.summary["n_records"] == (~plain.test).sum()
    assert found.summary["n_heldout_records"] == plain.test.sum() - 3
    assert found.summary["patients"]["canaries"]["planted"] == 3
