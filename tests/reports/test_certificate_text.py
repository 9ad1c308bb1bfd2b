import io
import sys
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from confide.reports.certificate_text import renderables

sys.path.insert(0, str(Path(__file__).parent))  # tests are imported from files
import certificates
from certificates import ALL, challenge, make, verdicts


def printed(certificate, width=80):
    stream = io.StringIO()
    console = Console(file=stream, width=width)
    for part in renderables(certificate):
        console.print(part)
    return stream.getvalue()


@pytest.mark.parametrize("width", [80, 200])
def test_figures_and_names_are_whole_at_any_width(width):
    certificate = make(most=0.05)
    text = printed(certificate, width)
    lines = [line.rstrip() for line in text.splitlines()]
    assert max(map(len, lines)) <= width
    rows = [" ".join(line.split()) for line in lines]
    for row in (
        "attack outcome score by chance controls",
        "linkage leaks 0.618 0.500 linear 0.940",
        "AUC 0.578 to 0.658 0.420 to 0.580 noise 0.510",
        "two-keys-linkage nothing 0.512 0.500 linear 0.950",
        "alignment leaks 97.8% 0.24% linear 100.0%",
        "re-identified 96.4% to 99.2% 0.0% to 1.4% noise 0.24%",
        "assignment not 0.47% 0.24% linear 35.0%",
        "re-identified established 0.0% to 1.9% 0.0% to 1.4% noise 0.0%",
        "unpaired-alignment leaks 0.731 0.020 linear 0.940",
        "correlation of maps 0.711 to 0.751 -0.010 to 0.050 noise 0.020",
        "transfer not run n/a n/a linear n/a",
    ):
        assert row in rows
    words = " ".join(text.split())
    assert words.startswith("RE-IDENTIFICATION BAD: alignment singled out 97.8% of the records")
    for sentence in (
        "Gate missed: at most 5% of the records may be singled out. The upper end of the interval",
        "Note: 425 of 11,214 codes were attacked, drawn by chance.",
        "assignment: The positive control was not broken: 0.35 on the linear encoder",
        "transfer: The attribute has fewer than two values",
        "less than once in a thousand runs",
        "An attack that failed shows only that this attack failed",
        f"`confide encode verify RELEASE` must print digest {'ab12' * 16}",
        f"SHA-256 of the certificate: {certificate['sha256']}",
    ):
        assert sentence in words
    assert "…" not in text


def test_a_control_has_its_own_words():
    words = " ".join(printed(make({"wrongly-paired": ALL["wrongly-paired"]})).split())
    assert "wrongly-paired control" in words
    assert "Control held: An attack that is itself a control" in words
    assert "nothing found" not in words
    failed = printed(make({"wrongly-paired": (0.842, 1.0, 0.0024)}))
    assert "Control failed: An attack" in " ".join(failed.split())
    assert "Control held" not in printed(make({"linkage": ALL["linkage"]}))


@pytest.mark.parametrize("name", list(verdicts()))
def test_verdicts(name):
    words = " ".join(printed(verdicts()[name]).split())
    assert words.startswith(f"RE-IDENTIFICATION {name.upper()}")
    assert ("Not to be read as: that" in words) == (name != "bad")


def test_a_challenge_has_nothing_to_verify():
    words = " ".join(printed(challenge()).split())
    assert "encode verify" not in words
    assert "alignment: The truth was not at hand." in words
    assert "Note:" not in words


def test_nothing_attacked():
    words = " ".join(printed(make({})).split())
    assert "No attack was asked for." in words
    assert "Below a score" not in words
    assert printed({})


def test_names_cannot_steer_the_terminal(hostile):
    for width in (80, 200):
        text = printed(certificates.hostile(hostile), width)
        assert "\x1b" not in text
        assert "\x07" not in text
        assert max(cell_len(line) for line in text.splitlines()) <= width
        assert "96.4% to 99.2%" in text
        assert "[bold red]loud[/]" in " ".join(text.split())
