"""A release that was made, for the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.table import Table

from confide.reports import numbers


def renderables(found: dict[str, Any], out: Path) -> list[RenderableType]:
    """Lines on a release: what it holds, and what to do with it and with what lies beside it.

    Parameters
    ----------
    found : from :func:`confide.runs.encode.encode`
    out : the release
    """
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    rows, width = found["shape"]
    order = ("train", "dev", "test")
    splits = ", ".join(f"{found['splits'].get(split, 0):,} {split}" for split in order)
    pseudonym = ["a pseudonym of the patient"] if found["pseudonyms"] else []
    for name, value in {
        "Release": f"{out} ({found['bytes'] / 1e6:,.1f} MB)",
        "Codes": f"{found['n_records']:,} ({splits})",
        "Each code": f"{rows:,} rows of {width:,} numbers, {found['dtype']}",
        "Published": ", ".join([*found["labels"], *found["columns"], "split", *pseudonym]),
        "Key id": found["key_id"],
        "Digest": found["digest"],
    }.items():
        table.add_row(name, numbers.name(value))
    notes = list(found["notes"])
    who = "patient" if found["pseudonyms"] else "record"
    who += "" if found["alone"] == 1 else "s"
    notes.append(
        f"{found['alone']:,} {who} with published values that no other has; whoever knows these of "
        "a patient knows which codes are theirs."
    )
    kept = f"{out.name}.private says which code is whose: keep it and the key inside."
    lines = [
        *notes,
        kept,
        found["statement"],
        "No attack was run on this release; see: confide attack run.",
    ]
    return [table, "", *(numbers.name(line) for line in lines)]
