"""One vector a code, that does not depend on the order of its rows where that is random.

Codes of one patient resemble each other as the patient's images do, and so do these vectors; nobody
needs the key to compare them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from sklearn.utils.extmath import randomized_svd
from torch import Tensor

from confide.inversion.base import Architecture, Codes, Floats, Work
from confide.training.device import tensor_float32

_Vector = Callable[[Tensor], Tensor]

_NUMBERS_AT_ONCE = 2**24
_PROJECTED = 4096
"""Numbers to which the rows of a code in order are projected, at most about."""
_QUANTILES = 40
_TINY = 1e-12


def of_one_key(codes: Codes, architecture: Architecture, work: Work) -> Floats:
    """Vectors to compare codes of one key by.

    Rows in random order: mean and log variance of each channel over the rows.  Rows in order: all
    of them, projected at random where they are large (Johnson and Lindenstrauss, 1984).

    Returns
    -------
    (n_codes, any) float32
    """
    rows, width = codes.shape
    if architecture.settings.shuffle:
        return _gathered(codes, work, _channel_statistics)
    if rows * width <= 2 * _PROJECTED:
        return _gathered(codes, work, lambda x: x.flatten(1))
    each = max(1, _PROJECTED // rows)
    rng = np.random.default_rng([work.seed, 0x9])
    map_ = rng.standard_normal((width, each), dtype=np.float32) / np.float32(np.sqrt(each))
    projection = torch.from_numpy(map_).to(work.device)
    return _gathered(codes, work, lambda x: (x @ projection).flatten(1))


def of_any_key(codes: Codes, architecture: Architecture, work: Work) -> Floats:
    """Vectors to compare codes of different keys by, each column on a scale of its key.

    Inner products of rows depend on a random network's key little, because it is wide.  Rows in
    random order: quantiles of the inner products of all pairs of rows of a code, each row minus
    the mean row of the release.  Rows in order: the log length of each row, minus the mean over
    the codes at its position.

    Returns
    -------
    (n_codes, any) float32
    """
    shuffled = architecture.settings.shuffle
    total, n = torch.zeros(codes.shape, dtype=torch.float64, device=work.device), 0
    for part in _parts(codes, work):
        total += part.sum(dim=0, dtype=torch.float64)
        n += len(part)
    mean = (total / n).float()
    if not shuffled:
        return _gathered(codes, work, lambda x: _log_energy(x - mean, dim=2))
    mean = mean.mean(dim=0)
    rows = codes.shape[0]
    places = torch.linspace(0, rows * rows - 1, _QUANTILES, device=work.device).round().long()

    def quantiles(x: Tensor) -> Tensor:
        x = x - mean
        inner = torch.bmm(x, x.transpose(1, 2)) / x.shape[2]
        return inner.flatten(1).sort(dim=1).values[:, places]

    return _gathered(codes, work, quantiles)


def standardised(features: Floats) -> Floats:
    """Columns with mean 0 and variance 1; a constant column becomes zeros."""
    mean = features.mean(axis=0, dtype=np.float64)
    scale = features.std(axis=0, dtype=np.float64)
    constant = scale <= 1e-6 * np.abs(mean) + _TINY
    out = np.where(constant, 0.0, (features - mean) / np.where(constant, 1.0, scale))
    return out.astype(np.float32)


def components(features: Floats, n_components: int, power: float, seed: int) -> Floats:
    """Leading principal components, scaled by a power of their standard deviations.

    Parameters
    ----------
    features : (n, any)
    n_components : at most
    power : 1 keeps the geometry, 0 makes all components count alike
    seed : of the randomised decomposition (Halko et al., SIAM Review 53 (2011) 217-288)

    Returns
    -------
    (n, k) float32, mean 0, overall mean square 1
    """
    centred = features - features.mean(axis=0)
    k = min(n_components, *centred.shape)
    left, values, _ = randomized_svd(centred, k, n_iter=7, random_state=seed % 2**32)
    kept = values > 1e-5 * max(float(values[0]), _TINY)
    out = left[:, kept] * (values[kept] / max(float(values[0]), _TINY)) ** power
    scale = float(np.sqrt(np.mean(np.square(out)))) if out.size else 1.0
    return np.asarray(out / scale, dtype=np.float32)


def cosines(a: Floats, b: Floats) -> Floats:
    """(n, m) cosines of the rows of a and b; 0 for rows of zeros."""
    units = [x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), _TINY) for x in (a, b)]
    return np.asarray(units[0] @ units[1].T, dtype=np.float32)


def _parts(codes: Codes, work: Work) -> Iterator[Tensor]:
    rows, width = codes.shape
    step = max(1, _NUMBERS_AT_ONCE // (rows * max(rows, width)))
    for i in range(0, codes.n_records, step):
        part = codes.codes(slice(i, min(i + step, codes.n_records)))
        yield torch.from_numpy(np.array(part)).to(work.device)


def _gathered(codes: Codes, work: Work, vector: _Vector) -> Floats:
    with tensor_float32(False), torch.no_grad():
        parts = [vector(part).float().cpu().numpy() for part in _parts(codes, work)]
    return np.concatenate(parts)


def _channel_statistics(x: Tensor) -> Tensor:
    """(n, P, C) -> (n, 2 C)."""
    return torch.cat([x.mean(dim=1), _log_energy(x - x.mean(dim=1, keepdim=True), dim=1)], dim=1)


def _log_energy(x: Tensor, dim: int) -> Tensor:
    return x.square().mean(dim=dim).clamp_min(_TINY).log()
