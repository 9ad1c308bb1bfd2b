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
    parts: list[RenderableType] = [_costs(found), Padding(_budgets(found), (1, 0))]
    parts.append(Text(_EXPLANATION))
    if found["until"] is not None:
        parts += [Padding(_looks(found["until"]), (1, 0)), Text(_of_looks(found))]
    return parts


_EXPLANATION = (
    "AUC to within: half the 95% interval of a patient's AUC where nothing leaks. Listed from: the "
    "measured AUC from which a patient alone is listed. Found 4 in 5 from: the true AUC at which "
    "such a patient is listed in 4 of 5 audits. Patients needed: how many with complete leakage it "
    "takes for any to be listed."
)


def _costs(found: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(Text("This audit", style="bold"))
    table.add_column("", justify="right")
    seconds = found["seconds"]
    most = "" if found["until"] is None else "at most "
    rows = {
        "models": f"{most}{found['n_models']:,}",
        "audited patients": f"{found['n_patients']:,}",
        "audited records": f"{found['n_records']:,}",
        "canaries (patients)": f"{found['n_canaries']:,}",
        "held-out records": f"{found['n_heldout_records']:,}",
        "models trained at once": f"{found['models_at_once']:,}",
        "time on this machine": "not measured"
        if seconds is None
        else f"{most or 'about '}{duration(seconds)}",
        "signals on disk": f"{most}{size(found['disk_bytes'])}",
    }
    if not found["n_canaries"]:
        del rows["canaries (patients)"]
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _budgets(found: dict[str, Any]) -> Table:
    columns = ["AUC to\nwithin", "listed\nfrom", "found 4\nin 5 from", "patients\nneeded"]
    timed = found["seconds"] is not None
    table = _table("Budgets:\nmodels", [*columns, *(["\ntime"] if timed else []), "\ndisk"])
    for row in found["budgets"]:
        chosen = "this: " if row["n_models"] == found["n_models"] else ""
        table.add_row(
            f"{chosen}{row['n_models']:,}",
            f"{row['half_width']:.3f}",
            _area(row["smallest_detectable_auc"]),
            _area(row["detectable_auc"]),
            _needed(row),
            *([duration(row["seconds"])] if timed else []),
            size(row["disk_bytes"]),
        )
    return table


def _looks(until: dict[str, Any]) -> Table:
    columns = ["\nse", "listed\nfrom", "patients\nneeded", "listed without\nlooks from"]
    table = _table("Looks:\nmodels", columns)
    for row in until["looks"]:
        table.add_row(
            f"{row['n_models']:,}",
            f"{row['se']:.3f}",
            _area(row["smallest_detectable_auc"]),
            _needed(row),
            _area(row["smallest_detectable_auc_without_looks"]),
        )
    return table


def _of_looks(found: dict[str, Any]) -> str:
    until = found["until"]
    text = (
        f"Until {until['rule']}: models are trained in blocks of 16 and the run may stop at each "
        f"look. Every list is made at a false discovery rate of {until['fdr_of_look']:.3g}, which "
        f"is {until['fdr']:g} over {len(until['looks'])} looks; this and the blocks are what the "
        "looks cost. se: standard error of a patient's AUC where nothing leaks."
    )
    if "n_models_needed" not in until:
        return text + " A run that lists nobody trains all its models."
    last = until["stops_at_most_at"]
    return text + (
        f" It takes about {until['n_models_needed']:,} models at most to reach the standard error"
        + (f": the run stops at {last:,} or before." if last else ", more than this run has.")
    )


def _table(first: str, columns: list[str]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(Text(first, style="bold"), justify="right")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _area(value: float | None) -> str:
    return "nobody" if value is None else numbers.auc(value)


def _needed(row: dict[str, Any]) -> str:
    alone = row["smallest_detectable_auc"] is not None
    return "1" if alone else numbers.count(row["n_perfect_needed"])


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
