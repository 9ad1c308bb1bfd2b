import dataclasses
import itertools

import pytest

from confide.reports import beside, groups_view

GROUPS = {
    "sex": {"Female": 227, "Male": 228},
    "race": {"White": 300, "Black": 80, "Asian": 68, "Other": 7},
}


def _drawn(result):
    overall = groups_view.utility_overall(result.summary)
    return beside.beside(groups_view.utility_by_group(result), overall)


def test_points_are_placed_on_common_axes(make_result):
    drawn = _drawn(make_result(groups=GROUPS))
    assert [panel.group for panel in drawn.panels] == ["sex", "race"]
    female, male = sorted(drawn.panels[0].points, key=lambda point: point.name)
    # 0.930 and 0.933, each +- 0.01, and the same difference of +0.02 (-0.01 to +0.05).
    assert male.x[0] - female.x[0] == pytest.approx((female.x[2] - female.x[1]) * 0.15, abs=0.2)
    assert female.y == male.y
    middle, low, high = female.y
    assert low - high == pytest.approx(2 * (low - middle), abs=0.2)  # pixels go downwards
    assert drawn.zero == pytest.approx(middle + (low - middle) * 2 / 3, abs=0.2)
    for points in (panel.points for panel in drawn.panels):
        for point in points:
            assert beside.LEFT <= point.x[1] <= point.x[2] <= beside.RIGHT
            assert beside.TOP <= point.y[2] <= point.y[1] <= beside.BOTTOM
    assert beside.LEFT <= drawn.overall <= beside.RIGHT


def test_what_is_withheld_is_not_drawn(make_result):
    race = _drawn(make_result(groups=GROUPS)).panels[1]
    # Asian goes with Other, of whom there are seven.
    assert {point.name for point in race.points} == {"White", "Black"}
    assert "Other" not in race.label
    assert race.n_left_out == 0


def test_groups_of_fewer_than_two_values_have_no_panel(make_result):
    one = make_result(groups={"site": {"a": 446, "b": 9}})
    assert _drawn(one) is None
    assert beside.beside({}, None) is None
    none = make_result()
    none = dataclasses.replace(none, groups=none.groups.assign(mean_difference=None))
    assert _drawn(none) is None


def test_many_values_are_cut_and_names_do_not_meet(make_result):
    result = make_result(
        groups={"site": {f"a very long name of site {i}": 40 + i for i in range(30)}}
    )
    (panel,) = _drawn(result).panels
    assert len(panel.points) == beside.MOST_POINTS
    assert panel.n_left_out == 18
    heights = [point.name_y for point in panel.points]
    assert all(b - a >= 14.9 for a, b in itertools.pairwise(heights))
    assert beside.TOP <= heights[0] <= heights[-1] <= beside.BOTTOM
    assert all(len(point.name) <= 17 for point in panel.points)
