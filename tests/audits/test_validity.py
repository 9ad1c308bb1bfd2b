"""The validity study in short: intervals cover, lists and bounds err no more than they say."""

import importlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))
simulations = importlib.import_module("simulations")
validity = importlib.import_module("validity")
pitfalls = importlib.import_module("pitfalls")
Setting, Tally = simulations.Setting, simulations.Tally
DOCS = ROOT / "docs"


def table_of(page, name):
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.search(rf"<!-- {name}: begin -->(.*)<!-- {name}: end -->", text, re.DOTALL)[1]


@pytest.fixture(scope="module")
def tallies():
    settings = (
        Setting(leak="none", most=30, models=8, studies=6, patients=100),
        Setting(leak="few", most=1, models=16, studies=9, patients=120),
        Setting(leak="group", most=5, models=16, studies=6, patients=120),
        Setting(leak="few", most=5, models=32, studies=3, patients=100, within=0.9),
    )
    return [(s, simulations.study(s)) for s in settings]


@pytest.mark.parametrize("names", validity.COVERED.values(), ids=validity.COVERED)
def test_intervals_cover(tallies, names):
    inside = [
        (share, len(t.claims[name]))
        for _, t in tallies
        for name in names
        for share in [t.coverage(name)[0]]
        if np.isfinite(share)
    ]
    shares, n = np.asarray(inside).T
    # Intervals of one study at several thresholds are one observation.
    independent = n.sum() / len(names)
    assert np.average(shares, weights=n) >= 0.95 - 3.5 * np.sqrt(0.0475 / independent)


def test_risk_is_covered_and_closer_than_the_measured_area(tallies):
    for s, t in tallies:
        assert t.average("risk") > 0.93, s
        assert t.average("error risk") < 0.75 * t.average("error raw"), s


def test_lists_and_bounds_err_no_more_than_they_say(tallies):
    n = sum(len(t.means["studies"]) * s.studies for s, t in tallies)
    false = [x for _, t in tallies for x in t.means.get("false share", [])]
    assert np.mean(false) <= 0.05 + 3 * np.sqrt(0.0475 / len(false))
    for method in ("one_run", "clopper_pearson", "gdp"):
        above = [x for _, t in tallies for x in t.means.get(f"{method} above", [])]
        assert np.mean(above) <= 0.05 + 3 * np.sqrt(0.0475 / n)


def test_p_values_are_uniform_without_a_leak():
    p, n_side = [], 8
    for seed in range(20):
        s = Setting(leak="none", most=5, models=2 * n_side, studies=1, patients=150)
        d = simulations.draw(s, seed)
        risk = simulations.patient_risk(d.signal, d.membership, d.cohort)[1]
        u = np.round(risk.joint * n_side**2).astype(int)
        above = simulations.survival(n_side, n_side, u + 1)
        rng = np.random.default_rng(seed)
        p.append(above + rng.random(len(u)) * (risk.p_joint - above))
        assert (risk.p_value <= 0.05).mean() < 0.05 + 3 * np.sqrt(0.0475 / len(u))
    assert stats.kstest(np.concatenate(p), "uniform").pvalue > 0.01


def test_truth_of_the_simulation():
    """The area that the study calls true is what many models measure."""
    for extra in ({}, {"between": 0.3}, {"heavy": True, "most": 1}):
        s = Setting(
            **{"leak": "group", "most": 5, "models": 2000, "studies": 1, "patients": 60} | extra
        )
        d = simulations.draw(s, 0)
        joint = simulations.patient_risk(d.signal, d.membership, d.cohort)[1].joint
        assert np.abs(joint - d.area).mean() < 0.02, extra


def test_noise_of_the_published_size():
    """100 models on each side: SD .041 and a 99.9 % point of .626 from nothing."""
    none, everyone, exact = validity.published_table(1, patients=1000)[1:]
    assert exact[2:5] == ["0.041", "0.626", "0.72"]
    assert float(none[2]) == pytest.approx(0.041, abs=0.0031)
    assert float(none[3]) == pytest.approx(0.626, abs=0.025)
    for cell, least in ((none[4], 0.2), (everyone[4], 3.0)):
        true, measured, corrected = (float(x.split(" (")[0]) for x in cell.split(" / "))
        assert measured > true + least
        assert abs(corrected - true) < 0.5 * (measured - true)


def test_epsilon_where_the_bound_is_tight():
    total = Tally()
    for seed in range(40):
        total.add(simulations.response(1.0, 32, seed))
    assert total.average("one_run above") <= 0.05 + 3 * np.sqrt(0.0475 / 40)
    assert total.average("clopper_pearson above") <= 0.05
    assert total.average("one_run epsilon") > 0.6


def test_utility_is_covered():
    total = Tally()
    for seed in range(60):
        total.add(simulations.useful(16, 5, seed))
    for name in ("auroc", "accuracy"):
        assert total.coverage(name)[0] >= 0.95 - 3.5 * np.sqrt(0.0475 / 60)


def test_detectable_is_detected_in_four_of_five():
    area, listed = validity.power(32, 200, 3000)
    assert 0.8 < area < 0.95
    assert listed == pytest.approx(0.8, abs=0.03)


def test_the_page_finds_no_interval_too_narrow():
    """Over all cohorts each interval covers at least its 95 % less 2 points."""
    last = table_of("validity.md", "coverage").strip().splitlines()[-1]
    shares = [float(x) for x in last.strip("| ").split("|")[3:] if "*" not in x and x.strip()]
    assert len(shares) == len(validity.COVERED) + 2  # the number of studies, and the risk
    assert min(shares) >= 93.0


@pytest.mark.parametrize("name", ["coverage", "errors", "noise"])
def test_the_page_has_every_setting(name):
    table = table_of("validity.md", name)
    for s in simulations.SETTINGS:
        assert re.search(rf"\| {re.escape(s.name)} \| [\d-]+ \| {s.models} \|", table), s


QUICK = {
    "both_sides",
    "rounded",
    "own_reference",
    "counts_tell",
    "dropped",
    "wrong_side",
    "own_variance",
    "permutations",
    "two_names",
    "other_source",
    "best_epoch",
    "pooled_scores",
    "few_patients",
}


@pytest.mark.parametrize(
    ("mistake", "figure", "here"),
    [
        pytest.param(
            *row, id=row[1].__name__, marks=() if row[1].__name__ in QUICK else pytest.mark.slow
        )
        for row in pitfalls.PITFALLS
    ],
)
def test_figures_of_pitfalls(mistake, figure, here):
    text = figure()
    row = f"| {mistake} | {text[0].upper()}{text[1:]} | {here} |"
    assert row in table_of("pitfalls.md", "pitfalls")
