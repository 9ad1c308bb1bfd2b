"""The geometry of hidden patches that a random network keeps, and how to turn it into a known one.

A wide network of random weights is a random-feature map (Rahimi and Recht, NIPS 2007): inner
products of the rows of its codes, each beyond the mean of its position, are a kernel of the
patches, nearly the same for all keys.  The principal components of the rows are those of that
kernel.  Under two keys they differ by a turn alone: an orthogonal map that mixes components of
nearly equal variance and flips signs.

One turn serves all positions of all records, because all patches go through one network.  How the
components of two positions vary together over the records shows it: the turn that makes these
covariances, of all pairs of positions, those of public records is in general unique up to its sign,
and third moments tell the sign.  No record is paired with another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.optimize import minimize
from torch import Tensor

from confide.errors import ArgumentError
from confide.inversion.base import Floats, Integers, Work
from confide.training.device import tensor_float32

Doubles = NDArray[np.float64]
Read = Callable[[slice | NDArray[np.integer[Any]]], Floats]
"""Numbers of codes -> (n, P, C), the codes with rows at common positions."""

SAMPLE = 2**25
"""Numbers in the codes from which the directions of the components are taken (128 MiB)."""

AT_ONCE = 2**24
"""Numbers in the codes that are read at once."""

_EXACT = 1e-6
"""Share of the variance of the first component below which another is taken for rounding."""

_ITERATIONS = 500


def components(
    read: Read, n_codes: int, shape: tuple[int, int], n_components: int, work: Work
) -> Floats:
    """Principal components of the rows of codes beyond the mean of their position.

    The directions are those of a sample of the codes; all codes are then read once, some at a
    time.

    Parameters
    ----------
    read : gives codes with rows at common positions
    n_codes : how many there are
    shape : (P, C) of a code
    n_components : at most; fewer if the rows vary in fewer directions
    work : its seed chooses the sample, its device computes

    Returns
    -------
    (n_codes, P, k) float32, descending variance; the mean over codes is 0 at each position, the
    standard deviation of the first component 1, and that of the others the square root of what it
    is in the codes, so that small ones tell something too

    Raises
    ------
    ArgumentError : fewer than 2 codes, or codes that are all the same
    """
    if n_codes < 2:
        raise ArgumentError(f"Expected at least 2 codes, got {n_codes}.")
    n_rows, width = shape
    rng = np.random.default_rng([work.seed, 0xC09])
    n_sample = min(n_codes, max(2, SAMPLE // (n_rows * width)))
    sample = np.sort(rng.permutation(n_codes)[:n_sample])
    with torch.no_grad(), tensor_float32(False):
        directions = _directions(torch.from_numpy(read(sample)).to(work.device), n_components)
        out = np.empty((n_codes, n_rows, directions.shape[1]), dtype=np.float32)
        step = max(1, AT_ONCE // (n_rows * width))
        for i in range(0, n_codes, step):
            part = slice(i, min(i + step, n_codes))
            rows = torch.from_numpy(read(part)).to(work.device)
            out[part] = (rows @ directions).cpu().numpy()
    out -= out.mean(axis=0, dtype=np.float64).astype(np.float32)
    deviation = np.sqrt(np.square(out).mean(axis=(0, 1), dtype=np.float64))
    scaled: Floats = out / np.sqrt(deviation * deviation[0]).astype(np.float32)
    return scaled


def _directions(x: Tensor, n_components: int) -> Tensor:
    """Unit vectors (C, k) along which the rows of codes (n, P, C) vary most."""
    level = float(x.abs().max())
    rest = (x - x.mean(dim=0)).flatten(0, 1)
    covariance = (rest.T @ rest).double().cpu().numpy() / len(rest)
    k = min(n_components, len(covariance))
    last = len(covariance) - 1
    variance, vectors = eigh(covariance, subset_by_index=(last - k + 1, last))
    variance, vectors = variance[::-1], vectors[:, ::-1]
    if variance[0] <= (1e-5 * level) ** 2:
        raise ArgumentError("Expected codes that differ from each other; these are all the same.")
    kept = variance > _EXACT * variance[0]
    return torch.from_numpy(np.ascontiguousarray(vectors[:, kept])).to(x)


def covariances(values: Floats) -> Floats:
    """(P, P, k, k) covariance of components (n, P, k) of each two positions."""
    n, n_rows, k = values.shape
    flat = values.reshape(n, n_rows * k)
    blocks = (flat.T @ flat / np.float32(n)).reshape(n_rows, k, n_rows, k)
    return np.ascontiguousarray(blocks.transpose(0, 2, 1, 3))


def turned(left: Floats, turn: Doubles) -> Floats:
    """(P, P, q, q) covariances of components (P, P, k, k) after a map (k, q) of the components."""
    k, q = turn.shape
    both = np.kron(turn, turn).astype(np.float32)
    return (left.reshape(-1, k * k) @ both).reshape(*left.shape[:2], q, q)


def find_turns(left: Floats, right: Floats, starts: list[Doubles]) -> list[tuple[float, Doubles]]:
    """Linear maps of components after which covariances are most nearly others.

    Least squares over all pairs of positions, from each start by L-BFGS.  The maps are free, not
    orthogonal, which makes them easy to find; the sign of each is arbitrary.

    Parameters
    ----------
    left, right : (P, P, k, k) and (P, P, q, q) covariances of the same positions
    starts : (k, q) each

    Returns
    -------
    for each start the share of the squares of `right` that is left over, and the map (k, q)
    """
    k, q = left.shape[2], right.shape[2]
    a, b = left.reshape(-1, k * k), right.reshape(-1, q * q)
    inner, cross = (a.T @ a).astype(np.float64), (a.T @ b).astype(np.float64)
    constant = float(np.square(b).sum(dtype=np.float64)) or 1.0

    def loss(flat: Doubles) -> tuple[float, Doubles]:
        turn = flat.reshape(k, q)
        both = np.kron(turn, turn)
        seen = inner @ both
        value = float((both * (seen - 2.0 * cross)).sum()) / constant + 1.0
        slope = (2.0 / constant * (seen - cross)).reshape(k, k, q, q)
        gradient = np.einsum("ijab,jb->ia", slope, turn) + np.einsum("ijab,ia->jb", slope, turn)
        return value, gradient.ravel()

    found = [
        minimize(loss, x.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": _ITERATIONS})
        for x in starts
    ]
    return [(float(x.fun), np.asarray(x.x, dtype=np.float64).reshape(k, q)) for x in found]


def third_moments(values: Floats) -> Floats:
    """(P, k, P) mean over records of a component (n, P, k) times the energy of a position.

    Energies are sums of squares over the components, which no rotation changes.
    """
    n, n_rows, k = values.shape
    energy = np.square(values).sum(axis=2)
    moments: Floats = values.reshape(n, n_rows * k).T @ energy / np.float32(n)
    return moments.reshape(n_rows, k, n_rows)


def agreement(left: Floats, right: Floats, rotation: Doubles) -> float:
    """Cosine, from -1 to 1, of third moments (P, k, P) after a rotation (k, k) with others.

    It changes its sign with the rotation.
    """
    ours = np.einsum("jal,ab->jbl", left, rotation, optimize=True)
    lengths = float(np.linalg.norm(ours)) * float(np.linalg.norm(right))
    return float((ours * right).sum(dtype=np.float64)) / lengths if lengths > 0 else 0.0


def nearest_rotation(turn: Doubles) -> Doubles:
    """The map (k, q) nearest to a map whose columns, or rows if they are fewer, are orthonormal."""
    u, _, v = np.linalg.svd(turn, full_matrices=False)
    rotation: Doubles = u @ v
    return rotation


def gains(left: Floats, right: Floats, patch: Integers) -> Doubles:
    """(P, P) how well position j fits patch p while all others are taken as given.

    Parameters
    ----------
    left, right : (P, P, q, q) covariances, in the same components
    patch : (P,) patch of each position of the left, a permutation
    """
    n_rows = len(patch)
    product = left.reshape(n_rows, -1) @ right[:, patch].reshape(n_rows, -1).T
    return product.astype(np.float64)
