"""Every figure of a page stands in the summary, the tables or the certificate it is drawn from."""

import json
import math
import re
import sys
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests are imported from files
import certificates
import codes_inputs
import real_pages
from page_numbers import TOKEN, figures, forms, unexplained

from confide.reports.certificate import render_certificate
from confide.reports.certificate_view import TARGETS
from confide.reports.codes import render_codes
from confide.reports.patients_view import at_risk, numbers_told_up_to

AUDITS = ("embedded", "phantom", "diabetes130", "nih_cxr64", "scores")

# Levels of intervals, guessing and certainty, the smallest cell, and numbers within sentences.
WORDING = {"95%", "0.5", "1", "10"}
OF_AUDITS = WORDING | {"0", "2", "3", "100", "1%"}
OF_RELEASED = WORDING | {"100", "5"}
OF_CERTIFICATES = WORDING | {"0", "5%", "20%"}


@lru_cache
def table(folder, name):
    return pd.read_parquet(folder / f"{name}.parquet")


def rows(frame):
    return frame.to_dict("records")


def listed_patients(folder):
    """The patients at risk in the order of the page."""
    found = at_risk(SimpleNamespace(patients=table(folder, "patients")), 5000)
    order = found[["p_value", "auc_joint"]].to_numpy() * [1, -1]
    assert (np.lexsort(order.T[::-1]) == np.arange(len(found))).all()
    return found


def audit_sources(folder):
    """Of every figure of an audit's page, what it may be taken from."""
    summary = json.loads((folder / "summary.json").read_text())
    manifest = json.loads((folder / "manifest.json").read_text())
    groups, listed = table(folder, "groups"), listed_patients(folder)
    several = numbers_told_up_to(table(folder, "patients"))
    banded = [] if several is None else [several]  # "3 or more" records
    pairs = groups["group"].astype(str).str.contains(" & ")
    n_pairs = [int(pairs.sum()), int((pairs & ~groups["withheld"].astype(bool)).sum())]
    counts = {k: v for k, v in summary.items() if k not in ("groups", "utility")}
    of_records = {key: rows(one) for key, one in table(folder, "records").groupby("patient")}

    def named(name):
        """Rows of groups whose value, or pair of values, is called so."""
        if not name:
            return []
        value = groups["value"].astype(str)
        here = [v == name or name.endswith(f": {v}") for v in value]
        return rows(groups[here].drop(columns=["group", "value"]))

    def sources(one):
        if one.table == "patients-at-risk" and one.row >= 0:
            patient = listed.iloc[one.row]
            return [patient.to_dict(), of_records.get(patient["patient"], []), *banded]
        if one.section == "groups" and one.row >= 0:
            return named(one.name)
        if one.section == "groups":
            return [summary["groups"], n_pairs]
        if one.section == "utility" and one.label:  # the mark of one value in a figure
            values = summary["utility"]["by_group"]
            of = [g for g in values if f"by {g}." in one.text]
            return [[values[g] for g in of], rows(groups[groups["group"].isin(of)])]
        if one.section == "utility" and one.name not in ("", "All"):
            found = [v for g in summary["utility"]["by_group"].values() for v in [g.get(one.name)]]
            return [*found, *named(one.name)]
        if one.section == "utility":
            return [summary["utility"]["overall"], counts]
        if one.section == "method":
            notes = range(1, len(manifest.get("notes", [])) + 1)  # they are numbered
            return [manifest, summary, *notes]
        if one.table == "epsilon":  # a lower bound is rounded down
            low = [
                e | {"epsilon": math.floor(100 * e["epsilon"]) / 100} for e in summary["epsilon"]
            ]
            return [counts | {"epsilon": low}]
        return [counts, summary["utility"]]

    return sources


def released_sources(folder):
    summary = json.loads((folder / "summary.json").read_text())
    manifest = json.loads((folder / "manifest.json").read_text())
    names = {"loss threshold": "loss", "offline LiRA": "lira_offline"}
    names |= {"offline RMIA": "rmia_offline"}

    def sources(one):
        if one.row >= 0 and one.name in names:
            found = summary["attacks"][names[one.name]]
            if one.table.endswith("patients"):
                return [found["by_patient"]]
            return [{k: v for k, v in found.items() if k != "by_patient"}]
        return [manifest] if one.section == "method" else [summary]

    return sources


