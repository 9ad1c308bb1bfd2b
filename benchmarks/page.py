"""Write the tables of docs/performance.md from benchmarks/results/*.json.

python benchmarks/page.py
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
CASES = {"wrn": "WRN-28-2", "table": "table", "small_cnn": "small CNN"}


def read(name: str) -> tuple[dict[str, Any], Any]:
    """The machine, and what was measured."""
    stored = json.loads((FOLDER / f"{name}.json").read_text())
    return stored["machine"], stored[name]


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Of Markdown."""
    head = list(head)
    lines = [head, ["---"] * len(head), *([str(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def on(machine: dict[str, Any]) -> str:
    """What it ran on, in a line."""
    gpus = machine.get("gpus", [])
    what = f"{len(gpus)} {gpus[0]}" if gpus else f"{machine['cores']} cores, {machine['processor']}"
    return f"\n\n*{what}; PyTorch {machine['versions']['torch'].partition('+')[0]}*"


def gpu() -> str:
    """Ways to take a step."""
    machine, found = read("gpu")
    rows = [
        (
            CASES[one["case"]],
            one["models at once"],
            one["way"],
            f"{one['ms']:.3g}",
            f"{one['times ours']:.2f}",
        )
        for one in found.get("steps", ())
    ]
    ours = next((one["ms"] for one in found.get("steps", ()) if one["case"] == "wrn"), None)
    for kind in ("float32", "mixed_bfloat16") if found.get("peer") and ours else ():
        ms, name = found["peer"][kind]["ms"], f"Keras {found['peer']['keras']}, {kind}"
        rows.append(("WRN-28-2", 1, name, f"{ms:.3g}", f"{ms / ours:.2f}"))
    return table(("network", "models at once", "way", "ms", "times ours"), rows) + on(machine)


def whole() -> str:
    """Seconds of a model."""
    found = read("gpu")[1].get("whole")
    if not found:
        return ""
    return (
        "A model of about the size of the published one for Fitzpatrick17k, "
        f"{found['steps']:,} steps in bfloat16 and 13,000 records in 16 views, took "
        f"{found['first s']:.1f} s as the first one, with its set-up."
    )


def equivalence() -> str:
    """The same models both ways."""
    machine, found = read("equivalence")
    pair = found["compared"]["pairs"][0]

    def of(side: str, name: str) -> str:
        one = found[side]["utility"] if name == "utility" else found[side]["attacks"][name]
        value, low, high = (
            (one["auroc"], one["low"], one["high"])
            if name == "utility"
            else (one["auc"], one["auc_low"], one["auc_high"])
        )
        return f"{value:.3f} ({low:.3f} to {high:.3f})"

    def difference(name: str) -> str:
        one = pair[name]
        return f"{one['value']:+.3f} ({one['low']:+.3f} to {one['high']:+.3f})"

    rows = [
        ("AUC of LiRA", of("fast", "lira"), of("plain", "lira"), ""),
        ("AUC of RMIA", of("fast", "rmia"), of("plain", "rmia"), difference("attack_auc")),
        ("AUROC of the task", of("fast", "utility"), of("plain", "utility"), difference("auroc")),
        ("seconds of training", *(f"{found[s]['seconds']:.0f}" for s in ("fast", "plain")), ""),
    ]
    return table(("", "fast", "as written", "difference"), rows) + on(machine)


def workers() -> str:
    """By the number of workers."""
    machine, found = read("workers")
    rows = [(n, f"{rate:.1f}", f"{rate / found['1']:.2f}") for n, rate in sorted(found.items())]
    return table(("workers", "models a minute", "times one"), rows) + on(machine)


def training() -> str:
    """Steps on a CPU."""
    machine, found = read("training")
    rows = [
        (one["case"], one["models at once"], f"{one['ms']:.3g}", f"{one['peak MiB']:,.0f}")
        for one in found
    ]
    return table(("case", "models at once", "ms", "MiB of the process"), rows) + on(machine)


def encoding() -> str:
    """Codes."""
    machine, found = read("encoding")
    rows = [
        (one["what"], f"{one['ms']:.3g}", one["against"], f"{one['its ms']:.3g}", one["ratio"])
        for one in found
    ]
    return table(("", "ms", "against", "ms", "ratio"), rows) + on(machine)


def analysis() -> str:
    """By the size of a study."""
    machine, found = read("analysis")
    rows = [
        (
            one["models"],
            f"{one['records']:,}",
            f"{one['patients']:,}",
            f"{one['seconds']:.0f}",
            f"{one['peak GiB']:.1f}",
        )
        for one in found
    ]
    head = ("models", "records", "patients", "seconds", "GiB at most")
    return table(head, rows) + on(machine)


TABLES: dict[str, Callable[[], str]] = {
    one.__name__: one for one in (analysis, gpu, whole, equivalence, workers, training, encoding)
}


def filled(page: str) -> str:
    """The page with its tables made anew."""

    def made(found: re.Match[str]) -> str:
        return f"<!-- table: {found[1]} -->\n\n{TABLES[found[1]]()}\n\n<!-- end -->"

    return re.sub(r"<!-- table: (\w+) -->\n.*?<!-- end -->", made, page, flags=re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text()))
    print(PAGE)
