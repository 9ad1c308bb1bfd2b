import base64
import copy
import dataclasses
import hashlib
import itertools
import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from confide.reports.html import render
from confide.reports.thumbnails import data_uri


class Page(HTMLParser):
    """Tags, visible text and table rows of a page."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text, self.rows, self.scripts = [], "", [], []
        self._skip, self._cell = None, False
        self.feed(page)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._skip = tag
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self._cell = True

    def handle_endtag(self, tag):
        if tag == self._skip:
            self._skip = None
        elif tag in ("td", "th"):
            self._cell = False

    def handle_data(self, data):
        if self._skip == "script":
            self.scripts.append(data)
        if self._skip:
            return
        self.text += " " + data
        if self._cell:
            self.rows[-1][-1] = " ".join(f"{self.rows[-1][-1]} {data}".split())

    def row(self, *start):
        (found,) = [row for row in self.rows if tuple(row[: len(start)]) == start]
        return found


def page(result, **more):
    return Page(render(result, title="An audit", method={"model": "mlp"}, **more))


def test_figures_are_those_of_the_summary(make_result):
    result = make_result(warnings=["A warning."])
    before = copy.deepcopy(result.summary)
    shown = page(result)
    assert result.summary == before
    assert "455 patients with" in shown.text
    assert "12 of 455" in shown.text
    assert ["LiRA", "0.610 0.590 to 0.630", "0.577"] in shown.rows
    assert ["RMIA", "0.627 0.607 to 0.647", "0.589"] in shown.rows
    for row in (
        ["10%", "21.0% 16.8% to 25.2%", "1,420", "67.7%", "18.9%", "2.1%"],
        ["1%", "5.0% 4.0% to 6.0%", "142", "83.3%", "35.7%", "4.8%"],
        ["0.1%", "1.2% 1.0% to 1.5%", "14", "92.5%", "57.7%", "11.1%"],
        ["0.01%", "not measurable: too few outsiders"],
    ):
        for attack in ("LiRA", "RMIA"):
            assert shown.rows.count([attack, *row]) == 1
    assert "AUC 0.742 measured, of a patient who is alone at risk" in shown.text
    assert "a true AUC of 0.781 is listed in four audits of five" in shown.text
    assert "Canaries" not in shown.text
    assert "planned looks" not in shown.text
    assert "19 of 20 planted patients found" in shown.text
    assert "p = .042" in shown.text
    assert shown.row("All") == [
        "All",
        "114",
        "0.951 0.941 to 0.961",
        "0.901 0.881 to 0.921",
        "0.627",
        "12",
    ]
    assert "A warning." in shown.text
    assert shown.row("blind")[1:] == ["passed", "AUC 0.503 (0.468 to 0.538)."]


def test_tail_and_group_figures_are_those_of_the_tables(make_result):
    result = make_result()
    result.summary["patients"]["tail"] = {
        "0.8": {
            "raw": 0.0264, "raw_low": 0.014, "raw_high": 0.04,
            "null": 0.00035, "null_low": 0.0, "null_high": 0.0021,
            "corrected": 0.015, "low": 0.003, "high": 0.0312,
        }
    }  # fmt: skip
    result.groups.loc[0, result.groups.columns[3:-1]] = [
        0.25, 1.234, 0.5, 2.0, 0.0004, 0.0123, 0.5678, 0.0456, 0.0123, 0.001, 0.0234, -0.0021,
        -0.01, 0.0061,
    ]  # fmt: skip
    shown = page(result)
    assert shown.row("0.8") == [
        "0.8", "2.6% 1.4% to 4.0%", "0.035% 0.00% to 0.21%", "1.5% 0.3% to 3.1%",
    ]  # fmt: skip
    assert shown.row("Female", "", "1.23 0.50 to 2.00")[3:] == [
        "25.0%", "227", "0.568", "+0.012 +0.001 to +0.023", "-0.002 -0.010 to +0.006",
        "< .001", ".046", ".012",
    ]  # fmt: skip
    assert "in the adjusted mean AUC: p = .31, corrected for all groups" in shown.text


@pytest.mark.parametrize(
    ("status", "label", "sentence"),
    [
        ("at_risk", "Patients at risk", "12 of 455 patients are at risk"),
        ("detectable", "Leakage detected", "though no single patient could be named"),
        ("none_found", "None found", "within what this audit could detect"),
        ("not_established", "Not established", "cannot say whether patients are at risk"),
    ],
)
def test_verdicts(make_result, status, label, sentence):
    shown = page(make_result(status=status, n_at_risk=12 if status == "at_risk" else 0))
    assert label in shown.text
    assert sentence in shown.text
    assert "Sentences that the audit wrote." in shown.text
    assert "The models of this audit are not the released model." in shown.text
    assert ("Not established is never safe." in shown.text) == (status == "not_established")


def test_guards_that_failed_stand_on_top(make_result):
    guards = [
        {"name": name, "status": status, "message": f"Message of {name}."}
        for name, status in (("blind", "failed"), ("recipe", "accepted"), ("other", "unknown"))
    ]
    shown = page(make_result(guards=guards))
    first = shown.text.index("What this means")
    assert shown.text.index("Guard blind failed. Message of blind.") < first
    assert shown.text.index("Guard recipe failed and was accepted. Message of recipe.") < first
    assert shown.text.index("Message of other.") > first
    assert shown.row("recipe") == ["recipe", "accepted", "Message of recipe."]


def test_patients_at_risk_stand_beside_their_risk_without_noise(make_result):
    result = make_result()
    rows = result.patients["at_risk"]
    result.patients.loc[rows, "auc_joint"] = 0.958
    result.patients.loc[rows, ["risk", "risk_low", "risk_high"]] = [0.853, 0.725, 0.94]
    result.patients.loc[rows, "local_fdr"] = 0.0032
    row = page(result).row("P1")
    assert row[2:6] == ["0.958", "0.040", "0.853 0.725 to 0.940", ".0032"]


def test_looks_and_canaries(make_result):
    result = make_result()
    result.summary["patients"] |= {"looks": 3, "canaries": {"planted": 12, "found": 5}}
    shown = page(result).text
    assert "false discovery rate of 1.67%: 5% divided by the 3 looks" in shown
    assert "5 of 12 found, of held-out patients trained on with wrong labels" in shown
    assert "of 12 held-out patients that were trained on with wrong labels, 5 were found" in shown


def test_a_screen_is_not_read_by_its_auc(make_result):
    result = make_result(attacks=("lira", "lt_iqr"))
    found = result.summary["attacks"]["lt_iqr"]
    found["auc"] = 0.46321
    screen = {"precision": 0.31, "all": 0.022, "top": 0.01, "fpr": 0.001, "by": "lira"}
    shown = page(result)
    assert "0.463" not in shown.text
    assert "How well it ranks them was not measured." in shown.text
    found["screen"] = screen
    assert (
        "Of the 1% of members that it ranks first, LiRA finds 31.0% at 0.1% false positives; of "
        "all members 2.2%." in page(result).text
    )
    alone = make_result(attacks=("lt_iqr",))
    assert "No attack was measured." in page(alone).text


def test_ids_only_on_request(make_result):
    result = make_result()
    at_risk = result.patients[result.patients["at_risk"]]["patient"].tolist()
    plain = render(result, title="An audit", method={})
    assert "MRN-" not in plain
    named = page(result, show_ids=True)
    assert "This report names patients." in named.text
    for patient in at_risk:
        assert named.row(patient)
    others = set(result.patients["patient"]) - set(at_risk)
    assert not others & {row[0] for row in named.rows if row}


def test_small_cells_are_withheld(make_result):
    groups = {"race": {"White": 400, "Nine": 9, "Ten": 10}}
    result = make_result(groups=groups)
    by_group = result.summary["utility"]["by_group"]["race"]
    for value, n in (("White", 200), ("Nine", 30), ("Ten", 5)):
        by_group[value]["n_patients"] = n
    shown = page(result)
    for value, utility in (("Nine", "withheld"), ("Ten", "withheld")):
        found = [row for row in shown.rows if row and row[0] == value]
        assert found == [[value, "withheld"], [value, utility, "withheld"]]
    assert [row[1] for row in shown.rows if row and row[0] == "White"][1] == "200"
    assert "9" not in {cell for row in shown.rows for cell in row}


def test_pairs_of_groups_stand_in_one_table(make_result):
    groups = {"race": {"a": 200, "b": 255}, "sex": {"f": 300, "m": 155}}
    result = make_result(groups=groups | {"race & sex": {"a & f": 100, "b & m": 30}})
    del result.summary["groups"]["race & sex"]
    result.groups["p_value"] = [0.5, 0.6, 0.7, 0.8, 0.4, 0.3]
    shown = page(result)
    pairs = [row for row in shown.rows if row and row[0].startswith("race & sex :")]
    assert [row[0] for row in pairs] == ["race & sex : b & m", "race & sex : a & f"]
    assert pairs[0][4] == "30"
    assert "All 2 pairs that may be shown" in shown.text
    many = {"race & sex": {f"{i} & {j}": 20 for i in range(15) for j in range(8)}}
    result = make_result(groups=groups | many)
    del result.summary["groups"]["race & sex"]
    assert "The 100 pairs with the smallest p of 120" in page(result).text


def test_nothing_measured(make_result):
    result = make_result(
        attacks=(),
        n_at_risk=0,
        status="not_established",
        groups={},
        patients=None,
        utility=None,
        guards=[],
        epsilon=None,
        warnings=None,
        models_missing=None,
    )
    result = dataclasses.replace(
        result, curves=result.curves.iloc[:0], patients=result.patients.iloc[:0]
    )
    shown = page(result)
    for sentence in (
        "No attack was measured.",
        "The risk of patients was not measured.",
        "No groups were given.",
        "The list is empty, and that is no finding",
        "Utility was not measured",
    ):
        assert sentence in shown.text
    assert "Guards and warnings" not in shown.text
    assert len(shown.scripts) == 1  # no figure, no drawing library
    assert page(dataclasses.replace(result, summary={})).text


def test_missing_figures_are_not_numbers(make_result):
    result = make_result()
    for found in result.summary["attacks"].values():
        found |= {"auc": None, "auc_low": None, "auc_high": None, "balanced_accuracy": None}
        found["tpr_at_fpr"]["0.01"] = {"tpr": 0.05, "low": None, "high": None}
    result.groups[["ratio", "ratio_low", "ratio_high"]] = np.nan
    result.patients["q_value"] = np.nan
    shown = page(result)
    assert ["LiRA", "n/a", "n/a"] in shown.rows
    assert ["LiRA", "1%", "5.0%", "n/a", "n/a", "n/a", "n/a"] in shown.rows
    assert not re.search(r"\b(nan|None|NaN)\b", shown.text)


def test_an_empty_list_is_said_to_be_empty(make_result):
    shown = page(make_result(status="none_found", n_at_risk=0))
    assert "This does not mean that no patient is at risk." in shown.text


def test_hostile_names_are_text(make_result, hostile):
    groups = {"race": dict.fromkeys(hostile, 50), hostile[0]: {hostile[1]: 60}}
    result = make_result(groups=groups, attacks=("lira", *hostile[:3]))
    result.patients["patient"] = [hostile[i % 8] + str(i) for i in range(len(result.patients))]
    result.summary["warnings"] = list(hostile)
    benign = render(make_result(), title="t", method={}, show_ids=True)
    text = render(result, title=hostile[1], method={hostile[0]: hostile[2]}, show_ids=True)
    shown = Page(text)
    assert {tag for tag, _ in shown.tags} <= {tag for tag, _ in Page(benign).tags}
    assert len(shown.scripts) == 5  # data, the drawing library and three of ours
    assert not [name for _, attrs in shown.tags for name in attrs if name.startswith("on")]
    assert "{{ 7*7 }}" in shown.text
    assert "<script>alert(1)</script>" in shown.text
    assert "\u202e" not in text


def test_many_patients_stand_in_the_data_of_the_page(make_result):
    result = make_result(30_000, n_at_risk=900)
    text = render(result, title="Large", method={})
    shown = Page(text)
    assert "All 900 patients at risk" in shown.text
    assert "Without scripts, the first 100." in shown.text
    assert "30,000 patients" in shown.text
    assert sum(bool(re.fullmatch(r"P\d+", row[0])) for row in shown.rows if row) == 100
    (rest,) = [json.loads(script) for script in shown.scripts if script.startswith("[[[")]
    assert [row[0][0] for row in rest] == [f"P{i}" for i in range(101, 901)]
    assert len(text.encode()) < 6e6


def test_records_of_a_patient_stand_below_it(make_result, make_records):
    result = make_records(make_result())
    shown = page(result)
    assert shown.rows[shown.rows.index(shown.row("P1")) + 1] == [
        "R1 AUC 0.990, standard error 0.030 R2 AUC 0.700, standard error 0.030"
    ]
    assert "rec-" not in render(result, title="t", method={})
    assert "R1" not in page(result, show_ids=True).text


def test_images_only_where_they_are_given_and_then_it_says_so(make_result, make_records):
    result = make_records(make_result())
    first = result.patients.sort_values("p_value")["patient"].iloc[0]
    row = int(np.flatnonzero(result.records["patient"] == first)[0])
    picture = data_uri(np.zeros((1, 8, 8), dtype=np.uint8))
    shown = page(result, pictures={row: picture})
    (image,) = [attrs for tag, attrs in shown.tags if tag == "img"]
    assert image == {"src": picture, "alt": "Image of record R1 of patient P1"}
    assert "This report shows images of patients." in shown.text
    both = page(result, pictures={row: picture}, show_ids=True).text
    assert "This report names patients and shows their images." in both
    plain = page(result)
    assert "img" not in {tag for tag, _ in plain.tags}
    assert "images" not in plain.text


def test_groups_of_a_single_patient_are_never_shown(make_result):
    result = make_result()
    result.patients["group_village"] = "Little Snoring"
    for show_ids in (False, True):
        assert "Little Snoring" not in render(result, title="t", method={}, show_ids=show_ids)


def test_cells_keep_the_number_behind_what_is_written(make_result):
    result = make_result()
    result.summary["attacks"]["lira"] |= {"auc": 0.6123456, "auc_low": 0.6, "auc_high": 0.62}
    cells = [attrs for tag, attrs in page(result).tags if attrs.get("data-value") == "0.612346"]
    assert [(cell["data-low"], cell["data-high"]) for cell in cells] == [("0.6", "0.62")]


def test_utility_stands_beside_privacy_in_a_figure(make_result):
    groups = {"race": {"White": 300, "Black": 80, "Asian": 68, "Other": 7}}
    labels = [attrs.get("aria-label", "") for _, attrs in page(make_result(groups=groups)).tags]
    (race,) = [
        text for text in labels if text.startswith("AUROC and difference in mean AUC by race")
    ]
    assert "White: AUROC 0.930 (0.920 to 0.940), difference +0.020 (-0.010 to +0.050)." in race
    assert "Asian" not in race  # withheld, because "Other" are seven
    assert "Other" not in race
    none = page(make_result(utility=None))
    assert not [a for _, a in none.tags if "difference in mean" in a.get("aria-label", "")]


def test_only_the_papers_of_what_was_done_are_named(make_result, make_bound):
    shown = page(make_result(attacks=("rmia",), epsilon=[make_bound()])).text
    assert "Zarifzadeh" in shown
    assert "Steinke" in shown
    assert "Carlini" not in shown
    assert "Jagielski, Ullman" not in shown


def test_regions_have_names_of_their_own(make_result, make_bound):
    tags = page(make_result(epsilon=[make_bound(), make_bound("gdp")])).tags
    names = [attrs["aria-label"] for _, attrs in tags if attrs.get("role") == "region"]
    assert len(set(names)) == len(names) > 8
    tables = [
        attrs["data-table"] for tag, attrs in tags if tag == "table" and "data-table" in attrs
    ]
    assert len(set(tables)) == len(tables)
    assert {"attacks", "rates", "tail", "group-1", "patients-at-risk", "utility"} <= set(tables)
    assert {"epsilon", "mu"} <= set(tables)


def test_the_page_may_run_its_own_scripts_and_load_nothing(make_result):
    text = render(make_result(), title="t", method={})
    shown = Page(text)
    (policy,) = [
        attrs["content"]
        for tag, attrs in shown.tags
        if tag == "meta" and attrs.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    _, *code = shown.scripts
    assert len(code) == 4
    for script in code:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    loading = {"src", "srcset", "data", "action", "poster", "background"}
    assert not [attrs for _, attrs in shown.tags if loading & set(attrs)]
    assert {attrs["href"][:1] for _, attrs in shown.tags if "href" in attrs} == {"#", "d"}


def test_tables_have_captions_and_headings_do_not_skip(make_result):
    tags = [tag for tag, _ in page(make_result()).tags]
    assert tags.count("table") == tags.count("caption") > 5
    levels = [int(tag[1]) for tag in tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))


def test_bounds_of_epsilon_say_whose_and_what_they_assume(make_result, make_bound):
    bounds = [make_bound(), make_bound(unit="record"), make_bound("clopper_pearson", epsilon=0.0)]
    bounds += [make_bound("gdp", epsilon=7.654), make_bound(whose="canaries", n_patients=12)]
    shown = page(make_result(epsilon=bounds))
    common = ["1e-05", "95%"]
    for row in (
        ["guesses about many 1", "0.64", "200 patients", "patient = record", *common],
        ["one alone, over models 2", "0", "1 patient", "patient", *common],
        ["guesses about many 1", "0.64", "12 canaries", "patient", *common],
        ["one alone, Gaussian curve 3", "1.23", "1 patient", "patient", "95%"],
    ):
        assert [found[: len(row)] for found in shown.rows].count(row) == 1
    assert "7.65" not in shown.text  # an epsilon that rests on the curve is no bound
    assert "33 of 39 guesses right" in shown.text
    assert "Each holds at its confidence by itself" in shown.text
    assert "A bound of 0 says nothing." in shown.text
    for method in ("one_run", "clopper_pearson", "gdp"):
        assert f"What {method} assumes." in shown.text
    assert "Lower bounds of epsilon" not in page(make_result()).text


def test_the_same_result_gives_the_same_page(make_result):
    one, two = (render(make_result(), title="t", method={}) for _ in range(2))
    assert one == two


def test_long_groups_are_cut_and_say_so(make_result):
    result = make_result(groups={"site": {f"site {i}": 20 for i in range(120)}})
    shown = page(result)
    assert "100 of 120 values are shown" in shown.text
    assert isinstance(result.groups, pd.DataFrame)
    assert len(result.groups) == 120
