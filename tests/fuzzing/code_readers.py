"""Readers of keys, releases of codes, what lies beside them, challenges and trained classifiers."""

import hashlib
import json
from unittest import mock

import google_crc32c
import numpy as np

from confide.config import CodesConfig, load, load_as
from confide.encoders import key_file, manifest
from confide.encoders import state as states
from confide.encoders.key import Key
from confide.encoders.progress import read_progress
from confide.encoders.release import Release, verify
from confide.encoders.shards import Layout
from confide.encoders.source import ReleasedCodes
from confide.encoders.state import KeyState
from confide.inversion.challenge import (
    CODES,
    IMAGES,
    TARGET_IMAGES,
    TARGETS,
    TRUTH,
    ChallengeFolder,
)
from confide.inversion.challenge_files import write_array
from confide.inversion.submission import Submission, score_submission
from confide.runs.coded import train_on_codes
from confide.runs.predict import predict
from encoders.releases import publish
from fuzzing.reader import Reader

SECRET = bytes(range(32))
PASSPHRASE = "correct horse"  # noqa: S105 - of a test
KEY = Key(SECRET, created="2030-01-31T12:00:00+00:00", note="a note")


def write_key(folder):
    KEY.save(folder / "a.key")
    with mock.patch.object(key_file, "_SCRYPT", {"n": 2, "r": 1, "p": 1}):
        KEY.save(folder / "b.key", PASSPHRASE)


def read_key(path):
    Key.load(path, PASSPHRASE if path.stem == "b" else None)


def seal_key(folder):
    """The check of a key file that fits what its header says now."""
    path = folder / "a.key"
    content = json.loads(path.read_bytes())
    content["check"] = key_file._check(SECRET, content)
    path.write_bytes(key_file._render(content))


def write_state(folder):
    KEY.save(folder / "a.key")
    state = KeyState.of(folder / "a.key", KEY.id)
    packed = states.pack(np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3))
    state.bind({"name": "neuracrypt", "patch": 8, "shape": [1, 16, 16]}, {"mean": packed})
    state.register("ab" * 16, folder / "r")
    state.finish("ab" * 16, "c" * 64)


def read_state(folder):
    state = KeyState.of(folder / "a.key", KEY.id)
    state.bind({"name": "neuracrypt", "patch": 8, "shape": [1, 16, 16]}, {})
    state.register("cd" * 16, folder / "s", force=True)
    states.unpack(state.binding["calibration"].get("mean"))
    state.finish("ab" * 16, "c" * 64)


def seal_state(folder):
    path = folder / "a.key.state.json"
    content = json.loads(path.read_bytes())
    content.pop("sha256", None)
    path.write_text(json.dumps(content | {"sha256": states._digest(content)}))


def read_release(folder):
    path = folder / "r"
    verify(path)
    release = Release.read(path)
    release.codes(slice(None))
    ReleasedCodes(path=path, label=["edema"], test={"fraction": 0.4}).load()


