"""``confide encode``, as it is typed: output, exit codes, kills, and secrets that stay inside."""

import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from confide.cli import main
from confide.config import parse
from confide.encoders.key import Key
from confide.encoders.release import Release, verify
from confide.encoders.state import KeyState

sys.path.append(str(Path(__file__).parents[1]))  # tests are imported from files
from runs.coding import ENCODE, IMAGES, PHANTOM, TRAIN, check, truth_of, write, write_images

HARNESS = """
import json, os, random, signal, sys
import confide.training, torch  # in this order: its threads wait politely
torch.set_num_threads(1)
import confide.runs.encode, confide.runs.coded, confide.runs.predict, confide.reports.codes
import confide.encoders.base, confide.models.deep_vit, torch._dynamo, torch.distributed

tests, folder, n_kills = sys.argv[1:]
sys.path.insert(0, tests)
from runs.stopping import call, killed, stopped

os.chdir(folder)
os.environ["COLUMNS"] = "80"
steps = {
    "key": ("key", "new", "k.key"),
    "show": ("key", "show", "k.key"),
    "run": ("encode", "run", "site.yaml", "--key", "k.key", "--out", "release"),
    "json": ("encode", "run", "site.yaml", "--key", "k.key", "--out", "release", "--json"),
    "verify": ("encode", "verify", "release"),
    "train": ("encode", "train", "train.yaml", "--out", "trained"),
    "predict": ("encode", "predict", "trained", "site.yaml", "--key", "k.key", "--out", "p.csv"),
    "reuse": ("encode", "run", "site.yaml", "--key", "k.key", "--out", "other"),
    "bad": ("encode", "run", "site.yaml", "--key", "k.key.state.json", "--out", "other"),
}
codes = {name: call(name, *step) for name, step in steps.items()}

# Kills.
os.chdir("kills")
confide.runs.encode.SHARD_BYTES = 600  # two codes of 4 x 16: many instants
call("key", "key", "new", "k.key")

def n_shards(out):
    try:
        return len(os.listdir(f"{out}/codes.zarr/codes/c"))
    except FileNotFoundError:
        return 0

def truth(out):
    try:
        progress = json.load(open(f"{out}.private/progress.json"))
        return progress["truth"]
    except FileNotFoundError:
        return None

encode = ("encode", "run", "site one.yaml", "--key", "k.key", "--out")
died, truths, rng = [], [], random.Random(0)
for i in range(int(n_kills)):
    # At the start: instants before the first shard; then among the shards.
    n_more, seconds = (0, 0.02 * (i + rng.random())) if i < 3 else (1, 0.002 * rng.random())
    done = lambda: n_shards("killed")
    died.append(killed("killed", *encode, "killed", done=done, n_more=n_more, seconds=seconds))
    truths.append(truth("killed"))
after = {"unfinished": call("unfinished", "encode", "verify", "killed")}
after["killed"] = call("killed", *encode, "killed")
truths.append(truth("killed"))
call("key", "key", "new", "other.key")
encode = (*encode[:4], "other.key", "--out")
for number in (signal.SIGINT, signal.SIGTERM):
    done = lambda: n_shards("stopped")
    after[number.name] = stopped(number, number.name, *encode, "stopped", done=done, n_more=2)
after["resumed"] = call("resumed", *encode, "stopped")

# A crash.
os.chdir("..")
call("key2", "key", "new", "k2.key")
from confide.encoders import layer

def broken(self, *arguments, **named):
    weight = self.weight
    raise RuntimeError("out of order")

layer.Layer.__call__ = broken
codes["crash"] = call("crash", "encode", "run", "site.yaml", "--key", "k2.key", "--out", "crash")
print(json.dumps([codes, died, truths, after]))
"""


def source(data):
    return parse({"data": data}).data


