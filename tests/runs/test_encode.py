"""From a cohort and a key to a release, checked against the encoder itself."""

import datetime
import getpass
import json
import re
import socket
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from confide.config import parse
from confide.encoders.base import Encoder
from confide.encoders.key import Key
from confide.encoders.release import Release
from confide.encoders.state import KeyState
from confide.errors import (
    ArgumentError,
    FolderError,
    ImageError,
    KeyFileError,
    MismatchError,
    TableError,
)
from confide.runs import encode as runs

sys.path.append(str(Path(__file__).parents[1]))  # tests are imported from files
from datasets.dicom_files import write as write_dicom
from runs.coding import IMAGES, PHANTOM, check, make, new_key, truth_of, write_images


def source(data):
    return parse({"data": data}).data


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A release of the phantom, with all that can be published."""
    folder = tmp_path_factory.mktemp("encoded")
    found = make(folder, "site", columns=["sex", "planted"], pseudonyms=True)
    return folder, found


def left(folder):
    return sorted(path.name for path in folder.iterdir())


def test_each_code_is_that_of_its_record(made):
    folder, found = made
    release, truth = check(folder / "site", folder / "site.key", source(PHANTOM))
    data = source(PHANTOM).load()
    rows = truth["row"].to_numpy()
    classes = np.array(data.cohort.classes)
    assert release.records["label"].tolist() == classes[data.cohort.label[rows]].tolist()
    for name in ("sex", "planted"):
        assert release.records[name].tolist() == data.cohort.groups[name].iloc[rows].tolist()
    # One pseudonym a patient, and it is not the order of the table.
    pairs = set(zip(release.records["patient"], truth["patient"], strict=True))
    assert len(pairs) == 24 == len({a for a, _ in pairs}) == len({b for _, b in pairs})
    assert sorted(pairs, key=lambda p: int(p[0][1:])) != sorted(pairs, key=lambda p: p[1])
    assert found["n_records"] == release.n_records == data.cohort.n_records
    assert found["splits"] == dict(Counter(release.records["split"]))
    assert set(found["splits"]) == {"train", "dev", "test"}
    assert found["bytes"] == sum(
        path.stat().st_size
        for path in (folder / "site").rglob("*")
        if path.is_file() and path.name != "release.json"
    )
    of_patient = {}
    for row in release.records[["label", "sex", "planted", "split", "patient"]].values.tolist():
        of_patient.setdefault(row[4], []).append(tuple(row[:4]))
    kinds = [tuple(sorted(rows)) for rows in of_patient.values()]
    assert found["alone"] == sum(kinds.count(kind) == 1 for kind in kinds) > 0
    json.dumps(found, allow_nan=False)


def test_nobody_else_can_read_what_was_made(made):
    folder, _ = made
    for name in ("site", "site.private", "site.key", "site.key.state.json"):
        for path in [folder / name, *(folder / name).rglob("*")]:
            assert path.stat().st_mode & 0o077 == 0, path


def test_the_rows_of_codes_stand_in_an_order_of_their_own(made):
    folder, _ = made
    release, truth = Release.read(folder / "site"), truth_of(folder / "site")
    encoder = Encoder.from_key(folder / "site.key")
    inputs = source(PHANTOM).load().inputs[truth["row"].to_numpy()]
    orders = set()
    for found, expected in zip(release.codes(slice(None)), encoder(inputs), strict=True):
        distance = np.abs(found[:, None] - expected[None]).max(axis=2)
        orders.add(tuple(distance.argmin(axis=1)))
    assert len(orders) > 10  # of 24


def test_two_releases_stand_in_different_orders(made, tmp_path):
    folder, _ = made
    make(tmp_path, "other")
    one, other = truth_of(folder / "site")["row"], truth_of(tmp_path / "other")["row"]
    assert sorted(one) == sorted(other)
    assert one.tolist() != other.tolist()
    assert (one == other).mean() < 0.3
    assert one.tolist() != sorted(one)


def test_an_identifier_under_another_name_is_refused(tmp_path):
    """Of patients with several records, nearly all values of a record are not different."""
    frame = write_images(tmp_path, n=60)
    frame["chart"] = "K" + frame["pid"].str[-3:]
    frame.to_csv(tmp_path / IMAGES["path"], index=False)
    with pytest.raises(TableError, match="'chart' would be published, but it may identify"):
        make(tmp_path, "r", IMAGES, columns=["sex", "chart"])
    assert not (tmp_path / "r").exists()
    assert make(tmp_path, "s", IMAGES, columns=["sex", "chart", "chart"])["columns"] == [
        "sex",
        "chart",
    ]


def test_the_split_is_not_that_of_a_public_seed(tmp_path):
    tests = []
    for name in ("a", "b"):
        make(tmp_path, name)
        split = Release.read(tmp_path / name).records["split"]
        tests.append(set(truth_of(tmp_path / name)["patient"][split == "test"]))
    cohort = source(PHANTOM).load().cohort
    public = set(cohort.patient[cohort.split(0.4, 0)[1]])
    assert len(tests[0]) == len(tests[1]) == len(public)
    assert not tests[0] == tests[1] == public


def test_a_link_to_a_key_is_that_key(tmp_path):
    make(tmp_path, "r")
    (tmp_path / "link.key").symlink_to("r.key")
    with pytest.raises(KeyFileError, match="already made the release"):
        make(tmp_path, "s", key=tmp_path / "link.key")
    assert not (tmp_path / "link.key.state.json").exists()


def test_without_its_state_a_release_does_not_go_on(tmp_path):
    write_images(tmp_path, n=40)

    def stop(done, total):
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, "r", IMAGES, progress=stop)
    (tmp_path / "r.key.state.json").unlink()
    key = Key.load(tmp_path / "r.key")
    other = Encoder.from_key  # the encoder of the lost state cannot be had
    with pytest.raises(KeyFileError, match="was not used yet"):
        other(tmp_path / "r.key")
    state = KeyState.of(tmp_path / "r.key", key.id)
    assert state.binding is None
    make(tmp_path, "r", IMAGES, key=tmp_path / "r.key")  # the same records calibrate it again
    assert check(tmp_path / "r", tmp_path / "r.key", source(IMAGES))


def test_pixels_that_change_are_other_data(tmp_path):
    write_images(tmp_path, n=40)
    images = np.random.default_rng(1).integers(0, 256, (40, 16, 16), dtype=np.uint8)
    np.save(tmp_path / "x.npy", images)
    data = {k: v for k, v in IMAGES.items() if k != "images"} | {"array": "x.npy"}
    make(tmp_path, "r", data)
    np.save(tmp_path / "x.npy", 255 - images)
    with pytest.raises(MismatchError, match="fingerprint of the data"):
        make(tmp_path, "r", data, key=tmp_path / "r.key")


def test_other_public_values_are_another_release(tmp_path):
    write_images(tmp_path, n=40)
    make(tmp_path, "r", IMAGES, columns=["sex"])
    path = tmp_path / IMAGES["path"]
    table = pd.read_csv(path)
    path.write_text(table.assign(sex="unknown").to_csv(index=False))
    with pytest.raises(MismatchError, match="fingerprint of what is published"):
        make(tmp_path, "r", IMAGES, key=tmp_path / "r.key", columns=["sex"])
    path.write_text(table.to_csv(index=False))
    found = make(tmp_path, "r", IMAGES, key=tmp_path / "r.key", columns=["sex"])
    assert "was finished before" in found["notes"][-1]


def test_a_split_without_both_values_of_a_label_is_told(tmp_path):
    """The site can still encode otherwise; the receiver cannot."""
    write_images(tmp_path, n=40)
    path = tmp_path / IMAGES["path"]
    table = pd.read_csv(path)
    table[IMAGES["label"]] = np.where(table["pid"] == table["pid"][0], "AP", "PA")
    path.write_text(table.to_csv(index=False))
    notes = make(tmp_path, "r", IMAGES)["notes"]
    told = [note for note in notes if note.startswith("Label 'view' has fewer than two values")]
    # The one patient is in one of three splits.
    assert len(told) == 2
    assert all("Encode again under a new key" in note for note in told)
    records = pd.read_parquet(tmp_path / "r" / "records.parquet")
    lopsided = records.groupby("split")["view"].nunique().loc[lambda n: n < 2].index
    assert {note.split(" records;")[0].split()[-1] for note in told} == set(lopsided)


def test_finished_it_is_made_no_second_time(made, monkeypatch):
    folder, found = made
    before = (folder / "site" / "release.json").read_bytes()
    monkeypatch.setattr(runs, "_write", None)
    again = make(
        folder, "site", key=folder / "site.key", columns=["sex", "planted"], pseudonyms=True
    )
    assert again.pop("notes") == [
        *found["notes"],
        "The release was finished before; nothing was left to do.",
    ]
    assert again == {k: v for k, v in found.items() if k != "notes"}
    assert (folder / "site" / "release.json").read_bytes() == before


@pytest.mark.parametrize(
    ("settings", "tolerance"),
    [
        ({"dtype": "float16"}, 2e-3),
        ({"dtype": "bfloat16"}, 2e-2),
        ({"shuffle": False}, 1e-5),
        ({"private_depth": 0}, 1e-5),
        # One row: without positions, rows of equal patches are equal.
        ({"patch": 16, "width": 5, "position": False}, 1e-5),
        ({"name": "linear", "private_depth": None}, 1e-5),
    ],
    ids=str,
)
def test_other_encoders(tmp_path, settings, tolerance):
    make(tmp_path, "r", **settings)
    key, data = tmp_path / "r.key", source(PHANTOM)
    release, truth = check(tmp_path / "r", key, data, tolerance=tolerance)
    assert release.dtype == settings.get("dtype", "float32")
    if "shuffle" in settings or "name" in settings:  # the rows stay where they are
        encoder = Encoder.from_key(key)
        encoder.settings = encoder.settings.model_copy(update={"shuffle": False})
        expected = encoder(data.load().inputs[truth["row"].to_numpy()])
        np.testing.assert_allclose(release.codes(slice(None)), expected, atol=1e-5)


def test_norm_batch_is_that_of_a_shard(tmp_path):
    make(tmp_path, "r", norm="batch", batch_size=8)
    release = Release.read(tmp_path / "r")
    size = release.manifest.layout.codes_per_shard
    assert 4 < size <= 8
    assert release.manifest.encoder["batch_size"] == 8
    assert (release.n_records - 1) % size + 1 > 1  # no record is left over alone
    groups = np.arange(release.n_records) // size
    check(tmp_path / "r", tmp_path / "r.key", source(PHANTOM), groups=groups, tolerance=1e-4)


def test_images_of_three_channels_and_labels_with_gaps(tmp_path):
    frame = write_images(tmp_path, channels=3)
    data = IMAGES | {"label": ["edema", "device"]}
    found = make(tmp_path, "r", data, columns=["site", "sex"])
    assert found["encoder"]["shape"] == [3, 16, 16]
    release, truth = check(tmp_path / "r", tmp_path / "r.key", source(data))
    of = frame.iloc[truth["row"]].reset_index(drop=True)
    columns = ["edema", "device", "site", "sex"]
    pd.testing.assert_frame_equal(release.records[columns], of[columns], check_dtype=False)
    assert release.records["edema"].isna().any()


def test_an_array_of_images(tmp_path):
    write_images(tmp_path, n=24)
    images = np.random.default_rng(1).integers(0, 256, (24, 16, 16), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", x=images)
    data = {k: v for k, v in IMAGES.items() if k != "images"} | {"array": "x.npz"}
    make(tmp_path, "r", data)
    check(tmp_path / "r", tmp_path / "r.key", source(data))


def test_dicom(tmp_path):
    write_images(tmp_path, n=24)
    rng = np.random.default_rng(0)
    for path in (tmp_path / "images").iterdir():
        pixels = rng.integers(0, 4096, (20, 24), dtype=np.uint16)
        write_dicom(path, pixels, WindowCenter=2048, WindowWidth=4096)
    make(tmp_path, "r", IMAGES)
    check(tmp_path / "r", tmp_path / "r.key", source(IMAGES))


def test_ecgs(tmp_path):
    write_images(tmp_path, n=24)
    waves = np.random.default_rng(0).normal(size=(24, 40, 3)).astype(np.float32)
    np.save(tmp_path / "x.npy", waves)
    data = {"name": "ecg", "path": "records.csv", "array": "x.npy", "patient": "pid"}
    data |= {"label": "view", "test": {"fraction": 0.4}}
    found = make(tmp_path, "r", data)
    assert found["shape"] == [5, 16]
    check(tmp_path / "r", tmp_path / "r.key", source(data))


def test_labels_are_published_as_the_table_has_them(tmp_path):
    frame = write_images(tmp_path)
    frame["grade"] = np.arange(24) // 2 % 3
    frame.to_csv(tmp_path / "records.csv", index=False)
    make(tmp_path, "r", IMAGES | {"label": "grade"})
    found = Release.read(tmp_path / "r").records["grade"]
    assert found.dtype.kind == "i"
    assert found.tolist() == frame["grade"].iloc[truth_of(tmp_path / "r")["row"]].tolist()


def test_the_release_tells_nothing_of_the_place_it_was_made(tmp_path):
    folder = tmp_path / "SOURCEFOLDER"
    folder.mkdir()
    frame = write_images(folder)
    make(folder, "out", IMAGES, columns=["sex"], pseudonyms=True)
    now = datetime.datetime.now(datetime.UTC)
    words = ["SOURCEFOLDER", "FILE-", "PATIENT-", "RECORD-", "records.csv", "ward", "clinic"]
    words += [str(tmp_path), f"{now:%Y-%m-%d}", f"{now:%d.%m.%Y}"]
    # A short name may stand in the codes by chance.
    words += [word for word in (socket.gethostname(), getpass.getuser()) if len(word) > 3]
    words.append(Key.load(folder / "out.key").derive("calibration records").hex())
    text = b"".join(
        str(path.relative_to(folder)).encode() + path.read_bytes()
        for path in (folder / "out").rglob("*")
        if path.is_file()
    )
    for word in words:
        assert word.encode() not in text, word
    manifest = json.loads((folder / "out" / "release.json").read_text())
    assert "fingerprint" not in str(manifest)
    years = {path.stat().st_mtime for path in [folder / "out", *(folder / "out").rglob("*")]}
    assert max(years) < 400_000_000
    # What must not leave lies beside it.
    assert set(truth_of(folder / "out")["patient"]) == set(frame["pid"])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["age"], "names 'age', which the table does not have; its columns are image, pid"),
        (["pid"], "'pid' would be published, but it may identify patients: the configuration uses"),
        (["image"], "'image' would be published, but it may identify"),
        (["split"], "has a column 'split' of its own; rename"),
        (["when"], "'when' would be published, but it may identify patients: "),
        (["when", "when"], "'when' holds timestamp.*dates tell who a patient is"),
    ],
    ids=str,
)
def test_columns_that_cannot_be_published(tmp_path, columns, message):
    frame = write_images(tmp_path)
    frame["split"] = "a"
    frame["when"] = pd.Timestamp("2020-01-02")
    frame.to_parquet(tmp_path / "records.parquet")
    key = new_key(tmp_path, "k")
    before = left(tmp_path)
    with pytest.raises(TableError, match=message):
        make(tmp_path, "r", IMAGES | {"path": "records.parquet"}, key=key, columns=columns)
    assert left(tmp_path) == sorted([*before, "r.yaml"])


def test_named_twice_an_identifier_is_published(tmp_path):
    frame = write_images(tmp_path)
    make(tmp_path, "r", IMAGES, columns=["pid", "pid"])
    release, truth = check(tmp_path / "r", tmp_path / "r.key", source(IMAGES))
    assert release.records["pid"].tolist() == truth["patient"].tolist()
    assert set(release.records["pid"]) == set(frame["pid"])
    # A label is named once by being the label.
    with pytest.raises(TableError, match=r"name it under encode\.columns too to publish it"):
        make(tmp_path, "s", IMAGES | {"label": "pid"})
    make(tmp_path, "t", IMAGES | {"label": "pid"}, columns=["pid"])
    assert Release.read(tmp_path / "t").manifest.columns == ()


def test_a_key_is_used_once(tmp_path):
    make(tmp_path, "one")
    key = tmp_path / "one.key"
    before = left(tmp_path)
    with pytest.raises(KeyFileError, match=r"already made the release .*one.*--reuse-key"):
        make(tmp_path, "two", key=key)
    assert left(tmp_path) == [*before, "two.yaml"]
    make(tmp_path, "two", key=key, reuse_key=True)
    entries = KeyState.of(key, Key.load(key).id).releases
    assert [(Path(e["path"]).name, e["forced"], e["finished"]) for e in entries] == [
        ("one", False, True),
        ("two", True, True),
    ]
    # The same encoder: one calibration for both.
    check(tmp_path / "two", key, source(PHANTOM))
    with pytest.raises(KeyFileError, match="made for width=16, the configuration asks for width"):
        make(tmp_path, "three", key=key, reuse_key=True, width=24)
    assert not (tmp_path / "three").exists()
    assert not (tmp_path / "three.private").exists()
    assert len(KeyState.of(key, Key.load(key).id).releases) == 2


class Stop(Exception):  # noqa: N818
    pass


def stop_at(n):
    def progress(done, total):
        if done >= n:
            raise Stop

    return progress


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(runs, "SHARD_BYTES", 1100)  # of 4 codes of 4 x 16


def begun(folder, *data):
    """A release that was stopped in the middle."""
    with pytest.raises(Stop):
        make(folder, "r", *data, progress=stop_at(12))
    assert (folder / "r").is_dir()
    return folder / "r.key"


def test_a_stopped_release_resumes(tmp_path, small_shards):
    key = begun(tmp_path)
    truth = truth_of(tmp_path / "r")
    with pytest.raises(Exception, match="is not finished"):
        Release.read(tmp_path / "r")
    counts = []
    make(tmp_path, "r", key=key, progress=lambda done, total: counts.append((done, total)))
    assert counts[0][0] >= 12  # what was finished is not made again
    assert counts[-1] == (len(truth), len(truth))
    check(tmp_path / "r", key, source(PHANTOM))
    pd.testing.assert_frame_equal(truth_of(tmp_path / "r"), truth)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"data": PHANTOM | {"seed": 7}}, "data.seed"),
        ({"columns": ["sex"]}, "encode.columns"),
        ({"pseudonyms": True}, "encode.pseudonyms"),
        ({"dtype": "float16"}, "encode.dtype"),
    ],
    ids=str,
)
def test_another_configuration_does_not_resume(tmp_path, small_shards, change, name):
    key = begun(tmp_path)
    data = change.get("data", PHANTOM)
    settings = {k: v for k, v in change.items() if k != "data"}
    with pytest.raises(MismatchError, match=f"was begun with {re.escape(name)}"):
        make(tmp_path, "r", data, key=key, **settings)
    make(tmp_path, "r", key=key)
    check(tmp_path / "r", key, source(PHANTOM))


def test_another_key_or_other_data_do_not_resume(tmp_path, small_shards):
    frame = write_images(tmp_path)
    key = begun(tmp_path, IMAGES)
    with pytest.raises(MismatchError, match="was begun with key_id = "):
        make(tmp_path, "r", IMAGES, key=new_key(tmp_path, "other"))
    frame.loc[0, "view"] = "AP"
    frame.to_csv(tmp_path / "records.csv", index=False)
    with pytest.raises(MismatchError, match="was begun with fingerprint of the data = "):
        make(tmp_path, "r", IMAGES, key=key)


def test_a_damaged_image_in_the_middle(tmp_path, small_shards, monkeypatch):
    monkeypatch.setattr(runs, "MAX_CALIBRATION", 2)
    write_images(tmp_path)
    key = new_key(tmp_path, "r")
    # A shard in the middle of the order, whatever it is: damaged when half of it is written.
    image = None

    def damage(done, total):
        nonlocal image
        if done == 8:
            row = truth_of(tmp_path / "r")["row"].iloc[20]
            path = tmp_path / "images" / f"FILE-{row:03d}.png"
            image = (row, path, path.read_bytes())
            whole = image[2]
            path.write_bytes(whole[:60] + bytes(len(whole) - 60))

    with pytest.raises(ImageError) as error:
        make(tmp_path, "r", IMAGES, key=key, progress=damage)
    row, path, whole = image
    assert str(error.value).startswith(f"Row {row}: {path}")
    assert "\n" not in str(error.value)
    # Mended to the bytes that it had, the same command goes on.
    path.write_bytes(whole)
    make(tmp_path, "r", IMAGES, key=key)
    check(tmp_path / "r", key, source(IMAGES))


def test_an_image_that_was_damaged_at_the_start_leaves_nothing(tmp_path):
    write_images(tmp_path)
    (tmp_path / "images" / "FILE-005.png").write_bytes(b"no image")
    key = new_key(tmp_path, "k")
    before = left(tmp_path)
    with pytest.raises(ImageError, match=r"^Row 5: .*FILE-005.png is not a PNG"):
        make(tmp_path, "r", IMAGES, key=key)
    assert left(tmp_path) == sorted([*before, "r.yaml"])


def test_a_release_where_something_else_is(tmp_path):
    key = new_key(tmp_path, "k")
    (tmp_path / "r").write_text("a file")
    with pytest.raises(FolderError, match=r"r cannot be used \(Not a directory\)"):
        make(tmp_path, "r", key=key)
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "mine.txt").touch()
    with pytest.raises(FolderError, match="holds other things"):
        make(tmp_path, "s", key=key)
    assert not (tmp_path / "k.key.state.json").exists()
    make(tmp_path, "t", key=key)


def test_records_that_cannot_be_encoded(tmp_path):
    key = new_key(tmp_path, "k")
    with pytest.raises(ArgumentError, match=r"sides \[16, 16\]|sides \(16, 16\) to be multiples"):
        make(tmp_path, "r", key=key, patch=5)
    with pytest.raises(ArgumentError, match="tables cannot be encoded"):
        make(tmp_path, "r", {"name": "embedded"}, key=key)
    assert not (tmp_path / "r.private").exists()


def test_memory_does_not_grow_with_the_records(tmp_path, monkeypatch):
    """Of a shard and the next, however many there are."""
    write_images(tmp_path, n=64)
    monkeypatch.setattr(runs, "MAX_CALIBRATION", 4)
    asked = []
    monkeypatch.setattr(
        runs.KeyedEncoder,
        "read",
        lambda self, parts: asked.extend(map(len, parts)) or map(self._opened.read, parts),
    )
    # 16 x 16 pixels, a code of 1 row of 16: the records are larger than their codes.
    monkeypatch.setattr(runs, "SHARD_BYTES", 8 * 4 * 256)
    make(tmp_path, "r", IMAGES, patch=16)
    assert asked == [8] * 8


def test_real_chest_radiographs(real_data, tmp_path):
    folder = real_data / "cxr_open"
    data = IMAGES | {"path": str(folder / "metadata.csv"), "images": str(folder / "images")}
    data |= {"patient": "patient_id", "record": None, "size": [256, 256]}
    found = make(tmp_path, "r", data, columns=["sex"], patch=16, width=24, pseudonyms=True)
    assert (found["n_records"], found["shape"]) == (192, [256, 24])
    release, _ = check(tmp_path / "r", tmp_path / "r.key", source(data))
    assert Counter(release.records["view"]) == {"AP": 149, "PA": 43}
    assert release.records["sex"].isna().sum() == 3
    text = b"".join(p.read_bytes() for p in (tmp_path / "r").rglob("*") if p.is_file())
    table = pd.read_csv(folder / "metadata.csv", dtype=str)
    for name in ("image", "source_url"):
        for value in table[name].dropna():
            assert value.encode() not in text


def test_real_images_in_an_array(real_data, tmp_path):
    folder = real_data / "nih_cxr64"
    data = {k: v for k, v in IMAGES.items() if k != "images"} | {
        "path": str(folder / "metadata.csv"),
        "array": str(folder / "images.npz"),
        "patient": "patient_id",
        "label": "abnormal",
        "record": "image",
        "size": [64, 64],
    }
    make(tmp_path, "r", data, patch=16)
    release, _ = check(tmp_path / "r", tmp_path / "r.key", source(data))
    assert Counter(release.records["abnormal"]) == {0: 418, 1: 477}


def test_real_dicom(real_data, tmp_path):
    folder = real_data / "dicom_samples"
    names = sorted(path.name for path in folder.glob("*_*.dcm"))
    frame = pd.DataFrame({"image": names, "pid": range(6), "view": ["a", "b"] * 3})
    data = IMAGES | {"images": str(folder), "record": None, "test": {"fraction": 0.2}}
    frame.to_csv(tmp_path / "records.csv", index=False)
    bad = next(i for i, name in enumerate(names) if "ecg" in name)
    with pytest.raises(ImageError, match=rf"^Row {bad}: .*{names[bad]} has no image; it holds 12-"):
        make(tmp_path, "r", data)
    frame.drop(index=bad).to_csv(tmp_path / "records.csv", index=False)
    make(tmp_path, "s", data)
    check(tmp_path / "s", tmp_path / "s.key", source(data))
