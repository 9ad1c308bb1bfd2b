"""What is withheld cannot be worked out: linear programming as the attacker."""

import numpy as np
import pytest
from scipy.optimize import linprog

from confide.audits.suppression import (
    SMALL_CELL,
    coarser,
    jointly_withheld,
    shown_intersections,
    told,
    withheld,
)


@pytest.mark.parametrize(
    ("sizes", "hidden"),
    [
        ([400, 30, 10], [0, 0, 0]),
        ([400, 30, 9], [0, 1, 1]),  # a single one would follow from the total
        ([400, 30, 6, 5], [0, 0, 1, 1]),
        ([400, 30, 3, 4], [0, 1, 1, 1]),  # together fewer than 10
        ([500, 5], [1, 1]),
        ([5], [1]),
        ([3, 4], [1, 1]),
        ([400, 30, 0], [0, 1, 1]),  # 0: a number that is not known
        ([12, 12, 1, 40], [1, 0, 1, 0]),
        ([], []),
    ],
)
def test_values_of_one_group(sizes, hidden):
    assert withheld(np.array(sizes, dtype=np.int64)).tolist() == [bool(x) for x in hidden]


def test_numbers_as_they_may_be_told():
    assert [told(n) for n in (0, 1, 9, 10)] == ["0", "fewer than 10", "fewer than 10", "10"]


def span(unknown, equations, totals, aim):
    """Smallest and largest value of one unknown number that fits all that is known."""
    found = []
    for sign in (1, -1):
        goal = np.zeros(unknown)
        goal[aim] = sign
        answer = linprog(goal, A_eq=equations, b_eq=totals, bounds=(0, None), method="highs")
        found.append(np.inf if answer.status == 3 else sign * answer.fun)
    return found


def attack(sizes, rows, columns, shown):
    """Spans of all withheld cells and margins, empty cells and the total being known."""
    n, m = sizes.shape
    table = np.zeros((n + 1, m + 1), dtype=np.int64)
    table[:-1, :-1], table[:-1, -1] = sizes, sizes.sum(axis=1)
    table[-1] = table[:-1].sum(axis=0)
    gone = np.zeros(table.shape, dtype=bool)
    gone[:-1, :-1] = ~shown & (sizes > 0)
    gone[:-1, -1], gone[-1, :-1] = rows, columns
    places = {tuple(at): i for i, at in enumerate(np.argwhere(gone))}
    equations, totals = [], []
    for line in [[(i, j) for j in range(m + 1)] for i in range(n + 1)] + [
        [(i, j) for i in range(n + 1)] for j in range(m + 1)
    ]:
        row, total = np.zeros(len(places)), 0
        for k, at in enumerate(line):
            sign = -1 if k == len(line) - 1 else 1
            if gone[at]:
                row[places[at]] = sign
            else:
                total -= sign * table[at]
        equations.append(row)
        totals.append(total)
    return {
        at: (int(table[at]), span(len(places), np.array(equations), totals, i))
        for at, i in places.items()
    }


def margins_alone_tell(sizes, rows, columns, at):
    spans = attack(sizes, rows, columns, np.zeros(sizes.shape, dtype=bool))
    low, high = spans[at][1]
    return high - low < 1e-6


def check_random_tables(n_tables, seed):
    """Numbers of cells shown and of small cells kept from linear programming."""
    rng = np.random.default_rng(seed)
    n_shown = n_small = 0
    for _ in range(n_tables):
        shape = rng.integers(2, 6, 2)
        sizes = rng.poisson(rng.choice([0, 3, 15, 40], shape, p=[0.05, 0.1, 0.3, 0.55]))
        if not sizes.any(axis=0).all() or not sizes.any(axis=1).all():
            continue
        rows, columns = withheld(sizes.sum(axis=1)), withheld(sizes.sum(axis=0))
        shown = shown_intersections(sizes, rows, columns)
        assert (sizes[shown] >= SMALL_CELL).all()
        n_shown += shown.sum()
        for at, (true, (low, high)) in attack(sizes, rows, columns, shown).items():
            if true < SMALL_CELL:
                n_small += 1
                assert high - low >= 1 - 1e-6 or margins_alone_tell(sizes, rows, columns, at)
    return n_shown, n_small


def test_no_small_cell_follows_from_what_is_shown():
    n_shown, n_small = check_random_tables(20, seed=0)
    assert n_shown > 20
    assert n_small > 10


@pytest.mark.slow
def test_no_small_cell_follows_in_many_tables():
    n_shown, n_small = check_random_tables(300, seed=1)
    assert n_shown > 500
    assert n_small > 200


def test_intersections_show_all_where_nothing_is_small():
    sizes = np.full((3, 2), 10)
    assert shown_intersections(sizes, np.zeros(3, bool), np.zeros(2, bool)).all()


def test_a_small_cell_takes_its_rectangle_with_it():
    sizes = np.array([[100, 5, 60], [80, 20, 50], [90, 30, 40]])
    shown = shown_intersections(sizes, np.zeros(3, bool), np.zeros(3, bool))
    assert (~shown).sum() == 4
    assert not shown[0, 1]
    assert not shown[0, 2]  # the next smallest of its row
    assert not shown[1, 1]  # and of its column


def test_a_two_by_two_table_with_a_small_cell_shows_nothing():
    shown = shown_intersections(
        np.array([[5, 95], [100, 100]]), np.zeros(2, bool), np.zeros(2, bool)
    )
    assert not shown.any()


