import itertools
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from confide.reports.codes import render_codes
from confide.reports.codes_view import read

sys.path.insert(0, str(Path(__file__).parent))  # tests are imported from files
import codes_inputs
from codes_inputs import METHOD, make
from codes_pages import Page, page, put


def test_the_reader_is_told_what_a_gain_is():
    shown = page(make())
    for words in (
        "Gain: the model of all sites less the models of one site.",
        "cannot be expected to read codes made with other keys",
        "not that it is better where the others work",
        "where it is negative, it is worse",
    ):
        assert words in shown.text


def test_marks_sites_groups_and_epochs_are_the_table():
    table, summary = make(labels=("opacity",))
    here = (table["arm"] == "codes") & (table["tested_on"] == "b") & (table["model"] == "own site")
    put(table, here, auc=0.6543, low=0.6, high=0.7, n_patients=59, n_records=1234)
    here = (table["arm"] == "linear") & (table["value"] == "Female")
    put(table, here, auc=0.7654, low=0.71, high=0.81, n_positive=91)
    shown = page((table, summary))
    assert ["codes: its own model", "", "0.654 0.600 to 0.700", "59", "1,234", "60"] in shown.rows
    assert ["linear", "", "0.765 0.710 to 0.810", "92", "276", "91"] in shown.rows
    assert [
        "model of all sites, mean over sites",
        "",
        "0.859 0.829 to 0.886",
        "180",
        "540",
        "180",
    ] in (shown.rows)
    assert ["codes", "8", "9", "10", "11"] in shown.rows
    assert ["Arm", "Model of all sites", "a", "b", "c"] in shown.rows
    assert ["a", "420", "1,260", "840", "168", "252", "1" * 32, "a" * 32] in shown.rows
    assert ["train.optimizer.lr", "0.0001"] in shown.rows
    assert "Classifiers of 2,700 records of 3 sites, trained in 3 ways and tested on 540" in (
        shown.text
    )


def test_each_label_has_its_own_figures():
    shown = page(make(labels=("opacity", "effusion")))
    for top in ("0.870 0.840 to 0.897", "0.820 0.790 to 0.847"):
        assert [row[4] for row in shown.rows if row[0] == "plain" and len(row) == 5].count(top) == 1


def test_one_site_and_one_arm():
    inputs = make(labels=("opacity",), sites={"a": 84}, arms=("codes",), groups={})
    shown = page(inputs)
    assert ["codes", "0.870 0.826 to 0.909"] in shown.rows
    assert ["codes", "", "0.870 0.826 to 0.909", "84", "252", "84"] in shown.rows
    assert "of one site, trained in 1 way" in shown.text
    for words in (
        "By site",
        "Gain",
        "own site",
        "model of all sites",
        "mean over",
        "Arms compared",
        "works where",
    ):
        assert words not in shown.text
    (label,) = read(*inputs).labels
    assert [sheet.columns for sheet in label.sheets] == [(("AUC", ""),)]
    assert label.where == ()
    assert [block.heading for block in label.overall] == [""]


@pytest.mark.parametrize("tested_on", ["all sites", "one site", "a"])
def test_one_site_may_be_called_anything(tested_on):
    table, summary = make(labels=("opacity",), sites={"a": 84}, arms=("codes", "linear"))
    (label,) = read(table.assign(tested_on=tested_on), summary).labels
    assert [line.name for line in label.overall[0].lines] == ["codes", "linear"]
    assert [line.name for line in label.groups[0].blocks[0].lines] == ["codes", "linear"]


def test_what_is_not_estimable_is_not_a_number():
    table, summary = make(labels=("opacity",))
    table[["auc", "low", "high"]] = np.nan
    nothing = dict.fromkeys((*codes_inputs.NOT_OF_ONE_SITE, "own_site", "best_epoch"))
    for measured in summary["labels"]["opacity"]["arms"].values():
        measured |= nothing
    summary["labels"]["opacity"]["differences"] = []
    summary["sites"][0] |= {"n_patients": None, "release_id": None}
    shown = page((table, summary))
    assert ["codes", "n/a", "n/a", "n/a", "n/a"] in shown.rows
    assert ["model of all sites, all records", "", "n/a", "180", "540", "180"] in shown.rows
    assert not re.search(r"\b(nan|None|NaN)\b", shown.text)
    assert "Epochs" not in shown.text
    assert "Arms compared" not in shown.text
    assert ["model of a", "n/a", "n/a", "n/a"] in shown.rows


def test_an_area_without_an_interval_is_a_dot():
    table, summary = make(labels=("opacity",), groups={})
    table[["low", "high"]] = None
    for measured in summary["labels"]["opacity"]["arms"].values():
        measured["one_for_all"] = {"auc": 0.6, "low": None, "high": None}
    (label,) = read(table, summary).labels
    for block in label.overall:
        for line in block.lines:
            assert line.mark.left == line.mark.dot == line.mark.right
            assert line.area.interval == "n/a"


