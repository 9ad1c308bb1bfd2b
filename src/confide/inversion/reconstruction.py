"""Images from codes and from records of other patients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray

from confide import _check
from confide.encoders.base import Encoder
from confide.encoders.settings import Shape
from confide.inversion.assign import assign
from confide.inversion.base import (
    Finding,
    Floats,
    Integers,
    InversionAttack,
    Reconstruction,
    Records,
    Unpaired,
    Work,
    require_plaintexts,
    silent,
)
from confide.inversion.graph import match
from confide.inversion.kernel import (
    Doubles,
    agreement,
    components,
    covariances,
    find_turns,
    gains,
    nearest_rotation,
    third_moments,
    turned,
)
from confide.inversion.rows import has_positions, order_of
from confide.inversion.settings import Budget
from confide.inversion.statistics import Summary, problem
from confide.models.patch_encoder import patches

_FOR_POSITIONS = 8
"""Leading components by which positions are first told apart: those that differ least by key."""

_FLOOR = 1e-3
"""Energy of a row, in shares of the mean, below which it says nothing."""

_RIDGE = 1e-6

_LATE = "The time was over before the positions of the rows were settled."


@dataclass(frozen=True, kw_only=True)
class Reconstruct(InversionAttack[Unpaired, Reconstruction]):
    """Reconstruct hidden records, given none of them and no pair.

    The rows of all codes are put in one order (:mod:`confide.inversion.rows`), and public records
    are encoded under one key of the attacker's own.  What rows vary in is, under both keys, the
    same few kernel principal components but for one turn (:mod:`confide.inversion.kernel`).  The
    patch of each position and the turn are found by making the covariances of hidden components, of
    all pairs of positions, those of the public ones: first the positions by graph matching
    (:mod:`confide.inversion.graph`), then turn and positions alternately.  A linear map from
    components to patches, fitted on the attacker's own codes, gives the picture.

    It rests on hidden and public records being of one population, and on enough of both: the
    covariances have to be alike.  Detail finer than the leading components of a patch is lost.

    On 64 x 64 chest films in patches of 4, 484 hidden and 411 of other patients, width 1024, the
    median correlation with the truth beyond the mean film was 0.963 without hidden layers and 0.936
    with four, where 20 principal components of the true films reach 0.849
    (``benchmarks/inversion_reconstruction.py``).

    Parameters
    ----------
    components : kernel principal components that are used
    records : plaintexts that are encoded, at most
    starts : random signs of the components from which the turn is searched
    rounds : of turn and positions, at most
    patience : exchanges without success after which the first search for the positions ends
    """

    name: ClassVar[str] = "reconstruction"
    knowledge: ClassVar[type[Unpaired]] = Unpaired
    finding: ClassVar[type[Finding]] = Reconstruction
    headline: ClassVar[str] = "correlation"
    breaks_at: ClassVar[float] = 0.5
    needs_positions: ClassVar[bool] = True
    about: ClassVar[str] = (
        "Reconstructs the hidden records from their codes, with records of other patients alone."
    )
    source: ClassVar[str] = "confide"

    components: int = 12
    records: int = 500
    starts: int = 16
    rounds: int = 10
    patience: int = 500

    def __post_init__(self) -> None:
        _check.at_least(1, components=self.components)
        _check.at_least(2, records=self.records)
        _check.at_least(1, starts=self.starts)
        _check.at_least(1, rounds=self.rounds)
        _check.at_least(1, patience=self.patience)

    @classmethod
    def of(cls, budget: Budget) -> Self:
        """See :meth:`InversionAttack.of`."""
        if budget == "quick":
            return cls(patience=100)
        if budget == "standard":
            return cls(components=16, records=1000)
        return cls(components=16, records=5000, starts=64, patience=5000)

    def __call__(self, known: Unpaired, work: Work) -> Reconstruction:
        """See :meth:`InversionAttack.__call__`."""
        require_plaintexts(known)
        quiet = replace(work, progress=silent)
        order_seed, own_key, choice, search = work.seeds(4)
        order = order_of(known, replace(quiet, seed=order_seed))
        work.progress(1, 4)
        n, shape = known.codes.n_records, known.codes.shape
        hidden = components(
            lambda which: order.read(known.codes, which), n, shape, self.components, quiet
        )
        work.progress(2, 4)
        rng = np.random.default_rng(choice)
        records = known.plaintexts[np.sort(rng.permutation(len(known.plaintexts))[: self.records])]
        encoder = known.architecture.shadow(records, own_key, device=work.device)
        own = components(_encoded(encoder, records), len(records), shape, self.components, quiet)
        work.progress(3, 4)
        k = min(hidden.shape[2], own.shape[2])
        hidden, own = hidden[..., :k], own[..., :k]
        patch = np.arange(shape[0])
        if not order.known:
            first = (values[..., :_FOR_POSITIONS] for values in (hidden, own))
            ours, theirs = (_summary(values) for values in first)
            positions = problem(ours, [theirs])
            patch = match(positions, replace(quiet, seed=search), patience=self.patience)[0]
        rotation, patch, notes = self._turned(hidden, own, patch, order.known, rng, work)
        placed = np.empty_like(hidden)
        placed[:, patch] = hidden @ rotation.astype(np.float32)
        found = _decoded(placed, own, records, known.architecture.settings.patch)
        work.progress(4, 4)
        if not has_positions(known):
            notes += (
                "The rows are shuffled and carry no position, so that they cannot be put in order; "
                "this attack rests on that.",
            )
        return Reconstruction(records=found, notes=notes)

    def _turned(
        self,
        hidden: Floats,
        own: Floats,
        patch: Integers,
        fixed: bool,
        rng: np.random.Generator,
        work: Work,
    ) -> tuple[Doubles, Integers, tuple[str, ...]]:
        """The rotation of hidden components, the patch of each position, and notes."""
        left, right = covariances(hidden), covariances(own)
        third, wanted = third_moments(hidden), third_moments(own)

        def agrees(turn: Doubles) -> float:
            there = wanted[patch][:, :, patch]
            return agreement(third, there, nearest_rotation(turn))

        # Components come in nearly the same order under all keys; their signs do not.
        k = right.shape[2]
        starts = [0.7 * np.diag(rng.choice([-1.0, 1.0], k)) for _ in range(self.starts)]
        turns = find_turns(left, right[np.ix_(patch, patch)], starts)
        # Covariances alone can be fitted almost as well by a wrong turn; third moments tell.
        turn = min(turns, key=lambda one: one[0] - abs(agrees(one[1])))[1]
        notes: tuple[str, ...] = ()
        for _ in range(0 if fixed else self.rounds):
            if work.late():
                notes = (_LATE,)
                break
            new = assign(-gains(turned(left, turn), right, patch))
            if np.array_equal(new, patch):
                break
            patch = new
            turn = find_turns(left, right[np.ix_(patch, patch)], [turn])[0][1]
        rotation = nearest_rotation(turn)
        return rotation if agrees(turn) >= 0 else -rotation, patch, notes


def _encoded(encoder: Encoder, records: Records) -> Callable[..., Floats]:
    def read(which: slice | NDArray[np.integer[Any]]) -> Floats:
        return encoder(records[which])

    return read


def _summary(values: Floats) -> Summary:
    """What tells positions apart, from components (n, P, k)."""
    n, n_rows, _ = values.shape
    energy = np.square(values).sum(axis=2, dtype=np.float64)
    energy /= energy.mean()
    across = values.transpose(1, 0, 2).reshape(n_rows, -1)
    products = (across @ across.T / np.float32(n)).astype(np.float64)
    return Summary(energy=(np.log(energy + _FLOOR) / 2).astype(np.float32), products=products)


def _decoded(placed: Floats, own: Floats, records: Records, patch: int) -> Floats:
    """Components (n, P, k), in the frame of the attacker's own codes -> records (n, *shape).

    Parameters
    ----------
    own : (n_records, P, k) components of the codes of `records`
    """
    k = own.shape[2]
    mean = _mean_patches(records, patch)
    gram, cross = np.zeros((k, k)), np.zeros((k, mean.shape[1]))
    for part in _batches(records):
        x = own[part].reshape(-1, k)
        y = _patches(records[part], patch) - mean
        gram += x.T @ x
        cross += x.T @ y.reshape(len(x), -1)
    gram += _RIDGE * max(float(np.trace(gram)) / k, 1e-12) * np.eye(k)
    weights = np.linalg.solve(gram, cross).astype(np.float32)
    return joined(placed @ weights + mean, records.shape[1:], patch)


def joined(rows: Floats, shape: Shape, patch: int) -> Floats:
    """Put patches together again: the inverse of :func:`confide.models.patch_encoder.patches`.

    Parameters
    ----------
    rows : (n, P, n_inputs)
    shape : of one record
    patch : side or length of a patch

    Returns
    -------
    (n, *shape)
    """
    n, channels = len(rows), shape[0]
    if len(shape) == 2:
        x = rows.reshape(n, -1, channels, patch).transpose(0, 2, 1, 3)
    else:
        across = shape[2] // patch
        x = rows.reshape(n, -1, across, channels, patch, patch).transpose(0, 3, 1, 4, 2, 5)
    return np.ascontiguousarray(x.reshape(n, *shape))


def _mean_patches(records: Records, patch: int) -> Floats:
    """(P, n_inputs) over records."""
    total = sum(
        _patches(records[part], patch).sum(axis=0, dtype=np.float64) for part in _batches(records)
    )
    return np.asarray(total / len(records), dtype=np.float32)


def _patches(records: Records, patch: int) -> Floats:
    plain = torch.from_numpy(np.array(records, dtype=np.float32))
    rows: Floats = patches(plain, patch).numpy()
    return rows


def _batches(records: Records) -> list[slice]:
    step = max(1, 2**22 // records[0].size)
    return [slice(i, i + step) for i in range(0, len(records), step)]
