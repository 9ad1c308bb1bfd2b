"""A guarantee as it is written out, beside the attacks."""

from __future__ import annotations

import dataclasses
import io
import re

import pytest
from rich.console import Console

from confide.audits.promise import promised
from confide.reports.dpia import summary_of_audit
from confide.reports.html import render
from confide.reports.privacy_view import OUTSIDE, promise
from confide.reports.text import renderables

CURVE = {"epsilon": [2.0], "delta": [1e-5]}
PRIVACY = {
    "unit": "record",
    "epsilon": 1.9991,
    "delta": 1e-5,
    "asked": 2.0,
    "clip": 1.0,
    "noise": 1.234,
    "rate": 0.02,
    "steps": 1000,
    "most_records": 7,
    "adjacency": "add or remove one",
    "accountant": "an accountant 1.0",
    "by_unit": {
        "record": {"epsilon": 1.9991, "curve": CURVE},
        "patient": {"epsilon": None, "curve": {"epsilon": [0.0], "delta": [0.99]}},
    },
    "warnings": [],
}


@pytest.fixture
def result(make_result):
    one = make_result()
    return dataclasses.replace(one, summary=one.summary | {"privacy": promised(PRIVACY)})


def test_nothing_is_said_where_nothing_is_promised(make_result):
    assert promise(make_result().summary) is None
    page = render(make_result(), title="t", method={})
    assert "What differential privacy promises" not in page


def test_bounds_are_rounded_up(result):
    found = promise(result.summary)
    record, patient = found.bounds
    assert (record.unit, record.epsilon) == ("record", "2.00")
    assert record.auc == "0.881"  # e^2 / (1 + e^2) = 0.8808
    assert record.tpr["1%"] == "7.4%"  # e^2 0.01 + 0.00001 = 0.0739
    assert patient.epsilon == "n/a"
    assert patient.tpr["10%"] == "100%"
    assert dict(found.facts)["Noise, in clipping norms"] == "1.234"
    assert "several records is promised less" in found.note


def test_the_terminal_has_the_upper_bounds_too(result):
    console = Console(file=io.StringIO(), width=80)
    for part in renderables(result):
        console.print(part)
    said = console.file.getvalue()
    assert "Guaranteed by differential privacy at delta 1e-05" in said
    assert re.search(r"record +2\.00 +0\.881\b", said)
    assert re.search(r"patient +n/a\b", said)


def test_the_page_has_the_promise_beside_the_strongest_attack(result):
    page = render(result, title="t", method={})
    at = page.index("What differential privacy promises")
    section = page[at : page.index("</section>", at)]
    assert "measured: <bdi>" in section
    assert "0.881" in section
    for line in OUTSIDE:
        assert line in section


def test_the_summary_for_an_assessment_has_it_beside_the_training(result):
    text = summary_of_audit(result, title="t", method={"train: privacy.epsilon": 2.0})
    measures = text[text.index("## Measures") :]
    assert "0.881" in measures
    assert OUTSIDE[0] in measures
    assert "an accountant 1.0" in measures