def times(seconds):
    """Times as a page writes them: tenths of a second, seconds or minutes."""
    return [f"{x:.1f} {x:,.0f} {x / 60:,.0f}" for x in seconds if x is not None]


def certificate_sources(certificate):
    attacks = list(certificate["attacks"].values())
    whole = {k: v for k, v in certificate.items() if k != "attacks"}
    n_controls = sum(a["breaks_at"] is None for a in attacks)
    numbers_of = [len(attacks) - n_controls, n_controls]

    def sources(one):
        if one.part:  # "attack-2"
            attack = attacks[int(one.part.split("-")[1]) - 1]
            if one.table.startswith("scores_") and one.row >= 0:  # one score on all targets
                targets = [attack.get(target, {}) for target in TARGETS]
                name = list(dict.fromkeys(name for scores in targets for name in scores))[one.row]
                return [scores[name] for scores in targets if name in scores]
            points = [p["seconds"] for curve in attack["curves"].values() for p in curve]
            return [attack, whole["known_share"], times([*attack["seconds"].values(), *points])]
        if one.table == "attacks":
            return [attacks[one.row]] if one.row >= 0 else []
        if one.section == "attacks" and one.row >= 0:
            return [certificate["attacks"].get(one.name, {})]
        if one.section in ("verdict-title", "attacks"):
            return [whole, [a["why"] for a in attacks], certificate["attacks"]]
        return [whole, *numbers_of]

    return sources


def test_an_audit(request, audit_page):
    folder, page = audit_page
    assert len(figures(page)) > 100
    assert unexplained(page, audit_sources(folder), OF_AUDITS) == []


@pytest.fixture(params=AUDITS)
def audit_page(request):
    folder = real_pages.folder(request.param, request)
    return folder, (folder / "report.html").read_text()


def test_a_released_model(request):
    folder = real_pages.folder("released", request)
    page = (folder / "report.html").read_text()
    assert len(figures(page)) > 60
    assert unexplained(page, released_sources(folder), OF_RELEASED) == []


def test_a_certificate(request):
    folder = real_pages.folder("attack", request)
    certificate = json.loads((folder / "certificate.json").read_text())
    page = (folder / "report.html").read_text()
    assert len(figures(page)) > 100
    assert unexplained(page, certificate_sources(certificate), OF_CERTIFICATES) == []


@pytest.mark.parametrize("name", ["bad", "moderate", "good", "not established", "not measured"])
def test_certificates_of_every_verdict(name):
    certificate = certificates.verdicts()[name]
    page = render_certificate(certificate, {})
    assert unexplained(page, certificate_sources(certificate), OF_CERTIFICATES) == []


def test_a_comparison(request):
    folder = real_pages.folder("compare", request)
    arms, groups = (rows(table(folder, name)) for name in ("arms", "groups"))
    whole = [json.loads((folder / "compare.json").read_text()), arms, groups, len(arms)]
    page = (folder / "report.html").read_text()
    assert len(figures(page)) > 100
    assert unexplained(page, lambda one: whole, WORDING) == []


def test_a_training_on_codes():
    table_, summary = codes_inputs.make()
    page = render_codes(table_, summary, title="t", method=codes_inputs.METHOD)
    totals = [sum(site[k] for site in summary["sites"]) for k in ("n_records", "n_test")]
    whole = [rows(table_), summary, codes_inputs.METHOD, totals, len(summary["sites"]), 3]
    assert unexplained(page, lambda one: whole, WORDING) == []


def data_of(page, mark):
    """The JSON that a page hands to its scripts."""
    start = page.index(f'<script type="application/json" {mark}>')
    return json.loads(page[page.index(">", start) + 1 : page.index("</script>", start)])


def test_data_of_figures_are_the_curves(audit_page):
    folder, page = audit_page
    curves = table(folder, "curves")
    points = {
        (row["curve"], row["x"], value)
        for row in curves.to_dict("records")
        for value in (row["y"], row["low"], row["high"])
    }
    drawn = data_of(page, 'id="figures"')
    for curve in ("roc", "survival"):
        for series in drawn[curve]["series"]:
            assert {(curve, *at) for at in zip(series["x"], series["y"], strict=True)} <= points
            for bound in ("low", "high"):
                band = zip(series["band_x"], series[bound], strict=True)
                assert {(curve, *at) for at in band} <= points


