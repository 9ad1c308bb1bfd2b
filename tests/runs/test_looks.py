import json
from itertools import pairwise

import numpy as np
import pytest

import confide.training  # noqa: F401  (torch first, so that its threads wait politely)
from confide import masks
from confide.audits.mann_whitney import blocked_p_value
from confide.audits.multiple import benjamini_hochberg
from confide.audits.patients import patient_risk
from confide.audits.shrinkage import shrunken
from confide.audits.tail import tail
from confide.cohort import Cohort
from confide.config import load, parse, with_audit
from confide.errors import ArgumentError, ConfigError, FolderError, MismatchError
from confide.runs import looks, run, train_models
from confide.runs.looks import Look, Stable, StandardError, Until, named, planned, take
from confide.runs.models import model_seeds
from confide.runs.stored import StoredSignals
from confide.stores import AuditFolder
from confide.training.base import FunctionTrainer, Trainer

N_PATIENTS = 60


def cohort_of(patient):
    n = len(patient)
    return Cohort(
        record=np.arange(n),
        patient=np.asarray(patient),
        label=np.arange(n) % 2,
        task="binary",
        classes=("no", "yes"),
    )


@pytest.fixture
def cohort():
    return cohort_of(np.arange(N_PATIENTS))


def learns(leak, n_leaking=20, stop_at=None):
    """A training whose first patients leak; `calls` counts, `stop_at` is killed."""
    label = np.arange(N_PATIENTS) % 2

    def fit(members, seed):
        fit.calls += 1
        if fit.calls == stop_at:
            raise KeyboardInterrupt
        held = np.zeros(N_PATIENTS)
        held[members] = leak
        held[n_leaking:] = 0.0
        z = np.random.default_rng(seed).normal(size=N_PATIENTS) + held
        return ((2 * label - 1) * z)[:, None]

    fit.calls = 0
    return fit


def train(cohort, fit, out, until, **more):
    design = {"n_models": 64, "seed": 5} | more
    train_models(cohort, FunctionTrainer(fit, "f"), out, until=until, **design)
    return AuditFolder.read(out)


def look(n_models, listed, n=200, se=0.1):
    at_risk = np.zeros(n, dtype=bool)
    at_risk[list(listed)] = True
    return Look(n_models=n_models, at_risk=at_risk, se=se)


class Never:
    """Any rule will do."""

    reads_se = False
    text = "never"

    def enough(self, found):
        return None


class AnyoneListed(Never):
    """The rule of someone who wants to report something."""

    def enough(self, found):
        return "found" if found[-1].at_risk.any() else None


# Rules


def test_the_list_is_stable():
    rule = Stable()
    assert named("stable") == rule
    assert rule.text == "stable"
    assert rule.enough([look(16, range(10))]) is None, "one look is not two"
    assert rule.enough([look(16, []), look(32, [])]) is None, "nobody could be listed yet"
    assert rule.enough([look(16, []), look(32, [1])]) is None
    assert rule.enough([look(16, [1]), look(32, [])]) is None
    assert rule.enough([look(16, [1]), look(32, [2])]) is None
    assert rule.enough([look(16, range(18)), look(32, range(19))]) is None  # 18 / 19 = 0.947
    why = rule.enough([look(16, [3]), look(32, range(19)), look(64, range(20))])  # 19 / 20
    assert why == (
        "the list of patients at risk is stable: 19 at 32 models, 20 at 64, 19 of them the same"
    )


def test_the_risk_is_known():
    rule = StandardError(at_most=0.05)
    assert named("se=0.05") == named("se=0.050") == rule
    assert rule.text == "se=0.05"
    assert rule.enough([look(16, [], se=0.051)]) is None
    assert rule.enough([look(16, [], se=float("nan"))]) is None
    assert "0.05, at most 0.05" in rule.enough([look(16, [], se=0.05)])


@pytest.mark.parametrize(
    "text", ["", "Stable", "se", "se=", "se=x", "se=0", "se=-1", "se=0.5", "se=nan", "auc=0.1"]
)
def test_no_rule(text):
    with pytest.raises(ArgumentError, match="expected 'stable', or 'se='"):
        named(text)
    raw = {"data": {"name": "embedded"}, "audit": {"until": text}}
    with pytest.raises(ConfigError, match=r"audit\.until = .*: expected stable, or se="):
        parse(raw)


@pytest.mark.parametrize("n_models", [16, 32, 48, 64, 208])
def test_planned_looks_double(n_models):
    found = planned(n_models)
    assert found[0] == 16
    assert found[-1] == n_models
    assert all(b == 2 * a for a, b in pairwise(found[:-1]))
    assert all(n % 16 == 0 for n in found)


