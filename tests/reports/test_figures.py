import dataclasses
import json

import pandas as pd
import pytest

from confide.reports import figures, groups_view


def _curve(rows):
    return pd.DataFrame(rows, columns=["curve", "series", "x", "y", "low", "high"])


def test_roc_leaves_out_what_a_logarithmic_axis_cannot_show():
    rows = [("roc", "lira", 0.0, 0.0, 0.0, 0.1), ("roc", "lira", 0.002, 0.01, 0.0, 0.02)]
    rows += [("roc", "lira", 0.5, 0.7, None, None), ("survival", "joint", 0.6, 0.2, 0.1, 0.3)]
    figure = figures.roc(_curve(rows))
    (series,) = figure["series"]
    assert series["name"] == "LiRA"
    assert (series["x"], series["y"]) == ([0.002, 0.5], [0.01, 0.7])
    assert (series["band_x"], series["low"], series["high"]) == ([0.002], [0.0], [0.02])
    assert figure["x_floor"] == figure["y_floor"] == pytest.approx(0.001)


def test_survival_is_drawn_from_chance_upwards(make_result):
    figure = figures.survival(make_result().curves)
    styles = ["measured", "null", "corrected", "beside", "null"]
    assert [series["style"] for series in figure["series"]] == styles
    assert [series["colour"] for series in figure["series"]] == [0, 0, 2, 1, 1]
    assert len({series["name"] for series in figure["series"]}) == 5
    assert min(figure["series"][0]["x"]) == 0.5
    assert [bool(series["band_x"]) for series in figure["series"]] == [True] * 3 + [False] * 2
    assert figure["chance_band"]
    assert figure["y_floor"] == pytest.approx(0.001)  # 1 of 455 patients is 0.2 %


def test_one_record_a_patient_is_drawn_once():
    rows = [
        ("survival", name, x, y, y / 2, y * 1.2)
        for name, high in (("joint", 0.4), ("joint_null", 0.3), ("max", 0.4), ("max_null", 0.2))
        for x, y in ((0.6, high), (0.7, high / 2))
    ]
    names = figures.survival(_curve(rows))["drawn"]
    assert names == ["joint", "joint_null"]
    rows[4] = ("survival", "max", 0.6, 0.41, 0.2, 0.5)
    assert len(figures.survival(_curve(rows))["drawn"]) == 4


def test_bounds_of_a_share_of_zero_are_drawn():
    rows = [("survival", "joint_corrected", x, y, 0.0, 0.1) for x, y in ((0.6, 0.05), (0.7, 0.0))]
    (series,) = figures.survival(_curve(rows))["series"]
    assert (series["x"], series["band_x"]) == ([0.6], [0.6, 0.7])


def test_a_screen_has_no_roc_curve():
    rows = [("roc", name, 0.1, 0.2, 0.1, 0.3) for name in ("lt_iqr", "lira")]
    assert [one["name"] for one in figures.roc(_curve(rows))["series"]] == ["LiRA"]
    assert figures.roc(_curve(rows[:1])) is None


def _survival(*names):
    """Shares that fall by x in known steps: .4, .3, ... of 200 patients."""
    grids = {"joint_corrected": (0.5, 0.6, 0.7)}
    falling = {
        "joint": 0.9,
        "joint_null": 0.5,
        "joint_corrected": 0.8,
        "max": 0.95,
        "max_null": 0.6,
    }
    return _curve(
        [
            ("survival", name, x, falling[name] - (x - 0.5), 0.1, 0.95)
            for name in names
            for x in grids.get(name, (0.4, 0.5, 0.55, 0.6, 0.65, 0.7))
        ]
    )


def _patients(n=200, n_max=199):
    auc = pd.Series([0.7] * n + [None])
    return pd.DataFrame({"auc_joint": auc, "auc_max": auc.where(auc.index < n_max)})


def test_thresholds_tell_of_one_point_that_everything_has():
    curves = _survival("joint", "joint_null", "joint_corrected", "max", "max_null")
    found = figures.thresholds(curves, _patients())
    assert (found["at"], found["step"]) == ([0.5, 0.6, 0.7], 0.1)
    assert found["said"][1] == (
        "At or above AUC 0.600: 160 of 200 patients measured, where 80 are expected by chance; "
        "corrected for noise 140 (95% bounds 20 to 190).\n"
        "By the worst record: 169 of 199, where 100 are expected by chance."
    )


