"""What a key leaves unchanged: how far the rows of a code lie from their mean over codes.

A network of random weights maps patches that are alike to rows that are alike, whatever the
weights.  Beyond its mean over codes, a row has a length, its *energy*, and an angle with each other
row of its code; both depend on the plain patches by functions that are nearly the same for all
keys.  Codes of public records under keys of the attacker's own show what they are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from confide.inversion.base import Architecture, ArrayCodes, Codes, Floats, Records, Work
from confide.inversion.graph import Doubles, Problem
from confide.inversion.rows import Order, as_given, parts, tensor
from confide.models.patch_encoder import patches
from confide.training.device import tensor_float32

FLOOR = 0.02
"""Of a length, in shares of the root mean square: below it lies rounding."""

RIDGE = 1e-3

NUMBERS = 2**27
"""Numbers in the codes of the attacker's own that are in memory at once (512 MiB)."""

CALIBRATION = 32
"""Records that calibrate an encoder of the attacker's own, which costs as much as encoding them."""

FEATURES_AT_ONCE = 2**21
"""Numbers in the records whose features are computed at once."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Summary:
    """What is known of codes in order.

    Attributes
    ----------
    energy : (n_codes, P) float32, log length of a row beyond the mean over codes, where 0 is the
        root mean square over all
    products : (P, P) float64, mean over codes of the inner products of two of their rows beyond
        the mean
    """

    energy: Floats
    products: Doubles


def summary(codes: Codes, order: Order, work: Work) -> Summary:
    """Summarise codes; they are read once, some at a time."""
    n, n_rows = len(order.rows), codes.shape[0]
    squares = np.empty((n, n_rows))
    products = torch.zeros(n_rows, n_rows, dtype=torch.float64, device=work.device)
    mean = torch.from_numpy(order.mean).to(work.device)
    with torch.no_grad(), tensor_float32(False):
        for part in parts(codes):
            rest = tensor(order.read(codes, part), work.device) - mean
            squares[part] = rest.square().sum(dim=2).cpu().numpy()
            for row in rest:
                products += row @ row.T
    return Summary(energy=_logarithm(squares), products=(products / n).cpu().numpy())


@dataclass(frozen=True, kw_only=True)
class Shadows:
    """Keys of the attacker's own.

    Parameters
    ----------
    keys : how many
    records : encoded under each, at most; fewer if their codes would not fit in memory
    """

    keys: int
    records: int

    def encode(
        self, architecture: Architecture, records: Records, work: Work
    ) -> list[tuple[Records, Summary]]:
        """Some records and the summary of their codes, for each key; fewer keys when it is late."""
        n_numbers = architecture.n_patches * architecture.settings.width
        n = min(len(records), self.records, max(2, NUMBERS // n_numbers))
        out = []
        for seed in work.seeds(self.keys):
            chosen = np.random.default_rng(seed).permutation(len(records))[:n]
            out.append((records[chosen], shadow_summary(architecture, records[chosen], seed, work)))
            if work.late():
                break
        return out


def shadow_summary(architecture: Architecture, records: Records, seed: int, work: Work) -> Summary:
    """Summary of the codes of records under a key of the attacker's own, position j being patch j.

    Parameters
    ----------
    records : (n, *shape), few enough for their codes to fit in memory
    seed : of the key
    """
    encoder = architecture.shadow(records[:CALIBRATION], seed, device=work.device)
    codes = ArrayCodes(encoder(records))
    return summary(codes, as_given(codes, Work()), work)


def problem(hidden: Summary, shadows: list[Summary]) -> Problem:
    """The search for the patch of each position, from the correlations of positions."""
    theirs = [_relations(shadow) for shadow in shadows]
    right = [np.mean(matrices, axis=0) for matrices in zip(*theirs, strict=True)]
    signs = np.mean([_signs(shadow) for shadow in shadows], axis=0)
    distance = ((_signs(hidden)[:, None] - signs[None]) ** 2).mean(axis=2)
    return Problem(_relations(hidden), right, -distance / 2)


def _relations(known: Summary) -> list[Doubles]:
    """(P, P) each: how rows of two positions, and their energies, correlate over codes."""
    return [
        _fisher(known.products / _outer_root(known.products)),
        _fisher(_correlations(known.energy)),
    ]


def _signs(known: Summary) -> Doubles:
    """(P, 4) what tells positions apart by themselves, each standardised over the positions."""
    cosines = known.products / _outer_root(known.products)
    columns = (
        np.log(np.maximum(np.diag(known.products), 1e-12 * np.trace(known.products) + 1e-300)),
        known.energy.mean(axis=0),
        known.energy.std(axis=0),
        cosines.mean(axis=1),
    )
    return np.stack([standardised(column) for column in columns], axis=1)


def _fisher(correlations: Doubles) -> Doubles:
    """Fisher's z: differences near 1, of neighbours, count for more."""
    return np.arctanh(np.clip(correlations, -0.999, 0.999))


