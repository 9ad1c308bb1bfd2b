"""Ranges of loss traces in an audit folder: stored beside the logits, and resumed to the bit."""

import numpy as np
import pytest

from confide.config import parse
from confide.errors import ConfigError, MismatchError, TrainingError
from confide.runs import launch, train_models
from confide.stores import AuditFolder
from confide.training.base import FunctionTrainer, Trainer
from runs.test_run import make_cohort

CONFIG = {
    "data": {"name": "embedded"},
    "train": {
        "model": {"name": "tabular_resnet", "width": 16, "depth": 1},
        "epochs": 4,
        "batch_size": 64,
        "trace": True,
    },
    "audit": {"n_models": 6, "attacks": ["lira"]},
    "performance": {"models_at_once": 2, "device": "cpu"},
}


def _train(out, trainer=None, config=CONFIG):
    config = parse(config)
    data = config.data.load(out.parent)
    cohort, heldout = launch.split(data)
    trainer = trainer or launch.trainer_of(config, data)
    train_models(cohort, trainer, out, n_models=6, heldout=heldout, fingerprint=data.fingerprint())
    return AuditFolder.read(out)


def _stored(folder, name):
    return {
        p.name: p.read_bytes()
        for p in (folder.path / "signals.zarr" / name).rglob("*")
        if p.is_file()
    }


class Fails(Trainer):
    """A trainer that fails in its third group of models."""

    def __init__(self, trainer):
        self._trainer, self.models_at_once, self._n = trainer, trainer.models_at_once, 0

    def fit(self, members, seeds):
        return self.fit_traced(members, seeds)[0]

    def fit_traced(self, members, seeds):
        self._n += 1
        if self._n == 3:
            raise TrainingError("The device is gone.")
        return self._trainer.fit_traced(members, seeds)

    def describe(self):
        return self._trainer.describe()


def test_ranges_are_stored_and_resumed_with_the_same_bytes(tmp_path):
    whole = _train(tmp_path / "whole")
    n = whole.array("logits").shape[1]
    trace = whole.array("trace")[:]
    assert trace.shape == (6, n)
    assert (trace > 0).all()
    whole.check_complete("trace")
    config = parse(CONFIG)
    trainer = launch.trainer_of(config, config.data.load(tmp_path))
    with pytest.raises(TrainingError, match="Models 4 to 5: The device is gone"):
        _train(tmp_path / "killed", Fails(trainer))
    assert np.isnan(AuditFolder.read(tmp_path / "killed").array("trace")[:][4:]).all()
    resumed = _train(tmp_path / "killed")
    for name in ("trace", "logits"):
        assert _stored(resumed, name) == _stored(whole, name)


def test_none_are_stored_unless_asked_for(tmp_path):
    off = CONFIG | {"train": CONFIG["train"] | {"trace": False}}
    assert not _train(tmp_path / "off", config=off).has_array("trace")
    with pytest.raises(MismatchError, match=r"trainer\.settings\.trace = False; it is True"):
        _train(tmp_path / "off")


def test_a_trainer_with_ranges_of_another_shape_is_refused(tmp_path):
    class Wrong(FunctionTrainer):
        def fit_traced(self, members, seeds):
            return self.fit(members, seeds), np.zeros((len(members), 3), dtype=np.float32)

    cohort = make_cohort(10)
    trainer = Wrong(lambda members, seed: np.zeros((cohort.n_records, 1)), "f")
    with pytest.raises(TrainingError, match=r"loss traces of shape \(1, 3\); expected \(1, 15\)"):
        train_models(cohort, trainer, tmp_path / "out", n_models=4)


def test_a_function_keeps_no_traces(tmp_path):
    cohort = make_cohort(10)
    trainer = FunctionTrainer(lambda members, seed: np.zeros((cohort.n_records, 1)), "f")
    assert not trainer.keeps_traces
    train_models(cohort, trainer, tmp_path / "out", n_models=4)
    assert not AuditFolder.read(tmp_path / "out").has_array("trace")


@pytest.mark.parametrize("trace", [{}, {"trace": False}])
def test_an_attack_on_traces_needs_them(trace):
    with pytest.raises(ConfigError, match=r"audit: attack 'lt_iqr' .* set train: \{trace: true\}"):
        parse({"data": {"name": "embedded"}, "train": trace, "audit": {"attacks": ["lt_iqr"]}})
    asked = parse(
        {"data": {"name": "embedded"}, "train": {"trace": True}, "audit": {"attacks": ["lt_iqr"]}}
    )
    assert asked.audit.attacks == ("lt_iqr",)


def test_one_epoch_has_no_trace():
    with pytest.raises(ConfigError, match=r"train: trace=True needs epochs .* set epochs: 2"):
        parse({"data": {"name": "embedded"}, "train": {"trace": True, "epochs": 1}})
