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
from confide.runs import analyse, audit_logdir, audit_scores, erase_signals, run
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
    kept = {"manifest.json", "summary.json", "report.html", *tables}
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
        if '"seeds"' not in (out / "manifest.json").read_text():
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
    assert found["removed"] == ["signals.zarr", "cohort.parquet", "report.html"]
    assert str(SEED).encode() not in b"".join(content(audit).values())


def test_an_audit_that_was_never_analysed_is_erased(audit):
    for name in ("records", "patients", "groups", "curves"):
        (audit / f"{name}.parquet").unlink()
    found = erase_signals(audit)
    assert "report.html" in found["removed"]  # it named the seed, and cannot be drawn again
    assert not (audit / "report.html").exists()
    assert str(SEED).encode() not in b"".join(content(audit).values())


def test_files_of_others_are_named_and_left(audit):
    (audit / "notes.txt").write_text("mine")
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
