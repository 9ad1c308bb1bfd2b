"""A small release of known codes, and ways to forge one."""

import hashlib
import json
from unittest import mock

import numpy as np
import pandas as pd

from confide.encoders import manifest, shards
from confide.encoders.publish import Publisher

ASKED = {
    "key_id": "ab" * 16,
    "fingerprint": "f" * 64,
    "config": {"encode": {"patch": 16, "dtype": "float32"}, "data": {"path": "/home/ann/x.csv"}},
}
N = 23
SHAPE = (4, 6)


def order_of(n=N, seed=0):
    row = np.random.default_rng(seed).permutation(n)
    return pd.DataFrame(
        {
            "record": [f"image_{i}.dcm" for i in row],
            "patient": [f"Vermeer{i // 2}" for i in row],
            "row": row,
        }
    )


def codes_of(rows, shape=SHAPE):
    """The code of a row of the user's table, whichever release it goes to."""
    one = [np.random.default_rng(int(row)).normal(size=shape) for row in rows]
    return np.asarray(one, np.float32).reshape(len(one), *shape)


def table_of(truth):
    row = truth["row"].to_numpy()
    return pd.DataFrame(
        {
            "code": np.arange(len(row)),
            "split": np.array(["train", "dev", "test"])[row % 3],
            "view": np.where(row % 2, "frontal", "lateral"),
            "edema": np.where(row % 5, row % 2, np.nan),
        }
    )


def create(publisher, dtype="float32", shard_bytes=400, shape=SHAPE, **more):
    with mock.patch.object(shards, "_CHUNK_BYTES", 200):
        publisher.create(
            **{
                "records": table_of(publisher.truth),
                "shape": shape,
                "dtype": dtype,
                "encoder": {"name": "neuracrypt", "patch": 16},
                "labels": ("edema",),
                "columns": ("view",),
                "shard_bytes": shard_bytes,
                **more,
            }
        )


def publish(path, dtype="float32", n=N, shape=SHAPE, **more):
    """A finished release: 2 codes a chunk and 4 codes a shard in float32, the last one short."""
    with Publisher.open(path, ASKED, lambda: order_of(n)) as publisher:
        if not publisher.finished:
            create(publisher, dtype, shape=shape, **more)
            for shard, rows in publisher.pending():
                publisher.write(shard, codes_of(publisher.truth["row"][rows], shape))
            publisher.finish()
        return publisher.truth


def forge(path, **changes):
    """Change release.json, with a digest that fits."""
    file = path / "release.json"
    content = {**json.loads(file.read_text()), **changes}
    file.write_bytes(manifest.render(content))


def forge_file(path, name, raw):
    """Change a file, with a checksum and a digest that fit."""
    (path / name).write_bytes(raw)
    files = json.loads((path / "release.json").read_text())["files"]
    files[name] = {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
    forge(path, files=files)
