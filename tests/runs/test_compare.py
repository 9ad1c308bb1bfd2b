"""Comparing folders: what is read, refused, paired and written."""

import json
import os
import shutil

import pandas as pd
import pytest

from confide.errors import (
    ArgumentError,
    ConfideError,
    FolderError,
    MismatchError,
    MissingFileError,
)
from confide.runs import audit_scores, erase_signals
from confide.runs.compare import compare_audits
from confide.runs.figures import write_figures
from runs.comparing import make


@pytest.fixture(scope="module")
def audits(tmp_path_factory):
    """Three recipes on the same masks, one that leaks much and two alike; and other masks."""
    folder = tmp_path_factory.mktemp("audits")
    make(folder / "plain", leak=3.0)
    make(folder / "small", leak=0.2)
    shutil.copytree(folder / "small", folder / "early")
    change(folder / "early" / "manifest.json", lambda m: m["config"]["train"].update(epochs=1))
    make(folder / "other", leak=0.2, seed=5)
    make(folder / "fewer", leak=0.2, n_models=8)
    return folder


@pytest.fixture
def copies(audits, tmp_path):
    shutil.copytree(audits, tmp_path / "audits")
    return tmp_path / "audits"


def change(path, edit):
    """Edit a JSON file or a Parquet table in place."""
    if path.suffix == ".json":
        content = json.loads(path.read_text())
        edit(content)
        path.write_text(json.dumps(content))
    else:
        table = pd.read_parquet(path)
        edit(table).to_parquet(path)


def without_heldout(folder):
    """The audit as if no patients had been held out."""
    shutil.rmtree(folder / "signals.zarr" / "heldout_logits")
    change(folder / "cohort.parquet", lambda t: t[~t["heldout"]].reset_index(drop=True))

    def edit(summary):
        summary.update(utility=None, n_heldout_records=0)
        summary["attacks"].pop("rmia")

    change(folder / "summary.json", edit)


def three(folder):
    return [folder / name for name in ("plain", "small", "early")]


