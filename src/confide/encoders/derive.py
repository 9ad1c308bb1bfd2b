"""Numbers from a secret, the same on every machine, and chance that is never stored.

A secret becomes a key by HKDF-SHA256 (RFC 5869), a key becomes bytes by ChaCha20 (RFC 8439), and
bytes become floats by arithmetic that IEEE 754 rounds exactly.  No generator of NumPy or PyTorch
takes part: their seeds can be enumerated and their streams may change between versions.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray
from scipy.special import ndtri

from confide import _check
from confide.errors import ArgumentError

SALT = b"confide key derivation, version 1"
"""Of every HKDF; to change it is to change every key."""
KEYSTREAM_BYTES = 64 * 2**32
"""What one key yields: the block counter of RFC 8439 has 32 bits, and a block 64 bytes."""

_ZEROS = bytes(2**18)
_CHUNK_WORDS = 2**16


def hkdf(secret: bytes, info: str, length: int = 32) -> bytes:
    """Derive bytes from a secret: HKDF-SHA256 (RFC 5869) with the salt :data:`SALT`.

    Parameters
    ----------
    secret : input key material
    info : what the bytes are for, UTF-8; another text gives unrelated bytes
    length : 1 to 8,160 bytes

    Raises
    ------
    ArgumentError : a length out of range
    """
    _check.in_range(1, 255 * 32, length=length)
    return HKDF(algorithm=SHA256(), length=length, salt=SALT, info=info.encode()).derive(secret)


class _Stream:
    """The keystream of ChaCha20 with nonce 0, from counter 0 on; it keeps no key."""

    __slots__ = ("_cipher", "left")

    def __init__(self, key: bytes) -> None:
        if len(key) != 32:
            raise ArgumentError(f"Expected a key of 32 bytes, got {len(key)}.")
        # The counter and the nonce, in 16 bytes.
        self._cipher = Cipher(ChaCha20(key, bytes(16)), mode=None).encryptor()
        self.left = KEYSTREAM_BYTES

    def fill(self, out: NDArray[np.uint8] | NDArray[np.uint32] | NDArray[np.uint64]) -> None:
        """Overwrite a contiguous array with the next bytes."""
        if out.nbytes > self.left:
            raise ArgumentError(
                f"{out.nbytes:,} bytes were asked of a keystream that has {self.left:,} left; "
                "take a key for each part."
            )
        self.left -= out.nbytes
        raw = out.reshape(-1).view(np.uint8)
        for start in range(0, raw.size, len(_ZEROS)):
            part = raw[start : start + len(_ZEROS)]
            self._cipher.update_into(memoryview(_ZEROS)[: part.size], part.data)


def keystream(key: bytes, n_bytes: int) -> bytes:
    """The first bytes of ChaCha20 (RFC 8439, section 2.4) with nonce 0, from counter 0 on.

    Parameters
    ----------
    key : 32 bytes
    n_bytes : how many

    Raises
    ------
    ArgumentError : a key of another length, or more than the 256 GiB that a 32-bit counter allows
    """
    _check.in_range(0, KEYSTREAM_BYTES, n_bytes=n_bytes)
    out = np.empty(n_bytes, dtype=np.uint8)
    _Stream(key).fill(out)
    return out.tobytes()


def uniform(secret: bytes, name: str, shape: tuple[int, ...], bound: float) -> NDArray[np.float32]:
    """Uniform numbers in (-bound, bound), the same bits on every machine.

    Each little-endian 32-bit word u of the keystream gives
    ``float32(bound * (2 * ((u >> 8) + 0.5) * 2**-24 - 1))``, in float64, where only the product
    with `bound` and the conversion to float32 round.

    Parameters
    ----------
    secret : of the key
    name : of the tensor; each name has a keystream of its own
    shape : of the result, filled in C order
    bound : positive and finite

    Returns
    -------
    float32 of that shape

    Raises
    ------
    ArgumentError : an empty name, a bound that is not positive and finite, or a shape of 256 GiB
    """
    if not 0 < bound < math.inf:
        raise ArgumentError(f"Expected bound={bound!r} to be positive and finite.")

    def to_float(words: NDArray[np.uint32]) -> NDArray[np.float64]:
        return bound * (((words >> 8).astype(np.float64) + 0.5) * 2.0**-23 - 1)

    return _tensor(secret, "uniform", name, shape, to_float)


def normal(secret: bytes, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Standard normal numbers, by the inverse of the distribution function.

    Each little-endian 32-bit word u of the keystream gives ``float32(ndtri((u + 0.5) * 2**-32))``,
    in float64.  Between mathematical libraries the last bit of ``ndtri`` may differ, so that now
    and then the last bit of the float32 does.

    Parameters
    ----------
    secret : of the key
    name : of the tensor; each name has a keystream of its own, another than :func:`uniform`
    shape : of the result, filled in C order

    Returns
    -------
    float32 of that shape, all in (-6.4, 6.4)

    Raises
    ------
    ArgumentError : an empty name, or a shape of 256 GiB
    """

    def to_float(words: NDArray[np.uint32]) -> NDArray[np.float64]:
        return np.asarray(ndtri((words.astype(np.float64) + 0.5) * 2.0**-32))

    return _tensor(secret, "normal", name, shape, to_float)


