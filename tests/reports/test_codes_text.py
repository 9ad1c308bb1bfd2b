import io
import sys
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from confide.reports.codes_text import renderables

sys.path.insert(0, str(Path(__file__).parent))  # tests are imported from files
from codes_inputs import NOT_OF_ONE_SITE, make


def printed(inputs, width=80, **settings):
    stream = io.StringIO()
    console = Console(file=stream, width=width, **settings)
    for part in renderables(*inputs):
        console.print(part)
    return stream.getvalue()


@pytest.mark.parametrize("width", [80, 200])
def test_figures_are_whole_at_any_width(width):
    text = printed(make(warnings=["A warning."]), width)
    lines = [line.rstrip() for line in text.splitlines()]
    assert max(map(len, lines)) <= width
    rows = [" ".join(line.split()) for line in lines]
    for row in (
        "arm mean over sites at their own site mean over sites",
        "plain 0.859 0.836 +0.023",
        "0.829 to 0.886 0.806 to 0.863 +0.004 to +0.041",
        "codes 0.847 0.824 +0.023*",
        "0.817 to 0.874 0.794 to 0.851 -0.006 to +0.041",
        "* not distinguishable from none",
        "At all sites",
        "of all sites of one site gain of all sites",
        "arm mean over sites at all sites mean over sites all records",
        "plain 0.859 0.620 +0.239 0.870",
        "0.829 to 0.886 0.590 to 0.647 +0.210 to +0.260 0.840 to 0.897",
        "Arms compared",
        "codes minus plain -0.012* -0.112*",
        "-0.030 to +0.004 -0.030 to +0.004",
        "codes minus linear -0.024 -0.124",
        "model on a on b on c",
        "codes: model of all sites 0.858 0.848 0.838",
        "codes: model of b 0.510 0.808 0.490",
    ):
        assert row in rows
    words = " ".join(text.split())
    assert words.startswith("Warning: A warning. opacity: AUC of opacity against clear")
    assert "effusion: AUC of effusion against clear" in words
    assert "95%, from 2,000 resamples of the test patients. Gain: the model of all sites" in words
    assert "cannot be expected to read codes made with other keys." in words
    assert words.endswith("they say nothing about privacy.")
    assert "…" not in text


def test_one_site_has_one_column():
    inputs = make(labels=("opacity",), sites={"a": 84}, arms=("codes",), units="records")
    words = " ".join(printed(inputs).split())
    assert "arm AUC" in words
    assert "codes 0.870 0.826 to 0.909" in words
    assert "resamples of the test records." in words
    for absent in (" gain ", "minus", "*", "over sites", "model of", "keys"):
        assert absent not in words


def test_one_site_compares_arms():
    words = " ".join(printed(make(labels=("opacity",), sites={"a": 84})).split())
    assert "arms difference" in words
    assert "codes minus plain -0.012* -0.030 to +0.004" in words


@pytest.mark.parametrize(("sites", "fits"), [(5, True), (6, True), (7, False)])
def test_which_model_works_where_is_left_out_where_it_does_not_fit(sites, fits):
    # 26 columns of "linear: model of all sites", and 2 + 7 of each site.
    inputs = make(labels=("opacity",), sites={f"s{i:03}": 60 for i in range(sites)})
    text = printed(inputs)
    assert ("Which model works where" in text) == fits
    assert "…" not in text


def test_nothing_is_marked_where_nothing_is_to_be_said():
    text = printed(make(arms=("plain",)))
    assert "*" not in text
    assert "not distinguishable" not in text
    assert "minus" not in text


def test_few_test_patients_and_missing_figures():
    table, summary = make(labels=("opacity", "effusion"))
    table.loc[table["label"] == "effusion", "n_patients"] = 9
    for arm in summary["labels"]["opacity"]["arms"].values():
        arm |= dict.fromkeys((*NOT_OF_ONE_SITE, "own_site"))
    text = printed((table, summary))
    assert "effusion: AUC of effusion against clear: withheld, fewer than 10 test patients" in (
        " ".join(text.split())
    )
    assert "codes n/a n/a n/a n/a" in [" ".join(line.split()) for line in text.splitlines()]
    assert "effusion: AUC" in text
    assert "0.797" not in text


def test_colour_adds_nothing_and_names_cannot_steer_the_terminal(hostile):
    inputs = make(
        labels=hostile,
        arms=hostile[:3],
        encoders=dict.fromkeys(hostile),
        statement=hostile[6],
        warnings=list(hostile),
    )
    for width in (80, 200):
        text = printed(inputs, width)
        assert "\x1b" not in text
        assert "\x07" not in text
        assert max(cell_len(line) for line in text.splitlines()) <= width
        assert "0.870" in text
        assert "[bold red]loud[/]" in " ".join(text.split())


def test_nothing_measured():
    table, _ = make()
    words = " ".join(printed((table.iloc[:0], {})).split())
    assert words.startswith("AUC: the chance")
