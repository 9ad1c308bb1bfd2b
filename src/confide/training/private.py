"""The training loop with differential privacy: sample, clip, add noise, step.

Abadi et al., CCS 2016 (arXiv 1607.00133), algorithm 1, with units that are records or patients.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from confide import _check
from confide.errors import ArgumentError
from confide.models.tabular_resnet import TabularResNet
from confide.training import augment
from confide.training.accounting import account
from confide.training.clipped import Blocks, RowGradients, factors, row_gradients
from confide.training.dev import BestEpoch
from confide.training.device import tensor_float32
from confide.training.forward import Weights
from confide.training.loop import Dice, drawn
from confide.training.plan import Plan
from confide.training.privacy import Privacy
from confide.training.records import Records
from confide.training.settings import Augment, TrainSettings
from confide.training.step import decay_at, follow, optimizer_of

Rows = NDArray[np.int64]

_SPARE = 4.0  # standard deviations of a batch beyond its mean that fit into one chunk
_MEMORY = {"cpu": 2**28, "cuda": 16 * 2**30}  # bytes that the gradients of single records may take


@dataclass(frozen=True, kw_only=True, eq=False)
class Noise:
    """How a training is made private.

    Attributes
    ----------
    clip : largest norm of a unit's sum of gradients
    scale : standard deviation of the noise over `clip`
    rate : chance of each unit to be in the batch of a step
    expected : units a step, on average over the design; noisy sums are divided by it
    patient : (n_audited,) int64 patient of each record; None where the unit is the record
    """

    clip: float
    scale: float
    rate: float
    expected: float
    patient: Rows | None


class Secret:
    """Random numbers that nobody can draw again: batches, changes of images, and the noise.

    Seeded with 256 bits of the operating system's randomness, of which a CUDA device takes 63.
    The generators are those of NumPy and PyTorch, which are no cryptographic ones.

    Parameters
    ----------
    device : where noise is needed
    entropy : for tests alone
    """

    def __init__(self, device: torch.device, entropy: int | None = None) -> None:
        if entropy is None:
            entropy = int.from_bytes(os.urandom(32), "little")
        order, noise, chance = np.random.SeedSequence(entropy).spawn(3)
        self.order = np.random.Generator(np.random.PCG64DXSM(order))
        self._noise = np.random.Generator(np.random.PCG64DXSM(noise))
        self._chance = np.random.Generator(np.random.PCG64DXSM(chance))
        self._cuda = None
        if device.type == "cuda":
            seed = int(noise.generate_state(1, np.uint64)[0] >> 1)
            self._cuda = torch.Generator(device).manual_seed(seed)

    def chances(self, n: int) -> Tensor:
        """The chances of n images, as :func:`confide.training.augment.draw`, on the CPU."""
        return torch.from_numpy(self._chance.random((n, augment.N_DRAWS), dtype=np.float32))

    def normal_like(self, tensor: Tensor) -> Tensor:
        """Standard normal numbers of the shape of `tensor`."""
        if self._cuda is not None:
            return torch.empty_like(tensor).normal_(generator=self._cuda)
        # torch's generator for the CPU takes 32 bits of a seed alone.
        return torch.from_numpy(self._noise.standard_normal(tensor.shape, dtype=np.float32))


class Units:
    """The members of one model by unit.

    Parameters
    ----------
    rows : (n_members,) int64 rows of the model
    patient : see :class:`Noise`
    """

    def __init__(self, rows: Rows, patient: Rows | None) -> None:
        owner = np.arange(len(rows)) if patient is None else patient[rows]
        order = np.argsort(owner, kind="stable")
        self.rows = rows[order]
        starts = np.flatnonzero(np.diff(owner[order], prepend=-1))
        self.starts = starts
        self.sizes = np.diff(starts, append=len(rows))

    def sample(self, rate: float, rng: np.random.Generator) -> tuple[Rows, Rows]:
        """Each unit with the chance `rate`, on its own, with all of its rows.

        Returns
        -------
        rows : (n,) rows of the units in the batch, unit by unit
        sizes : (n_units,) rows of each
        """
        # As many as independent tosses give, then that many at random.
        n = int(rng.binomial(len(self.sizes), rate))
        chosen = rng.choice(len(self.sizes), n, replace=False, shuffle=False)
        sizes = self.sizes[chosen]
        first = np.cumsum(sizes) - sizes
        offset = np.arange(int(sizes.sum())) - np.repeat(first, sizes)
        return self.rows[np.repeat(self.starts[chosen], sizes) + offset], sizes


def packed(rows: Rows, sizes: Rows, blocks: Blocks) -> tuple[Rows, Rows]:
    """Lay a batch out in chunks of one shape, no unit across two blocks; nothing is left out.

    Parameters
    ----------
    rows, sizes : from :meth:`Units.sample`
    blocks : number of blocks of a chunk, and their length, at least the largest size

    Returns
    -------
    rows, unit : (n_chunks, n_blocks, length) int64 rows, 0 where padded, and their units, -1 where
        padded; at least one chunk
    """
    n_blocks, length = blocks
    ends = np.cumsum(sizes)
    block = np.empty(len(sizes), dtype=np.int64)
    taken, n_used, before = 0, 0, 0
    while taken < len(sizes):
        last = int(np.searchsorted(ends, before + length, side="right"))
        block[taken:last] = n_used
        taken, n_used, before = last, n_used + 1, int(ends[last - 1])
    n_chunks = max(1, math.ceil(n_used / n_blocks))
    shape = n_chunks * n_blocks, length
    out, unit = np.zeros(shape, dtype=np.int64), np.full(shape, -1, dtype=np.int64)
    of_row = np.repeat(block, sizes)
    first = np.searchsorted(of_row, of_row, side="left")
    place = of_row, np.arange(len(rows)) - first
    out[place], unit[place] = rows, np.repeat(np.arange(len(sizes)), sizes)
    whole = n_chunks, n_blocks, length
    return out.reshape(whole), unit.reshape(whole)


def train_private(
    network: nn.Module,
    records: Records,
    members: Sequence[Tensor],
    seeds: Sequence[int],
    settings: TrainSettings,
    plan: Plan,
    noise: Noise,
    *,
    tf32: bool = False,
    best: BestEpoch | None = None,
    secret: Secret | None = None,
) -> Weights:
    """Train one model for each of `members` and return the stacked (averaged) weights.

    As :func:`confide.training.loop.train`, but each step takes a Poisson sample of the units,
    clips the sum of gradients of each, adds noise and divides by the expected number of units.
    Only the first weights follow from the seeds.

    Parameters
    ----------
    network, records, members, seeds, settings, plan, best : see there
    noise : how it is made private
    tf32 : whether passes through the network may use TensorFloat32; norms and sums never do
    secret : the random numbers; new ones by default

    Raises
    ------
    TrainingError : see there
    """
    device = records.inputs.device
    secret = secret or Secret(device)
    dice = [Dice.of(seed) for seed in seeds]
    weights = {n: w.to(device).requires_grad_() for n, w in drawn(network, dice).items()}
    average = {name: tensor.detach().clone() for name, tensor in weights.items()}
    optimizer = optimizer_of(settings, list(weights.values()))
    inputs = partial(_inputs, records, settings.augment, secret)
    units = [Units(rows.numpy(), noise.patient) for rows in members]
    blocks = _blocks(units, noise.rate, network, device)
    gradients = row_gradients(network, records.task, smoothing=settings.label_smoothing)
    for step in range(1, plan.steps + 1):
        batch = [packed(*u.sample(noise.rate, secret.order), blocks) for u in units]
        with tensor_float32(False):
            sums = _clipped_sums(
                gradients, weights, inputs, records.label, batch, blocks, noise.clip, tf32=tf32
            )
        for name, weight in weights.items():
            noisy = sums[name] + noise.scale * noise.clip * secret.normal_like(weight)
            weight.grad = noisy / noise.expected
        rate = settings.optimizer.lr * settings.schedule.factor(step / plan.steps)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        follow(average, weights, decay_at(settings.ema, step))
        if best is not None and step % plan.steps_per_epoch == 0:
            best.add(average)
            if bool(best.stopped.all()):
                break
    return average if best is None else best.weights


def _inputs(records: Records, steps: Augment, secret: Secret, rows: Tensor) -> Tensor:
    """Standardised inputs of (n,) rows, each image with a change of its own.

    The changes are secret and independent.  From the public seed they would follow from a record's
    place in the batch, and one unit less would change the gradients of all that come after it.
    """
    x = records.standardised(rows)
    if steps == "none":
        return x
    return augment.apply(x, secret.chances(len(rows)).to(x.device), steps)


def _clipped_sums(
    gradients: RowGradients,
    weights: Weights,
    inputs: Callable[[Tensor], Tensor],
    label: Tensor,
    batch: Sequence[tuple[Rows, Rows]],
    blocks: Blocks,
    clip: float,
    *,
    tf32: bool,
) -> Weights:
    """Sums over units of clipped gradients, chunk by chunk."""
    device, stack = label.device, (len(batch), math.prod(blocks))
    n_chunks = max(len(rows) for rows, _ in batch)
    index = torch.from_numpy(np.stack([_filled(rows, n_chunks, 0) for rows, _ in batch]))
    unit = torch.from_numpy(np.stack([_filled(unit, n_chunks, -1) for _, unit in batch]))
    index, unit = index.to(device), unit.to(device)
    total: Weights = {}
    for i in range(n_chunks):
        rows = index[:, i].flatten()
        x, y = inputs(rows), label[rows]
        with tensor_float32(tf32):
            found = gradients(weights, x.view(*stack, *x.shape[1:]), y.view(*stack, *y.shape[1:]))
        with torch.no_grad():
            factor = factors(found.products(blocks), unit[:, i], clip)
            sums = found.weighted(factor.flatten(1))
            total = {name: w + total[name] for name, w in sums.items()} if total else sums
    return total


def _filled(chunks: Rows, n_chunks: int, value: int) -> Rows:
    """The same chunks, and empty ones up to `n_chunks`."""
    more = n_chunks - len(chunks)
    return np.pad(chunks, ((0, more), (0, 0), (0, 0)), constant_values=value) if more else chunks


def _blocks(
    units: Sequence[Units], rate: float, network: nn.Module, device: torch.device
) -> Blocks:
    """Chunks into which nearly every batch fits whole, if the memory allows it."""
    length = max(int(u.sizes.max()) for u in units)
    rows = max(
        rate * len(u.rows) + _SPARE * math.sqrt(rate * float(np.square(u.sizes).sum()))
        for u in units
    )
    if not isinstance(network, TabularResNet):
        n_parameters = sum(p.numel() for p in network.parameters())
        rows = min(rows, _MEMORY[device.type] / (4 * 3 * n_parameters * len(units)))
    # A block ends where the next unit does not fit, and loses about one unit as rows see them.
    seen = max(float(np.square(u.sizes).sum() / u.sizes.sum()) for u in units)
    return max(1, math.ceil(rows / max(1.0, length - seen + 1.0))), length


def noise_of(
    privacy: Privacy,
    network: nn.Module,
    plan: Plan,
    expected_members: float,
    n_audited: int,
    patient: NDArray[np.integer[Any]],
) -> tuple[Noise, dict[str, Any]]:
    """How much noise, and what it guarantees; see :func:`confide.training.accounting.account`.

    Parameters
    ----------
    privacy : what is asked for
    network, plan, expected_members, n_audited : of the training
    patient : (n_audited,) patient of each record

    Raises
    ------
    ArgumentError : a network with batch norm, bfloat16, patients that do not fit, or a guarantee
        that no noise gives
    MissingExtraError : dp-accounting is not installed
    """
    for name, module in network.named_modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            raise ArgumentError(
                f"train.privacy needs a network without batch norm, but {name or 'the network'} "
                f"is a {type(module).__name__}, which mixes records or keeps their statistics; use "
                "another train.model."
            )
    if plan.half:
        raise ArgumentError(
            "train.privacy needs gradients in float32; set performance.precision: auto or float32."
        )
    owner = np.asarray(patient, dtype=np.int64)
    _check.shape((n_audited,), patient=owner)
    n_records = np.unique(owner, return_counts=True)[1]
    rate = plan.batch / expected_members
    members = expected_members * len(n_records) / n_audited  # patients
    found = account(
        privacy,
        rate=min(1.0, rate),
        steps=plan.steps,
        most_records=int(n_records.max()),
        n_patients=members,
    )
    by_patient = privacy.unit == "patient"
    noise = Noise(
        clip=privacy.clip,
        scale=found["noise"],
        rate=found["rate"],
        expected=found["rate"] * (members if by_patient else expected_members),
        patient=owner if by_patient else None,
    )
    return noise, found
