"""A folder of trained classifiers: each is trained once, and kept."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from confide.encoders.progress import close_to_others
from confide.errors import FolderError, MismatchError
from confide.stores import (
    alone,
    disk_errors,
    first_difference,
    plain,
    read_json,
    write_bytes,
    write_json,
)

FORMAT = 1

Trained = tuple[dict[str, Any], int, NDArray[np.float32]]
"""Weights by name, the chosen epoch, and the logits of the test records."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Fit:
    """A trained classifier: its logits of the test records, and the epoch that was chosen."""

    logits: NDArray[np.float32]
    best_epoch: int


class FitFolder:
    """Classifiers on disk.  Use :meth:`open` as a context: one process at a time writes."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    @contextlib.contextmanager
    def open(cls, path: Path, asked: dict[str, Any]) -> Iterator[FitFolder]:
        """Begin a folder, or go on with one that was begun with the same `asked`.

        Raises
        ------
        FolderError : another process writes to it, it cannot be written, or holds other things
        MismatchError : it was begun with something else; names the field
        """
        before = os.umask(0o077)
        try:
            with disk_errors(path):
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
                manifest = path / "manifest.json"
                others = [p.name for p in path.iterdir() if p.name != ".lock"]
                if not manifest.exists() and any(not n.endswith(".partial") for n in others):
                    raise FolderError(
                        f"{path} is not empty and holds no training on codes; choose another --out."
                    )
                close_to_others(path)
            with alone(path / ".lock", path):
                _begin(manifest, plain(asked))
                yield cls(path)
        finally:
            os.umask(before)

    def fit(self, name: dict[str, str], train: Callable[[], Trained]) -> Fit:
        """The classifier of that name, trained unless it is there."""
        stem = self._path / "models" / slug(name)
        files = [stem.with_suffix(suffix) for suffix in (".safetensors", ".json")]
        # The logits come last: with them the classifier is finished, unless its weights were lost.
        if not all(file.is_file() for file in files):
            from confide.training.codes import to_bytes

            weights, best_epoch, logits = train()
            with disk_errors(self._path):
                stem.parent.mkdir(exist_ok=True)
            write_bytes(files[0], to_bytes(weights))
            content = {**name, "best_epoch": best_epoch, "logits": logits.tolist()}
            write_json(files[1], content)
        found = read_json(files[1])
        try:
            logits = np.asarray(found["logits"], dtype=np.float32)
            return Fit(logits=logits, best_epoch=int(found["best_epoch"]))
        except (KeyError, TypeError, ValueError) as error:
            raise FolderError(
                f"{files[1]} is damaged; delete it to train this model again."
            ) from error


def slug(name: dict[str, str]) -> str:
    """A file name for a classifier: readable, and different for different names.

    >>> slug({"label": "a/b", "arm": "codes", "model": "all sites"})
    'a_b-codes-all_sites-a805e060'
    """
    words = "-".join(name.values())
    safe = "".join(c if c.isascii() and (c.isalnum() or c == "-") else "_" for c in words)[:80]
    digest = hashlib.sha256(json.dumps(name, sort_keys=True).encode()).hexdigest()
    return f"{safe}-{digest[:8]}"


def _begin(manifest: Path, asked: dict[str, Any]) -> None:
    if not manifest.exists():
        write_json(manifest, {"format": FORMAT, "asked": asked})
        return
    stored = read_json(manifest)
    if not isinstance(stored, dict) or stored.get("format") != FORMAT:
        raise FolderError(f"{manifest} is not the manifest of a training on codes.")
    difference = first_difference(stored.get("asked"), asked, "")
    if difference:
        name, before, now = difference
        raise MismatchError(
            f"{manifest.parent} was begun with {name.lstrip('.')} = {before!r:.80}; it is "
            f"{now!r:.80} now. Use the same configuration and releases to resume, or another --out."
        )
