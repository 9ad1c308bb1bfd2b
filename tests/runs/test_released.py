"""An audit of a released model from its file to its report."""

import json
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from confide.cli import main
from confide.cohort import Cohort
from confide.config import load_as
from confide.errors import ArgumentError, ConfigError, MismatchError, SignalError, TableError
from confide.reports.released import renderables
from confide.runs.model_config import audit_model_config
from confide.runs.model_settings import ModelConfig
from confide.runs.outputs import scaled
from confide.runs.released import Model, audit_model
from confide.runs.released_analysis import analyse_model

N_PATIENTS, N_FEATURES = 80, 6


def linear(weight):
    """A model of logits that is linear in the inputs."""
    return lambda x: x @ weight


@pytest.fixture(scope="module")
def world():
    """Records whose labels a model knows by heart: leak > 0 raises the members' own logits."""
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(N_PATIENTS), 1 + np.arange(N_PATIENTS) % 3)
    n = len(patient)
    x = rng.normal(size=(n, N_FEATURES)).astype(np.float32)
    label = rng.integers(0, 3, n)
    member = (rng.permutation(N_PATIENTS) < N_PATIENTS // 2)[patient]
    cohort = Cohort(
        record=np.asarray([f"r{i}" for i in range(n)]),
        patient=np.asarray([f"p{i:03d}" for i in patient]),
        label=label,
        task="multiclass",
        classes=("a", "b", "c"),
        groups=pd.DataFrame({"sex": np.where(patient % 2, "f", "m")}),
    )
    return cohort, x, member


def outputs(world, leak, seed=0):
    cohort, _, member = world
    z = np.random.default_rng(seed).normal(size=(cohort.n_records, 3))
    return z + leak * member[:, None] * np.eye(3)[cohort.label]


def test_a_leaking_model_is_found_and_the_folder_holds_what_the_report_needs(world, tmp_path):
    cohort, x, member = world
    references = [Model(model=outputs(world, 0.0, s), name=f"r{s}") for s in (1, 2)]
    target = Model(model=outputs(world, 3.0), members=member, name="vendor")
    out = tmp_path / "out"
    found = audit_model(target, cohort, out, inputs=x, references=references, title="Vendor 2")
    assert found.summary["verdict"]["status"] == "detectable"
    assert set(found.summary["attacks"]) == {"loss", "lira_offline", "rmia_offline"}
    status = {g["name"]: g["status"] for g in found.summary["guards"]}
    assert status == {
        "blind": "passed",
        "recipe": "unknown",
        "duplicates": "passed",
        "references": "passed",
    }
    summary = json.loads((out / "summary.json").read_text())
    assert summary["n_models"] == 1
    assert summary["n_references"] == 2
    assert summary["models"] == ["vendor", "r1", "r2"]
    assert summary["utility"]["overall"]["auroc"] is not None
    assert summary["patients"] == {}  # one model says nothing on the risk of one person
    records = pd.read_parquet(out / "records.parquet")
    assert records["record"].tolist() == cohort.record.tolist()
    patients = pd.read_parquet(out / "patients.parquet")
    assert {"patient", "member", "score_loss", "group_sex"} <= set(patients.columns)
    assert not {"p_value", "q_value", "at_risk"} & set(patients.columns)
    page = (out / "report.html").read_text()
    assert "Leakage detected" in page
    assert "Vendor 2" in page
    assert "p001" not in page  # nobody is named
    assert page.count("<script>") == 1  # sorts and downloads tables
    assert (out.stat().st_mode & 0o777) == 0o700
    again = analyse_model(out)
    assert again.summary == found.summary


def test_a_model_that_forgot_everybody_is_not_shown_to_leak(world, tmp_path):
    cohort, x, member = world
    target = Model(model=linear(np.eye(N_FEATURES)[:, :3]), members=member)
    found = audit_model(target, cohort, tmp_path / "out", inputs=x)
    assert found.summary["verdict"]["status"] == "not_shown"
    assert 0.5 < found.summary["smallest_detectable_auc"] < 1
    assert "No leak shown" in (tmp_path / "out" / "report.html").read_text()


def test_functions_are_asked_in_batches_and_not_again(world, tmp_path):
    cohort, x, member = world
    sizes = []

    def model(batch):
        sizes.append(len(batch))
        return batch[:, :3]

    target = Model(model=model, members=member, mark="1")
    first = audit_model(target, cohort, tmp_path / "out", inputs=x, batch_size=50)
    assert sum(sizes) == cohort.n_records
    assert max(sizes) == 50
    n_calls = len(sizes)
    second = audit_model(target, cohort, tmp_path / "out", inputs=x, batch_size=50)
    assert len(sizes) == n_calls
    assert first.summary == second.summary
    other = Model(model=model, members=member, mark="2")
    with pytest.raises(MismatchError, match=r"target\.file"):
        audit_model(other, cohort, tmp_path / "out", inputs=x)


def test_members_of_another_source_take_the_verdict_away(world, tmp_path):
    cohort, x, member = world
    shifted = x + 3.0 * member[:, None]
    target = Model(model=outputs(world, 3.0), members=member)
    found = audit_model(target, cohort, tmp_path / "a", inputs=shifted.astype(np.float32))
    blind = next(g for g in found.summary["guards"] if g["name"] == "blind")
    assert blind["status"] == "failed"
    assert found.summary["verdict"]["status"] == "not_established"
    page = (tmp_path / "a" / "report.html").read_text()
    assert page.index("Guard “blind” failed") < page.index('id="verdict"')
    found = audit_model(
        target, cohort, tmp_path / "a", inputs=shifted.astype(np.float32), accept=["blind"]
    )
    blind = next(g for g in found.summary["guards"] if g["name"] == "blind")
    assert blind["status"] == "accepted"
    _says_first(
        found, tmp_path / "a", "Members and others can be told apart without the model, AUC"
    )
    shown = "".join(map(str, renderables(found)))
    assert shown.index("Guard blind failed and was accepted.") < shown.index("NOT ESTABLISHED")


def _says_first(found, out, sentence):
    """Nothing is claimed of the model, in the summary and on the page."""
    verdict = json.loads((out / "summary.json").read_text())["verdict"]
    assert verdict == found.summary["verdict"]
    assert verdict["status"] == "not_established"
    assert verdict["text"].startswith(sentence)
    assert "the figures do not separate the model's memory" in verdict["text"]
    page = (out / "report.html").read_text()
    assert "failed and was accepted" in page
    assert "Leakage detected" not in page
    assert f'<h2 id="verdict-title">{sentence.removesuffix(" AUC")}' in page


def test_references_that_were_trained_otherwise_take_the_verdict_away(world, tmp_path):
    cohort, x, member = world
    target = Model(model=outputs(world, 3.0), members=member, recipe={"epochs": 5})
    other = Model(model=outputs(world, 0.0, 1), name="other", recipe={"epochs": 9})
    found = audit_model(
        target, cohort, tmp_path / "a", inputs=x, references=[other], accept=["recipe"]
    )
    _says_first(found, tmp_path / "a", "The target and its references were not trained alike,")


def test_a_refused_audit_can_be_mended_in_the_same_folder(world, tmp_path):
    cohort, _, member = world
    p = 1 / (1 + np.exp(-outputs(world, 0.0)))
    two = cohort.select(cohort.label < 2)
    two = replace(two, task="binary", classes=("a", "b"))
    p, member = p[cohort.label < 2, 0], member[cohort.label < 2]
    reference = Model(model=outputs(world, 0.0)[cohort.label < 2, :2], name="reference")
    with pytest.raises(ArgumentError, match="output: probabilities"):
        audit_model(Model(model=p, members=member), two, tmp_path / "a")
    mended = Model(model=p, members=member, output="probabilities")
    found = audit_model(mended, two, tmp_path / "a", references=[reference])
    assert found.summary["models"] == ["model", "reference"]
    with pytest.raises(MismatchError, match=r"target\.output"):
        audit_model(replace(mended, output="logits"), two, tmp_path / "a", references=[reference])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_model_that_takes_other_inputs_is_refused_with_the_cause(world, tmp_path):
    cohort, x, member = world
    network = torch.jit.script(torch.nn.Linear(9, 3).eval())
    target = Model(model=lambda batch: network(torch.from_numpy(batch)), members=member)
    with pytest.raises(ArgumentError, match=r"shapes cannot be multiplied \(\d+x6 and 9x3\)$"):
        audit_model(target, cohort, tmp_path / "a", inputs=x)


def test_without_inputs_the_blind_guard_does_not_pass(world, tmp_path):
    cohort, _, member = world
    found = audit_model(Model(model=outputs(world, 0.0), members=member), cohort, tmp_path / "a")
    blind = next(g for g in found.summary["guards"] if g["name"] == "blind")
    assert blind["status"] == "unknown"


def test_records_that_are_neither_are_left_out(world, tmp_path):
    cohort, x, member = world
    members = member.astype(float)
    members[cohort.patient_index < 5] = np.nan
    found = audit_model(
        Model(model=outputs(world, 1.0), members=members), cohort, tmp_path / "a", inputs=x
    )
    n = int((cohort.patient_index >= 5).sum())
    assert found.summary["n_records"] == n
    assert len(found.records) == n
    assert any("neither members nor non-members" in w for w in found.summary["warnings"])


def test_the_same_inputs_on_both_sides_are_reported(world, tmp_path):
    cohort, x, member = world
    twice = x.copy()
    twice[np.flatnonzero(~member)[0]] = x[np.flatnonzero(member)[0]]
    found = audit_model(
        Model(model=outputs(world, 1.0), members=member), cohort, tmp_path / "a", inputs=twice
    )
    guard = next(g for g in found.summary["guards"] if g["name"] == "duplicates")
    assert guard["status"] == "failed"
    assert guard["message"].startswith("1 non-members")


def test_what_cannot_be_audited_is_refused(world, tmp_path):
    cohort, x, member = world
    out = tmp_path / "a"
    cut = member.copy()
    cut[np.flatnonzero(cohort.patient_index == 1)[0]] ^= True
    with pytest.raises(TableError, match="model: Patient 'p001' is both"):
        audit_model(Model(model=outputs(world, 0.0), members=cut), cohort, out, inputs=x)
    with pytest.raises(ArgumentError, match="members of the target"):
        audit_model(Model(model=outputs(world, 0.0)), cohort, out, inputs=x)
    with pytest.raises(ArgumentError, match="needs the inputs"):
        audit_model(Model(model=linear(np.eye(6)), members=member), cohort, out)
    with pytest.raises(ArgumentError, match="does not take inputs of shape"):
        audit_model(Model(model=linear(np.eye(5)), members=member), cohort, out, inputs=x)
    broken = outputs(world, 0.0)
    broken[3] = np.inf
    with pytest.raises(SignalError, match="'r3'"):
        audit_model(Model(model=broken, members=member), cohort, tmp_path / "b", inputs=x)


def test_inputs_are_scaled_by_channel():
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 4)).astype(np.uint8)
    np.testing.assert_allclose(scaled(images, (), ()), images / np.float32(255))
    found = scaled(images, (1, 2, 3), (2.0,))
    np.testing.assert_allclose(found[:, 1], (images[:, 1].astype(np.float32) - 2) / 2)
    with pytest.raises(ArgumentError, match="expected 1 or 3"):
        scaled(images, (1, 2), ())
    with pytest.raises(ArgumentError, match="holds 0"):
        scaled(images, (), (0.0,))


