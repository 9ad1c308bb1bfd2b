"""The file of a key: how it is written, read and found to be altered.

JSON that a person can read: a header, then the secret.  Without a passphrase an HMAC under the
secret covers the header; with one, the secret is encrypted by AES-256-GCM under scrypt (RFC 7914)
of the passphrase, with the header as associated data.  A file must be, byte by byte, what this
module writes, so that any altered byte is found.

Errors are raised outside the `except` that found them: what `json`, `base64` and Unicode raise
carries the text that they failed on, which here holds the secret.
"""

from __future__ import annotations

import base64
import hmac
import json
import os
import re
import stat
import unicodedata
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from confide.encoders.derive import hkdf
from confide.errors import KeyFileError, MissingFileError
from confide.stores import disk_errors

FORMAT = "confide key"
VERSION = 1
ENVIRONMENT = "CONFIDE_PASSPHRASE"
"""The variable that a passphrase is taken from, where there is nobody to ask."""
SECRET_BYTES = 32
LONGEST_NOTE = 200

_LARGEST_FILE = 100_000
_SCRYPT = {"n": 2**16, "r": 8, "p": 1}  # 64 MiB, about a fifth of a second
_SCRYPT_BYTES = 2**28  # what a file may ask for: 256 MiB ...
_SCRYPT_WORK = 2**30  # ... passed over four times
_HEADER = ("format", "version", "key_id", "created", "note", "protection")


def write(
    path: Path, secret: bytes, *, created: str, note: str, passphrase: str | None = None
) -> None:
    """Write a new key file with mode 0600; see :meth:`confide.encoders.key.Key.save`."""
    content: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "key_id": id_of(secret),
        "created": created,
        "note": note,
        "protection": None,
    }
    if passphrase is None:
        content |= {"secret": _encode(secret), "check": _check(secret, content)}
    else:
        salt, nonce = os.urandom(16), os.urandom(12)
        content["protection"] = {
            "kdf": "scrypt",
            **_SCRYPT,
            "salt": _encode(salt),
            "cipher": "AES-256-GCM",
            "nonce": _encode(nonce),
        }
        wrapping = AESGCM(_stretched(passphrase, salt, **_SCRYPT))
        content["secret"] = _encode(wrapping.encrypt(nonce, secret, _canonical(content)))
    _create(path, _render(content))


def read_guarded(path: Path, largest: int) -> bytes:
    """Read a small secret file, refused if anybody but its owner may read or change it.

    Parameters
    ----------
    path : the file
    largest : bytes; a larger file is not read

    Raises
    ------
    MissingFileError : there is no such file
    KeyFileError : a folder or a device, too large, open to others, or not readable
    """
    try:
        if not path.exists():
            raise MissingFileError(
                f"There is no key at {path}; make one with: confide key new {path}"
            )
        if not path.is_file():
            raise KeyFileError(f"{path} is not a file; expected one made by `confide key new`.")
        with path.open("rb") as file:
            about = os.fstat(file.fileno())
            content = file.read(largest + 1) if about.st_size <= largest else b""
    except MissingFileError:  # an OSError too
        raise
    except OSError as error:
        raise KeyFileError(f"{path} cannot be read ({error.strerror}).") from error
    if os.name == "posix" and about.st_mode & 0o077:
        raise KeyFileError(
            f"{path} is open to other users (mode {stat.S_IMODE(about.st_mode):04o}); if they "
            f"should not have had it, make another key, else close it with: chmod 600 {path}"
        )
    if max(about.st_size, len(content)) > largest:
        raise KeyFileError(f"{path} is larger than {largest:,} bytes; it was not read.")
    return content


def _create(path: Path, content: bytes) -> None:
    """Write a new file with mode 0600 from the first byte; never over another."""
    with disk_errors(path.parent):
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise KeyFileError(
                f"{path} exists; a key is never written over another file, choose another name."
            ) from None
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def read(path: Path) -> dict[str, Any]:
    """The entries of a key file, whole and of the right types; the secret is not verified yet.

    Raises
    ------
    MissingFileError, KeyFileError : as :func:`read_guarded`; no key, damaged, or a newer version
    """
    raw = read_guarded(path, _LARGEST_FILE)
    content = _parse(raw)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise KeyFileError(
            f"{path} is not a key, or is damaged; expected a file made by `confide key new`, "
            "restore it from a copy."
        )
    if type(content.get("version")) is int and content["version"] > VERSION:
        raise KeyFileError(
            f"{path} has version {content['version']} of the format, this version of confide "
            f"reads {VERSION}; use the version that made it."
        )
    if not _is_whole(content) or _render(content) != raw:
        raise _damaged(path)
    return content


