import dataclasses
import io
import re

import pytest
from rich.cells import cell_len
from rich.console import Console

from confide.reports.text import renderables


def _printed(result, width, **settings):
    stream = io.StringIO()
    console = Console(file=stream, width=width, **settings)
    for part in renderables(result):
        console.print(part)
    return stream.getvalue()


@pytest.mark.parametrize("width", [80, 200])
def test_figures_are_whole_at_any_width(make_result, width):
    text = _printed(make_result(warnings=["A warning."]), width)
    lines = [line.rstrip() for line in text.splitlines()]
    assert max(map(len, lines)) <= width
    rows = [" ".join(line.split()) for line in lines]
    assert "LiRA 0.610 (0.590 to 0.630) 21.0% 5.0% 1.2% n/a" in rows
    assert "0.9 1.8% (1.4% to 2.1%) 0.011% 1.2% (0.5% to 2.6%)" in rows
    words = " ".join(text.split())
    for sentence in (
        "PATIENTS AT RISK: Sentences that the audit wrote.",
        "12 of 455, at a false discovery rate of 5%",
        "AUC 0.742 measured, of a patient alone",
        "true AUC 0.781, of a patient alone",
        "19 of 20 planted patients found",
        "Guard recipe unknown: The target states no recipe.",
        "Warning: A warning.",
        "AUROC 0.951 (0.941 to 0.961), accuracy 0.901 (0.881 to 0.921)",
    ):
        assert sentence in words
    assert "…" not in text
    assert "MRN-" not in text


def test_guards_that_failed_come_first(make_result):
    guards = [
        {"name": name, "status": status, "message": f"Message of {name}."}
        for name, status in (("recipe", "accepted"), ("blind", "failed"), ("other", "unknown"))
    ]
    words = " ".join(_printed(make_result(guards=guards), 80).split())
    assert words.startswith(
        "Guard blind failed. Message of blind. Guard recipe failed and was accepted. Message of "
        "recipe. PATIENTS AT RISK:"
    )
    assert words.count("Message of blind.") == 1
    assert "Guard other unknown: Message of other." in words


@pytest.mark.parametrize("width", [80, 200])
def test_bounds_looks_canaries_and_screens(make_result, make_bound, width):
    result = make_result(
        attacks=("lira", "lt_iqr"),
        epsilon=[make_bound(), make_bound("gdp"), make_bound(whose="canaries", n_patients=1)],
        guards=[{"name": "membership", "status": "unknown", "message": "No proof."}],
    )
    result.summary["patients"] |= {"looks": 3, "canaries": {"planted": 12, "found": 5}}
    text = _printed(result, width)
    assert max(map(len, text.splitlines())) <= width
    words = " ".join(text.split())
    for sentence in (
        "Lower bounds of epsilon at delta 1e-05, confidence 95% each",
        "guesses about many [1] 200 patients patient 0.64",
        "guesses about many [1] 1 canary patient 0.64",
        "one alone, Gaussian curve [2]: mu at least 1.23, confidence 95% (whose: 1 patient; unit: "
        "patient)",
        "[1] What one_run assumes. [2] What gdp assumes.",
        "A bound of 0 says nothing.",
        "Whether membership was drawn at random is not established (guard membership).",
        "Canaries 5 of 12 found (trained on with wrong labels)",
        "at a false discovery rate of 1.67%: 5% divided by the 3 looks",
        "LT-IQR (screen): It ranks the members",
    ):
        assert sentence in words
    rows = [line.split()[:2] for line in text.splitlines()]
    assert ["LT-IQR", "(screen)"] not in rows


def test_colour_adds_nothing(make_result):
    plain = _printed(make_result(), 80)
    assert "\x1b" not in plain
    coloured = _printed(make_result(), 80, force_terminal=True, color_system="truecolor")
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == plain


def test_not_established_is_never_safe(make_result):
    patients = {"n_at_risk": 0, "fdr": 0.05, "smallest_detectable_auc": None, "control": None}
    result = make_result(status="not_established", n_at_risk=0, patients=patients)
    words = " ".join(_printed(result, 80).split())
    assert words.startswith("NOT ESTABLISHED: Sentences that the audit wrote.")
    assert "Not to be read as: that patients are safe. Not established is never safe." in words
    assert "not established (0 of 455 listed)" in words
    assert "none: no patient alone could be listed" in words
    assert "Positive control not run" in words


def test_none_found_says_what_it_does_not_mean(make_result):
    words = " ".join(_printed(make_result(status="none_found", n_at_risk=0), 80).split())
    assert words.startswith("NONE FOUND: Sentences that the audit wrote.")
    assert "Not to be read as: that the model is safe or the data anonymous." in words


def test_without_a_text_the_headline_speaks(make_result):
    result = make_result()
    result.summary["verdict"]["text"] = ""
    words = " ".join(_printed(result, 80).split())
    assert words.startswith("PATIENTS AT RISK: 12 of 455 patients are at risk")


def test_names_cannot_style_or_steer_the_terminal(make_result, hostile):
    result = make_result(groups={"g": dict.fromkeys(hostile, 50)})
    result.summary["warnings"] = list(hostile)
    for width in (80, 200):
        text = _printed(result, width)
        assert "\x1b" not in text
        assert "\x07" not in text
        assert "[bold red]loud[/]" in text
        assert max(map(cell_len, text.splitlines())) <= width


def test_small_cells_are_left_out(make_result):
    text = _printed(make_result(groups={"race": {"Nine": 9, "Ten": 10, "Twenty": 20}}), 80)
    assert "race: Twenty" in text
    assert "Nine" not in text
    assert "Ten" not in text  # alone it would tell the number of nine


def test_small_utility_is_withheld(make_result):
    result = make_result()
    result.summary["utility"]["overall"]["n_patients"] = 9
    text = _printed(result, 80)
    assert "Utility: withheld, < 10 held-out patients" in text
    assert "0.951" not in text


def test_nothing_measured(make_result):
    result = make_result(groups={}, attacks=(), patients=None, utility=None, guards=[])
    text = _printed(dataclasses.replace(result, summary={}), 80)
    assert text.startswith("NOT ESTABLISHED")
    assert "None" not in text
    assert "nan" not in text


def test_a_terminal_without_unicode(make_result):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    console = Console(file=stream, width=80)
    for part in renderables(make_result(status="not_established")):
        console.print(part)
    stream.flush()
    assert b"LiRA" in raw.getvalue()
