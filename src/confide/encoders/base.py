"""What an encoder is: records in, codes out, everything secret derived from a key.

A new encoder subclasses :class:`Encoder`, gets settings in `settings.py` and a case in
:func:`build`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter
from torch import Tensor

from confide import _check
from confide.encoders.derive import Chance
from confide.encoders.key import Key, unlock
from confide.encoders.settings import EncodeSettings, LinearSettings, Shape
from confide.encoders.state import KeyState, pack, unpack
from confide.errors import ArgumentError, KeyFileError
from confide.models.patch_encoder import patches

Floats = NDArray[np.float32]

NUMBERS_AT_ONCE = 2**25
"""Numbers in the codes that are made at once (128 MiB in float32)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
    """Statistics of a calibration set; they belong to the key and stay with it.

    Attributes
    ----------
    mean, scale : (channels,) float32 of the values of the records, by channel or lead
    norms : one (2, width) float32 a hidden layer, the mean and variance of its values; empty for
        norm "batch" and for encoders without hidden layers
    n_records : records it rests on
    """

    mean: Floats
    scale: Floats
    norms: tuple[Floats, ...] = ()
    n_records: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain values that :meth:`from_json` reads back bit by bit."""
        return {
            "n_records": self.n_records,
            "mean": pack(self.mean),
            "scale": pack(self.scale),
            "norms": [pack(norm) for norm in self.norms],
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Calibration:
        """Read what :meth:`to_json` wrote.

        Raises
        ------
        KeyFileError : entries are missing or damaged
        """
        try:
            return cls(
                mean=unpack(content["mean"]),
                scale=unpack(content["scale"]),
                norms=tuple(unpack(norm) for norm in content["norms"]),
                n_records=int(content["n_records"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise KeyFileError(
                f"The calibration stored with the key is damaged ({type(error).__name__}); restore "
                "its .state.json from a copy."
            ) from None


class Encoder(ABC):
    """A random network that a key determines: (n, *shape) records -> (n, P, C) codes.

    Parameters
    ----------
    settings : its settings
    shape : of one record, (channels, height, width) or (leads, samples)
    key : the secret that all weights are derived from
    device : where codes are computed; they are the same everywhere to float32 rounding, which grows
        with the depth: 1e-6 of a code at 4 hidden layers, 1e-3 at 44
    precision : "float32", or "bfloat16" for faster products that change codes by about half a
        percent at 4 hidden layers

    Attributes
    ----------
    n_patches, width : P and C, rows of a code and length of a row
    n_inputs : numbers in a patch, of all channels or leads
    """

    settings: EncodeSettings

    def __init__(
        self,
        settings: EncodeSettings,
        shape: Shape,
        key: Key,
        *,
        device: torch.device | str = "cpu",
        precision: str = "float32",
    ) -> None:
        self.settings = settings
        self.shape = tuple(shape)
        self.n_patches = settings.n_patches(self.shape)
        self.n_inputs = self.shape[0] * settings.patch ** (len(self.shape) - 1)
        self.width = settings.width
        self.device = torch.device(device)
        half = _check.one_of(("float32", "bfloat16"), precision=precision) == "bfloat16"
        self._dtype = torch.bfloat16 if half else torch.float32
        self._key = key
        self.calibration: Calibration | None = None

    def __repr__(self) -> str:
        architecture = self.settings.architecture(self.shape)
        values = [f"{name}={value!r}" for name, value in architecture.items() if name != "name"]
        return f"{type(self).__name__}({', '.join(values)})"

    def __reduce__(self) -> NoReturn:
        raise KeyFileError(
            "An encoder is neither copied nor pickled, which would spread its secret weights; make "
            "it again with Encoder.from_key."
        )

    @classmethod
    def from_key(cls, path: Path | str, passphrase: str | None = None, **where: Any) -> Encoder:
        """The encoder that a key file is bound to since its first use.

        Parameters
        ----------
        path : the key file; its .state.json lies beside it
        passphrase : of the key file, if it has one; the environment variable
            ``CONFIDE_PASSPHRASE`` by default
        where : `device` and `precision`

        Raises
        ------
        MissingFileError, KeyFileError : no such key, one that cannot be read, a key that no
            release was made with yet, or one bound to what this version does not know
        """
        path = Path(path)
        key = unlock(path) if passphrase is None else Key.load(path, passphrase)
        binding = KeyState.of(path, key.id).binding
        if binding is None:
            raise KeyFileError(
                f"The key {path} was not used yet, so it is bound to no architecture; encode a "
                "release with it first (`confide encode run`)."
            )
        settings, shape = _bound(path, binding["architecture"])
        encoder = build(settings, shape, key, **where)
        encoder.use(Calibration.from_json(binding["calibration"]))
        return encoder

    def calibrate(self, records: NDArray[Any]) -> Calibration:
        """Take the statistics of some records, and use them from now on.

        They are computed in float32 whatever the precision of the codes, and depend on the order
        of the records in the last digits only.

        Parameters
        ----------
        records : (n, *shape) uint8 or float32; those that a release is made of, or a random part
            of them

        Raises
        ------
        ArgumentError : no records, another shape, or numbers that are not finite
        """
        records = self._checked(records)
        mean, scale = _mean_and_scale(records)
        with torch.no_grad():
            norms = self._norms(records, self._by_input(mean, scale))
        calibration = Calibration(mean=mean, scale=scale, norms=norms, n_records=len(records))
        self.use(calibration)
        return calibration

    def use(self, calibration: Calibration) -> None:
        """Use these statistics from now on.

        Raises
        ------
        ArgumentError : they are of another encoder
        """
        for name in ("mean", "scale"):
            _check.shape((self.shape[0],), **{name: getattr(calibration, name)})
        self._prepare(calibration)
        self._standard = self._by_input(calibration.mean, calibration.scale)
        self.calibration = calibration

    def __call__(self, records: NDArray[Any], *, chance: Chance | None = None) -> Floats:
        """Encode records.

        Parameters
        ----------
        records : (n, *shape) uint8 or float32
        chance : source of the row orders; fresh from the operating system by default

        Returns
        -------
        (n, P, C) float32; with `settings.shuffle` the rows of each code stand in a fresh random
        order, which is stored nowhere

        Raises
        ------
        ArgumentError : not calibrated, no records, another shape, or numbers that are not finite
        """
        records = self._checked(records)
        out = np.empty((len(records), self.n_patches, self.width), dtype=np.float32)
        chance = chance or Chance()
        for part in self.batches(len(records)):
            torch.from_numpy(out[part]).copy_(self.encode(records[part], chance=chance))
        return out

    @torch.no_grad()
    def encode(self, records: NDArray[Any], *, chance: Chance) -> Tensor:
        """One batch of records, as it is -> (n, P, C) codes on the device, in its precision.

        On a GPU nothing is waited for; records are best given as uint8, which is the least to move.
        """
        if self.calibration is None:
            raise ArgumentError("The encoder has no calibration yet; call calibrate(records).")
        rows = self._rows(self._checked(records), self._standard).to(self._dtype)
        if not self.settings.shuffle:
            return self._encode(rows, None)
        # A row of a code comes from one patch and its position, so that the patches can be put in
        # order in its place: no second copy of the codes is made.
        order = random_orders(len(rows), self.n_patches, chance, self.device)
        return self._encode(reordered(rows, order), order)

    def batches(self, n_records: int) -> list[slice]:
        """Parts of records that are encoded at once, as even as can be.

        They fit the memory.  Where a code depends on its batch they are batches as the settings
        ask for, whatever the memory.
        """
        n_parts = max(1, -(-n_records // self._batch_size()))
        edges = np.linspace(0, n_records, n_parts + 1).astype(int).tolist()
        return [slice(a, b) for a, b in pairwise(edges) if b > a]

    def _batch_size(self) -> int:
        return max(1, NUMBERS_AT_ONCE // (self.n_patches * self.width))

    def _rows(self, records: NDArray[Any], standard: tuple[Tensor, Tensor]) -> Tensor:
        """(n, *shape) -> (n, P, n_inputs) patches on the device, each channel standardised."""
        mean, scale = standard
        x = patches(_moved(records, self.device), self.settings.patch)
        return (x - mean).div_(scale)

    def _by_input(self, mean: Floats, scale: Floats) -> tuple[Tensor, Tensor]:
        """Mean and scale of each of the n_inputs values of a patch, on the device."""
        # A patch holds its channels one after the other.
        each = self.settings.patch ** (len(self.shape) - 1)
        return (
            _moved(np.repeat(mean, each), self.device),
            _moved(np.repeat(scale, each), self.device),
        )

    def _checked(self, records: NDArray[Any]) -> NDArray[Any]:
        records = np.asarray(records)
        _check.shape((None, *self.shape), records=records)
        if not len(records):
            raise ArgumentError("Expected at least one record to encode, got none.")
        if records.dtype == np.uint8:
            return records
        if records.dtype.kind not in "buif":
            raise ArgumentError(f"Expected records as uint8 or float32, got {records.dtype}.")
        with np.errstate(over="ignore"):
            records = records.astype(np.float32, copy=False)
        return _check.finite(records=records)

    @abstractmethod
    def _prepare(self, calibration: Calibration) -> None:
        """Derive the weights, and put them on the device as they are used."""

    @abstractmethod
    def _encode(self, rows: Tensor, order: Tensor | None) -> Tensor:
        """(n, P, n_inputs) standardised patches -> (n, P, C), row by row.

        Patch j of record i is the one at position order[i, j], or j if `order` is None.
        """

    def _norms(self, records: NDArray[Any], standard: tuple[Tensor, Tensor]) -> tuple[Floats, ...]:
        """Statistics of hidden layers, for encoders that have them."""
        return ()


def random_orders(n: int, n_rows: int, chance: Chance, device: torch.device) -> Tensor:
    """(n, n_rows) int64 on the device: a uniform permutation of 0 .. n_rows - 1 for each record.

    The order of random words, which are made on the host by a cryptographic generator; see
    :meth:`confide.encoders.derive.Chance.permutations`.
    """
    words = chance.words(n * n_rows).view(np.int64).reshape(n, n_rows)
    return _moved(words, device).argsort(dim=1)


def reordered(rows: Tensor, order: Tensor) -> Tensor:
    """(n, P, any) rows, of which row j of record i was row order[i, j]."""
    n, n_rows, size = rows.shape
    first = torch.arange(0, n * n_rows, n_rows, device=rows.device)[:, None]
    moved = rows.reshape(-1, size).index_select(0, (order + first).view(-1))
    return moved.view(n, n_rows, size)


def build(
    settings: EncodeSettings,
    shape: Shape,
    key: Key,
    *,
    device: torch.device | str = "cpu",
    precision: str = "float32",
) -> Encoder:
    """Make an encoder from its settings; see :class:`Encoder`."""
    from confide.encoders.linear import Linear
    from confide.encoders.neuracrypt import NeuraCrypt

    if isinstance(settings, LinearSettings):
        return Linear(settings, shape, key, device=device, precision=precision)
    return NeuraCrypt(settings, shape, key, device=device, precision=precision)


def _bound(path: Path, architecture: dict[str, Any]) -> tuple[EncodeSettings, Shape]:
    """Settings and shape of the architecture that a key is bound to."""
    try:
        values = dict(architecture)
        shape = tuple(int(side) for side in values.pop("shape"))
        settings: EncodeSettings = TypeAdapter(EncodeSettings).validate_python(values)
    except (KeyError, TypeError, ValueError):
        raise KeyFileError(
            f"The key {path} is bound to an architecture that this version of confide does not "
            f"know, {architecture!r:.200}; use the version that made it."
        ) from None
    return settings, shape


def _moved(values: NDArray[Any], device: torch.device) -> Tensor:
    """On the device; from pinned memory, so that the host does not wait for the copy."""
    shareable = values.flags.writeable and values.flags.c_contiguous
    host = torch.from_numpy(values if shareable else values.copy(order="C"))
    if device.type == "cuda":
        host = host.pin_memory()
    return host.to(device, non_blocking=True)


def _mean_and_scale(records: NDArray[Any]) -> tuple[Floats, Floats]:
    """Mean and standard deviation of each channel; 1 instead of 0.

    In float64, a few records at a time, so that no copy of all of them is made.
    """
    n, n_channels = records.shape[:2]
    values = records.reshape(n, n_channels, -1)
    step = max(1, 2**21 // values[0].size)
    parts = [values[i : i + step] for i in range(0, n, step)]
    count = n * values.shape[2]
    mean = sum(part.sum(axis=(0, 2), dtype=np.float64) for part in parts) / count
    squares = sum(((part - mean[:, None]) ** 2).sum(axis=(0, 2)) for part in parts)
    sd = np.sqrt(squares / count)
    # A deviation below what float32 resolves is the rounding of a constant.
    scale = np.where(sd > 1e-7 * np.abs(mean), sd, 1.0)
    return mean.astype(np.float32), scale.astype(np.float32)
