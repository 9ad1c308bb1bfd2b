"""Images that are almost the same: one picture saved, scaled or windowed in two ways.

Each image becomes 255 bits: the signs of its low frequencies (discrete cosine transform of 32 x 32
means, the first 16 x 16 but the mean), each against the median over all images.  Two images are
candidates when at most 31 bits differ, and near-duplicates when their 32 x 32 means, colours
included, also correlate at .98 or more.  Brightness and contrast do not matter, nor do changes of
size or compression that leave the 32 x 32 means alone; copies that are mirrored, turned, shifted or
cropped, and other pictures of the same person, are not found.

Candidates are found without comparing all pairs (multi-index hashing, Norouzi, Punjani & Fleet,
CVPR 2012): the bits are cut into 16 bands, and only images that agree in a whole band are compared.
A pair that differs in up to 15 bits agrees in at least one; of pairs with 31 random differences,
nine in ten do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from confide.errors import ArgumentError

MAX_DISTANCE = 31
MIN_CORRELATION = 0.98

_SIDE, _KEPT = 32, 16
_N_BANDS = 16
_BLANK = 1.0  # grey levels: the standard deviation of an image that shows nothing
_CROWDED = 4096  # images in one bucket of one band, which that band then does not compare
_PART = 4096  # images at a time
_PAIRS = 2**20  # pairs at a time

Pairs = NDArray[np.intp]


@dataclass(frozen=True, kw_only=True, eq=False)
class NearDuplicates:
    """Near-duplicates across patients.

    Attributes
    ----------
    sets : each the rows of images that are linked by near-duplicates across patients
    n_blank : images that show nothing, which are not compared
    n_crowded : images that are like thousands of others in every band, which are not compared
    """

    sets: list[NDArray[np.intp]]
    n_blank: int
    n_crowded: int


def near_duplicates(images: NDArray[np.uint8], patient_index: NDArray[np.intp]) -> NearDuplicates:
    """Find images that are almost the same and belong to different patients.

    Parameters
    ----------
    images : (n, channels, height, width) uint8
    patient_index : (n,) the patient of each image

    Raises
    ------
    ArgumentError : another shape or type
    """
    if images.ndim != 4 or images.dtype != np.uint8 or patient_index.shape != images.shape[:1]:
        raise ArgumentError(
            "Expected uint8 images (n, channels, height, width) and patient_index (n,), got "
            f"{images.dtype} {images.shape} and {patient_index.shape}."
        )
    codes, shown = hashes(images)
    rows = np.flatnonzero(shown)
    unique, first, of = np.unique(codes[rows], axis=0, return_index=True, return_inverse=True)
    # Equal codes are linked through the first of them, so that many copies cost no more.
    to_first = np.stack([rows[first[of]], rows], axis=1)
    linked = [to_first[to_first[:, 0] != to_first[:, 1]]]
    # Of equal codes that may be of several patients: -1.
    owner = np.where(np.bincount(of) == 1, patient_index[rows[first]], -1)
    compared = np.zeros(len(unique), dtype=bool)
    for pairs in _candidates(unique, owner, compared):
        linked.append(rows[first[pairs]])
    pairs = np.unique(np.concatenate(linked), axis=0)
    pairs = pairs[_correlation(images, pairs) >= MIN_CORRELATION]
    return NearDuplicates(
        sets=_sets(pairs, patient_index),
        n_blank=int((~shown).sum()),
        n_crowded=int((~compared).sum()),
    )


def hashes(images: NDArray[np.uint8]) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """Perceptual hash of each image.

    Parameters
    ----------
    images : (n, channels, height, width) uint8

    Returns
    -------
    codes : (n, 4) uint64, of which 255 bits count
    shown : (n,) bool; false for images that show nothing, whose code means nothing
    """
    rows, columns = (_low_frequencies(side) for side in images.shape[2:])
    found = np.empty((len(images), _KEPT * _KEPT - 1), dtype=np.float32)
    for start in range(0, len(images), _PART):
        part = images[start : start + _PART]
        grey = part.mean(axis=1, dtype=np.float32) if part.shape[1] > 1 else part[:, 0]
        # As two large products, which take a tenth of the time of many small ones.
        across = grey.astype(np.float32).reshape(-1, grey.shape[2]) @ columns.T
        across = across.reshape(*grey.shape[:2], _KEPT).swapaxes(1, 2)
        waves = across.reshape(-1, grey.shape[1]) @ rows.T
        found[start : start + _PART] = waves.reshape(len(part), -1)[:, 1:]
    size = np.linalg.norm(found, axis=1, keepdims=True)
    shown = size[:, 0] > _BLANK * _SIDE  # of an orthonormal transform: standard deviation x 32
    found /= np.maximum(size, 1e-6)
    bits = np.zeros((len(images), 256), dtype=bool)
    # In random order, so that no band holds only neighbouring frequencies, which go together.
    order = np.random.default_rng(0).permutation(found.shape[1])
    middle = np.median(found[shown], axis=0) if shown.any() else np.zeros(found.shape[1])
    bits[:, :-1] = (found > middle)[:, order]
    return np.packbits(bits, axis=1).view(np.uint64), shown


def _low_frequencies(side: int) -> NDArray[np.float32]:
    """(16, side): the first waves of the cosine transform of :func:`area_means`."""
    return dct(area_means(side, _SIDE), axis=0, norm="ortho")[:_KEPT].astype(np.float32)


def area_means(side: int, n: int) -> NDArray[np.float64]:
    """(n, side): a matrix that takes the means of n equal stretches of a side."""
    edges = np.linspace(0, side, n + 1)
    pixel = np.arange(side)
    overlap = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    return np.clip(overlap, 0, None) * (n / side)


def _candidates(
    codes: NDArray[np.uint64], owner: NDArray[np.intp], compared: NDArray[np.bool_]
) -> Iterator[Pairs]:
    """Pairs (n_pairs, 2) of rows of two owners that agree in a band and are near in all.

    Marks the rows that were compared.  An owner below 0 differs from every other.
    """
    bands = codes.view(np.uint16)
    for i in range(_N_BANDS):
        order = np.argsort(bands[:, i], kind="stable")
        sizes = np.unique(bands[:, i], return_counts=True)[1]
        crowded = np.repeat(sizes > _CROWDED, sizes)
        compared[order[~crowded]] = True
        # Each place is paired with the later places of its bucket, which lie near in memory.
        n_later = np.repeat(np.cumsum(sizes), sizes) - 1 - np.arange(len(order))
        n_later[crowded] = 0
        words, theirs = np.ascontiguousarray(codes[order].T), owner[order]
        total = np.cumsum(n_later)
        start = 0
        while start < len(order):
            done = total[start - 1] if start else 0
            stop = max(int(np.searchsorted(total, done + _PAIRS, "right")), start + 1)
            n = n_later[start:stop]
            a = np.repeat(np.arange(start, stop), n)
            b = a + 1 + np.arange(len(a)) - np.repeat(np.cumsum(n) - n, n)
            near = _distance(words, a, b) <= MAX_DISTANCE
            near &= (theirs[a] != theirs[b]) | (theirs[a] < 0)
            yield np.stack([order[a[near]], order[b[near]]], axis=1)
            start = stop


def _distance(
    words: NDArray[np.uint64], a: NDArray[np.intp], b: NDArray[np.intp]
) -> NDArray[np.uint16]:
    """(n_pairs,) number of bits that differ; words (4, n), of which places a and b are taken."""
    found = np.zeros(len(a), dtype=np.uint16)
    for word in words:
        found += np.bitwise_count(word[a] ^ word[b])
    return found


def _correlation(images: NDArray[np.uint8], pairs: Pairs) -> NDArray[np.float64]:
    """(n_pairs,) correlation of the 32 x 32 means, colours included."""
    rows, columns = (area_means(side, _SIDE).astype(np.float32) for side in images.shape[2:])
    found = np.empty(len(pairs))
    part = max(1, 2**24 // int(np.prod(images.shape[1:])))
    for start in range(0, len(pairs), part):
        some = pairs[start : start + part]
        both = rows @ images[some].astype(np.float32) @ columns.T
        both = both.reshape(len(some), 2, -1).astype(np.float64)
        both -= both.mean(axis=2, keepdims=True)
        both /= np.maximum(np.linalg.norm(both, axis=2, keepdims=True), 1e-6)
        found[start : start + part] = (both[:, 0] * both[:, 1]).sum(axis=1)
    return found


def _sets(pairs: Pairs, patient_index: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """Linked rows, where they are of more than one patient, in the order of their first rows."""
    n = len(patient_index)
    links = coo_array((np.ones(len(pairs), dtype=bool), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    number = connected_components(links, directed=False)[1]
    rows = np.flatnonzero(np.bincount(number)[number] > 1)
    groups: dict[int, list[int]] = {}
    for row in rows:
        groups.setdefault(int(number[row]), []).append(int(row))
    found = [np.asarray(group, dtype=np.intp) for group in groups.values()]
    return [group for group in found if len(np.unique(patient_index[group])) > 1]