def test_small_cells_are_withheld():
    table, summary = make(labels=("opacity",), groups={"age": {"Nine": 9, "Ten": 10}})
    site = (table["tested_on"] == "c") & (table["model"] == "own site")
    put(table, site, n_patients=9, auc=0.1234)
    summary["sites"][2]["n_patients"] = 9
    shown = page((table, summary))
    assert ["every arm", "", "withheld", "< 10", ""] in shown.rows
    assert ["codes: its own model", "", "withheld", "< 10", ""] in shown.rows
    assert "0.123" not in shown.text
    assert [row[3] for row in shown.rows if row[0] == "codes" and len(row) == 6][-1] == "10"
    assert next(row for row in shown.rows if row[0] == "c" and len(row) > 1)[:2] == ["c", "< 10"]


def test_a_cell_of_unknown_size_is_small():
    table, summary = make(labels=("opacity",), groups={"sex": {"Female": 80}})
    put(table, table["group"] == "sex", n_patients=np.nan)
    assert ["every arm", "", "withheld", "< 10", ""] in page((table, summary)).rows


def test_known_patients_count_where_records_were_resampled():
    table, summary = make(labels=("opacity",), units="records", groups={"age": {"Nine": 9}})
    assert ["every arm", "", "withheld", "< 10", ""] in page((table, summary)).rows


def test_a_label_of_few_test_patients_is_withheld_as_a_whole():
    table, summary = make(labels=("opacity", "effusion"))
    put(table, table["label"] == "effusion", n_patients=9)
    opacity, effusion = read(table, summary).labels
    assert not opacity.withheld
    assert effusion.withheld
    assert (effusion.sheets, effusion.where, effusion.overall, effusion.sites) == ((), (), (), ())
    assert effusion.groups == ()
    assert "Withheld: fewer than 10 patients were tested." in page((table, summary)).text


@pytest.mark.parametrize("few", [9, 531])
def test_few_of_one_class_are_not_counted(few):
    table, summary = make(labels=("opacity",), groups={})
    put(table, table["tested_on"] == "all sites", n_positive=few)
    shown = page((table, summary))
    assert [
        "model of all sites, all records",
        "",
        "0.870 0.840 to 0.897",
        "180",
        "540",
        "withheld",
    ] in (shown.rows)


def test_without_patients_records_are_counted():
    table, summary = make(labels=("opacity",), units="records", groups={"g": {"x": 9, "y": 3}})
    table["n_patients"] = np.nan
    shown = page((table, summary))
    assert "resamples of the test records; where a patient has several records" in shown.text
    assert [
        "model of all sites, all records",
        "",
        "0.870 0.840 to 0.897",
        "540",
        "180",
    ] in shown.rows
    assert ["every arm", "", "withheld", "< 10", ""] in shown.rows  # y: 9 records
    assert "Figures of fewer than 10 records are withheld" in shown.text


@pytest.mark.parametrize(
    ("lowest", "highest", "ticks"),
    [
        (0.55, 0.83, ["0.5", "0.6", "0.7", "0.8", "0.9"]),
        (0.5, 0.6, ["0.5", "0.6"]),
        (0.31, 0.97, ["0.5", "0.75", "1"]),
        (0.0, 1.0, ["0", "0.25", "0.5", "0.75", "1"]),
        (0.41, 0.7, ["0.4", "0.5", "0.6", "0.7"]),
    ],
)
def test_the_axis_holds_all_figures_and_guessing(lowest, highest, ticks):
    table, summary = make(labels=("opacity",), arms=("codes",), groups={})
    area = {"auc": (lowest + highest) / 2, "low": lowest, "high": highest}
    put(table, slice(None), **area)
    summary["labels"]["opacity"]["arms"]["codes"]["one_for_all"] = area
    axis = read(table, summary).axis
    assert [text for _, text in axis.ticks] == ticks
    at = {text: place for place, text in axis.ticks}
    assert axis.one == at["0.5"]
    marks = [line.mark for block in read(table, summary).labels[0].overall for line in block.lines]
    for mark in marks:
        assert 5 - 1e-9 <= mark.left <= mark.dot <= mark.right <= 95 + 1e-9
        assert mark.dot == pytest.approx((mark.left + mark.right) / 2)
    # Linear: the last tick stands where the first two say.
    a, b, z = (float(t) for t in (ticks[0], ticks[1], ticks[-1]))
    assert at[ticks[-1]] - at[ticks[0]] == pytest.approx(
        (at[ticks[1]] - at[ticks[0]]) * (z - a) / (b - a)
    )


