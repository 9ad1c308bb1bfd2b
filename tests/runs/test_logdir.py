import json
import os
import shutil

import numpy as np
import pandas as pd
import pytest
from scipy.special import log_softmax
from scipy.stats import mannwhitneyu
from typer.testing import CliRunner

from confide.cli import app
from confide.errors import (
    ArgumentError,
    ConfideError,
    MismatchError,
    MissingFileError,
    SignalError,
    TableError,
)
from confide.runs import audit_logdir
from confide.runs.logdir_files import mapped
from confide.runs.logdir_guards import drawn_as_published, order_guard
from confide.stores import AuditFolder
from runs.logs import make_logs, published_masks


def audited(logs, out, **settings):
    settings = {"patient": "pid", "attacks": ("lira",)} | settings
    return audit_logdir(logs.path, logs.records, out, **settings)


@pytest.fixture
def copied(monkeypatch):
    """As `audited`, up to the analysis: the folder as it is stored."""

    def run(logs, out, **settings):
        with monkeypatch.context() as patch:
            patch.setattr("confide.runs.logdir.analyse", AuditFolder.read)
            return audited(logs, out, **settings)

    return run


def slow_signal(logits, labels, kind):
    """(n_runs, n_records) from the definition, in float64, one record at a time."""
    z = logits.astype(np.float64)
    out = np.full(z.shape[:2], np.nan)
    for i in range(z.shape[1]):
        y = labels[i]
        if kind == "multiclass":
            log_p = log_softmax(z[:, i], axis=-1)  # (n_runs, n_views, n_classes)
            true = log_p[..., y == 1][..., 0]
            wrong = np.log(np.exp(log_p[..., y != 1]).sum(axis=-1))
            value = true - wrong
        else:
            known = ~np.isnan(y)
            if not known.any():
                continue
            value = ((2 * y[known] - 1) * z[:, i][..., known]).mean(axis=-1)
        out[:, i] = value.mean(axis=-1)
    return out


def slow_aucs(signal, masks, patients):
    """Mann-Whitney over runs of every record, unclipped, ties half; scipy's."""
    first = list(dict.fromkeys(patients))
    aucs = []
    for i, patient in enumerate(patients):
        held = masks[:, first.index(patient)]
        s = signal[:, i]
        u = mannwhitneyu(s[held], s[~held]).statistic if not np.isnan(s).any() else np.nan
        aucs.append(u / (held.sum() * (~held).sum()))
    return np.array(aucs)


@pytest.mark.parametrize(
    ("kind", "n_views", "dtype"),
    [
        ("binary", 0, np.float32),
        ("multiclass", 0, np.float32),
        ("multiclass", 3, np.float16),
        ("multilabel", 2, np.float64),
        ("unknowns", 0, np.float32),
    ],
)
def test_auc_of_every_record_is_that_of_the_definition(tmp_path, kind, n_views, dtype):
    logs = make_logs(tmp_path, kind=kind, n_views=n_views, dtype=dtype, seed=1, leak=0.3)
    found = audited(logs, tmp_path / "out", groups=["sex"])
    expected = slow_aucs(slow_signal(logs.logits, logs.labels, kind), logs.masks, logs.frame["pid"])
    table = pd.read_parquet(tmp_path / "out" / "records.parquet")
    np.testing.assert_allclose(table["auc"], expected, atol=1e-6)
    assert np.nanmin(expected) < 0.5 < 0.55 < np.nanmean(expected)
    assert table["patient"].tolist() == logs.frame["pid"].tolist()
    assert table["group_sex"].tolist() == logs.frame["sex"].tolist()
    best = pd.Series(expected).groupby(logs.frame["pid"]).max()
    by_patient = found.patients.set_index("patient")["auc_max"]
    np.testing.assert_allclose(by_patient.loc[best.index], best, atol=1e-6)
    assert found.summary["task"] == {"unknowns": "multilabel"}.get(kind, kind)
    assert found.summary["models_missing"] == []
    assert found.summary["utility"] is None
    stored = AuditFolder.read(tmp_path / "out")
    assert stored.manifest["model_ids"] == logs.names
    np.testing.assert_array_equal(stored.array("membership")[:], logs.masks)
    np.testing.assert_array_equal(stored.array("logits")[:], logs.logits)