def secret_of(path: Path, content: dict[str, Any], passphrase: str | None) -> bytes:
    """The secret of a key file that :func:`read` read, verified.

    Raises
    ------
    KeyFileError : altered, or the passphrase is missing, wrong, empty or not asked for
    """
    protection = content["protection"]
    if protection is None:
        if passphrase is not None:
            raise KeyFileError(
                f"{path} is not protected by a passphrase, but one was given; load it without, or "
                "use the key that you meant."
            )
        secret = _decode(content["secret"], SECRET_BYTES) or b""
        if not hmac.compare_digest(_check(secret, content), content["check"]):
            raise _damaged(path)
    else:
        if passphrase is None:
            raise KeyFileError(
                f"{path} is protected by a passphrase: set {ENVIRONMENT}, or run in a terminal and "
                "type it."
            )
        secret = _decrypted(content, passphrase) or b""
        if not secret:
            raise KeyFileError(
                f"{path} was not opened: the passphrase is wrong, or the file is damaged. Try "
                "again, or restore the file from a copy."
            )
    if id_of(secret) != content["key_id"]:
        raise _damaged(path)
    return secret


def _decrypted(content: dict[str, Any], passphrase: str) -> bytes | None:
    p = content["protection"]
    salt, nonce = base64.b64decode(p["salt"]), base64.b64decode(p["nonce"])
    wrapping = AESGCM(_stretched(passphrase, salt, n=p["n"], r=p["r"], p=p["p"]))
    header = _canonical(content)
    try:
        return wrapping.decrypt(nonce, base64.b64decode(content["secret"]), header)
    except InvalidTag:
        return None


def _stretched(passphrase: str, salt: bytes, *, n: int, r: int, p: int) -> bytes:
    if not passphrase:
        raise KeyFileError("The passphrase is empty; give one of several words.")
    # "surrogatepass" makes every text encodable: an encoding error would carry the passphrase.
    text = unicodedata.normalize("NFC", passphrase).encode("utf-8", "surrogatepass")
    return Scrypt(salt=salt, length=32, n=n, r=r, p=p).derive(text)


def id_of(secret: bytes) -> str:
    """32 hexadecimal digits that name a secret without telling it."""
    return hkdf(secret, "confide key id v1", 16).hex()


def _check(secret: bytes, content: dict[str, Any]) -> str:
    code = hkdf(secret, "confide key file check v1")
    return _encode(hmac.digest(code, _canonical(content), "sha256"))


def _canonical(content: dict[str, Any]) -> bytes:
    """The header alone, in the one form that is authenticated."""
    header = {name: content[name] for name in _HEADER}
    return json.dumps(header, sort_keys=True, separators=(",", ":")).encode()


def _render(content: dict[str, Any]) -> bytes:
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    return text.encode("utf-8", "surrogatepass")


def _parse(raw: bytes) -> Any:
    try:
        return json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError):
        return None


def _encode(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def _decode(text: Any, length: int) -> bytes | None:
    """`length` bytes from their one canonical base64 form, or None."""
    if not isinstance(text, str) or len(text) != 4 * -(-length // 3) or not text.isascii():
        return None
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:
        return None
    return raw if len(raw) == length and _encode(raw) == text else None


def _is_whole(content: dict[str, Any]) -> bool:
    protected = content.get("protection") is not None
    fields = {*_HEADER, "secret"} | (set() if protected else {"check"})
    return (
        content.keys() == fields
        and type(content["version"]) is int
        and content["version"] == VERSION
        and isinstance(content["key_id"], str)
        and re.fullmatch("[0-9a-f]{32}", content["key_id"]) is not None
        and is_time(content["created"])
        and is_note(content["note"])
        and _decode(content["secret"], 48 if protected else SECRET_BYTES) is not None
        and (
            _is_protection(content["protection"])
            if protected
            else _decode(content["check"], 32) is not None
        )
    )


def _is_protection(p: Any) -> bool:
    if not isinstance(p, dict) or p.keys() != {"kdf", "n", "r", "p", "salt", "cipher", "nonce"}:
        return False
    n, r, passes = p["n"], p["r"], p["p"]
    return (
        (p["kdf"], p["cipher"]) == ("scrypt", "AES-256-GCM")
        and all(type(value) is int and value > 0 for value in (n, r, passes))
        # A hostile file could ask for any memory and time.
        and 128 * n * r <= _SCRYPT_BYTES
        and 128 * n * r * passes <= _SCRYPT_WORK
        and n > 1
        and n & (n - 1) == 0
        and n < 2 ** min(16 * r, 64)
        and _decode(p["salt"], 16) is not None
        and _decode(p["nonce"], 12) is not None
    )


def is_note(note: Any) -> bool:
    """Whether it is one line of visible text that is not too long."""
    return isinstance(note, str) and len(note) <= LONGEST_NOTE and note.isprintable()


def is_time(text: Any) -> bool:
    """Whether it is a date-time in UTC as :meth:`datetime.isoformat` writes it, to seconds."""
    try:
        time = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return False
    return time.utcoffset() == timedelta(0) and time.isoformat(timespec="seconds") == text


def _damaged(path: Path) -> KeyFileError:
    return KeyFileError(f"{path} is damaged or was altered; restore it from a copy.")
