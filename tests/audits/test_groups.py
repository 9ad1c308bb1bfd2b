"""Groups: the tail and mean differences of patients, calibration, planted disparities."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from audits.studies import study
from confide.audits import shares as module
from confide.audits.adjusted import covariates
from confide.audits.groups import COLUMNS, MISSING, group_table
from confide.audits.mann_whitney import randomised_p_value, row_auc
from confide.audits.multiple import benjamini_hochberg, holm
from confide.audits.patients import patient_risk
from confide.errors import ArgumentError
from confide.masks import balanced


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(module, "_N_MONTE_CARLO", 199)


def limit(level, n):
    return 4 * np.sqrt(level * (1 - level) / n)


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
    assert row["p_holm"] < 1e-6
    assert row["mean_auc"] == pytest.approx(risk[site == "a"].mean())
    assert row["mean_difference"] == pytest.approx(
        risk[site == "a"].mean() - risk[site == "b"].mean()
    )
    assert row["mean_difference_low"] > 0
    assert np.isnan(row["adjusted_difference"])
    assert overall["site"]["p_value"] <= 2 / 9_999
    assert overall["coin"]["p_value"] > 0.01
    assert overall["site"]["n_tail"] == 40
    assert overall["site"]["p_adjusted"] is None


def test_corrections_cover_all_rows_and_pairs():
    rng = np.random.default_rng(1)
    groups = pd.DataFrame({"race": rng.choice(["b", "w"], 600), "sex": rng.choice(["f", "m"], 600)})
    table, _ = group_table(rng.random(600), groups)
    assert table["group"].value_counts().to_dict() == {"race & sex": 4, "race": 2, "sex": 2}
    p = table["p_value"].to_numpy()
    assert table["q_value"].tolist() == benjamini_hochberg(p).tolist()
    assert table["p_holm"].tolist() == holm(p).tolist()
    pair = table[table["group"] == "race & sex"].set_index("value")
    inside = (groups["race"] == "b") & (groups["sex"] == "f")
    assert pair.loc["b & f", "n_patients"] == inside.sum()
    assert pair["n_patients"].sum() == 600
    assert pair["share_of_tail"].sum() == pytest.approx(1)


def test_a_disparity_of_a_pair_alone_is_found():
    rng = np.random.default_rng(2)
    groups = pd.DataFrame({"a": rng.choice(["0", "1"], 4000), "b": rng.choice(["0", "1"], 4000)})
    odd = (groups["a"] == groups["b"]).to_numpy()
    risk = rng.random(4000) + (odd & (rng.random(4000) < 0.02))
    table, overall = group_table(risk, groups)
    assert overall["a"]["p_value"] > 0.05
    assert overall["b"]["p_value"] > 0.05
    found = table[table["q_value"] < 0.05]
    assert set(found["group"]) == {"a & b"}


def test_pairs_that_give_small_cells_away_are_not_in_the_table():
    race = np.repeat(["a", "b", "c"], [400, 300, 100])
    sex = np.tile(["f", "m"], 400)
    sex[race == "c"] = ["f"] * 5 + ["m"] * 95
    table, _ = group_table(np.arange(800.0), pd.DataFrame({"race": race, "sex": sex}))
    pairs = table[table["group"] == "race & sex"]["value"].tolist()
    # "c & f" is small; with "c & m" it is the row c, with "b & f" the rest of column f.
    assert pairs == ["a & f", "a & m"]


def test_a_nested_group_does_not_give_a_small_value_away():
    race = np.repeat(["White", "Black", "Asian"], [980, 15, 5])
    groups = pd.DataFrame({"race": race, "underserved": np.where(race == "Black", "yes", "no")})
    groups["sex"] = np.arange(1000) % 2
    table, _ = group_table(np.arange(1000.0), groups)
    gone = table[table["withheld"]]
    assert set(zip(gone["group"], gone["value"], strict=True)) == {
        ("race", "Asian"),
        ("race", "Black"),
        ("underserved", "no"),
        ("underserved", "yes"),
    }
    # With sex, the cells of the one would tell those of the other.
    assert not table["group"].str.contains("underserved &|& underserved").any()
    table, _ = group_table(np.arange(1000.0), groups[["race", "sex"]])
    assert table.loc[table["withheld"], "value"].tolist() == ["Asian", "Black"]


def test_a_pair_of_one_group_twice_and_of_many_values_says_nothing():
    site = np.arange(500) % 5
    same = pd.DataFrame({"site": site, "copy": site})
    table, _ = group_table(np.arange(500.0), same)
    assert set(table["group"]) == {"site", "copy"}
    fine = pd.DataFrame({"a": np.arange(3000) % 11, "b": np.arange(3000) // 11 % 10})
    table, _ = group_table(np.arange(3000.0), fine)
    assert set(table["group"]) == {"a", "b"}
    named = pd.DataFrame({"a": site % 2, "b": site // 2 % 2, "a & b": site})
    table, overall = group_table(np.arange(500.0), named)
    assert (table["group"] == "a & b").sum() == 5
    assert set(overall) == {"a", "b", "a & b"}


def test_calibration_without_a_disparity(quick):
    rng = np.random.default_rng(1)
    rows, whole, adjusted, inside, means = [], [], [], [], []
    for seed in range(120):
        site = rng.choice(["a", "b", "c"], 300, p=[0.5, 0.3, 0.2])
        given = rng.standard_normal((300, 2))
        table, overall = group_table(
            rng.random(300) + given[:, 0], pd.DataFrame({"s": site}), seed=seed, covariates=given
        )
        rows.append(table["p_value"].to_numpy())
        # Two tests were made: Holm doubles the smaller p-value.
        whole.append(min(overall["s"]["p_value"], overall["s"]["p_adjusted"]))
        adjusted.append(
            (table["adjusted_difference_low"] > 0) | (table["adjusted_difference_high"] < 0)
        )
        inside.append((table["ratio_low"] <= 1) & (table["ratio_high"] >= 1))
        means.append((table["mean_difference_low"] > 0) | (table["mean_difference_high"] < 0))
    for level in (0.05, 0.2):
        assert (np.mean(np.array(rows) <= level, axis=0) <= level + limit(level, 120)).all()
        assert np.mean(np.array(whole) <= level) <= level + limit(level, 120)
    assert (np.mean(inside, axis=0) >= 0.95).all()
    for excluded in (adjusted, means):
        assert (np.abs(np.mean(excluded, axis=0) - 0.05) <= limit(0.05, 120)).all()


def test_p_values_are_uniform_where_counts_are_large(quick):
    rng = np.random.default_rng(2)
    p = []
    for seed in range(120):
        site = pd.DataFrame({"s": rng.random(2000) < 0.5})
        p.append(group_table(rng.random(2000), site, top=0.25, seed=seed)[0]["p_value"].iloc[0])
    assert stats.kstest(p, "uniform").pvalue > 0.001


def test_ties_leave_the_p_values_valid(quick):
    """Few models: areas of only 17 values, and the edge of the tail inside a tie."""
    rng = np.random.default_rng(3)
    p = []
    for seed in range(120):
        site = pd.DataFrame({"s": rng.choice(["a", "b"], 400)})
        risk = rng.binomial(16, 0.5, 400) / 16
        p.append(group_table(risk, site, top=0.2, seed=seed)[0]["p_value"].iloc[0])
    for level in (0.05, 0.2, 0.5):
        assert np.mean(np.array(p) <= level) <= level + limit(level, 120)


def test_ratio_intervals_cover_a_true_disparity(quick):
    """Patients of "a" are in the tail with odds of about 3 to 1."""
    rng = np.random.default_rng(2)
    inside = []
    for seed in range(120):
        a = np.arange(2000) < 600
        risk = rng.random(2000) + np.where(rng.random(2000) < np.where(a, 0.03, 0.01), 1.0, 0.0)
        table, _ = group_table(risk, pd.DataFrame({"s": np.where(a, "a", "b")}), seed=seed)
        row = table.iloc[0]
        inside.append(row["ratio_low"] <= (0.018 / 0.032) / 0.3 <= row["ratio_high"])
    assert np.mean(inside) >= 0.95 - limit(0.95, 120)


def by_records(risk, patient, site):
    """The naive test: records in the top 10 % by group, chi-square as if independent."""
    top = risk >= np.quantile(risk, 0.9)
    table = np.array([[np.sum(top & (site[patient] == s)) for s in "ab"] for top in (top, ~top)])
    return stats.chi2_contingency(table).pvalue


def test_records_as_units_are_wrong_and_patients_are_right(quick):
    """No disparity at all: patients of many, alike records make the naive test cry wolf."""
    rng = np.random.default_rng(4)
    naive, ours = [], []
    for seed in range(100):
        n_records = rng.geometric(0.1, 300)
        patient = np.repeat(np.arange(300), n_records)
        own = rng.standard_normal(300)
        site = rng.choice(["a", "b"], 300)
        record = own[patient] + 0.5 * rng.standard_normal(len(patient))
        naive.append(by_records(record, patient, site))
        joint = np.bincount(patient, record) / n_records
        table, _ = group_table(joint, pd.DataFrame({"s": site}), top=0.1, seed=seed)
        ours.append(table["p_value"].iloc[0])
    assert np.mean(np.array(naive) <= 0.05) > 0.4
    assert np.mean(np.array(ours) <= 0.05) <= 0.05 + limit(0.05, 100)


def test_more_records_raise_max_by_noise_and_joint_not(quick):
    """Without a leak: groups that differ in records differ in `max`, not in `joint`."""
    joint, maximum = [], []
    for seed in range(40):
        signal, held, cohort = study(seed, n_patients=150, most=8)
        many = pd.DataFrame({"s": np.where(cohort.records_per_patient > 4, "many", "few")})
        _, risk = patient_risk(signal, held, cohort)
        joint.append(group_table(risk.joint, many, top=0.2, seed=seed)[0]["p_value"].iloc[0])
        maximum.append(group_table(risk.maximum, many, top=0.2, seed=seed)[0]["p_value"].iloc[0])
    assert np.mean(np.array(joint) <= 0.05) <= 0.05 + limit(0.05, 40)
    assert np.mean(np.array(maximum) <= 0.05) > 0.3


def test_a_leak_that_adds_up_over_records_is_explained_by_them(quick):
    signal, held, cohort = study(0, n_patients=1500, n_models=32, most=8, leak=1.0)
    rng = np.random.default_rng(0)
    share = np.where(cohort.records_per_patient > 4, 0.9, 0.1)
    groups = pd.DataFrame({"s": np.where(rng.random(1500) < share, "often", "seldom")})
    _, risk = patient_risk(signal, held, cohort)
    table, overall = group_table(risk.joint, groups, top=0.1, covariates=covariates(cohort))
    row = table.set_index("value").loc["often"]
    assert row["mean_difference_low"] > 0.005
    assert row["adjusted_difference_low"] < 0 < row["adjusted_difference_high"]
    assert abs(row["adjusted_difference"]) < row["mean_difference"] / 3
    assert overall["s"]["p_adjusted"] > 0.05


def test_missing_values_are_a_group_and_unknown_risk_is_none():
    risk = np.append(np.linspace(0, 1, 50), np.nan)
    groups = pd.DataFrame({"sex": ["f", None, "m"] * 17})
    table, _ = group_table(risk, groups)
    assert set(table["value"]) == {"f", "m", MISSING}
    assert table["n_patients"].sum() == 50


def test_the_index_and_the_order_of_patients_do_not_matter():
    rng = np.random.default_rng(5)
    risk, groups = rng.random(200), pd.DataFrame({"s": rng.choice(["a", "b"], 200)})
    order = rng.permutation(200)
    one, _ = group_table(risk, groups)
    two, _ = group_table(risk[order], groups.iloc[order])
    pd.testing.assert_frame_equal(one, two, rtol=1e-9)


def test_ties_are_broken_by_chance(quick):
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
    assert not len(group_table(np.arange(3.0), pd.DataFrame())[0])


def test_refused():
    with pytest.raises(ArgumentError, match="top="):
        group_table(np.arange(3.0), pd.DataFrame(), top=2.0)
    with pytest.raises(ArgumentError, match="Expected 3 rows of groups, got 2"):
        group_table(np.arange(3.0), pd.DataFrame({"s": ["a", "b"]}))
    with pytest.raises(ArgumentError, match="covariates"):
        group_table(np.arange(3.0), pd.DataFrame({"s": list("aab")}), covariates=np.ones((2, 1)))


@pytest.mark.parametrize("design", ["fewer models", "tied"])
def test_noise_of_different_size_puts_no_group_into_the_tail(design):
    """A group whose areas spread more by chance is not more at risk."""
    rejected = by_area = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        late = np.arange(600) % 5 == 0
        held = balanced(64, 600, seed=seed)
        signal = rng.standard_normal((64, 600))
        if design == "fewer models":
            held[:, late] = balanced(64, int(late.sum()), fraction=0.125, seed=seed)
        else:
            signal[:, ~late] = np.where(signal[:, ~late] > 1.5, signal[:, ~late], 0.0)
        order = 1.0 - randomised_p_value(signal, held, seed)
        groups = pd.DataFrame({"late": np.where(late, "yes", "no")})
        risk = row_auc(signal, held).auc
        table, _ = group_table(risk, groups, order=order, seed=seed)
        rejected += table["p_value"].min() < 0.05
        table, _ = group_table(risk, groups, seed=seed)
        by_area += table["p_value"].min() < 0.05
    assert by_area > 20
    assert rejected <= 8