def test_a_bridge_between_two_blocks_is_seen():
    """Every line of the small cell has two withheld cells, and yet it would follow."""
    block = np.full((2, 2), 12)
    sizes = np.zeros((4, 4), dtype=np.int64)
    sizes[:2, :2] = sizes[2:, 2:] = block
    sizes[1, 2] = 3
    sizes[0, 0] = sizes[3, 3] = 4
    none = np.zeros(4, bool)
    shown = shown_intersections(sizes, none, none)
    for true, (low, high) in attack(sizes, none, none, shown).values():
        # What the margins and the empty cells give away, nothing can hide.
        assert true >= SMALL_CELL or high - low >= 1 - 1e-6 or not shown.any()
    assert not shown.any()


def test_a_withheld_margin_does_not_come_back_as_a_sum():
    sizes = np.array([[3, 2], [15, 0], [200, 300]])
    rows = withheld(sizes.sum(axis=1))
    assert rows.tolist() == [True, True, False]
    shown = shown_intersections(sizes, rows, np.zeros(2, bool))
    assert not shown[1, 0]  # it is the whole margin of its row


def test_a_small_cell_does_not_follow_from_a_second_group():
    race = np.repeat([0, 1, 2], [980, 15, 5])  # White, Black, Asian
    underserved = (race == 1).astype(np.intp)
    # White is 980 and "no" 985: five are Asian.
    assert withheld(np.bincount(underserved)).tolist() == [False, False]
    for order in ([race, underserved], [underserved, race]):
        found = {len(hidden): hidden.tolist() for hidden in jointly_withheld(order)}
        assert found == {3: [False, True, True], 2: [True, True]}


def test_groups_that_overlap_up_to_a_few_patients():
    one = np.repeat([0, 1, 2], [500, 300, 200])
    other = np.repeat([0, 1], [500, 500])
    other[:4] = 1  # "0" and "0" differ by these four
    hidden = jointly_withheld([one, other])
    assert hidden[1].all()
    assert not hidden[0].any()
    other[:12] = 1
    assert not any(gone.any() for gone in jointly_withheld([one, other]))


def test_three_nested_groups():
    fine = np.repeat(np.arange(6), [500, 300, 40, 30, 6, 5])
    middle = np.array([0, 1, 1, 2, 2, 0])[fine]  # 505, 340, 36
    coarse = np.array([0, 1, 1])[middle]  # 505, 376
    hidden = jointly_withheld([fine, middle, coarse])
    assert hidden[0].tolist() == [False, False, False, False, True, True]
    assert hidden[2].all()
    check_not_bounded([fine, middle, coarse], hidden)


def test_three_groups_of_one_finer_tell_it_only_together():
    """No two of the coarser groups with the finer one give the first value away; all three do."""
    fine = np.repeat(np.arange(5), [4, 8, 9, 30, 400])
    pairs = [np.array(half)[fine] for half in ([0, 0, 1, 1, 2], [0, 1, 0, 1, 2], [0, 1, 1, 0, 2])]
    hidden = jointly_withheld([fine, *pairs])
    check_not_bounded([fine, *pairs], hidden)
    assert any(gone.any() for gone in hidden[1:])


def check_not_bounded(columns, hidden):
    """Linear programming where all columns are functions of the first."""
    sizes = np.bincount(columns[0])
    first = np.unique(columns[0], return_index=True)[1]
    equations, totals = [np.ones(len(sizes))], [sizes.sum()]
    for codes, gone in zip(columns, hidden, strict=True):
        for value in np.flatnonzero(~gone):
            equations.append((codes[first] == value).astype(float))
            totals.append((codes == value).sum())
    for value in np.flatnonzero(sizes < SMALL_CELL):
        low, high = span(len(sizes), np.array(equations), totals, value)
        assert high >= SMALL_CELL - 1e-6
        assert high > low


def test_no_small_cell_follows_from_two_groups():
    """Every cell of two groups, margins alone being shown, against linear programming."""
    rng = np.random.default_rng(0)
    n_more = n_small = 0
    for _ in range(30):
        shape = rng.integers(2, 6, 2)
        table = rng.poisson(rng.choice([0, 3, 40, 200], shape, p=[0.5, 0.2, 0.15, 0.15]))
        table = table[table.any(axis=1)][:, table.any(axis=0)]
        if min(table.shape, default=0) < 2 or table.sum() < 20:
            continue
        cells = np.repeat(np.arange(table.size), table.ravel())
        rows, columns = jointly_withheld([cells // table.shape[1], cells % table.shape[1]])
        assert (rows >= withheld(table.sum(axis=1))).all()
        n_more += (rows != withheld(table.sum(axis=1))).any()
        n_more += (columns != withheld(table.sum(axis=0))).any()
        spans = attack(table, rows, columns, np.zeros(table.shape, dtype=bool))
        for true, (_, high) in spans.values():
            if true < SMALL_CELL:
                n_small += 1
                assert high >= SMALL_CELL - 1e-6
    assert n_more > 3
    assert n_small > 30


def test_ordinary_crossed_groups_lose_nothing():
    rng = np.random.default_rng(1)
    columns = [
        rng.choice(n_values, 3000, p=rng.dirichlet(np.full(n_values, 2.0)))
        for n_values in (2, 5, 12, 40)
    ]
    columns.append(rng.choice(4, 3000, p=[0.9, 0.09, 0.008, 0.002]))  # with a small one
    for hidden, codes in zip(jointly_withheld(columns), columns, strict=True):
        assert hidden.tolist() == withheld(np.bincount(codes)).tolist()
    assert coarser(columns) == [False] * 5


def test_a_group_twice_loses_nothing():
    codes = np.repeat([0, 1, 2], [500, 20, 5])
    for hidden in jointly_withheld([codes, codes]):
        assert hidden.tolist() == [False, True, True]
    assert coarser([codes, codes, codes // 2]) == [False, True, True]
