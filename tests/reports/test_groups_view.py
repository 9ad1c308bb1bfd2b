import dataclasses

import numpy as np

from confide.reports import groups_view as view


def test_small_cells_hold_no_figure(make_result):
    result = make_result(groups={"race": {"White": 400, "Ten": 10, "Nine": 9, "Unknown": 5}})
    result.groups["n_patients"] = result.groups["n_patients"].astype(float)
    result.groups.loc[3, "n_patients"] = np.nan
    cells = {cell.value: cell for cell in view.groups(result)[0].cells}
    # Nine and one of unknown size may be fewer than 10 together, so Ten goes with them.
    assert [name for name, cell in cells.items() if cell.withheld] == ["Ten", "Nine", "Unknown"]
    empty = view.Cell(group="race", value="Nine", withheld=True)
    assert cells["Nine"] == empty
    assert empty.n_patients == "withheld"
    assert {cell.value for cell in view.top_cells(result, 9)} == {"White"}


def test_a_single_small_cell_takes_the_next_with_it_and_nobody_knows_which(make_result):
    result = make_result(groups={"race": {"White": 400, "Black": 60, "Asian": 30, "Other": 4}})
    cells = view.groups(result)[0].cells
    assert [cell.withheld for cell in cells] == [False, False, True, True]
    asian, other = cells[2:]
    assert {**vars(asian), "value": ""} == {**vars(other), "value": ""}


def test_small_cells_of_utility_hold_no_figure(make_result):
    result = make_result()
    result.summary["utility"]["by_group"] = {
        "race": {
            "Nine": {"auroc": 0.987, "n_patients": 9},
            "Ten": {"auroc": 0.9, "n_patients": 10},
            "Many": {"auroc": 0.8, "n_patients": 40},
        }
    }
    nine, ten, many = view.utility_by_group(result)["race"]
    assert nine == view.Utility(value="Nine", withheld=True)
    assert ten == view.Utility(value="Ten", withheld=True)
    assert (many.auroc, many.accuracy, many.beside) == ("0.800", "n/a", None)


def test_what_the_audit_withholds_is_withheld_in_both_tables(make_result):
    result = make_result(groups={"race": {"a": 400, "b": 60}, "sex": {"f": 230, "m": 230}})
    result.groups["withheld"] = [True, True, False, False]
    result.summary["utility"]["by_group"]["sex"]["m"]["withheld"] = True
    assert [[c.withheld for c in g.cells] for g in view.groups(result)] == [[True] * 2, [False] * 2]
    assert {cell.group for cell in view.top_cells(result, 9)} == {"sex"}
    by_group = view.utility_by_group(result)
    assert [one.withheld for one in by_group["race"]] == [True, True]
    assert [one.withheld for one in by_group["sex"]] == [False, True]


def test_utility_stands_beside_the_privacy_of_the_same_value(make_result):
    result = make_result()
    by_group = view.utility_by_group(result)
    for group in view.groups(result):
        for one, cell in zip(by_group[group.name], group.cells, strict=True):
            assert one.beside == cell


def test_few_conflicts_are_a_small_cell_too(make_result):
    sex, race, _ = view.groups(make_result())
    assert sex.n_conflicts == "fewer than 10"
    assert race.n_conflicts == "95"


def test_pairs_are_no_group_and_come_by_their_p(make_result):
    groups = {"a": {"0": 200, "1": 255}, "a & b": {"0 & 0": 100, "0 & 1": 9, "1 & 1": 50}}
    result = make_result(groups=groups)
    del result.summary["groups"]["a & b"]
    result.groups["p_value"] = [0.5, 0.2, 0.4, 0.0, 0.3]
    assert [group.name for group in view.groups(result)] == ["a"]
    assert [cell.value for cell in view.pairs(result)] == ["1 & 1", "0 & 0"]
    found = [cell.full_name for cell in view.top_cells(result, 3)]
    assert found == ["a: 1", "a & b: 1 & 1", "a & b: 0 & 0"]


def test_a_group_of_the_user_may_be_called_like_a_pair(make_result):
    result = make_result(groups={"R & D": {"yes": 100, "no": 355}})
    assert [group.name for group in view.groups(result)] == ["R & D"]
    assert view.pairs(result) == []


def test_differences_have_a_sign(make_result):
    cell = view.groups(make_result())[0].cells[0]
    assert (cell.difference, cell.difference_interval) == ("+0.020", "-0.010 to +0.050")
    assert (cell.adjusted, cell.adjusted_interval) == ("-0.004", "-0.030 to +0.022")


def test_a_table_without_the_newer_columns(make_result):
    result = make_result()
    extra = [name for name in result.groups if "difference" in name or name == "p_holm"]
    result = dataclasses.replace(result, groups=result.groups.drop(columns=extra))
    cell = view.groups(result)[0].cells[0]
    assert cell.adjusted == cell.p_holm == cell.difference_interval == "n/a"
