"""One function of one's own in, an audit out; and a source of one's own."""

import json
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pytest

import confide
from confide.config import AuditBlock, parse
from confide.datasets import Embedded, Source
from confide.datasets.base import Data
from confide.errors import ArgumentError, TableError, TrainingError
from confide.runs.launch import run_config, run_source
from confide.stores import AuditFolder
from confide.training import TrainSettings
from runs.test_run import make_cohort


@pytest.fixture
def cohort():
    return make_cohort(80)


@pytest.fixture
def ridge(cohort):
    """Least squares with more features than it should have; counts its calls."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(cohort.n_records, 25)) + 0.4 * cohort.label[:, None]

    def fit(train, query, seed):
        fit.calls += 1
        fit.seen |= set(train.tolist())
        z, y = x[train], 2.0 * cohort.label[train] - 1
        return 4 * x[query] @ np.linalg.solve(z.T @ z + 0.1 * np.eye(25), z.T @ y)

    fit.calls, fit.seen = 0, set()
    return fit


def stored(out, name="logits"):
    return AuditFolder.read(out).array(name)[:]


def test_a_function_and_a_test_set_are_enough(cohort, ridge, tmp_path):
    _, test = cohort.split(0.25, seed=1)
    out = tmp_path / "out"
    found = confide.run(cohort, ridge, out, test=test, n_models=8)
    assert ridge.calls == 8
    assert ridge.seen == set(np.flatnonzero(~test).tolist())
    assert found.records["record"].tolist() == cohort.record[~test].tolist()
    assert found.summary["n_heldout_records"] == int(test.sum())
    assert found.summary["utility"]["overall"]["auroc"] > 0.7
    assert json.loads((out / "manifest.json").read_text())["trainer"]["trainer"].endswith("fit")
    # The same as with cohorts and rows that were put in order by hand.
    order = np.concatenate([np.flatnonzero(~test), np.flatnonzero(test)])

    def by_hand(train, seed):
        return ridge(order[train], order, seed)[:, None]

    trainer = confide.FunctionTrainer(by_hand)
    arguments = {"heldout": cohort.select(test), "n_models": 8}
    again = confide.run(cohort.select(~test), trainer, tmp_path / "hand", **arguments)
    for name in ("logits", "heldout_logits"):
        np.testing.assert_array_equal(stored(out, name), stored(tmp_path / "hand", name))
    assert again.summary == found.summary


def test_a_stopped_run_goes_on_with_the_same_numbers(cohort, ridge, tmp_path):
    _, test = cohort.split(0.25, seed=1)
    arguments = {"test": test, "n_models": 8}
    whole = confide.run(cohort, ridge, tmp_path / "whole", **arguments)

    def fit(train, query, seed):
        if ridge.calls == 13:
            raise MemoryError("no room")
        return ridge(train, query, seed)

    fit.__qualname__ = ridge.__qualname__
    with pytest.raises(TrainingError, match=r"Model 5: .*fit raised MemoryError: no room\."):
        confide.run(cohort, fit, tmp_path / "out", **arguments)
    found = confide.run(cohort, ridge, tmp_path / "out", **arguments)
    assert ridge.calls == 16
    np.testing.assert_array_equal(stored(tmp_path / "out"), stored(tmp_path / "whole"))
    assert found.summary == whole.summary


def test_without_held_out_records_and_with_views(cohort, ridge, tmp_path):
    def fit(train, query, seed):
        logits = ridge(train, query, seed)
        return np.stack([logits, logits + 0.1], axis=1)[..., None]

    found = confide.run(cohort, fit, tmp_path, test=np.zeros(cohort.n_records, bool), n_models=4)
    assert found.summary["utility"] is None
    assert stored(tmp_path).shape == (4, cohort.n_records, 2, 1)


def test_test_sets_that_cannot_be_are_refused(cohort, ridge, tmp_path):
    _, test = cohort.split(0.25, seed=1)
    torn = test.copy()
    torn[np.flatnonzero(cohort.patient_index == cohort.patient_index[-1])[:1]] ^= True
    for bad, error, words in (
        (test[1:], ArgumentError, "Expected test of shape"),
        (test.astype(int), ArgumentError, "type bool"),
        (np.ones_like(test), ArgumentError, "120 of 120 held out"),
        (torn, (ArgumentError, TableError), "p-79"),
    ):
        with pytest.raises(error, match=words):
            confide.run(cohort, ridge, tmp_path, test=bad, n_models=4)
    with pytest.raises(ArgumentError, match="`test` or `heldout`, got both"):
        confide.run(cohort, ridge, tmp_path, test=test, heldout=make_cohort(9, name="q"))
    with pytest.raises(ArgumentError, match="cannot be told which records are held out"):
        confide.run(cohort, lambda rows, seed: rows, tmp_path, test=test)
    assert ridge.calls == 0


class Halves(Source):
    """Half of the embedded study, with a setting of its own."""

    description: ClassVar[str] = "half of a study"
    name: Literal["halves"] = "halves"
    odd: bool = False

    def load(self, folder: Path = Path()) -> Data:
        whole = Embedded().load(folder)
        rows = np.arange(int(self.odd), whole.cohort.n_records, 2)
        return Data(
            cohort=whole.cohort.select(rows),
            inputs=whole.inputs[rows],
            test=whole.test[rows],
            feature_names=whole.feature_names,
        )


TRAIN = {"model": {"width": 8, "depth": 1}, "epochs": 2}


def test_a_source_of_ones_own_is_audited(tmp_path):
    train, audit = TrainSettings(**TRAIN), AuditBlock(n_models=4)
    found = run_source(Halves(), tmp_path, train=train, audit=audit)
    assert found.summary["n_patients"] + found.summary["n_heldout_records"] == 285
    with pytest.raises(confide.ConfideError, match="odd = False; it is True"):
        run_source(Halves(odd=True), tmp_path, train=train, audit=audit)


def test_a_configuration_and_its_source_are_one(tmp_path):
    config = parse({"data": {"name": "embedded"}, "train": TRAIN, "audit": {"n_models": 4}})
    first = run_config(config, tmp_path, tmp_path / "a")
    second = run_source(config.data, tmp_path / "b", train=config.train, audit=config.audit)
    assert first.summary == second.summary
    np.testing.assert_array_equal(stored(tmp_path / "a"), stored(tmp_path / "b"))
    manifests = [json.loads((tmp_path / x / "manifest.json").read_text()) for x in "ab"]
    for key in ("config", "design", "fingerprint", "trainer", "title"):
        assert manifests[0][key] == manifests[1][key]
