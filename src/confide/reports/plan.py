"""What an audit costs and what it can find, as tables for a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from confide.reports import numbers


def renderables(found: dict[str, Any]) -> list[RenderableType]:
    """Tables of what :func:`confide.runs.plan` returns."""
    return [
        _costs(found),
        Padding(_budgets(found), (1, 0)),
        Text(_EXPLANATION),
    ]


_EXPLANATION = (
    "se: standard error of a patient's AUC where nothing leaks. A patient alone is listed from "
    "the given AUC upwards; where none is given, the number of patients with complete leakage that "
    "it takes for any to be listed."
)


def _costs(found: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(Text("This audit", style="bold"))
    table.add_column("", justify="right")
    seconds = found["seconds"]
    rows = {
        "models": f"{found['n_models']:,}",
        "audited patients": f"{found['n_patients']:,}",
        "audited records": f"{found['n_records']:,}",
        "held-out records": f"{found['n_heldout_records']:,}",
        "models trained at once": f"{found['models_at_once']:,}",
        "time on this machine": "not measured" if seconds is None else f"about {duration(seconds)}",
        "signals on disk": size(found["disk_bytes"]),
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _budgets(found: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(Text("Budgets: models", style="bold"), justify="right")
    for column in ("se", "listed alone from AUC", "or patients it takes"):
        table.add_column(column, justify="right")
    for row in found["budgets"]:
        smallest = row["smallest_detectable_auc"]
        chosen = "> " if row["n_models"] == found["n_models"] else ""
        table.add_row(
            f"{chosen}{row['n_models']:,}",
            f"{row['se']:.3f}",
            "none" if smallest is None else numbers.auc(smallest),
            "" if smallest is not None else f"{row['n_perfect_needed']:,}",
        )
    return table


def duration(seconds: float) -> str:
    """A time in words.

    >>> duration(8), duration(100), duration(5400), duration(200_000)
    ('8 s', '2 min', '1.5 h', '2.3 days')
    """
    if seconds < 60:
        return f"{max(seconds, 1):.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"


def size(n_bytes: float) -> str:
    """A number of bytes in words.

    >>> size(2_500), size(3e9)
    ('2.5 kB', '3.0 GB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"
