import gzip
import json

import numpy as np
import pandas as pd
import pytest

from confide.errors import ArgumentError, FolderError, MismatchError, TableError
from confide.masks import balanced
from confide.runs import audit_scores
from confide.runs.predictions import _logits_of, predictions
from confide.runs.scores import random_membership
from confide.signals import scalar, signals
from confide.stores import AuditFolder

FILES = {
    "manifest.json",
    "signals.zarr",
    "cohort.parquet",
    "records.parquet",
    "patients.parquet",
    "groups.parquet",
    "curves.parquet",
    "summary.json",
    "summary.md",
    "report.html",
}


def slow_auc(signal, member):
    """Mann-Whitney with ties half, pair by pair."""
    pairs = [
        1.0 if a > b else 0.5 if a == b else 0.0 for a in signal[member] for b in signal[~member]
    ]
    return sum(pairs) / len(pairs)


def csv(frame, path):
    frame.to_csv(path, index=False)
    return path


def signal_of_rows(frame):
    """logit(p_y) of every row, whatever the table holds."""
    if "signal" in frame:
        return frame["signal"].to_numpy()
    p = np.stack([frame[c] for c in frame if c.startswith(("logit_", "prob_"))], axis=1)
    label = frame["label"].to_numpy()
    if p.shape[1] == 1:
        return np.where(label == 1, 1, -1) * p[:, 0]
    if "logit_0" in frame:
        p = np.exp(p) / np.exp(p).sum(axis=1, keepdims=True)
    own = p[np.arange(len(p)), label]
    return np.log(own) - np.log(1 - own)


@pytest.mark.parametrize(
    ("kind", "n_classes", "n_views"),
    [
        ("one_logit", 2, 1),
        ("probs", 2, 1),
        ("signal", 2, 1),
        ("logits", 4, 1),
        ("probs", 3, 2),
        ("signal", 3, 2),
    ],
)
def test_auc_of_a_record_is_that_of_its_rows(table, tmp_path, kind, n_classes, n_views):
    frame = table(kind=kind, n_classes=n_classes, n_views=n_views)
    result = audit_scores(csv(frame, tmp_path / "t.csv"), tmp_path / "out")
    assert {p.name for p in (tmp_path / "out").iterdir()} == FILES | {".lock"}
    stored = pd.read_parquet(tmp_path / "out" / "records.parquet")
    assert stored["record"].tolist() == frame["record"].unique().tolist()
    assert stored["patient"].iloc[:2].tolist() == ["000", "001"]
    frame["value"] = signal_of_rows(frame)
    for _, row in stored.iloc[:20].iterrows():
        mine = frame[frame["record"] == row["record"]]
        by_model = mine.groupby("model")[["value", "member"]].mean()
        expected = slow_auc(by_model["value"].to_numpy(), by_model["member"].to_numpy() == 1)
        assert row["auc"] == pytest.approx(expected, abs=1e-12)
        assert row["label"] == mine["label"].iloc[0]
        assert row["group_sex"] == mine["sex"].iloc[0]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["n_models"], summary["n_patients"], summary["n_records"]) == (16, 40, 79)
    assert set(summary["attacks"]) == {"lira", "rmia"}
    assert summary["models_missing"] == []
    assert result.summary["n_models"] == 16


def test_the_form_of_the_file_and_the_order_of_its_rows_do_not_matter(table, tmp_path):
    frame = table(n_models=8)
    frame.to_parquet(tmp_path / "t.parquet")
    csv(frame, tmp_path / "t.csv")
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress((tmp_path / "t.csv").read_bytes()))
    shuffled = frame.sample(frac=1, random_state=0)
    shuffled["member"] = shuffled["member"].map({1: "True", 0: "FALSE"})
    csv(shuffled, tmp_path / "shuffled.csv")
    found = [
        audit_scores(path, tmp_path / f"out{i}", attacks=("lira",))
        for i, path in enumerate([*sorted(tmp_path.glob("t.*")), tmp_path / "shuffled.csv"])
    ]
    assert len(found) == 4
    first = found[0].records.set_index("record")
    for other in found[1:]:
        pd.testing.assert_frame_equal(other.records.set_index("record").loc[first.index], first)
        a, b = (r.patients.set_index("patient") for r in (found[0], other))
        np.testing.assert_allclose(b.loc[a.index, "p_joint"], a["p_joint"], rtol=1e-12)
        lira = [r.summary["attacks"]["lira"]["auc"] for r in (found[0], other)]
        assert lira[0] == pytest.approx(lira[1], abs=1e-12)


