"""Where data come from: tables, images, signals, and data that need no download."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from confide.datasets.base import ByColumn, ByFraction, Data, Opened, Source
from confide.datasets.describe import describe
from confide.datasets.ecg import Ecg
from confide.datasets.embedded import Embedded
from confide.datasets.images import Images
from confide.datasets.phantom import Phantom
from confide.datasets.table import Table

KNOWN: dict[str, type[Source]] = {
    "ecg": Ecg,
    "embedded": Embedded,
    "images": Images,
    "phantom": Phantom,
    "table": Table,
}
"""Every source by its name in a configuration; each has a one-line `description`."""

AnySource = Annotated[Ecg | Embedded | Images | Phantom | Table, Field(discriminator="name")]
"""The type of the `data:` block of a configuration."""

__all__ = [
    "KNOWN",
    "AnySource",
    "ByColumn",
    "ByFraction",
    "Data",
    "Ecg",
    "Embedded",
    "Images",
    "Opened",
    "Phantom",
    "Source",
    "Table",
    "describe",
]