@pytest.fixture(scope="module", params=[7, pytest.param(14, marks=pytest.mark.slow)])
def harness(tmp_path_factory, request):
    """The folder in which the commands ran, and what the harness printed."""
    folder = tmp_path_factory.mktemp("everything")
    write(folder, "site", data=PHANTOM, encode=ENCODE | {"columns": ["sex"]})
    data = {"name": "release", "path": "release", "label": "label", "groups": ["sex"]}
    write(folder, "train", data=data, train=TRAIN)
    (folder / "kills").mkdir()
    write(folder / "kills", "site one", data=PHANTOM, encode=ENCODE)
    # In development mode warnings and tracebacks say the most.
    options = ["-X", "dev", "-W", "ignore"]
    places = [Path(__file__).parents[1], folder, str(request.param)]
    done = subprocess.run(
        [sys.executable, *options, "-c", HARNESS, *places],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def killed(harness):
    folder, (_, *found) = harness
    return folder / "kills", *found


@pytest.fixture
def everything(harness):
    folder, (codes, *_) = harness
    return folder, codes


def test_killed_at_any_instant_a_release_goes_on(killed):
    folder, died, truths, after = killed
    assert all(died), "some ended before the kill"
    assert (after["unfinished"], after["killed"]) == (1, 0)
    # The order of the codes is drawn once.
    drawn = [truth for truth in truths if truth is not None]
    assert len(set(drawn)) == 1
    assert len(drawn) >= 5  # with that of the whole release
    check(folder / "killed", folder / "k.key", source(PHANTOM))
    assert verify(folder / "killed") == []
    entries = KeyState.of(folder / "k.key", Key.load(folder / "k.key").id).releases
    assert [(e["finished"], e["forced"]) for e in entries] == [(True, False)]
    for place in ("killed", "killed.private"):
        assert not list((folder / place).rglob("*.partial"))


def test_unfinished_it_is_no_release(killed):
    folder, *_ = killed
    said = (folder / "unfinished.stderr").read_text()
    assert said == (
        "Error: killed is not finished, or its release.json was lost. Run the same command again "
        "where it was made to finish it, or get it again.\n"
    )


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_stopped_by_hand_the_command_to_resume_is_said(killed, name):
    folder, *_, after = killed
    assert (after[name], after["resumed"]) == (130, 0)
    said = (folder / f"{name}.stderr").read_text().strip()
    again = "confide encode run 'site one.yaml' --key other.key --out stopped"
    assert said == f"Stopped. What was finished is safe; resume with: {again}"
    assert (folder / f"{name}.stdout").read_text() == ""
    check(folder / "stopped", folder / "other.key", source(PHANTOM))


def secrets_of(path):
    """The secret of a key and what is derived of it, in the forms in which it might be found."""
    key = Key.load(path)
    raw = key._reveal()
    found = {}
    for name, part in (("all", raw), ("first", raw[:12]), ("last", raw[-12:])):
        found |= {f"{name} raw": part, f"{name} hex": part.hex().encode()}
        found[f"{name} HEX"] = part.hex().upper().encode()
        for shift in range(3):  # base64 at any offset
            text = base64.b64encode(bytes(shift) + part)
            found[f"{name} base64 {shift}"] = text[4:-4]
            found[f"{name} url {shift}"] = text[4:-4].replace(b"+", b"-").replace(b"/", b"_")
    found["repr"] = repr(raw[:8])[2:-1].encode()
    for layer, shape in (("patch", (16, 64)), ("hidden.0", (16, 16)), ("mixer", (16, 16))):
        weight = key.uniform(f"{layer}.weight", shape, shape[1] ** -0.5)
        found[layer] = weight[0].tobytes()
        found[f"{layer} text"] = f"{weight[0, 0]:.6f}".encode()
        found[f"{layer} column"] = np.ascontiguousarray(weight[:, 0]).tobytes()
    found["position"] = key.normal("position", (4, 16))[0].tobytes()
    return found


def test_the_secret_is_in_the_key_file_alone(everything):
    folder, codes = everything
    expected = dict.fromkeys(codes, 0) | {"reuse": 2, "bad": 2, "crash": 70}
    assert codes == expected
    for name in ("k.key", "k2.key"):
        needles = secrets_of(folder / name)
        seen = 0
        for path in sorted(folder.rglob("*")):
            if not path.is_file() or path == folder / name:
                continue
            content = path.read_bytes()
            for what, needle in needles.items():
                assert needle not in content, f"{what} of {name} in {path.relative_to(folder)}"
            seen += 1
        assert seen > 40
        # The search finds what is there.
        stored = (folder / name).read_bytes()
        assert any(needle in stored for needle in needles.values())


def test_a_crash_shows_no_values(everything):
    folder, _ = everything
    said = (folder / "crash.stderr").read_text()
    assert "Traceback" in said
    assert "RuntimeError: out of order" in said
    assert "tensor(" not in said
    assert "locals" not in said
    assert "weight =" not in said.replace("weight = self.weight", "")
    assert (folder / "crash.stdout").read_text() == ""


def test_who_may_read_the_key(everything):
    folder, _ = everything
    for path in folder.glob("k.key*"):
        assert path.stat().st_mode & 0o077 == 0, path
    for place in ("release", "release.private", "trained", "p.csv"):
        for path in [folder / place, *(folder / place).rglob("*")]:
            assert path.stat().st_mode & 0o077 == 0, path


def test_what_is_printed_fits_80_columns(everything):
    folder, _ = everything
    for name in ("key", "show", "run", "verify", "train", "predict"):
        out = (folder / f"{name}.stdout").read_text()
        assert max(map(len, out.splitlines())) <= 80, name
        assert (folder / f"{name}.stderr").read_text() == "", name
    said = (folder / "run.stdout").read_text()
    release = Release.read(folder / "release")
    digest = release.manifest.digest
    facts = dict(re.split(r"  +", line.strip(), maxsplit=1) for line in said.splitlines()[:6])
    n = release.records["split"].value_counts()
    assert facts["Codes"] == (
        f"{release.n_records} ({n['train']} train, {n['dev']} dev, {n['test']} test)"
    )
    assert facts["Each code"] == "4 rows of 16 numbers, float32"
    assert facts["Published"] == "label, sex, split"
    assert facts["Key id"] == release.key_id
    assert facts["Digest"] == digest
    assert "release.private says which code is whose: keep it and the key inside." in said
    for word in ("private ", "anonymous", "secure"):
        assert word not in said.replace("release.private ", "").lower()
    assert (folder / "verify.stdout").read_text() == f"Intact. Digest: {digest}\n"
    assert (folder / "predict.stdout").read_text() == f"{release.n_records} records: p.csv\n"
    found = json.loads((folder / "json.stdout").read_text())
    assert (found["digest"], found["n_records"]) == (release.manifest.digest, release.n_records)


@pytest.fixture
def confide(monkeypatch, capfd):
    """Run the command line in this process: (exit code, stdout, stderr)."""
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["confide", *map(str, arguments)])
        before = os.umask(0o077)
        try:
            with pytest.raises(SystemExit) as stop:
                main()
        finally:
            os.umask(before)
        return stop.value.code or 0, *capfd.readouterr()

    return run