def test_one_hot_labels_of_two_columns_are_two_classes(tmp_path):
    logs = make_logs(tmp_path, n_columns=2, seed=2)
    audited(logs, tmp_path / "out")
    difference = logs.logits[:, :, 0, 1].astype(np.float64) - logs.logits[:, :, 0, 0]
    signal = np.where(logs.labels[:, 1] == 1, difference, -difference)
    table = pd.read_parquet(tmp_path / "out" / "records.parquet")
    expected = slow_aucs(signal, logs.masks, logs.frame["pid"])
    np.testing.assert_allclose(table["auc"], expected, atol=1e-6)


def test_nothing_is_found_where_nothing_leaks(tmp_path):
    logs = make_logs(tmp_path, leak=0.0, n_patients=150, seed=3)
    found = audited(logs, tmp_path / "out")
    assert found.summary["patients"]["n_at_risk"] == 0
    assert abs(found.records["auc"].mean() - 0.5) < 0.03
    lira = found.summary["attacks"]["lira"]
    assert lira["auc_low"] < 0.5 < lira["auc_high"]


def test_utility_is_that_of_the_test_records(tmp_path):
    logs = make_logs(tmp_path, n_views=2, test=30, seed=4)
    found = audited(logs, tmp_path / "out", groups=["sex"], attacks=("lira", "rmia"))
    logits, labels = logs.test
    right = logits.astype(np.float64).mean(axis=2).argmax(axis=2) == labels.argmax(axis=1)
    assert found.summary["utility"]["overall"]["accuracy"] == pytest.approx(right.mean(), abs=1e-12)
    assert found.summary["utility"]["overall"]["n_patients"] == 30
    assert any("no patient ids" in w for w in found.summary["warnings"])
    assert found.summary["n_records"] == len(logs.frame)


def test_test_files_of_some_runs_alone_give_no_utility(tmp_path, copied):
    logs = make_logs(tmp_path, test=20)
    for name in ("test_logits.npy", "test_labels.npy"):
        (logs.path / logs.names[5] / name).unlink()
    found = copied(logs, tmp_path / "out")
    assert not found.has_array("heldout_logits")
    assert any("1 of 16 runs have no test files" in w for w in found.manifest["warnings"])


def guards_of(found):
    return {g["name"]: g for g in found.manifest["guards"]}


def test_guards_say_what_the_files_show(tmp_path, copied):
    logs = make_logs(tmp_path)
    seen = guards_of(copied(logs, tmp_path / "out"))
    status = {name: seen[name]["status"] for name in ("membership", "recipe", "order")}
    assert status == {"membership": "passed", "recipe": "passed", "order": "passed"}
    bare = make_logs(tmp_path / "bare", info=False)
    bare.frame.drop(columns="finding").to_csv(bare.records, index=False)
    seen = guards_of(copied(bare, tmp_path / "out2"))
    status = {name: seen[name]["status"] for name in ("membership", "recipe", "order")}
    assert set(status.values()) == {"unknown"}


def test_runs_of_two_recipes_fail_and_can_be_accepted(tmp_path, copied):
    logs = make_logs(tmp_path)
    path = logs.path / logs.names[3] / "info.json"
    path.write_text(path.read_text().replace('"lr": 0.1', '"lr": 0.2'))
    recipe = guards_of(copied(logs, tmp_path / "out"))["recipe"]
    assert recipe["status"] == "failed"
    assert "lr" in recipe["message"]
    recipe = guards_of(copied(logs, tmp_path / "out", accept=["recipe"]))["recipe"]
    assert recipe["status"] == "accepted"
    with pytest.raises(ArgumentError, match="recipe"):
        copied(logs, tmp_path / "out", accept=["order"])


