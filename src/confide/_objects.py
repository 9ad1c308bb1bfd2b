"""Arrays of an audit in an object store, such as S3.

Who may use it is said by the environment alone (``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL``, ...).
A prefix belongs to one audit: an object beside its arrays holds an id, which is in the manifest
too, and nothing else is read, written or deleted there before the two were compared.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from functools import cached_property
from typing import Any, TypeGuard
from urllib.parse import urlsplit

from confide._places import GROUP, Place
from confide.errors import ArgumentError, ConfideError, MissingExtraError, StoreError

Retry = dict[str, Any]
_URL = re.compile(r"(s3|gs|az)://[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9_=+-][A-Za-z0-9._=+-]*)+")
_ID = "confide.json"
_LARGEST_ID = 1000  # bytes
_BRISK = {"max_retries": 3}
"""Of the first words to a store: a second, since a wrong address is the likeliest error."""
_PATIENT: Retry = {"max_retries": 1000, "retry_timeout": timedelta(seconds=65)}
"""Once models are trained, which took long: a short outage is waited for.  One request may take 30
seconds, so that what stalled is asked again."""
_ADDRESSES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")


def checked_url(text: str) -> str:
    """The URL of a prefix, without a slash at its end.

    Raises
    ------
    ArgumentError : it is none, holds more than a bucket and a prefix, or leads into the arrays of
        another audit
    MissingExtraError : obstore is not installed
    """
    url = text.rstrip("/")
    if is_url(url) and GROUP in url.split("/"):
        raise ArgumentError(
            f"{url} leads into the signals of an audit, which erases all below {GROUP}; choose "
            "another prefix."
        )
    if not is_url(url):
        # What was given is not repeated: it may hold a password.
        raise ArgumentError(
            "Signals can be kept at s3://BUCKET/PREFIX (or gs://, az://), of letters, digits and "
            "._-=+ alone; credentials and the address of the store belong in the environment, as "
            "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL."
        )
    _obstore()
    return url


def is_url(value: Any) -> TypeGuard[str]:
    """Whether it is the URL of a prefix in an object store."""
    return isinstance(value, str) and len(value) <= 1000 and _URL.fullmatch(value) is not None


def in_store(manifest: Mapping[str, Any]) -> InStore | None:
    """Where the arrays of an audit lie by its manifest, erased or not; None if in its folder."""
    url, identity = manifest.get("signals"), manifest.get("signals_id")
    return InStore(url, identity) if is_url(url) and isinstance(identity, str) else None


def new_id() -> str:
    """For the manifest of an audit that begins."""
    return secrets.token_hex(16)


def _obstore() -> Any:
    try:
        import obstore.store
    except ImportError as error:
        raise MissingExtraError(
            "Signals in an object store need obstore; install confide[s3] here and on all machines "
            "that train."
        ) from error
    return obstore


class InStore(Place):
    """A prefix of an object store; nothing is asked of it before it is used.

    Parameters
    ----------
    url : from :func:`checked_url`
    identity : of the audit, as in its manifest
    """

    def __init__(self, url: str, identity: str) -> None:
        self._url = url
        self._identity = identity

    def __str__(self) -> str:
        return f"{self._url}/{GROUP}"

    def _connected(self, retry: Retry, below: str = "") -> Any:
        for name in _ADDRESSES:  # one that is none would make the library panic, in many lines
            if name in os.environ and not _is_address(os.environ[name]):
                raise self._unusable(f"{name} is no address that begins with https:// or http://")
        return _obstore().store.from_url(self._url + below, retry_config=retry)

    @cached_property
    def _objects(self) -> Any:
        """The prefix, which is known to be of this audit."""
        self.claim(begun=True)
        with self.writing():
            return self._connected(_PATIENT)

    @cached_property
    def store(self) -> Any:
        from zarr.storage import ObjectStore

        _ = self._objects  # known to be of this audit
        return ObjectStore(self._connected(_PATIENT, f"/{GROUP}"))

    def is_ours(self, retry: Retry = _PATIENT) -> bool | None:
        """Whether the prefix belongs to this audit; None if it belongs to none."""
        with self.reading():
            try:
                found = _obstore().get(self._connected(retry), _ID)
                content = bytes(found.bytes()) if found.meta["size"] <= _LARGEST_ID else b""
            except FileNotFoundError:
                return None
            return content == self._content

    @property
    def _content(self) -> bytes:
        return json.dumps({"signals of the audit": self._identity}).encode()

    def claim(self, *, begun: bool) -> None:
        ours = self.is_ours(_PATIENT if begun else _BRISK)
        if ours is None and not begun:
            self.require_free()
            with self.writing(), contextlib.suppress(_obstore().exceptions.AlreadyExistsError):
                _obstore().put(self._connected(_BRISK), _ID, self._content, mode="create")
            ours = self.is_ours()
        if ours is None:
            raise StoreError(
                f"{self._url} holds no signals of this audit. Is it the store in which they were "
                "kept (AWS_ENDPOINT_URL)? If they were deleted, audit again with another --out."
            )
        if not ours:
            raise self._used()

    def require_free(self) -> None:
        with self.reading():
            used = any(_obstore().list(self._connected(_BRISK)))
        if used:
            raise self._used()

    def _used(self) -> StoreError:
        return StoreError(
            f"{self._url} holds the signals of another audit, or other objects; choose another "
            "prefix, and another --out."
        )

    def has(self, name: str) -> bool:
        objects = self._objects
        with self.reading():
            try:
                _obstore().head(objects, f"{GROUP}/{name}/zarr.json")
            except FileNotFoundError:
                return False
            return True

    def names(self) -> list[str]:
        objects = self._objects
        with self.reading():
            found = _obstore().list_with_delimiter(objects, f"{GROUP}/")["common_prefixes"]
        names = (prefix.rpartition("/")[2] for prefix in found)
        return sorted(name for name in names if self.has(name))

    def there(self, name: str) -> Callable[[str], bool]:
        return set(self._keys(f"{GROUP}/{name}/")).__contains__

    def _keys(self, prefix: str) -> list[str]:
        """Of all objects of a prefix, relative to it."""
        objects = self._objects
        with self.reading():
            found = _obstore().list(objects, prefix)
            return [one["path"].removeprefix(prefix) for some in found for one in some]

    def remove(self) -> None:
        """Delete all arrays, of an audit that :meth:`is_ours`; see :meth:`release`.

        Raises
        ------
        StoreError : objects are left, or nobody answers
        """
        objects, prefix = self._objects, f"{GROUP}/"
        with self.writing():
            _obstore().delete(objects, [prefix + key for key in self._keys(prefix)])
            if left := len(self._keys(prefix)):
                raise StoreError(f"{left:,} objects of {self} cannot be deleted; who keeps them?")

    def release(self) -> None:
        """Delete the id, the last of all: without it, nothing tells this store from another."""
        objects = self._objects
        with self.writing():
            _obstore().delete(objects, _ID)

    def reading(self) -> contextlib.AbstractContextManager[None]:
        return self._errors()

    def writing(self) -> contextlib.AbstractContextManager[None]:
        return self._errors()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Whatever is wrong with the store becomes one clear error, without its cause.

        What a store answers may quote a request, and with it who made it.
        """
        try:
            yield
        except ConfideError:
            raise
        except (_obstore().exceptions.BaseError, OSError) as error:
            raise self._unusable(_why(str(error))) from None
        except BaseException as error:
            if type(error).__name__ != "PanicException":  # of Rust, at variables that are malformed
                raise
            raise self._unusable("its address or its credentials are malformed") from None

    def _unusable(self, why: str) -> StoreError:
        return StoreError(
            f"{self._url} cannot be used: {why}. Check the bucket and, in the environment, "
            "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL and, for http, "
            "AWS_ALLOW_HTTP=true (or what Google or Azure have in their place). What was finished "
            "is safe: run the same command again to go on."
        )


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        sound = bool(parts.hostname) and parts.port != 0  # reading a port that is none raises
    except ValueError:
        return False
    return sound and parts.scheme in ("http", "https") and not re.search(r"\s", text)


def _why(said: str) -> str:
    """What a library said of a request, in words of our own."""
    code = re.search(r"<Code>(\w{1,60})</Code>", said)
    status = re.search(r"status code: (\d{3})", said)
    if code is not None and code[1] == "NoSuchBucket":
        return "there is no such bucket"
    answer = " ".join(one[1] for one in (status, code) if one is not None)
    if status is not None and status[1] in ("401", "403"):
        return f"it refuses these credentials ({answer})"
    return f"it answers {answer}" if answer else "it does not answer, or credentials are missing"
