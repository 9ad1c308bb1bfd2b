"""The attacks on releases, and scores of a challenge, for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from confide.reports import numbers

_KNOWS = {
    "codes": "The attacker has the codes alone",
    "unpaired": "The attacker has the codes, and plain records of other patients",
    "same-images": "The attacker has the codes, and the plain records in no order",
    "pairs": "The attacker has the codes, and knows which code is whose for some",
}


def renderables(attacks: Sequence[Mapping[str, str]]) -> list[RenderableType]:
    """The attacks, by what their attacker knows.

    Parameters
    ----------
    attacks : `name`, `knowledge`, `about` and `source` of each
    """
    parts: list[RenderableType] = []
    for knowledge in dict.fromkeys(one["knowledge"] for one in attacks):
        head = f"{_KNOWS.get(knowledge, 'The attacker knows')} (knowledge: {knowledge})"
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for one in attacks:
            if one["knowledge"] == knowledge:
                source = "" if one["source"] == "confide" else f" [{one['source']}]"
                table.add_row(Text(f"  {one['name']}"), Text(one["about"] + source))
        parts.append(Padding(Group(Text(head, style="bold"), table), (0, 0, 1, 0)))
    parts.append(Text("In brackets: where an attack is from, if not from here."))
    return parts


def scores(found: Mapping[str, Mapping[str, Any]]) -> list[RenderableType]:
    """The scores of a submission: value, what chance gives, and of how many."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(Text("score", style="bold"), overflow="fold")
    for column in ("value", "by chance", "chance up to", "of"):
        table.add_column(Text(column, style="bold"), justify="right", no_wrap=True)
    for name, one in found.items():
        covered = name.endswith("coverage")
        chance = ("", "") if covered else (f"{one['chance']:.3f}", f"{one['chance_high']:.3f}")
        cells = (f"{one['value']:.3f}", *chance, numbers.count(one["n"]))
        table.add_row(Text(numbers.name(name)), *map(Text, cells))
    legend = "Chance goes beyond the range up to there less than once in a thousand runs."
    return [table, Text(legend)]
