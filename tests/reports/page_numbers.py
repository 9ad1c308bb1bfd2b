"""The figures of a page, each with the place where it stands, and whether a source has it.

A figure is a number in visible text, in a label for screen readers or in an attribute that a
download uses.  What is no figure: marks of axes, names of the user's data (in <bdi>), references,
code, and numbers within words such as SHA-256 or P1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any

from confide.reports import numbers

TOKEN = re.compile(
    r"(?<![\w.,#/:-])[-+]?(?:\d+(?:,\d{3})*(?:\.\d+)?|\.\d+)(?:e[-+]?\d+)?%?(?![\w/])"
)
SILENT = {"script", "style", "title", "bdi", "ol", "pre", "code", "text"}
VOID = {"meta", "link", "input", "br", "img", "hr", "path", "line", "circle", "rect", "polygon"}
DATA = ("data-value", "data-low", "data-high")


@dataclass(frozen=True)
class Found:
    """A figure and where it stands: section, part of it, table, row and its name."""

    token: str
    section: str
    part: str
    table: str
    row: int
    name: str
    exact: bool
    label: bool
    text: str


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[tuple[str, dict[str, str | None]]] = []
        self.pieces: list[dict[str, Any]] = []
        self.rows: dict[str, int] = {}
        self.n_tables = 0
        self.row_names: dict[tuple[str, int], str] = {}
        self.feed(text)

    def _place(self) -> dict[str, Any]:
        section = part = table = ""
        for tag, attrs in self.open:
            if tag == "section":
                section, part = attrs.get("aria-labelledby") or attrs.get("id") or "", ""
            if (attrs.get("id") or "").startswith("attack-"):
                part = attrs["id"] or ""
            if tag == "table":
                table = attrs["#"] or ""
        return {"section": section, "part": part, "table": table, "row": self.rows.get(table, -1)}

    def _take(self, text: str, exact: bool = False, label: bool = False) -> None:
        self.pieces.append(self._place() | {"text": text, "exact": exact, "label": label})

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        kept = dict(attrs)
        if tag == "table":
            self.n_tables += 1
            kept["#"] = kept.get("data-table") or f"table {self.n_tables}"
        inside = any(name == "tbody" for name, _ in self.open)
        if tag not in VOID:
            self.open.append((tag, kept))
        if tag == "tr" and inside and "detail" not in (kept.get("class") or "").split():
            table = self._place()["table"]
            self.rows[table] = self.rows.get(table, -1) + 1
        if tag in ("svg", "p") and kept.get("aria-label"):
            self._take(kept["aria-label"] or "", label=True)
        for key in DATA:
            if kept.get(key):
                self._take(kept[key] or "", exact=True)

    def handle_endtag(self, tag: str) -> None:
        while self.open and any(name == tag for name, _ in self.open):
            if self.open.pop()[0] == tag:
                break

    def handle_data(self, data: str) -> None:
        tags = [tag for tag, _ in self.open]
        place = self._place()
        if any(t == "th" and a.get("scope") == "row" for t, a in self.open) and not any(
            "under" in (a.get("class") or "") for _, a in self.open
        ):
            at = (place["table"], place["row"])
            self.row_names[at] = " ".join(f"{self.row_names.get(at, '')} {data}".split())
        if "body" in tags and not SILENT & set(tags):
            self._take(data)


def figures(page: str) -> list[Found]:
    """All figures of a page, in its order."""
    parsed = _Page(page)
    found = []
    for piece in parsed.pieces:
        text = piece.pop("text")
        name = parsed.row_names.get((piece["table"], piece["row"]), "")
        # Names are told in labels too.
        shown = text.replace(name, " ") if name and piece["label"] else text
        for match in TOKEN.finditer(shown):
            found.append(Found(token=match[0], name=name, text=" ".join(text.split()), **piece))
    return found


def walk(value: Any) -> Iterable[Any]:
    """All numbers and texts within JSON, keys included."""
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield key
            yield from walk(one)
    elif isinstance(value, list | tuple | set):
        for one in value:
            yield from walk(one)
    elif value is not None:
        yield value


def forms(value: Any) -> set[str]:
    """Every way in which a page may write a value; of a text, the figures within."""
    if isinstance(value, bool):
        return set()
    if isinstance(value, str):
        within = {match[0] for match in TOKEN.finditer(value)}
        try:
            return within | forms(float(value))
        except ValueError:
            return within
    x = numbers.number(value)
    if x is None or not math.isfinite(x):
        return set()
    written = {f"{x:.6g}", f"{x:.10g}", f"{x:,.10g}", repr(value), f"{x:.3g}", numbers.auc(x)}
    written |= {
        f"{x:+.3f}",
        f"{round(x, 3) + 0.0:+.3f}",
        numbers.ratio(x),
        numbers.rate(x),
        f"{x:,.1f}",
    }
    written |= {f"{100 * x:.{digits}f}%" for digits in (1, 2, 3)} | {numbers.percent(x)}
    if 0 <= x <= 1:
        written.add(numbers.p_value(x).replace("< ", "").strip())
        written.add("0.001%")  # "<0.001%"
    if x == round(x):
        written |= {numbers.count(x), f"{x:.0f}"}
    return written


def whole(value: Any) -> set[str]:
    """How an attribute holds a value."""
    try:
        x = None if isinstance(value, bool) else numbers.number(value)
    except ValueError:
        return {match[0] for match in TOKEN.finditer(value)}
    return set() if x is None else {f"{x:.6g}", repr(x), repr(value)}


def unexplained(
    page: str, sources: Callable[[Found], Iterable[Any]], constants: Iterable[str]
) -> list[Found]:
    """Figures that neither their sources nor the constants of the wording have."""
    places: dict[tuple[Any, ...], set[str]] = {}
    # Of each object once; it is kept, so that its id is not used again.
    written: dict[tuple[int, bool], tuple[Any, set[str]]] = {}
    fixed = set(constants)
    left = []
    for one in figures(page):
        write = whole if one.exact else forms
        place = (one.section, one.part, one.table, one.row, one.label and one.text, one.exact)
        if place not in places:
            places[place] = set()
            for source in sources(one):
                key = (id(source), one.exact)
                if key not in written:
                    written[key] = (source, set().union(*map(write, walk(source))))
                places[place] |= written[key][1]
        if one.token not in places[place] and (one.exact or one.token not in fixed):
            left.append(one)
    return left
