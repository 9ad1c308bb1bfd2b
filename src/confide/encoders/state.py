"""What a key was used for: the architecture it is bound to, and the releases made with it.

Stands in FILE.state.json beside the key FILE.  It holds the calibration, without which the encoder
cannot be made again, and the list of releases, without which a second use goes unnoticed: a key
file is never rewritten and cannot tell that its state was lost.  Back up both.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from confide import _check
from confide.encoders.key_file import read_guarded
from confide.errors import ArgumentError, KeyFileError, MissingFileError
from confide.stores import disk_errors, plain, write_json

FORMAT = "confide key state"
VERSION = 1

_LARGEST_FILE = 256_000_000
_LARGEST_ARRAY = 2**26
_PATIENCE = 30.0  # seconds; the lock is held for milliseconds
_RELEASE = {"release_id": str, "path": str, "finished": bool, "forced": bool}


class KeyState:
    """The state of one key; made by :meth:`of`.

    Each call reads the file anew, and each change is made under a lock, so that of two processes
    that use a key at once exactly one is the first.

    Attributes
    ----------
    path : FILE.state.json
    key_id : the key it belongs to
    """

    def __init__(self, path: Path, key_id: str) -> None:
        self.path = path
        self.key_id = key_id

    @classmethod
    def of(cls, key_path: Path, key_id: str) -> KeyState:
        """The state of the key in a file; a key without a state file was not used yet.

        Raises
        ------
        KeyFileError : the state is damaged, open to other users, or of another key
        """
        key_path = key_path.resolve()  # a link to a key leads to the state of that key
        state = cls(key_path.with_name(key_path.name + ".state.json"), key_id)
        state._read()
        return state

    @property
    def binding(self) -> dict[str, Any] | None:
        """The `architecture` and `calibration` that the key is bound to; None before first use."""
        return self._read()["binding"]

    @property
    def releases(self) -> list[dict[str, Any]]:
        """Releases made with the key, in order.

        Each has `release_id`, `path`, `finished`, `manifest_sha256` (None until finished) and
        `forced` (whether it was made although there was another).
        """
        return self._read()["releases"]

    def bind(self, architecture: dict[str, Any], calibration: dict[str, Any]) -> dict[str, Any]:
        """Bind the key to an architecture, or check that it is bound to this one.

        Parameters
        ----------
        architecture, calibration : JSON values; see :func:`pack` for arrays.  The calibration is
            stored at the first use, and not looked at later.

        Returns
        -------
        the calibration that is stored

        Raises
        ------
        KeyFileError : the key is bound to another architecture
        """
        wanted = plain(architecture)
        with self._change() as content:
            if content["binding"] is None:
                content["binding"] = {"architecture": wanted, "calibration": plain(calibration)}
            stored = content["binding"]["architecture"]
            for name in [*stored, *wanted]:
                if stored.get(name) != wanted.get(name):
                    raise KeyFileError(
                        f"The key was made for {name}={stored.get(name)!r:.80}, the configuration "
                        f"asks for {name}={wanted.get(name)!r:.80}; make another key with "
                        "`confide key new`."
                    )
            return content["binding"]["calibration"]

    def register(self, release_id: str, path: Path, *, force: bool = False) -> None:
        """Note a release before its first code is made; the same release again is a resume.

        Parameters
        ----------
        release_id : of the release
        path : its folder
        force : whether to use the key although another release was made with it

        Raises
        ------
        KeyFileError : another release was made with the key, and `force` is not set
        """
        with self._change() as content:
            releases = content["releases"]
            if any(entry["release_id"] == release_id for entry in releases):
                return
            if not force:
                _refuse_reuse(releases)
            releases.append(
                {
                    "release_id": release_id,
                    "path": str(path.absolute()),
                    "finished": False,
                    "manifest_sha256": None,
                    "forced": bool(releases),
                }
            )

    def refuse_reuse(self) -> None:
        """Refuse a key that a release was made with.

        Raises
        ------
        KeyFileError : there is such a release; names it
        """
        _refuse_reuse(self.releases)

    def finish(self, release_id: str, manifest_sha256: str) -> None:
        """Note that a release is finished; the same again changes nothing.

        Raises
        ------
        KeyFileError : the release is not registered, or was finished with another manifest
        """
        with self._change() as content:
            for entry in content["releases"]:
                if entry["release_id"] != release_id:
                    continue
                if entry["finished"] and entry["manifest_sha256"] != manifest_sha256:
                    raise KeyFileError(
                        f"The release {entry['path']} was finished with manifest "
                        f"{entry['manifest_sha256']:.16}..., it is {manifest_sha256:.16}... now; "
                        "encode again with another key and another --out."
                    )
                entry |= {"finished": True, "manifest_sha256": manifest_sha256}
                return
            raise KeyFileError(f"{self.path} does not list the release {release_id}.")

    @contextlib.contextmanager
    def _change(self) -> Iterator[dict[str, Any]]:
        """Read, let the caller change, and write if it did; alone, and not if it raised."""
        guard = self.path.with_suffix(".lock")
        with disk_errors(guard.parent):
            lock = FileLock(guard, mode=0o600)
            try:
                lock.acquire(timeout=_PATIENCE)
            except Timeout:
                raise KeyFileError(
                    f"{self.path} is in use by another process; wait for it, then run again."
                ) from None
        try:
            content = self._read()
            before = _digest(content)
            yield content
            after = _digest(content)
            if after != before:
                write_json(self.path, {**content, "sha256": after})
        finally:
            lock.release()

    def _read(self) -> dict[str, Any]:
        try:
            raw = read_guarded(self.path, _LARGEST_FILE)
        except MissingFileError:
            return {
                "format": FORMAT,
                "version": VERSION,
                "key_id": self.key_id,
                "binding": None,
                "releases": [],
            }
        content = _parse(raw)
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise self._damaged("it is not the state of a key")
        version = content.get("version")
        if type(version) is int and version > VERSION:
            raise KeyFileError(
                f"{self.path} has version {version} of the format, this version of confide reads "
                f"{VERSION}; use the version that made it."
            )
        if not _is_whole(content) or content.pop("sha256") != _digest(content):
            raise self._damaged("it is not as it was written")
        if content["key_id"] != self.key_id:
            raise KeyFileError(
                f"{self.path} belongs to the key {content['key_id']}, not to {self.key_id}; move "
                "it beside its own key. A key that was not used yet has no state."
            )
        return content

    def _damaged(self, what: str) -> KeyFileError:
        return KeyFileError(
            f"{self.path} is damaged: {what}. Restore it from a copy; if there is none, make "
            "another key with `confide key new`."
        )


def _refuse_reuse(releases: list[dict[str, Any]]) -> None:
    if not releases:
        return
    first = next((entry for entry in releases if entry["finished"]), releases[0])
    if first["finished"]:
        raise KeyFileError(
            f"The key already made the release {first['path']} (id {first['release_id']}). Using "
            "it again links the two: images that are equal have codes that can be recognised as "
            "equal. Make another key with `confide key new`, or accept the link with --reuse-key."
        )
    raise KeyFileError(
        f"The key was used for the release {first['path']} (id {first['release_id']}), which is "
        "not finished. Go on with that one, or make another key with `confide key new`; or use "
        "--reuse-key if no code of it ever left."
    )


def _parse(raw: bytes) -> Any:
    try:
        content = json.loads(raw)
        plain(content)  # no deeper than can be written again
    except (ValueError, RecursionError):
        return None
    return content


def _digest(content: dict[str, Any]) -> str:
    """Of what is stored, so that a calibration that changed is not taken for the same."""
    text = json.dumps(plain(content), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _is_whole(content: dict[str, Any]) -> bool:
    binding, releases = content.get("binding"), content.get("releases")
    return (
        content.keys() == {"format", "version", "key_id", "binding", "releases", "sha256"}
        and type(content["version"]) is int
        and content["version"] == VERSION
        and isinstance(content["key_id"], str)
        and (
            binding is None
            or (
                isinstance(binding, dict)
                and binding.keys() == {"architecture", "calibration"}
                and all(isinstance(part, dict) for part in binding.values())
            )
        )
        and isinstance(releases, list)
        and all(_is_release(entry) for entry in releases)
    )


def _is_release(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and entry.keys() == {*_RELEASE, "manifest_sha256"}
        and all(isinstance(entry[name], kind) for name, kind in _RELEASE.items())
        and isinstance(entry["manifest_sha256"], str if entry["finished"] else str | None)
    )


def pack(array: NDArray[np.float32]) -> dict[str, Any]:
    """A float32 array as JSON values, exactly: little-endian bytes in base64.

    Raises
    ------
    ArgumentError : another type, or numbers that are not finite

    >>> pack(np.ones(2, dtype=np.float32))
    {'dtype': '<f4', 'shape': [2], 'base64': 'AACAPwAAgD8='}
    """
    if array.dtype != np.float32:
        raise ArgumentError(f"Expected an array of float32, got {array.dtype}.")
    _check.finite(array=array)
    raw = array.astype("<f4").tobytes()
    return {
        "dtype": "<f4",
        "shape": list(array.shape),
        "base64": base64.b64encode(raw).decode("ascii"),
    }


def unpack(content: Any) -> NDArray[np.float32]:
    """The float32 array that :func:`pack` made into JSON values.

    Raises
    ------
    KeyFileError : not such values, more than 2**26 numbers, or numbers that are not finite
    """
    damaged = KeyFileError(
        "A stored array of the key's state is damaged; restore its .state.json from a copy."
    )
    if not isinstance(content, dict) or content.keys() != {"dtype", "shape", "base64"}:
        raise damaged
    shape, text = content["shape"], content["base64"]
    if (
        content["dtype"] != "<f4"
        or not isinstance(shape, list)
        or len(shape) > 8
        or not all(type(n) is int and 0 <= n <= _LARGEST_ARRAY for n in shape)
        or math.prod(shape) > _LARGEST_ARRAY
        or not isinstance(text, str)
        or len(text) != 4 * -(-4 * math.prod(shape) // 3)
    ):
        raise damaged
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:
        raise damaged from None
    if len(raw) != 4 * math.prod(shape):
        raise damaged
    array = np.frombuffer(raw, dtype="<f4").astype(np.float32).reshape(shape)
    if not np.isfinite(array).all():
        raise damaged
    return array
