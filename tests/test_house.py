"""The house stands as docs/design.md draws it: a module imports only what stands to its left."""

import ast
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "confide"

# What each part may import, beside itself.  Everything may import errors and _check.
FOUNDATION = {"errors", "_check"}
ALLOWED = {
    "errors": set(),
    "_check": {"errors"},
    "_tables": FOUNDATION,
    "cohort": FOUNDATION | {"_tables"},
    "masks": FOUNDATION,
    "signals": FOUNDATION | {"cohort"},
    "attacks": FOUNDATION | {"cohort", "masks", "signals"},
    "audits": FOUNDATION | {"cohort", "masks", "signals", "attacks"},
    "reports": FOUNDATION | {"cohort", "audits"},
    "_disk": FOUNDATION,
    "_places": FOUNDATION | {"_disk"},
    "_objects": FOUNDATION | {"_places"},
    "stores": FOUNDATION | {"_disk", "_places", "_objects"},
    "datasets": FOUNDATION | {"_tables", "cohort"},
    "models": FOUNDATION | {"cohort"},
    "training": FOUNDATION | {"cohort", "models"},
    "encoders": FOUNDATION | {"_tables", "cohort", "stores", "datasets", "models", "training"},
}
ALLOWED["inversion"] = ALLOWED["encoders"] | {"encoders", "audits"}
ALLOWED["config"] = FOUNDATION | {"datasets", "training", "attacks", "encoders", "inversion"}
ALLOWED["runs"] = {name for name in ALLOWED if name != "cli"}
ALLOWED["cli"] = {*ALLOWED, "runs", "config"}
ALLOWED["__main__"] = {"cli"}
ALLOWED["__init__"] = {*ALLOWED, "cli"}
WITHOUT_TORCH = sorted(set(ALLOWED) - {"models", "training", "encoders", "inversion", "runs"})


def part_of(path):
    return path.relative_to(SRC).parts[0].removesuffix(".py")


def imports(path):
    """Parts of confide that a file imports, anywhere in it, and other packages."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module == "confide":
                names = [f"confide.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            head, *rest = name.split(".")
            found.add(rest[0] if head == "confide" and rest else head)
    return found


FILES = sorted(SRC.rglob("*.py"))


def test_there_are_files():
    assert len(FILES) > 40
    assert {part_of(f) for f in FILES} == set(ALLOWED)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SRC)))
def test_arrows_point_left(path):
    part = part_of(path)
    mine = (imports(path) & set(ALLOWED)) - {part}
    if path.name == "__init__.py" and path.parent == SRC:
        return
    allowed = ALLOWED[part] | ({"__init__"} if part == "cli" else set())
    assert mine <= allowed, f"{part} may not import {sorted(mine - allowed)}"


@pytest.mark.parametrize("part", WITHOUT_TORCH)
def test_torch_stays_out(part):
    files = [f for f in FILES if part_of(f) == part]
    assert files
    for path in files:
        assert "torch" not in imports(path), path


def test_no_cycles():
    graph = {
        part: {p for p in ALLOWED[part] if p != part} for part in ALLOWED if part != "__init__"
    }
    done, order = set(), []

    def visit(part, above):
        assert part not in above, f"cycle: {' -> '.join([*above, part])}"
        if part in done:
            return
        for other in graph.get(part, ()):
            visit(other, [*above, part])
        done.add(part)
        order.append(part)

    for part in graph:
        visit(part, [])
    assert set(order) == set(graph)


def test_no_file_is_too_long():
    long = {
        str(f.relative_to(SRC)): n for f in FILES if (n := len(f.read_text().splitlines())) > 450
    }
    assert not long


def test_yaml_makes_plain_values_only():
    import yaml

    from confide import config

    assert issubclass(config._Loader, yaml.SafeLoader)
    assert "!!python" not in str(config._Loader.yaml_constructors)


def test_python_is_new_enough():
    assert sys.version_info >= (3, 11)