def test_membership_and_logits_are_those_of_the_table(table):
    frame = table(n_models=6, n_patients=9, n_views=2, kind="logits", n_classes=3)
    found = predictions(frame.sample(frac=1, random_state=1))
    assert found.values.shape == (6, found.cohort.n_records, 2, 3)
    by_key = frame.set_index(["model", "record", "view"])
    for m, r, v in [(0, 0, 0), (5, 3, 1), (2, 7, 0)]:
        key = (int(found.models[m]), found.cohort.record[r], v)
        wanted = by_key.loc[key]
        np.testing.assert_array_equal(
            found.values[m, r, v], wanted[["logit_0", "logit_1", "logit_2"]]
        )
        column = found.cohort.patients.tolist().index(wanted["patient"])
        assert found.membership[m, column] == wanted["member"]


def test_logits_and_their_probabilities_say_the_same(table):
    logits, probs = predictions(table(kind="logits")), predictions(table(kind="probs"))
    by_logits, by_probs = (
        scalar(signals(p.values, p.cohort.label, p.cohort.task)) for p in (logits, probs)
    )
    np.testing.assert_allclose(by_probs, by_logits, atol=1e-12)


@pytest.mark.parametrize("words", [("true", "false"), ("True", "False"), ("1.0", "0.0"), (1.0, 0)])
def test_membership_in_words(table, words):
    frame = table()
    expected = predictions(frame).membership
    frame["member"] = [words[0] if m else words[1] for m in frame["member"]]
    np.testing.assert_array_equal(predictions(frame).membership, expected)


def test_a_column_called_logit_is_one_logit(table):
    frame = table(kind="one_logit")
    found = predictions(frame.rename(columns={"logit_0": "logit"}))
    np.testing.assert_array_equal(found.values, predictions(frame).values)
    assert found.cohort.task == "binary"


def test_probabilities_of_zero_and_one_are_clipped_and_counted(table, tmp_path):
    frame = table(kind="probs")
    frame.loc[[3, 5], ["prob_0", "prob_1"]] = [[0.0, 1.0], [1.0, 0.0]]
    result = audit_scores(csv(frame, tmp_path / "t.csv"), tmp_path / "out")
    (warning,) = [w for w in result.summary["warnings"] if "clipped" in w]
    assert warning.startswith("2 rows have a probability of exactly 0 or 1")
    assert np.isfinite(predictions(frame).values).all()


def test_a_population_is_exempt_and_used(table, tmp_path):
    frame = table(kind="logits", n_classes=3).assign(population=0)
    outside = table(kind="logits", n_classes=3, n_patients=20, seed=9)
    outside["record"] = "out-" + outside["record"]
    outside["patient"] = "out-" + outside["patient"]
    outside = outside.assign(population=1, member=0)
    both = pd.concat([frame, outside])
    found = predictions(both)
    assert found.cohort.n_patients == 40
    assert found.population[0].shape == (16, 39, 1, 3)
    assert found.population[1].n_patients == 20
    with_z = audit_scores(csv(both, tmp_path / "z.csv"), tmp_path / "z")
    without = audit_scores(csv(frame, tmp_path / "t.csv"), tmp_path / "t")
    assert with_z.summary["utility"]["overall"] is not None
    np.testing.assert_array_equal(with_z.records["auc"], without.records["auc"])
    assert with_z.summary["attacks"]["lira"] == without.summary["attacks"]["lira"]
    # The share of Z that a record dominates orders the records of a model as its own ratio does.
    assert with_z.summary["attacks"]["rmia"]["auc"] == without.summary["attacks"]["rmia"]["auc"]
    assert without.summary["utility"] is None


