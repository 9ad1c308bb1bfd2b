"""Which cells of a table of counts must not be shown, so that no small one can be worked out.

A cell of 1 to 9 patients is small.  To withhold it is not enough where the rest of its line and
the total are shown: it follows by subtraction.  So further cells, the smallest first, are
withheld with it (complementary suppression), and it is not said which are small.

Groups that nest or overlap tell of each other: of White 980 and "no" 985 follow 5 patients who are
neither White nor "yes".  So the values of all groups are decided together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.sparse import csr_array, eye_array, hstack

Counts = NDArray[np.int64]
Mask = NDArray[np.bool_]
Codes = NDArray[np.intp]

SMALL_CELL = 10
"""Figures of fewer patients than this are withheld from everything that may be shared."""

_EXACT = 1e-6  # of the linear programmes


def told(n: int) -> str:
    """A number of patients as it may be told: exactly, or as fewer than 10.

    >>> told(0), told(3), told(1234)
    ('0', 'fewer than 10', '1,234')
    """
    return f"fewer than {SMALL_CELL}" if 0 < n < SMALL_CELL else f"{n:,}"


def withheld(sizes: Counts) -> Mask:
    """Which values of one group to withhold, their total being known.

    Parameters
    ----------
    sizes : (n_values,) numbers of patients; 0 where a number is not known

    Returns
    -------
    (n_values,) bool.  Every value of fewer than 10 patients; and where these are a single one, or
    fewer than 10 together, the next smallest as well, until what the shown values leave of the
    total is at least two values and 10 patients (or nothing is left to withhold).
    """
    return _completed(sizes, np.asarray(sizes) < SMALL_CELL)


def _completed(sizes: Counts, hidden: Mask) -> Mask:
    """With the smallest further values, until the total does not give the `hidden` ones away."""
    hidden = hidden.copy()
    if hidden.any():
        for i in np.argsort(sizes, kind="stable"):
            if hidden.sum() >= 2 and sizes[hidden].sum() >= SMALL_CELL:
                break
            hidden[i] = True
    return hidden


def jointly_withheld(columns: Sequence[Codes]) -> list[Mask]:
    """Which values of several groups to withhold, all being shown side by side.

    Parameters
    ----------
    columns : for each group (n_patients,) the number of each patient's value, 0 to n_values - 1,
        each value having a patient

    Returns
    -------
    For each group (n_values,) bool: what :func:`withheld` withholds, and further values until, for
    no two groups, the shown numbers bound a number of 1 to 9 patients with one value of each to
    fewer than 10.  Of the numbers that tell it, the smallest of the group with the fewest values
    goes first.  Groups of which nothing follows lose nothing.

    Notes
    -----
    The largest number of patients in a cell that agrees with what is shown is a linear programme;
    its dual names the numbers that tell it.  It knows which cells are empty, which is the safer
    assumption, and all groups that are a function of the two, so that any number of groups nested
    in one are judged together.  What only three or more crossed groups tell together is not
    looked for.  Withholding more never tells more, so each pair is judged once.
    """
    sizes = [np.bincount(codes) for codes in columns]
    hidden = [withheld(n) for n in sizes]
    for i, j in combinations(range(len(columns)), 2):
        cells = _Cells.of(columns, i, j)
        while telling := cells.telling(sizes, hidden):
            column, value = min(
                telling, key=lambda at: (len(sizes[at[0]]), -at[0], sizes[at[0]][at[1]])
            )
            hidden[column][value] = True
            hidden[column] = _completed(sizes[column], hidden[column])
    return hidden


def coarser(columns: Sequence[Codes]) -> list[bool]:
    """Whether each group is a function of another, finer one (of two equal ones, the later)."""
    n = [int(codes.max(initial=-1)) + 1 for codes in columns]
    return [
        any((n[i], -i) > (n[j], -j) and _function(columns[j], columns[i]) for i in range(len(n)))
        for j in range(len(n))
    ]


def _function(codes: Codes, of: Codes) -> bool:
    """Whether patients alike in `of` are alike in `codes`."""
    value = np.zeros(int(of.max(initial=-1)) + 1, dtype=np.intp)
    value[of] = codes
    return bool((value[of] == codes).all())


@dataclass(frozen=True, kw_only=True)
class _Cells:
    """The cells with patients of two groups, and `values` (n_cells,) of each group they fix."""

    sizes: Counts
    values: dict[int, Codes]

    @classmethod
    def of(cls, columns: Sequence[Codes], one: int, other: int) -> _Cells:
        pair = columns[one] * (columns[other].max(initial=0) + 1) + columns[other]
        _, first, cell, sizes = np.unique(
            pair, return_index=True, return_inverse=True, return_counts=True
        )
        fixed = {
            k: codes[first]
            for k, codes in enumerate(columns)
            if k in (one, other) or bool((codes[first][cell] == codes).all())
        }
        return cls(sizes=sizes, values=fixed)

    def telling(self, sizes: list[Counts], hidden: list[Mask]) -> list[tuple[int, int]]:
        """(group, value) of the shown numbers that bound a small cell; none where none is."""
        shown = {k: value for k, value in self.values.items() if not hidden[k].all()}
        if len(shown) < 2:
            return []  # one group alone: its values are decided already
        # Cells that no shown number tells apart are one: any of them may hold all its patients.
        signs = np.stack([np.where(hidden[k][value], -1, value) for k, value in shown.items()])
        signs, cell = np.unique(signs, axis=1, return_inverse=True)
        n = np.bincount(cell.ravel(), weights=self.sizes).astype(np.int64)
        open_ = n < SMALL_CELL
        if len(shown) == 2 and open_.any():
            open_ &= ~_exchangeable(n, signs)
        if not open_.any():
            return []
        names = [
            (k, int(v)) for k, sign in zip(shown, signs, strict=True) for v in set(sign[sign >= 0])
        ]
        place = {name: i for i, name in enumerate(names)}
        at = [
            (place[k, int(v)], c)
            for k, sign in zip(shown, signs, strict=True)
            for c, v in enumerate(sign)
            if v >= 0
        ] + [(len(names), c) for c in range(len(n))]
        row, column = np.array(at).T
        equations = csr_array((np.ones(len(at)), (row, column)), shape=(len(names) + 1, len(n)))
        totals = np.array([float(sizes[k][v]) for k, v in names] + [float(n.sum())])
        return [names[i] for i in _bounding(equations, totals, open_) if i < len(names)]


def _exchangeable(n: Counts, signs: Codes) -> Mask:
    """Cells of two groups that reach 10 patients by one exchange: which keeps all margins.

    Patients of another cell of the row move in, as many of the column move out, to where both
    lines cross; only cells with patients can take any.
    """
    rows, i = np.unique(signs[0], return_inverse=True)
    columns, j = np.unique(signs[1], return_inverse=True)
    table = np.zeros((len(rows), len(columns)), dtype=np.int64)
    table[i, j] = n
    found = n >= SMALL_CELL
    # Most cells find theirs where the largest of their row and of their column cross.
    best_j, best_i = table.argmax(axis=1)[i], table.argmax(axis=0)[j]
    moved = np.minimum(table[i, best_j], table[best_i, j])
    crossed = (table[best_i, best_j] > 0) & (best_i != i) & (best_j != j)
    found |= crossed & (n + moved >= SMALL_CELL)
    for c in np.flatnonzero(~found):
        others, along = np.flatnonzero(table[:, j[c]]), np.flatnonzero(table[i[c]])
        others, along = others[others != i[c]], along[along != j[c]]
        moved = np.minimum(table[others, j[c]][:, None], table[i[c], along][None, :])
        gain = moved[table[np.ix_(others, along)] > 0].max(initial=0)
        found[c] = n[c] + gain >= SMALL_CELL
    return found


def _bounding(equations: Any, totals: NDArray[np.float64], open_: Mask) -> Codes:
    """Equations that bound one of the `open_` unknowns below 10; none where all may reach 10."""
    n = len(open_)
    left = open_.copy()
    while left.any():
        # One programme settles many: as much as possible in all of them, up to 10 in each.
        at = np.flatnonzero(left)
        take = csr_array((np.ones(len(at)), (np.arange(len(at)), at)), shape=(len(at), n))
        both: Any = hstack([-take, eye_array(len(at))])
        wide: Any = hstack([equations, csr_array((len(totals), len(at)))])
        limits: Any = [(0, None)] * n + [(0, SMALL_CELL)] * len(at)
        answer: Any = linprog(
            np.append(np.zeros(n), -np.ones(len(at))),
            A_ub=both,
            b_ub=np.zeros(len(at)),
            A_eq=wide,
            b_eq=totals,
            bounds=limits,
        )
        before = int(left.sum())
        left &= answer.x[:n] < SMALL_CELL - _EXACT
        if left.sum() < before:
            continue
        goal = np.zeros(n)
        goal[at[0]] = -1.0
        answer = linprog(goal, A_eq=equations, b_eq=totals)
        if -answer.fun < SMALL_CELL - _EXACT:
            return np.flatnonzero(np.abs(answer.eqlin.marginals) > _EXACT)
        left &= answer.x < SMALL_CELL - _EXACT
    return np.zeros(0, dtype=np.intp)


def shown_intersections(sizes: Counts, rows: Mask, columns: Mask) -> Mask:
    """Which cells of a two-way table may be shown beside its margins.

    Parameters
    ----------
    sizes : (n_rows, n_columns) numbers of patients
    rows, columns : which margins are withheld, by :func:`withheld` or :func:`jointly_withheld`

    Returns
    -------
    (n_rows, n_columns) bool, of cells of at least 10 patients.  No cell of fewer than 10 and no
    withheld margin can be worked out from what is shown; where that would take more than
    withholding the smallest cells of a line, no cell is shown.

    Notes
    -----
    Empty cells are taken to be known to whoever reads the table, which is the safer assumption.
    The table with its margins is a graph: rows and columns are its nodes, withheld cells its
    edges.  A withheld cell follows from the rest exactly if its edge is a bridge (Gusfield, SIAM
    J. Comput. 17 (1988) 552-571), that is, if its effective resistance is 1.
    """
    table = np.zeros((len(rows) + 1, len(columns) + 1), dtype=np.int64)
    table[:-1, :-1] = sizes
    table[:-1, -1], table[-1, :-1] = sizes.sum(axis=1), sizes.sum(axis=0)
    hidden = (table > 0) & (table < SMALL_CELL)
    hidden[:-1, -1], hidden[-1, :-1] = rows, columns
    hidden[-1, -1] = False
    while _complete_lines(table, hidden) or _complete_lines(table.T, hidden.T):
        pass
    kept = table < SMALL_CELL
    kept[:-1, -1] |= rows  # of any size: beside another group it would tell a small number
    kept[-1, :-1] |= columns
    if (_determined(hidden) & kept).any():
        hidden[:-1, :-1] = True
    shown: Mask = (table >= SMALL_CELL)[:-1, :-1] & ~hidden[:-1, :-1]
    return shown


def _complete_lines(table: Counts, hidden: Mask) -> bool:
    """Withhold one cell more in each row that needs it; whether there was any."""
    changed = False
    for line, gone in zip(table[:-1], hidden[:-1], strict=True):
        crossed = np.asarray(hidden[:-1].any(axis=0))
        n, total = int(gone.sum()), int(line[gone].sum())
        enough = n >= 2 and (bool(gone[-1]) or total >= SMALL_CELL)
        free = np.flatnonzero((line[:-1] > 0) & ~gone[:-1])
        if n and not enough and len(free):
            # In a column that has lost a cell anyway, if there is one: so fewer are lost in all.
            gone[free[np.lexsort((line[free], ~crossed[free]))[0]]] = True
            changed = True
    return changed


def _determined(hidden: Mask) -> Mask:
    """Which withheld cells of a table with margins follow from all that is shown."""
    n_rows = len(hidden)
    edges = hidden.astype(np.float64)
    laplacian = np.diag(np.concatenate([edges.sum(axis=1), edges.sum(axis=0)]))
    laplacian[:n_rows, n_rows:] = -edges
    laplacian[n_rows:, :n_rows] = -edges.T
    inverse = np.linalg.pinv(laplacian, hermitian=True)
    own = np.diag(inverse)
    resistance = own[:n_rows, None] + own[None, n_rows:] - 2 * inverse[:n_rows, n_rows:]
    bridge: Mask = hidden & (resistance > 1 - 1e-6)
    return bridge