@pytest.mark.parametrize(("n_models", "near"), [(70, "64 or 80"), (8, "16"), (31, "16 or 32")])
def test_whole_blocks_only(cohort, tmp_path, n_models, near):
    with pytest.raises(ArgumentError, match=f"n_models={n_models} must be .*16; use {near}"):
        train(cohort, learns(0), tmp_path / "out", Stable(), n_models=n_models)
    assert not (tmp_path / "out").exists()
    raw = {"data": {"name": "embedded"}, "audit": {"n_models": n_models}}
    with pytest.raises(ConfigError, match=f"n_models = {n_models} must be .* 16; use {near}"):
        parse(raw | {"audit": {"n_models": n_models, "until": "stable"}})
    with pytest.raises(ConfigError, match="--until: until = 'stable': n_models"):
        with_audit(parse(raw), "--until", until="stable")


def test_the_option_wins(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("data: {name: embedded}\naudit: {n_models: 48, fdr: 0.1, until: stable}\n")
    config, _ = load(path)
    assert config.audit.until == "stable"
    changed = with_audit(config, "--until", until="se=0.1").audit
    assert (changed.until, changed.n_models, changed.fdr) == ("se=0.1", 48, 0.1)
    assert parse({"data": {"name": "embedded"}}).audit.until is None


# Looks


def signals_of(seed, n_patients, n_models, leak=0.0, n_leaking=0):
    rng = np.random.default_rng(seed)
    held = masks.balanced(n_models, n_patients, seed=seed, block=16)
    signal = rng.standard_normal((n_models, n_patients))
    signal[:, :n_leaking] += leak * held[:, :n_leaking]
    return signal, held


@pytest.mark.parametrize("n_models", [16, 48])
def test_a_look_lists_by_the_law_of_its_blocks(n_models):
    signal, held = signals_of(0, 80, n_models, leak=2.0, n_leaking=30)
    found = take(Never(), signal, held, cohort_of(np.arange(80)), fdr=0.03)
    p = blocked_p_value(signal, held, np.arange(n_models) // 16)
    assert found.at_risk.tolist() == (benjamini_hochberg(p) <= 0.03).tolist()
    assert found.at_risk.any()
    assert found.n_models == n_models
    assert np.isnan(found.se), "not asked for"


@pytest.mark.parametrize("n_patients", [80, 160])
def test_the_standard_error_is_that_of_the_posterior(n_patients):
    cohort = cohort_of(np.arange(n_patients))
    signal, held = signals_of(1, n_patients, 32, leak=1.5, n_leaking=n_patients // 2)
    found = take(StandardError(at_most=0.1), signal, held, cohort, fdr=0.05, seed=3)
    _, risk = patient_risk(signal, held, cohort)
    if n_patients < 100:  # too few for shrinkage by covariates
        posterior = tail(risk, np.array([0.8]))
        width = posterior.risk_high - posterior.risk_low
    else:
        near = shrunken(signal, held, cohort, risk, seed=3)
        width = near.high - near.low
    assert found.se == pytest.approx(np.sqrt(np.mean(width**2)) / (2 * 1.959964), rel=1e-6)
    assert found.se < np.sqrt(33 / (12 * 16 * 16))  # that of the measured area without a leak


def test_a_patient_without_a_risk_does_not_count():
    signal, held = signals_of(2, 120, 16)
    signal[:, 7] = np.nan
    cohort = cohort_of(np.arange(120))
    assert 0 < take(StandardError(at_most=0.1), signal, held, cohort, fdr=0.05).se < 0.149


# False discoveries with a choice of when to stop


def stopped(rule, signal, held, cohort, fdr):
    """The list at the look at which the rule stops, the last one otherwise."""
    found = []
    for n_models in planned(len(signal)):
        found.append(take(rule, signal[:n_models], held[:n_models], cohort, fdr=fdr))
        if rule.enough(found):
            break
    return found[-1].at_risk


def false_share(listed, n_leaking):
    return listed[n_leaking:].sum() / max(listed.sum(), 1)


FDR = 0.2


@pytest.mark.parametrize("rule", [Stable(), AnyoneListed()], ids=lambda rule: rule.text)
def test_false_names_with_optional_stopping(rule):
    shares, n_listed = [], 0
    for seed in range(25):
        signal, held = signals_of(seed, 40, 64, leak=1.2, n_leaking=12)
        listed = stopped(rule, signal, held, cohort_of(np.arange(40)), FDR / 3)
        shares.append(false_share(listed, 12))
        n_listed += listed.sum()
    assert n_listed > 50
    assert np.mean(shares) <= FDR


def test_looks_that_are_not_paid_for_find_what_is_not_there():
    n_looks = len(planned(128))
    assert n_looks == 4
    unpaid, paid = [], []
    cohort = cohort_of(np.arange(40))
    for seed in range(30):
        signal, held = signals_of(seed, 40, 128, leak=0.3, n_leaking=1)
        for shares, fdr in ((unpaid, FDR), (paid, FDR / n_looks)):
            listed = stopped(AnyoneListed(), signal, held, cohort, fdr)
            shares.append(false_share(listed, 1))
    assert np.mean(unpaid) > 1.5 * FDR
    assert np.mean(paid) <= FDR


@pytest.mark.slow
@pytest.mark.parametrize("n_leaking", [0, 3, 15])
@pytest.mark.parametrize("rule", [Stable(), AnyoneListed()], ids=lambda rule: rule.text)
def test_false_names_with_optional_stopping_in_many_audits(rule, n_leaking):
    shares = []
    rng = np.random.default_rng(9)
    patient = np.repeat(np.arange(45), rng.integers(1, 4, 45))
    cohort = cohort_of(patient)
    for seed in range(300):
        signal, held = signals_of(seed, 45, 128, leak=1.0, n_leaking=n_leaking)
        noise = np.random.default_rng([seed, 1]).standard_normal((128, len(patient)))
        listed = stopped(rule, signal[:, patient] + noise, held, cohort, FDR / 4)
        shares.append(false_share(listed, n_leaking))
    assert np.mean(shares) <= FDR


# Runs


def test_a_strong_leak_stops_the_run(cohort, tmp_path):
    fit = learns(6.0)
    folder = train(cohort, fit, tmp_path / "out", Stable())
    assert fit.calls == 32
    assert folder.manifest["models"] == ["done"] * 32 + ["pending"] * 32
    design = folder.manifest["design"]
    assert (design["n_models"], design["block"], design["until"]) == (64, 16, "stable")
    until = Until.of(folder.manifest)
    assert (until.looks, until.fdr, until.stopped_at) == ((16, 32, 64), 0.05, 32)
    assert until.why == (
        "the list of patients at risk is stable: 20 at 16 models, 20 at 32, 20 of them the same"
    )
    assert until.n_due == 32
    (warning,) = until.warnings()
    assert warning.startswith("The run stopped after 32 of at most 64 models (until stable): the ")
    assert "not corrected" in warning
    expected = masks.balanced(64, N_PATIENTS, seed=5, block=16)
    np.testing.assert_array_equal(folder.array("membership")[:], expected)
    assert folder.manifest["seeds"] == model_seeds(5, 64)
    for name in ("membership", "logits"):
        folder.check_complete(name)

    # Again: nothing is trained, whatever is asked of the list.
    again = train(cohort, fit, tmp_path / "out", Stable(), fdr=0.2)
    assert fit.calls == 32
    assert again.manifest == folder.manifest


def test_without_a_leak_all_models_are_trained(cohort, tmp_path):
    fit = learns(0.0)
    folder = train(cohort, fit, tmp_path / "out", Stable())
    assert fit.calls == 64
    assert folder.done.all()
    until = Until.of(folder.manifest)
    assert until.stopped_at == 64
    assert "did not come" in until.why


def test_the_risk_is_known_and_the_run_stops(cohort, tmp_path):
    folder = train(cohort, learns(0.0), tmp_path / "out", StandardError(at_most=0.1), n_models=32)
    assert folder.manifest["until"]["stopped_at"] == 16
    assert folder.done.sum() == 16


def contents(folder):
    files = {p.relative_to(folder): p for p in folder.rglob("*") if p.is_file()}
    return {str(k): p.read_bytes() for k, p in files.items() if p.name != ".lock"}


@pytest.mark.parametrize("killed_at", [[5], [17], [24], [16, 14, 2]])
def test_killed_and_resumed_it_stops_at_the_same_look(cohort, tmp_path, killed_at):
    train(cohort, learns(6.0), tmp_path / "whole", Stable())
    for n in killed_at:
        with pytest.raises(KeyboardInterrupt):
            train(cohort, learns(6.0, stop_at=n), tmp_path / "out", Stable())
        assert Until.of(AuditFolder.read(tmp_path / "out").manifest).stopped_at is None
    unfinished = Until.of(AuditFolder.read(tmp_path / "out").manifest)
    assert unfinished.n_due == 64
    assert "not finished" in unfinished.warnings()[0]
    train(cohort, learns(6.0), tmp_path / "out", Stable())
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_killed_while_it_looks(cohort, tmp_path, monkeypatch):
    train(cohort, learns(6.0), tmp_path / "whole", Stable())
    n_looks = 0

    def killed(*arguments, **more):
        nonlocal n_looks
        n_looks += 1
        if n_looks == 2:
            raise KeyboardInterrupt
        return take(*arguments, **more)

    monkeypatch.setattr(looks, "take", killed)
    with pytest.raises(KeyboardInterrupt):
        train(cohort, learns(6.0), tmp_path / "out", Stable())
    fit = learns(6.0)
    train(cohort, fit, tmp_path / "out", Stable())
    assert fit.calls == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_groups_of_models_end_at_looks(cohort, tmp_path):
    class InGroups(Trainer):
        models_at_once = 6

        def __init__(self):
            self.sizes = []

        def fit(self, members, seeds):
            self.sizes.append(len(members))
            return FunctionTrainer(learns(0.0)).fit(members, seeds)

    trainer = InGroups()
    train_models(cohort, trainer, tmp_path / "out", n_models=48, until=Stable())
    assert trainer.sizes == [6, 6, 4] * 3


@pytest.mark.parametrize(
    ("begun", "now", "said"),
    [
        (None, Stable(), "audit.until = None; it is 'stable' now"),
        (Stable(), None, "audit.until = 'stable'; it is None now"),
        (Stable(), StandardError(at_most=0.1), "audit.until = 'stable'; it is 'se=0.1' now"),
    ],
)
def test_another_rule_is_refused(cohort, tmp_path, begun, now, said):
    train(cohort, learns(0.0), tmp_path / "out", begun, n_models=16)
    with pytest.raises(MismatchError, match=said):
        train(cohort, learns(0.0), tmp_path / "out", now, n_models=16)


def test_more_models_are_another_design(cohort, tmp_path):
    train(cohort, learns(0.0), tmp_path / "out", Stable(), n_models=16)
    with pytest.raises(MismatchError, match=r"audit\.n_models = 16; it is 32 now"):
        train(cohort, learns(0.0), tmp_path / "out", Stable(), n_models=32)


def test_a_folder_without_a_rule_is_as_before(cohort, tmp_path):
    folder = train(cohort, learns(0.0), tmp_path / "out", None, n_models=16)
    assert "until" not in folder.manifest
    assert folder.manifest["design"] == {"n_models": 16, "fraction": 0.5, "seed": 5}
    assert Until.of(folder.manifest) is None
    expected = masks.balanced(16, N_PATIENTS, seed=5)
    np.testing.assert_array_equal(folder.array("membership")[:], expected)


def test_canaries_are_not_looked_at(cohort, tmp_path):
    canary = np.arange(N_PATIENTS) < 20  # all of whom leak
    folder = train(cohort, learns(6.0), tmp_path / "out", Stable(), n_models=48, canary=canary)
    assert folder.manifest["until"]["stopped_at"] == 48
    assert "did not come" in folder.manifest["until"]["why"]


@pytest.mark.parametrize(
    "change",
    [
        {"rule": "never"},
        {"rule": 3},
        {"looks": []},
        {"looks": [16, 40]},
        {"looks": ["16"]},
        {"looks": None},
        {"stopped_at": 17},
        {"fdr": 0},
        {"more": 1},
    ],
    ids=str,
)
def test_a_damaged_manifest(change):
    good = Until(rule="stable", looks=(16, 32), fdr=0.05).to_json()
    assert Until.of({"until": json.loads(json.dumps(good))}).to_json() == good
    for until in (good | change, [], "stable"):
        with pytest.raises(FolderError, match="`until` is damaged"):
            Until.of({"until": until})


def test_the_audit_of_a_stopped_run_pays_for_its_looks(cohort, tmp_path):
    """What is reported is the list of the look, of the models that were due, and nothing more."""
    out = tmp_path / "out"
    result = run(
        cohort,
        FunctionTrainer(learns(6.0), "f"),
        out,
        n_models=128,
        until="stable",
        attacks=("lira",),
        fdr=0.1,
    )
    summary, n = result.summary, result.summary["n_models"]
    assert summary["until"]["stopped_at"] == n < 128
    assert summary["models_missing"] == []
    assert not any("not finished" in warning for warning in summary["warnings"])
    assert summary["patients"]["looks"] == len(planned(128)) == 4
    folder = AuditFolder.read(out)
    signal = StoredSignals(folder.array("logits"), folder.done, cohort.label, "binary")[:, :]
    held = folder.array("membership")[:][folder.done]
    seen = take(Stable(), signal[..., 0], held, cohort, fdr=0.1 / 4)
    listed = result.patients["at_risk"].to_numpy()
    np.testing.assert_array_equal(listed, seen.at_risk)
    assert listed.sum() == summary["patients"]["n_at_risk"] > 10
    np.testing.assert_array_equal(listed, result.patients["q_value"] <= 0.1)