def seal_release(folder):
    """Chunks, sizes, checksums and the digest that fit what the files hold now."""
    path = folder / "r"
    content = json.loads((path / "release.json").read_bytes())
    for name in content["files"]:
        if "/c/" in name:
            seal_shard(path / name, content)
    for name in content["files"]:
        raw = (path / name).read_bytes()
        content["files"][name] = {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
    (path / "release.json").write_bytes(manifest.render(content))


def seal_shard(file, content):
    names = ("n_records", "dtype", "codes_per_chunk", "codes_per_shard")
    layout = Layout(shape=tuple(content["shape"]), **{name: content[name] for name in names})
    raw, step = bytearray(file.read_bytes()), layout.chunk_bytes
    for start in range(0, len(raw) - step + 1, step):
        values = bytes(raw[start : start + step - 4])
        raw[start + step - 4 : start + step] = google_crc32c.value(values).to_bytes(4, "little")
    file.write_bytes(raw)


def write_challenge(folder):
    rng = np.random.default_rng(0)
    given, private = folder / "given", folder / "given.private"
    for one in (given / CODES, private / TARGETS):
        one.mkdir(parents=True)
    for i in range(5):
        write_array(given / CODES / f"{i}.npy", rng.normal(size=(3, 4)))
        write_array(private / TARGETS / f"{i}.npy", rng.normal(size=(3, 4)))
    images = [f"a/{i}.png" for i in range(5)]
    targets = [f"b/{i}.png" for i in range(5)]
    (given / IMAGES).write_text(json.dumps(images))
    (given / TARGET_IMAGES).write_text(json.dumps(targets))
    truth = {image: f"{CODES}/{i}.npy" for i, image in enumerate(images)}
    truth |= {image: f"{TARGETS}/{i}.npy" for i, image in enumerate(targets)}
    (private / TRUTH).write_text(json.dumps(truth))
    Submission(
        predictions={image: f"{i}.npy" for i, image in enumerate(images)},
        target_images=tuple(targets),
        target_means=rng.normal(size=(5, 4)).astype(np.float32),
    ).write(folder / "mine")


def read_challenge(folder):
    found = ChallengeFolder.read(folder / "given")
    found.codes(slice(None))
    found.rows_of(np.array([f"a/{i}.png" for i in range(5)]))
    found.truth()
    found.target_means()
    score_submission(Submission.read(folder / "mine"), found)


TINY = {
    "data": {
        "name": "phantom",
        "n_patients": 24,
        "max_views": 2,
        "size": [16, 16],
        "test": {"fraction": 0.4},
    },
    "encode": {"patch": 8, "width": 16, "private_depth": 1, "dev": {"fraction": 0.4}},
    "performance": {"device": "cpu"},
}


def write_trained(folder):
    """A release, a training on it and an attack on it."""
    from confide.runs.encode import encode

    key = Key(SECRET)
    key.save(folder / "a.key")
    (folder / "c.yaml").write_text(json.dumps(TINY))
    encode(*load(folder / "c.yaml"), folder / "a.key", folder / "r", unlock=lambda _: key)
    blocks = {
        "data": {"name": "release", "path": ["r"], "label": "label"},
        "train": {"epochs": 1, "batch_size": 16, "model": {"heads": 2, "head_width": 8}},
        "performance": {"device": "cpu"},
    }
    (folder / "t.yaml").write_text(json.dumps(blocks))
    train_on_codes(*load_as(CodesConfig, folder / "t.yaml"), folder / "trained")


def read_trained(folder):
    (folder / "p.csv").unlink(missing_ok=True)
    predict(
        folder / "trained",
        *load(folder / "c.yaml"),
        folder / "a.key",
        folder / "p.csv",
        unlock=lambda _: Key(SECRET),
    )


def resume_training(folder):
    train_on_codes(*load_as(CodesConfig, folder / "t.yaml"), folder / "trained")


READERS = [
    Reader(
        name="key",
        make=write_key,
        read=read_key,
        alone=True,
        files=("*.key",),
        seal=seal_key,
        weight=6,
    ),
    Reader(
        name="state of a key",
        make=write_state,
        read=read_state,
        files=("*.json",),
        seal=seal_state,
        writes=True,
        weight=4,
        tries=30,
    ),
    Reader(
        name="release",
        make=lambda folder: publish(folder / "r"),
        read=read_release,
        files=("r/**/*",),
        seal=seal_release,
        closed=True,
        weight=1.5,
        tries=30,
    ),
    Reader(
        name="progress of an encoding",
        make=lambda folder: publish(folder / "r"),
        read=lambda folder: read_progress(folder / "r.private"),
        files=("r.private/*.json",),
        weight=4,
    ),
    Reader(
        name="challenge", make=write_challenge, read=read_challenge, closed=True, weight=5, tries=30
    ),
    Reader(
        name="trained classifier",
        make=write_trained,
        read=read_trained,
        files=("trained/model.json", "trained/models/*", "a.key.state.json"),
        seal=seal_state,
        writes=True,
        weight=0.1,
        tries=0,
    ),
    Reader(
        name="training to resume",
        make=write_trained,
        read=resume_training,
        files=("trained/*.json", "trained/models/*"),
        writes=True,
        weight=0.1,
        tries=0,
    ),
]
