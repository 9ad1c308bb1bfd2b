"""A reader of outside input, and one try of it with a file that was made malformed."""

import contextlib
import os
import random
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from confide.errors import ConfideError
from fuzzing.mutate import altered
from fuzzing.sandbox import BrokenError, Peak, watched

OUTSIDE = "outside"
"""A folder beside that of the files; links lead to it."""

MOST_BYTES = 1_500_000_000
"""By which the memory may grow while one small file is read: 89 million pixels in four copies."""


@dataclass(frozen=True, kw_only=True)
class Reader:
    """A reader of outside input.

    Attributes
    ----------
    name : of the reader
    make : writes valid files into an empty folder
    read : reads the folder; what it raises must be a ConfideError
    alone : whether `read` takes one file, each of those that were altered
    files : patterns of the files that are altered
    seal : makes checksums fit what was altered, so that a change comes past them; None without any
    writes : whether it writes to the folder
    closed : whether it refuses links, so that nothing outside of the folder may be opened
    weight : share of the inputs of a long run
    tries : inputs of a short run; 0 where it takes long, and is tried in long runs alone
    """

    name: str
    make: Callable[[Path], object]
    read: Callable[[Path], object]
    alone: bool = False
    files: tuple[str, ...] = ("**/*",)
    seal: Callable[[Path], object] | None = None
    writes: bool = False
    closed: bool = False
    weight: float = 1.0
    tries: int = 16


class Bench:
    """A reader with its valid files in a folder, ready to be tried."""

    def __init__(self, reader, folder):
        self.reader, self.folder = reader, folder
        self._valid, self._work = folder / "valid", folder / "work"
        (folder / OUTSIDE).mkdir(parents=True)
        self._valid.mkdir()
        with _calm():
            reader.make(self._valid)
        self.files = {
            str(path.relative_to(self._valid)): path.read_bytes()
            for path in sorted(self._valid.rglob("*"))
            if path.is_file() and path.suffix != ".lock"
        }
        for name, content in self.files.items():  # so that a link leads to something whole
            place = folder / OUTSIDE / Path(name).name
            place.write_bytes(content)
            place.chmod(0o600)
        self._names = sorted(
            {str(p.relative_to(self._valid)) for one in reader.files for p in self._valid.glob(one)}
            & self.files.keys()
        )
        assert self._names, reader.name
        shutil.copytree(self._valid, self._work)
        with _calm():  # what is valid is read
            self._read(self._names)
        self._restore()
        self.peak = Peak()

    def input(self, rng):
        """{file: bytes}, or None to remove it, or a link, as text, of one malformed input."""
        changes = {}
        for _ in range(rng.choice((1, 1, 1, 2))):
            name = rng.choice(self._names)
            chance = rng.random()
            if chance < 0.01:
                changes[name] = None
            elif chance < 0.03:
                changes[name] = f"{self.folder / OUTSIDE}/{Path(name).name}"
            else:
                changes[name] = altered(rng, name, self.files)
        return changes, rng.random() < 0.7

    def attempt(self, changes, sealed):
        """Read one malformed input; raises what no reader may raise.

        Returns
        -------
        whether it was refused, and the bytes by which the memory grew
        """
        self._put(changes)
        if sealed and self.reader.seal is not None:
            with contextlib.suppress(Exception):  # of what cannot be parsed
                self.reader.seal(self._work)
        refused = False
        secret = self.folder / OUTSIDE if self.reader.closed else None
        self.peak.reset()
        try:
            with _calm(), watched(self._work, secret=secret) as found:
                try:
                    self._read(changes)
                except ConfideError as error:
                    refused = True
                    _require_told(error)
            if found:
                raise BrokenError("; ".join(found[:3]))
            grown = self.peak.grown()
            if grown > MOST_BYTES:
                raise BrokenError(f"its memory grew by {grown:,} bytes")
        finally:
            self._restore(changes)
        return refused, grown

    def _read(self, names):
        for place in [self._work / name for name in names] if self.reader.alone else [self._work]:
            self.reader.read(place)

    def number(self, number):
        """The input of a number; the same in every run."""
        return self.input(random.Random(f"{self.reader.name} {number}"))  # noqa: S311

    def _put(self, changes):
        for name, content in changes.items():
            place = self._work / name
            if isinstance(content, bytes):
                place.write_bytes(content)
                continue
            place.unlink()
            if content is not None:
                place.symlink_to(content)

    def _restore(self, changes=None):
        if self.reader.writes or self.reader.seal is not None or changes is None:
            shutil.rmtree(self._work)
            shutil.copytree(self._valid, self._work)
            return
        for name in changes:
            place = self._work / name
            place.unlink(missing_ok=True)
            place.write_bytes(self.files[name])
            place.chmod((self._valid / name).stat().st_mode)


def _require_told(error):
    text = str(error)
    if not text.strip() or len(text) > 20_000:
        raise BrokenError(f"an error of {len(text):,} characters: {text[:200]!r}")


@contextlib.contextmanager
def _calm():
    """Warnings of libraries are no crash; nor is the umask of one input that of the next."""
    before = os.umask(0o022)
    os.umask(before)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            if os.umask(before) != before:
                raise BrokenError("it left another umask")