@pytest.fixture
def folder(world, tmp_path):
    """A table, a model that was exported from PyTorch, a table of predictions, a configuration."""
    cohort, x, member = world
    frame = pd.DataFrame(x, columns=[f"x{i}" for i in range(N_FEATURES)])
    frame = frame.assign(
        id=cohort.record,
        patient=cohort.patient,
        y=np.asarray(cohort.classes)[cohort.label],
        sex=cohort.groups["sex"],
        trained=member.astype(int),
        split=np.where(member, "train", "held out"),
    )
    frame.to_csv(tmp_path / "records.csv", index=False)
    network = torch.nn.Linear(N_FEATURES, 3).eval()
    torch.nn.init.normal_(network.weight, generator=torch.Generator().manual_seed(0))
    n = torch.export.Dim("n", min=1, max=4096)
    program = torch.export.export(network, (torch.zeros(3, 6),), dynamic_shapes=({0: n},))
    torch.export.save(program, tmp_path / "vendor.pt2")
    z = outputs(world, 0.0, 5)
    table = pd.DataFrame(z, columns=["logit_0", "logit_1", "logit_2"]).assign(record=cohort.record)
    table.sample(frac=1, random_state=0).to_parquet(tmp_path / "reference.parquet")
    config = {
        "data": {
            "name": "table",
            "path": "records.csv",
            "record": "id",
            "patient": "patient",
            "label": "y",
            "features": [f"x{i}" for i in range(N_FEATURES)],
            "groups": ["sex"],
        },
        "target": {"model": "vendor.pt2", "members": "trained"},
        "references": [{"model": "reference.parquet", "members": None}],
        "performance": {"device": "cpu"},
    }
    (tmp_path / "model.yaml").write_text(yaml.safe_dump(config))
    return tmp_path, config