def test_withheld_figures_do_not_stretch_the_axis():
    table, summary = make(labels=("opacity",), groups={"age": {"Nine": 9}})
    put(table, table["group"] == "age", low=0.01)
    assert read(table, summary).axis.low == 0.5


def test_the_axis_holds_the_mean_of_models_of_one_site():
    table, summary = make(labels=("opacity",), arms=("codes",), groups={})
    area = {"auc": 0.35, "low": 0.31, "high": 0.4}
    summary["labels"]["opacity"]["arms"]["codes"]["one_for_all"] = area
    assert read(table, summary).axis.low == 0.3


def test_arms_are_explained():
    encoders = codes_inputs.ENCODERS | {"mine": "rotation"}
    shown = page(make(arms=("plain", "codes", "linear", "mine"), encoders=encoders))
    for words in (
        "plain : the records themselves, with a trainable encoder in front of the same network.",
        "codes : codes of a NeuraCrypt encoder with a secret key.",
        "linear : codes of a linear encoder, a weak baseline.",
        "mine : codes of the encoder rotation.",
    ):
        assert words in shown.text


def test_the_page_says_what_it_does_not_say():
    shown = page(make(warnings=["Site c is small."]))
    for words in (
        codes_inputs.STATEMENT,
        "they say nothing about privacy",
        "chance that a random positive record scores higher than a random negative one",
        "95% intervals from 2,000 resamples of the test patients",
        "This does not show that there is none.",
        "Site c is small.",
    ):
        assert words in shown.text
    for word in ("anonym", "secure", "safe", "private", "as good as", "equivalent"):
        assert word not in shown.text.lower().replace("private health data", "")
    bare = page(make(statement=None, warnings=None))
    assert "they say nothing about privacy" in bare.text
    assert "Warnings" not in bare.text


def test_nothing_measured():
    table, summary = make()
    shown = page((table.iloc[:0], {}))
    assert "No label was measured." in shown.text
    assert "No site was named." in shown.text
    shown = page((table.iloc[:0], summary))
    assert "0.870 0.840 to 0.897" in shown.text  # the summary alone still fills the main table


def test_hostile_names_are_text(hostile):
    inputs = make(
        labels=hostile,
        arms=hostile[:3],
        encoders=dict.fromkeys(hostile, hostile[2]),
        sites=dict.fromkeys(hostile[:4], 60),
        groups={hostile[0]: dict.fromkeys(hostile, 50)},
        warnings=list(hostile),
        statement=hostile[1],
    )
    benign = Page(render_codes(*make(warnings=["x"]), title="t", method=METHOD))
    shown = Page(render_codes(*inputs, title=hostile[1], method={hostile[0]: hostile[2]}))
    assert {tag for tag, _ in shown.tags} <= {tag for tag, _ in benign.tags}
    assert not [name for _, attrs in shown.tags for name in attrs if name.startswith("on")]
    assert "{{ 7*7 }}" in shown.text
    assert "<script>alert(1)</script>" in shown.text
    assert "\u202e" not in shown.text


def test_the_page_runs_its_own_script_and_loads_nothing():
    text = render_codes(*make(), title="t", method=METHOD)
    shown = Page(text)
    (policy,) = [
        attrs["content"]
        for tag, attrs in shown.tags
        if tag == "meta" and attrs.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert [tag for tag, _ in shown.tags].count("script") == 1
    loading = {"src", "srcset", "data", "action", "poster", "background"}
    assert not [attrs for _, attrs in shown.tags if loading & set(attrs)]
    assert {attrs["href"][:1] for _, attrs in shown.tags if "href" in attrs} == {"#", "d"}
    assert text == render_codes(*make(), title="t", method=METHOD)


def test_tables_have_captions_ids_are_unique_and_headings_do_not_skip():
    shown = page(make())
    tags = [tag for tag, _ in shown.tags]
    assert tags.count("table") == tags.count("caption") > 5
    ids = [attrs["id"] for _, attrs in shown.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    targets = {attrs["href"][1:] for _, attrs in shown.tags if attrs.get("href", "")[:1] == "#"}
    assert targets <= set(ids)
    levels = [int(tag[1]) for tag in tags if re.fullmatch(r"h\d", tag)]
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))


def test_long_groups_are_cut_and_say_so():
    groups = {"hour": {f"hour {i}": 20 for i in range(60)}}
    shown = page(make(labels=("opacity",), groups=groups))
    assert "50 of 60 values are shown" in shown.text
    assert "hour 49" in shown.text
    assert "hour 50" in shown.text  # in the table of all figures
    assert len([row for row in shown.rows if row[:1] == ["hour 50"]]) == 0


def test_rows_are_the_order_of_arms_whatever_the_order_of_the_table():
    table, summary = make(labels=("opacity",))
    (one,) = read(table, summary).labels
    (two,) = read(table.sort_values("arm", kind="stable"), summary).labels
    assert one == two
