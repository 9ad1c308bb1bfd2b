import hashlib
import itertools
import json
import multiprocessing
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from confide import masks
from confide.cli import app
from confide.cohort import Cohort
from confide.errors import ConfideError, FolderError, MissingFileError
from confide.runs import (
    Model,
    analyse,
    audit_logdir,
    audit_model,
    audit_scores,
    erase_signals,
    run,
)
from confide.runs.erase import without_seeds
from confide.stores import AuditFolder, alone
from confide.training.base import FunctionTrainer
from runs.logs import make_logs

SEED = 918_273_645
N_MODELS = 8


def study():
    rng = np.random.default_rng(5)
    patient = np.repeat(np.arange(30), 1 + np.arange(30) % 2)
    n = len(patient)
    cohort = Cohort(
        record=np.arange(n),
        patient=patient,
        label=np.arange(n) % 2,
        task="binary",
        classes=("no", "yes"),
        groups=pd.DataFrame({"sex": np.where(patient % 2, "f", "m")}),
    )
    held = Cohort(
        record=n + np.arange(10),
        patient=100 + np.arange(10),
        label=np.arange(10) % 2,
        task="binary",
        classes=("no", "yes"),
        groups=pd.DataFrame({"sex": ["f"] * 10}),
    )
    base = rng.normal(size=n + 10)

    def fit(rows, seed):
        noise = np.random.default_rng(seed).normal(size=n + 10)
        side = 2 * (np.arange(n) % 2) - 1
        logits = base + noise
        logits[:n] += 2 * side * np.isin(np.arange(n), rows)
        return logits[:, None]

    return cohort, held, fit


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """An audit that was run, and its membership."""
    out = tmp_path_factory.mktemp("erase") / "audit"
    again(out)
    return out, AuditFolder.read(out).array("membership")[:]


def again(out, **settings):
    cohort, held, fit = study()
    config = {"data": {"test": {"fraction": 0.2, "seed": SEED}}, "train": {"epochs": 3}}
    settings = {"attacks": ("lira",), "seed": SEED, "config": config} | settings
    trainer = FunctionTrainer(fit)
    return run(cohort, trainer, out, heldout=held, n_models=N_MODELS, **settings)


@pytest.fixture
def audit(original, tmp_path):
    """A copy of the audit to erase."""
    shutil.copytree(original[0], tmp_path / "audit")
    return tmp_path / "audit"


def content(folder):
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != ".lock"
    }


def test_tables_and_report_stay_and_the_rest_goes(audit):
    tables = ("records.parquet", "patients.parquet", "groups.parquet", "curves.parquet")
    before = {name: pd.read_parquet(audit / name) for name in tables}
    summary = json.loads((audit / "summary.json").read_text())
    found = erase_signals(audit)
    assert found["removed"] == ["signals.zarr", "cohort.parquet"]
    kept = {"manifest.json", "summary.json", "summary.md", "report.html", *tables}
    assert set(found["kept"]) == set(content(audit)) == kept
    assert found["untouched"] == []
    for name in tables:
        pd.testing.assert_frame_equal(pd.read_parquet(audit / name), before[name])
    after = json.loads((audit / "summary.json").read_text())
    assert after["erased"] == found["erased"]
    assert after["warnings"][:-1] == summary["warnings"]
    assert "erased on" in after["warnings"][-1]
    assert {k: v for k, v in after.items() if k not in ("erased", "warnings")} == {
        k: v for k, v in summary.items() if k != "warnings"
    }
    assert f"erased on {found['erased']}" in (audit / "report.html").read_text()
    assert all(p.stat().st_mode & 0o077 == 0 for p in audit.iterdir())


def numbers_in(folder):
    """Every whole number in text and JSON of a folder."""
    text = b" ".join(v for k, v in content(folder).items() if k.endswith((".json", ".html")))
    return {int(n) for n in re.findall(rb"(?<![\w.])\d{1,18}(?![\w.])", text)}