def run(folder, config, name="out"):
    (folder / "model.yaml").write_text(yaml.safe_dump(config))
    return audit_model_config(*load_as(ModelConfig, folder / "model.yaml"), folder / name)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_configuration_with_files(folder, world):
    where, config = folder
    cohort, _, member = world
    found = run(where, config)
    np.testing.assert_array_equal(found.records["member"], member)
    target = np.asarray(
        torch.export.load(where / "vendor.pt2").module()(torch.from_numpy(world[1])).detach()
    )
    log_p = target - np.log(np.exp(target).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(
        found.records["score_loss"], log_p[np.arange(len(log_p)), cohort.label], atol=1e-5
    )
    by_value = config["target"] | {"members": {"column": "split", "value": "train"}}
    same = run(where, config | {"target": by_value}, "second")
    np.testing.assert_allclose(same.records["score_loss"], found.records["score_loss"])


def test_configurations_that_give_membership_away_or_name_nothing(folder):
    where, config = folder
    target = config["target"]
    leaky = config["data"] | {"features": [*config["data"]["features"], "trained"]}
    with pytest.raises(ConfigError, match=r"target\.members .* also an input"):
        run(where, config | {"data": leaky})
    unnamed = {k: v for k, v in config["data"].items() if k != "features"}
    with pytest.raises(ConfigError, match=r"data\.features is missing"):
        run(where, config | {"data": unnamed})
    words = config["data"] | {"features": ["x0", "sex"], "groups": []}
    with pytest.raises(TableError, match="'sex' is an input"):
        run(where, config | {"data": words})
    grouped = config["data"] | {"groups": ["trained"]}
    with pytest.raises(ConfigError, match="also a group"):
        run(where, config | {"data": grouped})
    with pytest.raises(ConfigError, match=r"target\.members is missing"):
        run(where, config | {"target": {"model": "vendor.pt2"}})
    with pytest.raises(TableError, match="no column 'traine'"):
        run(where, config | {"target": target | {"members": "traine"}})
    with pytest.raises(TableError, match="holds 'held out'"):
        run(where, config | {"target": target | {"members": "split"}})
    with pytest.raises(TableError, match="no record has the value 'x'"):
        run(where, config | {"target": target | {"members": {"column": "split", "value": "x"}}})
    with pytest.raises(ConfigError, match=r"unknown key target\.outputs"):
        run(where, config | {"target": target | {"outputs": "logits"}})


def test_tables_of_predictions_that_cannot_be_used(folder):
    where, config = folder
    table = pd.read_parquet(where / "reference.parquet")
    path = where / "reference.parquet"
    for change, message in (
        (lambda t: pd.concat([t, t.iloc[:1]]), "given twice"),
        (lambda t: t.drop(columns="record"), "no column 'record'"),
        (lambda t: t.drop(columns="logit_1"), "no column 'logit_1'"),
        (lambda t: t.assign(logit_1=np.nan), "expected a finite number"),
        (lambda t: t.assign(prob_0=0.5), "either logit_0"),
    ):
        change(table).to_parquet(path)
        with pytest.raises(TableError, match=message) as refused:
            run(where, config)
        assert "np." not in str(refused.value)
    table.iloc[1:].to_parquet(path)
    with pytest.raises(SignalError, match=r"reference\.parquet"):
        run(where, config)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_probabilities_in_columns_of_logits_are_refused_unless_stated(folder):
    where, config = folder
    path = where / "reference.parquet"
    table = pd.read_parquet(path)
    columns = ["logit_0", "logit_1", "logit_2"]
    # Not a distribution, so only the range tells.
    table.assign(**{c: 1 / (1 + np.exp(-table[c])) for c in columns}).to_parquet(path)
    with pytest.raises(ArgumentError, match=r"reference\.parquet lie between 0 and 1"):
        run(where, config)
    stated = config["references"][0] | {"output": "logits"}
    assert run(where, config | {"references": [stated]}).summary["n_references"] == 1


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_the_command_line(folder, monkeypatch, capsys):
    where, _ = folder
    table = pd.read_csv(where / "records.csv")

    def confide(*arguments):
        monkeypatch.setattr(sys, "argv", ["confide", "audit", "model", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code or 0, *capsys.readouterr()

    code, shown, _ = confide(where / "model.yaml", "--out", where / "a", "--json")
    assert code == 0
    assert json.loads(shown)["kind"] == "released_model"
    code, shown, _ = confide(where / "model.yaml", "--out", where / "a")
    assert code == 0
    assert "NO LEAK SHOWN" in shown
    shifted = table.assign(x0=table["x0"] + 3 * table["trained"])
    shifted.to_csv(where / "records.csv", index=False)
    code, shown, said = confide(where / "model.yaml", "--out", where / "b")
    assert code == 1
    assert "--accept blind" in said
    assert "NOT ESTABLISHED" in shown
    assert shown.index("Guard blind failed.") < shown.index("NOT ESTABLISHED")
    code, shown, _ = confide(where / "model.yaml", "--out", where / "b", "--accept", "blind")
    assert code == 0
    assert shown.index("Guard blind failed and was accepted.") < shown.index("NOT ESTABLISHED")
    code, _, said = confide(where / "model.yaml", "--out", where / "a")
    assert code == 2
    assert "was begun with" in said
