"""What an encoder is: records in, codes out, everything secret derived from a key.

A new encoder subclasses :class:`Encoder`, gets settings in `settings.py` and a case in
:func:`build`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from confide import _check
from confide.encoders.derive import Chance
from confide.encoders.key import Key
from confide.encoders.settings import EncodeSettings, LinearSettings, NeuraCryptSettings, Shape
from confide.encoders.state import KeyState, pack, unpack
from confide.errors import ArgumentError, KeyFileError

Floats = NDArray[np.float32]

ROWS_AT_ONCE = 2**25
"""Numbers in one activation that is computed at once (128 MiB in float32)."""

MAX_CALIBRATION = 512
"""Records that calibrate an encoder, at most."""


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
    device : where codes are computed; they are the same everywhere, to float32 rounding
    precision : "float32", or "bfloat16" for faster products that change codes by about half a
        percent

    Attributes
    ----------
    n_patches, width : P and C, rows of a code and length of a row
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
        self.width = settings.width
        self.device = torch.device(device)
        half = _check.one_of(("float32", "bfloat16"), precision=precision) == "bfloat16"
        self._dtype = torch.bfloat16 if half else torch.float32
        self.calibration: Calibration | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.settings.architecture(self.shape)})"

    @classmethod
    def from_key(cls, path: Path | str, passphrase: str | None = None, **where: Any) -> Encoder:
        """The encoder that a key file is bound to since its first use.

        Parameters
        ----------
        path : the key file; its .state.json lies beside it
        passphrase : of the key file, if it has one
        where : `device` and `precision`

        Raises
        ------
        MissingFileError, KeyFileError : no such key, one that cannot be read, or a key that no
            release was made with yet
        """
        key = Key.load(Path(path), passphrase)
        binding = KeyState.of(Path(path), key.id).binding
        if binding is None:
            raise KeyFileError(
                f"The key {path} was not used yet, so it is bound to no architecture; encode a "
                "release with it first."
            )
        architecture = dict(binding["architecture"])
        shape = tuple(architecture.pop("shape"))
        kind = LinearSettings if architecture["name"] == "linear" else NeuraCryptSettings
        encoder = build(kind.model_validate(architecture), shape, key, **where)
        encoder.use(Calibration.from_json(binding["calibration"]))
        return encoder

    def calibrate(self, records: NDArray[Any]) -> Calibration:
        """Take the statistics of some records, and use them from now on.

        Parameters
        ----------
        records : (n, *shape) uint8 or float32; those that a release is made of, or a part of them
        """
        records = self._checked(records)
        sums = np.asarray(records, dtype=np.float64).swapaxes(0, 1).reshape(self.shape[0], -1)
        sd = sums.std(axis=1)
        calibration = Calibration(
            mean=sums.mean(axis=1).astype(np.float32),
            scale=np.where(sd > 0, sd, 1.0).astype(np.float32),
            n_records=len(records),
        )
        self.use(calibration)
        with torch.inference_mode():
            norms = self._norms(records)
        if norms:
            calibration = Calibration(
                mean=calibration.mean,
                scale=calibration.scale,
                norms=norms,
                n_records=len(records),
            )
            self.use(calibration)
        return calibration

    def use(self, calibration: Calibration) -> None:
        """Use these statistics from now on."""
        for name in ("mean", "scale"):
            _check.shape((self.shape[0],), **{name: getattr(calibration, name)})
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
        """
        records = self._checked(records)
        out = np.empty((len(records), self.n_patches, self.width), dtype=np.float32)
        chance = chance or Chance()
        for rows in self.batches(len(records)):
            out[rows] = self.encode(records[rows], chance=chance).float().cpu().numpy()
        return out

    @torch.inference_mode()
    def encode(self, records: NDArray[Any], *, chance: Chance) -> Tensor:
        """One batch of records -> (n, P, C) codes on the device, shuffled if settings say so."""
        codes = self._encode(self.standardised(records))
        return shuffled(codes, chance) if self.settings.shuffle else codes

    def batches(self, n_records: int) -> list[slice]:
        """Parts of records that fit the memory, as even as can be."""
        most = max(1, ROWS_AT_ONCE // (self.n_patches * self.width))
        n_parts = max(1, -(-n_records // most))
        edges = np.linspace(0, n_records, n_parts + 1).astype(int).tolist()
        return [slice(a, b) for a, b in zip(edges[:-1], edges[1:], strict=True) if b > a]

    def standardised(self, records: NDArray[Any]) -> Tensor:
        """(n, *shape) on the device, with the calibration set's mean 0 and standard deviation 1."""
        if self.calibration is None:
            raise ArgumentError("The encoder has no calibration yet; call calibrate(records).")
        sides = (1,) * (len(self.shape) - 1)
        mean = torch.from_numpy(self.calibration.mean).to(self.device).view(-1, *sides)
        scale = torch.from_numpy(self.calibration.scale).to(self.device).view(-1, *sides)
        x = torch.from_numpy(np.ascontiguousarray(records)).to(self.device)
        return ((x.float() - mean) / scale).to(self._dtype)

    def _checked(self, records: NDArray[Any]) -> NDArray[Any]:
        records = np.asarray(records)
        _check.shape((None, *self.shape), records=records)
        if not len(records):
            raise ArgumentError("Expected at least one record to encode, got none.")
        if records.dtype != np.uint8:
            records = _check.finite(records=records.astype(np.float32, copy=False))
        return records

    def _tensor(self, values: Floats) -> Tensor:
        return torch.from_numpy(values).to(self.device, self._dtype)

    @abstractmethod
    def _encode(self, x: Tensor) -> Tensor:
        """(n, *shape) standardised -> (n, P, C), rows in the order of their positions."""

    def _norms(self, records: NDArray[Any]) -> tuple[Floats, ...]:
        """Statistics of hidden layers, for encoders that have them."""
        return ()


def shuffled(codes: Tensor, chance: Chance) -> Tensor:
    """Put the rows of each code (n, P, C) in a random order of its own, on its device.

    One sort of random words and one copy of the rows; the words are made on the host by a
    cryptographic generator.
    """
    n, n_rows, width = codes.shape
    words = torch.from_numpy(chance.words(n * n_rows).view(np.int64)).view(n, n_rows)
    order = words.to(codes.device).argsort(dim=1)
    order += torch.arange(0, n * n_rows, n_rows, device=codes.device)[:, None]
    return codes.reshape(-1, width).index_select(0, order.view(-1)).view(n, n_rows, width)


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
