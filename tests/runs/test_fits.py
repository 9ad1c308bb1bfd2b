"""A folder of trained classifiers."""

import json
import re
import stat

import numpy as np
import pytest
import torch

from confide.errors import FolderError, MismatchError
from confide.runs.fits import FitFolder, slug

ASKED = {"train": {"epochs": 2}, "releases": {"a": "x"}}
NAME = {"label": "edema", "arm": "codes", "model": "all sites"}


def trained():
    return {"w": torch.arange(3.0)}, 2, np.array([0.25, -1], dtype=np.float32)


def never():
    raise AssertionError("trained again")


def test_a_classifier_is_trained_once(tmp_path):
    with FitFolder.open(tmp_path / "out", ASKED) as fits:
        first = fits.fit(NAME, trained, 2)
        again = fits.fit(NAME, never, 2)
    assert first.logits.tolist() == again.logits.tolist() == [0.25, -1]
    assert first.best_epoch == again.best_epoch == 2
    with FitFolder.open(tmp_path / "out", ASKED) as fits:
        assert fits.fit(NAME, never, 2).best_epoch == 2
        with pytest.raises(AssertionError, match="trained again"):
            fits.fit(NAME | {"arm": "plain"}, never, 2)
    content = json.loads((tmp_path / "out" / "models" / f"{slug(NAME)}.json").read_text())
    assert content == {**NAME, "best_epoch": 2, "logits": [0.25, -1.0]}


def test_lost_weights_are_trained_again(tmp_path):
    with FitFolder.open(tmp_path / "out", ASKED) as fits:
        fits.fit(NAME, trained, 2)
        (weights,) = (tmp_path / "out" / "models").glob("*.safetensors")
        weights.unlink()
        with pytest.raises(AssertionError, match="trained again"):
            fits.fit(NAME, never, 2)
        fits.fit(NAME, trained, 2)
    assert weights.is_file()


def test_a_stop_before_the_logits_trains_again(tmp_path):
    with FitFolder.open(tmp_path, ASKED) as fits:
        fits.fit(NAME, trained, 2)
        (tmp_path / "models" / f"{slug(NAME)}.json").unlink()
        calls = []
        fits.fit(NAME, lambda: calls.append(1) or trained(), 2)
    assert calls == [1]


def test_one_process_at_a_time(tmp_path):
    with (
        FitFolder.open(tmp_path / "out", ASKED),
        pytest.raises(FolderError, match="is in use by another process"),
        FitFolder.open(tmp_path / "out", ASKED),
    ):
        pass
    with FitFolder.open(tmp_path / "out", ASKED):
        pass


def test_nobody_else_can_read_it(tmp_path):
    with FitFolder.open(tmp_path / "out", ASKED) as fits:
        fits.fit(NAME, trained, 2)
    for path in [tmp_path / "out", *(tmp_path / "out").rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0


def test_what_was_begun_with_something_else_is_refused(tmp_path):
    with FitFolder.open(tmp_path / "out", ASKED):
        pass
    other = {"train": {"epochs": 3}, "releases": {"a": "x"}}
    message = (
        f"{tmp_path / 'out'} was begun with train.epochs = 2; it is 3 now. Use the same "
        "configuration and releases to resume, or another --out."
    )
    with (
        pytest.raises(MismatchError, match=re.escape(message)),
        FitFolder.open(tmp_path / "out", other),
    ):
        pass


def test_other_folders_are_refused(tmp_path):
    (tmp_path / "notes.txt").touch()
    with (
        pytest.raises(FolderError, match="is not empty and holds no training on codes"),
        FitFolder.open(tmp_path, ASKED),
    ):
        pass
    (tmp_path / "manifest.json").write_text('{"format": 7}')
    with (
        pytest.raises(FolderError, match="is not the manifest of a training on codes"),
        FitFolder.open(tmp_path, ASKED),
    ):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(FolderError, match="cannot be used"), FitFolder.open(tmp_path / "file", {}):
        pass


@pytest.mark.parametrize(
    "raw",
    [
        "{}",
        "[",
        '{"logits": "a", "best_epoch": 1}',
        '{"logits": [1]}',
        '{"logits": [1], "best_epoch": 1}',
        '{"logits": [1, 2, 3], "best_epoch": 1}',
        '{"logits": [1, null], "best_epoch": 1}',
        '{"logits": [1, 2], "best_epoch": Infinity}',
    ],
)
def test_a_damaged_file_is_named(tmp_path, raw):
    with FitFolder.open(tmp_path, ASKED) as fits:
        fits.fit(NAME, trained, 2)
        file = tmp_path / "models" / f"{slug(NAME)}.json"
        file.write_text(raw)
        with pytest.raises(FolderError, match=re.escape(str(file))):
            fits.fit(NAME, never, 2)


def test_file_names():
    names = [
        {"label": "a/b", "arm": "codes", "model": "../.."},
        {"label": "a_b", "arm": "codes", "model": "../.."},
        {"label": "a-codes", "arm": "b", "model": "c"},
        {"label": "a", "arm": "codes-b", "model": "c"},
        {"label": "\0\x1b[2J<b>", "arm": "codes", "model": "ü"},
        {"label": "x" * 5000, "arm": "codes", "model": "y"},
    ]
    slugs = [slug(name) for name in names]
    assert len(set(slugs)) == len(names)
    for found in slugs:
        assert re.fullmatch(r"[\w-]{1,89}", found, re.ASCII)