def test_draws_are_those_of_the_published_code():
    masks = published_masks(20, 50, seed=7)
    info = {"wandb_config": {"seed": 7, "n_runs": 20, "subset_ratio": 0.5}}
    assert drawn_as_published(masks[[3, 1, 8, 9]], info)
    assert not drawn_as_published(masks, info | {"wandb_config": {"seed": 8}})
    wrong = masks.copy()
    wrong[2, 5] ^= True
    assert not drawn_as_published(wrong, info)
    for key, value in [("seed", -1), ("seed", "7"), ("n_runs", 10**12), ("subset_ratio", None)]:
        assert not drawn_as_published(masks, {"wandb_config": info["wandb_config"] | {key: value}})


def test_rows_in_another_order_are_not_called_in_order():
    rng = np.random.default_rng(0)
    label = np.eye(3)[rng.integers(0, 3, 400)]
    names = np.array(["a", "b", "c"])[label.argmax(axis=1)]
    frame = pd.DataFrame({"id": np.arange(400), "site": rng.integers(0, 4, 400), "what": names})
    assert order_guard(frame, label)["status"] == "passed"
    assert order_guard(frame.sample(frac=1, random_state=1), label)["status"] == "unknown"
    assert order_guard(frame.drop(columns="what"), label)["status"] == "unknown"


def broken(logs, how, tmp_path):
    """Damage one run; the run's name."""
    run = logs.path / logs.names[6]
    logits, labels = (np.load(run / f"train_{what}.npy") for what in ("logits", "labels"))
    mask = np.load(run / "subset_mask.npy")
    if how == "missing":
        (run / "subset_mask.npy").unlink()
    elif how == "no_labels":
        (run / "train_labels.npy").unlink()
    elif how in ("nan", "inf"):
        logits[11, 1] = float(how)
        np.save(run / "train_logits.npy", logits)
    elif how == "cut":
        os.truncate(run / "train_logits.npy", 200)
    elif how == "empty":
        (run / "train_logits.npy").write_bytes(b"")
    elif how == "longer":
        with (run / "train_logits.npy").open("ab") as file:
            file.write(b"more")
    elif how == "fewer_records":
        np.save(run / "train_logits.npy", logits[1:])
    elif how == "fewer_classes":
        np.save(run / "train_logits.npy", logits[:, 1:])
    elif how == "integers":
        np.save(run / "train_logits.npy", logits.astype(int))
    elif how == "pickle":
        np.save(run / "train_logits.npy", logits.astype(object), allow_pickle=True)
    elif how == "bare_pickle":
        (run / "train_logits.npy").write_bytes(b"\x80\x04\x95\x00")
    elif how == "npz":
        np.savez(tmp_path / "x.npz", logits=logits)
        shutil.move(tmp_path / "x.npz", run / "train_logits.npy")
    elif how == "text":
        (run / "train_logits.npy").write_text("0.1, 0.2\n" * 100)
    elif how == "absurd":
        header = "{'descr': '<f4', 'fortran_order': False, 'shape': (4000000000, 4000000000), }"
        text = header.ljust(117) + "\n"
        (run / "train_logits.npy").write_bytes(b"\x93NUMPY\x01\x00\x76\x00" + text.encode())
    elif how == "structured":
        np.save(run / "subset_mask.npy", mask.view([("a", "?")]))
    elif how == "labels_differ":
        labels[4] = np.roll(labels[4], 1)
        np.save(run / "train_labels.npy", labels)
    elif how == "labels_not_binary":
        labels[4, 1] = 2
        np.save(run / "train_labels.npy", labels)
    elif how == "mask_length":
        np.save(run / "subset_mask.npy", mask[1:])
    elif how == "mask_all":
        np.save(run / "subset_mask.npy", np.ones_like(mask))
    elif how == "mask_none":
        np.save(run / "subset_mask.npy", np.zeros_like(mask))
    elif how == "mask_indices":
        np.save(run / "subset_mask.npy", np.flatnonzero(mask))
    elif how == "other_mask":
        np.save(run / "subset_mask.npy", ~mask)
    elif how == "same_mask":
        np.save(run / "subset_mask.npy", np.load(logs.path / logs.names[2] / "subset_mask.npy"))
    elif how == "link":
        shutil.move(run / "train_logits.npy", tmp_path / "elsewhere.npy")
        (run / "train_logits.npy").symlink_to(tmp_path / "elsewhere.npy")
    elif how == "linked_run":
        shutil.move(run, tmp_path / "elsewhere")
        run.symlink_to(tmp_path / "elsewhere")
    elif how == "pipe":
        (run / "train_logits.npy").unlink()
        os.mkfifo(run / "train_logits.npy")
    elif how == "folder":
        (run / "train_logits.npy").unlink()
        (run / "train_logits.npy").mkdir()
    elif how == "info":
        (run / "info.json").write_text('{"wandb_config": ')
    return run.name


