"""Where data come from: tables, images, signals, and data that need no download."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from confide.datasets.base import ByColumn, ByFraction, Data, Opened, Source
from confide.datasets.chexpert import CheXpert
from confide.datasets.describe import describe
from confide.datasets.ecg import Ecg
from confide.datasets.embed import Embed
from confide.datasets.embedded import Embedded
from confide.datasets.fairvision import FairVision
from confide.datasets.fitzpatrick17k import Fitzpatrick17k
from confide.datasets.images import Images
from confide.datasets.mimic_cxr import MimicCxr
from confide.datasets.mimic_iv_ed import MimicIvEd
from confide.datasets.phantom import Phantom
from confide.datasets.ptb_xl import PtbXl
from confide.datasets.table import Table

KNOWN: dict[str, type[Source]] = {
    "chexpert": CheXpert,
    "ecg": Ecg,
    "embed": Embed,
    "embedded": Embedded,
    "fairvision": FairVision,
    "fitzpatrick17k": Fitzpatrick17k,
    "images": Images,
    "mimic-cxr": MimicCxr,
    "mimic-iv-ed": MimicIvEd,
    "phantom": Phantom,
    "ptb-xl": PtbXl,
    "table": Table,
}
"""Every source by its name in a configuration; each has a one-line `description`."""

AnySource = Annotated[
    CheXpert
    | Ecg
    | Embed
    | Embedded
    | FairVision
    | Fitzpatrick17k
    | Images
    | MimicCxr
    | MimicIvEd
    | Phantom
    | PtbXl
    | Table,
    Field(discriminator="name"),
]
"""The type of the `data:` block of a configuration."""

__all__ = [
    "KNOWN",
    "AnySource",
    "ByColumn",
    "ByFraction",
    "CheXpert",
    "Data",
    "Ecg",
    "Embed",
    "Embedded",
    "FairVision",
    "Fitzpatrick17k",
    "Images",
    "MimicCxr",
    "MimicIvEd",
    "Opened",
    "Phantom",
    "PtbXl",
    "Source",
    "Table",
    "describe",
]