def test_thresholds_without_a_corrected_curve_have_the_grid_of_the_measured():
    found = figures.thresholds(_survival("joint", "joint_null"), _patients())
    assert found["at"] == [0.5, 0.55, 0.6, 0.65, 0.7]
    assert found["said"][-1] == (
        "At or above AUC 0.700: 140 of 200 patients measured, where 60 are expected by chance."
    )
    alone = figures.thresholds(_survival("joint"), _patients())
    assert alone["said"][0] == "At or above AUC 0.500: 180 of 200 patients measured."


@pytest.mark.parametrize(
    ("share", "said"),
    [(0.0, "0 are"), (0.0004, "fewer than 0.1 are"), (0.0166, "3.3 are"), (0.2, "40 are")],
)
def test_few_by_chance_are_no_whole_number(share, said):
    curves = _survival("joint", "joint_null")
    curves.loc[curves["series"] == "joint_null", "y"] = share
    found = figures.thresholds(curves, _patients())
    assert f"where {said} expected by chance." in found["said"][0]


def test_no_thresholds_without_a_curve_or_patients(make_result):
    result = make_result()
    assert figures.thresholds(result.curves.iloc[:0], result.patients) is None
    assert figures.thresholds(result.curves, result.patients.drop(columns="auc_joint")) is None
    assert figures.thresholds(_survival("max"), _patients()) is None


def test_thresholds_count_the_patients_of_the_table(make_result):
    result = make_result()
    found = figures.thresholds(result.curves, result.patients)
    for x, said in zip(found["at"], found["said"], strict=True):
        n = int((result.patients["auc_joint"] >= x - 1e-12).sum())
        assert said.startswith(f"At or above AUC {x:.3f}: {n} of 455 patients measured")


@pytest.mark.parametrize("curves", [pd.DataFrame(), _curve([("roc", "lira", 0, 0, 0, 0)])])
def test_no_points_no_figure(curves):
    assert figures.roc(curves) is None
    assert figures.survival(curves) is None


def test_json_survives_a_script_element_and_comes_back_unchanged(hostile):
    text = figures.to_json(list(hostile))
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == list(hostile)


def _forest(make_result, **columns):
    result = make_result(groups={"site": {"a": 50, "b": 60}})
    table = result.groups.assign(**columns)
    found = groups_view.groups(dataclasses.replace(result, groups=table))
    return figures.forest([group.cells for group in found])


def test_forest_is_logarithmic_and_shares_one_axis(make_result):
    forest = _forest(make_result, ratio=[1, 2], ratio_low=[0.5, 1], ratio_high=[2, 4])
    a, b = forest.marks[0]
    ticks = {text: place for place, text in forest.ticks}
    assert list(ticks) == ["1/2", "1", "2", "4"]
    assert (a.left, a.dot, a.right) == (ticks["1/2"], ticks["1"], ticks["2"])
    assert (b.left, b.dot, b.right) == (ticks["1"], ticks["2"], ticks["4"])
    assert forest.one == ticks["1"]
    assert ticks["2"] - ticks["1"] == pytest.approx(ticks["4"] - ticks["2"])
    assert (a.cut_left, a.cut_right) == (False, False)


def test_forest_marks_what_goes_on_beyond_the_axis(make_result):
    forest = _forest(make_result, ratio=[0, 2], ratio_low=[0, 1], ratio_high=[float("inf"), 4000.0])
    a, b = forest.marks[0]
    assert a.dot is None  # a ratio of 0 has no place on a logarithmic axis
    assert (a.cut_left, a.cut_right) == (True, True)
    assert (b.cut_left, b.cut_right) == (False, True)
    assert a.right == b.right == max(place for place, _ in forest.ticks)


def test_forest_without_cells_or_intervals(make_result):
    assert figures.forest([]).marks == ()
    forest = _forest(make_result, ratio_low=[None, 1.0], ratio_high=[None, 2.0])
    assert forest.marks[0][0] is None
    assert forest.marks[0][1] is not None
