"""Small cohorts, their releases, and what is true of them."""

import hashlib
import json

import numpy as np
import pandas as pd
from PIL import Image
from scipy.spatial.distance import cdist

from confide.config import CodesConfig, load, load_as
from confide.encoders.base import Encoder
from confide.encoders.key import Key, unlock
from confide.encoders.release import Release, verify
from confide.runs.coded import train_on_codes
from confide.runs.encode import encode
from confide.stores import read_table

PHANTOM = {
    "name": "phantom",
    "n_patients": 24,
    "max_views": 3,
    "size": [16, 16],
    "opacity": 1.0,
    "hard": 0,
    "test": {"fraction": 0.4},
}
ENCODE = {"patch": 8, "width": 16, "private_depth": 1, "dev": {"fraction": 0.4}}
TRAIN = {"epochs": 2, "batch_size": 16, "model": {"heads": 2, "head_width": 8}}


def write(folder, name, **blocks):
    """A configuration; YAML reads JSON."""
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps({"performance": {"device": "cpu"}} | blocks))
    return path


def new_key(folder, name):
    """A key that is the same in every run: it draws the splits, on which results depend."""
    path = folder / f"{name}.key"
    Key(hashlib.sha256(name.encode()).digest()).save(path)
    return path


def make(folder, name, data=PHANTOM, /, *, key=None, reuse_key=False, progress=None, **settings):
    """Encode under a new key of the same name; what `encode` returns."""
    settings = {k: v for k, v in (ENCODE | settings).items() if v is not None}
    config = write(folder, name, data=data, encode=settings)
    key = key or new_key(folder, name)
    more = {"progress": progress} if progress else {}
    return encode(*load(config), key, folder / name, unlock=unlock, reuse_key=reuse_key, **more)


def truth_of(out):
    return read_table(out.with_name(f"{out.name}.private") / "truth.parquet")


def train(folder, name, *, data, compare=None, **settings):
    """Train in a folder of that name."""
    blocks = {"data": {"name": "release"} | data, "train": TRAIN | settings}
    config = write(folder, name, **blocks, **({"compare": compare} if compare else {}))
    return train_on_codes(*load_as(CodesConfig, config), folder / name)


def rows_differ(codes, expected):
    """Largest difference of two codes (P, C) whose rows may stand in another order."""
    nearest = cdist(codes, expected).argmin(axis=1)
    assert sorted(nearest) == list(range(len(expected)))
    return np.abs(codes - expected[nearest]).max()


def check(out, key, data, *, tolerance=1e-5, groups=None):
    """A release holds the codes of the records that the truth names, and is whole.

    `data` is a source; `groups` (n_records,) says which records were encoded together.
    """
    assert verify(out) == []
    release, truth = Release.read(out), truth_of(out)
    opened = data.open(out.parent)
    rows = truth["row"].to_numpy()
    assert sorted(rows) == list(range(opened.cohort.n_records))
    assert truth["code"].tolist() == list(range(len(rows)))
    assert truth["record"].tolist() == opened.cohort.record[rows].tolist()
    assert truth["patient"].tolist() == opened.cohort.patient[rows].tolist()
    encoder = Encoder.from_key(key)
    inputs = opened.read(rows)
    groups = np.zeros(len(rows)) if groups is None else groups
    for group in np.unique(groups):
        here = np.flatnonzero(groups == group)
        expected = encoder(inputs[here])
        for found, wanted in zip(release.codes(here), expected, strict=True):
            assert rows_differ(found, wanted) < tolerance
    splits = release.records.groupby(truth["patient"])["split"].nunique()
    assert (splits == 1).all()
    test = (release.records["split"] == "test").to_numpy()
    if "fraction" in type(data.test).model_fields:  # as many patients, of a draw of the key
        patients = [
            len(set(opened.cohort.patient[rows][test])),
            len(set(opened.cohort.patient[opened.test])),
        ]
        assert patients[0] == patients[1]
    else:
        assert (test == opened.test[rows]).all()
    return release, truth


def write_images(folder, n=24, *, channels=1, size=(16, 16), seed=0):
    """PNG files in FOLDER/images, and the table records.csv; two images a patient."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(exist_ok=True)
    shape = size if channels == 1 else (*size, channels)
    names = [f"FILE-{i:03d}.png" for i in range(n)]
    for name in names:
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(folder / "images" / name)
    number = np.arange(n)
    frame = pd.DataFrame(
        {
            "image": names,
            "pid": [f"PATIENT-{i // 2:03d}" for i in number],
            "rid": [f"RECORD-{i:03d}" for i in number],
            "view": np.where(number // 2 % 2, "AP", "PA"),
            "edema": np.where(number % 5, number // 2 % 2, np.nan),
            "device": (number // 4 % 2).astype(float),
            "sex": np.where(number // 2 % 3, "f", "m"),
            "site": np.where(number % 2, "ward", "clinic"),
        }
    )
    frame.to_csv(folder / "records.csv", index=False)
    return frame


IMAGES = {
    "name": "images",
    "path": "records.csv",
    "images": "images",
    "patient": "pid",
    "record": "rid",
    "label": "view",
    "size": [16, 16],
    "test": {"fraction": 0.4},
}


def certain(monkeypatch, seed=0):
    """Make keys and orders the same in every run."""
    rng = np.random.default_rng(seed)
    monkeypatch.setattr("os.urandom", rng.bytes)


SITES = ("a", "b", "c")


def study(folder, **settings):
    """Three sites with phantoms of their own, each under its own key."""
    for number, site in enumerate(SITES):
        make(folder, site, PHANTOM | {"n_patients": 40, "seed": number}, **settings)
    return {"path": list(SITES), "label": "label"}