def _tensor(
    secret: bytes,
    kind: str,
    name: str,
    shape: tuple[int, ...],
    to_float: Callable[[NDArray[np.uint32]], NDArray[np.float64]],
) -> NDArray[np.float32]:
    if not name:
        raise ArgumentError("Expected the name of a tensor, got an empty one.")
    if min(shape, default=0) < 0 or 4 * math.prod(shape) > KEYSTREAM_BYTES:
        raise ArgumentError(f"Expected shape={shape} of at most {KEYSTREAM_BYTES // 4:,} numbers.")
    stream = _Stream(hkdf(secret, f"confide {kind} v1: {name}"))
    out = np.empty(shape, dtype=np.float32)
    flat = out.reshape(-1)
    # In parts, so that the words and the float64 in between stay small.
    words = np.empty(_CHUNK_WORDS, dtype="<u4")
    for start in range(0, flat.size, _CHUNK_WORDS):
        part = flat[start : start + _CHUNK_WORDS]
        stream.fill(words[: part.size])
        part[:] = to_float(words[: part.size])
    return out


class Chance:
    """Random words and permutations from a fresh 256-bit key of the operating system.

    The key is never stored and cannot be asked for, so what was drawn cannot be drawn again.  A
    process that was forked goes on with a key of its own.  Not for use by several threads at once.
    """

    __slots__ = ("_process", "_stream")

    def __init__(self) -> None:
        self._renew()

    def __repr__(self) -> str:
        return "Chance()"

    def _renew(self) -> None:
        self._stream = _Stream(os.urandom(32))
        self._process = os.getpid()

    def words(self, n: int) -> NDArray[np.uint64]:
        """(n,) independent uniform 64-bit words."""
        _check.in_range(0, KEYSTREAM_BYTES // 8, n=n)
        out = np.empty(n, dtype="<u8")
        # A forked process would repeat its parent's words.
        if self._process != os.getpid() or self._stream.left < out.nbytes:
            self._renew()
        self._stream.fill(out)
        return out.astype(np.uint64, copy=False)

    def permutations(self, n: int, size: int) -> NDArray[np.int64]:
        """(n, size) independent uniform permutations of 0 .. size - 1, one a row.

        The order of random words.  Two of `size` words are equal with a probability below
        size**2 / 2**65 (2e-15 for 256 rows), and only then is one of two orders preferred.
        """
        words = self.words(n * size).reshape(n, size)
        return np.argsort(words, axis=1).astype(np.int64, copy=False)

    def permutation(self, n: int) -> NDArray[np.int64]:
        """(n,) a uniform permutation of 0 .. n - 1."""
        return self.permutations(1, n)[0]