def test_what_the_slider_says(audit_page):
    folder, page = audit_page
    summary = json.loads((folder / "summary.json").read_text())
    curves, n = table(folder, "curves"), summary["n_patients"]
    curves = curves[curves["curve"] == "survival"]
    slider = data_of(page, 'id="figures"')["survival"]["slider"]
    assert slider["at"][0] == 0.5
    assert slider["at"][-1] == 1.0
    for x, said in zip(slider["at"], slider["said"], strict=True):
        here = curves[(curves["x"] - x).abs() < 1e-9].set_index("series")
        counts = [n, *(here[["y", "low", "high"]].to_numpy().ravel() * n)]
        known = forms(x) | {"95%", "0.1"}
        known |= set().union(*({f"{c:,.0f}", f"{c:.1f}"} for c in counts if not math.isnan(c)))
        assert {match[0] for match in TOKEN.finditer(said)} <= known, said
        # The first is what was measured, the second what chance gives.
        measured, whole, chance, *_ = (m[0] for m in TOKEN.finditer(said.split(":", 1)[1]))
        assert measured == f"{here['y']['joint'] * n:,.0f}"
        assert whole == f"{n:,}"
        expected = here["y"]["joint_null"] * n
        assert float(chance.replace(",", "")) == pytest.approx(max(expected, 0.1), abs=0.5)


def test_rows_that_a_script_shows(request):
    folder = real_pages.folder("diabetes130", request)
    page = (folder / "report.html").read_text()
    hidden, listed = data_of(page, 'data-rows="patients-at-risk"'), listed_patients(folder)
    first = len(listed) - len(hidden)
    assert first == 100
    of_records = dict(list(table(folder, "records").groupby("patient")))
    for row, patient in zip(hidden, listed.iloc[first:].to_dict("records"), strict=True):
        records = of_records[patient["patient"]]
        known = set().union(*(forms(value) for value in patient.values()))
        known |= set().union(*(forms(value) for value in records.to_numpy().ravel()))
        known |= forms(len(records))
        (name, *cells), lines, _ = row
        assert str(patient["patient"]) not in json.dumps(row)
        texts = [text for cell in cells for text in cell] + [text for _, text in lines]
        assert {m[0] for text in texts for m in TOKEN.finditer(text)} <= known
        assert name == f"P{first + hidden.index(row) + 1}"


def altered(page, one, rng):
    """The page with one digit of one figure changed, None where the figure stands elsewhere too."""
    digits = [i for i, c in enumerate(one.token) if c.isdigit()]
    at = rng.choice(digits[-2:])
    other = rng.choice([d for d in "123456789" if d != one.token[at]])
    changed = one.token[:at] + other + one.token[at + 1 :]
    places = [m.start() for m in re.finditer(rf"(?<=[>\"]){re.escape(one.token)}(?=[<\"])", page)]
    if not places:
        return None
    start = rng.choice(places)
    return page[:start] + changed + page[start + len(one.token) :]


@pytest.mark.parametrize("name", ["embedded", "released", "attack"])
def test_a_figure_that_was_tampered_with_is_seen(request, name):
    folder = real_pages.folder(name, request)
    page = (folder / "report.html").read_text()
    if name == "attack":
        sources = certificate_sources(json.loads((folder / "certificate.json").read_text()))
        constants = OF_CERTIFICATES
    elif name == "released":
        sources, constants = released_sources(folder), OF_RELEASED
    else:
        sources, constants = audit_sources(folder), OF_AUDITS
    rng = np.random.default_rng(0)
    page = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    # A change of a number below 100 gives too often another that stands in its place as well.
    shown = [
        one
        for one in figures(page)
        if one.section != "method"
        and sum(c.isdigit() for c in one.token) > 2
        and one.token not in constants | {"100", "100.0%"}
    ]
    tried = [altered(page, shown[i], rng) for i in rng.permutation(len(shown))[:60]]
    tried = [one for one in tried if one is not None]
    assert len(tried) > 30
    seen = [bool(unexplained(one, sources, constants)) for one in tried]
    assert sum(seen) >= 0.95 * len(seen)