@pytest.fixture(scope="module")
def compared(audits, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "compared"
    return compare_audits(three(audits), out), out


def test_a_recipe_that_leaks_is_told_from_two_that_are_alike(compared):
    found, _ = compared
    pairs = {(p["first"], p["second"]): p for p in found.summary["pairs"]}
    assert pairs["plain", "small"]["less"] == "small"
    assert pairs["plain", "early"]["less"] == "early"
    assert pairs["small", "early"]["status"] == "not_told_apart"
    assert all(p["attack_auc"]["paired"] for p in pairs.values())
    assert found.summary["verdict"]["status"] == "told_apart"
    (said,) = found.summary["warnings"]
    assert said.startswith(
        "“small” and “early” have other settings, but all their models came out the same"
    )


def test_differences_are_those_of_the_audits(compared, audits):
    found, _ = compared
    attack = found.summary["attack"]
    summaries = {
        n: json.loads((audits / n / "summary.json").read_text()) for n in ("plain", "small")
    }
    tables = {n: pd.read_parquet(audits / n / "patients.parquet") for n in ("plain", "small")}
    pair = found.summary["pairs"][0]
    one, other = summaries["plain"], summaries["small"]
    wanted = one["attacks"][attack]["auc"] - other["attacks"][attack]["auc"]
    assert pair["attack_auc"]["value"] == pytest.approx(wanted, abs=1e-9)
    wanted = one["utility"]["overall"]["auroc"] - other["utility"]["overall"]["auroc"]
    assert pair["auroc"]["value"] == pytest.approx(wanted, abs=1e-9)
    wanted = tables["plain"]["auc_joint"].mean() - tables["small"]["auc_joint"].mean()
    assert pair["mean_auc"]["value"] == pytest.approx(wanted, abs=1e-9)


def test_only_what_differs_is_named(compared):
    found, _ = compared
    assert [arm["recipe"] for arm in found.summary["arms"]] == [
        {"train.leak": 3.0, "train.epochs": 3},
        {"train.leak": 0.2, "train.epochs": 3},
        {"train.leak": 0.2, "train.epochs": 1},
    ]


def test_what_is_written(compared):
    _, out = compared
    assert sorted(p.name for p in out.iterdir()) == [
        "arms.parquet",
        "compare.json",
        "groups.parquet",
        "report.html",
    ]
    assert json.loads((out / "compare.json").read_text())["pairs"][0]["first"] == "plain"
    assert len(pd.read_parquet(out / "arms.parquet")) == 3
    assert set(pd.read_parquet(out / "groups.parquet")["arm"]) == {"plain", "small", "early"}
    assert out.stat().st_mode & 0o777 == 0o700
    assert (out / "compare.json").stat().st_mode & 0o777 == 0o600


def test_written_again_over_itself_but_over_nothing_else(audits, tmp_path):
    folders = three(audits)[:2]
    compare_audits(folders, tmp_path / "out")
    compare_audits(folders, tmp_path / "out")
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("x")
    with pytest.raises(FolderError, match="is not empty"):
        compare_audits(folders, other)
    with pytest.raises(ArgumentError, match="is one of the audits"):
        compare_audits(folders, folders[0])
    (tmp_path / "file").write_text("x")
    with pytest.raises(FolderError):
        compare_audits(folders, tmp_path / "file")


def test_the_audits_are_left_as_they_are(copies):
    before = {p: p.stat().st_mtime_ns for p in copies.rglob("*")}
    compare_audits(three(copies))
    assert {p: p.stat().st_mtime_ns for p in copies.rglob("*")} == before


def test_names(audits):
    found = compare_audits(three(audits)[:2], names=["A <b>", "B\x1b[2J"])
    assert [arm["name"] for arm in found.summary["arms"]] == ["A <b>", "B�[2J"]
    for names, words in (
        (["a"], "1 names are given for 2"),
        (["a", "a"], "Two audits are called 'a'"),
        (["a", "b" * 100], "has 100 characters"),
    ):
        with pytest.raises(ArgumentError, match=words):
            compare_audits(three(audits)[:2], names=names)
    with pytest.raises(ArgumentError, match="given twice"):
        compare_audits([audits / "plain", audits / "small" / ".." / "plain"])
    with pytest.raises(ArgumentError, match="2 to 12"):
        compare_audits([audits / "plain"])


def test_other_masks_are_not_paired(audits):
    found = compare_audits([audits / "plain", audits / "other"])
    pair = found.summary["pairs"][0]
    assert not pair["attack_auc"]["paired"]
    assert pair["mean_auc"]["covers"] == "patients and models"
    assert pair["less"] == "other"
    assert any(
        "Not the same patients were in the same models" in w for w in found.summary["warnings"]
    )


def test_other_numbers_of_models_are_judged_by_the_mean_area(copies):
    found = compare_audits([copies / "plain", copies / "fewer"])
    assert found.summary["pairs"][0]["by"] == "mean_auc"
    assert "different numbers of models" in " ".join(found.summary["warnings"])
    assert found.summary["frontier_by"] == "mean_auc"
    erase_signals(copies / "fewer")
    found = compare_audits([copies / "plain", copies / "fewer"])
    assert found.summary["pairs"][0]["status"] == "not_compared"
    assert found.summary["verdict"]["status"] == "not_compared"


def test_erased_audits_are_compared_by_their_tables(copies):
    erase_signals(copies / "small")
    found = compare_audits(three(copies))
    pairs = {(p["first"], p["second"]): p for p in found.summary["pairs"]}
    loose = pairs["plain", "small"]
    assert not loose["attack_auc"]["paired"]
    assert loose["mean_auc"]["covers"] == "patients"
    assert loose["mean_auc"]["p_value"] is None
    assert loose["less"] == "small"
    assert pairs["plain", "early"]["attack_auc"]["paired"]
    assert "were erased" in " ".join(found.summary["warnings"])
    assert [arm["erased"] for arm in found.summary["arms"]] == [False, True, False]
    assert not any("seed" in key for arm in found.summary["arms"] for key in arm["recipe"])


def test_erasing_that_was_interrupted_is_refused(copies):
    change(
        copies / "small" / "manifest.json", lambda m: m.update(format="erasing since 2030-01-01")
    )
    with pytest.raises(FolderError, match="was interrupted"):
        compare_audits(three(copies))


def test_other_patients_are_refused(copies):
    change(copies / "small" / "summary.json", lambda s: s.update(n_patients=40))
    change(copies / "small" / "manifest.json", lambda m: m.update(fingerprint="f" * 64))
    with pytest.raises(
        MismatchError, match=r"n_patients is 48 and 40.*fingerprints .* ffffffffffff"
    ):
        compare_audits([copies / "plain", copies / "small"])
    change(copies / "early" / "records.parquet", lambda t: t.assign(patient=t["patient"] + 1))
    with pytest.raises(MismatchError, match="the patient ids"):
        compare_audits([copies / "plain", copies / "early"])
    change(copies / "other" / "records.parquet", lambda t: t.assign(label="no"))
    with pytest.raises(MismatchError, match="the label ids or values"):
        compare_audits([copies / "plain", copies / "other"])


def test_one_without_held_out_records_is_refused(copies):
    without_heldout(copies / "small")
    with pytest.raises(MismatchError, match="n_heldout_records is 60 and 0"):
        compare_audits([copies / "plain", copies / "small"])


def test_other_held_out_records_are_refused(copies):
    change(
        copies / "small" / "cohort.parquet", lambda t: t.assign(record=t["record"] + t["heldout"])
    )
    with pytest.raises(MismatchError, match="held-out records differ"):
        compare_audits(three(copies))


def test_other_inputs_are_warned_of(copies):
    change(copies / "small" / "manifest.json", lambda m: m.update(fingerprint="0" * 64))
    found = compare_audits([copies / "plain", copies / "small"])
    assert any("fingerprints" in line for line in found.summary["warnings"])


def test_without_utility_there_is_still_a_comparison(copies, tmp_path):
    for name in ("plain", "small"):
        without_heldout(copies / name)
    found = compare_audits([copies / "plain", copies / "small"], tmp_path / "out")
    pair = found.summary["pairs"][0]
    assert (pair["status"], pair["less"], pair["auroc"]) == ("less", "small", None)
    assert "no figure" in (tmp_path / "out" / "report.html").read_text()


def test_no_common_attack_is_refused(copies):
    def edit(summary):
        summary["attacks"] = {"loss": summary["attacks"]["lira"]}

    change(copies / "small" / "summary.json", edit)
    with pytest.raises(ArgumentError, match="no attack in common"):
        compare_audits([copies / "plain", copies / "small"])


def test_tables_of_predictions_can_be_compared(table, tmp_path):
    table(seed=0).to_csv(tmp_path / "table.csv", index=False)
    audit_scores(tmp_path / "table.csv", tmp_path / "a", attacks=("lira",))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    found = compare_audits([tmp_path / "a", tmp_path / "b"])
    pair = found.summary["pairs"][0]
    assert pair["attack_auc"]["paired"]
    assert (pair["attack_auc"]["value"], pair["status"]) == (0, "not_told_apart")


def test_predictions_of_two_recipes_differ_and_that_is_no_warning(table, tmp_path):
    first = table(seed=0)
    second = first.assign(logit_1=first["logit_1"] + 0.1 * first["label"])
    for name, frame in (("a", first), ("b", second)):
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
        audit_scores(tmp_path / f"{name}.csv", tmp_path / name, attacks=("lira",))
    found = compare_audits([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert "fingerprint" not in " ".join(found.summary["warnings"])
    assert [arm["settings_known"] for arm in found.summary["arms"]] == [False, False]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "The settings are not known to these audits" in page
    assert "settings that these audits hold are the same" not in page
    with pytest.raises(FolderError, match="measured utility, which the frontier needs"):
        write_figures(tmp_path / "out")


def test_settings_that_one_audit_does_not_tell(copies, tmp_path):
    change(copies / "other" / "manifest.json", lambda m: m.update(config={}, trainer={}))
    found = compare_audits([copies / n for n in ("plain", "small", "other")], tmp_path / "out")
    arms = found.summary["arms"]
    assert [arm["recipe"] for arm in arms] == [{"train.leak": 3.0}, {"train.leak": 0.2}, {}]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "The settings are not known of “other”" in page
    table = page.split('data-table="settings"')[1].split("</table>")[0]
    assert table.count("n/a") == 1


def test_other_folders_are_refused(audits, tmp_path):
    plain = audits / "plain"
    empty = tmp_path / "empty"
    empty.mkdir()
    for content, files, words in (
        ({"format": 1, "asked": {"holds": "training on codes"}}, (), "training on codes, no audit"),
        (
            {"format": 1, "asked": {"holds": "attack on a release"}},
            ("certificate.json",),
            "Certificates of releases",
        ),
        ({"format": 1}, ("release.json",), "release of codes"),
        ({"format": 1}, ("compare.json",), "holds a comparison"),
        ([], (), "is not the manifest"),
        ({"format": 1}, (), "damaged"),
    ):
        other = tmp_path / words.replace(" ", "-").replace(",", "")
        other.mkdir()
        (other / "manifest.json").write_text(json.dumps(content))
        for name in files:
            (other / name).write_text("{}")
        with pytest.raises(FolderError, match=words):
            compare_audits([plain, other])
    with pytest.raises(MissingFileError, match="is missing"):
        compare_audits([plain, empty])
    with pytest.raises(MissingFileError, match="no audit folder"):
        compare_audits([plain, tmp_path / "nowhere"])


def test_an_audit_of_a_released_model_is_refused(copies):
    change(copies / "small" / "manifest.json", lambda m: m.update(source="model"))
    with pytest.raises(FolderError, match="one released model"):
        compare_audits(three(copies))


def test_an_audit_that_is_not_analysed_is_refused(copies):
    (copies / "small" / "summary.json").unlink()
    with pytest.raises(MissingFileError, match="not analysed yet"):
        compare_audits(three(copies))


def test_signals_that_do_not_give_the_summary_are_refused(copies):
    def edit(summary):
        for attack in summary["attacks"].values():
            attack["auc"] += 0.01

    change(copies / "small" / "summary.json", edit)
    with pytest.raises(FolderError, match="give other figures"):
        compare_audits(three(copies))
    change(copies / "early" / "patients.parquet", lambda t: t.assign(auc_joint=0.5))
    with pytest.raises(FolderError, match="give other figures"):
        compare_audits([copies / "plain", copies / "early"])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda s: s.pop("patients"),
        lambda s: s["patients"].pop("tail"),
        lambda s: s["attacks"].update(lira=[1]),
        lambda s: s["attacks"]["lira"].update(auc="<b>"),
        lambda s: s.update(utility="x"),
        lambda s: s.update(guards=[1]),
        lambda s: s.update(n_models="many"),
        lambda s: s["verdict"].update(status=3),
        lambda s: s["utility"]["overall"].update(auroc={"a": 1}),
    ],
)
def test_a_damaged_summary_is_one_error(copies, spoil):
    change(copies / "small" / "summary.json", spoil)
    with pytest.raises(FolderError, match="damaged or of another version"):
        compare_audits(three(copies))


def test_damaged_tables_are_one_error(copies):
    (copies / "small" / "patients.parquet").write_bytes(os.urandom(100))
    with pytest.raises(ConfideError, match="damaged"):
        compare_audits(three(copies))
    pd.DataFrame({"patient": [1]}).to_parquet(copies / "small" / "patients.parquet")
    with pytest.raises(FolderError, match="no column 'auc_joint'"):
        compare_audits(three(copies))


@pytest.mark.slow
def test_three_recipes_of_real_data(real_data, tmp_path):
    from confide.config import Config
    from confide.runs import run_config

    for name, epochs in (("plain", 14), ("early", 3)):
        config = Config.model_validate(
            {
                "data": {
                    "name": "table",
                    "path": str(real_data / "diabetes130" / "records.csv.gz"),
                    "record": "encounter_id",
                    "patient": "patient_nbr",
                    "label": "readmitted",
                    "groups": ["race", "gender"],
                    "test": {"fraction": 0.95},
                },
                "train": {
                    "model": {"name": "tabular_resnet", "width": 64, "depth": 2},
                    "epochs": epochs,
                    "batch_size": 256,
                    "optimizer": {"name": "adamw", "lr": 0.002, "weight_decay": 1.0e-4},
                },
                "audit": {"n_models": 16, "attacks": ["rmia"]},
            }
        )
        run_config(config, tmp_path, tmp_path / name)
    found = compare_audits([tmp_path / "plain", tmp_path / "early"], tmp_path / "out")
    assert found.summary["pairs"][0]["less"] == "early"