SKIPPED = {
    "missing": "subset_mask.npy is missing",
    "no_labels": "train_labels.npy is missing",
    "nan": "record 11",
    "inf": "record 11",
    "cut": "cut short",
    "info": "info.json is not whole",
}
REFUSED = {
    "empty": "no .npy array",
    "longer": "not what its header says",
    "fewer_records": "records",
    "fewer_classes": "numbers of shape",
    "integers": "floating",
    "pickle": "a pickle in place of an array",
    "bare_pickle": "a pickle in place of an array",
    "npz": "an .npz archive",
    "text": "no .npy array",
    "structured": "no .npy array|expected numbers",
    "labels_differ": "label 0 of record 4|label 1 of record 4|label 2 of record 4",
    "labels_not_binary": "label 1 of record 4 is 2",
    "mask_length": "n_patients|patients",
    "mask_all": "holds every patient",
    "mask_none": "holds no patient",
    "mask_indices": "bool",
    "other_mask": "super_mask",
    "same_mask": "same patients",
    "link": "is a link",
    "linked_run": "is a link",
    "pipe": "no plain file",
    "folder": "no plain file",
}


@pytest.mark.parametrize("how", SKIPPED)
def test_an_incomplete_run_is_an_error_or_is_left_out(tmp_path, copied, how):
    logs = make_logs(tmp_path)
    name = broken(logs, how, tmp_path)
    error = SignalError if how in ("nan", "inf") else MissingFileError
    with pytest.raises(error, match=SKIPPED[how]) as raised:
        audited(logs, tmp_path / "out")
    assert name in str(raised.value)
    assert "--skip-incomplete" in str(raised.value)
    assert not (tmp_path / "out").exists()
    found = copied(logs, tmp_path / "out", skip_incomplete=True)
    (warning,) = (w for w in found.manifest["warnings"] if "left out" in w)
    assert name in warning
    assert str(tmp_path) not in warning
    rest = [i for i in range(16) if logs.names[i] != name]
    assert found.manifest["model_ids"] == [logs.names[i] for i in rest]
    np.testing.assert_array_equal(found.array("logits")[:], logs.logits[rest])
    np.testing.assert_array_equal(found.array("membership")[:], logs.masks[rest])


def test_the_rest_of_the_runs_is_audited_as_if_it_were_all(tmp_path):
    logs = make_logs(tmp_path)
    name = broken(logs, "nan", tmp_path)
    found = audited(logs, tmp_path / "out", skip_incomplete=True)
    rest = [i for i in range(16) if logs.names[i] != name]
    signal = slow_signal(logs.logits[rest], logs.labels, "multiclass")
    expected = slow_aucs(signal, logs.masks[rest], logs.frame["pid"])
    np.testing.assert_allclose(found.records["auc"], expected, atol=1e-6)
    assert found.summary["n_models"] == 15
    assert any(name in w for w in found.summary["warnings"])