def test_nothing_that_is_left_draws_the_masks_again(audit, original):
    membership = original[1]
    manifest = json.loads((audit / "manifest.json").read_text())
    assert SEED in numbers_in(audit)  # the test would see it
    seeds = [SEED, *manifest["seeds"]]
    erase_signals(audit)
    for name, data in content(audit).items():
        for seed in seeds:
            assert str(seed).encode() not in data, name
            for size in (4, 8):
                if seed < 2 ** (8 * size - 1):
                    assert seed.to_bytes(size, "little") not in data, name
    assert "seed" not in (audit / "manifest.json").read_text()
    columns = {c for p in audit.glob("*.parquet") for c in pd.read_parquet(p).columns}
    assert not {c for c in columns if "member" in c or "heldout" in c or "logit" in c}
    for seed in numbers_in(audit):
        drawn = masks.balanced(N_MODELS, membership.shape[1], seed=seed)
        assert (drawn != membership).any(), seed


def test_the_fingerprint_of_a_membership_list_goes_too(table, tmp_path):
    frame = table(n_models=8, n_patients=20)
    frame.to_csv(tmp_path / "t.csv", index=False)
    audit_scores(tmp_path / "t.csv", tmp_path / "out", attacks=("lira",))
    printed = json.loads((tmp_path / "out" / "manifest.json").read_text())["fingerprint"]
    found = erase_signals(tmp_path / "out")
    assert not [n for n, data in content(tmp_path / "out").items() if printed.encode() in data]
    assert any("predictions that were read" in note for note in found["notes"])


def test_other_commands_say_that_it_was_erased(audit, table, tmp_path):
    erase_signals(audit)
    before = content(audit)
    table(n_models=8, n_patients=20).to_csv(tmp_path / "t.csv", index=False)
    logs = make_logs(tmp_path, n_runs=4)
    for command in (
        lambda: analyse(audit),
        lambda: again(audit),
        lambda: again(audit, seed=1),
        lambda: audit_scores(tmp_path / "t.csv", audit),
        lambda: audit_logdir(logs.path, logs.records, audit, patient="pid"),
    ):
        with pytest.raises(FolderError, match=r"erased on \d{4}-\d\d-\d\d"):
            command()
    assert content(audit) == before


def test_erasing_twice_changes_nothing_more(audit):
    first = erase_signals(audit)
    before = content(audit)
    second = erase_signals(audit)
    assert second["removed"] == []
    assert second["erased"] == first["erased"]
    assert content(audit) == before


def _stop_at(number, out, count):
    """Erase, and die without a farewell at the given change of a file; count the changes."""
    left = itertools.count(number, -1)

    def counted(change):
        def wrapper(*args, **kwargs):
            count.value += 1
            if next(left) == 0:
                os._exit(9)
            return change(*args, **kwargs)

        return wrapper

    Path.replace = counted(Path.replace)
    Path.unlink = counted(Path.unlink)
    for name in ("unlink", "rmdir", "fsync"):
        setattr(os, name, counted(getattr(os, name)))
    erase_signals(out)
    os._exit(0)


def stopped(number, original, out):
    """A copy of the audit whose erasing died at a change; the number of changes before."""
    shutil.copytree(original, out)
    fork = multiprocessing.get_context("fork")
    count = fork.Value("i", 0)
    process = fork.Process(target=_stop_at, args=(number, out, count))
    process.start()
    process.join(60)
    assert process.exitcode == (9 if count.value > number else 0)
    return count.value


def kills(original, tmp_path, numbers):
    erase_signals(shutil.copytree(original, tmp_path / "whole"))
    expected = content(tmp_path / "whole")
    for number in numbers:
        out = tmp_path / f"audit_{number}"
        stopped(number, original, out)
        if str(SEED) not in (out / "manifest.json").read_text():
            with pytest.raises(FolderError, match="eras"):
                analyse(out)
        erase_signals(out)
        now = content(out)
        assert set(now) == set(expected)
        for name in ("manifest.json", "summary.json"):
            assert now[name] == expected[name]
        assert str(SEED).encode() not in b"".join(now.values())
        shutil.rmtree(out)


