"""What is attacked: a release, and beside it the controls without which its result means nothing.

An attack that fails on a release has shown something only if it breaks an encoder that is known to
be weak, under the same knowledge and the same effort.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from confide.encoders.settings import LinearSettings, NeuraCryptSettings
from confide.inversion.base import Architecture, ArrayCodes, Codes, Floats, Records
from confide.inversion.ceiling import raw_architecture, raw_codes

Kind = Literal["release", "linear", "shallow", "noise", "raw"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Target:
    """Codes to attack, and how they were made.

    Attributes
    ----------
    kind : "release", the codes in question; "linear", the positive control: codes of the same
        records by one strided convolution, rows in order; "shallow", the second positive control:
        codes like those in question, rows shuffled if theirs are, without hidden layers; "noise",
        the negative control: codes of random noise, of the architecture in question; "raw", the
        ceiling: the records themselves in the place of codes
    architecture : of the codes
    codes : in the order of the records they were made of (or stand for)
    """

    kind: Kind
    architecture: Architecture
    codes: Codes


def positive_control(
    architecture: Architecture, records: Records, seed: int, *, device: torch.device | str = "cpu"
) -> Target:
    """Codes of `records` by the linear encoder, which every attack that works must break.

    Parameters
    ----------
    architecture : of the release; patch and width are taken from it
    records : (n, *shape)
    seed : of its key
    """
    settings = LinearSettings(
        patch=architecture.settings.patch, width=architecture.settings.width, shuffle=False
    )
    weak = Architecture(settings=settings, shape=architecture.shape)
    encoder = weak.shadow(records, seed, device=device)
    return Target(kind="linear", architecture=weak, codes=ArrayCodes(encoder(records)))


def shallow_control(
    architecture: Architecture, records: Records, seed: int, *, device: torch.device | str = "cpu"
) -> Target:
    """Codes of `records` as those of the release, without hidden layers: the easiest of its kind.

    Rows are shuffled, and carry their position, as in the release.  An attack that puts rows in
    order shows by them that it can; on the linear encoder there is nothing to put in order.

    Parameters
    ----------
    architecture : of the release
    records : (n, *shape)
    seed : of its key
    """
    settings = architecture.settings
    if isinstance(settings, NeuraCryptSettings):
        settings = settings.model_copy(update={"private_depth": 0})
    easy = Architecture(settings=settings, shape=architecture.shape)
    return Target(
        kind="shallow",
        architecture=easy,
        codes=ArrayCodes(encoded(easy, records, seed, device=device)),
    )


def ceiling(
    architecture: Architecture, records: Records, seed: int, *, device: torch.device | str = "cpu"
) -> Target:
    """The records themselves, patch by patch: what is found without any encoding."""
    return Target(
        kind="raw",
        architecture=raw_architecture(architecture),
        codes=raw_codes(records, architecture),
    )


def negative_control(
    architecture: Architecture, records: Records, seed: int, *, device: torch.device | str = "cpu"
) -> Target:
    """As many codes of white noise, in which there is nothing of `records` to find.

    Parameters
    ----------
    architecture : of the release
    records : (n, *shape) whose number, mean and spread the noise has
    seed : of the noise and of its key
    """
    rng = np.random.default_rng([seed, 0x0FF])
    noise = rng.standard_normal(records.shape, dtype=np.float32)
    noise = noise * float(records.std()) + float(records.mean())
    return Target(
        kind="noise",
        architecture=architecture,
        codes=ArrayCodes(encoded(architecture, noise, seed, device=device)),
    )


def encoded(
    architecture: Architecture,
    records: Records,
    seed: int,
    *,
    orders: int = 0,
    calibration: Records | None = None,
    device: torch.device | str = "cpu",
) -> Floats:
    """Codes of records under a fresh key, as a release of this architecture holds them.

    Key and orders of the rows are determined by the seed: these codes protect nobody.

    Parameters
    ----------
    architecture : of the codes
    records : (n, *shape)
    seed : of the key
    orders : with the seed, of the orders of rows
    calibration : records that calibrate the encoder; `records` by default
    """
    encoder = architecture.shadow(
        records if calibration is None else calibration,
        seed,
        device=device,
    )
    codes = encoder(records)
    if architecture.settings.shuffle:
        rng = np.random.default_rng([seed, orders, 0xC0DE])
        for code in codes:
            rng.shuffle(code)
    return codes
