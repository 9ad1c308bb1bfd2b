"""Which plaintext is whose code, by comparing patches with rows (Carlini et al., 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from confide import _check
from confide.errors import ArgumentError
from confide.inversion.assign import assign
from confide.inversion.base import (
    CodesOnly,
    Floats,
    Integers,
    InversionAttack,
    Matching,
    Records,
    SameImages,
    Work,
    require_plaintexts,
    silent,
)
from confide.inversion.contrast import Towers, trained
from confide.inversion.extraction import correlations, extract, nearness
from confide.inversion.moments import of_codes, of_records, of_shadow, standardised
from confide.inversion.rows import Order, has_positions, order_of
from confide.inversion.settings import Budget
from confide.inversion.substitute import standardiser
from confide.training.device import tensor_float32

N_DIRECTIONS, N_QUANTILES = 64, 32
"""Of the first comparison of images; see `order_free`."""

ROUNDS = 10
"""Of matching positions and images in turn, at most; they agree after 3 or 4."""

NO_POSITIONS = (
    "The rows are shuffled and carry no embedding of their position, by which this attack would "
    "put them in order; that it fails on such codes says nothing."
)


@dataclass(frozen=True, kw_only=True)
class Assignment(InversionAttack[SameImages, Matching]):
    """Compare patches with rows by features that keys leave unchanged, then match images.

    Rows are put in order from the codes alone.  Codes of the plaintexts under keys of the
    attacker's own train two small networks to tell whether a patch and a row belong together.
    Images and positions are then matched in turn: for the images matched so far one assignment
    gives the patch of each position, and with it one assignment matches the images.  Where the
    published attack starts from an assignment of rows for each pair of images, this one starts from
    sliced transport distances between images, which cost a product of matrices; measured on X-rays,
    both starts lead to the same matching.

    Parameters
    ----------
    shadow_keys : keys of the attacker's own
    shadow_images : plaintexts that are encoded with each, at most
    steps, batch_size : of training, and pairs of patch and row a step
    lr : learning rate of the first step, which falls linearly to 0
    extractions : times that an encoder is trained on the matching and gives a new one
    extraction_steps : of training it
    """

    shadow_keys: int = 5
    shadow_images: int = 100
    steps: int = 4000
    batch_size: int = 1024
    lr: float = 1e-3
    extractions: int = 0
    extraction_steps: int = 2000

    name: ClassVar[str] = "assignment"
    knowledge: ClassVar[type[CodesOnly]] = SameImages
    finding: ClassVar[type[Matching]] = Matching
    headline: ClassVar[str] = "reid_identical"
    breaks_at: ClassVar[float] = 0.95
    needs_positions: ClassVar[bool] = True
    about: ClassVar[str] = (
        "Compares patches of the plaintexts with rows of the codes by statistics that a key leaves "
        "nearly unchanged, and assigns each code to a plaintext."
    )
    source: ClassVar[str] = (
        "Carlini et al., arXiv 2108.07256 (2021), section 3; first matching by confide"
    )

    def __post_init__(self) -> None:
        for name in ("shadow_keys", "steps", "extraction_steps"):
            _check.at_least(1, **{name: getattr(self, name)})
        _check.at_least(2, shadow_images=self.shadow_images)
        _check.at_least(2, batch_size=self.batch_size)
        _check.at_least(0, extractions=self.extractions)

    @classmethod
    def of(cls, budget: Budget) -> Self:
        """See :meth:`InversionAttack.of`; "paper" has the sizes of Carlini et al."""
        if budget == "quick":
            return cls(steps=1500, batch_size=512)
        if budget == "standard":
            return cls()
        return cls(shadow_keys=30, steps=80_000, batch_size=4096, lr=1e-4, extractions=3)

    def __call__(self, known: SameImages, work: Work) -> Matching:
        """See :meth:`InversionAttack.__call__`.

        Raises
        ------
        ArgumentError : plaintexts of another shape, or codes of another architecture
        """
        require_plaintexts(known)
        wanted = (known.architecture.n_patches, known.architecture.settings.width)
        if known.codes.shape != wanted:
            raise ArgumentError(
                f"Expected codes of shape {wanted} by their architecture, got {known.codes.shape}."
            )
        notes: tuple[str, ...] = () if has_positions(known) else (NO_POSITIONS,)
        with tensor_float32(False):
            order = order_of(known, replace(work, progress=silent))
            towers, late = self._towers(known, work)
            code = towers.of(towers.code, standardised(of_codes(known.codes, order, work)))
            plain = towers.of(
                towers.plain, standardised(_of_plaintexts(known, known.plaintexts, work))
            )
            patch, similarity, assigned = matched(plain, code, in_order=order.known)
        notes += late
        for i in range(self.extractions):
            if work.late():
                break
            similarity, late = self._extracted(known, assigned, in_patches(order, patch), work, i)
            assigned = assign(-similarity)
            notes += late
            if not order.known:
                patch = positions(plain, code, assigned)
        work.progress(self._total, self._total)
        return Matching(notes=tuple(dict.fromkeys(notes)), similarity=similarity, assigned=assigned)

    def curves(self) -> Mapping[str, Mapping[float, Self]]:
        """See :meth:`InversionAttack.curves`: the keys of the attacker's own."""
        return {"shadow keys": {n: replace(self, shadow_keys=n) for n in (1, 2, 3, 5)}}

    @property
    def _total(self) -> int:
        return self.shadow_keys + self.steps + self.extractions * self.extraction_steps

    def _towers(self, known: SameImages, work: Work) -> tuple[Towers, tuple[str, ...]]:
        """Train on codes of the plaintexts under other keys; and notes."""
        seed, *seeds = work.seeds(1 + self.shadow_keys)
        n = len(known.plaintexts)
        plain: list[Tensor] = []
        code: list[Tensor] = []
        for i, key in enumerate(seeds):
            if code and work.late():
                break
            some = np.random.default_rng(key).permutation(n)[: self.shadow_images]
            code.append(
                standardised(of_shadow(known.architecture, known.plaintexts[some], key, work))
            )
            plain.append(standardised(_of_plaintexts(known, known.plaintexts[some], work)))
            work.progress(i + 1, self._total)
        return trained(
            torch.cat(plain).flatten(0, 1),
            torch.cat(code).flatten(0, 1),
            self._later(work, self.shadow_keys),
            steps=self.steps,
            batch_size=self.batch_size,
            lr=self.lr,
            seed=seed,
        )

    def _later(self, work: Work, done: int) -> Work:
        """The same work, whose progress counts the steps done before."""
        return replace(work, progress=lambda at, _: work.progress(done + at, self._total))

    def _extracted(
        self, known: SameImages, assigned: Integers, order: Order, work: Work, i: int
    ) -> tuple[Floats, tuple[str, ...]]:
        """Similarity by an encoder trained on the matching so far, the i-th; and notes."""
        later = self._later(work, self.shadow_keys + self.steps + i * self.extraction_steps)
        found = extract(known, assigned, order, later, steps=self.extraction_steps)
        return nearness(found, known, order, work), found.notes