def test_a_population_of_ready_signals(table, tmp_path):
    frame = table(kind="signal").assign(population=0)
    outside = table(kind="signal", n_patients=20, seed=9).assign(population=1, member=0)
    outside["record"] = "out-" + outside["record"]
    with pytest.raises(TableError, match=r"Patient '000' has population = 0 in row 0 and 1"):
        audit_scores(csv(pd.concat([frame, outside]), tmp_path / "z.csv"), tmp_path / "y")
    outside["patient"] = "out-" + outside["patient"].astype(str)
    result = audit_scores(csv(pd.concat([frame, outside]), tmp_path / "z.csv"), tmp_path / "z")
    assert result.summary["n_records"] == 79
    assert result.summary["attacks"]["rmia"]["auc"] > 0.6


def test_a_column_with_too_many_values_is_no_group_and_said(table, tmp_path):
    frame = table()
    frame["age"] = np.arange(len(frame))
    frame["site"] = None
    result = audit_scores(csv(frame, tmp_path / "t.csv"), tmp_path / "out")
    groups = [c for c in result.records.columns if c.startswith("group_")]
    assert groups == ["group_sex", "group_site"]
    (warning,) = [w for w in result.summary["warnings"] if "'age'" in w]
    assert "more than 50; it was not taken as a group" in warning


def test_membership_by_halves_gets_no_list(table, tmp_path):
    frame = table()
    random = audit_scores(csv(frame, tmp_path / "r.csv"), tmp_path / "r").summary
    assert [g["status"] for g in random["guards"]] == ["unknown"]
    half = frame["patient"].astype("category").cat.codes % 2
    model = frame["model"].astype("category").cat.codes % 2
    frame["member"] = (half == model).astype(int)
    halves = audit_scores(csv(frame, tmp_path / "h.csv"), tmp_path / "h").summary
    assert [g["status"] for g in halves["guards"]] == ["failed"]
    assert "only 1 different membership columns" in halves["guards"][0]["message"]
    assert halves["verdict"]["status"] == "not_established"


@pytest.mark.parametrize(("n_models", "fraction"), [(16, 1 / 16), (16, 0.5), (4, 0.5), (1200, 0.5)])
def test_random_membership_of_any_design_passes(n_models, fraction):
    random = balanced(n_models, 300, fraction=fraction, seed=3)
    assert random_membership(random)["status"] == "unknown"


def test_small_probabilities_keep_what_they_say():
    tiny = np.array([1e-30, 1e-25, 0.0, 0.3])
    frame = pd.DataFrame({"record": range(4), "prob_0": tiny, "prob_1": 1 - tiny})
    logits, warnings = _logits_of(frame, ["prob_0", "prob_1"], frame[["prob_0", "prob_1"]].values)
    np.testing.assert_allclose(logits[[0, 1, 3], 0], np.log(tiny[[0, 1, 3]]))
    assert np.isfinite(logits).all()
    assert logits[2, 0] <= np.log(1e-30)
    assert warnings[0].startswith("3 rows have a probability of exactly 0 or 1")


def test_a_column_that_names_patients_is_no_group(table, tmp_path):
    frame = table().assign(mrn=lambda t: "m" + t["patient"].astype(str))
    frame["fold"] = frame["model"].astype("category").cat.codes % 3
    result = audit_scores(csv(frame, tmp_path / "t.csv"), tmp_path / "out")
    assert [c for c in result.patients.columns if c.startswith("group_")] == ["group_sex"]
    text = " ".join(result.summary["warnings"])
    assert "'mrn' looks like an identifier of patients" in text
    assert "'fold' differs between the rows of a record" in text
    assert "m000" not in (tmp_path / "out" / "report.html").read_text()


def drop(column):
    return lambda t: t.drop(columns=column)


def put(column, row, value):
    def change(t):
        t = t.astype({column: object})
        t.loc[row, column] = value
        return t

    return change


