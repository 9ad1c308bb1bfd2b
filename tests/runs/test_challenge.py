"""The NeuraCrypt challenge from end to end: exported, solved, submitted, scored."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from confide.config import load
from confide.encoders.base import Encoder
from confide.encoders.key import unlock
from confide.errors import FolderError, KeyFileError, MissingFileError, ReleaseError
from confide.runs.attack import attack_release
from confide.runs.challenge import export_challenge, score, submit
from confide.runs.encode import encode
from confide.stores import read_json, read_table

sys.path.append(str(Path(__file__).parents[1]))  # tests are imported from files
from runs.coding import new_key, write

DATA = {
    "name": "phantom",
    "n_patients": 60,
    "max_views": 3,
    "size": [32, 32],
    "opacity": 1.0,
    "test": {"fraction": 0.3},
}
ENCODE = {"patch": 8, "width": 128, "private_depth": 1}


def blocks(**attack):
    return {"data": DATA, "encode": ENCODE, "attack": attack}


@pytest.fixture(scope="module")
def solved(tmp_path_factory):
    """A challenge, what an attack found, and what was submitted."""
    folder = tmp_path_factory.mktemp("challenge")
    config = write(folder, "c", **blocks(attacks=["alignment"]))
    key = new_key(folder, "k")
    export_challenge(*load(config), key, folder / "challenge", unlock=unlock)
    attack_release(*load(config), folder / "challenge", folder / "found")
    submit(folder / "found", folder / "challenge", folder / "submission")
    return folder, config, key


def test_round_trip_scores_as_computed_directly(solved):
    folder, _, _ = solved
    scores = score(folder / "submission", folder / "challenge")
    truth = read_json(folder / "challenge.private" / "path_dict.json")
    matching = read_table(folder / "found" / "alignment.parquet")
    codes = [f"private_encoded_dataset/{i}.npy" for i in matching["code"]]
    direct = np.mean([truth[r] == c for r, c in zip(matching["record"], codes, strict=True)])
    assert scores["challenge1"]["value"] == direct > 0.9
    assert scores["coverage"]["value"] == 1
    assert "challenge2" not in scores


def test_the_codes_are_those_of_the_key(solved):
    folder, config, key = solved
    truth = read_json(folder / "challenge.private" / "path_dict.json")
    settings, place = load(config)
    opened = settings.data.open(place)
    encoder = Encoder.from_key(key)
    codes = encoder(opened.read(np.arange(5)))
    for record, code in zip(opened.cohort.record[:5], codes, strict=True):
        name = truth[str(record)]
        root = "challenge" if name.startswith("private") else "challenge.private"
        found = np.load(folder / root / name, allow_pickle=False)
        np.testing.assert_allclose(np.sort(found, axis=0), np.sort(code, axis=0), atol=1e-5)


def test_what_is_given_away_says_nothing_of_the_pairs(solved):
    folder, _, _ = solved
    given = {p.name for p in (folder / "challenge").iterdir()}
    assert given == {
        "private_encoded_dataset",
        "private_encoded_dataset_path_list.json",
        "challenge_2_target_dataset_path_list.json",
    }
    assert (folder / "challenge.private").stat().st_mode & 0o077 == 0
    images = read_json(folder / "challenge" / "private_encoded_dataset_path_list.json")
    assert images == sorted(images)
    truth = read_json(folder / "challenge.private" / "path_dict.json")
    number = [int(truth[image].split("/")[1][:-4]) for image in images]
    assert abs(np.corrcoef(number, np.arange(len(number)))[0, 1]) < 0.4


def test_a_substitute_answers_challenge_2(solved):
    folder, _, _ = solved
    config = write(folder, "mmd", **blocks(attacks=["mmd"], minutes=0.02))
    attack_release(*load(config), folder / "challenge", folder / "mmd")
    made = submit(folder / "mmd", folder / "challenge", folder / "second")
    images = read_json(folder / "challenge" / "challenge_2_target_dataset_path_list.json")
    assert made["n_targets"] == len(images)
    assert made["n_predictions"] == 0
    scores = score(folder / "second", folder / "challenge")
    assert scores["challenge1"]["value"] == scores["coverage"]["value"] == 0
    assert scores["challenge2_coverage"]["value"] == 1
    assert 0 <= scores["challenge2"]["value"] <= 1
    assert scores["challenge2_reverse"]["n"] == len(images)


def test_a_key_is_used_once(solved):
    folder, config, key = solved
    with pytest.raises(KeyFileError, match="already made the release"):
        export_challenge(*load(config), key, folder / "again", unlock=unlock)
    assert not (folder / "again").exists()
    export_challenge(*load(config), key, folder / "again", unlock=unlock, reuse_key=True)


def test_what_cannot_be_submitted(solved, tmp_path):
    folder, config, _ = solved
    with pytest.raises(MissingFileError, match="holds no findings; attack the challenge first"):
        submit(tmp_path, folder / "challenge", tmp_path / "s")
    shutil.copytree(folder / "found", tmp_path / "found")
    shutil.copy(tmp_path / "found" / "alignment.parquet", tmp_path / "found" / "other.parquet")
    with pytest.raises(FolderError, match="findings of alignment, other; choose one"):
        submit(tmp_path / "found", folder / "challenge", tmp_path / "s")
    with pytest.raises(MissingFileError, match="no findings of 'mmd', but alignment, other"):
        submit(tmp_path / "found", folder / "challenge", tmp_path / "s", "mmd")
    table = read_table(folder / "found" / "alignment.parquet")
    table.assign(record="nobody").to_parquet(tmp_path / "found" / "other.parquet")
    with pytest.raises(FolderError, match=r"is not about .* it names 'nobody'"):
        submit(tmp_path / "found", folder / "challenge", tmp_path / "s", "other")
    assert not (tmp_path / "s").exists()
    submit(tmp_path / "found", folder / "challenge", tmp_path / "s", "alignment")
    with pytest.raises(FolderError, match="is not empty"):
        export_challenge(*load(config), new_key(tmp_path, "n"), tmp_path / "s", unlock=unlock)


def test_hostile_findings_are_refused(solved, tmp_path):
    folder, _, _ = solved
    found = tmp_path / "found"
    found.mkdir()
    (found / "mmd.means.json").write_text("[]")
    (found / "mmd.means.npy").write_bytes(b"\x93NUMPY\x01\x00\xff\xff{")
    with pytest.raises(ReleaseError, match=r"is no \.npy file of numbers"):
        submit(found, folder / "challenge", tmp_path / "s")
    np.save(found / "mmd.means.npy", np.zeros((2, 3), dtype=np.float32))
    with pytest.raises(FolderError, match="is not about the images of challenge 2"):
        submit(found, folder / "challenge", tmp_path / "s")
    for path in found.iterdir():
        path.unlink()
    for table in (
        {"code": [0]},
        {"code": [0.5], "record": ["a"]},
        {"code": ["x"], "record": ["a"]},
    ):
        pd.DataFrame(table).to_parquet(found / "alignment.parquet")
        with pytest.raises(FolderError, match="is no matching of an attack run"):
            submit(found, folder / "challenge", tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_a_linked_folder_is_not_followed(solved, tmp_path):
    folder, _, _ = solved
    shutil.copytree(folder / "submission", tmp_path / "s")
    link = tmp_path / "s" / "challenge_2_target_dataset"
    link.symlink_to(folder / "challenge.private" / "challenge_2_target_dataset")
    listed = {"challenge_2_target_dataset/0.npy": "0"}
    (tmp_path / "s" / "out_of_domain_npy_path_to_orig_path_dict.json").write_text(
        json.dumps(listed)
    )
    with pytest.raises(ReleaseError, match="is a link; put the folder itself"):
        score(tmp_path / "s", folder / "challenge")


def test_plaintexts_of_another_table_are_paired_by_their_values(tmp_path):
    """They may be numbered otherwise."""
    rng = np.random.default_rng(1)
    (tmp_path / "x").mkdir()
    names = [f"{i}.png" for i in range(40)]
    for name in names:
        Image.fromarray(rng.integers(0, 256, (32, 32), dtype=np.uint8)).save(tmp_path / "x" / name)
    frame = pd.DataFrame({"image": names, "pid": range(40), "view": ["AP", "PA"] * 20})
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame[::-1].to_csv(tmp_path / "turned.csv", index=False)
    data = {"name": "images", "path": "t.csv", "images": "x", "patient": "pid", "label": "view"}
    data |= {"size": [32, 32], "test": {"fraction": 0.2}}
    encode_ = {"name": "linear", "patch": 8, "width": 64}
    block = {"attacks": ["alignment"], "plaintexts": data | {"path": "turned.csv"}}
    config = write(tmp_path, "c", data=data, encode=encode_, attack=block)
    encode(*load(config), new_key(tmp_path, "k"), tmp_path / "r", unlock=unlock)
    found = attack_release(
        *load(config), tmp_path / "r", tmp_path / "out", truth=tmp_path / "r.private"
    )
    assert found["attacks"]["alignment"]["release"]["reid"]["value"] > 0.6


def test_another_architecture_is_refused(solved, tmp_path):
    folder, _, _ = solved
    config = write(tmp_path, "c", **(blocks() | {"encode": ENCODE | {"width": 64}}))
    with pytest.raises(ReleaseError, match=r"holds codes \(16, 128\), .* describe \(16, 64\)"):
        attack_release(*load(config), folder / "challenge", tmp_path / "out")


def test_images_are_named_by_their_files(tmp_path):
    """Ids of records are row numbers then."""
    rng = np.random.default_rng(0)
    (tmp_path / "x").mkdir()
    names = [f"img_{i:02d}.png" for i in rng.permutation(20)]
    for name in names:
        Image.fromarray(rng.integers(0, 256, (32, 32), dtype=np.uint8)).save(tmp_path / "x" / name)
    frame = pd.DataFrame({"file": names, "pid": range(20), "view": ["AP", "PA"] * 10})
    frame.to_csv(tmp_path / "t.csv", index=False)
    data = {"name": "images", "path": "t.csv", "images": "x", "image": "file", "patient": "pid"}
    data |= {"label": "view", "size": [32, 32], "test": {"fraction": 0.2}}
    encode = {"name": "linear", "patch": 8, "width": 64}
    config = write(tmp_path, "c", data=data, encode=encode, attack={"attacks": ["alignment"]})
    export_challenge(*load(config), new_key(tmp_path, "k"), tmp_path / "ch", unlock=unlock)
    assert set(read_json(tmp_path / "ch" / "private_encoded_dataset_path_list.json")) < set(names)
    attack_release(*load(config), tmp_path / "ch", tmp_path / "found")
    submit(tmp_path / "found", tmp_path / "ch", tmp_path / "sub")
    assert score(tmp_path / "sub", tmp_path / "ch")["challenge1"]["value"] > 0.6
