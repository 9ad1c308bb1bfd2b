"""A folder of trained classifiers: each is trained once, and kept."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from confide.errors import FolderError
from confide.runs.folder import resumable
from confide.stores import disk_errors, read_json, write_bytes, write_json

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
        """Begin a folder or go on; see :func:`confide.runs.folder.resumable`."""
        with resumable(path, asked, "training on codes"):
            yield cls(path)

    def fit(self, name: dict[str, str], train: Callable[[], Trained], n_records: int) -> Fit:
        """The classifier of that name, trained unless it is there; `n_records` for the test."""
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
            if logits.shape != (n_records,) or not np.isfinite(logits).all():
                raise ValueError("other logits")
            return Fit(logits=logits, best_epoch=int(found["best_epoch"]))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
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
