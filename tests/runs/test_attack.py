"""A release under attack: what the certificate says, and what it may not."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from confide.config import load
from confide.errors import FolderError, MismatchError, MissingFileError, ReleaseError, TableError
from confide.inversion.assignment import Assignment
from confide.inversion.suite import KNOWN
from confide.runs.attack import attack_release
from confide.runs.certificate import digest
from confide.stores import read_json, read_table

sys.path.append(str(Path(__file__).parents[1]))  # tests are imported from files
from runs.coding import PHANTOM, make, truth_of, write

DATA = PHANTOM | {"n_patients": 70, "max_views": 3, "size": [32, 32]}
ENCODE = {"patch": 8, "width": 256, "private_depth": 1, "dev": {"fraction": 0.4}}
ATTACK = {"knowledge": "pairs", "attribute": "label"}


def attack(folder, name, *, release="a", truth=True, data=DATA, max_reid=None, **block):
    config = write(folder, name, data=data, encode=ENCODE, attack=ATTACK | block)
    return attack_release(
        *load(config),
        folder / release,
        folder / name,
        truth=folder / f"{release}.private" if truth else None,
        max_reid=max_reid,
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a release, attacked by the whole short suite."""
    folder = tmp_path_factory.mktemp("attack")
    make(folder, "a", DATA, **ENCODE)
    with pytest.MonkeyPatch.context() as patch:
        # A third of the steps of its budget break the release too, and cost half of all attacks.
        patch.setattr(Assignment, "of", lambda budget: Assignment(steps=500, batch_size=512))
        yield folder, attack(folder, "found")


def test_the_short_suite_breaks_the_release(place):
    folder, found = place
    assert found["reidentification"]["verdict"] == "bad"
    assert found["attacks"]["alignment"]["outcome"] == "leaks"
    assert found["attacks"]["alignment"]["release"]["reid_identical"]["value"] > 0.9
    assert found["gate"] is None
    for name in ("certificate.json", "report.html", "alignment.parquet"):
        assert (folder / "found" / name).is_file()
    assert read_json(folder / "found" / "certificate.json") == json.loads(json.dumps(found))


def test_every_attack_has_its_controls(place):
    _, found = place
    for name, one in found["attacks"].items():
        assert one["outcome"] in ("leaks", "nothing found"), (name, one["why"])
        linear, noise = one["linear"][one["headline"]], one["noise"][one["headline"]]
        if one["breaks_at"] is not None:
            assert linear["value"] >= KNOWN[name].breaks_at == one["breaks_at"]
        assert noise["chance_low"] <= noise["value"] <= noise["chance_high"]
        others = one["seconds"].keys() - {"release", "linear", "noise"}
        assert others <= {"shallow", "raw"}
        assert ("shallow" in others) == bool(one["singles_out"])
        if one["singles_out"]:
            shallow = one["shallow"][one["headline"]]
            assert shallow["value"] > shallow["chance_high"]
    assert found["attacks"]["alignment"]["shallow"]["reid"]["value"] >= 0.9


def test_the_certificate_names_the_release(place):
    folder, found = place
    manifest = read_json(folder / "a" / "release.json")
    release = found["release"]
    assert release["release_id"] == manifest["release_id"]
    assert release["key_id"] == manifest["key_id"]
    assert release["manifest_digest"] == manifest["digest"]
    assert found["sha256"] == digest(found)
    assert digest(found | {"budget": "paper"}) != found["sha256"]
    assert found["versions"].keys() >= {"confide", "numpy", "torch"}


def test_curves_begin_at_chance(place):
    folder, _ = place
    found = attack(folder, "curves", attacks=["plaintext"], budget="standard", minutes=0.02)
    points = found["attacks"]["plaintext"]["curves"]["known pairs"]
    assert points[0]["x"] == 0
    score = points[0]["scores"]["challenge2"]
    assert score["value"] <= score["chance_high"]
    # Stopped by the clock, and said so.
    assert len(points) > 2
    assert "time was over" in found["attacks"]["plaintext"]["notes"]["release"][0]


def test_the_matching_is_what_was_scored(place):
    folder, found = place
    matching, truth = read_table(folder / "found" / "alignment.parquet"), truth_of(folder / "a")
    right = matching["record"].to_numpy() == truth["record"].astype(str).to_numpy()
    assert matching["code"].tolist() == truth["code"].tolist()
    assert right.mean() == pytest.approx(found["attacks"]["alignment"]["release"]["reid"]["value"])


