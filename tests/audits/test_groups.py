"""Groups in the tail of risk: exact tests, calibration, a planted disparity."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from confide.audits import groups as module
from confide.audits.groups import COLUMNS, MISSING, group_table, two_sided_hypergeometric
from confide.errors import ArgumentError


def test_the_exact_test_is_fishers():
    for hits, n, size, draws in ((7, 50, 20, 10), (0, 30, 10, 8), (4, 40, 10, 16)):
        table = [[hits, size - hits], [draws - hits, n - size - draws + hits]]
        upper = stats.fisher_exact(table, alternative="greater").pvalue
        lower = stats.fisher_exact(table, alternative="less").pvalue
        expected = min(1.0, 2 * min(upper, lower))
        assert two_sided_hypergeometric(hits, n, size, draws) == pytest.approx(expected)


def test_a_planted_disparity_is_found_and_counted():
    rng = np.random.default_rng(0)
    site = np.where(rng.random(4000) < 0.2, "a", "b")
    risk = rng.random(4000) + (site == "a") * (rng.random(4000) < 0.05)
    groups = pd.DataFrame({"site": site, "coin": rng.choice(["x", "y"], 4000)})
    table, overall = group_table(risk, groups, top=0.01)
    assert list(table.columns) == COLUMNS
    row = table.set_index("value").loc["a"]
    tail = np.argsort(-risk)[:40]
    assert row["share_of_tail"] == pytest.approx((site[tail] == "a").mean())
    assert row["ratio"] == pytest.approx(row["share_of_tail"] / (site == "a").mean())
    assert row["ratio_low"] > 1.5
    assert row["q_value"] < 1e-6
    assert row["mean_auc"] == pytest.approx(risk[site == "a"].mean())
    assert overall["site"]["p_value"] <= 2 / 9_999
    assert overall["coin"]["p_value"] > 0.01
    assert overall["site"]["n_tail"] == 40


def test_calibration_without_a_disparity(monkeypatch):
    monkeypatch.setattr(module, "_N_MONTE_CARLO", 499)
    rng = np.random.default_rng(1)
    rows, whole, inside = [], [], []
    for seed in range(300):
        site = rng.choice(["a", "b", "c"], 300, p=[0.5, 0.3, 0.2])
        table, overall = group_table(rng.random(300), pd.DataFrame({"s": site}), seed=seed)
        rows.append(table["p_value"].to_numpy())
        whole.append(overall["s"]["p_value"])
        inside.append((table["ratio_low"] <= 1) & (table["ratio_high"] >= 1))
    for level in (0.05, 0.2):
        error = np.sqrt(level * (1 - level) / 300)
        assert (np.mean(np.array(rows) <= level, axis=0) <= level + 4 * error).all()
        assert abs(np.mean(np.array(whole) <= level) - level) <= 4 * error
    assert (np.mean(inside, axis=0) >= 0.95).all()


def test_ratio_intervals_cover_a_true_disparity(monkeypatch):
    """Patients of "a" are in the tail with odds of 3 to 1."""
    monkeypatch.setattr(module, "_N_MONTE_CARLO", 9)
    rng = np.random.default_rng(2)
    inside = []
    for seed in range(300):
        a = np.arange(2000) < 600
        risk = rng.random(2000) + np.where(rng.random(2000) < np.where(a, 0.03, 0.01), 1.0, 0.0)
        table, _ = group_table(risk, pd.DataFrame({"s": np.where(a, "a", "b")}), seed=seed)
        row = table.iloc[0]
        inside.append(row["ratio_low"] <= (0.018 / 0.032) / 0.3 <= row["ratio_high"])
    assert np.mean(inside) >= 0.95 - 4 * np.sqrt(0.95 * 0.05 / 300)


def test_missing_values_are_a_group_and_unknown_risk_is_none():
    risk = np.append(np.linspace(0, 1, 50), np.nan)
    groups = pd.DataFrame({"sex": ["f", None, "m"] * 17})
    table, _ = group_table(risk, groups)
    assert set(table["value"]) == {"f", "m", MISSING}
    assert table["n_patients"].sum() == 50


def test_ties_are_broken_by_chance():
    site = pd.DataFrame({"s": ["a"] * 100 + ["b"] * 100})
    share = [
        group_table(np.full(200, 0.5), site, seed=seed)[0]["share_of_tail"].iloc[0]
        for seed in range(100)
    ]
    assert np.mean(share) == pytest.approx(0.5, abs=0.05)


def test_nothing_to_compare():
    table, overall = group_table(np.full(3, np.nan), pd.DataFrame({"s": ["a"] * 3}))
    assert list(table.columns) == COLUMNS
    assert overall == {}
    table, overall = group_table(np.arange(30.0), pd.DataFrame({"s": ["a"] * 30}))
    assert list(table.columns) == COLUMNS
    assert not len(table)
    assert overall == {}
    with pytest.raises(ArgumentError, match="top="):
        group_table(np.arange(3.0), pd.DataFrame(), top=2.0)
