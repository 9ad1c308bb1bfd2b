from functools import cache
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import confide.training  # noqa: F401  (torch first, so that its threads wait politely)
from confide.audits.mann_whitney import blocked_tail, null_se, survival
from confide.config import parse
from confide.errors import ArgumentError
from confide.reports.plan import renderables
from confide.runs import plan
from confide.runs.planning import models_for

N_PATIENTS = 455  # audited patients of the embedded data, one record each


@cache
def planned(**audit):
    raw = {
        "data": {"name": "embedded"},
        "train": {"model": {"name": "tabular_resnet", "width": 8, "depth": 1}, "epochs": 1},
        "audit": {"n_models": 64} | audit,
        "performance": {"device": "cpu"},
    }
    return plan(parse(raw), Path(), measure=False)


def shown(found):
    console = Console(width=80, no_color=True, highlight=False)
    with console.capture() as capture:
        for part in renderables(found):
            console.print(part)
    return capture.get()


def test_what_a_budget_buys():
    found = planned()
    assert found["until"] is None
    assert [b["n_models"] for b in found["budgets"]] == [16, 32, 64, 128, 256]
    for budget in found["budgets"]:
        half = budget["n_models"] // 2
        assert budget["se"] == null_se(half, half)
        assert budget["half_width"] == pytest.approx(1.96 * budget["se"])
        # The smallest area that Benjamini and Hochberg would list alone.
        p = survival(half, half, np.arange(half * half + 1))
        first = np.flatnonzero(p <= 0.05 / N_PATIENTS)[0]
        assert budget["smallest_detectable_auc"] == first / half**2
        assert budget["seconds"] is None
        assert budget["disk_bytes"] * 64 == found["disk_bytes"] * budget["n_models"]
    smallest = [b["smallest_detectable_auc"] for b in found["budgets"]]
    power = [b["detectable_auc"] for b in found["budgets"]]
    assert smallest == sorted(smallest, reverse=True)
    assert power == sorted(power, reverse=True)
    # A patient at the smallest measured area is listed every second time; 4 in 5 is more.
    assert all(b > a for a, b in zip(smallest[1:], power[1:], strict=True))


def test_canaries_are_not_held_out_any_more():
    plain, found = planned(), planned(canaries=9)
    assert found["n_canaries"] == 9
    assert found["n_heldout_records"] == plain["n_heldout_records"] - 9
    for key in ("n_patients", "n_records", "budgets"):
        if key != "budgets":
            assert found[key] == plain[key]
    assert found["disk_bytes"] == plain["disk_bytes"] + 64 * 9  # their masks
    assert "canaries (patients)" in shown(found)
    assert "canaries" not in shown(plain)


def test_what_looks_cost():
    until = planned(until="stable")["until"]
    assert (until["rule"], until["fdr"]) == ("stable", 0.05)
    assert until["fdr_of_look"] == pytest.approx(0.05 / 3)
    assert [row["n_models"] for row in until["looks"]] == [16, 32, 64]
    for row in until["looks"]:
        n_blocks = row["n_models"] // 16
        tail = blocked_tail(((8, 8),) * n_blocks)[:-1]
        first = np.flatnonzero(tail <= 0.05 / 3 / N_PATIENTS)
        alone = first[0] / (len(tail) - 1) if len(first) else None
        assert row["smallest_detectable_auc"] == alone
        one_block = row["smallest_detectable_auc_without_looks"]
        assert alone is None or alone >= one_block
    assert until["looks"][0]["n_perfect_needed"] == np.ceil(N_PATIENTS / 12870 / (0.05 / 3))
    assert "n_models_needed" not in until


@pytest.mark.parametrize(
    ("until", "needed", "stops"), [("se=0.15", 16, 16), ("se=0.08", 64, 64), ("se=0.05", 144, None)]
)
def test_how_many_models_a_standard_error_needs(until, needed, stops):
    found = planned(until=until)["until"]
    assert (found["n_models_needed"], found["stops_at_most_at"]) == (needed, stops)


@pytest.mark.parametrize("fraction", [0.5, 0.25])
@pytest.mark.parametrize("se", [0.2, 0.1, 0.05, 0.021, 0.005])
def test_models_for_a_standard_error(se, fraction):
    n = models_for(se, fraction)
    assert n % 16 == 0
    n_in = round(n * fraction)
    assert null_se(n_in, n - n_in) <= se
    if n > 16:
        n_in = round((n - 16) * fraction)
        assert null_se(n_in, n - 16 - n_in) > se


def test_an_empty_side_is_refused():
    with pytest.raises(ArgumentError, match="in and out at least once"):
        planned(until="stable", fraction=0.01)


@pytest.mark.parametrize("until", [None, "stable", "se=0.15", "se=0.05"])
def test_it_fits_on_80_columns(until):
    found = planned(**({} if until is None else {"until": until}))
    # As wide as figures get.
    budgets = [
        b | {"seconds": 3e6, "disk_bytes": 9.999e11, "n_models": 100_000} for b in found["budgets"]
    ]
    text = shown(
        found | {"budgets": budgets, "seconds": 3e6, "disk_bytes": 9.999e11, "n_canaries": 9}
    )
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert ("at most" in text) == (until is not None)
    if until == "se=0.05":
        assert "more than this run has." in text
    if until == "stable":
        assert "A run that lists nobody trains all its models." in " ".join(text.split())
