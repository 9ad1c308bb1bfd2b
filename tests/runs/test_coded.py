"""Training on the codes of one or several sites, against the releases themselves."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from confide.config import CodesConfig, load_as, parse
from confide.encoders.release import Release
from confide.errors import (
    ConfigError,
    FolderError,
    MismatchError,
    MissingFileError,
    ReleaseError,
    TableError,
)
from confide.models import build_code_classifier
from confide.runs.arms import Sites, arms_of
from confide.runs.fits import slug
from confide.stores import read_table
from confide.training import codes as training
from confide.training.codes import from_bytes

sys.path.append(str(Path(__file__).parents[1]))  # tests are imported from files
from runs.coding import IMAGES, PHANTOM, SITES, certain, make, study, train, truth_of, write
from runs.coding import write_images as images

COLUMNS = ["label", "arm", "model", "tested_on", "group", "value", "auc", "low", "high"]
COLUMNS += ["n_records", "n_patients", "n_positive"]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Three sites, trained on, with all arms: (folder, data block, compare block, result)."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        certain(patch)
        data = study(folder, columns=["sex", "rare"]) | {"groups": ["sex"]}
    compare = {"records": [f"{site}.yaml" for site in SITES]}
    return folder, data, compare, train(folder, "out", data=data, compare=compare)


def strict(path):
    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


def stored(out, label, arm, model):
    return strict(out / "models" / f"{slug({'label': label, 'arm': arm, 'model': model})}.json")


def area(table, **where):
    """The one row of a table with these values."""
    for name, value in ({"group": ""} | where).items():
        table = table[table[name] == value]
    assert len(table) == 1
    return table.iloc[0]


def test_what_is_on_disk(done):
    folder, _, _, found = done
    out = folder / "out"
    table = read_table(out / "results.parquet")
    assert list(table.columns) == COLUMNS
    pd.testing.assert_frame_equal(table, found.table, check_dtype=False)
    summary = strict(out / "summary.json")
    assert summary == json.loads(json.dumps(found.summary))
    assert summary["units"] == "patients"
    assert summary["warnings"] == []
    for number, site in enumerate(summary["sites"]):
        release = Release.read(folder / SITES[number])
        splits = release.records["split"].value_counts()
        assert site == {
            "site": SITES[number],
            "release_id": release.id,
            "key_id": release.key_id,
            "digest": release.manifest.digest,
            "n_records": release.n_records,
            **{f"n_{split}": splits[split] for split in ("train", "dev", "test")},
            "n_patients": 40,
        }
    label = summary["labels"]["label"]
    assert (label["positive"], label["negative"]) == ("opacity", "clear")
    assert list(label["arms"]) == ["plain", "linear", "codes"]
    for arm in label["arms"].values():
        assert set(arm["best_epoch"]) == {"all sites", *SITES}
    assert [(d["arm"], d["against"], d["model"]) for d in label["differences"]] == [
        ("codes", against, model)
        for against in ("plain", "linear")
        for model in ("all sites", "own site")
    ]
    models = {path.suffix: 0 for path in (out / "models").iterdir()}
    for path in (out / "models").iterdir():
        models[path.suffix] += 1
    assert models == {".json": 12, ".safetensors": 12}
    for path in [out, *out.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_rows_of_the_results(done):
    _, _, _, found = done
    per_arm = {(r.model, r.tested_on) for r in found.table.itertuples() if r.group == ""}
    places = {"mean over sites", *SITES}
    models = ("all sites", *(f"model of {site}" for site in SITES))
    assert per_arm == {
        *((model, where) for where in {"all sites", *places} for model in models),
        *(("own site", where) for where in places),
    }
    groups = found.table[found.table["group"] == "sex"]
    assert {(r.model, r.tested_on, r.value) for r in groups.itertuples()} == {
        ("all sites", "all sites", "female"),
        ("all sites", "all sites", "male"),
    }
    assert (found.table["low"] <= found.table["auc"]).all()
    assert (found.table["auc"] <= found.table["high"]).all()


def of_test(folder, who):
    """Labels, sexes and patients of the test records that the model of a site is for."""
    parts = []
    for site in SITES if who == "all sites" else (who,):
        records = Release.read(folder / site).records
        patient = site + truth_of(folder / site)["patient"]
        parts.append(records.assign(patient=patient, at=site)[records["split"] == "test"])
    frame = pd.concat(parts)
    return frame.assign(positive=frame["label"] == "opacity")


@pytest.mark.parametrize("arm", ["plain", "linear", "codes"])
def test_areas_are_those_of_the_stored_logits(done, arm):
    folder, _, _, found = done
    table = found.table[found.table["arm"] == arm]
    everyone = of_test(folder, "all sites")
    everyone["score"] = stored(folder / "out", "label", arm, "all sites")["logits"]
    row = area(table, model="all sites", tested_on="all sites")
    assert row["auc"] == pytest.approx(roc_auc_score(everyone["positive"], everyone["score"]))
    assert row["n_records"] == len(everyone)
    assert row["n_patients"] == everyone["patient"].nunique()
    assert row["n_positive"] == everyone["positive"].sum()
    own = []
    for site in SITES:
        everyone[f"of {site}"] = stored(folder / "out", "label", arm, site)["logits"]
        row = area(table, model=f"model of {site}", tested_on="all sites")
        expected = roc_auc_score(everyone["positive"], everyone[f"of {site}"])
        assert row["auc"] == pytest.approx(expected)
        part = everyone[everyone["at"] == site]
        row = area(table, model="all sites", tested_on=site)
        assert row["auc"] == pytest.approx(roc_auc_score(part["positive"], part["score"]))
        own.append(roc_auc_score(part["positive"], part[f"of {site}"]))
        row = area(table, model="own site", tested_on=site)
        assert row["auc"] == pytest.approx(own[-1])
        assert (row["n_records"], row["n_positive"]) == (len(part), part["positive"].sum())
    assert area(table, model="own site", tested_on="mean over sites")["auc"] == pytest.approx(
        np.mean(own)
    )
    for sex, part in everyone.groupby("sex"):
        row = area(table, group="sex", value=sex)
        assert row["auc"] == pytest.approx(roc_auc_score(part["positive"], part["score"]))
        assert row["n_patients"] == part["patient"].nunique()


@pytest.mark.parametrize("who", ["all sites", "b"])
def test_logits_are_those_of_the_stored_weights(done, who):
    folder, _, _, _ = done
    config = load_as(CodesConfig, folder / "out.yaml")[0]
    release = Release.read(folder / "b")
    network = build_code_classifier(config.train.model, release.shape, 1)
    file = folder / "out" / "models" / slug({"label": "label", "arm": "codes", "model": who})
    raw = file.with_suffix(".safetensors").read_bytes()
    network.load_state_dict(from_bytes(raw, network, where=str(file)))
    rows = np.flatnonzero(release.records["split"] == "test")
    with torch.no_grad():
        expected = network.eval()(torch.from_numpy(release.codes(rows)))[:, 0].numpy()
    found = np.array(stored(folder / "out", "label", "codes", who)["logits"])
    found = found[(of_test(folder, "all sites")["at"] == "b").to_numpy()]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_arms_see_the_same_records(done):
    folder, _, _, _ = done
    config = load_as(CodesConfig, folder / "out.yaml")[0]
    sites = Sites.read(SITES, [folder / site for site in SITES])
    arms = {arm.name: arm for arm in arms_of(config, folder, sites, torch.device("cpu"))}
    images = []
    for number, site in enumerate(SITES):
        source = parse({"data": PHANTOM | {"n_patients": 40, "seed": number}}).data
        images.append(source.load().inputs[truth_of(folder / site)["row"].to_numpy()])
    x = np.concatenate(images).astype(np.float64)
    train = (sites.records["split"] == "train").to_numpy()
    for number in range(len(SITES)):  # by the training records of its own site
        of_train = x[train & (sites.site == number)]
        here = sites.site == number
        x[here] = (x[here] - of_train.mean()) / of_train.std()
    rows = np.array([70, 3, len(x) - 1, 3])
    plain = arms["plain"].inputs.batch(rows).numpy()
    np.testing.assert_allclose(plain, x[rows], atol=1e-5)
    codes = arms["codes"].inputs.batch(rows).numpy()
    for row, code in zip(rows, codes, strict=True):
        site = sites.site[row]
        first = np.flatnonzero(sites.site == site)[0]
        np.testing.assert_array_equal(code, sites.releases[site].codes([row - first])[0])
    # One matrix a site, and each row stays in its place.
    linear = arms["linear"].inputs.batch(np.arange(len(x))).numpy()
    for site in range(3):
        here = sites.site == site
        patches = x[here].reshape(-1, 2, 8, 2, 8).transpose(0, 1, 3, 2, 4).reshape(-1, 64)
        patches = np.column_stack([patches, np.ones(len(patches))])
        flat = linear[here].reshape(-1, 16)
        _, residual, rank, _ = np.linalg.lstsq(patches, flat, rcond=None)
        assert rank == 65
        assert residual.max() < 1e-6
    assert arms["linear"].inputs.shape == (4, 16)


def test_the_same_call_gives_the_same_numbers(done):
    folder, data, compare, _ = done
    train(folder, "again", data=data, compare=compare)
    for name in ("results.parquet", "summary.json", "model.json"):
        assert (folder / "again" / name).read_bytes() == (folder / "out" / name).read_bytes()


def test_what_is_trained_is_not_trained_again(done, monkeypatch):
    folder, data, compare, _ = done
    fits = []
    whole = training.fit

    def fit(*args, **more):
        if len(fits) == 5:
            raise KeyboardInterrupt
        fits.append(args)
        return whole(*args, **more)

    monkeypatch.setattr(training, "fit", fit)
    with pytest.raises(KeyboardInterrupt):
        train(folder, "stopped", data=data, compare=compare)
    assert len(list((folder / "stopped" / "models").glob("*.json"))) == 5
    assert not (folder / "stopped" / "summary.json").exists()
    monkeypatch.setattr(training, "fit", lambda *a, **m: fits.append(a) or whole(*a, **m))
    train(folder, "stopped", data=data, compare=compare)
    assert len(fits) == 12
    train(folder, "stopped", data=data, compare=compare)
    assert len(fits) == 12
    for name in ("results.parquet", "summary.json", "report.html"):
        assert (folder / "stopped" / name).read_bytes() == (folder / "out" / name).read_bytes()


def test_another_configuration_does_not_resume(done):
    folder, data, compare, _ = done
    train(folder, "begun", data=data)
    with pytest.raises(MismatchError, match=r"was begun with train\.epochs = 2; it is 3 now"):
        train(folder, "begun", data=data, epochs=3)
    with pytest.raises(MismatchError, match=r"was begun with compare"):
        train(folder, "begun", data=data, compare=compare)
    with pytest.raises(MismatchError, match=r"was begun with releases"):
        train(folder, "begun", data=data | {"path": ["a", "b"]})


def test_one_site(done):
    folder, _, _, _ = done
    found = train(folder, "one", data={"path": "a", "label": "label"})
    assert len(found.table) == 1
    row = area(found.table, model="one site", tested_on="one site", arm="codes")
    part = of_test(folder, "a")
    scores = stored(folder / "one", "label", "codes", "a")["logits"]
    assert row["auc"] == pytest.approx(roc_auc_score(part["positive"], scores))
    arm = found.summary["labels"]["label"]["arms"]["codes"]
    assert arm["all_sites"] is arm["gain"] is None
    assert arm["own_site"]["auc"] == pytest.approx(row["auc"])
    # The model of one site of several, trained alone, is the same one.
    before = stored(folder / "out", "label", "codes", "a")["logits"]
    np.testing.assert_allclose(scores, before[: len(scores)], atol=1e-5)


def test_who_the_patients_are(done, tmp_path):
    folder, _, _, _ = done
    make(folder, "named", PHANTOM | {"n_patients": 40}, pseudonyms=True)
    for site in ("a", "named"):
        (tmp_path / site).symlink_to(folder / site)  # without what lies beside it
    data = {"path": "named", "label": "label"}
    beside, alone = train(folder, "n1", data=data), train(tmp_path, "n2", data=data)
    assert beside.summary["units"] == alone.summary["units"] == "patients"
    pd.testing.assert_frame_equal(beside.table, alone.table)
    unknown = train(tmp_path, "n3", data={"path": "a", "label": "label"})
    assert unknown.summary["units"] == "records"
    assert unknown.summary["sites"][0]["n_patients"] is None
    assert "intervals treat records as independent" in unknown.summary["warnings"][0]
    # Records that count as independent have a narrower interval.
    known = train(folder, "n4", data={"path": "a", "label": "label"})
    assert known.table["auc"][0] == unknown.table["auc"][0]
    narrow, wide = (f.table["high"][0] - f.table["low"][0] for f in (unknown, known))
    assert narrow < wide


def test_labels_with_gaps_and_columns_of_any_name(tmp_path):
    frame = images(tmp_path, n=80)
    # Names that this program, rich and HTML might take for their own.
    told = {"edema": "[bold]<b>ed/ema</b>", "sex": "<i>sex</i>"}
    frame = frame.rename(columns=told)
    frame.to_csv(tmp_path / "records.csv", index=False)
    edema = told["edema"]
    make(tmp_path, "r", IMAGES | {"label": [edema, "device"]}, columns=["site", "<i>sex</i>"])
    data = {"path": "r", "label": [edema, "device"], "groups": ["site", "<i>sex</i>"]}
    found = train(tmp_path, "out", data=data | {"site": ["../[red]<script>x</script>"]})
    records = Release.read(tmp_path / "r").records
    rows = records[records["split"] == "test"]
    for label in (edema, "device"):
        known = rows[rows[label].notna()]
        row = area(found.table, label=label)
        assert (row["n_records"], row["n_positive"]) == (len(known), known[label].sum())
        model = stored(tmp_path / "out", label, "codes", "../[red]<script>x</script>")
        assert row["auc"] == pytest.approx(roc_auc_score(known[label], model["logits"]))
        for site, part in known.groupby("site"):
            row = area(found.table, label=label, group="site", value=site)
            assert (row["n_records"], row["n_positive"]) == (len(part), part[label].sum())
    assert found.summary["labels"][edema]["positive"] == edema
    assert found.summary["labels"][edema]["negative"] == f"no {edema}"
    assert len(rows) > rows[edema].notna().sum()
    report = (tmp_path / "out" / "report.html").read_text()
    for raw in ("<b>ed", "<i>sex", "<script>x"):
        assert raw not in report
    assert {p.parent.name for p in (tmp_path / "out").rglob("*.safetensors")} == {"models"}
    # One of them alone is the same model as beside the other.
    alone = train(tmp_path, "alone", data={"path": "r", "label": edema})
    assert alone.table["auc"][0] == area(found.table, label=edema)["auc"]


def test_a_group_with_gaps(tmp_path):
    frame = images(tmp_path, n=80)
    frame["sex"] = frame["sex"].where(np.arange(80) // 2 % 4 > 0)
    frame.to_csv(tmp_path / "records.csv", index=False)
    make(tmp_path, "r", IMAGES, columns=["sex"])
    found = train(tmp_path, "out", data={"path": "r", "label": "view", "groups": ["sex"]})
    records = Release.read(tmp_path / "r").records
    n_missing = (records["sex"].isna() & (records["split"] == "test")).sum()
    assert area(found.table, group="sex", value="missing")["n_records"] == n_missing > 0


def test_labels_that_cannot_be_learnt(tmp_path):
    frame = images(tmp_path)
    frame["grade"] = np.arange(24) // 2 % 3
    frame["pure"] = np.where(np.arange(24) < 4, 1.0, np.nan)
    frame.to_csv(tmp_path / "records.csv", index=False)
    make(tmp_path, "three", IMAGES | {"label": "grade"})
    with pytest.raises(TableError, match="'grade' has the values 0, 1, 2; a training on codes"):
        train(tmp_path, "out", data={"path": "three", "label": "grade"})
    with pytest.raises(TableError, match="site 'three' has no label 'view'; its labels are grade"):
        train(tmp_path, "out", data={"path": "three", "label": "view"})
    make(tmp_path, "one", IMAGES | {"label": ["pure", "device"]})
    with pytest.raises(TableError, match=r"'pure' has [01] of its two values in the train records"):
        train(tmp_path, "out", data={"path": "one", "label": "pure"})
    with pytest.raises(TableError, match=r"'sex', which is no public column .* these are none"):
        train(tmp_path, "out", data={"path": "one", "label": "device", "groups": ["sex"]})
    assert not (tmp_path / "out").exists()


def test_releases_that_cannot_be_used_together(done, tmp_path):
    folder, _, _, _ = done
    make(folder, "wide", PHANTOM | {"n_patients": 40}, width=24)
    make(folder, "deep", PHANTOM | {"n_patients": 40}, private_depth=2)
    for name in ("wide", "deep"):
        with pytest.raises(ReleaseError, match="sites that train together use one encoder"):
            train(folder, "out2", data={"path": ["a", name], "label": "label"})
    with pytest.raises(MissingFileError, match=r"There is no release at .*nothing"):
        train(folder, "out2", data={"path": ["a", "nothing"], "label": "label"})
    for twice in ({"path": ["a", "a"]}, {"label": ["x", "x"]}, {"groups": ["x", "x"]}):
        with pytest.raises(ConfigError, match=f"`{next(iter(twice))}` names '[ax]' twice"):
            train(folder, "out2", data={"path": ["a", "b"], "label": "x"} | twice)
    with pytest.raises(ConfigError, match=r"data\.label = \[\]: expected at least one\.$"):
        train(folder, "out2", data={"path": ["a", "b"], "label": []})
    with pytest.raises(ConfigError, match="'all sites' names more than one site; choose another"):
        train(folder, "out2", data={"path": ["a", "b"], "site": ["all sites", "b"], "label": "x"})
    with pytest.raises(ConfigError, match="need as many different names under `site`, got a, a"):
        train(folder, "out2", data={"path": ["a", "b"], "site": ["a", "a"], "label": "label"})
    data = {"path": ["a", "b"], "label": "label"}
    with pytest.raises(
        ConfigError, match=r"compare\.records names 1, expected one for each of the"
    ):
        train(folder, "out2", data=data, compare={"records": ["a.yaml"]})
    assert not (folder / "out2").exists()


@pytest.mark.parametrize("name", ["progress.json", "truth.parquet"])
@pytest.mark.parametrize("content", [b"[]", b"{}", b"nothing"])
def test_what_lies_beside_a_release_is_not_believed(done, tmp_path, name, content):
    folder, _, _, _ = done
    shutil.copytree(folder / "a", tmp_path / "a")
    shutil.copytree(folder / "a.private", tmp_path / "a.private")
    (tmp_path / "a.private" / name).write_bytes(content)
    with pytest.raises(FolderError, match=name):
        train(tmp_path, "out", data={"path": "a", "label": "label"})
    assert not (tmp_path / "out").exists()


def test_comparisons_with_other_records_are_refused(done, tmp_path):
    folder, data, _, _ = done
    mixed = {"records": ["b.yaml", "a.yaml", "c.yaml"]}
    with pytest.raises(MismatchError, match=r"b\.yaml are not those of the release of site 'a'"):
        train(folder, "out3", data=data, compare=mixed)
    for site in SITES:
        (tmp_path / site).symlink_to(folder / site)
    write(tmp_path, "a", data=PHANTOM)
    with pytest.raises(MissingFileError, match=r"RELEASE\.private beside the release of site 'a'"):
        train(tmp_path, "out3", data=data, compare={"records": ["a.yaml"] * 3})


def test_the_folder_beside_a_release_is_its_own(done, tmp_path):
    folder, _, _, _ = done
    (tmp_path / "a").symlink_to(folder / "a")
    (tmp_path / "a.private").symlink_to(folder / "b.private")
    with pytest.raises(MismatchError, match=r"a\.private is not that of the release with the id"):
        train(tmp_path, "out", data={"path": "a", "label": "label"})


def test_one_key_for_two_sites_is_said(tmp_path):
    make(tmp_path, "a", PHANTOM | {"n_patients": 40})
    make(tmp_path, "b", PHANTOM | {"n_patients": 40, "seed": 1}, key=tmp_path / "a.key",
         reuse_key=True)  # fmt: skip
    found = train(tmp_path, "out", data={"path": ["a", "b"], "label": "label"})
    assert "Two sites used one key" in found.summary["warnings"][0]


def test_a_folder_with_other_things_is_refused(done):
    folder, data, _, _ = done
    with pytest.raises(FolderError, match="is not empty and holds no training on codes"):
        train(folder, "a", data=data)


def test_nothing_that_identifies_a_record_is_in_the_folder(done):
    folder, _, _, _ = done
    text = b"".join(p.read_bytes() for p in (folder / "out").rglob("*") if p.is_file())
    assert b"phantom-0" not in text
    assert str(folder).encode() not in text


BIG = PHANTOM | {"n_patients": 400, "max_views": 2}
LEARN = {
    "epochs": 15,
    "batch_size": 32,
    "optimizer": {"lr": 1e-3},
    "model": {"heads": 4, "head_width": 16},
}


def learnt(tmp_path, monkeypatch, **data):
    certain(monkeypatch)
    make(tmp_path, "r", BIG | data, patch=4, width=64)
    return train(tmp_path, "out", data={"path": "r", "label": "label"}, **LEARN).table.iloc[0]


def test_what_is_plain_to_see_is_learnt_from_codes(tmp_path, monkeypatch):
    row = learnt(tmp_path, monkeypatch)
    assert row["auc"] > 0.85
    assert row["low"] > 0.8
    assert row["n_patients"] == 160


def test_from_labels_at_random_nothing_is_learnt(tmp_path, monkeypatch):
    row = learnt(tmp_path, monkeypatch, mislabelled=0.5)
    assert row["low"] < 0.5 < row["high"]
    assert row["high"] - row["low"] < 0.2