@pytest.mark.parametrize("how", [*REFUSED, "absurd"])
def test_a_wrong_run_is_refused_by_name(tmp_path, how):
    logs = make_logs(tmp_path, n_runs=8)
    name = broken(logs, how, tmp_path)
    words = REFUSED.get(how, "cut short")
    with pytest.raises(ConfideError, match=words) as raised:
        audited(logs, tmp_path / "out", skip_incomplete=how != "absurd")
    assert name in str(raised.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (b"{'descr': '<f4', 'fortran_order': False, 'shape': (-4,), }", "empty|no .npy"),
        (b"{'descr': '<f4', 'fortran_order': False, 'shape': (0, 3), }", "empty"),
        (b"{'descr': '<f16', 'fortran_order': False, 'shape': (1,), }", "at most 64 bits"),
        (b"{'descr': '<U4', 'fortran_order': False, 'shape': (1,), }", "expected numbers"),
        (b"{1: 2, 'a': 3}", "no .npy"),
        (b"(" * 90, "no .npy"),
        (b"__import__('os').system('true')", "no .npy"),
        (b"{'descr': '<f4', 'fortran_order': False, 'shape': (3L,), }", "no .npy"),
    ],
)
def test_hostile_headers_are_refused(tmp_path, header, words):
    body = header.ljust(117) + b"\n" + bytes(64)
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00\x76\x00" + body)
    with pytest.raises(TableError, match=words):
        mapped(tmp_path / "a.npy")


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f2", ">f8"])
def test_arrays_are_read_as_numpy_reads_them(tmp_path, dtype, order):
    values = np.random.default_rng(0).normal(size=(7, 2, 3)).astype(dtype)
    np.save(tmp_path / "a.npy", np.asarray(values, order=order))
    np.testing.assert_array_equal(mapped(tmp_path / "a.npy"), values)


def test_foreign_byte_orders_and_column_order_change_nothing(tmp_path, copied):
    logs = make_logs(tmp_path, n_views=2, test=12)
    first = copied(logs, tmp_path / "out")
    for i, name in enumerate(logs.names):
        for what in ("train_logits.npy", "test_logits.npy"):
            path = logs.path / name / what
            np.save(path, np.asfortranarray(np.load(path).astype([">f4", "<f8"][i % 2])))
    again = copied(logs, tmp_path / "out2")
    for name in ("logits", "heldout_logits"):
        np.testing.assert_allclose(again.array(name)[:], first.array(name)[:], atol=1e-6)
    np.testing.assert_array_equal(again.array("logits")[:], logs.logits)


def test_a_repeated_run_analyses_only_and_changed_files_are_refused(tmp_path):
    logs = make_logs(tmp_path)
    first = audited(logs, tmp_path / "out")
    stored = tmp_path / "out" / "signals.zarr" / "logits"
    before = {p: p.stat().st_mtime_ns for p in stored.rglob("*") if p.is_file()}
    again = audited(logs, tmp_path / "out", fdr=0.2, groups=["sex"])
    assert {p: p.stat().st_mtime_ns for p in stored.rglob("*") if p.is_file()} == before
    assert again.summary["patients"]["fdr"] == 0.2
    assert "group_sex" in again.records
    pd.testing.assert_series_equal(again.records["auc"], first.records["auc"])
    path = logs.path / logs.names[0] / "train_logits.npy"
    values = np.load(path)
    values[0, 0] += 1e-3
    np.save(path, values)
    with pytest.raises(MismatchError, match="fingerprint"):
        audited(logs, tmp_path / "out")


