"""Docstrings as Markdown, for the reference pages.

The docstrings of this project put the meaning of a parameter where NumPy's form has its type, since
the signature says the type: ``name : meaning``.  So they are turned into Markdown here, and no
parser of docstrings takes part.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

import griffe

_SECTIONS = ("Parameters", "Attributes", "Returns", "Yields", "Raises", "Notes", "Examples")
_LISTS = ("Parameters", "Attributes", "Returns", "Raises")
_ENTRY = re.compile(r"^(\*{0,2}\w+(?:, \*{0,2}\w+)*) : (.*)$")
_ROLE = re.compile(r":(?:class|func|meth|mod|data|attr):`~?([^`]+)`")


def as_markdown(docstring: str) -> str:
    """A docstring in the form of this project -> Markdown."""
    lines = inspect.cleandoc(docstring).splitlines()
    out: list[str] = []
    section, at = "", 0
    while at < len(lines):
        title = lines[at].strip()
        if title in _SECTIONS and at + 1 < len(lines) and set(lines[at + 1].strip()) == {"-"}:
            section, at = title, at + 2
            out += ["", f"**{title}**", ""]
            continue
        if lines[at].startswith(">>>"):
            end = next((i for i in range(at, len(lines)) if not lines[i].strip()), len(lines))
            out += ["", "```python", *lines[at:end], "```", ""]
            at = end
            continue
        line = as_text(_ROLE.sub(r"`\1`", lines[at]).replace("``", "`"))
        out.append(_item(line) if section in _LISTS else line)
        at += 1
    return "\n".join(out)


def as_text(markdown: str) -> str:
    """Outside of code, what looks like markup is none."""
    return re.sub(r"(`[^`]*`)|<", lambda match: match.group(1) or "&lt;", markdown)


def entries(docstring: str, section: str = "Parameters") -> dict[str, str]:
    """{name: meaning} of a section; names that share an entry share its meaning."""
    found: dict[str, str] = {}
    names: list[str] = []
    lines = inspect.cleandoc(docstring).splitlines()
    if section not in lines:
        return found
    for line in lines[lines.index(section) + 2 :]:
        entry = _ENTRY.match(line)
        if entry:
            names = entry.group(1).split(", ")
            found |= dict.fromkeys(names, entry.group(2).strip())
        elif line.startswith(" ") and names:
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
        elif line.strip():
            break
    return {name: _ROLE.sub(_last, text).replace("``", "`") for name, text in found.items()}


def summary(docstring: str) -> str:
    """What stands before the first section."""
    lines = inspect.cleandoc(docstring).splitlines()
    end = next(
        (i for i in range(1, len(lines)) if lines[i] and set(lines[i]) == {"-"}), len(lines) + 1
    )
    return _ROLE.sub(_last, "\n".join(lines[: end - 1]).strip()).replace("``", "`")


def _last(match: re.Match[str]) -> str:
    return f"`{match.group(1).rpartition('.')[2]}`"


def _item(line: str) -> str:
    entry = _ENTRY.match(line)
    if entry:
        names = ", ".join(f"`{name}`" for name in entry.group(1).split(", "))
        return f"- {names}: {entry.group(2)}"
    return f"- {line}" if line and not line.startswith(" ") else line


class Docstrings(griffe.Extension):
    """Turns every docstring into Markdown when it is read."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called by griffe for each object that it reads."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)
