"""The attacks by name."""

from __future__ import annotations

from typing import Any

from confide.inversion.alignment import Alignment
from confide.inversion.assignment import Assignment
from confide.inversion.attributes import AttributeProbe
from confide.inversion.base import InversionAttack
from confide.inversion.gan import Discriminator
from confide.inversion.linkage import Linkage, OneKeyLinkage, TwoKeysLinkage
from confide.inversion.maps import UnpairedAlignment
from confide.inversion.mmd import MMD, FromNoise
from confide.inversion.plaintext import Plaintext, WronglyPaired
from confide.inversion.reconstruction import Reconstruct
from confide.inversion.transfer import Transfer

KNOWN: dict[str, type[InversionAttack[Any, Any]]] = {
    attack.name: attack
    for attack in (
        Linkage,
        OneKeyLinkage,
        TwoKeysLinkage,
        AttributeProbe,
        UnpairedAlignment,
        MMD,
        FromNoise,
        Discriminator,
        Transfer,
        Reconstruct,
        Alignment,
        Assignment,
        Plaintext,
        WronglyPaired,
    )
}
"""The attacks that a configuration can name; `NEEDS` of the settings names the same."""