def test_no_attack_sees_the_truth(place, tmp_path):
    folder, _ = place
    shutil.copytree(folder / "a", tmp_path / "a")
    found = attack(tmp_path, "blind", truth=False, attacks=["alignment"])
    one = found["attacks"]["alignment"]
    assert one["outcome"] == "not scored"
    assert one["release"] == {}
    assert one["linear"]["reid"]["value"] >= one["breaks_at"]
    assert found["reidentification"]["verdict"] == "not measured"
    pd.testing.assert_frame_equal(
        read_table(tmp_path / "blind" / "alignment.parquet"),
        read_table(folder / "found" / "alignment.parquet"),
    )


def test_again_changes_nothing(place):
    folder, found = place
    parts = sorted((folder / "found" / "parts").iterdir())
    before = [p.stat().st_mtime_ns for p in parts]
    assert attack(folder, "found") == found
    assert [p.stat().st_mtime_ns for p in parts] == before


def test_a_stop_keeps_what_was_finished(place, tmp_path):
    folder, _ = place
    for name in ("a", "a.private"):
        shutil.copytree(folder / name, tmp_path / name)
    config = write(
        tmp_path, "c", data=DATA, encode=ENCODE, attack=ATTACK | {"attacks": ["linkage"]}
    )
    given = (*load(config), tmp_path / "a", tmp_path / "out")

    def stop(done, total):
        if done > 2000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attack_release(*given, truth=tmp_path / "a.private", progress=stop)
    kept = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out" / "parts").iterdir()}
    assert len(kept) == 2
    assert not (tmp_path / "out" / "certificate.json").exists()
    found = attack_release(*given, truth=tmp_path / "a.private")
    assert found["attacks"]["linkage"]["release"]
    for name, then in kept.items():
        assert (tmp_path / "out" / "parts" / name).stat().st_mtime_ns == then


def test_gates(place):
    folder, _ = place
    block = {"attacks": ["alignment"]}
    found = attack(folder, "gated", max_reid=0.05, **block)
    assert not found["gate"]["met"]
    assert attack(folder, "gated", max_reid=1.0, **block)["gate"]["met"]
    assert attack(folder, "gated", gate={"reid": 0.3}, **block)["gate"]["reid"] == 0.3
    # Nothing that could single a record out was run.
    found = attack(folder, "weak", max_reid=1.0, attacks=["linkage"])
    assert not found["gate"]["met"]
    assert "not measured" in found["gate"]["why"]


def test_private_to_its_owner(place):
    folder, _ = place
    assert (folder / "found").stat().st_mode & 0o077 == 0
    for path in (folder / "found").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0


def test_an_attacker_with_images_of_others(place):
    folder, _ = place
    found = attack(
        folder,
        "unpaired",
        knowledge="unpaired",
        plaintexts=DATA | {"seed": 9},
        attacks=["unpaired-alignment", "linkage"],
    )
    assert set(found["attacks"]) == {"unpaired-alignment", "linkage"}
    assert found["attacks"]["linkage"]["outcome"] in ("leaks", "nothing found")
    assert found["attacked"]["n_plaintexts"] > 60
    assert not any("hidden records" in note for note in found["notes"])


def test_attackers_who_have_more_than_they_should(place):
    folder, _ = place
    block = {"attacks": ["linkage"], "plaintexts": DATA}
    found = attack(folder, "overlap", knowledge="unpaired", **block)
    assert any("among the attacker's plaintexts" in note for note in found["notes"])
    found = attack(folder, "same", knowledge="same-images", attacks=["transfer"], minutes=0.001)
    assert any("has the hidden records themselves" in note for note in found["notes"])


def test_what_cannot_be_scored_does_not_stop_the_rest(tmp_path):
    """Nobody has two records here."""
    data = DATA | {"max_views": 1, "n_patients": 60}
    make(tmp_path, "a", data, **ENCODE)
    found = attack(tmp_path, "out", data=data, attacks=["linkage", "two-keys-linkage", "alignment"])
    for name in ("linkage", "two-keys-linkage"):
        assert found["attacks"][name]["outcome"] == "not run"
        assert "patient" in found["attacks"][name]["why"]
    assert found["attacks"]["alignment"]["outcome"] == "leaks"


def test_a_failure_without_positions_means_nothing(tmp_path):
    """Rows that carry no position cannot be put in order, and the control shows it."""
    more = {"position": False, "private_depth": 4}
    make(tmp_path, "a", DATA, **(ENCODE | more))
    config = write(
        tmp_path, "c", data=DATA, encode=ENCODE | more, attack={"attacks": ["alignment"]}
    )
    found = attack_release(
        *load(config), tmp_path / "a", tmp_path / "out", truth=tmp_path / "a.private", max_reid=0.05
    )
    assert found["attacks"]["alignment"]["limited"]
    assert not found["gate"]["met"]
    assert found["reidentification"]["verdict"] in ("not established", "bad")


