"""Pages that are made from the program when the site is built, so that they cannot be out of date.

In a page, ``<!-- commands -->`` becomes the command line, ``<!-- settings: module:Class -->`` the
table of a block of a configuration, and ``<!-- changelog -->`` the changelog of the project.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import typer
import yaml
from pydantic import BaseModel

sys.path.insert(0, str(Path(__file__).parent))

from _docstrings import as_text, entries, summary

ROOT = Path(__file__).resolve().parents[1]
_SHORT = 30  # characters of a block that is shown in a cell
_DIAGRAMS = re.compile(
    r'<script type="module">(?:(?!</script>).)*mermaid(?:(?!</script>).)*</script>', re.DOTALL
)
_SETTINGS = re.compile(r"^<!-- settings: ([\w.]+):(\w+) -->$", flags=re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs with the text of each page."""
    markdown = _SETTINGS.sub(lambda m: settings(_class(m.group(1), m.group(2))), markdown)
    if "<!-- commands -->" in markdown:
        markdown = markdown.replace("<!-- commands -->", command_line())
    if "<!-- changelog -->" in markdown:
        text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
        markdown = markdown.replace("<!-- changelog -->", text.partition("\n")[2])
    return markdown


def on_post_page(output: str, **_: Any) -> str:
    """Called by mkdocs with the HTML of each page.

    Pages of notebooks hold a script that would fetch a library for diagrams, which none has.
    """
    return _DIAGRAMS.sub("", output)


def command_line() -> str:
    """Every command with its arguments, options and example."""
    from confide.cli import app

    return "\n\n".join(_command(*one) for one in commands(typer.main.get_command(app), "confide"))


def commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """All commands below one, with their full names, groups first."""
    yield name, command
    for word, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, f"{name} {word}")


def _command(name: str, command: Any) -> str:
    group = hasattr(command, "commands")
    given = [one for one in command.params if not getattr(one, "hidden", False)]
    needed = [_usage(one) for one in given if one.required]
    rest = ["COMMAND"] if group else ["[OPTIONS]"] if len(given) > len(needed) else []
    parts = [
        f"{'##' if group else '###'} {name} {{#{name.replace(' ', '-')}}}",
        _paragraphs(command.help or ""),
        f"```text\n{' '.join([name, *needed, *rest])}\n```",
    ]
    if given:
        parts.append("| | | default |\n|---|---|---|\n" + "\n".join(map(_parameter, given)))
    if command.epilog:
        what, _, example = command.epilog.partition(": ")
        parts.append(f"{what}: `{' '.join(example.split())}`")
    return "\n\n".join(parts)


def _usage(one: Any) -> str:
    value = one.metavar or one.name.upper()
    if one.param_type_name == "argument":
        return str(value)
    return one.opts[0] if one.is_flag else f"{one.opts[0]} {value}"


def _parameter(one: Any) -> str:
    value = one.default
    shown = isinstance(value, str | int | float | Path) and not isinstance(value, bool) and value
    default = "required" if one.required else f"`{value}`" if shown else ""
    return f"| `{_usage(one)}` | {_cell(one.help or '')} | {default} |"


def settings(kind: type[BaseModel]) -> str:
    """A table of the keys of a block: what each may be, its default and its meaning."""
    schema = kind.model_json_schema()
    meanings = _meanings(kind)
    explained = any(name in meanings for name in schema["properties"])
    rows = []
    for name, field in schema["properties"].items():
        default = "**required**" if name in schema.get("required", ()) else _default(field)
        meaning = "" if name == "name" else meanings.get(name, "")
        row = f"| `{name}` | {default} | {_allowed(field, schema.get('$defs', {}))} |"
        rows.append(f"{row} {_cell(meaning)} |" if explained else row)
    head = "| key | default | may be |" + (" meaning |" if explained else "")
    head += "\n" + "|---" * head.count(" | ") + "|---|"
    anchor = f'<a id="{kind.__name__}"></a>'
    return f"{anchor}{_paragraphs(summary(kind.__doc__ or ''))}\n\n{head}\n" + "\n".join(rows)


def _meanings(kind: type[BaseModel]) -> dict[str, str]:
    found: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        if issubclass(one, BaseModel) and one is not BaseModel:
            found |= entries(one.__dict__.get("__doc__") or "")
    for name, meaning in found.items():
        if meaning.startswith("as in `Table`"):
            found[name] = _meanings(_class("confide.datasets", "Table"))[name]
    return found


def _class(module: str, name: str) -> Any:
    return getattr(import_module(module), name)


def _default(field: Mapping[str, Any]) -> str:
    value = field.get("default", {})
    if isinstance(value, dict) and "name" in value:
        return f"`{value['name']}`"
    text = yaml.safe_dump(value, default_flow_style=True, width=1000)
    text = text.removesuffix("...\n").strip()
    return f"`{text}`" if len(text) < _SHORT or not isinstance(value, dict) else "its defaults"


def _allowed(field: Mapping[str, Any], blocks: Mapping[str, Any]) -> str:
    """What a value may be, in words; blocks are links to their tables."""
    forms = field.get("oneOf") or field.get("anyOf")
    if forms:
        return " or ".join(dict.fromkeys(_allowed(one, blocks) for one in forms))
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        called = blocks[name]["properties"].get("name", {}).get("const")
        return f"[{f'`{called}`' if called else 'a block'}](#{name})"
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    kind = field.get("type")
    if kind == "array":
        if "prefixItems" in field:
            return f"[{', '.join(_allowed(one, blocks) for one in field['prefixItems'])}]"
        return f"list of {_allowed(field.get('items', {}), blocks)}"
    if kind in ("integer", "number"):
        return ("whole number" if kind == "integer" else "number") + _range(field)
    words = {"boolean": "`true`, `false`", "null": "`null`", "object": "keys and values"}
    return words.get(kind or "", "path" if field.get("format") == "path" else "text")


def _range(field: Mapping[str, Any]) -> str:
    words = {
        "minimum": "at least",
        "exclusiveMinimum": "above",
        "maximum": "at most",
        "exclusiveMaximum": "below",
    }
    said = [
        f"{word} {field[key]:g}" for key, word in words.items() if abs(field.get(key, 1e10)) < 1e9
    ]
    return ", " + " and ".join(said) if said else ""


def _paragraphs(text: str) -> str:
    return _escaped(inspect.cleandoc(text).replace("\b", ""))


def _cell(text: str) -> str:
    return _escaped(" ".join(text.split())).replace("|", "\\|")


def _escaped(text: str) -> str:
    return as_text(text).replace("*", "\\*")