def test_a_kill_leaves_a_folder_that_erasing_finishes(original, tmp_path):
    total = stopped(10**6, original[0], tmp_path / "counted")
    assert total > 50
    kills(original[0], tmp_path, [0, 1, total // 3, total - 12, total - 5, total - 1])


@pytest.mark.slow
def test_a_kill_at_any_change_leaves_a_folder_that_erasing_finishes(original, tmp_path):
    total = stopped(10**6, original[0], tmp_path / "counted")
    kills(original[0], tmp_path, range(total))


def test_tables_of_another_version_do_not_keep_anything_from_going(audit):
    pd.DataFrame({"other": [1]}).to_parquet(audit / "groups.parquet")
    found = erase_signals(audit)
    assert found["removed"] == ["signals.zarr", "cohort.parquet", "report.html", "summary.md"]
    assert str(SEED).encode() not in b"".join(content(audit).values())


def test_an_audit_that_was_never_analysed_is_erased(audit):
    for name in ("records", "patients", "groups", "curves"):
        (audit / f"{name}.parquet").unlink()
    found = erase_signals(audit)
    assert "report.html" in found["removed"]  # it named the seed, and cannot be drawn again
    assert not (audit / "report.html").exists()
    assert str(SEED).encode() not in b"".join(content(audit).values())


def test_a_report_with_ids_is_drawn_again_without(audit):
    analyse(audit, show_ids=True)
    assert "This report names patients." in (audit / "report.html").read_text()
    found = erase_signals(audit)
    assert "This report names patients." not in (audit / "report.html").read_text()
    assert any("report.html" in note for note in found["notes"])
    (audit / "report.html").unlink()
    assert not any("report.html" in note for note in erase_signals(audit)["notes"])


def test_the_report_of_an_erased_audit_is_printed_as_it_is(audit, monkeypatch):
    erase_signals(audit)
    before = content(audit)
    monkeypatch.setattr("confide.runs.pdf.find_browser", lambda: Path())
    monkeypatch.setattr(
        "confide.runs.pdf.write_pdf", lambda page, pdf: pdf.write_bytes(page.read_bytes())
    )
    report = ["audit", "report", str(audit), "--pdf"]
    said = CliRunner().invoke(app, report, catch_exceptions=False)
    assert said.exit_code == 0
    assert "report.html was printed, and nothing analysed again" in said.stdout
    printed = content(audit)
    assert printed.pop("report.pdf") == before["report.html"]
    assert printed == before
    for more in ("--show-ids", "--json"):
        with pytest.raises(FolderError, match="erased on"):
            CliRunner().invoke(app, [*report, more], catch_exceptions=False)
    (audit / "report.html").unlink()
    with pytest.raises(FolderError, match="erased on"):
        CliRunner().invoke(app, report, catch_exceptions=False)
    assert "report.pdf" in erase_signals(audit)["removed"]


def test_files_of_others_are_named_and_left(audit):
    (audit / "notes.txt").write_text("mine")
    said = CliRunner().invoke(app, ["audit", "erase", str(audit)]).stdout
    assert "Not written by the audit itself, left as it is: notes.txt." in said
    assert erase_signals(audit)["untouched"] == ["notes.txt"]
    assert (audit / "notes.txt").read_text() == "mine"


def test_what_cannot_be_erased_is_an_error(audit, tmp_path):
    with pytest.raises(MissingFileError, match="no audit folder"):
        erase_signals(tmp_path / "nowhere")
    (tmp_path / "other").mkdir()
    with pytest.raises(MissingFileError, match="manifest"):
        erase_signals(tmp_path / "other")
    (tmp_path / "other" / "manifest.json").write_text('{"format": 1, "asked": {}}')
    with pytest.raises(ConfideError, match="manifest"):
        erase_signals(tmp_path / "other")
    before = content(audit)
    with alone(audit / ".lock", audit), pytest.raises(FolderError, match="in use"):
        erase_signals(audit)
    assert content(audit) == before
    shutil.move(audit / "signals.zarr", tmp_path / "elsewhere.zarr")
    (audit / "signals.zarr").symlink_to(tmp_path / "elsewhere.zarr")
    with pytest.raises(FolderError, match="is a link"):
        erase_signals(audit)
    assert (tmp_path / "elsewhere.zarr").is_dir()


MARK = hashlib.sha256(b"weights").hexdigest()
TABLES = ("records.parquet", "patients.parquet", "groups.parquet", "curves.parquet")


def ask(out, **settings):
    """Audit a model that knows its members by heart; members are listed first."""
    rng = np.random.default_rng(7)
    ids = rng.permutation(60)
    patient = np.repeat([f"p{i:03d}" for i in ids], 1 + ids % 3)
    n = len(patient)
    sex = np.repeat(np.where(ids % 2, "f", "m"), 1 + ids % 3)
    cohort = Cohort(
        record=np.asarray([f"r{i:04d}" for i in rng.permutation(n)]),
        patient=patient,
        label=rng.integers(0, 3, n),
        task="multiclass",
        classes=("a", "b", "c"),
        groups=pd.DataFrame({"sex": sex}),
    )
    member = np.isin(patient, patient[: n // 2])
    shift = 3.0 * member[:, None] * np.eye(3)[cohort.label]
    models = [
        Model(
            model=rng.normal(size=(n, 3)) + (0 if i else shift),
            members={0: member, 2: np.isin(patient, rng.permutation(patient)[:40])}.get(i),
            name=name,
            recipe={"epochs": 3, "split_seed": SEED - i},
            mark=MARK if i == 0 else "",
        )
        for i, name in enumerate(("vendor.onnx", "first", "second", "third"))
    ]
    inputs = rng.normal(size=(n, 4)).astype(np.float32)
    settings = {"seed": SEED, "title": "Vendor 2", "accept": ("recipe",)} | settings
    found = audit_model(models[0], cohort, out, inputs=inputs, references=models[1:], **settings)
    return found, pd.Series(member, index=cohort.record), pd.Series(member, index=patient)


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """The audit of a released model, and who was a member by record and by patient."""
    out = tmp_path_factory.mktemp("erase") / "model"
    _, records, patients = ask(out)
    return out, records, patients[~patients.index.duplicated()]


def tells(values, member):
    """Whether a value, or an order of values, sets members apart from others."""
    of_value = pd.Series(np.asarray(member)).groupby(np.asarray(values, dtype=str)).mean()
    few = len(of_value) < len(member) / 4
    if few:
        return bool(of_value.isin((0.0, 1.0)).any())
    rank = pd.Series(values).rank(method="first").to_numpy()
    area = (rank[member].mean() - rank[~member].mean()) / len(rank) + 0.5
    return abs(area - 0.5) > 0.2


def clues(folder, released):
    """Columns, and orders of rows, that tell members from others."""
    found = set()
    truth = {"records.parquet": ("record", 1), "patients.parquet": ("patient", 2)}
    for name, (key, at) in truth.items():
        table = pd.read_parquet(folder / name)
        member = released[at].loc[table[key]].to_numpy()
        found |= {c for c in table.columns if tells(table[c], member)}
        found |= {f"order of {name}"} if tells(np.arange(len(table)), member) else set()
    return found


@pytest.fixture
def model(released, tmp_path):
    """A copy of the audit of a released model to erase."""
    shutil.copytree(released[0], tmp_path / "model")
    return tmp_path / "model"


def test_nothing_that_is_left_tells_who_was_in_a_released_model(model, released):
    seen = {"member", "score_loss", "order of records.parquet"}
    assert not seen - clues(model, released)  # the test would see it
    manifest = json.loads((model / "manifest.json").read_text())
    held = released[1].to_numpy()
    digest = hashlib.sha256(held.astype(np.float64).tobytes()).hexdigest()
    assert manifest["target"]["members"] == digest
    found = erase_signals(model)
    kept = {"manifest.json", "summary.json", "summary.md", "report.html", *TABLES}
    assert set(found["kept"]) == set(content(model)) == kept
    assert found["untouched"] == []
    assert not clues(model, released)
    assert pd.read_parquet(model / "records.parquet").columns.tolist() == [
        *("record", "patient", "group_sex")
    ]
    patients = pd.read_parquet(model / "patients.parquet")
    assert patients.columns.tolist() == ["patient", "n_records", "group_sex"]
    assert set(patients["patient"]) == set(released[2].index)
    printed = [digest, manifest["fingerprint"], manifest["references"][0]["file"], str(SEED)]
    orders = {"as given": released[1], "by id": released[1].sort_index(), "people": released[2]}
    bits = [
        form
        for one in orders.values()
        for order in ("big", "little")
        for form in (np.packbits(one, bitorder=order).tobytes(), one.to_numpy().tobytes())
    ]
    ids = [key.encode() for index in (released[1].index, released[2].index) for key in index]
    for name, data in content(model).items():
        assert not [text for text in printed if text.encode() in data], name
        assert not [form for form in bits if form in data], name
        if name not in ("records.parquet", "patients.parquet"):
            assert not [key for key in ids if re.search(rb"\b" + key + rb"\b", data)], name
    manifest = json.loads((model / "manifest.json").read_text())
    assert manifest["target"]["file"] == MARK  # which model the report is about
    assert all("members" not in one for one in (manifest["target"], *manifest["references"]))


def test_the_report_of_a_released_model_stays_one(model, released):
    before = json.loads((model / "summary.json").read_text())
    curves = pd.read_parquet(model / "curves.parquet")
    page = (model / "report.html").read_text()
    found = erase_signals(model)
    after = json.loads((model / "summary.json").read_text())
    changed = {key for key in after if after[key] != before.get(key)}
    assert changed == {"erased", "warnings", "guards"}
    recipe = [g for g in after["guards"] if g["name"] == "recipe"]
    assert recipe[0]["status"] == "accepted"
    assert "What differed was erased" in recipe[0]["message"]
    assert [g for g in after["guards"] if g not in recipe] == [
        g for g in before["guards"] if g["name"] != "recipe"
    ]
    pd.testing.assert_frame_equal(pd.read_parquet(model / "curves.parquet"), curves)
    drawn = (model / "report.html").read_text()
    status = re.findall(r'<span class="status">[^<]+</span>', page)[0]
    for text in ("Audit of a released model", "Vendor 2", status, MARK):
        assert text in page
        assert text in drawn
    for figure in re.findall(r'points="[^"]+"', page):
        assert figure in drawn
    assert f"erased on {found['erased']}" in drawn
    assert any("off the curves" in note for note in found["notes"])
    assert not any("at risk" in note or "audit: seed" in note for note in found["notes"])


def test_other_commands_say_that_a_released_model_was_erased(model):
    first = erase_signals(model)
    before = content(model)
    for command in (lambda: analyse(model), lambda: ask(model)):
        with pytest.raises(FolderError, match=r"erased on \d{4}-\d\d-\d\d"):
            command()
    with pytest.raises(FolderError, match="erased on"):
        CliRunner().invoke(app, ["audit", "report", str(model)], catch_exceptions=False)
    assert erase_signals(model) == first | {"removed": []}
    assert content(model) == before


def test_a_kill_leaves_a_released_model_that_erasing_finishes(released, tmp_path):
    total = stopped(10**6, released[0], tmp_path / "counted")
    kills(released[0], tmp_path, [0, 1, 3, total // 2, *range(total - 12, total, 2)])
    assert not clues(tmp_path / "whole", released)


def test_damaged_tables_of_a_released_model_go(model, tmp_path):
    for name in ("records.parquet", "patients.parquet", "summary.json"):
        out = shutil.copytree(model, tmp_path / name)
        (out / name).write_bytes((out / name).read_bytes()[:-9])
        found = erase_signals(out)
        assert found["removed"] == [
            "signals.zarr",
            "cohort.parquet",
            name,
            "report.html",
            "summary.md",
        ]
        assert str(SEED).encode() not in b"".join(content(out).values())
        assert "member" not in {c for p in out.glob("*.parquet") for c in pd.read_parquet(p)}


def test_a_released_model_without_an_analysis_is_erased(model):
    for name in TABLES:
        (model / name).unlink()
    found = erase_signals(model)
    assert found["removed"] == ["signals.zarr", "cohort.parquet", "report.html", "summary.md"]
    assert str(SEED).encode() not in b"".join(content(model).values())


def test_a_table_of_members_that_is_a_link_is_an_error(model, tmp_path):
    shutil.move(model / "patients.parquet", tmp_path / "elsewhere.parquet")
    (model / "patients.parquet").symlink_to(tmp_path / "elsewhere.parquet")
    before = content(model)
    with pytest.raises(FolderError, match=r"patients\.parquet is a link"):
        erase_signals(model)
    assert content(model) == before


def test_seeds_are_found_at_any_depth():
    value = {"seed": 1, "a": [{"seeds": [2], "b": 3}], "run_seed": 4, "seeded": 5, "c": {"d": None}}
    assert without_seeds(value) == {"a": [{"b": 3}], "seeded": 5, "c": {"d": None}}


def test_the_command_line(audit):
    said = CliRunner().invoke(app, ["audit", "erase", str(audit)])
    assert said.exit_code == 0
    assert "Removed: signals.zarr, cohort.parquet." in said.stdout
    assert "not overwritten" in said.stdout
    found = json.loads(CliRunner().invoke(app, ["audit", "erase", str(audit), "--json"]).stdout)
    assert found["removed"] == []
    with pytest.raises(FolderError, match="erased on"):
        CliRunner().invoke(app, ["audit", "report", str(audit)], catch_exceptions=False)
