"""The summary for an impact assessment: facts with their sources, and names that stay text."""

import html
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import markdown
import numpy as np
import pandas as pd
import pytest
from markdown_it import MarkdownIt

from confide.audits.released import audit_released
from confide.cohort import Cohort
from confide.reports import markdown as md
from confide.reports import numbers
from confide.reports.dpia import summary_of_audit
from confide.reports.dpia_certificate import summary_of_certificate
from confide.reports.dpia_released import summary_of_released
from confide.reports.released import render_released, units

sys.path.append(str(Path(__file__).parents[1]))
from reports.certificates import hostile as hostile_certificate
from reports.certificates import make as make_certificate

MARKS = (
    "a|b",
    "**bold** _em_ ~~gone~~ `code`",
    "[click](javascript:alert(1))",
    "![x](http://example.org/x.png)",
    "<b onclick=x>b</b> &amp; &lt;",
    "http://example.org www.example.org a@example.org <http://example.org>",
    "# heading",
    "- item",
    "+ item",
    "1. item",
    "1) item",
    "> quote",
    "---",
    "===",
    ": definition",
    "\\",
    "a\\|b",
    "$x^2$",
    "x{: onclick=alert(1)}",
    "[^1]: note",
    "two\nlines\r\n# three",
    "| a | b |\n|---|---|",
    "```\ncode\n```",
    "    indented",
    "*[HTML]: abbreviation",
)


class _Text(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.text, self.attributes = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_data(self, data):
        self.text.append(data)


def read(page):
    """Tags, attributes and text of HTML."""
    parser = _Text()
    parser.feed(page)
    return parser.tags, parser.attributes, " ".join("".join(parser.text).split())


def python_markdown(text):
    return markdown.markdown(text, extensions=["extra", "sane_lists", "admonition"])


def common_mark(text):
    return MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text)


RENDERERS = (python_markdown, common_mark)


@pytest.mark.parametrize("render", RENDERERS)
@pytest.mark.parametrize("name", MARKS)
def test_a_name_is_text_wherever_it_stands(render, name):
    said = " ".join(numbers.name(name).split())
    tags, attributes, text = read(render(md.document([md.text(name)])))
    assert (tags, attributes, text) == (["p"], [], said)
    tags, attributes, text = read(render(md.bullets([name, "next"])))
    assert (set(tags), attributes, text.removesuffix(" next")) == ({"ul", "li"}, [], said)
    tags, attributes, text = read(render(md.heading(2, name)))
    assert (tags, text) == (["h2"], said)
    rows = render(md.table(["head", name], [[name, "1"], ["x", name]]))
    tags, attributes, _ = read(rows)
    assert [tags.count(one) for one in ("table", "th", "td", "tr")] == [1, 2, 4, 3]
    assert not set(tags) - {"table", "thead", "tbody", "tr", "th", "td"}
    assert html.unescape(rows).count(numbers.name(name).split(" ")[0]) >= 3


@pytest.fixture(scope="module")
def report(make_result, make_bound):
    result = make_result(
        epsilon=[make_bound()],
        guards=[{"name": "blind", "status": "failed", "message": "It failed."}],
    )
    method = {
        "seed": 4711,
        "data fingerprint (SHA-256)": "f00d",
        "data: note 1": "row 20 holds 'V57'",
        "data: name": "table",
        "train: epochs": 14,
        "version of numpy": "2.4",
    }
    return result, summary_of_audit(result, title="diabetes", method=method)


def test_every_part_of_an_assessment_is_there(report):
    heads = re.findall(r"^## (.*)$", report[1], flags=re.MULTILINE)
    for what in (
        "Description of the processing (Art. 35(7)(a))",
        "Necessity and proportionality (Art. 35(7)(b))",
        "Likelihood of identification by the tested means (Art. 35(7)(c))",
        "Measures (Art. 35(7)(d))",
        "Groups of data subjects",
        "What was tested",
        "What was not tested",
        "Residual uncertainty",
        "Who judges what",
        "Method and versions",
    ):
        assert md.text(what) in heads, what
    assert report[1].count("to be completed by the controller") > 12


def test_nothing_is_concluded(report):
    _, _, text = read(common_mark(report[1]))
    for sentence in re.split(r"(?<=[.;:]) ", text):
        if "anonymous" in sentence or "safe" in sentence.split():
            assert re.search(r"case by case|no figure|not|never|That ", sentence), sentence
    assert "draws no legal conclusion" in text
    assert not re.search(r"\bcompl(y|iant|ies)\b|\blawful\b|insignificant risk", text)


def test_figures_stand_with_interval_and_source(report):
    result, text = report
    rows = [line for line in text.splitlines() if line.startswith("|")]
    found = result.summary["attacks"]["lira"]
    lira = next(row for row in rows if row.startswith("| LiRA |"))
    for key in ("auc", "auc_low", "auc_high"):
        assert numbers.auc(found[key]) in lira
    assert "| 12 of 455 |  | `patients.n_at_risk` |" in text
    assert "0.951 | 0.941 to 0.961 | `utility.overall.auroc`" in text
    keys = re.findall(r"\| `([\w.]+)` \|$", text, flags=re.MULTILINE)
    assert len(keys) > 10
    for key in keys:
        part = result.summary
        for step in key.split("."):
            part = part[step]
        assert part is not None


