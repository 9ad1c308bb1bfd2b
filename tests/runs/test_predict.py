"""Classifying new records at the site that holds the key."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from confide.config import load
from confide.encoders.key import Key, unlock
from confide.encoders.release import Release
from confide.errors import FolderError, KeyFileError, MismatchError, MissingFileError
from confide.runs import predict as runs
from confide.runs.fits import slug
from confide.stores import read_json

sys.path.append(str(Path(__file__).parents[1]))  # tests are imported from files
from runs.coding import IMAGES, PHANTOM, SITES, make, new_key, study, train, truth_of, write
from runs.coding import write_images as images


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("predict")
    data = study(folder)
    train(folder, "out", data=data)
    train(folder, "alone", data=data | {"path": ["b"]})
    return folder


def classify(folder, config="b.yaml", key="b.key", *, model="out", out="new.csv", **more):
    settings, place = load(folder / config)
    if out == "new.csv":
        (folder / out).unlink(missing_ok=True)
    return runs.predict(
        folder / model, settings, place, folder / key, folder / out, unlock=unlock, **more
    )


def logit(p):
    return np.log(p / (1 - p))


@pytest.mark.parametrize(
    ("model", "name"), [("out", "all sites"), ("alone", "b")], ids=["all sites", "one site"]
)
def test_the_same_records_have_the_same_logits(trained, model, name):
    counts = []
    table = classify(trained, model=model, progress=lambda *n: counts.append(n))
    assert list(table.columns) == ["record", "patient", "probability_label=opacity"]
    assert counts[-1] == (len(table), len(table))
    stored = slug({"label": "label", "arm": "codes", "model": name})
    logits = np.array(read_json(trained / model / "models" / f"{stored}.json")["logits"])
    if name == "all sites":
        splits = [Release.read(trained / site).records["split"] for site in SITES]
        at = np.repeat(SITES, [(split == "test").sum() for split in splits])
        logits = logits[at == "b"]
    release, truth = Release.read(trained / "b"), truth_of(trained / "b")
    rows = truth["row"][release.records["split"] == "test"]
    found = table.iloc[rows]
    assert found["record"].tolist() == truth["record"][rows.index].tolist()
    assert found["patient"].tolist() == truth["patient"][rows.index].tolist()
    np.testing.assert_allclose(logit(found["probability_label=opacity"]), logits, atol=1e-4)


def test_tables(trained):
    table = classify(trained)
    pd.testing.assert_frame_equal(pd.read_csv(trained / "new.csv"), table)
    again = classify(trained, out="new/folder/new.parquet")
    stored = pd.read_parquet(trained / "new" / "folder" / "new.parquet")
    pd.testing.assert_frame_equal(stored, again, check_dtype=False)
    assert (
        stored["probability_label=opacity"].tolist() == again["probability_label=opacity"].tolist()
    )
    # The order of rows of a code is fresh, and does not matter.
    np.testing.assert_allclose(
        again["probability_label=opacity"], table["probability_label=opacity"], atol=1e-5
    )


def test_records_that_were_not_trained_on(trained, monkeypatch):
    write(trained, "later", data=PHANTOM | {"n_patients": 7, "seed": 99})
    table = classify(trained, "later.yaml")
    assert table["patient"].nunique() == 7
    assert table["probability_label=opacity"].between(0, 1).all()
    # The number of records at once does not matter.
    monkeypatch.setattr(runs, "_AT_ONCE", 3)
    again = classify(trained, "later.yaml")
    np.testing.assert_allclose(
        again["probability_label=opacity"], table["probability_label=opacity"], atol=1e-5
    )


def test_no_record_is_left_over_alone(tmp_path, monkeypatch):
    # With norm "batch" it would be normalised by itself.
    make(tmp_path, "r", PHANTOM | {"n_patients": 40}, norm="batch", batch_size=16)
    train(tmp_path, "out", data={"path": "r", "label": "label"})
    n = Release.read(tmp_path / "r").n_records
    done = []
    classify(tmp_path, "r.yaml", "r.key", progress=lambda i, _: done.append(i))
    sizes = np.diff([0, *done])
    assert sum(sizes) == n
    assert 8 < sizes[0] <= 16
    assert sizes.min() > 1
    write(tmp_path, "few", data=PHANTOM | {"n_patients": 3, "max_views": 1})
    with pytest.raises(MismatchError, match="3 records are too few"):
        classify(tmp_path, "few.yaml", "r.key")


def test_several_labels_and_no_state_is_changed(tmp_path):
    images(tmp_path, n=80)
    data = IMAGES | {"label": ["edema", "device"]}
    make(tmp_path, "r", data, dtype="float16")
    train(tmp_path, "out", data={"path": "r", "label": ["edema", "device"]})
    before = {p: p.read_bytes() for p in tmp_path.glob("r.key*")}
    table = classify(tmp_path, "r.yaml", "r.key")
    assert list(table.columns) == [
        *("record", "patient", "probability_edema", "probability_device"),
    ]
    assert table["record"].tolist() == [f"RECORD-{i:03d}" for i in range(80)]
    assert {p: p.read_bytes() for p in tmp_path.glob("r.key*")} == before
    for path in tmp_path.glob("out/models/*.safetensors"):
        path.unlink()
    with pytest.raises(MissingFileError, match=r"safetensors is missing; run the training again"):
        classify(tmp_path, "r.yaml", "r.key")


def test_one_new_patient_without_labels(tmp_path):
    images(tmp_path, n=80)
    data = IMAGES | {"label": ["edema"], "groups": ["view"]}
    make(tmp_path, "r", data)
    train(tmp_path, "out", data={"path": "r", "label": "edema"})
    whole = classify(tmp_path, "r.yaml", "r.key")
    table = pd.read_csv(tmp_path / IMAGES["path"])
    bare = table[table[IMAGES["patient"]] == table[IMAGES["patient"]][5]]
    bare.drop(columns=["edema", "view"]).to_csv(tmp_path / "bare.csv", index=False)
    write(tmp_path, "bare", data=data | {"path": "bare.csv"})
    found = classify(tmp_path, "bare.yaml", "r.key")
    expected = whole[whole["record"].isin(found["record"])]
    assert 0 < len(found) == len(expected) < 80
    np.testing.assert_allclose(found["probability_edema"], expected["probability_edema"], atol=1e-5)


def test_refusals(trained, tmp_path):
    new_key(trained, "other")
    with pytest.raises(KeyFileError, match=r"No release that .*; use the key of .*: a, b, c\."):
        classify(trained, key="other.key")
    with pytest.raises(KeyFileError, match=r"of one of its sites: b\."):
        classify(trained, model="alone", key="a.key")
    lost = trained / "lost.key"
    lost.write_bytes((trained / "b.key").read_bytes())
    lost.chmod(0o600)
    with pytest.raises(KeyFileError, match=r"calibration of the key .* is lost; put its \.state"):
        classify(trained, key="lost.key")
    write(trained, "small", data=PHANTOM | {"size": [8, 8]})
    with pytest.raises(MismatchError, match=r"have the shape \(1, 8, 8\), those .* \(1, 16, 16\)"):
        classify(trained, "small.yaml")
    with pytest.raises(MissingFileError, match=r"is .*nothing a finished training"):
        classify(trained, model="nothing")
    whole = read_json(trained / "out" / "model.json")
    for change in (
        None,
        {"encoder": {"name": "neuracrypt", "width": -1}},
        {"encoder": {}},
        {"model": {"heads": "many"}},
        {"shape": [4]},
        {"shape": ["x", 2]},
        {"labels": {"label": ["opacity"]}},
        {"labels": {"label": 5}},
        {"digests": {"b": [1]}},
    ):
        content = {} if change is None else whole | change
        (tmp_path / "model.json").write_text(json.dumps(content))
        with pytest.raises(FolderError, match=r"model\.json is damaged; run the training again"):
            classify(trained, model=tmp_path)
    assert Key.load(trained / "b.key").id == Release.read(trained / "b").key_id


def test_a_file_where_a_folder_should_be(trained):
    (trained / "file").touch()
    with pytest.raises(FolderError, match="cannot be used"):
        classify(trained, out="file/new.csv")
    with pytest.raises(FolderError, match=r"should end in \.csv or \.parquet"):
        classify(trained, out="out")
    (trained / "old.csv").write_text("mine")
    with pytest.raises(FolderError, match="is there already"):
        classify(trained, out="old.csv")
    assert (trained / "old.csv").read_text() == "mine"
