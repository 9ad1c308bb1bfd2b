"""Keys: a 256-bit secret from the operating system that determines an encoder."""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from confide.encoders import derive, key_file
from confide.errors import ArgumentError, KeyFileError


class Key:
    """A secret that determines all weights of an encoder; whoever has it can undo its codes.

    Nothing prints, copies or pickles the secret: it leaves the object in :meth:`save` and in what
    is derived from it.  Two keys are equal if their ids are.

    Parameters
    ----------
    secret : 32 bytes; use :meth:`new` to have them made
    note : one line of text that is stored in the key file, readable without the passphrase
    created : ISO date-time in UTC, to seconds; now by default

    Raises
    ------
    ArgumentError : a secret of another length, a note that is not one line of visible text
    """

    __slots__ = ("_created", "_id", "_note", "_reveal")

    def __init__(self, secret: bytes, *, note: str = "", created: str | None = None) -> None:
        if not isinstance(secret, bytes) or len(secret) != key_file.SECRET_BYTES:
            raise ArgumentError(f"Expected a secret of {key_file.SECRET_BYTES} bytes.")
        if not key_file.is_note(note):
            raise ArgumentError(
                f"Expected a note of one line, at most {key_file.LONGEST_NOTE} characters, all "
                "visible."
            )
        if created is not None and not key_file.is_time(created):
            raise ArgumentError(f"Expected created={created!r} as 2030-01-31T12:00:00+00:00.")
        # In a function, so that nothing that walks over attributes shows it.
        self._reveal: Callable[[], bytes] = lambda: secret
        self._id = key_file.id_of(secret)
        self._note = note
        self._created = created or datetime.now(UTC).isoformat(timespec="seconds")

    @classmethod
    def new(cls, note: str = "") -> Key:
        """Make a key from the randomness of the operating system."""
        return cls(os.urandom(key_file.SECRET_BYTES), note=note)

    @property
    def id(self) -> str:
        """32 hexadecimal digits derived from the secret; safe to publish."""
        return self._id

    @property
    def note(self) -> str:
        """A line of the user's."""
        return self._note

    @property
    def created(self) -> str:
        """ISO date-time in UTC; it stands in the key file and nowhere else."""
        return self._created

    def __repr__(self) -> str:
        return f"Key({self._id})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Key):
            return NotImplemented
        return hmac.compare_digest(self._id, other._id)

    def __hash__(self) -> int:
        return hash(self._id)

    def __reduce__(self) -> NoReturn:
        raise KeyFileError(
            "A key is neither copied nor pickled, which would spread its secret; pass on the path "
            "of its file."
        )

    __getstate__ = __reduce__

    def derive(self, info: str, length: int = 32) -> bytes:
        """`length` bytes for the purpose `info`; see :func:`confide.encoders.derive.hkdf`."""
        return derive.hkdf(self._reveal(), f"confide derive v1: {info}", length)

    def uniform(self, name: str, shape: tuple[int, ...], bound: float) -> NDArray[np.float32]:
        """See :func:`confide.encoders.derive.uniform`."""
        return derive.uniform(self._reveal(), name, shape, bound)

    def normal(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """See :func:`confide.encoders.derive.normal`."""
        return derive.normal(self._reveal(), name, shape)

    def save(self, path: Path, passphrase: str | None = None) -> None:
        """Write the key file, with mode 0600.

        Parameters
        ----------
        path : where there is no file yet
        passphrase : encrypts the secret; any text, the same in every Unicode normal form

        Raises
        ------
        KeyFileError : the file exists, or the passphrase is empty
        FolderError : the folder cannot be used, or its disk is full
        """
        key_file.write(
            path,
            self._reveal(),
            created=self._created,
            note=self._note,
            passphrase=passphrase,
        )

    @classmethod
    def load(cls, path: Path, passphrase: str | None = None) -> Key:
        """Read a key file.

        Parameters
        ----------
        path : the file
        passphrase : needed if the file is protected by one, and refused if it is not, since then
            the secret is less well kept than the caller believes

        Raises
        ------
        MissingFileError : there is no such file
        KeyFileError : others can read the file, it is no key, is altered or truncated, was made by
            a newer version, or the passphrase is missing, wrong, empty or not asked for
        """
        return cls._of(path, key_file.read(path), passphrase)

    @classmethod
    def _of(cls, path: Path, content: dict[str, Any], passphrase: str | None) -> Key:
        secret = key_file.secret_of(path, content, passphrase)
        return cls(secret, note=content["note"], created=content["created"])


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a key file tells without its secret.

    Attributes
    ----------
    key_id, created, note : see :class:`Key`
    protected : whether the secret is encrypted with a passphrase
    checked : whether the header was verified; not so for a protected key without its passphrase
    """

    key_id: str
    created: str
    note: str
    protected: bool
    checked: bool

    @classmethod
    def read(cls, path: Path, passphrase: str | None = None) -> Header:
        """Read the header of a key file; verified if that can be done.

        Parameters
        ----------
        path : the file
        passphrase : used if the file is protected by one; None leaves such a file unchecked

        Raises
        ------
        MissingFileError, KeyFileError : as :meth:`Key.load`
        """
        content = key_file.read(path)
        protected = content["protection"] is not None
        checked = not protected or passphrase is not None
        if checked:
            key_file.secret_of(path, content, passphrase if protected else None)
        return cls(
            key_id=content["key_id"],
            created=content["created"],
            note=content["note"],
            protected=protected,
            checked=checked,
        )


def unlock(path: Path, ask: Callable[[], str] | None = None) -> Key:
    """Read a key file; for a protected one find the passphrase.

    It is the value of the environment variable ``CONFIDE_PASSPHRASE`` if that is set, else what
    `ask` returns.  A key without a passphrase needs neither.

    Raises
    ------
    MissingFileError, KeyFileError : as :meth:`Key.load`; also if there is nobody to ask
    """
    content = key_file.read(path)
    if content["protection"] is None:
        return Key._of(path, content, None)
    passphrase = os.environ.get(key_file.ENVIRONMENT)
    if passphrase is None and ask is not None:
        passphrase = ask()
    return Key._of(path, content, passphrase)