def _outer_root(products: Doubles) -> Doubles:
    root = np.sqrt(np.maximum(np.diag(products), 1e-12 * np.trace(products) + 1e-300))
    return np.outer(root, root)


def _correlations(energy: Floats) -> Doubles:
    values = standardised(energy)
    return values.T @ values / len(values)


def standardised(values: Floats | Doubles) -> Doubles:
    """Mean 0 and deviation 1 along the first axis; 0 where nothing varies."""
    rest = values - values.mean(axis=0, dtype=np.float64)
    spread = rest.std(axis=0)
    return rest / np.where(spread > 1e-9, spread, np.inf)


def _logarithm(squares: Doubles) -> Floats:
    """Half the logarithm of squares, in units of their mean, floored."""
    level = squares.mean()
    relative = squares / level if level > 0 else np.ones_like(squares)
    return np.asarray(np.log(relative + FLOOR**2) / 2, dtype=np.float32)


@dataclass(frozen=True, kw_only=True, eq=False)
class Plain:
    """What plain patches are measured from.

    Attributes
    ----------
    mean : (P, k) float32 the mean over records
    level : root mean square of what lies beyond it, over all patches, in grey values
    center, spread : mean and deviation of all values
    patch : side or length of a patch
    """

    mean: Floats
    level: float
    center: float
    spread: float
    patch: int

    @classmethod
    def of(cls, records: Records, patch: int) -> Plain:
        """Measured from these records."""
        batches = [_patches(records[part], patch) for part in _batches(records)]
        total = sum(x.sum(dim=0, dtype=torch.float64) for x in batches)
        squares = sum(x.double().square().sum(dim=0) for x in batches)
        mean = torch.as_tensor(total / len(records))
        variance = (torch.as_tensor(squares / len(records)) - mean.square()).clamp_min(0)
        center = float(mean.mean())
        spread = float((variance + (mean - center).square()).mean().sqrt())
        return cls(
            mean=mean.float().numpy(),
            level=float(variance.mean().sqrt()) or 1.0,
            center=center,
            spread=spread or 1.0,
            patch=patch,
        )

    def contrast(self, records: Records) -> Floats:
        """(n, P) log root mean square of each patch beyond the mean, in grey values."""
        mean = torch.from_numpy(self.mean)
        logs = [
            _log((_patches(records[part], self.patch) - mean).div_(self.level).square().mean(2))
            for part in _batches(records)
        ]
        return np.asarray(torch.cat(logs).numpy() / 2 + np.log(self.level), dtype=np.float32)

    def features(self, records: Records) -> Tensor:
        """(n, P, n_features) brightness, contrast and texture of each patch, and their products."""
        raw = (_patches(records, self.patch) - self.center) / self.spread
        x = raw - (torch.from_numpy(self.mean) - self.center) / self.spread
        x *= self.spread / self.level
        one, rms, sd = x.mean(dim=2), x.square().mean(dim=2).sqrt(), x.std(dim=2, correction=0)
        bright, texture = raw.mean(dim=2), _log(raw.var(dim=2, correction=0))
        energy = raw.square().mean(dim=2)
        usual = ((torch.from_numpy(self.mean) - self.center) / self.spread).mean(dim=1)
        usual = usual.expand_as(one)
        beyond = [f(v) for v in (rms, one.abs(), sd) for f in (_same, torch.square, _log_square)]
        other = [(0.25 + rms.square()).log(), one, bright, bright.square(), texture, usual]
        other += [texture.square(), energy.sqrt(), energy, usual.square(), usual * one]
        first = torch.stack(beyond + other, dim=2)
        i, j = torch.triu_indices(first.shape[2], first.shape[2])
        return torch.cat([first, first[..., i] * first[..., j]], dim=2)


