"""Which cells of a table of counts must not be shown, so that no small one can be worked out.

A cell of 1 to 9 patients is small.  To withhold it is not enough where the rest of its line and
the total are shown: it follows by subtraction.  So further cells, the smallest first, are
withheld with it (complementary suppression), and it is not said which are small.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
Mask = NDArray[np.bool_]

SMALL_CELL = 10
"""Figures of fewer patients than this are withheld from everything that may be shared."""


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
    hidden = np.asarray(sizes) < SMALL_CELL
    if hidden.any():
        for i in np.argsort(sizes, kind="stable"):
            if hidden.sum() >= 2 and sizes[hidden].sum() >= SMALL_CELL:
                break
            hidden[i] = True
    return hidden


def shown_intersections(sizes: Counts, rows: Mask, columns: Mask) -> Mask:
    """Which cells of a two-way table may be shown beside its margins.

    Parameters
    ----------
    sizes : (n_rows, n_columns) numbers of patients
    rows, columns : which margins are withheld, by :func:`withheld`

    Returns
    -------
    (n_rows, n_columns) bool, of cells of at least 10 patients.  No cell and no withheld margin of
    fewer than 10 can be worked out from what is shown; where that would take more than
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
    if (_determined(hidden) & (table < SMALL_CELL)).any():
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