def refusal(found):
    code, out, err = found
    assert code == 2
    assert out == ""
    assert err.startswith("Error: ")
    assert err.count("\n") == 1
    return err


@pytest.fixture
def release(confide, tmp_path, monkeypatch):
    """A release made in the current folder, in ten shards."""
    from confide.runs import encode

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(encode, "SHARD_BYTES", 1100)
    write(tmp_path, "site", data=PHANTOM, encode=ENCODE)
    assert confide("key", "new", "k.key")[0] == 0
    found = confide("encode", "run", "site.yaml", "--key", "k.key", "--out", "release")
    assert found[0] == 0
    return tmp_path / "release"


def test_verify_names_what_is_wrong(confide, release):
    shards = sorted((release / "codes.zarr" / "codes" / "c").rglob("0"))
    shards = [path for path in shards if path.is_file()]
    assert len(shards) > 5
    raw = bytearray(shards[3].read_bytes())
    raw[len(raw) // 2] ^= 4
    shards[3].write_bytes(raw)
    name = str(shards[3].relative_to(release))
    code, out, err = confide("encode", "verify", "release")
    assert (code, out, err) == (1, f"altered: {name!r}\n1 file is not as written.\n", "")
    shards[5].unlink()
    (release / "notes.txt").touch()
    code, out, err = confide("encode", "verify", "release")
    gone = str(shards[5].relative_to(release))
    assert code == 1
    assert sorted(out.splitlines()) == sorted(
        [
            f"altered: {name!r}",
            f"missing: {gone!r}",
            "unexpected: 'notes.txt'",
            "3 files are not as written.",
        ]
    )
    code, out, err = confide("encode", "verify", "release", "--json")
    found = json.loads(out)
    assert code == 1
    assert found["intact"] is False
    assert {"file": gone, "what": "missing"} in found["damage"]
    (release / "release.json").write_text("{}")
    code, out, _ = confide("encode", "verify", "release")
    assert (code, out) == (1, "altered: 'release.json'\n1 file is not as written.\n")


def test_verify_without_a_release(confide, release, tmp_path):
    assert "There is no release at nothing." in refusal(confide("encode", "verify", "nothing"))
    assert "k.key is a key; confide encode verify takes a release of codes." in refusal(
        confide("encode", "verify", "k.key")
    )
    (tmp_path / "empty").mkdir()
    assert "is empty a release?" in refusal(confide("encode", "verify", "empty"))
    assert json.loads(confide("encode", "verify", "release", "--json")[1]) == {
        "intact": True,
        "damage": [],
    }


def test_mistakes_of_the_caller(confide, release, tmp_path):
    run = ("encode", "run", "site.yaml", "--key")
    assert "There is no configuration at no.yaml." in refusal(
        confide("encode", "run", "no.yaml", "--key", "k.key", "--out", "r2")
    )
    assert "There is no key at no.key" in refusal(confide(*run, "no.key", "--out", "r2"))
    assert "--reuse-key" in refusal(confide(*run, "k.key", "--out", "r2"))
    assert confide("key", "new", "new.key")[0] == 0
    (tmp_path / "file").write_text("x")
    assert "Choose another --out." in refusal(confide(*run, "new.key", "--out", "file"))
    assert "Not a directory" in refusal(confide(*run, "new.key", "--out", "file/r"))
    assert "was begun with key_id" in refusal(confide(*run, "new.key", "--out", "release"))
    (tmp_path / "new.key").chmod(0o644)
    assert "chmod 600" in refusal(confide(*run, "new.key", "--out", "r2"))
    # A configuration for another command.
    write(tmp_path, "train", data={"name": "release", "path": "release", "label": "label"})
    found = refusal(confide("encode", "run", "train.yaml", "--key", "k.key", "--out", "r2"))
    assert "Releases are for `confide encode train`" in found
    found = refusal(confide("encode", "train", "site.yaml", "--out", "t"))
    assert "is for other commands" in found
    for name in ("r2", "r2.private", "t", "file.private"):
        assert not (tmp_path / name).exists()


def test_a_key_is_used_again_if_that_is_asked_for(confide, release):
    run = ("encode", "run", "site.yaml", "--key", "k.key", "--out", "other")
    code, _, err = confide(*run, "--reuse-key")
    assert (code, err) == (0, "")
    assert "key used again" in confide("key", "show", "k.key")[1]
    # Finished, it needs no asking.
    assert confide(*run)[0] == 0


def test_a_damaged_image_in_the_middle(confide, tmp_path, monkeypatch):
    from confide.runs import encode

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(encode, "SHARD_BYTES", 1100)
    monkeypatch.setattr(encode, "MAX_CALIBRATION", 2)
    write_images(tmp_path)
    write(tmp_path, "site", data=IMAGES, encode=ENCODE)
    confide("key", "new", "k.key")
    run = ("encode", "run", "site.yaml", "--key", "k.key", "--out", "r")
    broken = {}
    whole = encode._order

    def order(cohort):
        # Any image of the last shard: its head is sound, so that only its turn finds it.
        drawn = whole(cohort)
        row = int(drawn["row"].iloc[-1])
        path = tmp_path / "images" / f"FILE-{row:03d}.png"
        broken[row] = (path, path.read_bytes())
        path.write_bytes(path.read_bytes()[:60] + bytes(len(path.read_bytes()) - 60))
        return drawn

    monkeypatch.setattr(encode, "_order", order)
    said = refusal(confide(*run))
    ((row, (path, raw)),) = broken.items()
    assert said.startswith(f"Error: Row {row}: {path} ")
    done = len(list((tmp_path / "r").rglob("0")))
    assert done > 3
    # The image as it was: the same command goes on.
    damaged = path.read_bytes()
    path.write_bytes(raw)
    assert confide(*run)[0] == 0
    check(tmp_path / "r", tmp_path / "k.key", source(IMAGES))
    # Another image, or none: other data, which ask for another key and release.
    path.write_bytes(damaged + b"more")
    said = refusal(confide(*run))
    assert "was begun with fingerprint of the data" in said
    assert "or another --out" in said
    path.write_bytes(raw)
    assert sorted(truth_of(tmp_path / "r")["row"]) == list(range(24))
