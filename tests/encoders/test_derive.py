import copy
import hashlib
import hmac
import itertools
import math
import pickle
import statistics
import struct
import tracemalloc

import numpy as np
import pytest
from scipy import stats

from confide.encoders import derive
from confide.encoders.derive import Chance, hkdf, keystream, normal, uniform
from confide.errors import ArgumentError

SECRET = bytes(range(32))


# ---- A second implementation, as slow as it is plain.


def slow_hkdf(secret, salt, info, length):
    """RFC 5869, section 2."""
    prk = hmac.new(salt or bytes(32), secret, hashlib.sha256).digest()
    out, block, i = b"", b"", 1
    while len(out) < length:
        block = hmac.new(prk, block + info + bytes([i]), hashlib.sha256).digest()
        out, i = out + block, i + 1
    return out[:length]


def slow_block(key, counter, nonce):
    """RFC 8439, section 2.3."""
    words = struct.unpack("<8I", key)
    start = [0x61707865, 0x3320646E, 0x79622D32, 0x6B206574, *words, counter]
    start += struct.unpack("<3I", nonce)
    state = list(start)

    def add(a, b, d, n):
        state[a] = (state[a] + state[b]) & 0xFFFFFFFF
        state[d] ^= state[a]
        state[d] = (state[d] << n | state[d] >> (32 - n)) & 0xFFFFFFFF

    def quarter(a, b, c, d):
        add(a, b, d, 16)
        add(c, d, b, 12)
        add(a, b, d, 8)
        add(c, d, b, 7)

    for _ in range(10):
        for i in range(4):
            quarter(i, 4 + i, 8 + i, 12 + i)
        for i in range(4):
            quarter(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
    return struct.pack("<16I", *((a + b) & 0xFFFFFFFF for a, b in zip(state, start, strict=True)))


def slow_words(secret, kind, name, n):
    key = slow_hkdf(secret, derive.SALT, f"confide {kind} v1: {name}".encode(), 32)
    stream = b"".join(slow_block(key, i, bytes(12)) for i in range(-(-4 * n // 64)))
    return struct.unpack(f"<{n}I", stream[: 4 * n])


def single(value):
    return struct.unpack("<f", struct.pack("<f", value))[0]


def test_the_second_implementation_knows_the_published_vectors():
    # RFC 5869, appendix A.1 and A.3.
    found = slow_hkdf(b"\x0b" * 22, bytes(range(13)), bytes(range(0xF0, 0xFA)), 42)
    assert found.hex() == (
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    )
    # RFC 8439, section 2.3.2.
    found = slow_block(SECRET, 1, bytes.fromhex("000000090000004a00000000"))
    assert found.hex() == (
        "10f1e7e4d13b5915500fdd1fa32071c4c7d1f4c733c068030422aa9ac3d46c4e"
        "d2826446079faa0914c2d705d98b02a2b5129cd1de164eb9cbd083e8a2503c4e"
    )


def test_hkdf_of_the_standard(monkeypatch):
    assert hkdf(SECRET, "a") == slow_hkdf(SECRET, derive.SALT, b"a", 32)
    long = slow_hkdf(SECRET, derive.SALT, "ä b".encode(), 100)
    assert hkdf(SECRET, "ä b", 100) == long
    monkeypatch.setattr(derive, "SALT", b"")  # RFC 5869, appendix A.3
    assert hkdf(b"\x0b" * 22, "", 42).hex() == (
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    )


def test_keystream_of_the_standard():
    # RFC 8439, appendix A.1, vectors 1 and 2: counters 0 and 1.
    assert keystream(bytes(32), 128).hex() == (
        "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
        "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586"
        "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed"
        "29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f"
    )
    slow = b"".join(slow_block(SECRET, i, bytes(12)) for i in range(3))
    for n in (0, 1, 63, 64, 65, 192):
        assert keystream(SECRET, n) == slow[:n]
    # Across the parts that it is made in.
    n = 2**18 + 100
    assert keystream(SECRET, n)[-100:-36] == slow_block(SECRET, 2**12, bytes(12))


def test_vectors_that_never_change():
    """Another value here means that every key made before is lost."""
    assert hkdf(SECRET, "test vector").hex() == (
        "1bf5846ff9322d7c9b87f578c5d2bf4d004c83ed085b6d54c15fed368ab7ffe6"
    )
    words = np.frombuffer(keystream(SECRET, 16), dtype="<u4")
    assert words.tolist() == [2100034873, 1780073945, 1996733837, 1229642936]
    found = uniform(SECRET, "patch.weight", (4,), 0.25)
    assert found.tobytes().hex() == "d92e543eea088ebd092d543e951f5c3e"
    found = normal(SECRET, "position", (4,))
    assert found.tobytes().hex() == "8513573fc18fff3ea86e10be94f63c3f"


@pytest.mark.parametrize("bound", [1.0, 0.25, 1 / math.sqrt(48), 1e-3])
def test_uniform_agrees_with_the_second_implementation(bound):
    found = uniform(SECRET, "mixer.weight", (5, 7), bound)
    assert (found.dtype, found.shape) == (np.float32, (5, 7))
    words = slow_words(SECRET, "uniform", "mixer.weight", 35)
    slow = [single(bound * (2 * ((u >> 8) + 0.5) * 2**-24 - 1)) for u in words]
    assert found.ravel().tolist() == slow


def test_normal_agrees_with_the_second_implementation():
    found = normal(SECRET, "position", (5, 7))
    assert (found.dtype, found.shape) == (np.float32, (5, 7))
    inverse = statistics.NormalDist().inv_cdf
    slow = [inverse((u + 0.5) * 2**-32) for u in slow_words(SECRET, "normal", "position", 35)]
    np.testing.assert_allclose(found.ravel(), slow, rtol=1e-6)


def test_each_name_kind_and_secret_has_numbers_of_its_own():
    found = [
        uniform(secret, name, (1000,), 1.0)
        for secret in (SECRET, bytes(32))
        for name in ("a", "b", "a.a")
    ]
    found.append(normal(SECRET, "a", (1000,)))
    for a, b in itertools.combinations(found, 2):
        assert abs(np.corrcoef(a, b)[0, 1]) < 0.15
    # The same bits again, and the beginning does not depend on the size.
    assert np.array_equal(uniform(SECRET, "a", (10, 100), 1.0).ravel(), found[0])
    long = uniform(SECRET, "a", (200_000,), 1.0)
    assert np.array_equal(long[:1000], found[0])
    assert len(np.unique(long)) > 198_000  # no part comes twice


def test_distributions():
    flat = uniform(SECRET, "a", (300_000,), 0.5)
    assert np.abs(flat).max() < 0.5
    assert stats.kstest(flat, stats.uniform(-0.5, 1).cdf).pvalue > 0.01
    bell = normal(SECRET, "a", (300_000,))
    assert stats.kstest(bell, stats.norm.cdf).pvalue > 0.01
    assert 4 < np.abs(bell).max() < 6.4


def test_extreme_words_stay_in_bounds(monkeypatch):
    for byte, sign in ((b"\x00", -1), (b"\xff", 1)):
        monkeypatch.setattr(
            derive._Stream, "fill", lambda self, out, b=byte: out.view(np.uint8).fill(b[0])
        )
        assert uniform(SECRET, "a", (1,), 1.0)[0] == sign * (1 - 2**-24)
        assert sign * normal(SECRET, "a", (1,))[0] == pytest.approx(6.338, abs=1e-3)


def test_memory_is_that_of_the_result():
    tracemalloc.start()
    uniform(SECRET, "a", (2048, 2048), 1.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2048 * 2048 * 4 + 4_000_000


def test_empty_and_scalar_shapes():
    assert uniform(SECRET, "a", (0, 3), 1.0).shape == (0, 3)
    assert normal(SECRET, "a", ()).shape == ()


def test_bad_input():
    for bound in (0, -1, math.inf, math.nan):
        with pytest.raises(ArgumentError, match="to be positive and finite"):
            uniform(SECRET, "a", (2,), bound)
    with pytest.raises(ArgumentError, match="name of a tensor"):
        normal(SECRET, "", (2,))
    for shape in ((2**37, 2), (-1,)):
        with pytest.raises(ArgumentError, match="Expected shape="):
            normal(SECRET, "a", shape)
    with pytest.raises(ArgumentError, match="n_bytes=274877906945"):
        keystream(SECRET, 2**38 + 1)
    with pytest.raises(ArgumentError, match="key of 32 bytes, got 31"):
        keystream(SECRET[1:], 8)
    for length in (0, 8161):
        with pytest.raises(ArgumentError, match="length="):
            hkdf(SECRET, "a", length)
    with pytest.raises(ArgumentError, match="n=-1"):
        Chance().words(-1)


# ---- Chance


@pytest.fixture
def urandom(monkeypatch):
    """Make the operating system's randomness known, and count how often it is asked."""
    asked = []

    def known(n):
        asked.append(n)
        return bytes([len(asked)]) * n

    monkeypatch.setattr(derive.os, "urandom", known)
    return asked


def test_words_go_on_in_the_keystream(urandom):
    chance = Chance()
    found = np.concatenate([chance.words(3), chance.words(0), chance.words(70)])
    assert urandom == [32]
    assert found.dtype == np.uint64
    assert found.tolist() == list(struct.unpack("<73Q", keystream(b"\x01" * 32, 73 * 8)))


def test_permutations_are_uniform_and_independent(urandom):
    found = Chance().permutations(24_000, 4)
    assert (found.dtype, found.shape) == (np.int64, (24_000, 4))
    codes, counts = np.unique(found @ [64, 16, 4, 1], return_counts=True)
    assert len(codes) == 24
    assert stats.chisquare(counts).pvalue > 0.001
    pairs = np.unique(found[::2, 0] * 4 + found[1::2, 0], return_counts=True)[1]
    assert stats.chisquare(pairs).pvalue > 0.001


def test_permutations_are_permutations():
    chance = Chance()
    found = chance.permutations(50, 256)
    assert (np.sort(found, axis=1) == np.arange(256)).all()
    assert len(np.unique(found, axis=0)) == 50
    assert sorted(chance.permutation(1000)) == list(range(1000))
    assert not np.array_equal(chance.permutation(1000), chance.permutation(1000))
    assert chance.permutations(0, 5).shape == (0, 5)
    assert chance.permutations(3, 1).tolist() == [[0], [0], [0]]


def test_every_chance_has_a_key_of_its_own():
    assert not np.array_equal(Chance().words(4), Chance().words(4))


def test_a_forked_process_does_not_repeat_its_parent(urandom, monkeypatch):
    chance = Chance()
    chance.words(2)
    monkeypatch.setattr(derive.os, "getpid", lambda: -1)
    assert chance.words(2).tolist() == list(struct.unpack("<2Q", keystream(b"\x02" * 32, 16)))
    assert len(urandom) == 2


def test_a_spent_key_is_replaced(urandom):
    chance = Chance()
    chance._stream.left = 8
    assert chance.words(2).tolist() == list(struct.unpack("<2Q", keystream(b"\x02" * 32, 16)))


def test_chance_shows_nothing(urandom):
    chance = Chance()
    for text in (repr(chance), str(chance), f"{chance}", repr(chance._stream)):
        assert "\\x01" not in text
        assert "0101" not in text
    assert not hasattr(chance, "__dict__")
    with pytest.raises(TypeError):
        pickle.dumps(chance)
    with pytest.raises(TypeError):
        copy.deepcopy(chance)