def test_what_does_not_belong_together(place, tmp_path):
    folder, _ = place
    with pytest.raises(MismatchError, match="not those of the release; name the `data`"):
        attack(folder, "x", data=DATA | {"seed": 5})
    with pytest.raises(MismatchError, match=r"shape \(1, 16, 16\), those of the codes \(1, 32, 32"):
        attack(folder, "x", data=DATA | {"size": [16, 16]})
    with pytest.raises(MismatchError, match=r"was begun with attack\.seed = 0; it is 1 now"):
        attack(folder, "found", seed=1)
    with pytest.raises(TableError, match="'nothing', which the records do not have"):
        attack(folder, "x", attribute="nothing")
    with pytest.raises(MissingFileError):
        attack(folder, "x", release="none")
    make(folder, "b", DATA, **ENCODE)
    shutil.copytree(folder / "a", tmp_path / "a")
    shutil.copytree(folder / "b.private", tmp_path / "a.private")
    with pytest.raises(MismatchError, match="is not that of the release with the id"):
        attack(tmp_path, "x")
    assert not (folder / "x").exists()
    assert not (tmp_path / "x").exists()


def test_damage_is_named(place, tmp_path):
    folder, _ = place
    for name in ("a", "a.private"):
        shutil.copytree(folder / name, tmp_path / name)
    shard = next(
        p for p in (tmp_path / "a").rglob("*") if p.is_file() and p.stat().st_size > 10_000
    )
    raw = bytearray(shard.read_bytes())
    raw[len(raw) // 2] ^= 1
    shard.write_bytes(bytes(raw))
    with pytest.raises(ReleaseError, match="is altered"):
        attack(tmp_path, "x", attacks=["linkage"])
    (tmp_path / "y").mkdir()
    (tmp_path / "y" / "notes.txt").write_text("mine")
    shutil.rmtree(tmp_path / "a")
    shutil.copytree(folder / "a", tmp_path / "a")
    with pytest.raises(FolderError, match="holds no attack on a release"):
        attack(tmp_path, "y", attacks=["linkage"])


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: [],
        lambda content: {},
        lambda content: None,
        lambda content: content | {"part": "alignment.noise"},
        lambda content: content | {"settings": {}},
        lambda content: content | {"scores": [{"name": "reid", "value": None}]},
    ],
)
def test_parts_are_not_believed(place, tmp_path, damage):
    folder, _ = place
    for name in ("a", "a.private"):
        shutil.copytree(folder / name, tmp_path / name)
    attack(tmp_path, "out", attacks=["alignment"])
    part = tmp_path / "out" / "parts" / "alignment.release.json"
    part.write_text(json.dumps(damage(read_json(part))))
    with pytest.raises(FolderError, match="is damaged or of another run; delete it"):
        attack(tmp_path, "out", attacks=["alignment"])
    part.unlink()
    assert attack(tmp_path, "out", attacks=["alignment"])["reidentification"]["verdict"] == "bad"


def test_probes_stand_beside_the_records_themselves(place):
    _, found = place
    for name, one in found["attacks"].items():
        codes_only = name in ("linkage", "attribute-probe")
        assert ("raw" in one) == codes_only
        if codes_only:
            assert one["raw"]["auc"]["value"] > one["raw"]["auc"]["chance_high"]


def test_a_manifest_that_lies_about_its_encoder(place, tmp_path, monkeypatch):
    folder, _ = place
    shutil.copytree(folder / "a", tmp_path / "a")
    from confide.runs import attacked

    honest = attacked.TypeAdapter.validate_python
    monkeypatch.setattr(
        attacked.TypeAdapter,
        "validate_python",
        lambda self, values: honest(self, values | {"width": 65536}),
    )
    with pytest.raises(ReleaseError, match=r"holds codes \(16, 256\), its encoder would make"):
        attack(tmp_path, "x", truth=False)


def test_some_of_many_codes(place, monkeypatch):
    folder, _ = place
    from confide.runs import attacked

    monkeypatch.setitem(attacked.RECORDS, "quick", 40)
    found = attack(folder, "some", attacks=["alignment"])
    assert found["attacked"]["n_codes"] == 40
    assert found["attacked"]["n_plaintexts"] == 40
    assert any("40 of" in note for note in found["notes"])
    matching = read_table(folder / "some" / "alignment.parquet")
    truth = truth_of(folder / "a").set_index("code").loc[matching["code"]]
    right = np.mean(matching["record"].to_numpy() == truth["record"].astype(str).to_numpy())
    assert right == pytest.approx(found["attacks"]["alignment"]["release"]["reid"]["value"])