def in_and_out(t):
    # Patient 001 owns the records 00001 and 00002.
    row = t.index[(t["record"] == "00001") & (t["model"] == 2)][0]
    t.loc[row, "member"] = 1 - t.loc[row, "member"]
    return t


def always(value):
    def change(t):
        t.loc[t["patient"] == "004", "member"] = value
        return t

    return change


REFUSALS = [
    *[(drop(c), [f"no column '{c}'"]) for c in ("model", "record", "patient", "member", "label")],
    (lambda t: t.rename(columns={"patient": "patinet"}), ["'patient'", "Did you mean 'patinet'?"]),
    (drop(["prob_0", "prob_1"]), ["either logit_0, logit_1, ... or prob_0", "has none of them"]),
    (lambda t: t.assign(signal=1.0), ["it has prob and signal"]),
    (drop("prob_1"), ["prob_0 alone; give prob_0 and prob_1"]),
    (drop("prob_0"), ["no column 'prob_0'"]),
    (put("prob_0", 7, np.nan), ["Column 'prob_0' in row 7 (record '00007')", "finite number"]),
    (put("prob_0", 7, np.inf), ["Column 'prob_0' in row 7 (record '00007') is inf"]),
    (put("prob_1", 7, "high"), ["Column 'prob_1' in row 7 (record '00007') is 'high'"]),
    (put("prob_1", 7, 1.5), ["Column 'prob_1' in row 7 (record '00007') is 1.5", "in [0, 1]"]),
    (put("prob_1", 7, -0.5), ["'prob_1' in row 7 (record '00007') is -0.5", "in [0, 1]"]),
    (put("prob_1", 7, 0.0), ["probabilities of row 7 (record '00007') add up to"]),
    (put("member", 7, 2), ["Column 'member' in row 7 (record '00007') is 2", "0 or 1"]),
    (put("member", 7, "yes"), ["Column 'member' in row 7 (record '00007') is 'yes'"]),
    (put("member", 7, None), ["Column 'member' in row 7 (record '00007')", "expected 0 or 1"]),
    (put("label", 7, None), ["Column 'label' is missing in row 7 (record '00007')"]),
    (put("label", 7, "sick"), ["Column 'label' in row 7 (record '00007') is 'sick'"]),
    (put("label", 7, 0.5), ["Column 'label' in row 7 (record '00007') is 0.5", "class index"]),
    (put("label", 7, -1), ["Column 'label' in row 7 (record '00007') is -1"]),
    (put("label", 7, 2), ["Label 2 in row 7 (record '00007') has no column prob_2"]),
    (put("patient", 7, None), ["Column 'patient' is missing in row 7 (record '00007')"]),
    (put("record", 7, None), ["Column 'record' is missing in row 7"]),
    (put("model", 7, None), ["Column 'model' is missing in row 7 (record '00007')"]),
    (
        put("patient", 86, "999"),
        ["Record '00007' has two values of patient: '004' (row 7) and '999' (row 86)"],
    ),
    (
        lambda t: put("label", 86, 1 - t.loc[7, "label"])(t),
        ["Record '00007' has two values of label", "(row 7)", "(row 86)"],
    ),
    (
        lambda t: pd.concat([t, t.iloc[[7]]], ignore_index=True),
        ["Record '00007' of model 0 is given twice: rows 7 and 1264"],
    ),
    (lambda t: t.drop(index=86), ["Model 1 has no row for record '00007'"]),
    (in_and_out, ["Patient '001' is both in and out of model 2", "row"]),
    (always(1), ["Patient '004' (row 7) is never out of", "column 'member'"]),
    (always(0), ["Patient '004' (row 7) is never in", "(1 such patients)"]),
    (lambda t: t[t["model"] < 3], ["has 3 model(s); an audit needs at least 4"]),
    (lambda t: t.iloc[:0], ["no rows"]),
    (lambda t: t.assign(population=1, member=0), ["Every row has population = 1"]),
    (lambda t: t.assign(population=2), ["Column 'population' in row 0 (record '00000') is 2"]),
    (
        lambda t: t.assign(population=(t["record"] == "00007") * 1, member=1),
        ["Row 7 (record '00007') has population = 1 and member = 1"],
    ),
    (
        lambda t: t.assign(population=((t["record"] == "00007") & (t["member"] == 0)) * 1),
        ["Record '00007' has population = 0 in row"],
    ),
    (put("view", 7, None), ["Column 'view' is missing in row 7 (record '00007')"]),
]