def test_guards_that_failed_stand_before_the_verdict(report):
    assert report[1].index("Guard blind failed") < report[1].index("Patients at risk.**")


def test_what_could_tell_members_is_left_out(report):
    result, text = report
    for one in ("4711", "f00d", "V57", *result.patients["patient"].head(40)):
        assert one not in text
    assert "train: epochs | 14" in text


def test_small_groups_are_withheld(report):
    result, text = report
    row = result.groups[result.groups["value"] == "Other"].iloc[0]
    assert row["n_patients"] == 7
    assert "| Other | withheld |  |  |  |  |" in text
    assert numbers.auc(row["mean_auc"]) not in next(
        line for line in text.splitlines() if line.startswith("| Other")
    )
    assert "fewer than 10" in text  # of conflicts and cells alike


@pytest.mark.parametrize("render", RENDERERS)
def test_hostile_names_add_nothing_to_the_page(render, make_result, hostile):
    def page(names):
        n = len(names)
        result = make_result(
            groups={"race": dict.fromkeys(names, 50), names[0]: {names[1]: 40, names[2]: 400}},
            attacks=("lira", *names[3:5]),
            warnings=list(names),
            guards=[{"name": one, "status": "failed", "message": one} for one in names],
            verdict={"status": "at_risk", "text": names[1]},
            version=names[0],
            task=names[n - 1],
        )
        method = {f"train: {one}": one for one in names}
        return read(render(summary_of_audit(result, title=names[0], method=method)))

    plain, hostile_page = (
        page(names) for names in ([f"name {i}" for i in range(20)], [*MARKS[:12], *hostile])
    )
    assert hostile_page[0] == plain[0]  # tag by tag the same
    assert sorted(hostile_page[1]) == sorted(plain[1])


def test_without_results_it_says_so(make_result):
    bare = make_result(groups={}, attacks=(), utility=None, patients={}, guards=[], verdict={})
    text = summary_of_audit(bare, title="t", method={})
    for said in (
        "No attack was measured",
        "No group was given",
        "was not measured",
        "not measured",
    ):
        assert said in text
    assert "nan" not in text.lower().split()


def test_a_released_model():
    rng = np.random.default_rng(0)
    cohort = Cohort(
        record=np.arange(160),
        patient=np.repeat(np.arange(80), 2),
        label=rng.integers(0, 2, 160),
        task="binary",
        classes=("no", "yes"),
        groups=pd.DataFrame({"sex": np.repeat(["f", "m"], 80)}),
    )
    membership = np.tile(np.arange(80) % 2 == 0, (1, 1))
    signals = rng.normal(size=(1, 160)) + cohort.expand(membership)
    result = audit_released(signals, membership, cohort)
    result.summary["guards"] = [{"name": "blind", "status": "passed", "message": "AUC 0.5."}]
    method = {"target": "model.onnx", "seed": 4711, "notes": ["row 3 holds x"]}
    text = summary_of_released(result, title="mine <b>", method=method)
    assert "**Leakage detected.**" in text
    assert "4711" not in text
    assert "row 3" not in text
    assert "mine &#60;b&#62;" in text
    found = result.summary["attacks"]["loss"]
    assert f"| loss threshold | {numbers.auc(found['auc'])} |" in text
    assert f"| loss threshold | {numbers.auc(found['by_patient']['auc'])} |" in text
    assert "| Members | 40 | 80 |" in text


def test_one_record_each_has_one_table():
    rng = np.random.default_rng(0)
    cohort = Cohort(
        record=np.arange(80),
        patient=np.arange(80),
        label=rng.integers(0, 2, 80),
        task="binary",
        classes=("no", "yes"),
    )
    membership = np.tile(np.arange(80) % 2 == 0, (1, 1))
    result = audit_released(rng.normal(size=(1, 80)) + membership, membership, cohort)
    found = result.summary["attacks"]["loss"]
    same = ("auc", "auc_low", "auc_high", "balanced_accuracy")
    assert {k: found[k] for k in same} == {k: found["by_patient"][k] for k in same}
    text = summary_of_released(result, title="t", method={})
    assert "### Over patients" in text
    assert "### Over records" not in text
    page = render_released(result, title="t", method={})
    for told in (text, page):
        assert "Each patient has one record" in told
    assert "Attacks on patients" in page
    assert "Attacks on records" not in page
    assert [heading for heading, _, _ in units(result.summary)] == ["patients"]


@pytest.mark.parametrize("render", RENDERERS)
def test_a_certificate(render):
    content = make_certificate()
    text = summary_of_certificate(content)
    tags, _, said = read(render(text))
    assert "script" not in tags
    for name, attack in content["attacks"].items():
        row = next(line for line in text.splitlines() if line.startswith(f"| {md.text(name)} |"))
        assert row.count("|") == 5
        assert attack["about"].split(".")[0] in said
    assert "Recital 26" in said
    assert "draws no legal conclusion" in said


@pytest.mark.parametrize("render", RENDERERS)
def test_hostile_names_in_a_certificate(render, hostile):
    tags, attributes, _ = read(render(summary_of_certificate(hostile_certificate(hostile))))
    known = {"h1", "h2", "h3", "p", "strong", "code", "ul", "li", "table", "thead", "tbody"}
    assert set(tags) <= known | {"tr", "th", "td"}
    assert not attributes