def test_a_stop_while_copying_is_resumed(tmp_path, copied):
    logs = make_logs(tmp_path, test=10)
    whole = copied(logs, tmp_path / "whole")

    def stop(done, total):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copied(logs, tmp_path / "out", progress=stop)
    assert AuditFolder.read(tmp_path / "out").done.sum() == 5
    again = copied(logs, tmp_path / "out")
    assert again.manifest == whole.manifest
    assert again.done.all()
    for name in ("logits", "heldout_logits", "membership"):
        again.check_complete(name)
        np.testing.assert_array_equal(again.array(name)[:], whole.array(name)[:])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f.iloc[1:], "in their order"),
        (lambda f: f.assign(pid="one"), "1 patients"),
        (lambda f: f.assign(pid=[None, *f["pid"][1:]]), "Row 0 has no patient"),
        (lambda f: f.rename(columns={"pid": "pidd"}), "Did you mean 'pidd'"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(tmp_path, change, words):
    logs = make_logs(tmp_path)
    change(logs.frame).to_csv(logs.records, index=False)
    with pytest.raises(TableError, match=words):
        audited(logs, tmp_path / "out")


def test_what_is_no_log_directory_is_refused(tmp_path):
    logs = make_logs(tmp_path, n_runs=4)
    with pytest.raises(MissingFileError, match="no log directory"):
        audit_logdir(tmp_path / "no", logs.records, tmp_path / "out", patient="pid")
    with pytest.raises(TableError, match="single run"):
        audit_logdir(logs.path / logs.names[0], logs.records, tmp_path / "out", patient="pid")
    (tmp_path / "bare").mkdir()
    with pytest.raises(MissingFileError, match="no folders"):
        audit_logdir(tmp_path / "bare", logs.records, tmp_path / "out", patient="pid")
    shutil.rmtree(logs.path / logs.names[0])
    with pytest.raises(TableError, match="3 usable"):
        audited(logs, tmp_path / "out")
    shutil.copytree(logs.path / logs.names[1], logs.path / "copy")
    np.save(logs.path / "copy" / "subset_mask.npy", ~logs.masks[1])
    np.save(logs.path / "super_mask.npy", np.zeros((3, 7), dtype=bool))
    with pytest.raises(TableError, match="super_mask"):
        audited(logs, tmp_path / "out")


def test_a_patient_who_is_in_every_run_is_refused(tmp_path):
    logs = make_logs(tmp_path)
    (logs.path / "super_mask.npy").unlink()
    for name in logs.names:
        mask = np.load(logs.path / name / "subset_mask.npy")
        mask[2] = True
        np.save(logs.path / name / "subset_mask.npy", mask)
    patient = logs.frame["pid"].unique()[2]
    with pytest.raises(TableError, match=f"{patient}.*never out of"):
        audited(logs, tmp_path / "out")


def test_patients_of_the_test_never_share_an_id_with_the_audited(tmp_path, copied):
    logs = make_logs(tmp_path, n_runs=6, test=12)
    frame = logs.frame
    for ids in (
        frame["pid"].map(lambda p: f"test {int(p)}"),
        pd.factorize(frame["pid"])[0],
        pd.factorize(frame["pid"])[0].astype(np.uint64) + 2**63,
    ):
        frame.assign(pid=ids).to_parquet(logs.records)
        copied(logs, tmp_path / "out")
        cohort = pd.read_parquet(tmp_path / "out" / "cohort.parquet")
        held = cohort["heldout"]
        assert not set(cohort["patient"][held]) & set(cohort["patient"][~held])
        assert held.sum() == 12
        assert set(cohort["patient"][~held]) == set(ids)
        shutil.rmtree(tmp_path / "out")


def test_info_of_strangers_breaks_nothing(tmp_path, copied):
    logs = make_logs(tmp_path)
    odd = ['{"wandb_config": []}', "[]", '{"wandb_config": {"lr": NaN, "model": {"a": 1}}}']
    deep = '{"wandb_config": ' + '{"a":' * 500 + "1" + "}" * 501
    for name, text in zip(logs.names, [*odd, deep], strict=False):
        (logs.path / name / "info.json").write_text(text)
    found = copied(logs, tmp_path / "out")
    assert json.dumps(found.manifest["guards"])
    assert guards_of(found)["recipe"]["status"] in ("unknown", "failed")


def test_the_command_line(tmp_path):
    logs = make_logs(tmp_path)
    name = broken(logs, "missing", tmp_path)
    given = [str(logs.path), "--records", str(logs.records), "--out", str(tmp_path / "out")]
    command = ["audit", "logdir", *given, "--patient", "pid", "--attacks", "lira", "--json"]
    with pytest.raises(MissingFileError, match=name):
        CliRunner().invoke(app, command, catch_exceptions=False)
    result = CliRunner().invoke(app, [*command, "--skip-incomplete", "--groups", "sex"])
    assert result.exit_code == 0
    summary = json.loads(result.stdout)
    assert summary["n_models"] == 15
    assert "sex" in summary["groups"]
    assert (tmp_path / "out" / "report.html").is_file()