@pytest.mark.parametrize(("change", "parts"), REFUSALS)
def test_a_table_that_cannot_be_used_is_refused_by_place(table, tmp_path, change, parts):
    frame = table(kind="probs")
    if change is REFUSALS[-1][0]:
        frame["view"] = 0
    path = csv(change(frame), tmp_path / "t.csv")
    with pytest.raises(TableError) as caught:
        audit_scores(path, tmp_path / "out")
    message = str(caught.value)
    for part in [str(path), *parts]:
        assert part in message
    assert "np." not in message
    assert "\n" not in message
    assert not (tmp_path / "out").exists()


def test_a_record_twice_in_one_view_is_refused(table):
    frame = table(kind="probs", n_views=2)
    with pytest.raises(
        TableError, match=r"Record '00003' of model 0 is given twice.*\(same view\)"
    ):
        predictions(pd.concat([frame, frame.iloc[[7]]], ignore_index=True))
    with pytest.raises(TableError, match="no row for record '00003', view number 1"):
        predictions(frame.drop(index=7))


def test_a_long_id_is_not_repeated_in_full(table):
    frame = table().replace({"record": {"00003": "3" * 50_000}})
    with pytest.raises(TableError, match="no row for record '333") as error:
        predictions(frame.drop(index=3))
    assert len(str(error.value)) < 500


def test_settings_are_refused_before_anything_is_written(table, tmp_path):
    path = csv(table(), tmp_path / "t.csv")
    with pytest.raises(ArgumentError, match=r"'lirra'\. Did you mean 'lira'\?"):
        audit_scores(path, tmp_path / "out", attacks=("lirra",))
    with pytest.raises(ArgumentError, match=r"fdr=1\.5"):
        audit_scores(path, tmp_path / "out", fdr=1.5)
    assert not (tmp_path / "out").exists()


def test_the_same_table_again_analyses_again(table, tmp_path):
    path = csv(table(), tmp_path / "t.csv")
    first = audit_scores(path, tmp_path / "out")
    again = audit_scores(path, tmp_path / "out", attacks=("loss",), fdr=0.2)
    pd.testing.assert_frame_equal(again.records, first.records)
    assert set(again.summary["attacks"]) == {"loss"}
    assert again.summary["patients"]["fdr"] == 0.2


def test_another_table_in_the_same_folder_is_refused(table, tmp_path):
    audit_scores(csv(table(), tmp_path / "t.csv"), tmp_path / "out")
    before = (tmp_path / "out" / "summary.json").read_bytes()
    with pytest.raises(MismatchError, match="was begun with fingerprint"):
        audit_scores(csv(table(seed=1), tmp_path / "u.csv"), tmp_path / "out")
    assert (tmp_path / "out" / "summary.json").read_bytes() == before


def test_a_kill_between_two_writes_is_made_good(table, tmp_path, monkeypatch):
    path = csv(table(), tmp_path / "t.csv")
    expected = audit_scores(path, tmp_path / "whole")

    def killed(self, name, shape, dtype):
        if name == "logits":
            raise KeyboardInterrupt
        return create(self, name, shape, dtype)

    create = AuditFolder.create_array
    monkeypatch.setattr(AuditFolder, "create_array", killed)
    with pytest.raises(KeyboardInterrupt):
        audit_scores(path, tmp_path / "out")
    assert not AuditFolder.read(tmp_path / "out").done.any()
    monkeypatch.undo()
    found = audit_scores(path, tmp_path / "out")
    assert found.summary == expected.summary


def test_a_folder_with_other_things_is_left_alone(table, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(FolderError, match="is not empty and is not an audit folder"):
        audit_scores(csv(table(), tmp_path / "t.csv"), tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["thesis.txt"]
