"""What a model says about other records tells how its draw and seed moved this one.

The residuals of a target over many records are regressed on those of the references (ridge), and
the regression predicts its residual on each record from the references' residuals there.  Only an
n_models x n_models matrix is kept, so that records can be streamed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from confide.errors import ArgumentError

Floats = NDArray[np.float64]
_RIDGE = 0.3
"""Ridge, as a share of the mean variance of the references; .05 to 2 do about as well."""


class CoSignals:
    """Ridge regression of targets' residuals on references' residuals, over records.

    First :meth:`add` all records, then :meth:`predict` them; both in standard units (divided by
    the standard deviation of the record), 0 where a residual is unknown.

    Parameters
    ----------
    n_targets, n_references : numbers of models
    """

    def __init__(self, n_targets: int, n_references: int) -> None:
        self._products = np.zeros((n_references, n_references))
        self._with_targets = np.zeros((n_targets, n_references))
        self._inverse: Floats | None = None

    def add(self, references: Floats, targets: Floats) -> None:
        """Add records: (n_references, n_records) and (n_targets, n_records) residuals."""
        if self._inverse is not None:
            raise ArgumentError("Add all records before the first prediction.")
        self._products += references @ references.T
        self._with_targets += targets @ references.T

    def predict(self, references: Floats, targets: Floats) -> Floats:
        """Predict the targets' residuals on records that were added, each from the others.

        Leaving a record out of the regression is exact: (fit - h y) / (1 - h), with its leverage h.

        Returns
        -------
        (n_targets, n_records) in standard units
        """
        n = len(self._products)
        if self._inverse is None:
            scale = float(np.trace(self._products)) / n
            ridge = _RIDGE * scale if scale > 0 else 1.0
            self._inverse = np.asarray(np.linalg.inv(self._products + ridge * np.eye(n)), float)
        inverse = self._inverse
        fit = self._with_targets @ inverse @ references
        leverage = (references * (inverse @ references)).sum(axis=0)
        # Below 1 by the ridge; the bound keeps a lone record from blowing up.
        leverage = np.minimum(leverage, 0.9)
        return (fit - leverage * targets) / (1.0 - leverage)