def _same(x: Tensor) -> Tensor:
    return x


def _log(square: Tensor) -> Tensor:
    return (square + FLOOR**2).log()


def _log_square(x: Tensor) -> Tensor:
    return _log(x.square())


def _batches(records: Records) -> list[slice]:
    step = max(1, FEATURES_AT_ONCE // max(1, records[0].size))
    return [slice(i, i + step) for i in range(0, len(records), step)]


def _patches(records: Records, patch: int) -> Tensor:
    return patches(tensor(records.astype(np.float32), torch.device("cpu")), patch)


@dataclass(frozen=True, kw_only=True, eq=False)
class EnergyMap:
    """Predicts the energies of codes from plain patches: a ridge regression, the same for all keys.

    Attributes
    ----------
    plain : what patches are measured from
    weights, offset : of the features
    lowest, highest : energies that were seen; predictions stay between them
    certainty : (P,) correlation of energy and prediction over records, at each position
    """

    plain: Plain
    weights: Doubles
    offset: float
    lowest: float
    highest: float
    certainty: Doubles

    @classmethod
    def fitted(cls, plain: Plain, shadows: list[tuple[Records, Floats]]) -> EnergyMap:
        """To records and the (n, P) energies of their codes, for each key."""
        # Second moments of (1, features, energy), from which the regression follows.
        moments, n = np.zeros(()), 0
        for records, energy in shadows:
            for part in _batches(records):
                x = plain.features(records[part]).flatten(0, 1).double().numpy()
                x = np.column_stack([np.ones(len(x)), x, energy[part].ravel()])
                moments, n = moments + x.T @ x, n + len(x)
        moments = moments / n
        center, level = moments[0, 1:-1], moments[0, -1]
        gram = moments[1:-1, 1:-1] - np.outer(center, center)
        cross = moments[1:-1, -1] - center * level
        spread = np.sqrt(np.maximum(np.diag(gram), 0))
        spread = np.where(spread > 1e-6, spread, np.inf)
        gram = gram / np.outer(spread, spread) + RIDGE * np.eye(len(center))
        weights = np.linalg.solve(gram, cross / spread) / spread
        found = cls(
            plain=plain,
            weights=weights,
            offset=float(level - center @ weights),
            lowest=min(float(energy.min()) for _, energy in shadows),
            highest=max(float(energy.max()) for _, energy in shadows),
            certainty=np.zeros(len(plain.mean)),
        )
        certainty = [
            (standardised(found(records)) * standardised(energy)).mean(axis=0)
            for records, energy in shadows
        ]
        return replace(found, certainty=np.mean(certainty, axis=0))

    def __call__(self, records: Records) -> Floats:
        """(n, *shape) records -> (n, P) energies that their codes would have."""
        weights = torch.from_numpy(self.weights)
        return np.concatenate(
            [
                (self.plain.features(records[part]).double() @ weights + self.offset)
                .clamp(self.lowest, self.highest)
                .float()
                .numpy()
                for part in _batches(records)
            ]
        )
