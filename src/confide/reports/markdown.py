"""Markdown in which nothing that came from outside is more than text.

Renderers differ; what is written here is read alike by CommonMark, GitHub's Markdown and
Python-Markdown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from confide.reports import numbers

# With a backslash: what every renderer lets escape. As an entity: what only some do.
_BACKSLASHED = "\\`*_{}[]#!"
_AS_ENTITY = "<>&|~@$"
_TABLE = {
    **{ord(c): f"\\{c}" for c in _BACKSLASHED},
    **{ord(c): f"&#{ord(c)};" for c in _AS_ENTITY},
}
# At the start of a line: items of lists, and underlines of headings.
_LIST = re.compile(r"^(\d+)([.)])(?=\s|$)")
_MARK = re.compile(r"^[-+=:](?=\s|$|[-+=:])")
# Addresses that some renderers make links of without being asked.
_ADDRESS = re.compile(r"://|(?<=[Ww]{3})\.")


class Markdown(str):
    """Text that is Markdown already, and is not escaped again."""

    __slots__ = ()


def text(value: Any) -> Markdown:
    r"""A value from anywhere as one line of Markdown that shows exactly its text.

    Control and other invisible characters become U+FFFD, as in :func:`numbers.name`.

    >>> text("a|b <i> [x](y) http://z")
    'a&#124;b &#60;i&#62; \\[x\\](y) http&#58;//z'
    >>> text("1. a"), text("# a"), text("[0-10)")
    ('1\\. a', '\\# a', '\\[0-10)')
    """
    if isinstance(value, Markdown) or value == "":
        return Markdown(value)
    line = " ".join(numbers.name(value).split(" "))
    escaped = line.translate(_TABLE)
    escaped = _ADDRESS.sub(lambda m: f"&#{ord(m[0][0])};{m[0][1:]}", escaped)
    escaped = _LIST.sub(r"\1\\\2", escaped)
    return Markdown(_MARK.sub(lambda m: f"&#{ord(m[0])};", escaped))


def code(value: str) -> Markdown:
    """Words of ours, such as the name of a file or of a key, as code.

    >>> code("summary.json")
    '`summary.json`'
    """
    return Markdown(f"`{value}`")


def heading(level: int, value: Any) -> Markdown:
    """A heading; `level` from 1.

    >>> heading(2, "What was measured")
    '## What was measured'
    """
    return Markdown(f"{'#' * level} {text(value)}")


def bullets(lines: Iterable[Any]) -> Markdown:
    r"""A list, one item a line.

    >>> bullets(["one", "*two*"])
    '- one\n- \\*two\\*'
    """
    return Markdown("\n".join(f"- {text(line)}" for line in lines))


def table(head: Sequence[Any], rows: Iterable[Sequence[Any]]) -> Markdown:
    """A table; every cell is escaped unless it is :class:`Markdown`.

    >>> print(table(["fact", "figure"], [["a|b", 1]]))
    | fact | figure |
    |---|---|
    | a&#124;b | 1 |
    """
    lines = [_row(head), f"|{'---|' * len(head)}"]
    return Markdown("\n".join([*lines, *map(_row, rows)]))


def _row(cells: Sequence[Any]) -> str:
    return f"| {' | '.join(text(cell) for cell in cells)} |"


def document(parts: Iterable[str]) -> str:
    """Blocks with a blank line between them; empty ones are left out."""
    return "\n\n".join(part for part in parts if part) + "\n"
