"""The pages of the documentation and their blocks of code."""

from dataclasses import dataclass
from pathlib import Path

import yaml

from confide.config import CodesConfig, Config, parse, parse_as
from confide.encoders.key import Key, unlock
from confide.runs.encode import encode
from confide.runs.model_settings import ModelConfig

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.rglob("*.md")), ROOT / "README.md"]


def name_of(path):
    """ "howto/erase.md", and "README.md" for that of the project."""
    return path.relative_to(DOCS).as_posix() if path.is_relative_to(DOCS) else path.name


@dataclass(frozen=True)
class Block:
    """A fenced block; its name is its title, or else its first line without the comment."""

    page: str
    line: int
    language: str
    title: str | None
    text: str

    @property
    def name(self):
        first = next((x.strip() for x in self.text.splitlines() if x.strip()), "")
        return self.title or first.split("  #")[0].rstrip()


def blocks_of(path):
    found, opened = [], None
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        bare = line.strip()
        if not bare.startswith("```"):
            if opened:
                opened[2].append(line)
        elif opened is None:
            opened = (number, bare.removeprefix("```"), [])
        else:
            start, info, lines = opened
            language, _, rest = info.partition(" ")
            title = rest.partition('title="')[2].partition('"')[0] or None
            found.append(Block(name_of(path), start, language, title, "\n".join(lines) + "\n"))
            opened = None
    assert opened is None, f"{path}: the block of line {opened and opened[0]} is not closed"
    return found


def commands_of(block):
    """The lines of a block of commands, without comments."""
    for line in block.text.splitlines():
        line = line.split("  #")[0].strip()
        if line and not line.startswith("#"):
            yield line


def config_of(text):
    """The configuration in a block, checked; a part of one is checked with data of its own."""
    given = yaml.safe_load(text)
    data = given.setdefault("data", {"name": "phantom"})
    if data["name"] == "release" and "audit" not in given:
        return parse_as(CodesConfig, given)
    return parse_as(ModelConfig if "target" in given else Config, given)


def make_release(folder):
    """A key and a small release, named as in the pages."""
    Key.new().save(folder / "a.key")
    data = {"name": "phantom", "n_patients": 60, "size": [32, 32], "seed": 1}
    config = parse({"data": data, "encode": {"patch": 8, "width": 16, "pseudonyms": True}})
    encode(config, folder, folder / "a.key", folder / "codes" / "a", unlock=unlock)