def matched(plain: Tensor, code: Tensor, *, in_order: bool) -> tuple[Integers, Floats, Integers]:
    """Match images and positions in turn.

    Parameters
    ----------
    plain : (n_plaintexts, P, d) unit vectors of patches
    code : (n_codes, P, d) unit vectors of rows, at common positions
    in_order : whether position j is patch j; otherwise that is found too

    Returns
    -------
    patch (P,) of each position, similarity (n_codes, n_plaintexts) from -1 to 1, and assigned
    (n_codes,)
    """
    patch = np.arange(plain.shape[1])
    if in_order:
        return patch, *_images(plain, code, patch)
    assigned = assign(-order_free(plain, code))
    for _ in range(ROUNDS):
        before, patch = patch, positions(plain, code, assigned)
        similarity, assigned = _images(plain, code, patch)
        if np.array_equal(patch, before):
            break
    return patch, similarity, assigned


def positions(plain: Tensor, code: Tensor, assigned: Integers) -> Integers:
    """(P,) the patch of each position, by the images matched so far; see `matched`."""
    some = np.flatnonzero(assigned >= 0)
    rows = code[torch.from_numpy(some).to(code.device)].transpose(0, 1).flatten(1)
    own = torch.from_numpy(assigned[some]).to(plain.device)
    return assign(-(rows @ plain[own].transpose(0, 1).flatten(1).T).cpu().numpy())


def _images(plain: Tensor, code: Tensor, patch: Integers) -> tuple[Floats, Integers]:
    """Similarity and assignment of images, the patch (P,) of each position being known."""
    placed = plain[:, torch.from_numpy(patch).to(plain.device)]
    similarity = correlations(code.flatten(1), placed.flatten(1))
    return similarity, assign(-similarity)


def order_free(plain: Tensor, code: Tensor) -> Floats:
    """Similarity (n_codes, n_plaintexts) of images for which the order of rows does not matter.

    Minus the squared sliced Wasserstein distance of their vectors (Rabin et al., SSVM 2011): along
    a direction, the best assignment of numbers is that of their quantiles.
    """
    draw = torch.Generator().manual_seed(0)
    directions = functional.normalize(
        torch.randn(plain.shape[2], N_DIRECTIONS, generator=draw), dim=0
    )
    directions = directions.to(plain.device)
    sketches = [_quantiles(side, directions) for side in (code, plain)]
    return (-torch.cdist(sketches[0], sketches[1]).square()).cpu().numpy()


def _quantiles(vectors: Tensor, directions: Tensor) -> Tensor:
    """(n, P, d) -> (n, N_DIRECTIONS * quantiles)."""
    size = min(N_QUANTILES, vectors.shape[1])
    found = [
        functional.adaptive_avg_pool1d((part @ directions).sort(dim=1).values.mT, size).flatten(1)
        for part in torch.split(vectors, 64)
    ]
    return torch.cat(found)


def in_patches(order: Order, patch: Integers) -> Order:
    """The same order with position j being patch j, where `patch` (P,) is that of each position."""
    if order.known:
        return order
    position = np.argsort(patch)
    return replace(order, rows=order.rows[:, position], mean=order.mean[position])


def _of_plaintexts(known: SameImages, records: Records, work: Work) -> Tensor:
    """(n, P, 14) features of records, standardised as the plaintexts are."""
    standard = standardiser(known.plaintexts, work.device)
    return of_records(standard(records), known.architecture.settings.patch)
